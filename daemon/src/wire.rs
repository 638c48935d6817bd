//! Frames between daemons: a length, a version byte, and a MessagePack body, all bounded.

use gaggle_gossip::Formats;
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::io;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

/// How much of a body is written together with its head.
const TOGETHER_BYTES: usize = 16 << 10;

/// The other side writes a version that this one does not read.
#[derive(Debug, thiserror::Error)]
#[error(
    "the other desktop speaks version {0} of the protocol, this one reads {formats}: update the older one",
    formats = Formats::current()
)]
pub struct OtherVersion(pub u8);

fn invalid(why: impl Into<String>) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, why.into())
}

/// Writes one frame and flushes it.
pub async fn write_frame<T: Serialize>(to: &mut (impl AsyncWrite + Unpin), body: &T) -> io::Result<()> {
    let body = rmp_serde::to_vec_named(body).map_err(|error| invalid(error.to_string()))?;
    write_bytes(to, &body).await
}

/// Reads one frame of at most `limit` bytes.
pub async fn read_frame<T: DeserializeOwned>(
    from: &mut (impl AsyncRead + Unpin),
    limit: usize,
) -> io::Result<T> {
    let body = read_bytes(from, limit).await?;
    rmp_serde::from_slice(&body).map_err(|error| invalid(format!("a frame that does not decode: {error}")))
}

/// Whether a frame could not be read for its version alone, and which one that is.
pub fn other_version(error: &io::Error) -> Option<u8> {
    error.get_ref()?.downcast_ref::<OtherVersion>().map(|other| other.0)
}

/// Writes raw bytes as one frame.
pub async fn write_bytes(to: &mut (impl AsyncWrite + Unpin), body: &[u8]) -> io::Result<()> {
    let length = u32::try_from(body.len() + 1).map_err(|_| invalid("a frame of more than 4 GiB"))?;
    // In one write with its head, as each is a packet and a wake-up of the other side; but a large body is not copied for that.
    let together = body.len().min(TOGETHER_BYTES);
    let mut first = Vec::with_capacity(5 + together);
    first.extend_from_slice(&length.to_be_bytes());
    first.push(Formats::current().written);
    first.extend_from_slice(&body[..together]);
    to.write_all(&first).await?;
    to.write_all(&body[together..]).await?;
    to.flush().await
}

/// Reads one frame of raw bytes, at most `limit` of them.
pub async fn read_bytes(from: &mut (impl AsyncRead + Unpin), limit: usize) -> io::Result<Vec<u8>> {
    let length = from.read_u32().await? as usize;
    if length == 0 || length > limit + 1 {
        return Err(invalid(format!("a frame of {length} bytes, where at most {limit} are taken")));
    }
    let version = from.read_u8().await?;
    if !Formats::current().reads(version) {
        return Err(io::Error::new(io::ErrorKind::InvalidData, OtherVersion(version)));
    }
    // Grown as bytes arrive: a length alone must not make us allocate.
    let mut body = Vec::with_capacity((length - 1).min(64 * 1024));
    let read = from.take(length as u64 - 1).read_to_end(&mut body).await?;
    if read != length - 1 {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    Ok(body)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_frame_comes_back_and_limits_hold() {
        let mut bytes = Vec::new();
        write_frame(&mut bytes, &("web", 3)).await.unwrap();
        let back: (String, i32) = read_frame(&mut bytes.as_slice(), 64).await.unwrap();
        assert_eq!(back, ("web".to_owned(), 3));
        assert!(read_frame::<(String, i32)>(&mut bytes.as_slice(), 3).await.is_err());
        bytes[4] = 2;
        let error = read_frame::<(String, i32)>(&mut bytes.as_slice(), 64).await.unwrap_err();
        assert!(error.to_string().contains("version 2"), "{error}");
    }

    #[tokio::test]
    async fn a_length_without_a_body_is_an_error() {
        let error = read_bytes(&mut [0u8, 0, 1, 0, 1, 7].as_slice(), 1 << 20).await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::UnexpectedEof);
    }
}
