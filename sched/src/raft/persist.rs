//! What a node keeps on its disk beside a voter's log: the view that it saw last, and the word that it gave.
//!
//! The view is not the truth, which is the voters': it may be old, and is replaced by what the first voter says.
//! The word is: nobody else can say what this node promised.

use super::codec::{CodecError, seal, unseal};
use super::files;
use super::snapshot::{BorrowedState, MAX_SNAPSHOT_BYTES};
use crate::electorate::presence::Word;
use crate::state::{Lineage, Snapshot, Store, View};
use serde::{Deserialize, Serialize};
use std::io;
use std::path::{Path, PathBuf};

/// Goes into the checksum, so that no other record is taken for a view.
const KIND: &[u8] = b"view";
const WORD: &[u8] = b"word";

/// A word is a few names and numbers.
const MAX_WORD_BYTES: u64 = 64 << 10;

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

/// Writes this node's word down, on the disk when it returns. Blocks.
///
/// # Errors
/// When the file cannot be written; the one from before is left then, and nothing may be answered that rests on the
/// new one.
pub fn save_word(path: &Path, word: &Word) -> Result<(), WordError> {
    let error = |source: PersistFault| WordError { path: path.to_owned(), source };
    let bytes = seal(WORD, word).map_err(|e| error(e.into()))?;
    files::write_atomically(path, &bytes).map_err(|e| error(e.into()))
}

/// The word that this node gave, `None` if it never gave one.
///
/// # Errors
/// When the file is damaged or cannot be read: then what was promised is not known.
pub fn load_word(path: &Path) -> Result<Option<Word>, WordError> {
    let error = |source: PersistFault| WordError { path: path.to_owned(), source };
    let bytes = files::read(path, MAX_WORD_BYTES).map_err(|e| error(e.into()))?;
    bytes.map(|bytes| unseal(WORD, &bytes).map_err(|e| error(e.into()))).transpose()
}

#[derive(Debug, thiserror::Error)]
#[error("what this node promised ({}) cannot be used", path.display())]
pub struct WordError {
    pub path: PathBuf,
    #[source]
    pub source: PersistFault,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::electorate::presence::{Left, Pledge};
    use crate::state::Revision;

    #[test]
    fn a_word_is_kept_and_one_that_is_damaged_anywhere_is_not_believed() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("word");
        assert_eq!(load_word(&path).unwrap(), None);
        let word = Word {
            given: Some(Lineage { group: "g".into(), epoch: 3 }),
            pledge: Some(Pledge { epoch: 4, to: "peer".into() }),
            roster: Revision(77),
            unsure: false,
            left: vec![Left { group: "h".into(), given: 2, reached: 5, roster: Revision(3) }],
        };
        save_word(&path, &word).unwrap();
        assert_eq!(load_word(&path).unwrap(), Some(word));
        let whole = std::fs::read(&path).unwrap();
        for at in 0..whole.len() {
            let mut bent = whole.clone();
            bent[at] ^= 0x10;
            std::fs::write(&path, &bent).unwrap();
            assert!(load_word(&path).is_err(), "byte {at} was changed");
            std::fs::write(&path, &whole[..at]).unwrap();
            assert!(load_word(&path).is_err(), "cut after {at} bytes");
        }
    }

    #[test]
    fn a_word_is_read_that_was_written_before_groups_were_remembered() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("word");
        let given = Some(Lineage { group: "g".into(), epoch: 3 });
        let pledge = Some(Pledge { epoch: 4, to: "peer".into() });
        let before = (given.clone(), pledge.clone(), Revision(77), false);
        std::fs::write(&path, seal(WORD, &before).unwrap()).unwrap();
        let word = Word { given, pledge, roster: Revision(77), ..Word::default() };
        assert_eq!(load_word(&path).unwrap(), Some(word));
    }
}
