//! Which guard is on duty: the newest one of a desktop says so in a file, and those of dead daemons stand down.

use crate::boottime::boottime_ms;
use sha2::{Digest, Sha256};
use std::io;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::PathBuf;

/// The file's only line has always this length, so that it is written over in place, also on a full disk.
const LINE_BYTES: usize = 64;

/// One guard's claim.
pub struct Duty {
    file: PathBuf,
    owner: String,
    line: String,
}

impl Duty {
    /// Takes over. A claim that cannot be written takes nothing over: then both guards do their work, and the older one
    /// ends by itself.
    pub fn take(file: PathBuf, cluster: &str, node: &str) -> (Self, io::Result<()>) {
        let digest = Sha256::digest(format!("{cluster}\0{node}"));
        let owner: String = digest.iter().take(8).map(|byte| format!("{byte:02x}")).collect();
        let line = format!("{owner} {} {}", std::process::id(), boottime_ms());
        let duty = Self { file, owner, line };
        let written = duty.write();
        (duty, written)
    }

    fn write(&self) -> io::Result<()> {
        let mut line = self.line.clone().into_bytes();
        line.resize(LINE_BYTES, b' ');
        let mut options = std::fs::OpenOptions::new();
        options.create(true).truncate(false).write(true).mode(0o600).open(&self.file)?.write_all_at(&line, 0)
    }

    /// Whether another guard of the same containers has taken over. One of other containers (the desktop goes by another
    /// name now) guards nothing of this one's.
    pub fn is_over(&self) -> bool {
        let found = std::fs::read_to_string(&self.file).unwrap_or_default();
        let found = found.trim();
        found != self.line && found.split(' ').next() == Some(self.owner.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_guard_of_the_same_containers_takes_over() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("guard");
        let (first, written) = Duty::take(file.clone(), "lab", "ada");
        written.unwrap();
        assert!(!first.is_over());
        let later = boottime_ms();
        while boottime_ms() == later {
            std::thread::yield_now();
        }
        let (second, written) = Duty::take(file.clone(), "lab", "ada");
        written.unwrap();
        assert!(first.is_over() && !second.is_over());
        let (other, written) = Duty::take(file.clone(), "lab", "ada-2");
        written.unwrap();
        assert!(!second.is_over() && !other.is_over(), "what it guards is not the same");
        std::fs::write(&file, "").unwrap();
        assert!(!second.is_over(), "nobody says that he has taken over");
    }

    #[test]
    fn a_claim_that_cannot_be_written_takes_nothing_over() {
        let dir = tempfile::tempdir().unwrap();
        let (duty, written) = Duty::take(dir.path().join("absent/guard"), "lab", "ada");
        assert!(written.is_err() && !duty.is_over());
    }
}
