//! One Raft group on one node: its life from founding or joining to its end, and the handle that others hold.

use super::change;
use super::config::GroupConfig;
use super::election;
use super::heart;
use super::keeper::Keeper;
use super::left;
use super::log::{Identity, Log, LogError};
use super::machine::Machine;
use super::network::{Links, Network};
use super::proposer::{self, Proposal, ProposeError};
use super::snapshot::{SnapshotError, SnapshotFault, SnapshotFile};
use super::status::{Pulse, Role, Status, derive};
use super::storage::Storage;
use super::types::{Ballot, GroupId, Meta, Raft, RaftPeer};
use crate::state::{Applied, Lineage, Propose, Refused, Store, Txn, Unavailable, View};
use futures::future::BoxFuture;
use openraft::RaftMetrics;
use openraft::storage::RaftLogStorage;
use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::sync::{mpsc, oneshot, watch};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

pub(super) const LOG_FILE: &str = "raft.log";
pub(super) const SNAPSHOT_FILE: &str = "raft.snapshot";

#[derive(Debug, thiserror::Error)]
pub enum GroupError {
    #[error("the directory {} cannot be used", path.display())]
    Dir {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("{} holds a group already: forget it first", .0.display())]
    Exists(PathBuf),
    #[error("the group in {} belongs to the node {other}, not to this one", dir.display())]
    OtherNode { dir: PathBuf, other: String },
    #[error(transparent)]
    Log(#[from] LogError),
    #[error(transparent)]
    Snapshot(#[from] SnapshotError),
    #[error("the settings do not fit together: {0}")]
    Settings(String),
    #[error("the group failed: {0}")]
    Failed(String),
    #[error("the group is stopped")]
    Stopped,
    #[error(transparent)]
    Unavailable(#[from] ProposeError),
    #[error("a set of voters is not empty")]
    BadVoters,
    #[error("the voters are being changed already")]
    Changing,
    #[error("{0} did not catch up in time")]
    NotCaughtUp(String),
    #[error("{0} took too long")]
    Deadline(&'static str),
    #[error("{what} failed: {why}")]
    Step { what: &'static str, why: String },
}

impl GroupError {
    pub(super) fn fatal(error: impl std::fmt::Display) -> Self {
        Self::Failed(error.to_string())
    }
}

/// A handle on a running group. All clones are the same group; [`Group::stop`] ends it.
#[derive(Clone)]
pub struct Group {
    pub(super) inner: Arc<Inner>,
}

pub(super) struct Inner {
    pub identity: Identity,
    pub raft: Raft,
    pub links: Links,
    pub view: View,
    pub config: GroupConfig,
    /// Peers that are known from elsewhere to vote in this group; see [`Group::tell`].
    pub told: Mutex<BTreeSet<String>>,
    /// The last vote that was given to another node, which openraft's metrics may not know yet.
    pub given: tokio::sync::Mutex<Option<Ballot>>,
    /// Nothing was ever written to this node's log. See [`super::receive`].
    pub blank: AtomicBool,
    pub stop: CancellationToken,
    status: watch::Receiver<Status>,
    queue: mpsc::Sender<Proposal>,
    changing: Arc<tokio::sync::Mutex<()>>,
    tasks: TaskTracker,
    /// Taken when the group stops, so that the file is closed.
    log: Mutex<Option<Log>>,
}

impl Inner {
    /// Until the group stops.
    pub fn log(&self) -> Option<Log> {
        self.log.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

impl Group {
    /// Founds a group with this node as its only voter. The view keeps what it holds; its revision moves on, to
    /// the beginning of the epoch if it is not beyond it.
    ///
    /// # Errors
    /// When the directory cannot be used or holds a group already.
    pub async fn found(
        config: GroupConfig,
        network: Arc<dyn Network>,
        view: View,
        group: GroupId,
        epoch: u64,
    ) -> Result<Self, GroupError> {
        let identity = Identity { group, epoch, me: config.me.clone(), founder: true };
        prepare(&config.storage, &config.dir)?;
        let lineage = identity.lineage();
        let file = identity.snapshot_file(config.storage.clone(), &config.dir);
        view.write(|store| store.found(lineage.clone()));
        let origin = view.read(Store::freeze);
        file.write(None, &file.encode(&Meta::default(), &origin)?)?;
        let log = Log::create(&config.storage, &config.dir.join(LOG_FILE), &identity)?;
        let machine = Machine::of_view(view.clone(), lineage, file);
        Self::start(config, network, view, identity, log, machine).await
    }

    /// Takes part in a group that exists, with an empty log. It waits for one of `voters` (peer ids, as known from
    /// gossip) to make it a voter, and does not touch the view until it has caught up with it.
    ///
    /// # Errors
    /// When the directory cannot be used or holds a group already.
    pub async fn join(
        config: GroupConfig,
        network: Arc<dyn Network>,
        view: View,
        group: GroupId,
        epoch: u64,
        voters: BTreeSet<String>,
    ) -> Result<Self, GroupError> {
        let identity = Identity { group, epoch, me: config.me.clone(), founder: false };
        prepare(&config.storage, &config.dir)?;
        let left = left::vote(&*config.storage, &config.dir, &identity);
        let left = left.map_err(|source| GroupError::Dir { path: config.dir.clone(), source })?;
        let log = Log::begin(&config.storage, &config.dir.join(LOG_FILE), &identity, left)?;
        let file = identity.snapshot_file(config.storage.clone(), &config.dir);
        let machine = Machine::from_snapshot(view.clone(), identity.lineage(), file, None);
        let group = Self::start(config, network, view, identity, log, machine).await?;
        group.tell(voters);
        Ok(group)
    }

    /// Goes on with the group that is on the disk, if there is one.
    ///
    /// # Errors
    /// When its files are damaged ([`GroupError::is_damage`]; then see [`Group::set_aside`]), of another version or
    /// another node's, or the disk refuses; they are left as they are.
    pub async fn resume(
        config: GroupConfig,
        network: Arc<dyn Network>,
        view: View,
    ) -> Result<Option<Self>, GroupError> {
        let path = config.dir.join(LOG_FILE);
        Log::convert(&config.storage, &path)?;
        let exists = config.storage.exists(&path);
        if !exists.map_err(|source| GroupError::Dir { path: config.dir.clone(), source })? {
            return Ok(None);
        }
        let (mut log, identity) = Log::open(&config.storage, &path)?;
        if identity.me != config.me {
            return Err(GroupError::OtherNode { dir: config.dir, other: identity.me });
        }
        let file = identity.snapshot_file(config.storage.clone(), &config.dir);
        let newest = file.read()?.map(|(record, _)| record);
        let state = log.get_log_state().await.map_err(GroupError::fatal)?;
        let covered = newest.as_ref().and_then(|record| record.meta.last_log_id);
        let origin_lost = newest.is_none() && identity.founder && state.last_log_id.is_some();
        if origin_lost || covered < state.last_purged_log_id {
            return Err(file.error(SnapshotFault::Missing).into());
        }
        log.lead_no_longer(config.id()).await.map_err(GroupError::fatal)?;
        let machine = Machine::from_snapshot(view.clone(), identity.lineage(), file, newest);
        Self::start(config, network, view, identity, log, machine).await.map(Some)
    }

    /// Removes a group's files, but for the term that this node had reached. It must not vote in that group again
    /// unless its leader adds it anew.
    ///
    /// # Errors
    /// When a file cannot be removed, or the group still runs.
    pub fn forget(storage: &Arc<dyn Storage>, dir: &Path) -> Result<(), GroupError> {
        let log = dir.join(LOG_FILE);
        Log::convert(storage, &log)?;
        let error = |path: &Path, source| GroupError::Dir { path: path.to_owned(), source };
        left::note(storage, dir, &log).map_err(|source| error(&log, source))?;
        // The log goes first: without it there is no group, whatever else is left.
        let beside = Log::files_beside(&log);
        for path in [log, dir.join(SNAPSHOT_FILE)].into_iter().chain(beside) {
            storage.remove(&path).map_err(|source| error(&path, source))?;
        }
        Ok(())
    }

    /// Boxed, so that openraft is compiled here, once, and not wherever a group is started.
    fn start(
        config: GroupConfig,
        network: Arc<dyn Network>,
        view: View,
        identity: Identity,
        log: Log,
        machine: Machine,
    ) -> BoxFuture<'static, Result<Self, GroupError>> {
        Box::pin(async move {
            let settings = config.openraft(&identity.group).map_err(GroupError::Settings)?;
            log.purge_behind(machine.covers(), config.retention.log_bytes);
            let snapshot = machine.file().clone();
            let state = log.clone().get_log_state().await.map_err(GroupError::fatal)?;
            let blank = AtomicBool::new(state.last_log_id.is_none() && !identity.founder);
            let pulse = Arc::new(Pulse::default());
            pulse.settled(machine.voters());
            let links = Links {
                network,
                group: identity.group.clone(),
                epoch: identity.epoch,
                pulse: pulse.clone(),
                flushed: log.flushed(),
                resigned_until: Arc::default(),
            };
            let raft = Raft::new(config.id(), settings, links.clone(), log.clone(), machine)
                .await
                .map_err(GroupError::fatal)?;
            if identity.founder && !raft.is_initialized().await.map_err(GroupError::fatal)? {
                let me = BTreeMap::from([(config.id(), RaftPeer { peer: config.me.clone() })]);
                raft.initialize(me).await.map_err(GroupError::fatal)?;
            }
            // Until the core has begun, its metrics are those of a node that never voted.
            let voted = log.clone().read_vote().await.map_err(GroupError::fatal)?.unwrap_or_default();
            let begun = |metrics: &RaftMetrics<_, _>| metrics.vote >= voted || metrics.running_state.is_err();
            raft.metrics().wait_for(begun).await.map_err(|_| GroupError::Stopped)?;
            let first = derive(
                &raft.metrics().borrow(),
                &identity,
                &pulse,
                &config.timings,
                view.revision(),
                &links.flushed,
            );
            let (status_sender, status) = watch::channel(first);
            let (queue, waiting) = mpsc::channel(proposer::QUEUE);
            let (stop, tasks) = (CancellationToken::new(), TaskTracker::new());
            let changing = Arc::default();
            let keeper = Keeper {
                raft: raft.clone(),
                log: log.clone(),
                view: view.clone(),
                identity: identity.clone(),
                pulse,
                timings: config.timings.clone(),
                retention: config.retention.clone(),
                snapshot,
                status: status_sender,
                changing: Arc::clone(&changing),
            };
            tasks.spawn(keeper.run(stop.clone()));
            let timings = &config.timings;
            let gate = (identity.lineage(), config.gate.clone());
            tasks.spawn(proposer::run(
                raft.clone(),
                waiting,
                status.clone(),
                timings.clone(),
                gate,
                stop.clone(),
            ));
            let heartbeat = timings.heartbeat;
            tasks.spawn(heart::run(raft.clone(), links.clone(), log.clone(), heartbeat, stop.clone()));
            let (me, timings) = (config.me.clone(), timings.clone());
            tasks.spawn(election::run(raft.clone(), links.clone(), log.clone(), me, timings, stop.clone()));
            tasks.close();
            let inner = Inner {
                identity,
                raft,
                links,
                view,
                config,
                told: Mutex::default(),
                given: tokio::sync::Mutex::default(),
                blank,
                stop,
                status,
                queue,
                changing,
                tasks,
                log: Mutex::new(Some(log)),
            };
            Ok(Self { inner: Arc::new(inner) })
        })
    }

    pub fn id(&self) -> &GroupId {
        &self.inner.identity.group
    }

    pub fn epoch(&self) -> u64 {
        self.inner.identity.epoch
    }

    /// The group's state as this node sees it; the receiver ends when the group stops.
    pub fn status(&self) -> watch::Receiver<Status> {
        self.inner.status.clone()
    }

    /// Says who votes in this very group, as known from gossip or from following: frames from those peers are
    /// accepted although this node's own log, which may be behind, does not name them.
    pub fn tell(&self, voters: BTreeSet<String>) {
        *self.inner.told.lock().unwrap_or_else(PoisonError::into_inner) = voters;
    }

    /// Brings a transaction into the group's order. Only on the leader.
    ///
    /// # Errors
    /// At once when this node does not lead or hears no quorum; otherwise within the deadline.
    pub async fn propose(&self, txn: Txn) -> Result<Result<Applied, Refused>, ProposeError> {
        if let Some(error) = proposer::cannot_write(&self.inner.status.borrow()) {
            return Err(error);
        }
        let bytes = super::codec::encoded_len(&txn).map_err(|e| ProposeError::Unencodable(e.to_string()))?;
        if bytes > proposer::TXN_BYTES {
            return Err(ProposeError::TooLarge(bytes));
        }
        let (answer, answered) = oneshot::channel();
        let busy = |_| ProposeError::Busy(proposer::QUEUE);
        self.inner.queue.try_send(Proposal { txn, bytes, answer }).map_err(busy)?;
        // A batch before it may use up its own time first.
        let limit = 2 * self.inner.config.timings.propose_deadline;
        match tokio::time::timeout(limit, answered).await {
            Ok(Ok(answer)) => answer,
            Ok(Err(_)) => Err(ProposeError::Unknown("this node is stopping")),
            Err(_) => Err(ProposeError::Unknown("it took too long")),
        }
    }

    /// Makes exactly these peers the voters, going through a joint configuration: newcomers (which must have
    /// joined) catch up first. On failure the old voters stay, or the change is finished by whoever leads next.
    ///
    /// # Errors
    /// When this node does not lead a quorum, another change is under way, or the deadline passes.
    pub async fn set_voters(&self, voters: BTreeSet<String>) -> Result<(), GroupError> {
        if let Some(error) = proposer::cannot_write(&self.inner.status.borrow()) {
            return Err(error.into());
        }
        let Ok(_changing) = self.inner.changing.try_lock() else { return Err(GroupError::Changing) };
        let limit = self.inner.config.timings.change_deadline;
        tokio::select! {
            () = self.inner.stop.cancelled() => Err(GroupError::Stopped),
            changed = change::set_voters(&self.inner.raft, &voters, limit) => changed,
        }
    }

    /// Ends the group on this node and closes its files. It can be resumed.
    pub async fn stop(&self) {
        self.inner.stop.cancel();
        self.inner.tasks.wait().await;
        if self.inner.raft.shutdown().await.is_err() {
            tracing::warn!(group = %self.id(), "the group's core ended with a panic");
        }
        let log = self.inner.log.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(log) = log {
            if let Err(error) = log.flush().await {
                tracing::warn!(%error, "the commit mark was not written: the log is replayed from the last one");
            }
            log.close().await;
            self.inner.view.write(Store::disown);
        }
    }

    /// Falls silent for `pause`, so that the others elect another leader; if they do not, this one goes on. For a
    /// leader that the flock does not stand behind. What was proposed meanwhile may be ordered later.
    pub fn resign(&self, pause: Duration) {
        self.inner.links.resign(pause);
    }

    /// Whether this node's own log says that a leader brings it in, as one that does not vote yet.
    pub fn learns(&self) -> bool {
        let (metrics, me) = (self.inner.raft.metrics(), self.inner.config.id());
        metrics.borrow().membership_config.membership().learner_ids().any(|id| id == me)
    }

    /// Whether this node's own log says that it votes.
    pub fn votes(&self) -> bool {
        self.inner.status.borrow().role != Role::Learner
    }
}

/// The leader's own way into the order; other nodes bring their transactions to the leader.
#[async_trait::async_trait]
impl Propose for Group {
    async fn propose(&self, txn: Txn) -> Result<Result<Applied, Refused>, Unavailable> {
        Ok(Group::propose(self, txn).await?)
    }
}

impl Identity {
    pub(super) fn lineage(&self) -> Lineage {
        Lineage { group: self.group.to_string(), epoch: self.epoch }
    }

    pub(super) fn snapshot_file(&self, storage: Arc<dyn Storage>, dir: &Path) -> SnapshotFile {
        SnapshotFile::new(storage, dir.join(SNAPSHOT_FILE), self.group.clone(), self.epoch)
    }
}

/// Makes the directory, and sees that it holds no group.
fn prepare(storage: &Arc<dyn Storage>, dir: &Path) -> Result<(), GroupError> {
    let error = |source| GroupError::Dir { path: dir.to_owned(), source };
    storage.make_dir(dir).map_err(error)?;
    Log::convert(storage, &dir.join(LOG_FILE))?;
    if storage.exists(&dir.join(LOG_FILE)).map_err(error)? {
        return Err(GroupError::Exists(dir.to_owned()));
    }
    // What a founding that was interrupted before it had a log left behind.
    storage.remove(&dir.join(SNAPSHOT_FILE)).map_err(error)
}
