//! What a voter's files hold, without taking part: for founding the group anew when its quorum is lost.
//!
//! Beyond what this voter knew to be committed, its log may hold entries that a quorum has acknowledged all the same;
//! whether it has, nobody can say any more. So they all count, in the log's order, as they would if this voter
//! were elected.

use super::group::{Group, GroupError, LOG_FILE};
use super::log::Log;
use super::machine::apply;
use super::snapshot::{Record, blank};
use super::storage::{FileSystem, Storage, off_thread};
use super::types::Id;
use crate::electorate::founding::Position;
use crate::state::{Lineage, Store};
use std::path::Path;
use std::sync::Arc;

/// How often a running group's files are looked at until its snapshot and its log fit together.
const TRIES: u32 = 3;

/// Everything that a voter's files say.
#[derive(Debug)]
pub struct Salvaged {
    pub lineage: Lineage,
    /// The state after the log's last entry. Its history holds the log's changes with their intent.
    pub store: Store,
}

impl Salvaged {
    pub fn position(&self) -> Position {
        Position { epoch: self.lineage.epoch, term: self.store.term(), revision: self.store.revision() }
    }
}

impl Group {
    /// Whether its log holds more than is known to be committed.
    pub fn has_tail(&self) -> Option<Tail> {
        let metrics = self.inner.raft.metrics();
        let metrics = metrics.borrow();
        let last = self.inner.raft.data_metrics().borrow().last_log;
        (last > metrics.last_applied).then_some(Tail(last))
    }

    /// What its log and its snapshot say, while it runs: as [`salvage`] would find it if it ended now.
    ///
    /// # Errors
    /// When they cannot be read, or change faster than that.
    pub async fn salvage(&self) -> Result<Salvaged, GroupError> {
        let log = self.inner.log();
        let log = log.ok_or(GroupError::Stopped)?;
        for _ in 0..TRIES {
            let (identity, config) = (&self.inner.identity, &self.inner.config);
            let file = identity.snapshot_file(config.storage.clone(), &config.dir);
            let record = off_thread(&*config.storage, move || file.read()).await;
            let record = record.map_err(|source| GroupError::Dir { path: config.dir.clone(), source })??;
            let (mut store, first) = beginning(record, identity.epoch);
            let entries = log.read_from(first).await?;
            // A snapshot may have been taken meanwhile, and what it covers removed from the log.
            if entries.first().is_none_or(|entry| entry.log_id.index == first) {
                for entry in entries {
                    apply(&mut store, &entry);
                }
                return Ok(Salvaged { lineage: identity.lineage(), store });
            }
        }
        Err(GroupError::Deadline("looking into the log"))
    }
}

/// Names the end of a log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tail(Option<Id>);

/// The state that a log goes on from, and its next entry.
fn beginning(record: Option<(Record, Vec<u8>)>, epoch: u64) -> (Store, u64) {
    match record {
        Some((record, _)) => {
            let first = record.meta.last_log_id.map_or(0, |id| id.index + 1);
            (Store::from_snapshot(record.state), first)
        }
        None => (blank(epoch), 0),
    }
}

/// Reads the files of a group that does not run; `None` if there is none. What they say stays as it is.
///
/// # Errors
/// When a file is damaged: then what is in it does not count.
pub async fn salvage(dir: &Path) -> Result<Option<Salvaged>, GroupError> {
    let path = dir.join(LOG_FILE);
    let storage: Arc<dyn Storage> = Arc::new(FileSystem);
    Log::convert(&storage, &path)?;
    if !path.try_exists().map_err(|source| GroupError::Dir { path: dir.to_owned(), source })? {
        return Ok(None);
    }
    let (log, identity) = Log::open(&storage, &path)?;
    let record = identity.snapshot_file(storage, dir).read()?;
    let (mut store, first) = beginning(record, identity.epoch);
    let entries = log.read_from(first).await;
    log.close().await;
    for entry in entries? {
        apply(&mut store, &entry);
    }
    Ok(Some(Salvaged { lineage: identity.lineage(), store }))
}
