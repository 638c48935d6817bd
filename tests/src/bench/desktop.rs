//! One desktop: namespaces, a cable and an engine, and the ways in which it can fail.

use super::cgroup::{self, Freeze};
use super::layout::Layout;
use super::outcome::{self, Outcome, Running};
use super::service::Service;
use super::{Engines, process, switch};
use anyhow::{Context, Result, bail, ensure};
use std::ffi::OsStr;
use std::io::{Read, Write};
use std::net::Ipv4Addr;
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

const INIT: &str = include_str!("init.sh");
/// Nine engines at once on two cores are up after 5 s.
const UP_WITHIN: Duration = Duration::from_secs(90);
/// The longest that a command of a test may take, unless it says otherwise.
pub(super) const COMMAND: Duration = Duration::from_secs(120);
/// Joins the control groups named before `--`, then becomes what follows.
pub(super) const JOIN: &str =
    r#"while [ "$1" != -- ]; do echo $$ > "$1" || exit 125; shift; done; shift; exec "$@""#;
/// Variables that speak of the machine, not of a desktop.
const NOT_ITS_OWN: [&str; 8] = [
    "DOCKER_HOST",
    "GAGGLE_PHRASE",
    "GAGGLE_BENCH",
    "GAGGLE_BINARY",
    "BENCH",
    "http_proxy",
    "https_proxy",
    "RUST_BACKTRACE",
];
/// What of a log a failure shows.
const TAIL_BYTES: u64 = 4096;

/// One desktop of a bench.
#[derive(Debug)]
pub struct Desktop {
    pub(super) layout: Arc<Layout>,
    pub(super) index: usize,
}

impl Desktop {
    pub(super) fn new(layout: Arc<Layout>, index: usize) -> Self {
        Self { layout, index }
    }

    /// Its number, from 1.
    #[must_use]
    pub fn index(&self) -> usize {
        self.index
    }

    /// Its host name, which is also what its daemon calls itself: `d1`.
    #[must_use]
    pub fn name(&self) -> String {
        format!("d{}", self.index)
    }

    /// Its address on the bench's network.
    #[must_use]
    pub fn address(&self) -> Ipv4Addr {
        let noted = std::fs::read_to_string(self.address_file());
        noted.ok().and_then(|text| text.parse().ok()).unwrap_or_else(|| self.layout.address(self.index))
    }

    /// Where its address is noted, once it is another than at first.
    pub(super) fn address_file(&self) -> PathBuf {
        self.dir().join("address")
    }

    /// Where its disk, logs and sockets are; every desktop sees the machine's files, so the path holds on all.
    #[must_use]
    pub fn dir(&self) -> PathBuf {
        self.layout.desktop(self.index)
    }

    /// All its processes, by the machine's ids.
    #[must_use]
    pub fn processes(&self) -> Vec<u32> {
        cgroup::processes(&self.layout, self.index)
    }

    /// Whether it is switched on.
    #[must_use]
    pub fn is_on(&self) -> bool {
        !self.processes().is_empty()
    }

    /// Switches it on and waits until its engine answers. Its disk is as it was left.
    pub fn on(&self) -> Result<()> {
        self.on_without_engine()?;
        self.start_engine()
    }

    /// Switches it on, but its engine stays off.
    pub fn on_without_engine(&self) -> Result<()> {
        ensure!(!self.is_on(), "{} is on already", self.name());
        switch::plug(&self.layout, self.index)?;
        cgroup::create(&self.layout, self.index)?;
        let log = std::fs::OpenOptions::new().create(true).append(true).open(self.dir().join("init.log"))?;
        let mut child = self
            .joined()?
            .args(["nsenter", &format!("--net=/run/netns/{}", self.layout.namespace(self.index))])
            .args(["unshare", "--mount", "--propagation", "private", "--pid", "--fork", "--kill-child"])
            .args(["--uts", "--ipc", "--cgroup", "bash", "-c", INIT, "init", &self.name()])
            .arg(self.address().to_string())
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .process_group(0)
            .spawn()
            .context("starting the desktop's first process")?;
        let outer = child.id();
        let ended = Arc::new(std::sync::OnceLock::new());
        let note = Arc::clone(&ended);
        std::thread::spawn(move || {
            let _ = note.set(child.wait());
        });
        let init = super::poll(UP_WITHIN, "the desktop's namespaces", || {
            if ended.get().is_some() {
                return Ok(Some(None));
            }
            // It is process 1 in there, and past its mounts, when it has become tini.
            let init = process::children(outer).into_iter().next();
            Ok(init.filter(|pid| comm(*pid).as_deref() == Some("tini")).map(Some))
        })?;
        let init =
            init.with_context(|| format!("{} ended at its start: {}", self.name(), self.init_log()))?;
        std::fs::write(self.dir().join("init.pid"), init.to_string()).context("noting the first process")?;
        self.put_disk_back()
    }

    /// The processes die as one, the cable stays: peers get the kernel's goodbye.
    pub fn crash(&self) -> Result<()> {
        cgroup::kill(&self.layout, self.index)?;
        for service in ["engine", "daemon"] {
            Service::new(self, service).forget();
        }
        for file in ["docker.sock", "init.pid"] {
            let _ = std::fs::remove_file(self.dir().join(file));
        }
        Ok(())
    }

    /// The plug is pulled: it falls silent without a word, and its processes are gone.
    pub fn power_cut(&self) -> Result<()> {
        switch::unplug(&self.layout, self.index)?;
        self.crash()
    }

    /// The lid is closed: silent, and no process moves, but all is there when it is opened.
    pub fn suspend(&self) -> Result<()> {
        switch::unplug(&self.layout, self.index)?;
        cgroup::freeze(&self.layout, self.index, Freeze::Frozen)
    }

    /// The lid is opened again.
    pub fn resume(&self) -> Result<()> {
        cgroup::freeze(&self.layout, self.index, Freeze::Thawed)?;
        switch::plug(&self.layout, self.index)
    }

    /// Something on it takes all but so many hundredths of a processor.
    pub fn starve(&self, percent: u32) -> Result<()> {
        cgroup::limit_cpu(&self.layout, self.index, Some(percent))
    }

    /// How often its processes had to wait for their share since it was switched on.
    pub fn throttled(&self) -> Result<u64> {
        cgroup::throttled(&self.layout, self.index)
    }

    /// The desktop has its processors back.
    pub fn feed(&self) -> Result<()> {
        cgroup::limit_cpu(&self.layout, self.index, None)
    }

    /// Starts the engine and waits until it answers.
    pub fn start_engine(&self) -> Result<()> {
        let socket = self.engine_socket();
        let _ = std::fs::remove_file(&socket);
        let service = self.engine();
        service.start(
            &[
                "dockerd",
                "--host=unix:///var/run/docker.sock",
                &format!("--data-root={}", self.dir().join("docker").display()),
                &format!("--host=unix://{}", socket.display()),
                &format!("--live-restore={}", self.layout.engines == Engines::LiveRestore),
                // A registry of the bench has no certificate.
                &format!("--insecure-registry={}", self.layout.cidr()),
                // What follows keeps many engines on one machine light and quick to go.
                "--log-level=warn",
                "--storage-driver=overlay2",
                "--shutdown-timeout=1",
                "--max-concurrent-downloads=1",
            ],
            &[],
        )?;
        super::poll(UP_WITHIN, &format!("the engine of {}", self.name()), || {
            Ok((service.pid().is_none() || self.engine_answers()).then_some(()))
        })?;
        if service.pid().is_none() {
            bail!("the engine of {} ended at its start: {}", self.name(), service.log_tail(TAIL_BYTES));
        }
        Ok(())
    }

    /// Kills the engine's process; its containers go on.
    pub fn kill_engine(&self) -> Result<()> {
        self.engine().kill()
    }

    /// The engine as a background program.
    #[must_use]
    pub fn engine(&self) -> Service<'_> {
        Service::new(self, "engine")
    }

    /// The engine's socket as the machine sees it.
    #[must_use]
    pub fn engine_socket(&self) -> PathBuf {
        self.dir().join("docker.sock")
    }

    fn engine_answers(&self) -> bool {
        let ask = || -> std::io::Result<bool> {
            let mut stream = UnixStream::connect(self.engine_socket())?;
            stream.set_read_timeout(Some(Duration::from_secs(2)))?;
            stream.write_all(b"GET /_ping HTTP/1.0\r\n\r\n")?;
            let mut answer = String::new();
            stream.read_to_string(&mut answer)?;
            Ok(answer.contains(" 200 "))
        };
        ask().unwrap_or(false)
    }

    /// A command that will run on this desktop, in all its namespaces and control groups.
    pub fn command<S: AsRef<OsStr>>(&self, program: &[S]) -> Result<Command> {
        let file = self.dir().join("init.pid");
        let init =
            std::fs::read_to_string(file).with_context(|| format!("{} is not switched on", self.name()))?;
        let mut command = self.joined()?;
        for variable in NOT_ITS_OWN {
            command.env_remove(variable);
        }
        command
            .args([
                "nsenter",
                "--target",
                init.trim(),
                "--mount",
                "--pid",
                "--net",
                "--uts",
                "--ipc",
                "--cgroup",
            ])
            .arg("--")
            .args(program)
            .env("HOME", self.dir().join("home"))
            .env("HOSTNAME", self.name())
            .env("KUBECONFIG", self.kubeconfig_file());
        if let Some(dir) = self.layout.binary.parent() {
            let path = std::env::var_os("PATH").unwrap_or_default();
            let mut dirs = vec![dir.to_path_buf()];
            dirs.extend(std::env::split_paths(&path));
            command.env("PATH", std::env::join_paths(dirs).context("a path with a colon")?);
        }
        Ok(command)
    }

    fn joined(&self) -> Result<Command> {
        let mut command = Command::new("sh");
        command.args(["-c", JOIN, "join"]).args(cgroup::entrances(&self.layout, self.index)?).arg("--");
        Ok(command)
    }

    /// Runs a shell line on this desktop to its end.
    pub fn exec(&self, line: &str) -> Result<Outcome> {
        self.exec_with(line, "")
    }

    /// Runs a shell line on this desktop with this input.
    pub fn exec_with(&self, line: &str, stdin: &str) -> Result<Outcome> {
        let command = self.command(&["sh", "-c", line])?;
        let mut outcome = outcome::run(command, stdin.as_bytes(), COMMAND)?;
        outcome.command = format!("{}$ {line}", self.name());
        Ok(outcome)
    }

    /// Starts a shell line on this desktop that goes on beside the test.
    pub fn start(&self, line: &str) -> Result<Running> {
        Running::start(self.command(&["sh", "-c", line])?)
    }

    /// The engine's own command line, in shell words.
    pub fn docker(&self, line: &str) -> Result<Outcome> {
        let mut command = Command::new("sh");
        command.args(["-c", &format!("docker {line}")]);
        command.env("DOCKER_HOST", format!("unix://{}", self.engine_socket().display()));
        let mut outcome = outcome::run(command, b"", COMMAND)?;
        outcome.command = format!("{}$ docker {line}", self.name());
        Ok(outcome)
    }

    fn init_log(&self) -> String {
        std::fs::read_to_string(self.dir().join("init.log")).unwrap_or_default()
    }

    /// The end of what its daemon has said, under a heading.
    #[must_use]
    pub fn report(&self) -> String {
        let state = match (self.is_on(), self.daemon().pid()) {
            (false, _) => "off".to_owned(),
            (true, None) => format!("no daemon (exit code {:?})", self.daemon().exit_code()),
            (true, Some(pid)) => format!("daemon {pid}"),
        };
        format!("\n--- {} ({state}) ---\n{}", self.name(), self.daemon().log_tail(TAIL_BYTES))
    }
}

fn comm(pid: u32) -> Option<String> {
    Some(std::fs::read_to_string(format!("/proc/{pid}/comm")).ok()?.trim().to_owned())
}
