//! The log of versions that kept it in a redb file: read once, and written anew as it is kept now.

use super::super::codec::unseal;
use super::super::files;
use super::super::storage::Storage;
use super::LogFault;
use super::disk::{COMMITTED, Change, Disk, FILLING, IDENTITY, PURGED, Put, VOTE, damaged};
use super::mark::Mark;
use redb::{Database, DatabaseError, ReadOnlyTable, ReadableDatabase, ReadableTable, TableDefinition};
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::Arc;

const LOG: TableDefinition<u64, &[u8]> = TableDefinition::new("log");
const META: TableDefinition<&str, &[u8]> = TableDefinition::new("meta");
const RECORDS: [&str; 5] = [IDENTITY, VOTE, FILLING, PURGED, COMMITTED];
/// How many times the file was written.
const COMMITS: &str = "commits";

/// Where the older form of the log at `log` is.
pub(super) fn path(log: &Path) -> PathBuf {
    log.with_extension("redb")
}

/// Does nothing where there is none. One that is damaged stays.
pub(super) fn convert(storage: &Arc<dyn Storage>, log: &Path) -> Result<(), LogFault> {
    let path = path(log);
    if !storage.exists(&path).map_err(LogFault::Io)? {
        return Ok(());
    }
    let older = guarded(|| Older::open(&path))?;
    match storage.exists(log).map_err(LogFault::Io)? {
        // It was written anew, and not yet removed.
        true if guarded(|| older.is_in(&Disk::open(storage, log)?))? => {}
        true => return Err(LogFault::Damaged("an earlier version has gone on with it since".into())),
        false => {
            let (_, marked) = Mark::open(&**storage, log).map_err(LogFault::Io)?;
            guarded(|| older.check(marked))?;
            Disk::create(storage, log, |put| guarded(|| older.copy(put)))?;
            tracing::info!(from = %path.display(), to = %log.display(), "the log is kept in another form now");
        }
    }
    drop(older);
    storage.remove(&path).map_err(LogFault::Io)
}

/// Its file, open.
struct Older {
    meta: ReadOnlyTable<&'static str, &'static [u8]>,
    log: ReadOnlyTable<u64, &'static [u8]>,
    /// Locks the file while this lives.
    _database: Database,
}

impl Older {
    fn open(path: &Path) -> Result<Self, LogFault> {
        let database = Database::open(path).map_err(|error| match error {
            DatabaseError::DatabaseAlreadyOpen => LogFault::InUse,
            error => fault(error),
        })?;
        let read = database.begin_read().map_err(fault)?;
        let (meta, log) = (read.open_table(META).map_err(fault)?, read.open_table(LOG).map_err(fault)?);
        Ok(Self { meta, log, _database: database })
    }

    fn get(&self, name: &str) -> Result<Option<Vec<u8>>, LogFault> {
        Ok(self.meta.get(name).map_err(fault)?.map(|record| record.value().to_vec()))
    }

    /// Whether it is as new as the number beside it says.
    fn check(&self, marked: Option<u64>) -> Result<(), LogFault> {
        let commits = self.get(COMMITS)?.map(|record| unseal(COMMITS.as_bytes(), &record)).transpose();
        let commits: u64 = commits.map_err(damaged(COMMITS))?.unwrap_or_default();
        match marked.filter(|marked| *marked > commits) {
            Some(marked) => Err(LogFault::WentBack { changes: commits, marked }),
            None => Ok(()),
        }
    }

    /// Whether what it says is what that one says.
    fn is_in(&self, disk: &Disk) -> Result<bool, LogFault> {
        for name in RECORDS {
            if self.get(name)? != disk.sealed(name) {
                return Ok(false);
            }
        }
        let last = self.log.last().map_err(fault)?.map(|(index, _)| index.value());
        Ok(last == disk.last())
    }

    fn copy(&self, put: &mut Put) -> Result<(), LogFault> {
        let mut change = Change::default();
        for name in RECORDS {
            if let Some(record) = self.get(name)? {
                change.sealed(name, &record);
            }
        }
        for entry in self.log.range::<u64>(..).map_err(fault)? {
            let (index, record) = entry.map_err(fault)?;
            change.entry(index.value(), record.value());
            if change.is_large() {
                put(std::mem::take(&mut change))?;
            }
        }
        put(change)
    }
}

/// Runs a step of the database engine. A damaged file must not take the daemon down, so its panics are errors.
fn guarded<T>(step: impl FnOnce() -> Result<T, LogFault>) -> Result<T, LogFault> {
    match catch_unwind(AssertUnwindSafe(step)) {
        Ok(result) => result,
        Err(_) => Err(LogFault::Damaged("the database engine panicked over it".into())),
    }
}

fn fault(error: impl Into<redb::Error>) -> LogFault {
    match error.into() {
        redb::Error::Io(error) if !files::is_damage(&error) => LogFault::Io(error),
        error @ (redb::Error::PreviousIo | redb::Error::LockPoisoned(_)) => {
            LogFault::Io(io::Error::other(error))
        }
        // No gaggle wrote an older format of the engine's, so its number is what is damaged.
        error => LogFault::Damaged(error.to_string()),
    }
}
