//! gaggle on a desktop: the daemon in the background, its commands, and kubectl against it.

use super::desktop::Desktop;
use super::flock::Flock;
use super::outcome::Outcome;
use super::service::Service;
use anyhow::{Context, Result, ensure};
use nix::sys::signal::Signal;
use std::path::PathBuf;
use std::time::Duration;

/// Strong enough for gaggle's check, the same for all desktops of a bench unless a test says otherwise.
pub const PHRASE: &str = "walrus-copper-lantern-meadow-quartz-violin";
/// A graceful leave drains first.
const LEAVES_WITHIN: Duration = Duration::from_secs(60);

/// How a daemon is started.
#[derive(Debug, Clone)]
pub struct Up {
    /// The phrase, handed over in a file that only root can read; none for a bare `gaggle up`.
    pub phrase: Option<String>,
    /// More arguments.
    pub arguments: Vec<String>,
    /// More environment.
    pub environment: Vec<(String, String)>,
}

impl Default for Up {
    fn default() -> Self {
        Self { phrase: Some(PHRASE.to_owned()), arguments: Vec::new(), environment: Vec::new() }
    }
}

impl Up {
    /// With another phrase.
    #[must_use]
    pub fn phrase(phrase: &str) -> Self {
        Self { phrase: Some(phrase.to_owned()), ..Self::default() }
    }

    /// `gaggle up` and nothing else that says which cluster.
    #[must_use]
    pub fn bare() -> Self {
        Self { phrase: None, ..Self::default() }
    }

    /// With one more argument.
    #[must_use]
    pub fn arg(mut self, argument: impl Into<String>) -> Self {
        self.arguments.push(argument.into());
        self
    }
}

impl Desktop {
    /// The daemon as a background program.
    #[must_use]
    pub fn daemon(&self) -> Service<'_> {
        Service::new(self, "daemon")
    }

    /// The daemon's data directory.
    #[must_use]
    pub fn data_dir(&self) -> PathBuf {
        self.dir().join("data")
    }

    /// Where [`Desktop::kubectl`] finds its kubeconfig.
    #[must_use]
    pub fn kubeconfig_file(&self) -> PathBuf {
        self.dir().join("kubeconfig")
    }

    /// Starts the daemon; it does not wait for anything.
    pub fn start_daemon(&self, up: &Up) -> Result<()> {
        let mut program = vec![
            self.layout.binary.display().to_string(),
            "up".to_owned(),
            format!("--name={}", self.name()),
            format!("--data-dir={}", self.data_dir().display()),
            "--docker-host=unix:///var/run/docker.sock".to_owned(),
        ];
        if let Some(phrase) = &up.phrase {
            let file = self.dir().join("phrase");
            write_secret(&file, phrase)?;
            program.push(format!("--phrase-file={}", file.display()));
        }
        program.extend(up.arguments.iter().cloned());
        // An empty one would count as a phrase that was given.
        self.daemon().start(&program, &up.environment)
    }

    /// Starts the daemon again the way a person does whose desktop has been in the flock before.
    pub fn restart_daemon(&self) -> Result<()> {
        let up = Up::bare();
        self.start_daemon(&if self.has_own_clock() { self.with_own_clock(up)? } else { up })
    }

    /// Kills the daemon alone: SIGKILL, no goodbye, containers go on.
    pub fn kill_daemon(&self) -> Result<()> {
        self.daemon().kill()
    }

    /// Asks the daemon with SIGTERM to leave, and waits until it has.
    pub fn stop_daemon(&self) -> Result<()> {
        self.daemon().signal(Signal::SIGTERM)?;
        self.daemon().wait_end(LEAVES_WITHIN)
    }

    /// `gaggle down`, and the end of the daemon.
    pub fn down(&self) -> Result<()> {
        self.gaggle("down")?.ok()?;
        self.daemon().wait_end(LEAVES_WITHIN)
    }

    /// All that the daemon has said.
    #[must_use]
    pub fn daemon_log(&self) -> String {
        self.daemon().log()
    }

    /// A `gaggle` command on this desktop; `--data-dir` is added.
    pub fn gaggle(&self, line: &str) -> Result<Outcome> {
        self.gaggle_with(line, "")
    }

    /// A `gaggle` command with this input.
    pub fn gaggle_with(&self, line: &str, stdin: &str) -> Result<Outcome> {
        let (verb, rest) = line.split_once(' ').unwrap_or((line, ""));
        let data = self.data_dir();
        self.exec_with(
            &format!("'{}' {verb} --data-dir='{}' {rest}", self.layout.binary.display(), data.display()),
            stdin,
        )
    }

    /// A `kubectl` command on this desktop, against its own daemon, in shell words.
    pub fn kubectl(&self, line: &str) -> Result<Outcome> {
        self.kubectl_with(line, "")
    }

    /// A `kubectl` command with this input, usually a manifest for `-f -`.
    pub fn kubectl_with(&self, line: &str, stdin: &str) -> Result<Outcome> {
        self.make_kubeconfig()?;
        self.exec_with(&format!("kubectl {line}"), stdin)
    }

    /// Writes the kubeconfig once; the address and the token outlive the daemon.
    pub fn make_kubeconfig(&self) -> Result<()> {
        let file = self.kubeconfig_file();
        if !file.exists() {
            let text = self.gaggle(&format!("kubeconfig --server {}", self.address()))?.ok()?;
            ensure!(text.contains("apiVersion"), "gaggle kubeconfig printed {text:?}");
            write_secret(&file, &text)?;
        }
        Ok(())
    }

    /// `gaggle status`, as scripts read it.
    pub fn status(&self) -> Result<Flock> {
        let outcome = self.gaggle("status -o json")?;
        let value = outcome.json()?;
        serde_json::from_value(value.clone()).with_context(|| format!("status of {}: {value}", self.name()))
    }
}

/// A file that only its owner reads.
fn write_secret(file: &std::path::Path, text: &str) -> Result<()> {
    use std::io::Write;
    use std::os::unix::fs::OpenOptionsExt;
    std::fs::OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(file)
        .and_then(|mut opened| opened.write_all(text.as_bytes()))
        .with_context(|| format!("writing {}", file.display()))
}
