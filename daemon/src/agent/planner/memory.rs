//! What the agent remembers of a pod between plans and the engine does not know.

use super::backoff::{CRASH_RESET, after, delay};
use crate::agent::identity::{Observed, Role};
use k8s_openapi::api::core::v1::PodStatus;
use k8s_openapi::jiff::Timestamp;
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

/// Lost with the daemon: after a restart, restart counts come from labels, and the rest begins anew.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Memory {
    /// When this desktop first saw the pod.
    pub accepted_at: Timestamp,
    /// By container and restart count: the image for that start.
    pub pulls: BTreeMap<(String, u32), Pull>,
    /// By container: its restarts without running well.
    pub crashes: BTreeMap<String, Crashes>,
    /// By container (or the sandbox, as `None`): the engine did not make it.
    pub refusals: BTreeMap<Option<String>, Refusal>,
    /// By container id: being stopped, and when it is killed.
    pub stopping: BTreeMap<String, Timestamp>,
    /// By container id: of those, the ones that have no time to end.
    pub killing: BTreeSet<String>,
    /// By container id: what its probes found.
    pub health: BTreeMap<String, Health>,
    /// The newest status that was composed, which may be ahead of the view's.
    pub status: Option<PodStatus>,
}

/// The restart numbered `restart_count` was so many in a row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Crashes {
    pub restart_count: u32,
    pub in_a_row: u32,
}

#[derive(Clone, Debug, Default, PartialEq)]
pub struct Pull {
    pub state: PullState,
    /// The last try's, until one succeeds.
    pub failure: Option<Failure>,
    pub failures: u32,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum PullState {
    #[default]
    Pending,
    Done,
    Failed,
}

/// Why an image could not be had.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    pub message: String,
    pub at: Timestamp,
}

/// The engine refused to create or start something.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// As Kubernetes names it: `CreateContainerError`, `RunContainerError`.
    pub reason: &'static str,
    pub message: String,
    pub at: Timestamp,
    pub failures: u32,
}

impl Refusal {
    pub fn retry_at(&self) -> Timestamp {
        after(self.at, delay(self.failures))
    }
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Health {
    pub started: bool,
    pub ready: bool,
    /// Why the container must be restarted.
    pub failed: Option<String>,
}

impl Memory {
    pub fn new(accepted_at: Timestamp) -> Self {
        Self { accepted_at, ..Self::default() }
    }

    pub fn pull_begun(&mut self, container: &str, restart_count: u32) {
        // Only the newest start's image matters.
        self.pulls.retain(|(name, count), _| name != container || *count == restart_count);
        self.pulls.entry((container.to_owned(), restart_count)).or_default().state = PullState::Pending;
    }

    pub fn pull_ended(
        &mut self,
        container: &str,
        restart_count: u32,
        result: Result<(), String>,
        now: Timestamp,
    ) {
        let pull = self.pulls.entry((container.to_owned(), restart_count)).or_default();
        match result {
            Ok(()) => *pull = Pull { state: PullState::Done, failure: None, failures: 0 },
            Err(message) => {
                pull.failures = pull.failures.saturating_add(1);
                pull.state = PullState::Failed;
                pull.failure = Some(Failure { message, at: now });
            }
        }
    }

    /// A restart was decided: `ran` is how long the one before it ran.
    pub fn restarted(&mut self, container: &str, restart_count: u32, ran: Option<Duration>) {
        let Some(before) = restart_count.checked_sub(1) else { return };
        if self.crashes.get(container).is_some_and(|crashes| crashes.restart_count == restart_count) {
            return;
        }
        let in_a_row = self.crashes_in_a_row(container, before, ran).saturating_add(1);
        self.crashes.insert(container.to_owned(), Crashes { restart_count, in_a_row });
    }

    /// How many restarts in a row count for the wait before the next, when the start numbered `restart_count`
    /// has ended. A daemon that was restarted knows of none, as a kubelet: what a desktop went through is not the
    /// container's fault.
    pub fn crashes_in_a_row(&self, container: &str, restart_count: u32, ran: Option<Duration>) -> u32 {
        match self.crashes.get(container) {
            // Already decided: there is nothing to wait for any more.
            Some(crashes) if crashes.restart_count > restart_count => 0,
            _ if ran.is_some_and(|ran| ran >= CRASH_RESET) => 0,
            Some(crashes) if crashes.restart_count == restart_count => crashes.in_a_row,
            _ => 0,
        }
    }

    pub fn refused(&mut self, container: Option<&str>, reason: &'static str, message: String, at: Timestamp) {
        let key = container.map(str::to_owned);
        let failures = self.refusals.get(&key).map_or(0, |refusal| refusal.failures).saturating_add(1);
        self.refusals.insert(key, Refusal { reason, message, at, failures });
    }

    pub fn made(&mut self, container: Option<&str>) {
        self.refusals.remove(&container.map(str::to_owned));
    }

    /// Nothing of a deleted pod is left, nor will be: whoever holds its object waits for a final phase.
    pub fn is_over(&mut self) {
        let Some(status) = &mut self.status else { return };
        if !matches!(status.phase.as_deref(), Some("Succeeded" | "Failed")) {
            status.phase = Some("Failed".to_owned());
        }
    }

    /// Whether a stop is under way; one that is to be at once is, only if it was to be at once.
    pub fn is_stopping(&self, id: &str, at_once: bool) -> bool {
        self.stopping.contains_key(id) && (!at_once || self.killing.contains(id))
    }

    /// A container has ended. Where it was killed for what the desktop knows, and nothing was wrong with it, the next start
    /// does not wait.
    pub fn ended(&mut self, observed: &Observed) {
        self.stopping.remove(&observed.id);
        let was_killed = self.killing.remove(&observed.id);
        let was_well = self.health.remove(&observed.id).is_none_or(|health| health.failed.is_none());
        if let (Role::Container(name), true) = (&observed.role, was_killed && was_well) {
            let crashes = Crashes { restart_count: observed.restart_count, in_a_row: 0 };
            self.crashes.insert(name.clone(), crashes);
        }
    }

    pub fn gone(&mut self, id: &str) {
        self.killing.remove(id);
        self.stopping.remove(id);
        self.health.remove(id);
    }
}
