//! Bytes for disk and wire: a version byte at the head of everything, a checksum on everything that is stored.

use serde::Serialize;
use serde::de::DeserializeOwned;
use sha2::{Digest, Sha256};
use std::io;

/// The only version so far. A reader that meets another one refuses it by name instead of guessing.
pub(super) const VERSION: u8 = 1;

/// Bytes of SHA-256 kept with a stored record: enough against rot, and nobody hostile writes our disk.
pub(super) const CHECKSUM_BYTES: usize = 8;

#[derive(Debug, thiserror::Error)]
pub enum CodecError {
    #[error("it is written in version {0}, this program knows version {VERSION}: update it")]
    Version(u8),
    #[error("it is cut short")]
    Short,
    #[error("its checksum is wrong")]
    Checksum,
    #[error("it does not decode")]
    Decode(#[source] rmp_serde::decode::Error),
    #[error("it does not encode")]
    Encode(#[source] rmp_serde::encode::Error),
}

impl CodecError {
    /// Whether the bytes are not what was written, and not just from another version.
    pub(super) fn is_damage(&self) -> bool {
        matches!(self, Self::Short | Self::Checksum | Self::Decode(_))
    }
}

/// `value` behind a version byte.
pub(super) fn encode<T: Serialize + ?Sized>(value: &T) -> Result<Vec<u8>, CodecError> {
    let mut bytes = vec![VERSION];
    rmp_serde::encode::write(&mut bytes, value).map_err(CodecError::Encode)?;
    Ok(bytes)
}

pub(super) fn decode<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, CodecError> {
    match bytes.split_first() {
        None => Err(CodecError::Short),
        Some((&VERSION, body)) => rmp_serde::from_slice(body).map_err(CodecError::Decode),
        Some((&version, _)) => Err(CodecError::Version(version)),
    }
}

/// A stored record: checksum, version, value. `place` (a key, a file's kind) goes into the checksum, so that a
/// record found somewhere else than where it was written is not believed.
pub(super) fn seal<T: Serialize + ?Sized>(place: &[u8], value: &T) -> Result<Vec<u8>, CodecError> {
    let mut bytes = vec![0; CHECKSUM_BYTES];
    bytes.push(VERSION);
    rmp_serde::encode::write(&mut bytes, value).map_err(CodecError::Encode)?;
    let sum = checksum(place, &bytes[CHECKSUM_BYTES..]);
    bytes[..CHECKSUM_BYTES].copy_from_slice(&sum);
    Ok(bytes)
}

pub(super) fn unseal<T: DeserializeOwned>(place: &[u8], bytes: &[u8]) -> Result<T, CodecError> {
    let (sum, body) = bytes.split_at_checked(CHECKSUM_BYTES).ok_or(CodecError::Short)?;
    if checksum(place, body) != sum {
        return Err(CodecError::Checksum);
    }
    decode(body)
}

pub(super) fn checksum(place: &[u8], body: &[u8]) -> [u8; CHECKSUM_BYTES] {
    let digest = Sha256::new().chain_update(place).chain_update([0]).chain_update(body).finalize();
    std::array::from_fn(|n| digest[n])
}

/// How many bytes `value` takes, without building them.
pub(super) fn encoded_len<T: Serialize + ?Sized>(value: &T) -> Result<usize, CodecError> {
    struct Count(usize);
    impl io::Write for Count {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0 += bytes.len();
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }
    let mut count = Count(0);
    rmp_serde::encode::write(&mut count, value).map_err(CodecError::Encode)?;
    Ok(count.0)
}
