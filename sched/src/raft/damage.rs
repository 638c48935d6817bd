//! Files of a group that cannot be believed: known as such, set aside, and what can still be learnt from them.
//!
//! A voter whose log is damaged has forgotten what it acknowledged and whom it voted for. If it went on under its
//! name with what is left, a quorum could be counted that does not have every acknowledged write. So nothing of it is
//! used again: the files go aside for a person to look at, the node follows like one that never voted, and is counted
//! again only after the group has taken it out of the electorate and put it in anew (see [`super::receive`]).

use super::group::{Group, GroupError, LOG_FILE, SNAPSHOT_FILE};
use super::log::Log;
use super::{FileSystem, Storage, files, left, snapshot};
use crate::state::{Lineage, Store};
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// How many damaged sets of files are kept; the newest has the number 1.
const KEPT: usize = 2;

/// What became of a group's damaged files.
pub struct SetAside {
    /// Where they are now.
    pub to: PathBuf,
    /// The group that they belonged to, where they still say so.
    pub lineage: Option<Lineage>,
    /// The state of their snapshot, if that is whole: old, and of that lineage.
    pub state: Option<Store>,
}

impl GroupError {
    /// Whether the group's files hold something else than what was written to them. A disk that is full, or files
    /// of another version or node, are no damage.
    pub fn is_damage(&self) -> bool {
        match self {
            Self::Log(error) => error.source.is_damage(),
            Self::Snapshot(error) => error.source.is_damage(),
            _ => false,
        }
    }
}

impl Group {
    /// Moves a group's damaged files from `dir` to `DIR.damaged-1`, on the disk when it returns. Earlier ones move
    /// on by one number, and the oldest are removed.
    ///
    /// # Errors
    /// When the disk refuses it.
    pub fn set_aside(dir: &Path) -> Result<SetAside, GroupError> {
        let identity = Log::salvage(&FileSystem, &dir.join(LOG_FILE)).ok().and_then(|(identity, _)| identity);
        let record = snapshot::salvage(&dir.join(SNAPSHOT_FILE));
        let of = |record: &snapshot::Record| Lineage { group: record.group.to_string(), epoch: record.epoch };
        let lineage = identity.map(|identity| identity.lineage()).or(record.as_ref().map(of));
        let state = record.filter(|record| lineage.as_ref() == Some(&of(record)));
        let state = state.map(|record| Store::from_snapshot(record.state));
        let storage: Arc<dyn Storage> = Arc::new(FileSystem);
        // Whatever of the vote can still be read goes on, as do those of parts that were given up before.
        if let Err(error) = left::note(&storage, dir, &dir.join(LOG_FILE)) {
            tracing::warn!(%error, "the term that this node had reached is lost with its log");
        }
        let moved = rotate(dir).and_then(|to| left::carry(&*storage, &to, dir).map(|()| to));
        let moved = moved.map_err(|source| GroupError::Dir { path: dir.to_owned(), source });
        Ok(SetAside { to: moved?, lineage, state })
    }
}

fn rotate(dir: &Path) -> io::Result<PathBuf> {
    let place = |number: usize| {
        let mut name = dir.as_os_str().to_owned();
        name.push(format!(".damaged-{number}"));
        PathBuf::from(name)
    };
    match fs::remove_dir_all(place(KEPT)) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    for number in (1..KEPT).rev() {
        match fs::rename(place(number), place(number + 1)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
    }
    fs::rename(dir, place(1))?;
    files::sync_parent(dir)?;
    Ok(place(1))
}
