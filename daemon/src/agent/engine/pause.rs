//! The image that holds a pod's namespaces, made here so that no registry is needed.
//!
//! One static ELF file of a few hundred bytes. It asks the kernel to reap its children by itself (SIGCHLD
//! ignored, for pods that share a process namespace) and then waits for ever:
//!
//! ```c
//! struct sigaction ignore = { .sa_handler = SIG_IGN };
//! rt_sigaction(SIGCHLD, &ignore, NULL, 8);
//! for (;;) pause();            // ppoll(NULL, 0, NULL, NULL) where there is no pause
//! ```
//!
//! It does not answer SIGTERM (process 1 ignores what it has no handler for), so its containers are created
//! with SIGKILL as their stop signal.

use super::EngineError;

/// The name that the image is known by on every desktop.
pub const PAUSE_IMAGE: &str = "gaggle.dev/pause:1";

const LOAD_ADDRESS: u64 = 0x40_0000;
const ELF_HEADER_BYTES: usize = 64;
const PROGRAM_HEADER_BYTES: usize = 56;
const CODE_OFFSET: usize = ELF_HEADER_BYTES + PROGRAM_HEADER_BYTES;
const TAR_BLOCK_BYTES: usize = 512;

/// A layer for `docker import` with `/pause` in it, for a machine as `uname -m` spells it.
pub fn pause_image(arch: &str) -> Result<Vec<u8>, EngineError> {
    let elf = match arch {
        "x86_64" | "amd64" => elf(0x3e, &x86_64_code()),
        "aarch64" | "arm64" => elf(0xb7, &aarch64_code()),
        other => {
            return Err(EngineError::Refused(format!(
                "this desktop's processor ({other}) is not one that the pause image is made for (x86_64, aarch64)"
            )));
        }
    };
    Ok(tar_of("pause", &elf))
}

/// `struct sigaction` as both kernels lay it out: handler (SIG_IGN is 1), flags, restorer, mask.
fn ignore_action() -> [u8; 32] {
    let mut action = [0; 32];
    action[0] = 1;
    action
}

fn x86_64_code() -> Vec<u8> {
    let mut code = vec![
        0xbf, 17, 0, 0, 0, // mov edi, SIGCHLD
        0x48, 0x8d, 0x35, 0, 0, 0, 0, // lea rsi, [rip + action] (filled in below)
        0x31, 0xd2, // xor edx, edx
        0x41, 0xba, 8, 0, 0, 0, // mov r10d, 8
        0xb8, 13, 0, 0, 0, // mov eax, rt_sigaction
        0x0f, 0x05, // syscall
        0xb8, 34, 0, 0, 0, // wait: mov eax, pause
        0x0f, 0x05, // syscall
        0xeb, 0xf7, // jmp wait
    ];
    const AFTER_LEA: usize = 12;
    while !code.len().is_multiple_of(8) {
        code.push(0x90); // nop: the action is aligned
    }
    let distance = (code.len() - AFTER_LEA) as u32;
    code[AFTER_LEA - 4..AFTER_LEA].copy_from_slice(&distance.to_le_bytes());
    code.extend(ignore_action());
    code
}

fn aarch64_code() -> Vec<u8> {
    const SVC: u32 = 0xd400_0001;
    const NOP: u32 = 0xd503_201f;
    /// movz xREGISTER, #value
    const fn mov(register: u32, value: u32) -> u32 {
        0xd280_0000 | value << 5 | register
    }
    const INSTRUCTIONS: u32 = 14;
    let words: [u32; INSTRUCTIONS as usize] = [
        mov(0, 17),                                // SIGCHLD
        0x1000_0000 | (INSTRUCTIONS - 1) << 5 | 1, // adr x1, action (so many words on)
        mov(2, 0),
        mov(3, 8),
        mov(8, 134), // rt_sigaction
        SVC,
        mov(0, 0), // wait:
        mov(1, 0),
        mov(2, 0),
        mov(3, 0),
        mov(8, 73), // ppoll
        SVC,
        0x1400_0000 | (0x03ff_ffff & (-6i32 as u32)), // b wait
        NOP,                                          // the action is aligned
    ];
    let mut code: Vec<u8> = words.iter().flat_map(|word| word.to_le_bytes()).collect();
    code.extend(ignore_action());
    code
}

/// A 64-bit little-endian executable with one segment that can be read and executed.
fn elf(machine: u16, code: &[u8]) -> Vec<u8> {
    let size = (CODE_OFFSET + code.len()) as u64;
    let mut file = Vec::with_capacity(size as usize);
    file.extend(b"\x7fELF\x02\x01\x01\0\0\0\0\0\0\0\0\0"); // 64 bits, little endian, System V
    file.extend(2u16.to_le_bytes()); // executable
    file.extend(machine.to_le_bytes());
    file.extend(1u32.to_le_bytes()); // version
    file.extend((LOAD_ADDRESS + CODE_OFFSET as u64).to_le_bytes()); // entry
    file.extend((ELF_HEADER_BYTES as u64).to_le_bytes()); // program headers at
    file.extend(0u64.to_le_bytes()); // no section headers
    file.extend(0u32.to_le_bytes()); // flags
    for half in [ELF_HEADER_BYTES as u16, PROGRAM_HEADER_BYTES as u16, 1, 0, 0, 0] {
        file.extend(half.to_le_bytes());
    }
    file.extend(1u32.to_le_bytes()); // PT_LOAD
    file.extend(5u32.to_le_bytes()); // read, execute
    for word in [0, LOAD_ADDRESS, LOAD_ADDRESS, size, size, 0x1_0000] {
        file.extend(word.to_le_bytes()); // offset, addresses, sizes, alignment
    }
    file.extend(code);
    file
}

/// A POSIX tar archive with one executable file.
fn tar_of(name: &str, content: &[u8]) -> Vec<u8> {
    let mut header = [0u8; TAR_BLOCK_BYTES];
    let mut field = |at: usize, text: &str| header[at..at + text.len()].copy_from_slice(text.as_bytes());
    field(0, name);
    field(100, "0000755\0");
    field(108, "0000000\0");
    field(116, "0000000\0");
    field(124, &format!("{:011o}\0", content.len()));
    field(136, "00000000000\0");
    field(148, "        ");
    field(156, "0");
    field(257, "ustar\x0000");
    let sum: u32 = header.iter().map(|byte| u32::from(*byte)).sum();
    header[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    let mut archive = header.to_vec();
    archive.extend(content);
    archive.resize(archive.len().next_multiple_of(TAR_BLOCK_BYTES) + 2 * TAR_BLOCK_BYTES, 0);
    archive
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unknown_processors_are_named() {
        let error = pause_image("riscv64").unwrap_err().to_string();
        assert!(error.contains("riscv64"), "{error}");
    }

    #[test]
    fn the_archive_is_whole_blocks_and_holds_an_elf_file() {
        for arch in ["x86_64", "aarch64"] {
            let archive = pause_image(arch).unwrap();
            assert_eq!(archive.len() % TAR_BLOCK_BYTES, 0);
            assert_eq!(&archive[TAR_BLOCK_BYTES..TAR_BLOCK_BYTES + 4], b"\x7fELF");
        }
    }

    /// The file must run: it is started on this machine, and must still be there until it is killed.
    #[test]
    #[cfg(all(target_os = "linux", target_arch = "x86_64"))]
    fn it_runs_until_it_is_killed() {
        use std::os::unix::fs::PermissionsExt;
        use std::os::unix::process::ExitStatusExt;
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("pause");
        std::fs::write(&path, elf(0x3e, &x86_64_code())).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
        let mut child = std::process::Command::new(&path).spawn().unwrap();
        // It ignores SIGCHLD: once the kernel says so, the code before `pause` has run.
        let status = format!("/proc/{}/status", child.id());
        let ignored = || {
            let text = std::fs::read_to_string(&status).unwrap();
            let mask = text.lines().find_map(|line| line.strip_prefix("SigIgn:\t")).unwrap();
            u64::from_str_radix(mask, 16).unwrap() & (1 << (17 - 1)) != 0
        };
        while !ignored() {
            assert!(child.try_wait().unwrap().is_none(), "it ended by itself");
            std::thread::yield_now();
        }
        child.kill().unwrap();
        assert_eq!(child.wait().unwrap().signal(), Some(9));
    }
}
