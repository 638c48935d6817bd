//! A follower's view on disk, so that a node that restarts shows what it knew.
//!
//! Not the truth, which is the voters': it may be old, and is replaced by what the first voter says.

use super::codec::{CodecError, seal, unseal};
use super::files;
use super::snapshot::{BorrowedState, MAX_SNAPSHOT_BYTES};
use crate::state::{Lineage, Snapshot, Store, View};
use serde::{Deserialize, Serialize};
use std::io;
use std::path::{Path, PathBuf};

/// Goes into the checksum, so that no other record is taken for a view.
const KIND: &[u8] = b"view";

#[derive(Debug, thiserror::Error)]
#[error("the saved view {} cannot be used; it can be deleted, the view comes back from the voters", path.display())]
pub struct PersistError {
    pub path: PathBuf,
    #[source]
    pub source: PersistFault,
}

#[derive(Debug, thiserror::Error)]
pub enum PersistFault {
    #[error("reading or writing failed")]
    Io(#[from] io::Error),
    #[error("it is damaged")]
    Damaged(#[from] CodecError),
}

#[derive(Deserialize)]
struct Record {
    lineage: Lineage,
    state: Snapshot,
}

/// [`Record`] without owning anything.
#[derive(Serialize)]
struct Borrowed<'a> {
    lineage: &'a Lineage,
    state: BorrowedState<'a>,
}

/// Writes the view down, on the disk when it returns; a view of no group is not written. Blocks: call it off the
/// async threads.
///
/// # Errors
/// When the file cannot be written; the one from before is left then.
pub fn save_view(path: &Path, view: &View) -> Result<(), PersistError> {
    let (lineage, state) = view.read(|store| (store.lineage().cloned(), store.freeze()));
    let Some(lineage) = lineage else { return Ok(()) };
    let error = |source: PersistFault| PersistError { path: path.to_owned(), source };
    let record = Borrowed { lineage: &lineage, state: (&state).into() };
    let bytes = seal(KIND, &record).map_err(|e| error(e.into()))?;
    files::write_atomically(path, &bytes).map_err(|e| error(e.into()))
}

/// The store that was saved, `None` if none was.
///
/// # Errors
/// When the file is damaged or cannot be read.
pub fn load_view(path: &Path) -> Result<Option<Store>, PersistError> {
    let error = |source: PersistFault| PersistError { path: path.to_owned(), source };
    let bytes = files::read(path, MAX_SNAPSHOT_BYTES).map_err(|e| error(e.into()))?;
    let Some(bytes) = bytes else { return Ok(None) };
    let record: Record = unseal(KIND, &bytes).map_err(|e| error(e.into()))?;
    let mut store = Store::default();
    store.replace(Store::from_snapshot(record.state), record.lineage);
    Ok(Some(store))
}
