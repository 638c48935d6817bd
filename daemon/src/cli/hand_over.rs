//! Keeps the phrase out of the process list.
//!
//! Anybody on a desktop may read the arguments of every process. So a daemon that was given its phrase as an
//! argument, or in its environment, replaces itself at once by the same program without it, and gets the phrase
//! through a pipe that only the two know.

use super::Place;
use super::up::UpArgs;
use crate::options::{MAX_PHRASE_BYTES, OptionError, Phrase};
use anyhow::Context;
use std::ffi::OsString;
use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::fs::MetadataExt;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;

/// Gives the phrase where an argument is not wanted.
pub const PHRASE_VARIABLE: &str = "GAGGLE_PHRASE";
/// The number of the inherited pipe's reading end.
const PIPE_VARIABLE: &str = "GAGGLE_PHRASE_FD";
/// Permission bits of the group and of everybody.
const READABLE_BY_OTHERS: u32 = 0o044;

/// The phrase that this process was given, by argument, file or environment, in that order. Must run before any
/// other thread does. Returns only in a process whose arguments and environment do not contain it.
pub fn take_phrase(place: &Place, args: &UpArgs) -> anyhow::Result<Option<Phrase>> {
    if let Some(number) = std::env::var_os(PIPE_VARIABLE) {
        forget(PIPE_VARIABLE);
        forget(PHRASE_VARIABLE);
        return receive(&number).map(Some);
    }
    if args.phrase.is_empty() {
        if let Some(file) = &args.phrase_file {
            forget(PHRASE_VARIABLE);
            return read_phrase_file(file).map(Some);
        }
        return match std::env::var(PHRASE_VARIABLE) {
            Ok(text) if !text.is_empty() => replace_process(place, args, &Phrase::new(&text)?),
            Ok(_) | Err(std::env::VarError::NotPresent) => Ok(None),
            Err(std::env::VarError::NotUnicode(_)) => Err(OptionError::UnprintablePhrase.into()),
        };
    }
    replace_process(place, args, &Phrase::new(&args.phrase.join(" "))?)
}

fn read_phrase_file(file: &PathBuf) -> anyhow::Result<Phrase> {
    let named = || format!("the phrase file {}", file.display());
    let mut text = String::new();
    // One byte more than allowed shows that the file is too long, however long it is.
    let limit = MAX_PHRASE_BYTES as u64 + 2;
    let opened = File::open(file).with_context(named)?;
    if opened.metadata().with_context(named)?.mode() & READABLE_BY_OTHERS != 0 {
        let file = file.display();
        eprintln!("Warning: others on this desktop may read the phrase: chmod 600 {file}");
    }
    opened.take(limit).read_to_string(&mut text).with_context(named)?;
    Phrase::new(&text).with_context(named)
}

/// Starts the same program again, in this process, with the phrase in a pipe.
fn replace_process(place: &Place, args: &UpArgs, phrase: &Phrase) -> anyhow::Result<Option<Phrase>> {
    let hidden = "cannot hide the phrase from the process list; give it with --phrase-file FILE";
    // A pipe holds far more than a phrase, so that this does not block; unlike std's, its ends are inherited.
    let (reading, writing) = nix::unistd::pipe().context(hidden)?;
    File::from(writing).write_all(phrase.expose().as_bytes()).context(hidden)?;
    let program = std::env::current_exe()
        .ok()
        .filter(|path| path.exists())
        .unwrap_or_else(|| PathBuf::from("/proc/self/exe"));
    let mut own_arguments = std::env::args_os();
    let failed = std::process::Command::new(program)
        .arg0(own_arguments.next().unwrap_or_else(|| OsString::from("gaggle")))
        .args(args.without_phrase(place))
        .env_remove(PHRASE_VARIABLE)
        .env(PIPE_VARIABLE, reading.as_raw_fd().to_string())
        .exec();
    Err(anyhow::Error::new(failed).context(hidden))
}

fn receive(number: &OsString) -> anyhow::Result<Phrase> {
    let meant_for_itself = || format!("{PIPE_VARIABLE} is set by gaggle for itself: unset it");
    let number: RawFd = number.to_str().and_then(|text| text.parse().ok()).with_context(meant_for_itself)?;
    // The standard streams are not ours to close.
    anyhow::ensure!(number > 2 && is_pipe(number), meant_for_itself());
    // SAFETY: `replace_process` left this pipe open for us alone, and nothing else in this process, which has
    // just begun, knows its number.
    let pipe = unsafe { OwnedFd::from_raw_fd(number) };
    let mut text = String::new();
    File::from(pipe)
        .take(MAX_PHRASE_BYTES as u64 + 1)
        .read_to_string(&mut text)
        .with_context(meant_for_itself)?;
    Ok(Phrase::new(&text)?)
}

fn is_pipe(number: RawFd) -> bool {
    use std::os::unix::fs::FileTypeExt;
    let name = format!("/dev/fd/{number}");
    std::fs::metadata(name).is_ok_and(|about| about.file_type().is_fifo())
}

fn forget(variable: &str) {
    // SAFETY: no other thread runs yet: this is called before the runtime is built.
    unsafe { std::env::remove_var(variable) }
}
