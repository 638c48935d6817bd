//! The log of versions that kept it in a redb file: read once, and written anew as it is kept now.

use super::super::codec::unseal;
use super::super::files;
use super::super::storage::Storage;
use super::LogFault;
use super::disk::{COMMITTED, Change, Disk, FILLING, IDENTITY, PURGED, Put, VOTE};
use super::mark::Mark;
use redb::{Database, DatabaseError, ReadableDatabase, TableDefinition};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::Arc;

const LOG: TableDefinition<u64, &[u8]> = TableDefinition::new("log");
const META: TableDefinition<&str, &[u8]> = TableDefinition::new("meta");
/// How many times the file was written.
const COMMITS: &str = "commits";

/// Where the older form of the log at `log` is.
pub(super) fn path(log: &Path) -> PathBuf {
    log.with_extension("redb")
}

/// Does nothing where there is none. One that is damaged is left as it is.
pub(super) fn convert(storage: &Arc<dyn Storage>, log: &Path) -> Result<(), LogFault> {
    let older = path(log);
    if !storage.exists(&older).map_err(LogFault::Io)? {
        return Ok(());
    }
    // Otherwise it was written anew, and not yet removed.
    if !storage.exists(log).map_err(LogFault::Io)? {
        let (_, marked) = Mark::open(&**storage, log).map_err(LogFault::Io)?;
        drop(Disk::create(storage, log, |put| guarded(|| copy(&older, marked, put)))?);
        tracing::info!(from = %older.display(), to = %log.display(), "the log is kept in another form now");
    }
    storage.remove(&older).map_err(LogFault::Io)
}

fn copy(from: &Path, marked: Option<u64>, put: &mut Put) -> Result<(), LogFault> {
    let read = Database::open(from).map_err(|error| match error {
        DatabaseError::DatabaseAlreadyOpen => LogFault::InUse,
        error => fault(error),
    })?;
    let read = read.begin_read().map_err(fault)?;
    let (meta, log) = (read.open_table(META).map_err(fault)?, read.open_table(LOG).map_err(fault)?);
    let get = |name| meta.get(name).map(|found| found.map(|record| record.value().to_vec())).map_err(fault);
    let commits = get(COMMITS)?.map(|record| unseal(COMMITS.as_bytes(), &record)).transpose();
    let commits: u64 = commits.map_err(super::disk::damaged(COMMITS))?.unwrap_or_default();
    if let Some(marked) = marked.filter(|marked| *marked > commits) {
        return Err(LogFault::WentBack { changes: commits, marked });
    }
    let mut change = Change::default();
    for name in [IDENTITY, VOTE, FILLING, PURGED, COMMITTED] {
        if let Some(record) = get(name)? {
            change.sealed(name, &record);
        }
    }
    for entry in log.range::<u64>(..).map_err(fault)? {
        let (index, record) = entry.map_err(fault)?;
        change.entry(index.value(), record.value());
        if change.is_large() {
            put(std::mem::take(&mut change))?;
        }
    }
    put(change)
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
        error => LogFault::Damaged(error.to_string()),
    }
}
