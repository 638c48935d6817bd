//! The bytes of one change as they travel and as Raft carries them: version, incarnation, and either raw automerge
//! changes or a burial. Knows the framing only; `vet` judges what is inside.

use crate::Formats;

const CHANGES: u8 = 0;
const BURIAL: u8 = 1;
const HEADER_BYTES: usize = 6;

/// The largest single automerge change: an object of 3 MiB with the paths of its fields.
pub const MAX_CHANGE_BYTES: usize = 4 * 1024 * 1024;
/// The largest frame: any one change fits, with the header.
pub const MAX_FRAME_BYTES: usize = MAX_CHANGE_BYTES + 64;
/// The most changes in one frame, so that a frame of empty changes stays cheap.
pub const MAX_CHANGES: usize = 4096;

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Frame<'a> {
    pub incarnation: u32,
    pub body: Body<'a>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Body<'a> {
    /// Raw automerge changes, each after those that it depends on.
    Changes(Vec<&'a [u8]>),
    /// This incarnation and all before it are gone for good; `at_ms` is when the object was deleted.
    Burial { at_ms: u64 },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FrameError {
    #[error("it is of {0} bytes, more than {MAX_FRAME_BYTES}")]
    TooLong(usize),
    #[error("it ends early")]
    Short,
    #[error(
        "it is written in version {0}, and this program reads {formats}: update the older one",
        formats = Formats::current()
    )]
    Version(u8),
    #[error("its kind {0} is not known here")]
    Kind(u8),
    #[error("it holds more than {MAX_CHANGES} changes")]
    TooMany,
    #[error("incarnations begin at 1")]
    Incarnation,
}

impl<'a> Frame<'a> {
    pub fn decode(bytes: &'a [u8]) -> Result<Self, FrameError> {
        if bytes.len() > MAX_FRAME_BYTES {
            return Err(FrameError::TooLong(bytes.len()));
        }
        let (&[version, kind, a, b, c, d], mut rest) =
            bytes.split_first_chunk::<HEADER_BYTES>().ok_or(FrameError::Short)?;
        if !Formats::current().reads(version) {
            return Err(FrameError::Version(version));
        }
        let incarnation = u32::from_be_bytes([a, b, c, d]);
        if incarnation == 0 {
            return Err(FrameError::Incarnation);
        }
        let body = match kind {
            CHANGES => {
                let mut changes = Vec::new();
                while !rest.is_empty() {
                    if changes.len() == MAX_CHANGES {
                        return Err(FrameError::TooMany);
                    }
                    let (length, after) = rest.split_first_chunk::<4>().ok_or(FrameError::Short)?;
                    let length = u32::from_be_bytes(*length) as usize;
                    let (change, after) = after.split_at_checked(length).ok_or(FrameError::Short)?;
                    changes.push(change);
                    rest = after;
                }
                Body::Changes(changes)
            }
            BURIAL => {
                let at_ms = rest.try_into().map_err(|_| FrameError::Short)?;
                Body::Burial { at_ms: u64::from_be_bytes(at_ms) }
            }
            other => return Err(FrameError::Kind(other)),
        };
        Ok(Self { incarnation, body })
    }

    pub fn encode(&self) -> Vec<u8> {
        let mut bytes = vec![Formats::current().written, CHANGES];
        bytes.extend(self.incarnation.to_be_bytes());
        match &self.body {
            Body::Changes(changes) => {
                for change in changes {
                    // A change is bounded far below 4 GiB; a longer one could not be read back.
                    bytes.extend(u32::try_from(change.len()).unwrap_or(u32::MAX).to_be_bytes());
                    bytes.extend_from_slice(change);
                }
            }
            Body::Burial { at_ms } => {
                bytes[1] = BURIAL;
                bytes.extend(at_ms.to_be_bytes());
            }
        }
        bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn any_bytes_are_judged_without_a_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            if let Ok(frame) = Frame::decode(&bytes) {
                prop_assert_eq!(frame.encode(), bytes);
            }
        }

        #[test]
        fn a_frame_reads_back(
            incarnation in 1..u32::MAX,
            changes in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..50), 0..5),
        ) {
            let changes = changes.iter().map(Vec::as_slice).collect();
            let frame = Frame { incarnation, body: Body::Changes(changes) };
            let bytes = frame.encode();
            prop_assert_eq!(Frame::decode(&bytes), Ok(frame));
        }
    }
}
