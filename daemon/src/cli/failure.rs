//! How a command ends that could not do what it was asked: one line on standard error, and an exit code.

use super::connection::RequestError;
use crate::options::OptionError;
use std::io::ErrorKind;
use std::process::ExitCode;
use tokio::signal::unix::SignalKind;

/// The command failed, and everything about it has been printed already.
#[derive(Debug, thiserror::Error)]
#[error("the command failed")]
pub struct AlreadyReported;

/// The command line asks for something that makes no sense; exit code 2, as for every usage error.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct Usage(pub String);

/// A command that was run in a pod ended so. The exit code becomes ours.
#[derive(Debug, thiserror::Error)]
#[error("command terminated with exit code {0}")]
pub struct Terminated(pub u8);

/// We were told to end by a signal. The exit code is the one that shells give to what a signal ended.
#[derive(Debug, thiserror::Error)]
#[error("ended by signal {}", .0.as_raw_value())]
pub struct Killed(pub SignalKind);

const FAILED: u8 = 1;
const MISUSED: u8 = 2;

/// Prints an error the way kubectl users know it.
pub fn report(error: &anyhow::Error) -> ExitCode {
    if error.is::<AlreadyReported>() {
        return ExitCode::from(FAILED);
    }
    // The reader of a pipe has seen enough (`gaggle get pods | head`): not an error of ours.
    let closed = |io: &std::io::Error| io.kind() == ErrorKind::BrokenPipe;
    if error.downcast_ref::<std::io::Error>().is_some_and(closed) {
        return ExitCode::SUCCESS;
    }
    if let Some(terminated) = error.downcast_ref::<Terminated>() {
        eprintln!("{terminated}");
        return ExitCode::from(terminated.0);
    }
    if let Some(Killed(signal)) = error.downcast_ref::<Killed>() {
        return ExitCode::from(u8::try_from(signal.as_raw_value()).map_or(FAILED, |signal| signal | 128));
    }
    print(error);
    let usage = error.is::<Usage>() || error.is::<OptionError>();
    ExitCode::from(if usage { MISUSED } else { FAILED })
}

/// Prints one error of several, for commands that go on with the next object.
pub fn print(error: &anyhow::Error) {
    match error.downcast_ref::<RequestError>() {
        Some(refused @ RequestError::Refused(_)) => eprintln!("{refused}"),
        _ => eprintln!("error: {error:#}"),
    }
}

/// Collects whether any of several things failed, each of which was printed when it did.
#[derive(Debug, Default)]
pub struct Tally {
    failed: bool,
}

impl Tally {
    pub fn note<T>(&mut self, result: anyhow::Result<T>) -> Option<T> {
        match result {
            Ok(value) => Some(value),
            Err(error) => {
                self.failed = true;
                if !error.is::<AlreadyReported>() {
                    print(&error);
                }
                None
            }
        }
    }

    pub fn finish(self) -> anyhow::Result<()> {
        if self.failed { Err(AlreadyReported.into()) } else { Ok(()) }
    }
}
