//! Snapshots: the whole state after one log entry, as one checksummed record in one file.
//!
//! The same bytes go to the disk and to a peer that lags behind the log.

use super::codec::{CodecError, seal_in, unseal};
use super::files;
use super::storage::Storage;
use super::types::{GroupId, Id, Meta};
use crate::state::{Frozen, Gaps, Heads, Place, Revision, Snapshot, Store, TxnId};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::io;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use tokio::sync::watch;

/// The largest snapshot that is read or received: half a million objects, and far from filling a desktop's memory.
pub(super) const MAX_SNAPSHOT_BYTES: u64 = 512 << 20;

/// How much larger than the last one a snapshot is hardly ever: see [`Retention`](super::Retention).
const ROOM: u64 = 4;

/// Goes into the checksum, so that no other record is taken for a snapshot.
const KIND: &[u8] = b"raft snapshot";

#[derive(Debug, thiserror::Error)]
#[error("the snapshot {} cannot be used", path.display())]
pub struct SnapshotError {
    pub path: PathBuf,
    #[source]
    pub source: SnapshotFault,
}

#[derive(Debug, thiserror::Error)]
pub enum SnapshotFault {
    #[error("reading or writing failed")]
    Io(#[from] io::Error),
    #[error("its content cannot be read")]
    Damaged(#[from] CodecError),
    /// The log begins where it should have ended.
    #[error("it is missing, or older than the log's beginning")]
    Missing,
    #[error("it belongs to the group {group}, epoch {epoch}")]
    Foreign { group: GroupId, epoch: u64 },
}

impl SnapshotFault {
    /// Whether the file holds something else than what was written to it.
    pub(super) fn is_damage(&self) -> bool {
        match self {
            Self::Io(error) => files::is_damage(error),
            Self::Damaged(error) => error.is_damage(),
            Self::Missing | Self::Foreign { .. } => true,
        }
    }
}

#[derive(Deserialize)]
pub(super) struct Record {
    pub group: GroupId,
    pub epoch: u64,
    pub meta: Meta,
    pub state: Snapshot,
}

/// [`Record`] without owning the objects.
#[derive(Serialize)]
struct Borrowed<'a> {
    group: &'a GroupId,
    epoch: u64,
    meta: &'a Meta,
    state: BorrowedState<'a>,
}

/// [`Snapshot`] without owning the objects.
#[derive(Serialize)]
pub(super) struct BorrowedState<'a> {
    revision: Revision,
    objects: Vec<(Place<'a>, Revision, &'a Value)>,
    adopted: Vec<(Place<'a>, &'a Heads)>,
    ordered: &'a [(TxnId, Revision)],
    term: u64,
    gaps: &'a Gaps,
}

impl<'a> From<&'a Frozen> for BorrowedState<'a> {
    fn from(state: &'a Frozen) -> Self {
        let objects = state.objects.iter().map(|(place, object)| (place, object.revision(), object.value()));
        Self {
            revision: state.revision,
            objects: objects.collect(),
            adopted: state.adopted.iter().map(|(place, heads)| (place, &**heads)).collect(),
            ordered: &state.ordered,
            term: state.term,
            gaps: &state.gaps,
        }
    }
}

/// Where the newest snapshot is kept. Clones share it.
#[derive(Clone)]
pub(super) struct SnapshotFile {
    pub storage: Arc<dyn Storage>,
    path: PathBuf,
    group: GroupId,
    epoch: u64,
    /// What the newest one on the disk covers.
    newest: watch::Sender<Option<Id>>,
    /// How long that is.
    bytes: Arc<AtomicU64>,
    /// One at a time: a slow build must not take the place of one that was received meanwhile.
    writing: Arc<Mutex<()>>,
}

impl SnapshotFile {
    pub fn new(storage: Arc<dyn Storage>, path: PathBuf, group: GroupId, epoch: u64) -> Self {
        Self {
            storage,
            path,
            group,
            epoch,
            newest: watch::Sender::default(),
            bytes: Arc::default(),
            writing: Arc::default(),
        }
    }

    pub fn error(&self, source: impl Into<SnapshotFault>) -> SnapshotError {
        SnapshotError { path: self.path.clone(), source: source.into() }
    }

    pub fn encode(&self, meta: &Meta, state: &Frozen) -> Result<Vec<u8>, SnapshotError> {
        let record = Borrowed { group: &self.group, epoch: self.epoch, meta, state: state.into() };
        // Of room that is not written to nothing is taken; to move what does not fit would take longer than to write it.
        let mut bytes = Vec::new();
        let room = usize::try_from(self.bytes().saturating_mul(ROOM)).unwrap_or_default();
        if let Err(error) = bytes.try_reserve_exact(room) {
            tracing::debug!(%error, room, "there is no room to write the state down at once");
        }
        seal_in(bytes, KIND, &record).map_err(|error| self.error(error))
    }

    /// Checks bytes from the disk or from a peer, and takes them apart.
    pub fn decode(&self, bytes: &[u8]) -> Result<Record, SnapshotError> {
        let record: Record = unseal(KIND, bytes).map_err(|error| self.error(error))?;
        if (&record.group, record.epoch) != (&self.group, self.epoch) {
            return Err(self.error(SnapshotFault::Foreign { group: record.group, epoch: record.epoch }));
        }
        Ok(record)
    }

    /// Puts a snapshot in place of the last one, on the disk when it returns. An older one than what is there is
    /// left out.
    pub fn write(&self, covers: Option<Id>, bytes: &[u8]) -> Result<(), SnapshotError> {
        let _writing = self.writing.lock().unwrap_or_else(PoisonError::into_inner);
        if covers < *self.newest.borrow() {
            return Ok(());
        }
        self.storage.write_atomically(&self.path, bytes).map_err(|error| self.error(error))?;
        self.bytes.store(bytes.len() as u64, Ordering::Relaxed);
        self.newest.send_replace(covers);
        Ok(())
    }

    /// How long the newest one is; 0 if there is none.
    pub fn bytes(&self) -> u64 {
        self.bytes.load(Ordering::Relaxed)
    }

    /// The last entry that the newest one on the disk covers, from now on.
    pub fn covers(&self) -> watch::Receiver<Option<Id>> {
        self.newest.subscribe()
    }

    /// The bytes of the newest one and what they say, if there is one.
    pub fn read(&self) -> Result<Option<(Record, Vec<u8>)>, SnapshotError> {
        let _writing = self.writing.lock().unwrap_or_else(PoisonError::into_inner);
        let bytes = self.storage.read(&self.path, MAX_SNAPSHOT_BYTES).map_err(|error| self.error(error))?;
        let Some(bytes) = bytes else { return Ok(None) };
        let record = self.decode(&bytes)?;
        self.bytes.store(bytes.len() as u64, Ordering::Relaxed);
        self.newest.send_replace(record.meta.last_log_id);
        Ok(Some((record, bytes)))
    }
}

/// What a snapshot says, whoever it belongs to; `None` if there is none that can be believed.
pub(super) fn salvage(path: &std::path::Path) -> Option<Record> {
    unseal(KIND, &files::read(path, MAX_SNAPSHOT_BYTES).ok()??).ok()
}

/// What a joiner has before it has anything: older than every state of the group.
pub(super) fn blank(epoch: u64) -> Store {
    Store::starting_at(Revision::first_of(epoch))
}
