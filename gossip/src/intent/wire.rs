//! The messages of anti-entropy: a version byte and MessagePack. Knows sizes and forms, not what is done with them.

use super::frame::MAX_FRAME_BYTES;
use super::index::Hash;
use super::{DocKey, Heads, Want};
use crate::Formats;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_bytes::ByteBuf;

/// What an answer aims at. One change that is larger than this goes alone.
pub const BUDGET_BYTES: usize = 1024 * 1024;
/// What a message may have at most, and so what a transport of ours must carry: the largest frame with its key.
pub const MAX_MESSAGE_BYTES: usize = MAX_FRAME_BYTES + 64 * 1024;
/// How deep messages nest, with room: hostile nesting would use up the stack.
const MAX_DEPTH: usize = 16;

#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Question {
    /// Is this the hash of all that you have?
    Compare { root: Hash },
    /// What is in this bucket, after this key?
    Bucket { bucket: u8, after: Option<DocKey> },
    /// What do I lack?
    Pull { wants: Vec<Want> },
    /// Take these.
    Push { frames: Vec<(DocKey, ByteBuf)> },
}

#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Answer {
    Same,
    /// The hashes of the buckets.
    Differs(Vec<Hash>),
    Entries {
        entries: Vec<(DocKey, u32, Heads)>,
        more: bool,
    },
    /// Frames, whether nothing is missing after each, and how many of the wants were looked at.
    Frames {
        frames: Vec<(DocKey, ByteBuf, bool)>,
        answered: u32,
    },
    Taken {
        refused: u32,
    },
    /// The request was not understood or could not be served.
    Refused(String),
}

#[derive(Debug, thiserror::Error)]
pub enum WireError {
    #[error("it has {0} bytes, more than {MAX_MESSAGE_BYTES}")]
    TooLong(usize),
    #[error(
        "it is written in version {0}, and this program reads {formats}: update the older one",
        formats = Formats::current()
    )]
    Version(u8),
    #[error("it is empty")]
    Empty,
    #[error("it does not parse")]
    Parse(#[source] rmp_serde::decode::Error),
    #[error("it cannot be written")]
    Write(#[source] rmp_serde::encode::Error),
}

pub fn encode(message: &impl Serialize) -> Result<Vec<u8>, WireError> {
    let mut bytes = vec![Formats::current().written];
    rmp_serde::encode::write(&mut bytes, message).map_err(WireError::Write)?;
    match bytes.len() {
        length if length > MAX_MESSAGE_BYTES => Err(WireError::TooLong(length)),
        _ => Ok(bytes),
    }
}

pub fn decode<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, WireError> {
    if bytes.len() > MAX_MESSAGE_BYTES {
        return Err(WireError::TooLong(bytes.len()));
    }
    let (&version, message) = bytes.split_first().ok_or(WireError::Empty)?;
    if !Formats::current().reads(version) {
        return Err(WireError::Version(version));
    }
    let mut reader = rmp_serde::Deserializer::from_read_ref(message);
    reader.set_max_depth(MAX_DEPTH);
    T::deserialize(&mut reader).map_err(WireError::Parse)
}
