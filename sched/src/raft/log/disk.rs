//! The redb file: records in, records out, each sealed. Blocking; [`super::Log`] calls it off the async threads.
//!
//! Every commit has a number, in the file and in the [`Mark`] beside it. redb answers a damaged header with the
//! commit before the last one, which is right for a write that a power cut broke off, and a lost vote or entry where
//! a bit of the disk has turned: the number tells the two apart.

use super::super::codec::{CodecError, seal, unseal};
use super::super::files;
use super::super::storage::{Pages, Storage};
use super::super::types::{Ballot, Entry, Id, Types};
use super::mark::Mark;
use super::{Filling, Identity, LogFault};
use openraft::LogState;
use redb::{
    Database, Durability, ReadableDatabase, ReadableTable, StorageBackend, TableDefinition, WriteTransaction,
};
use std::io;
use std::ops::Bound;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

const LOG: TableDefinition<u64, &[u8]> = TableDefinition::new("log");
const META: TableDefinition<&str, &[u8]> = TableDefinition::new("meta");

pub(super) const IDENTITY: &str = "identity";
pub(super) const VOTE: &str = "vote";
/// See [`super::Filling`].
pub(super) const FILLING: &str = "filling";
const PURGED: &str = "purged";
const COMMITTED: &str = "committed";
/// How many times this file was written.
const COMMITS: &str = "commits";

/// Pages that redb keeps in memory. Recent entries are cached decoded beside it, so a small one does.
const PAGE_CACHE_BYTES: usize = 4 << 20;

pub(super) struct Disk {
    /// Until it is dropped.
    db: Option<Database>,
    mark: Mark,
    /// The number of the last commit.
    commits: Mutex<u64>,
    /// See [`super::Log::appended`].
    appended: AtomicU64,
}

impl Disk {
    /// A new file that only the owner may read: users' secrets are in the entries.
    pub fn create(storage: &dyn Storage, path: &Path) -> Result<Self, LogFault> {
        Mark::reset(storage, path).map_err(LogFault::Io)?;
        storage.create(path).map_err(LogFault::Io)?;
        Self::open(storage, path)
    }

    pub fn open(storage: &dyn Storage, path: &Path) -> Result<Self, LogFault> {
        let open = || -> Result<Database, redb::Error> {
            let mut builder = Database::builder();
            builder.set_cache_size(PAGE_CACHE_BYTES);
            let db = match storage.database(path)? {
                Some(pages) => builder.create_with_backend(Backend(pages))?,
                None => builder.create(path)?,
            };
            let txn = db.begin_write()?;
            txn.open_table(LOG)?;
            txn.open_table(META)?;
            txn.commit()?;
            Ok(db)
        };
        let (mark, marked) = Mark::open(storage, path).map_err(LogFault::Io)?;
        let mut disk =
            Self { db: Some(guarded(open)?), mark, commits: Mutex::default(), appended: AtomicU64::new(0) };
        let commits = disk.get_meta(COMMITS)?.unwrap_or(0);
        disk.commits = Mutex::new(commits);
        match marked {
            Some(marked) if marked > commits => Err(LogFault::WentBack { commits, marked }),
            _ => Ok(disk),
        }
    }

    /// One numbered commit of what `change` does, on the disk when it returns.
    fn commit<T>(
        &self,
        change: impl FnOnce(&WriteTransaction) -> Result<T, redb::Error>,
    ) -> Result<T, LogFault> {
        let mut commits = self.commits.lock().unwrap_or_else(PoisonError::into_inner);
        let next = *commits + 1;
        let number = seal(COMMITS.as_bytes(), &next).map_err(damaged(COMMITS))?;
        let done = guarded(|| {
            let mut txn = self.db()?.begin_write()?;
            txn.set_durability(Durability::Immediate)?;
            let done = change(&txn)?;
            txn.open_table(META)?.insert(COMMITS, number.as_slice())?;
            txn.commit()?;
            Ok(done)
        })?;
        *commits = next;
        self.mark.set(next);
        Ok(done)
    }

    fn db(&self) -> Result<&Database, redb::Error> {
        self.db.as_ref().ok_or(redb::Error::DatabaseClosed)
    }

    pub fn appended(&self) -> u64 {
        self.appended.load(Ordering::Relaxed)
    }

    pub fn committed(&self) -> Result<Option<Id>, LogFault> {
        self.get_meta(COMMITTED)
    }

    pub fn get_meta<T: serde::de::DeserializeOwned>(&self, key: &str) -> Result<Option<T>, LogFault> {
        let bytes = guarded(|| {
            let table = self.db()?.begin_read()?.open_table(META)?;
            Ok(table.get(key)?.map(|value| value.value().to_vec()))
        })?;
        bytes.map(|bytes| unseal(key.as_bytes(), &bytes).map_err(damaged(key))).transpose()
    }

    pub fn put_meta<T: serde::Serialize>(&self, key: &str, value: &T) -> Result<(), LogFault> {
        let record = seal(key.as_bytes(), value).map_err(damaged(key))?;
        self.commit(|txn| {
            txn.open_table(META)?.insert(key, record.as_slice())?;
            Ok(())
        })
    }

    /// Adds encoded entries and the commit mark, on the disk when it returns.
    pub fn append(&self, records: &[(u64, Vec<u8>)], committed: Option<Id>) -> Result<(), LogFault> {
        let mark =
            committed.map(|id| seal(COMMITTED.as_bytes(), &id)).transpose().map_err(damaged(COMMITTED))?;
        self.commit(|txn| {
            let mut log = txn.open_table(LOG)?;
            for (index, record) in records {
                log.insert(*index, record.as_slice())?;
            }
            let last = log.last()?.map(|(index, _)| index.value());
            // What a snapshot brought is committed, and may not be in the log yet.
            if let Some(mark) = mark.filter(|_| committed.map(|id| id.index) <= last) {
                txn.open_table(META)?.insert(COMMITTED, mark.as_slice())?;
            }
            Ok(())
        })?;
        let bytes: usize = records.iter().map(|(_, record)| record.len()).sum();
        self.appended.fetch_add(bytes as u64, Ordering::Relaxed);
        Ok(())
    }

    /// Removes the entries in `range` and sets the purge mark, if given, in one transaction.
    pub fn remove(&self, range: (Bound<u64>, Bound<u64>), purged: Option<Id>) -> Result<(), LogFault> {
        let mark = purged.map(|id| seal(PURGED.as_bytes(), &id)).transpose().map_err(damaged(PURGED))?;
        self.commit(|txn| {
            txn.open_table(LOG)?.retain_in(range, |_, _| false)?;
            if let Some(mark) = &mark {
                txn.open_table(META)?.insert(PURGED, mark.as_slice())?;
            }
            Ok(())
        })
    }

    /// Entries of a half-open range, at least one if there is one, until `limit_bytes`.
    pub fn read(&self, start: u64, end: u64, limit_bytes: u64) -> Result<Vec<Entry>, LogFault> {
        if start >= end {
            return Ok(Vec::new());
        }
        let records = guarded(|| {
            let table = self.db()?.begin_read()?.open_table(LOG)?;
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

    pub fn state(&self) -> Result<LogState<Types>, LogFault> {
        let last_purged_log_id: Option<Id> = self.get_meta(PURGED)?;
        let last = guarded(|| {
            let table = self.db()?.begin_read()?.open_table(LOG)?;
            Ok(table.last()?.map(|(index, record)| (index.value(), record.value().to_vec())))
        })?;
        let last = last.map(|(index, record)| open_entry(index, &record)).transpose()?;
        let last_log_id = last.map(|entry| entry.log_id).or(last_purged_log_id);
        Ok(LogState { last_purged_log_id, last_log_id })
    }

    /// Reads everything once: records whole, no hole between the purge mark and the end, nothing committed beyond it.
    pub fn verify(&self) -> Result<Identity, LogFault> {
        let identity: Identity = self.get_meta(IDENTITY)?.ok_or(LogFault::Anonymous)?;
        self.get_meta::<Ballot>(VOTE)?;
        self.get_meta::<Filling>(FILLING)?;
        let committed: Option<Id> = self.get_meta(COMMITTED)?;
        let purged: Option<Id> = self.get_meta(PURGED)?;
        let first = purged.map_or(0, |id| id.index + 1);
        let indices = guarded(|| {
            let table = self.db()?.begin_read()?.open_table(LOG)?;
            table
                .range::<u64>(..)?
                .map(|record| Ok(record?.0.value()))
                .collect::<Result<Vec<u64>, redb::Error>>()
        })?;
        let mut bytes = 0;
        for (next, index) in (first..).zip(indices) {
            if index != next {
                return Err(LogFault::Hole(next));
            }
            let record = guarded(|| {
                let table = self.db()?.begin_read()?.open_table(LOG)?;
                Ok(table.get(index)?.map(|record| record.value().to_vec()))
            })?;
            let record = record.ok_or(LogFault::Hole(index))?;
            bytes += record.len() as u64;
            open_entry(index, &record)?;
        }
        self.appended.store(bytes, Ordering::Relaxed);
        // The mark is written with its entry or after it. Where a bit of the engine's own pages has turned, the log may seem empty.
        match committed {
            Some(id) if Some(id.index) > self.state()?.last_log_id.map(|last| last.index) => {
                Err(LogFault::Hole(id.index))
            }
            _ => Ok(identity),
        }
    }
}

impl Drop for Disk {
    /// The engine writes once more when it is closed, over what is damaged as well.
    fn drop(&mut self) {
        let db = self.db.take();
        if let Err(error) = guarded(|| {
            drop(db);
            Ok(())
        }) {
            tracing::warn!(%error, "a log was not closed properly");
        }
    }
}

/// [`Pages`] as the engine wants them.
#[derive(Debug)]
struct Backend(Box<dyn Pages>);

impl StorageBackend for Backend {
    fn len(&self) -> io::Result<u64> {
        self.0.len()
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        self.0.read(offset, out)
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.0.set_len(len)
    }

    fn sync_data(&self) -> io::Result<()> {
        self.0.sync()
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.0.write(offset, data)
    }
}

/// An entry as it is stored.
pub(super) fn record(entry: &Entry) -> Result<(u64, Vec<u8>), LogFault> {
    let index = entry.log_id.index;
    let record = seal(&index.to_be_bytes(), entry).map_err(damaged(format!("of entry {index}")))?;
    Ok((index, record))
}

fn open_entry(index: u64, record: &[u8]) -> Result<Entry, LogFault> {
    let entry: Entry = unseal(&index.to_be_bytes(), record).map_err(damaged(format!("of entry {index}")))?;
    if entry.log_id.index == index { Ok(entry) } else { Err(LogFault::Hole(index)) }
}

/// Runs a step of the database engine. A damaged file must not take the daemon down, so its panics are errors.
fn guarded<T>(step: impl FnOnce() -> Result<T, redb::Error>) -> Result<T, LogFault> {
    match catch_unwind(AssertUnwindSafe(step)) {
        Ok(result) => result.map_err(fault),
        Err(_) => Err(LogFault::Damaged("the database engine panicked over it".into())),
    }
}

/// What the disk refuses, what is damaged, and the rest, which nobody has foreseen.
fn fault(error: redb::Error) -> LogFault {
    match error {
        redb::Error::Io(error) if files::is_damage(&error) => LogFault::Damaged(error.to_string()),
        redb::Error::Io(error) => LogFault::Io(error),
        redb::Error::PreviousIo => LogFault::Io(io::Error::other("an earlier write failed")),
        // No gaggle wrote an older format of the engine's, so its number is what is damaged.
        error @ (redb::Error::Corrupted(_)
        | redb::Error::UpgradeRequired(_)
        | redb::Error::TableDoesNotExist(_)
        | redb::Error::TableTypeMismatch { .. }
        | redb::Error::TypeDefinitionChanged { .. }
        | redb::Error::TableIsMultimap(_)) => LogFault::Damaged(error.to_string()),
        error => LogFault::Engine(error.to_string()),
    }
}

fn damaged(record: impl ToString) -> impl FnOnce(CodecError) -> LogFault {
    move |source| LogFault::Record { record: record.to_string(), source }
}
