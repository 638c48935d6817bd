//! What remains of a part that was given up: the term that it had reached.
//!
//! A voter that is voted out, or follows a group elsewhere, removes its log. If it forgot the term as well, a leader of an
//! earlier term, which does not know that it has been deposed, could invite it anew and be followed once more. So the vote
//! outlives the log, and the next log of the same lineage begins with it: such a leader is told of the later term.

use super::codec::{seal, unseal};
use super::files;
use super::log::{Identity, Log, LogFault};
use super::storage::Storage;
use super::types::{Ballot, GroupId};
use serde::{Deserialize, Serialize};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Beside the log.
const FILE: &str = "raft.left";
/// Goes into the checksum, so that no other record is taken for this one.
const KIND: &[u8] = b"raft left";
/// Lineages of which the vote is kept, the latest ones: a node leaves an epoch for a later one, and comes back to none.
const KEPT: usize = 8;
const MAX_BYTES: u64 = 16 << 10;

#[derive(Clone, Debug, Serialize, Deserialize)]
struct Left {
    group: GroupId,
    epoch: u64,
    vote: Ballot,
}

/// Notes the vote of the log at `log`, which is about to be removed. A log that does not open any more says nothing.
pub(super) fn note(storage: &Arc<dyn Storage>, dir: &Path, log: &Path) -> io::Result<()> {
    if !storage.exists(log)? {
        return Ok(());
    }
    let (identity, vote) = match Log::salvage(&**storage, log) {
        Ok((Some(identity), Some(vote))) => (identity, vote),
        Ok(_) => return Ok(()),
        // One that is still open must not be removed before it was asked. One that the disk no longer reads says nothing, and
        // would be in the way of every later part.
        Err(error) if matches!(error.source, LogFault::InUse) => {
            return Err(io::Error::other(error));
        }
        Err(error) => {
            tracing::warn!(%error, "the term that this node had reached is lost with its log");
            return Ok(());
        }
    };
    let mut all = read(&**storage, dir)?;
    all.retain(|left| (&left.group, left.epoch) != (&identity.group, identity.epoch));
    // Nobody leads with a log that is gone.
    let vote = Ballot { committed: false, ..vote };
    all.push(Left { group: identity.group, epoch: identity.epoch, vote });
    let surplus = all.len().saturating_sub(KEPT);
    all.drain(..surplus);
    storage.write_atomically(&dir.join(FILE), &seal(KIND, &all).map_err(io::Error::other)?)
}

/// What was noted, as it is on the disk: for a directory that takes this one's place.
pub(super) fn carry(storage: &dyn Storage, from: &Path, to: &Path) -> io::Result<()> {
    let all = read(storage, from)?;
    if all.is_empty() {
        return Ok(());
    }
    storage.make_dir(to)?;
    storage.write_atomically(&to.join(FILE), &seal(KIND, &all).map_err(io::Error::other)?)
}

/// The vote that a part of this lineage ended with, if this node had one.
pub(super) fn vote(storage: &dyn Storage, dir: &Path, identity: &Identity) -> io::Result<Option<Ballot>> {
    let all = read(storage, dir)?;
    let same = |left: &Left| (&left.group, left.epoch) == (&identity.group, identity.epoch);
    Ok(all.into_iter().rev().find(same).map(|left| left.vote))
}

fn read(storage: &dyn Storage, dir: &Path) -> io::Result<Vec<Left>> {
    let path: PathBuf = dir.join(FILE);
    let bytes = match storage.read(&path, MAX_BYTES) {
        Err(error) if files::is_damage(&error) => None,
        read => read?,
    };
    let all = bytes.map(|bytes| unseal(KIND, &bytes));
    match all {
        None => Ok(Vec::new()),
        Some(Ok(all)) => Ok(all),
        Some(Err(error)) if error.is_damage() => {
            tracing::warn!(path = %path.display(), %error, "the terms of parts given up earlier are lost");
            Ok(Vec::new())
        }
        Some(Err(error)) => Err(io::Error::other(error)),
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::{group_id, storage};
    use super::*;
    use openraft::Vote;

    fn identity(epoch: u64) -> Identity {
        Identity { group: group_id(), epoch, me: "a".into(), founder: false }
    }

    /// A part of that epoch that reached a term, given up.
    fn leave(dir: &Path, epoch: u64, term: u64) {
        let log = dir.join("raft.log");
        let vote = Vote { committed: true, ..Vote::new(term, 7) };
        drop(Log::begin(&storage(), &log, &identity(epoch), Some(vote)).unwrap());
        note(&storage(), dir, &log).unwrap();
        std::fs::remove_file(&log).unwrap();
    }

    #[test]
    fn the_terms_of_the_latest_parts_are_kept_and_nobody_leads_by_them() {
        let dir = tempfile::tempdir().unwrap();
        let left = |epoch| vote(&*storage(), dir.path(), &identity(epoch)).unwrap();
        assert_eq!(left(1), None);
        for epoch in 1..=9 {
            leave(dir.path(), epoch, 10 * epoch);
        }
        leave(dir.path(), 4, 41);
        assert_eq!(left(4), Some(Vote::new(41, 7)));
        assert_eq!(left(9), Some(Vote::new(90, 7)));
        assert_eq!((left(1), left(2)), (None, Some(Vote::new(20, 7))), "the oldest one is forgotten");
        std::fs::write(dir.path().join(FILE), b"nonsense").unwrap();
        assert_eq!(left(4), None, "what is damaged says nothing");
    }

    #[test]
    fn a_log_that_is_still_open_is_not_taken_for_one_without_a_term() {
        let dir = tempfile::tempdir().unwrap();
        let log = dir.path().join("raft.log");
        let open = Log::create(&storage(), &log, &identity(1)).unwrap();
        assert!(note(&storage(), dir.path(), &log).is_err());
        drop(open);
        note(&storage(), dir.path(), &log).unwrap();
    }
}
