//! The daemon's side: a guard is there for as long as the daemon is, and knows what the daemon knows.

use super::GuardConfig;
use super::pipe::{Teller, pipe};
use super::watch::DAEMON_FIRST_MS;
use std::ffi::OsStr;
use std::process::Stdio;
use std::time::Duration;
use tokio::process::{Child, Command};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::JoinHandle;
use tokio::time::Instant;

/// A guard that ended, or cannot be started, is started again after this; twice as long after each time, up to
/// `AGAIN_DOUBLINGS` times.
const AGAIN: Duration = Duration::from_secs(1);
const AGAIN_DOUBLINGS: u32 = 5;
/// One that has lasted for so long began well.
const LASTED: Duration = Duration::from_secs(60);
/// Of the daemon's surroundings the guard gets nothing but how much to log.
const KEPT_VARIABLES: [&str; 1] = [crate::cli::LOG_VARIABLE];

/// The daemon's guard.
pub struct Guard {
    feed: mpsc::Sender<Feed>,
    farewell: oneshot::Sender<()>,
    task: JoinHandle<()>,
}

/// What is to be passed on to the guard, and then to the agent.
struct Feed {
    heard: watch::Receiver<u64>,
    passed: watch::Sender<u64>,
}

impl Guard {
    /// Starts it, and goes on starting it again whenever it ends. Until [`Guard::pass_on`] it goes by what was noted.
    pub fn start(config: GuardConfig) -> Self {
        let (feed, fed) = mpsc::channel(1);
        let (farewell, leaving) = oneshot::channel();
        let task = tokio::spawn(Keeper::new(config).run(fed, leaving));
        Self { feed, farewell, task }
    }

    /// When an acting leader was last heard, for the agent: what comes out has been told to the guard before, so that
    /// the guard kills nothing that the agent starts because of it.
    pub async fn pass_on(&self, heard: watch::Receiver<u64>) -> watch::Receiver<u64> {
        let (passed, receiver) = watch::channel(*heard.borrow());
        // The task ends only with this handle.
        let _ = self.feed.send(Feed { heard, passed }).await;
        receiver
    }

    /// The agent has ended, and starts nothing more. The guard ends once nothing runs that it would have to kill.
    pub async fn dismiss(self) {
        let _ = self.farewell.send(());
        let _ = self.task.await;
    }
}

struct Keeper {
    config: GuardConfig,
    /// What the guard was told last.
    told: Option<u64>,
    child: Option<(Child, Teller, Instant)>,
    /// How many have ended, or could not be started, one soon after the other.
    attempts: u32,
    start_after: Instant,
}

impl Keeper {
    fn new(config: GuardConfig) -> Self {
        Self { config, told: None, child: None, attempts: 0, start_after: Instant::now() }
    }

    async fn run(mut self, mut fed: mpsc::Receiver<Feed>, mut leaving: oneshot::Receiver<()>) {
        let mut feed: Option<Feed> = None;
        loop {
            if self.child.is_none() && Instant::now() >= self.start_after {
                self.start();
            }
            let start_after = self.start_after;
            tokio::select! {
                // Also when the handle is dropped: then the daemon fails, and says no farewell.
                left = &mut leaving => {
                    if let (Ok(()), Some((_, teller, _))) = (left, &mut self.child) {
                        let _ = teller.farewell();
                    }
                    return;
                }
                Some(new) = fed.recv() => {
                    self.tell(*new.heard.borrow());
                    feed = Some(new);
                }
                moment_ms = next(&mut feed) => {
                    self.tell(moment_ms);
                    if let Some(feed) = &feed {
                        feed.passed.send_replace(moment_ms);
                    }
                }
                ended = ended(&mut self.child) => self.lost(&ended),
                () = tokio::time::sleep_until(start_after), if self.child.is_none() => {}
            }
        }
    }

    fn start(&mut self) {
        match self.spawn() {
            Ok((child, mut teller)) => {
                if let Some(moment_ms) = self.told {
                    // It has just begun: its pipe is empty.
                    let _ = teller.heard(moment_ms);
                }
                self.child = Some((child, teller, Instant::now()));
            }
            Err(error) => {
                tracing::warn!(%error, "the guard cannot be started: if this daemon is killed, pods of which at most one may run go on here");
                self.rest();
            }
        }
    }

    fn spawn(&self) -> std::io::Result<(Child, Teller)> {
        let (reading, teller) = pipe()?;
        // This very program, also when another one has taken its place on the disk.
        let mut command = Command::new("/proc/self/exe");
        command.arg0("gaggle").arg("guard");
        for (option, value) in [
            ("--data-dir", self.config.data_dir.as_os_str()),
            ("--docker-host", OsStr::new(&self.config.docker_host)),
            ("--cluster", OsStr::new(&self.config.cluster)),
            ("--node", OsStr::new(&self.config.node)),
        ] {
            command.arg(option).arg(value);
        }
        command.env_clear();
        command.envs(KEPT_VARIABLES.iter().filter_map(|name| Some((name, std::env::var_os(name)?))));
        let child = command.stdin(Stdio::from(reading)).stdout(Stdio::null()).spawn()?;
        Ok((child, teller))
    }

    fn tell(&mut self, moment_ms: u64) {
        // Nothing that would make a difference: the guard waits for longer than the agent does.
        if self.told.is_some_and(|told| moment_ms < told.saturating_add(DAEMON_FIRST_MS)) {
            return;
        }
        self.told = Some(moment_ms);
        if let Some((_, teller, _)) = &mut self.child {
            // One that has ended is noticed by its end; one that does not read has missed nothing that a later word
            // would not say.
            let _ = teller.heard(moment_ms);
        }
    }

    fn lost(&mut self, how: &str) {
        let lasted = self.child.take().is_some_and(|(_, _, since)| since.elapsed() >= LASTED);
        tracing::warn!(how, "the guard has ended, and another one is started");
        if lasted {
            self.attempts = 0;
        } else {
            self.rest();
        }
    }

    fn rest(&mut self) {
        self.start_after = Instant::now() + AGAIN * 2u32.pow(self.attempts);
        self.attempts = (self.attempts + 1).min(AGAIN_DOUBLINGS);
    }
}

/// The next moment at which a leader was heard.
async fn next(feed: &mut Option<Feed>) -> u64 {
    if let Some(Feed { heard, .. }) = feed
        && heard.changed().await.is_ok()
    {
        return *heard.borrow_and_update();
    }
    std::future::pending().await
}

async fn ended(child: &mut Option<(Child, Teller, Instant)>) -> String {
    match child {
        Some((child, ..)) => match child.wait().await {
            Ok(status) => status.to_string(),
            Err(error) => error.to_string(),
        },
        None => std::future::pending().await,
    }
}
