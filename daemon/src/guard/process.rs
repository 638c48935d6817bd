//! The guard's whole life: one thread that sleeps on a pipe and a clock.

use super::GuardConfig;
use super::duty::Duty;
use super::pipe::Listener;
use super::watch::{Found, Step, Watch};
use crate::agent::{EngineError, Identities, noted};
use crate::boottime::boottime_ms;
use anyhow::Context;
use nix::errno::Errno;
use nix::sys::signal::{SigSet, Signal};
use std::collections::BTreeSet;
use std::io::IsTerminal;
use std::os::fd::AsFd;
use std::time::Duration;
use tokio::signal::unix::{SignalKind, signal};

/// The clock is looked at this often, since timers stand still while the machine sleeps: whoever wakes up is to be late at
/// once, and not after what was left of a wait.
const LOOK_EVERY_MS: u64 = 1_000;
/// The same when the daemon is gone; then it is also looked whether a newer guard has taken over.
const ORPHAN_LOOKS_EVERY_MS: u64 = 250;
/// A terminal's signals are for the daemon, which then says farewell.
const NOT_FOR_US: [Signal; 3] = [Signal::SIGINT, Signal::SIGHUP, Signal::SIGQUIT];

/// Guards until nothing is left to guard. Standard input is the daemon's pipe.
pub fn run(config: &GuardConfig) -> anyhow::Result<()> {
    let stdin = std::io::stdin();
    anyhow::ensure!(
        !stdin.is_terminal(),
        "gaggle starts its guard by itself: there is nothing to do by hand"
    );
    let pipe = stdin.as_fd().try_clone_to_owned().context("the daemon's pipe")?;
    detach()?;
    let (duty, taken) = Duty::take(config.duty_file(), &config.cluster, &config.node);
    if let Err(error) = taken {
        tracing::warn!(%error, "the guard cannot write down that it is on duty");
    }
    tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(async {
        let guard = Guard {
            duty,
            listener: Listener::new(pipe).context("the daemon's pipe")?,
            watch: Watch::new(noted(&config.heard_file())),
            told_of_silence: false,
            told_of: BTreeSet::new(),
        };
        guard.run(config).await
    })
}

/// What ends the daemon must not end the guard.
fn detach() -> anyhow::Result<()> {
    match nix::unistd::setsid() {
        // It leads a session already.
        Ok(_) | Err(Errno::EPERM) => {}
        Err(error) => return Err(error).context("leaving the daemon's session"),
    }
    NOT_FOR_US.into_iter().collect::<SigSet>().thread_block().context("leaving signals to the daemon")?;
    // No file system is kept busy by it.
    std::env::set_current_dir("/").context("leaving the working directory")
}

struct Guard {
    duty: Duty,
    listener: Listener,
    watch: Watch,
    told_of_silence: bool,
    /// The pods of the last kill that people were told of.
    told_of: BTreeSet<String>,
}

impl Guard {
    async fn run(mut self, config: &GuardConfig) -> anyhow::Result<()> {
        // It does not end the guard, whose daemon may be dead already.
        let mut terminate = signal(SignalKind::terminate()).context("heeding SIGTERM")?;
        loop {
            if !self.is_needed() {
                return Ok(());
            }
            let now_ms = boottime_ms();
            match self.watch.next(now_ms) {
                Step::End => return Ok(()),
                Step::Rest { until_ms } => {
                    let longest = if self.watch.is_orphan() { ORPHAN_LOOKS_EVERY_MS } else { LOOK_EVERY_MS };
                    let rest = Duration::from_millis(until_ms.saturating_sub(now_ms).clamp(1, longest));
                    tokio::select! {
                        () = tokio::time::sleep(rest) => {}
                        told = self.listener.told() => told?,
                        _ = terminate.recv() => self.watch.hurry(),
                    }
                }
                step => {
                    let found = self.look(config, step == Step::Kill).await;
                    self.watch.looked(boottime_ms(), found);
                }
            }
        }
    }

    /// Takes in what was told, and says whether this guard is still the one to act.
    fn is_needed(&mut self) -> bool {
        self.listener.listen(&mut self.watch);
        !(self.watch.is_orphan() && self.duty.is_over())
    }

    async fn look(&mut self, config: &GuardConfig, kill: bool) -> Found {
        let found = self.look_and_kill(config, kill).await;
        match &found {
            // For people, once; the rest is in the engine's own log.
            Err(error) if kill && !self.told_of_silence => {
                self.told_of_silence = true;
                tracing::warn!(%error, "no leader has been heard for too long, and Docker does not say whether pods run here of which at most one may: it is asked again");
            }
            Err(error) => tracing::debug!(%error, "Docker does not answer the guard"),
            Ok(_) => self.told_of_silence = false,
        }
        found.unwrap_or(Found::Silence)
    }

    async fn look_and_kill(&mut self, config: &GuardConfig, kill: bool) -> Result<Found, EngineError> {
        let identities =
            Identities::connect(&config.docker_host, config.cluster.clone(), config.node.clone()).await?;
        let running = identities.running().await?;
        if running.is_empty() {
            self.told_of.clear();
            return Ok(Found::Nothing);
        }
        // What runs now may have been started after the flock was heard again: the daemon has said so before.
        if kill && self.is_needed() && self.watch.is_over(boottime_ms()) {
            let failed = identities.kill(&running).await;
            let names: BTreeSet<String> = running.into_iter().map(|container| container.pod).collect();
            // What cannot be killed is tried for as long as it runs, and told of once.
            if names != self.told_of {
                let daemon = if self.watch.is_orphan() { "gone" } else { "silent" };
                tracing::warn!(
                    daemon,
                    pods = names.iter().map(String::as_str).collect::<Vec<_>>().join(", "),
                    failed = failed.join("; "),
                    "no leader has been heard for too long: the guard kills pods of which at most one may run"
                );
                self.told_of = names;
            }
        }
        Ok(Found::Running)
    }
}
