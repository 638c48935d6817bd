//! Running a command to its end, or beside the test, and keeping all that it said.

use super::process;
use anyhow::{Context, Result, bail};
use std::io::{Read, Write};
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

/// How often a running command is looked at.
const POLL: Duration = Duration::from_millis(5);

/// The whole of what a command did.
#[derive(Debug, Clone)]
pub struct Outcome {
    /// The command, for messages.
    pub command: String,
    /// Its exit code; 128 and the signal's number when a signal ended it, as a shell says it.
    pub code: i32,
    /// What it printed.
    pub stdout: String,
    /// What it complained about.
    pub stderr: String,
}

impl Outcome {
    /// Whether it exited with 0.
    #[must_use]
    pub fn success(&self) -> bool {
        self.code == 0
    }

    /// Its output; an error with everything it said unless it succeeded.
    pub fn ok(self) -> Result<String> {
        if !self.success() {
            bail!("{self}");
        }
        Ok(self.stdout)
    }

    /// All it said; an error if it succeeded although it should have been refused.
    pub fn refused(self) -> Result<String> {
        if self.success() {
            bail!("should have been refused, but: {self}");
        }
        Ok(format!("{}{}", self.stderr, self.stdout))
    }

    /// Its output as JSON.
    pub fn json(self) -> Result<serde_json::Value> {
        let command = self.command.clone();
        let stdout = self.ok()?;
        serde_json::from_str(&stdout).with_context(|| format!("{command} did not print JSON: {stdout}"))
    }
}

impl std::fmt::Display for Outcome {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "`{}` exited with {}\n{}{}", self.command, self.code, self.stdout, self.stderr)
    }
}

/// Runs a command with this input until it ends or the deadline passes; then it and all it started are killed.
pub fn run(mut command: Command, stdin: &[u8], deadline: Duration) -> Result<Outcome> {
    let line = line(&command);
    command.stdin(Stdio::piped());
    let mut running = Running::start(command)?;
    let input = running.child.stdin.take();
    let outcome = std::thread::scope(|scope| {
        scope.spawn(move || {
            if let Some(mut input) = input {
                // A command that does not read its input is no failure.
                let _ = input.write_all(stdin);
            }
        });
        running.wait(deadline)
    })?;
    outcome.with_context(|| format!("`{line}` had not ended after {deadline:?}"))
}

/// A command that goes on beside the test, such as `kubectl logs -f`. Dropping it kills it.
#[derive(Debug)]
pub struct Running {
    line: String,
    child: Child,
    stdout: Arc<Mutex<Vec<u8>>>,
    stderr: Arc<Mutex<Vec<u8>>>,
    readers: Vec<std::thread::JoinHandle<()>>,
}

impl Running {
    /// Starts a command in a process group of its own.
    pub fn start(mut command: Command) -> Result<Self> {
        let line = line(&command);
        let mut child = command
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .process_group(0)
            .spawn()
            .with_context(|| format!("starting `{line}`"))?;
        let (stdout, stderr) = (Arc::default(), Arc::default());
        let mut readers = Vec::new();
        if let Some(pipe) = child.stdout.take() {
            readers.push(collect(pipe, Arc::clone(&stdout)));
        }
        if let Some(pipe) = child.stderr.take() {
            readers.push(collect(pipe, Arc::clone(&stderr)));
        }
        Ok(Self { line, child, stdout, stderr, readers })
    }

    /// What it has printed so far.
    #[must_use]
    pub fn stdout(&self) -> String {
        text(&self.stdout)
    }

    /// What it has complained about so far.
    #[must_use]
    pub fn stderr(&self) -> String {
        text(&self.stderr)
    }

    /// Its outcome if it ends within this time; it is killed otherwise, and there is none.
    pub fn wait(mut self, deadline: Duration) -> Result<Option<Outcome>> {
        let end = Instant::now() + deadline;
        loop {
            if let Some(status) =
                self.child.try_wait().with_context(|| format!("waiting for `{}`", self.line))?
            {
                // What it left running may hold its pipes open for ever.
                self.kill();
                for reader in std::mem::take(&mut self.readers) {
                    let _ = reader.join();
                }
                return Ok(Some(Outcome {
                    command: self.line.clone(),
                    code: process::code(status),
                    stdout: self.stdout(),
                    stderr: self.stderr(),
                }));
            }
            if Instant::now() > end {
                return Ok(None);
            }
            std::thread::sleep(POLL);
        }
    }

    /// Closes its standard input, if that was piped.
    pub fn end_input(&mut self) {
        drop(self.child.stdin.take());
    }

    /// Waits until its output holds this text.
    pub fn wait_for(&self, wanted: &str, deadline: Duration) -> Result<()> {
        super::poll(deadline, &format!("`{}` printing {wanted:?}", self.line), || {
            let stdout = self.stdout();
            if stdout.contains(wanted) {
                return Ok(Some(()));
            }
            bail!("it printed {stdout:?} and said {:?}", self.stderr())
        })
    }

    fn kill(&self) {
        process::kill_group(self.child.id());
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.kill();
        let _ = self.child.wait();
    }
}

fn collect(mut pipe: impl Read + Send + 'static, into: Arc<Mutex<Vec<u8>>>) -> std::thread::JoinHandle<()> {
    std::thread::spawn(move || {
        let mut buffer = [0; 8192];
        while let Ok(length @ 1..) = pipe.read(&mut buffer) {
            if let Ok(mut into) = into.lock() {
                into.extend_from_slice(&buffer[..length]);
            }
        }
    })
}

fn text(bytes: &Mutex<Vec<u8>>) -> String {
    bytes.lock().map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).unwrap_or_default()
}

/// What a person would have typed, without the wrapping that enters a desktop.
fn line(command: &Command) -> String {
    let words: Vec<_> = std::iter::once(command.get_program())
        .chain(command.get_args())
        .map(|word| word.to_string_lossy())
        .collect();
    words.rsplit(|word| word == "--").next().unwrap_or(&words).join(" ")
}
