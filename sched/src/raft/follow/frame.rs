//! The frames of a follow stream: a length of four bytes, a version byte, the message.

use super::super::codec;
use super::super::status::Status;
use super::super::wire::MAX_FRAME_BYTES;
use crate::state::{Adopted, Change, Key, Lineage, Revision};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_bytes::ByteBuf;
use serde_json::Value;
use std::io;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

/// What a frame of changes or a part of a snapshot carries at most, beyond a single large change.
pub(super) const PART_BYTES: usize = 512 << 10;

/// A follower that takes nothing for this long is given up.
const WRITE_LIMIT: Duration = Duration::from_secs(10);

/// What a follower begins with: what it has.
#[derive(Serialize, Deserialize)]
pub(super) struct Hello {
    pub lineage: Option<Lineage>,
    pub revision: Revision,
}

#[derive(Serialize, Deserialize)]
pub(super) enum Message {
    /// The whole state follows, in parts of `bytes` together.
    Snapshot {
        lineage: Lineage,
        bytes: u64,
    },
    Part(ByteBuf),
    /// Each an encoded [`Item`], in order; `term`: the one in which the last of them was ordered.
    Changes {
        term: u64,
        items: Vec<ByteBuf>,
    },
    Beat(Status),
    /// This node cannot be followed now.
    Refused(String),
}

#[derive(Deserialize)]
pub(super) struct Item {
    pub revision: Revision,
    pub key: Key,
    pub value: Option<Value>,
    pub intent: Option<Adopted>,
}

/// [`Item`] without owning anything.
#[derive(Serialize)]
struct BorrowedItem<'a> {
    revision: Revision,
    key: &'a Key,
    value: Option<&'a Value>,
    intent: Option<&'a Adopted>,
}

pub(super) fn item(change: &Change) -> Result<ByteBuf, rmp_serde::encode::Error> {
    let value = change.object.as_ref().map(|object| object.value());
    let intent = change.intent.as_ref();
    rmp_serde::to_vec(&BorrowedItem { revision: change.revision, key: &change.key, value, intent })
        .map(ByteBuf::from)
}

fn invalid(why: impl ToString) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, why.to_string())
}

fn late(what: &'static str) -> io::Error {
    io::Error::new(io::ErrorKind::TimedOut, what)
}

pub(super) async fn write<W, T>(stream: &mut W, message: &T) -> io::Result<()>
where
    W: AsyncWrite + Unpin,
    T: Serialize,
{
    let body = codec::encode(message).map_err(invalid)?;
    let len = u32::try_from(body.len()).ok().filter(|_| body.len() <= MAX_FRAME_BYTES);
    let len = len.ok_or_else(|| invalid("a change is larger than a frame may be"))?;
    // In one write: each is a packet and a wake-up of the other side.
    let frame = [&len.to_be_bytes(), &*body].concat();
    let write = async {
        stream.write_all(&frame).await?;
        stream.flush().await
    };
    tokio::time::timeout(WRITE_LIMIT, write).await.unwrap_or_else(|_| Err(late("the peer takes nothing")))
}

/// Reads one frame. `silence` bounds the wait for each piece of it, so that a large one may take its time.
pub(super) async fn read<R, T>(stream: &mut R, silence: Duration) -> io::Result<T>
where
    R: AsyncRead + Unpin,
    T: DeserializeOwned,
{
    let mut len = [0; 4];
    fill(stream, &mut len, silence).await?;
    let len = u32::from_be_bytes(len) as usize;
    if len > MAX_FRAME_BYTES {
        return Err(invalid(format!("a frame of {len} bytes is larger than {MAX_FRAME_BYTES}")));
    }
    // Grown as it arrives: a length alone must not cost memory.
    let mut body = Vec::new();
    let mut piece = [0; 16 << 10];
    while body.len() < len {
        let piece = &mut piece[..(len - body.len()).min(16 << 10)];
        fill(stream, piece, silence).await?;
        body.extend_from_slice(piece);
    }
    codec::decode(&body).map_err(invalid)
}

async fn fill<R: AsyncRead + Unpin>(stream: &mut R, buffer: &mut [u8], silence: Duration) -> io::Result<()> {
    let read = tokio::time::timeout(silence, stream.read_exact(buffer)).await;
    read.unwrap_or_else(|_| Err(late("the peer has fallen silent"))).map(|_| ())
}
