//! What should happen to a pod's containers next, and what its status is: pure.
//!
//! One function, `plan`, from what is wanted (the pod), what is (its containers on the engine) and what is
//! remembered (back-offs, pulls, refusals) to actions and a status. It must never know the engine, the clock or
//! the channel that anything comes from; asked twice with the same input it says the same.

mod backoff;
mod conditions;
mod ending;
mod images;
mod memory;
mod notes;
mod running;
mod standing;
mod status;
mod waiting;

pub use images::{ImageIndex, familiar};
use memory::PullState;
pub use memory::{Health, Memory};
pub use notes::{PodNote, notes_between};
pub use standing::status_of;
pub use status::with_others;

use super::engine::ContainerSpec;
use super::hold::May;
use super::identity::{Observed, Role};
use super::spec::{Context, MessageFile, Volume};
use gaggle_sched::controller::Note;
use k8s_openapi::api::core::v1::PodStatus;
use k8s_openapi::jiff::Timestamp;
use std::collections::BTreeMap;
use std::time::Duration;

/// One thing to do for a pod.
#[derive(Clone, Debug, PartialEq)]
pub enum Action {
    /// Create and start the container that holds the pod's namespaces.
    StartSandbox { spec: Box<ContainerSpec> },
    /// Create and start a container.
    StartContainer {
        name: String,
        restart_count: u32,
        spec: Box<ContainerSpec>,
        volumes: Vec<Volume>,
        message: MessageFile,
    },
    /// Get an image for one start of a container.
    Pull { container: String, restart_count: u32, image: String },
    /// Let a container run its `preStop` command, ask it to end, and kill it after `grace`.
    Stop { id: String, container: String, grace: Duration, pre_stop: Option<Vec<String>>, why: String },
    /// Remove a container that does not run, or a sandbox that may be killed, and its memory volumes.
    Remove { id: String, volumes: Vec<String> },
    /// Nothing is left on the engine: remove the pod's files, and then the object, unless a finalizer holds it.
    Forget,
}

/// Everything a pod is planned from.
#[derive(Clone, Copy)]
pub struct Input<'a> {
    pub context: Context<'a>,
    /// The pod's containers on the engine, in any order.
    pub observed: &'a [Observed],
    pub memory: &'a Memory,
    pub images: &'a ImageIndex,
    /// What the flock lets this desktop do with the pod.
    pub may: May,
    pub now: Timestamp,
}

#[derive(Clone, Debug, Default, PartialEq)]
pub struct Plan {
    /// In this order; a pod's next plan is made when they are done.
    pub actions: Vec<Action>,
    pub status: PodStatus,
    /// When to plan again although nothing changed.
    pub wake_at: Option<Timestamp>,
}

/// Why a container is not running yet.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Waiting {
    reason: String,
    message: String,
}

impl Waiting {
    fn new(reason: &str, message: impl Into<String>) -> Self {
        Self { reason: reason.to_owned(), message: message.into() }
    }
}

/// What a plan is gathered in.
#[derive(Default)]
struct Draft {
    actions: Vec<Action>,
    waiting: BTreeMap<String, Waiting>,
    wake_at: Option<Timestamp>,
    verdict: Option<Verdict>,
}

/// Why a pod has failed as a whole.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Verdict {
    reason: String,
    message: String,
}

impl Draft {
    fn wake(&mut self, at: Timestamp) {
        self.wake_at = Some(self.wake_at.map_or(at, |earlier| earlier.min(at)));
    }
}

pub fn plan(input: &Input) -> Plan {
    let mut draft = Draft::default();
    let pod = standing::PodStanding::of(input);
    match ending::ending(input, &mut draft) {
        Some(ending) => ending::wind_down(input, &pod, &ending, &mut draft),
        None if input.may == May::Run => running::carry_on(input, &pod, &mut draft),
        None => waiting::wait(input, &pod, &mut draft),
    }
    let status = status::compose(input, &pod, &draft);
    Plan { actions: draft.actions, status, wake_at: draft.wake_at }
}

/// What to do with containers of ours that no pod explains: end them, then remove them.
pub fn clear_away<'a>(orphans: impl Iterator<Item = &'a Observed>, memory: &Memory) -> Vec<Action> {
    /// Nobody waits for them, but what they write to a desktop's disk should be whole.
    const GRACE: Duration = Duration::from_secs(10);
    let orphans: Vec<_> = orphans.collect();
    let running = |orphan: &&&Observed| orphan.is_running() && orphan.role != Role::Sandbox;
    if orphans.iter().any(|orphan| running(&orphan)) {
        let stoppable =
            orphans.iter().filter(running).filter(|orphan| !memory.is_stopping(&orphan.id, orphan.single));
        return stoppable
            .map(|orphan| Action::Stop {
                id: orphan.id.clone(),
                container: match &orphan.role {
                    Role::Container(name) => name.clone(),
                    Role::Sandbox => String::new(),
                },
                // An identity that is explained by nothing here may run elsewhere.
                grace: if orphan.single { Duration::ZERO } else { GRACE },
                pre_stop: None,
                why: "no pod on this node explains it".to_owned(),
            })
            .collect();
    }
    let removals = orphans
        .iter()
        .map(|orphan| Action::Remove { id: orphan.id.clone(), volumes: orphan.volumes.clone() });
    removals.collect()
}

/// A note about a pod, for the events that `kubectl describe` shows.
pub fn note_for(pod: &super::identity::PodId, note: PodNote) -> Note {
    use gaggle_sched::controller::NoteKind;
    use gaggle_sched::state::Key;
    Note {
        about: Key::of::<k8s_openapi::api::core::v1::Pod>(pod.namespace.clone(), pod.name.clone()),
        kind: if note.warning { NoteKind::Warning } else { NoteKind::Normal },
        reason: note.reason.to_owned(),
        message: note.message,
        source: "agent",
    }
}

#[cfg(test)]
mod tests;
