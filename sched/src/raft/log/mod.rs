//! The log on disk: entries, vote, purge mark, commit mark and the group's identity in one file.
//!
//! Every vote is on the disk before it is answered, and every entry before anybody counts on it ([`Flushed`]). Every record
//! carries a checksum that is checked when it is read. It knows nothing of what an entry's transactions mean.

mod disk;
mod flushed;
mod journal;
mod mark;
mod older;
mod recent;

#[cfg(test)]
mod tests;

use super::codec::CodecError;
use super::storage::{Storage, off_thread};
use super::types::{Ballot, Entry, Failure, GroupId, Id, NodeId, Types};
use disk::{Change, Disk, FILLING, IDENTITY, VOTE};
pub(super) use flushed::Flushed;
use flushed::Records;
pub use flushed::Unwritten;
use openraft::storage::{LogFlushed, RaftLogStorage};
use openraft::{AnyError, LogState, OptionalSend, RaftLogReader, StorageIOError};
use recent::Recent;
use serde::{Deserialize, Serialize};
use std::fmt::Debug;
use std::io;
use std::ops::{Bound, RangeBounds};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;
use tokio::sync::watch;
use tokio::time::Instant;

/// What one append to a peer carries at most, beyond its first entry: on a slow network too it has to be answered while the
/// leader waits for it (`raft::config`).
const APPEND_BYTES: u64 = 1 << 20;

/// A file of less than this is opened as it is, whatever in it still counts.
const TIDY_BYTES: u64 = 4 << 20;

/// A snapshot that is not on the disk by then never will be: the part fails, with its log as it was.
const SNAPSHOT_PATIENCE: Duration = Duration::from_secs(30);

/// A file of the group that cannot be used, and why.
#[derive(Debug, thiserror::Error)]
#[error("{} cannot be used", path.display())]
pub struct LogError {
    pub path: PathBuf,
    #[source]
    pub source: LogFault,
}

#[derive(Debug, thiserror::Error)]
pub enum LogFault {
    #[error("the disk refuses it")]
    Io(#[source] io::Error),
    #[error("it is open already")]
    InUse,
    #[error("it is damaged: {0}")]
    Damaged(String),
    /// Something that was acknowledged is not in it any more.
    #[error("it is damaged: it went back to its change {changes} of {marked}")]
    WentBack { changes: u64, marked: u64 },
    #[error("the record {record} cannot be read")]
    Record {
        record: String,
        #[source]
        source: CodecError,
    },
    #[error("entry {0} is missing")]
    Hole(u64),
    #[error("it belongs to {0}")]
    Foreign(String),
    #[error("it has no identity")]
    Anonymous,
    /// Nothing is removed from the log that nothing else on the disk holds.
    #[error("the snapshot that covers it up to entry {0} does not reach the disk")]
    Uncovered(u64),
    #[error(transparent)]
    Unwritten(#[from] Unwritten),
}

impl LogFault {
    /// Whether the file holds something else than what was written to it.
    pub(super) fn is_damage(&self) -> bool {
        match self {
            Self::Damaged(_) | Self::WentBack { .. } | Self::Hole(_) | Self::Anonymous => true,
            Self::Record { source, .. } => source.is_damage(),
            Self::Io(_) | Self::InUse | Self::Foreign(_) | Self::Uncovered(_) | Self::Unwritten(_) => false,
        }
    }
}

/// Whose log this is. Written once, when the group is founded or joined.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Identity {
    pub group: GroupId,
    pub epoch: u64,
    /// The peer id of the node that votes with this log.
    pub me: String,
    /// Whether that node founded the group: if it was interrupted, it does so when it resumes.
    pub founder: bool,
}

#[derive(Clone)]
pub(super) struct Log {
    shared: Arc<Shared>,
}

struct Shared {
    storage: Arc<dyn Storage>,
    path: PathBuf,
    disk: Disk,
    recent: Mutex<Recent>,
    flushed: Arc<Flushed>,
    filling: Mutex<Filling>,
    /// One note of it after the other.
    noting: Mutex<()>,
    busy: Mutex<Busy>,
    /// Once a group uses the log.
    purging: OnceLock<Purging>,
    /// Known to be committed, written with the next append: it only saves replaying after a restart.
    committed: Mutex<Option<Id>>,
}

/// How the log is kept short.
struct Purging {
    /// What the snapshot on the disk covers.
    covers: watch::Receiver<Option<Id>>,
    small_bytes: u64,
}

/// How far a newcomer's log is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Filling {
    under_way: bool,
    /// The most that a leader has said to be committed while it was.
    committed: Option<Id>,
}

impl Filling {
    /// After the log has been brought up to `end` by a leader that has committed so much.
    fn filled(self, end: Option<Id>, committed: Option<Id>) -> Self {
        if !self.under_way {
            return self;
        }
        let committed = self.committed.max(committed);
        Self { under_way: committed.is_none() || end < committed, committed }
    }
}

/// What the disk is doing.
#[derive(Default)]
struct Busy {
    works: usize,
    /// When it began, or got the last thing done.
    since: Option<Instant>,
}

/// Something that the disk does, until this is dropped.
struct Working<'a>(&'a Shared);

impl<'a> Working<'a> {
    fn begin(shared: &'a Shared) -> Self {
        let mut busy = shared.busy();
        busy.works += 1;
        busy.since.get_or_insert_with(Instant::now);
        drop(busy);
        Self(shared)
    }
}

impl Drop for Working<'_> {
    fn drop(&mut self) {
        let mut busy = self.0.busy();
        busy.works -= 1;
        busy.since = (busy.works > 0).then(Instant::now);
    }
}

impl Shared {
    fn busy(&self) -> MutexGuard<'_, Busy> {
        self.busy.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn recent(&self) -> MutexGuard<'_, Recent> {
        self.recent.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn filling(&self) -> MutexGuard<'_, Filling> {
        self.filling.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn committed(&self) -> MutexGuard<'_, Option<Id>> {
        self.committed.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Log {
    /// Begins a log in a file that does not exist yet.
    pub fn create(storage: &Arc<dyn Storage>, path: &Path, identity: &Identity) -> Result<Self, LogError> {
        Self::begin(storage, path, identity, None)
    }

    /// The same, with a vote that was given before.
    pub fn begin(
        storage: &Arc<dyn Storage>,
        path: &Path,
        identity: &Identity,
        vote: Option<Ballot>,
    ) -> Result<Self, LogError> {
        let error = |source| LogError { path: path.to_owned(), source };
        let filling = Filling { under_way: !identity.founder, committed: None };
        // A log without an identity is a damaged one, so all of it is there at once.
        let first = || -> Result<Change, LogFault> {
            let mut first = Change::default();
            first.record(IDENTITY, identity)?;
            if let Some(vote) = vote {
                first.record(VOTE, &vote)?;
            }
            first.record(FILLING, &filling)?;
            Ok(first)
        };
        let disk = Disk::create(storage, path, |put| put(first()?)).map_err(error)?;
        Ok(Self::new(storage, path, disk, None, filling))
    }

    /// Whose log this is and the last vote in it, as far as a damaged one still says.
    pub fn salvage(
        storage: &dyn Storage,
        path: &Path,
    ) -> Result<(Option<Identity>, Option<Ballot>), LogError> {
        Disk::salvage(storage, path).map_err(|source| LogError { path: path.to_owned(), source })
    }

    /// Sees that the log at `path` is kept as this version does it.
    pub fn convert(storage: &Arc<dyn Storage>, path: &Path) -> Result<(), LogError> {
        older::convert(storage, path).map_err(|source| LogError { path: older::path(path), source })
    }

    /// The file with the number of the last frame.
    #[cfg(test)]
    pub fn mark_file(path: &Path) -> PathBuf {
        mark::Mark::path(path)
    }

    /// What may be beside a log, and is of no use without it.
    pub fn files_beside(path: &Path) -> [PathBuf; 2] {
        [mark::Mark::path(path), disk::unnamed(path)]
    }

    /// Opens an existing log and reads all of it once, so that damage shows here and not in mid-flight.
    pub fn open(storage: &Arc<dyn Storage>, path: &Path) -> Result<(Self, Identity), LogError> {
        let error = |source| LogError { path: path.to_owned(), source };
        let disk = Disk::open(storage, path).map_err(error)?;
        let identity = disk.verify().map_err(error)?;
        disk.tidy(TIDY_BYTES).map_err(error)?;
        let committed = disk.committed().map_err(error)?;
        let filling: Filling = disk.get_meta(FILLING).map_err(error)?.unwrap_or_default();
        // What came last may be there, and no note of it.
        let filling = filling.filled(disk.state().map_err(error)?.last_log_id, None);
        Ok((Self::new(storage, path, disk, committed, filling), identity))
    }

    fn new(
        storage: &Arc<dyn Storage>,
        path: &Path,
        disk: Disk,
        committed: Option<Id>,
        filling: Filling,
    ) -> Self {
        let (recent, committed) = (Mutex::default(), Mutex::new(committed));
        let (storage, path) = (storage.clone(), path.to_owned());
        let (flushed, busy, purging) = (Arc::default(), Mutex::default(), OnceLock::new());
        let (filling, noting) = (Mutex::new(filling), Mutex::default());
        let shared =
            Shared { storage, path, disk, recent, flushed, filling, noting, busy, purging, committed };
        Self { shared: Arc::new(shared) }
    }

    /// From now on nothing is purged before the snapshot on the disk covers it; and the file is written anew where more than
    /// `small_bytes` of it are of hardly any use.
    pub fn purge_behind(&self, covers: watch::Receiver<Option<Id>>, small_bytes: u64) {
        self.shared.purging.get_or_init(|| Purging { covers, small_bytes });
    }

    fn error(&self, source: LogFault) -> LogError {
        LogError { path: self.shared.path.clone(), source }
    }

    /// How far it is on the disk. Does not hold the log open.
    pub fn flushed(&self) -> Arc<Flushed> {
        self.shared.flushed.clone()
    }

    /// Whether this node joined the group and has not yet held all that leaders have told it to be committed. By what the log
    /// says until then others voted once, or this node alone did, in an earlier part of its own.
    pub fn is_filling(&self) -> bool {
        self.shared.filling().under_way
    }

    /// Whether it may help to elect a node whose log ends there: not if that lacks what this one has heard to be committed.
    pub fn may_elect(&self, last: Option<Id>) -> bool {
        let filling = *self.shared.filling();
        !filling.under_way || filling.committed.is_some_and(|committed| last >= Some(committed))
    }

    /// A leader that has committed so much has filled it up to here; `None`: not even that is known.
    pub async fn filled(&self, end: Option<Id>, committed: Option<Id>) -> Result<(), LogError> {
        let noted = self.settled(move |shared| {
            let _turn = shared.noting.lock().unwrap_or_else(PoisonError::into_inner);
            let before = *shared.filling();
            let next = before.filled(end, committed);
            if next != before {
                shared.disk.put_meta(FILLING, &next)?;
                *shared.filling() = next;
            }
            Ok(())
        });
        noted.await.map_err(|fault| self.error(fault))
    }

    /// Sees that `me`, if it led with this log, does not go on where it stopped: what it had sent may be gone from its own log,
    /// and the same place of the same term would get something else. It votes for nobody else in that term.
    pub async fn lead_no_longer(&mut self, me: NodeId) -> Result<(), Failure> {
        match self.read_vote().await? {
            Some(vote) if vote.committed && vote.leader_id.node_id == me => {
                self.save_vote(&Ballot::new(vote.leader_id.term, NodeId::MAX)).await
            }
            _ => Ok(()),
        }
    }

    /// Bytes of entries that it held when it was opened and that have been appended since, whether or not they are still
    /// there: they tell how much there is to replay.
    pub fn appended(&self) -> u64 {
        self.shared.disk.appended()
    }

    /// For how long the disk has worked without having got anything done; nothing when it is idle, and for ever when it has
    /// failed.
    pub fn busy_for(&self) -> Duration {
        if self.shared.flushed.failure().is_some() {
            return Duration::MAX;
        }
        self.shared.busy().since.map_or(Duration::ZERO, |since| since.elapsed())
    }

    /// Waits until nobody reads the log any more, so that it can be opened again. Readers end by themselves soon
    /// after the group did, without a word that could be waited for.
    pub async fn close(self) {
        const PATIENCE: u32 = 200;
        for _ in 0..PATIENCE {
            if Arc::strong_count(&self.shared) == 1 {
                return;
            }
            tokio::time::sleep(std::time::Duration::from_millis(10)).await;
        }
        tracing::warn!(path = %self.shared.path.display(), "the log is still being read");
    }

    /// Writes the commit mark, which otherwise waits for the next append.
    pub async fn flush(&self) -> Result<(), LogError> {
        let result = self.settled(|shared| shared.disk.append(&[], *shared.committed())).await;
        result.map_err(|fault| self.error(fault))
    }

    /// Work for the disk, after all that has been appended.
    async fn settled<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Shared) -> Result<T, LogFault> + Send + 'static,
    ) -> Result<T, LogFault> {
        self.shared.flushed.all().await?;
        self.blocking(work).await
    }

    /// Writes one append, and those that have come meanwhile. Where the disk is worked, those who wait are woken as well:
    /// every detour is part of what a write takes.
    async fn write(self, records: Records) {
        let mut next = Some(records);
        while let Some(records) = next {
            let write = move |shared: &Shared| {
                shared.disk.append(&records, *shared.committed())?;
                Ok(shared.flushed.written())
            };
            match self.blocking(write).await {
                Ok(waiting) => next = waiting,
                Err(fault) => {
                    let path = self.shared.path.display();
                    tracing::error!(%path, error = &fault as &dyn std::error::Error, "the log cannot be written");
                    return self.shared.flushed.fail(&fault);
                }
            }
        }
    }

    async fn blocking<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Shared) -> Result<T, LogFault> + Send + 'static,
    ) -> Result<T, LogFault> {
        let shared = self.shared.clone();
        let _working = Working::begin(&self.shared);
        let done = off_thread(&*self.shared.storage, move || work(&shared)).await;
        done.unwrap_or_else(|error| Err(LogFault::Io(error)))
    }
}

impl Log {
    fn reading(&self, fault: LogFault) -> Failure {
        StorageIOError::read_logs(AnyError::new(&self.error(fault))).into()
    }

    fn writing(&self, fault: LogFault) -> Failure {
        StorageIOError::write_logs(AnyError::new(&self.error(fault))).into()
    }

    async fn entries(&self, start: u64, end: u64, limit_bytes: u64) -> Result<Vec<Entry>, Failure> {
        // What was just appended is in memory; only a peer that lags sends us to the disk.
        if let Some(entries) = self.shared.recent().read(start, end, limit_bytes) {
            return Ok(entries);
        }
        let read = self.settled(move |shared| shared.disk.read(start, end, limit_bytes)).await;
        read.map_err(|fault| self.reading(fault))
    }
}

impl Log {
    /// Every entry from `first` on.
    pub async fn read_from(&self, first: u64) -> Result<Vec<Entry>, LogError> {
        let read = self.settled(move |shared| shared.disk.read(first, u64::MAX, u64::MAX)).await;
        read.map_err(|fault| self.error(fault))
    }

    /// Waits until what is to be purged is in the snapshot on the disk. openraft orders a purge right behind a snapshot that
    /// it received, whose bytes are still on their way: a power cut between the two would leave neither.
    async fn covered(&self, upto: Id) -> Result<(), Failure> {
        let Some(purging) = self.shared.purging.get() else { return Ok(()) };
        let mut covers = purging.covers.clone();
        let _working = Working::begin(&self.shared);
        let covered = covers.wait_for(|covers| *covers >= Some(upto));
        match tokio::time::timeout(SNAPSHOT_PATIENCE, covered).await {
            Ok(Ok(_)) => Ok(()),
            Ok(Err(_)) | Err(_) => Err(self.writing(LogFault::Uncovered(upto.index))),
        }
    }

    async fn remove(&self, range: (Bound<u64>, Bound<u64>), purged: Option<Id>) -> Result<(), Failure> {
        let removed = self.settled(move |shared| {
            shared.disk.remove(range, purged)?;
            shared.recent().forget(range);
            match shared.purging.get().filter(|_| purged.is_some()) {
                Some(purging) => shared.disk.tidy(purging.small_bytes),
                None => Ok(()),
            }
        });
        removed.await.map_err(|fault| self.writing(fault))
    }
}

impl RaftLogReader<Types> for Log {
    async fn try_get_log_entries<RB: RangeBounds<u64> + Clone + Debug + OptionalSend>(
        &mut self,
        range: RB,
    ) -> Result<Vec<Entry>, Failure> {
        let start = match range.start_bound() {
            Bound::Included(index) => *index,
            Bound::Excluded(index) => index.saturating_add(1),
            Bound::Unbounded => 0,
        };
        let end = match range.end_bound() {
            Bound::Included(index) => index.saturating_add(1),
            Bound::Excluded(index) => *index,
            Bound::Unbounded => u64::MAX,
        };
        self.entries(start, end, u64::MAX).await
    }

    async fn limited_get_log_entries(&mut self, start: u64, end: u64) -> Result<Vec<Entry>, Failure> {
        self.entries(start, end, APPEND_BYTES).await
    }
}

impl RaftLogStorage<Types> for Log {
    type LogReader = Self;

    async fn get_log_state(&mut self) -> Result<LogState<Types>, Failure> {
        self.settled(|shared| shared.disk.state()).await.map_err(|fault| self.reading(fault))
    }

    async fn get_log_reader(&mut self) -> Self {
        self.clone()
    }

    async fn save_vote(&mut self, vote: &Ballot) -> Result<(), Failure> {
        let vote = *vote;
        let saved = self.settled(move |shared| shared.disk.put_meta(VOTE, &vote)).await;
        saved.map_err(|fault| StorageIOError::write_vote(AnyError::new(&self.error(fault))).into())
    }

    async fn read_vote(&mut self) -> Result<Option<Ballot>, Failure> {
        let vote = self.blocking(|shared| shared.disk.get_meta(VOTE)).await;
        vote.map_err(|fault| StorageIOError::read_vote(AnyError::new(&self.error(fault))).into())
    }

    async fn save_committed(&mut self, committed: Option<Id>) -> Result<(), Failure> {
        // What is applied next, and what the mark speaks of, is on the disk.
        if let Some(id) = committed {
            self.shared.flushed.up_to(id.index).await.map_err(|unwritten| self.writing(unwritten.into()))?;
        }
        *self.shared.committed() = committed;
        Ok(())
    }

    async fn read_committed(&mut self) -> Result<Option<Id>, Failure> {
        // A mark past the end (the file of an older moment came back) must not ask for entries that are not there.
        let last = self.get_log_state().await?.last_log_id;
        let committed = *self.shared.committed();
        Ok(committed.min(last))
    }

    async fn append<I>(&mut self, entries: I, callback: LogFlushed<Types>) -> Result<(), Failure>
    where
        I: IntoIterator<Item = Entry> + OptionalSend,
        I::IntoIter: OptionalSend,
    {
        self.shared.flushed.room().await.map_err(|unwritten| self.writing(unwritten.into()))?;
        let entries: Vec<Entry> = entries.into_iter().collect();
        let records: Result<Records, LogFault> = entries.iter().map(disk::record).collect();
        let records = records.map_err(|fault| self.writing(fault))?;
        {
            let mut recent = self.shared.recent();
            for (entry, (_, record)) in entries.into_iter().zip(&records) {
                recent.push(entry, record.len() as u64);
            }
        }
        if let Some(records) = self.shared.flushed.append(records) {
            let mut write = Box::pin(self.clone().write(records));
            // It begins now and not after what openraft does next.
            if futures::poll!(&mut write).is_pending() {
                tokio::spawn(write);
            }
        }
        callback.log_io_completed(Ok(()));
        Ok(())
    }

    async fn truncate(&mut self, since: Id) -> Result<(), Failure> {
        self.remove((Bound::Included(since.index), Bound::Unbounded), None).await
    }

    async fn purge(&mut self, upto: Id) -> Result<(), Failure> {
        self.covered(upto).await?;
        self.remove((Bound::Unbounded, Bound::Included(upto.index)), Some(upto)).await
    }
}
