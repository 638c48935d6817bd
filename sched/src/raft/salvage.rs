//! What a voter's files hold, without taking part: for founding the group anew when its quorum is lost.
//!
//! Beyond what this voter knew to be committed, its log may hold entries that a quorum has acknowledged all the same;
//! whether it has, nobody can say any more. So they all count, in the log's order, as they would if this voter
//! were elected.

use super::group::{GroupError, LOG_FILE};
use super::log::Log;
use super::machine::apply;
use super::snapshot::blank;
use crate::electorate::founding::Position;
use crate::state::{Lineage, Store};
use std::path::Path;

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

/// Reads the files of a group that does not run; `None` if there is none. They are left as they are.
///
/// # Errors
/// When a file is damaged: then what is in it does not count.
pub async fn salvage(dir: &Path) -> Result<Option<Salvaged>, GroupError> {
    let path = dir.join(LOG_FILE);
    if !path.try_exists().map_err(|source| GroupError::Dir { path: dir.to_owned(), source })? {
        return Ok(None);
    }
    let (log, identity) = Log::open(&path)?;
    let (mut store, first) = match identity.snapshot_file(dir).read()? {
        Some((record, _)) => {
            let first = record.meta.last_log_id.map_or(0, |id| id.index + 1);
            (Store::from_snapshot(record.state), first)
        }
        None => (blank(identity.epoch), 0),
    };
    let entries = log.read_from(first).await;
    log.close().await;
    for entry in entries? {
        apply(&mut store, &entry);
    }
    Ok(Some(Salvaged { lineage: identity.lineage(), store }))
}
