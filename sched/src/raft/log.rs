//! The log on disk: entries, vote, purge mark, commit mark and the group's identity in one redb file.
//!
//! Every append and vote is on the disk before it is answered. Every record carries a checksum that is checked
//! when it is read. It knows nothing of what an entry's transactions mean.

use super::codec::{CodecError, seal, unseal};
use super::types::{Ballot, Entry, Failure, GroupId, Id, Types};
use openraft::storage::{LogFlushed, RaftLogStorage};
use openraft::{AnyError, LogState, OptionalSend, RaftLogReader, StorageIOError};
use redb::{Database, Durability, ReadableDatabase, ReadableTable, TableDefinition};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fmt::Debug;
use std::ops::{Bound, RangeBounds};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

const LOG: TableDefinition<u64, &[u8]> = TableDefinition::new("log");
const META: TableDefinition<&str, &[u8]> = TableDefinition::new("meta");

const IDENTITY: &str = "identity";
const VOTE: &str = "vote";
const PURGED: &str = "purged";
const COMMITTED: &str = "committed";

/// Pages that redb keeps in memory. Recent entries are cached decoded beside it, so a small one does.
const PAGE_CACHE_BYTES: usize = 4 << 20;

/// Recent entries kept decoded for applying and replicating: several of the largest batches.
const ENTRY_CACHE_BYTES: u64 = 8 << 20;

/// What one append to a peer carries at most, beyond its first entry: it has to arrive within a heartbeat.
const APPEND_BYTES: u64 = 1 << 20;

/// A file of the group that cannot be used, and why.
#[derive(Debug, thiserror::Error)]
#[error("{} cannot be used; if it cannot be repaired, move it away and this node joins again as a new voter", path.display())]
pub struct LogError {
    pub path: PathBuf,
    #[source]
    pub source: LogFault,
}

#[derive(Debug, thiserror::Error)]
pub enum LogFault {
    #[error("the database engine gave up: {0}")]
    Engine(String),
    #[error("the record {record} is damaged")]
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
    path: PathBuf,
    db: Database,
    /// Bytes of entries on disk: what the snapshot policy bounds besides their number.
    bytes: AtomicU64,
    recent: Mutex<Recent>,
    /// Known to be committed, written with the next append: it only saves replaying after a restart.
    committed: Mutex<Option<Id>>,
}

/// The newest entries, decoded.
#[derive(Default)]
struct Recent {
    entries: BTreeMap<u64, (Entry, u64)>,
    bytes: u64,
}

impl Recent {
    fn push(&mut self, entry: Entry, bytes: u64) {
        self.bytes += bytes;
        if let Some((_, old)) = self.entries.insert(entry.log_id.index, (entry, bytes)) {
            self.bytes -= old;
        }
        while self.bytes > ENTRY_CACHE_BYTES && self.entries.len() > 1 {
            if let Some((_, (_, bytes))) = self.entries.pop_first() {
                self.bytes -= bytes;
            }
        }
    }

    fn forget(&mut self, range: impl RangeBounds<u64>) {
        let gone: Vec<u64> = self.entries.range(range).map(|(index, _)| *index).collect();
        for index in gone {
            if let Some((_, bytes)) = self.entries.remove(&index) {
                self.bytes -= bytes;
            }
        }
    }
}

impl Log {
    /// Begins a log in a file that does not exist yet.
    pub fn create(path: &Path, identity: &Identity) -> Result<Self, LogError> {
        let log = Self::open_file(path)?;
        log.shared.put_meta(&[(IDENTITY, seal(IDENTITY.as_bytes(), identity))]).map_err(|f| log.error(f))?;
        Ok(log)
    }

    /// Opens an existing log and reads all of it once, so that damage shows here and not in mid-flight.
    pub fn open(path: &Path) -> Result<(Self, Identity), LogError> {
        let log = Self::open_file(path)?;
        let identity = log.shared.verify().map_err(|fault| log.error(fault))?;
        Ok((log, identity))
    }

    fn open_file(path: &Path) -> Result<Self, LogError> {
        let open = || -> Result<Database, redb::Error> {
            let db = Database::builder().set_cache_size(PAGE_CACHE_BYTES).create(path)?;
            let txn = db.begin_write()?;
            txn.open_table(LOG)?;
            txn.open_table(META)?;
            txn.commit()?;
            Ok(db)
        };
        let db = guarded(open).map_err(|source| LogError { path: path.to_owned(), source })?;
        Ok(Self {
            shared: Arc::new(Shared {
                path: path.to_owned(),
                db,
                bytes: AtomicU64::new(0),
                recent: Mutex::default(),
                committed: Mutex::default(),
            }),
        })
    }

    fn error(&self, source: LogFault) -> LogError {
        LogError { path: self.shared.path.clone(), source }
    }

    /// Bytes of entries that no purge has removed yet.
    pub fn bytes(&self) -> u64 {
        self.shared.bytes.load(Ordering::Relaxed)
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
        let result = self.blocking(|shared| shared.append(&[])).await;
        result.map_err(|fault| self.error(fault))
    }

    async fn blocking<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Shared) -> Result<T, LogFault> + Send + 'static,
    ) -> Result<T, LogFault> {
        let shared = self.shared.clone();
        let done = tokio::task::spawn_blocking(move || work(&shared)).await;
        done.unwrap_or_else(|error| Err(LogFault::Engine(error.to_string())))
    }
}

/// Runs a step of the database engine. A damaged file must not take the daemon down, so its panics are errors.
fn guarded<T>(step: impl FnOnce() -> Result<T, redb::Error>) -> Result<T, LogFault> {
    match catch_unwind(AssertUnwindSafe(step)) {
        Ok(result) => result.map_err(|error| LogFault::Engine(error.to_string())),
        Err(_) => Err(LogFault::Engine("it panicked; the file is damaged".into())),
    }
}

fn damaged(record: impl ToString) -> impl FnOnce(CodecError) -> LogFault {
    move |source| LogFault::Record { record: record.to_string(), source }
}

impl Shared {
    fn get_meta<T: serde::de::DeserializeOwned>(&self, key: &str) -> Result<Option<T>, LogFault> {
        let bytes = guarded(|| {
            let table = self.db.begin_read()?.open_table(META)?;
            Ok(table.get(key)?.map(|value| value.value().to_vec()))
        })?;
        bytes.map(|bytes| unseal(key.as_bytes(), &bytes).map_err(damaged(key))).transpose()
    }

    fn put_meta(&self, records: &[(&str, Result<Vec<u8>, CodecError>)]) -> Result<(), LogFault> {
        for (key, record) in records {
            if let Err(error) = record {
                return Err(LogFault::Engine(format!("{key}: {error}")));
            }
        }
        guarded(|| {
            let mut txn = self.db.begin_write()?;
            txn.set_durability(Durability::Immediate)?;
            {
                let mut table = txn.open_table(META)?;
                for (key, record) in
                    records.iter().filter_map(|(key, record)| Some((key, record.as_ref().ok()?)))
                {
                    table.insert(*key, record.as_slice())?;
                }
            }
            txn.commit()?;
            Ok(())
        })
    }

    /// Adds encoded entries and the commit mark, on the disk when it returns.
    fn append(&self, records: &[(u64, Vec<u8>)]) -> Result<(), LogFault> {
        let committed = *self.committed.lock().unwrap_or_else(PoisonError::into_inner);
        let mark =
            committed.map(|id| seal(COMMITTED.as_bytes(), &id)).transpose().map_err(damaged(COMMITTED))?;
        guarded(|| {
            let mut txn = self.db.begin_write()?;
            txn.set_durability(Durability::Immediate)?;
            {
                let mut log = txn.open_table(LOG)?;
                for (index, record) in records {
                    log.insert(*index, record.as_slice())?;
                }
                if let Some(mark) = &mark {
                    txn.open_table(META)?.insert(COMMITTED, mark.as_slice())?;
                }
            }
            txn.commit()?;
            Ok(())
        })?;
        let bytes: usize = records.iter().map(|(_, record)| record.len()).sum();
        self.bytes.fetch_add(bytes as u64, Ordering::Relaxed);
        Ok(())
    }

    /// Removes the entries in `range` and sets the purge mark, if given, in one transaction.
    fn remove(&self, range: (Bound<u64>, Bound<u64>), purged: Option<Id>) -> Result<(), LogFault> {
        let mark = purged.map(|id| seal(PURGED.as_bytes(), &id)).transpose().map_err(damaged(PURGED))?;
        let removed = guarded(|| {
            let mut txn = self.db.begin_write()?;
            txn.set_durability(Durability::Immediate)?;
            let mut removed = 0;
            {
                let mut log = txn.open_table(LOG)?;
                log.retain_in(range, |_, record| {
                    removed += record.len() as u64;
                    false
                })?;
                if let Some(mark) = &mark {
                    txn.open_table(META)?.insert(PURGED, mark.as_slice())?;
                }
            }
            txn.commit()?;
            Ok(removed)
        })?;
        self.bytes.fetch_sub(removed, Ordering::Relaxed);
        self.recent.lock().unwrap_or_else(PoisonError::into_inner).forget(range);
        Ok(())
    }

    /// Entries of a half-open range, at least one if there is one, until `limit_bytes`.
    fn read(&self, start: u64, end: u64, limit_bytes: u64) -> Result<Vec<Entry>, LogFault> {
        if start >= end {
            return Ok(Vec::new());
        }
        if let Some(entries) = self.read_recent(start, end, limit_bytes) {
            return Ok(entries);
        }
        let records = guarded(|| {
            let table = self.db.begin_read()?.open_table(LOG)?;
            let (mut records, mut bytes) = (Vec::new(), 0);
            for record in table.range(start..end)? {
                let (index, record) = record?;
                bytes += record.value().len() as u64;
                if bytes > limit_bytes && !records.is_empty() {
                    break;
                }
                records.push((index.value(), record.value().to_vec()));
            }
            Ok(records)
        })?;
        records.into_iter().map(|(index, record)| open_entry(index, &record)).collect()
    }

    fn read_recent(&self, start: u64, end: u64, limit_bytes: u64) -> Option<Vec<Entry>> {
        let recent = self.recent.lock().unwrap_or_else(PoisonError::into_inner);
        let (mut entries, mut bytes) = (Vec::new(), 0);
        for index in start..end {
            let (entry, size) = recent.entries.get(&index)?;
            bytes += size;
            if bytes > limit_bytes && !entries.is_empty() {
                break;
            }
            entries.push(entry.clone());
        }
        Some(entries)
    }

    fn state(&self) -> Result<LogState<Types>, LogFault> {
        let last_purged_log_id: Option<Id> = self.get_meta(PURGED)?;
        let last = guarded(|| {
            let table = self.db.begin_read()?.open_table(LOG)?;
            Ok(table.last()?.map(|(index, record)| (index.value(), record.value().to_vec())))
        })?;
        let last = last.map(|(index, record)| open_entry(index, &record)).transpose()?;
        let last_log_id = last.map(|entry| entry.log_id).or(last_purged_log_id);
        Ok(LogState { last_purged_log_id, last_log_id })
    }

    /// Reads everything once: records whole, no hole between the purge mark and the end.
    fn verify(&self) -> Result<Identity, LogFault> {
        let identity: Identity = self.get_meta(IDENTITY)?.ok_or(LogFault::Anonymous)?;
        self.get_meta::<Ballot>(VOTE)?;
        *self.committed.lock().unwrap_or_else(PoisonError::into_inner) = self.get_meta(COMMITTED)?;
        let purged: Option<Id> = self.get_meta(PURGED)?;
        let mut next = purged.map_or(0, |id| id.index + 1);
        let indices = guarded(|| {
            let table = self.db.begin_read()?.open_table(LOG)?;
            table
                .range::<u64>(..)?
                .map(|record| Ok(record?.0.value()))
                .collect::<Result<Vec<u64>, redb::Error>>()
        })?;
        let mut bytes = 0;
        for index in indices {
            if index != next {
                return Err(LogFault::Hole(next));
            }
            next += 1;
            let record = guarded(|| {
                let table = self.db.begin_read()?.open_table(LOG)?;
                Ok(table.get(index)?.map(|record| record.value().to_vec()))
            })?;
            let record = record.ok_or(LogFault::Hole(index))?;
            bytes += record.len() as u64;
            open_entry(index, &record)?;
        }
        self.bytes.store(bytes, Ordering::Relaxed);
        Ok(identity)
    }
}

fn open_entry(index: u64, record: &[u8]) -> Result<Entry, LogFault> {
    let entry: Entry = unseal(&index.to_be_bytes(), record).map_err(damaged(format!("of entry {index}")))?;
    if entry.log_id.index == index { Ok(entry) } else { Err(LogFault::Hole(index)) }
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
        if let Some(entries) = self.shared.read_recent(start, end, limit_bytes) {
            return Ok(entries);
        }
        let read = self.blocking(move |shared| shared.read(start, end, limit_bytes)).await;
        read.map_err(|fault| self.reading(fault))
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
        self.blocking(Shared::state).await.map_err(|fault| self.reading(fault))
    }

    async fn get_log_reader(&mut self) -> Self {
        self.clone()
    }

    async fn save_vote(&mut self, vote: &Ballot) -> Result<(), Failure> {
        let record = seal(VOTE.as_bytes(), vote);
        let saved = self.blocking(move |shared| shared.put_meta(&[(VOTE, record)])).await;
        saved.map_err(|fault| StorageIOError::write_vote(AnyError::new(&self.error(fault))).into())
    }

    async fn read_vote(&mut self) -> Result<Option<Ballot>, Failure> {
        let vote = self.blocking(|shared| shared.get_meta(VOTE)).await;
        vote.map_err(|fault| StorageIOError::read_vote(AnyError::new(&self.error(fault))).into())
    }

    async fn save_committed(&mut self, committed: Option<Id>) -> Result<(), Failure> {
        *self.shared.committed.lock().unwrap_or_else(PoisonError::into_inner) = committed;
        Ok(())
    }

    async fn read_committed(&mut self) -> Result<Option<Id>, Failure> {
        // A mark past the end (the file of an older moment came back) must not ask for entries that are not there.
        let last = self.get_log_state().await?.last_log_id;
        let committed = *self.shared.committed.lock().unwrap_or_else(PoisonError::into_inner);
        Ok(committed.min(last))
    }

    async fn append<I>(&mut self, entries: I, callback: LogFlushed<Types>) -> Result<(), Failure>
    where
        I: IntoIterator<Item = Entry> + OptionalSend,
        I::IntoIter: OptionalSend,
    {
        let entries: Vec<Entry> = entries.into_iter().collect();
        let appended = self.blocking(move |shared| {
            let records = entries.iter().map(|entry| {
                let index = entry.log_id.index;
                let record =
                    seal(&index.to_be_bytes(), entry).map_err(damaged(format!("of entry {index}")))?;
                Ok((index, record))
            });
            let records = records.collect::<Result<Vec<_>, LogFault>>()?;
            shared.append(&records)?;
            let mut recent = shared.recent.lock().unwrap_or_else(PoisonError::into_inner);
            for (entry, (_, record)) in entries.into_iter().zip(&records) {
                recent.push(entry, record.len() as u64);
            }
            Ok(())
        });
        appended.await.map_err(|fault| self.writing(fault))?;
        callback.log_io_completed(Ok(()));
        Ok(())
    }

    async fn truncate(&mut self, since: Id) -> Result<(), Failure> {
        let range = (Bound::Included(since.index), Bound::Unbounded);
        let removed = self.blocking(move |shared| shared.remove(range, None)).await;
        removed.map_err(|fault| self.writing(fault))
    }

    async fn purge(&mut self, upto: Id) -> Result<(), Failure> {
        let range = (Bound::Unbounded, Bound::Included(upto.index));
        let removed = self.blocking(move |shared| shared.remove(range, Some(upto))).await;
        removed.map_err(|fault| self.writing(fault))
    }
}
