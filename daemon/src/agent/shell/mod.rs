//! The agent's one loop: it owns all state, hands inputs to the planner and actions to tasks, and writes statuses.
//!
//! It must never decide what a pod needs (that is the planner's) nor wait for the engine (tasks do).

mod confirm;
mod entry;
mod inputs;
mod limits;
mod link;
mod probes;
mod pulls;
mod pulse;
mod questions;
mod reports;
mod settle;
mod work;

pub use link::Connector;
pub use questions::{QUESTIONS_WAITING, Question};
pub use reports::Report;

use super::engine::{Engine, EngineEvent};
use super::hold::Hold;
use super::identity::{Observed, Owner};
use super::planner::ImageIndex;
use super::spec::{ApiPlace, Desktop};
use super::{EngineState, ImagePeers, PodTokens};
use crate::boottime::boottime_ms;
use entry::Entry;
use futures::future::BoxFuture;
use futures::stream::{BoxStream, FuturesUnordered, StreamExt};
use gaggle_sched::controller::Note;
use gaggle_sched::state::{Applied, Propose, Refused, Seen, Unavailable, View};
use k8s_openapi::jiff::Timestamp;
use limits::Limits;
use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::{AbortHandle, JoinSet};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

/// Reports of tasks that wait for the loop; a full queue slows the tasks down.
const REPORTS_WAITING: usize = 256;

/// How many reports and events are taken in before plans are made.
const INPUTS_AT_ONCE: usize = 64;

/// How many statuses are under way to the group at once; more wait, and the newest of a pod goes.
const PROPOSALS_AT_ONCE: usize = 64;

/// When nothing is due, what is planned is looked at again after this.
const IDLE: Duration = Duration::from_secs(60);

/// What the loop is given.
pub struct Inputs {
    pub owner: Owner,
    pub dir: PathBuf,
    pub dns: Vec<String>,
    pub dns_search: Vec<String>,
    pub api: Option<ApiPlace>,
    pub tokens: Arc<dyn PodTokens>,
    pub view: View,
    pub current: watch::Receiver<bool>,
    pub hold: Hold,
    pub propose: Arc<dyn Propose>,
    pub peers: Arc<dyn ImagePeers>,
    pub connector: Connector,
    pub notes: mpsc::Sender<Note>,
    pub questions: mpsc::Receiver<Question>,
    /// This desktop has left the cluster: nothing here is wanted any more.
    pub left: CancellationToken,
    pub stop: CancellationToken,
    pub engine_state: watch::Sender<EngineState>,
    pub images: watch::Sender<Vec<String>>,
    pub engine: watch::Sender<Option<Arc<dyn Engine>>>,
    /// How many pods are bound here or have containers here.
    pub pods: watch::Sender<usize>,
}

/// An engine that answers, and what hangs on it.
struct Linked {
    engine: Arc<dyn Engine>,
    events: BoxStream<'static, Result<EngineEvent, super::engine::EngineError>>,
    pulls: Arc<pulls::Pulls>,
    pulse: AbortHandle,
}

type Outcome = (String, Result<Result<Applied, Refused>, Unavailable>);

pub struct Shell {
    inputs: Inputs,
    linked: Option<Linked>,
    /// By pod uid: pods bound here, and those that containers of ours belong to.
    entries: BTreeMap<String, Entry>,
    /// Which pod a container belongs to.
    pod_of: BTreeMap<String, String>,
    /// Containers that ran out of memory and have not ended yet.
    out_of_memory: BTreeSet<String>,
    /// Containers that somebody else killed, and who waits to hear whether they ran out of memory.
    killed: BTreeMap<String, oneshot::Sender<()>>,
    images: ImageIndex,
    /// A listing of images is under way; `true`: another is wanted after it.
    images_listing: Option<bool>,
    /// By image: the starts that wait for it.
    awaited: BTreeMap<String, Vec<(String, String, u32)>>,
    probes: BTreeMap<String, AbortHandle>,
    desktop: Desktop,
    dirty: BTreeSet<String>,
    seen: Option<Seen>,
    swept: bool,
    reports: mpsc::Sender<Report>,
    limits: Arc<Limits>,
    proposals: FuturesUnordered<BoxFuture<'static, Outcome>>,
    tasks: JoinSet<()>,
    /// A question to the group is under way, and when it was asked.
    confirming: Option<BoxFuture<'static, confirm::Confirmed>>,
    ask_at_ms: u64,
    /// When the loop last looked whether identities may run, and what it found.
    looked_ms: u64,
    over: bool,
    had_singles: bool,
}

impl Shell {
    pub async fn run(inputs: Inputs) {
        let (reports, mut reported) = mpsc::channel(REPORTS_WAITING);
        let mut questions_open = true;
        let mut shell = Self::new(inputs, reports);
        let (stop, mut revision) = (shell.inputs.stop.clone(), shell.inputs.view.subscribe());
        let mut current = shell.inputs.current.clone();
        let mut current_open = true;
        let (left, mut cleared) = (shell.inputs.left.clone(), false);
        shell.link();
        shell.follow();
        loop {
            shell.heed_the_hold();
            shell.settle();
            let pods = shell.entries.len();
            shell.inputs.pods.send_if_modified(|last| std::mem::replace(last, pods) != pods);
            let wake = shell.next_wake();
            tokio::select! {
                () = stop.cancelled() => break,
                changed = revision.changed() => match changed {
                    Ok(()) => shell.follow(),
                    Err(_) => break,
                },
                changed = current.changed(), if current_open => match changed {
                    Ok(()) => shell.follow_all(),
                    Err(_) => current_open = false,
                },
                () = left.cancelled(), if !cleared => {
                    cleared = true;
                    shell.follow_all();
                }
                Some(report) = reported.recv() => {
                    shell.take(report);
                    for _ in 0..INPUTS_AT_ONCE {
                        let Ok(report) = reported.try_recv() else { break };
                        shell.take(report);
                    }
                }
                event = next_event(&mut shell.linked) => shell.event(event),
                Some(outcome) = shell.proposals.next() => shell.proposed(outcome),
                question = shell.inputs.questions.recv(), if questions_open => match question {
                    Some(question) => shell.answer(question),
                    None => questions_open = false,
                },
                Some(_) = shell.tasks.join_next() => {}
                confirmed = confirm::answer(&mut shell.confirming) => shell.confirmed(confirmed),
                () = tokio::time::sleep(wake) => shell.woken(),
            }
        }
        // Containers go on without us; what was begun is found again by its labels.
        shell.tasks.shutdown().await;
    }

    fn new(inputs: Inputs, reports: mpsc::Sender<Report>) -> Self {
        let desktop = Desktop {
            dns: inputs.dns.clone(),
            dns_search: inputs.dns_search.clone(),
            api: inputs.api.clone(),
            ..Desktop::default()
        };
        Self {
            inputs,
            linked: None,
            entries: BTreeMap::new(),
            pod_of: BTreeMap::new(),
            out_of_memory: BTreeSet::new(),
            killed: BTreeMap::new(),
            images: ImageIndex::default(),
            images_listing: None,
            awaited: BTreeMap::new(),
            probes: BTreeMap::new(),
            desktop,
            dirty: BTreeSet::new(),
            seen: None,
            swept: false,
            reports,
            limits: Arc::new(Limits::new()),
            proposals: FuturesUnordered::new(),
            tasks: JoinSet::new(),
            confirming: None,
            ask_at_ms: 0,
            looked_ms: boottime_ms(),
            over: true,
            had_singles: false,
        }
    }

    /// How long until some pod is due again.
    fn next_wake(&self) -> Duration {
        let now = Timestamp::now();
        let longest = self.longest_wait(IDLE);
        let planned = |entry: &Entry| {
            let wait = entry.wake_at.map(|at| Duration::try_from(at.duration_since(now)).unwrap_or_default());
            wait.into_iter()
                .chain(entry.retry_at.map(|at| at.saturating_duration_since(Instant::now())))
                .chain(
                    renewal(entry).map(|at| Duration::try_from(at.duration_since(now)).unwrap_or_default()),
                )
                .min()
        };
        self.entries.values().filter_map(planned).min().unwrap_or(longest).min(longest)
    }

    /// Plans for the wall clock: once that was set back, what seems far off may have been due long ago, so it is
    /// planned again, which is cheap.
    fn woken(&mut self) {
        if self.over {
            // A kill that failed is tried again.
            self.dirty.extend(self.singles());
        }
        let (now, later) = (Timestamp::now(), Timestamp::now().checked_add(IDLE).unwrap_or(Timestamp::MAX));
        for (uid, entry) in &mut self.entries {
            let planned = entry.wake_at.is_some_and(|at| at <= now || at > later);
            let rested = entry.retry_at.is_some_and(|at| at <= Instant::now());
            if planned {
                entry.wake_at = None;
            }
            if rested {
                entry.retry_at = None;
            }
            let stale = renewal(entry).is_some_and(|at| at <= now);
            if stale {
                entry.renew_at = None;
            }
            if planned || rested || stale {
                self.dirty.insert(uid.clone());
            }
        }
    }

    fn pod_dir(&self, uid: &str) -> PathBuf {
        self.inputs.dir.join("pods").join(uid)
    }

    fn hands(&self) -> Option<work::Hands> {
        Some(work::Hands {
            engine: self.linked.as_ref()?.engine.clone(),
            owner: self.inputs.owner.clone(),
            reports: self.reports.clone(),
            limits: self.limits.clone(),
            hold: self.inputs.hold.clone(),
            tokens: self.inputs.tokens.clone(),
        })
    }

    fn note(&self, note: Note) {
        if self.inputs.notes.try_send(note).is_err() {
            tracing::debug!("a note is dropped: nobody takes them, or too many wait");
        }
    }
}

/// When a pod that runs needs new tokens.
fn renewal(entry: &Entry) -> Option<Timestamp> {
    entry.renew_at.filter(|_| entry.containers.values().any(Observed::is_running))
}

async fn next_event(linked: &mut Option<Linked>) -> Option<Result<EngineEvent, super::engine::EngineError>> {
    match linked {
        Some(linked) => linked.events.next().await,
        None => std::future::pending().await,
    }
}
