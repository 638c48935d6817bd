//! The number of the last frame, beside the log.
//!
//! Written after each frame and not flushed: that costs nothing, outlives the process, and a power cut leaves at
//! worst an older number, which says less and never something wrong.

use super::super::codec::{CHECKSUM_BYTES, checksum};
use super::super::storage::{Pages, Storage};
use std::io;
use std::path::{Path, PathBuf};

/// Goes into the checksum, so that no other file is taken for a mark.
const KIND: &[u8] = b"raft mark";
const NUMBER_BYTES: usize = 8;

pub(super) struct Mark(Box<dyn Pages>);

impl Mark {
    /// The mark of the log at `log`.
    pub fn path(log: &Path) -> PathBuf {
        log.with_extension("mark")
    }

    /// Opens or begins the mark. The number in it is `None` if there is none that can be believed: then it is the
    /// mark that is damaged, and the log speaks for itself.
    pub fn open(storage: &dyn Storage, log: &Path) -> io::Result<(Self, Option<u64>)> {
        let file = storage.open(&Self::path(log))?;
        let mut bytes = [0; NUMBER_BYTES + CHECKSUM_BYTES];
        let marked = match file.read(0, &mut bytes) {
            Ok(()) => decode(&bytes),
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => None,
            Err(error) => return Err(error),
        };
        Ok((Self(file), marked))
    }

    pub fn set(&self, number: u64) {
        let number = number.to_be_bytes();
        let bytes = [number.as_slice(), &checksum(KIND, &number)].concat();
        if let Err(error) = self.0.write(0, &bytes) {
            tracing::debug!(%error, "the log's mark stays behind");
        }
    }
}

fn decode(bytes: &[u8; NUMBER_BYTES + CHECKSUM_BYTES]) -> Option<u64> {
    let (number, sum) = bytes.split_first_chunk::<NUMBER_BYTES>()?;
    (checksum(KIND, number) == sum).then(|| u64::from_be_bytes(*number))
}
