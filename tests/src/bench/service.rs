//! A program that runs on a desktop in the background: its engine, its daemon.
//!
//! All that is known of it is in files of the desktop's directory, so that any process may end it.

use super::desktop::Desktop;
use super::process;
use anyhow::{Context, Result, bail};
use nix::sys::signal::Signal;
use std::ffi::OsStr;
use std::fs::OpenOptions;
use std::io::{Read, Seek, SeekFrom};
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::Stdio;
use std::time::Duration;

/// How long the wrapping that enters a desktop takes at most on a loaded machine.
const ENTERED_WITHIN: Duration = Duration::from_secs(20);
/// SIGKILL is prompt; this only bounds a wedged disk.
const DEAD_WITHIN: Duration = Duration::from_secs(20);

/// One background program of a desktop.
#[derive(Debug, Clone, Copy)]
pub struct Service<'a> {
    desktop: &'a Desktop,
    name: &'static str,
}

impl<'a> Service<'a> {
    /// The service of this name; it need not run.
    #[must_use]
    pub fn new(desktop: &'a Desktop, name: &'static str) -> Self {
        Self { desktop, name }
    }

    fn file(&self, ending: &str) -> PathBuf {
        self.desktop.dir().join(format!("{}.{ending}", self.name))
    }

    /// Starts a program as this service; its output is added to the log.
    pub fn start<S: AsRef<OsStr>>(&self, program: &[S], environment: &[(String, String)]) -> Result<()> {
        if let Some(pid) = self.pid() {
            bail!("the {} of {} runs already as process {pid}", self.name, self.desktop.name());
        }
        let log = OpenOptions::new().create(true).append(true).open(self.file("log"))?;
        let mut child = self
            .desktop
            .command(program)?
            .envs(environment.iter().map(|(key, value)| (key, value)))
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .process_group(0)
            .spawn()
            .with_context(|| format!("starting the {}", self.name))?;
        let wrapper = child.id();
        // Each run has a file of its own for its end: that of the last one may be noted after this one has begun.
        let exit = self.file(&format!("{wrapper}.exit"));
        let _ = std::fs::remove_file(&exit);
        std::fs::write(self.file("run"), wrapper.to_string())?;
        // Somebody must take note of its end, or it stays a zombie.
        std::thread::spawn(move || {
            if let Ok(status) = child.wait() {
                let _ = std::fs::write(exit, process::code(status).to_string());
            }
        });
        let pid = super::poll(ENTERED_WITHIN, &format!("the {} to start", self.name), || {
            Ok(match process::children(wrapper).first() {
                Some(&pid) => Some(Some(pid)),
                None => self.exit_code().map(|_| None),
            })
        })?;
        if let Some(pid) = pid {
            std::fs::write(self.file("pid"), pid.to_string())?;
        }
        Ok(())
    }

    /// The machine's id of its process, if it runs.
    #[must_use]
    pub fn pid(&self) -> Option<u32> {
        let pid: u32 = std::fs::read_to_string(self.file("pid")).ok()?.parse().ok()?;
        // Ids are used again: only a process of this desktop can be it.
        (process::runs(pid) && self.desktop.processes().contains(&pid)).then_some(pid)
    }

    /// The exit code of the last run, once it has ended.
    #[must_use]
    pub fn exit_code(&self) -> Option<i32> {
        let run = std::fs::read_to_string(self.file("run")).ok()?;
        std::fs::read_to_string(self.file(&format!("{run}.exit"))).ok()?.parse().ok()
    }

    /// Sends it a signal.
    pub fn signal(&self, signal: Signal) -> Result<()> {
        let pid = self
            .pid()
            .with_context(|| format!("the {} of {} does not run", self.name, self.desktop.name()))?;
        process::signal(pid, signal)
    }

    /// Kills its process, not what that has started, and waits until it is gone.
    pub fn kill(&self) -> Result<()> {
        self.signal(Signal::SIGKILL)?;
        self.wait_end(DEAD_WITHIN)
    }

    /// Waits for its end.
    pub fn wait_end(&self, deadline: Duration) -> Result<()> {
        super::poll(deadline, &format!("the {} of {} to end", self.name, self.desktop.name()), || {
            Ok(self.pid().is_none().then_some(()))
        })
    }

    /// Everything it has said so far.
    #[must_use]
    pub fn log(&self) -> String {
        std::fs::read(self.file("log"))
            .map(|text| String::from_utf8_lossy(&text).into_owned())
            .unwrap_or_default()
    }

    /// The end of what it has said.
    #[must_use]
    pub fn log_tail(&self, bytes: u64) -> String {
        let Ok(mut file) = std::fs::File::open(self.file("log")) else { return String::new() };
        let length = file.metadata().map_or(0, |metadata| metadata.len());
        let mut text = Vec::new();
        let _ = file.seek(SeekFrom::Start(length.saturating_sub(bytes)));
        let _ = file.read_to_end(&mut text);
        String::from_utf8_lossy(&text).into_owned()
    }

    /// Forgets a run that a crash of the whole desktop has ended.
    pub fn forget(&self) {
        let _ = std::fs::remove_file(self.file("pid"));
    }
}
