//! Bytes for disk and wire: a version byte at the head of everything, a checksum on everything that is stored.

use crate::formats::Formats;
use serde::Serialize;
use serde::de::DeserializeOwned;
use sha2::{Digest, Sha256};
use std::io;

/// Bytes of SHA-256 kept with a stored record: enough against rot, and nobody hostile writes our disk.
pub(super) const CHECKSUM_BYTES: usize = 8;

#[derive(Debug, thiserror::Error)]
pub enum CodecError {
    /// A reader that meets a version that it does not know refuses it by name instead of guessing.
    #[error(
        "it is written in version {0}, and this program reads {formats}: update the older one",
        formats = Formats::current()
    )]
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

/// Room that is made for what is encoded: most of it takes no more, and what takes more grows in few steps.
const ROOM_BYTES: usize = 4 << 10;

/// `value` behind a version byte.
pub(super) fn encode<T: Serialize + ?Sized>(value: &T) -> Result<Vec<u8>, CodecError> {
    let mut bytes = Vec::with_capacity(ROOM_BYTES);
    bytes.push(Formats::current().written);
    rmp_serde::encode::write(&mut bytes, value).map_err(CodecError::Encode)?;
    Ok(bytes)
}

pub(super) fn decode<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, CodecError> {
    match bytes.split_first() {
        None => Err(CodecError::Short),
        Some((&version, body)) if Formats::current().reads(version) => {
            rmp_serde::from_slice(body).map_err(CodecError::Decode)
        }
        Some((&version, _)) => Err(CodecError::Version(version)),
    }
}

/// A stored record: checksum, version, value. `place` (a key, a file's kind) goes into the checksum, so that a
/// record found somewhere else than where it was written is not believed.
pub(super) fn seal<T: Serialize + ?Sized>(place: &[u8], value: &T) -> Result<Vec<u8>, CodecError> {
    seal_in(Vec::with_capacity(ROOM_BYTES), place, value)
}

/// The same, in place of what `bytes` holds, where room has been made for it.
pub(super) fn seal_in<T: Serialize + ?Sized>(
    mut bytes: Vec<u8>,
    place: &[u8],
    value: &T,
) -> Result<Vec<u8>, CodecError> {
    bytes.clear();
    bytes.resize(CHECKSUM_BYTES, 0);
    bytes.push(Formats::current().written);
    rmp_serde::encode::write(&mut bytes, value).map_err(CodecError::Encode)?;
    let sum = checksum(place, &bytes[CHECKSUM_BYTES..]);
    bytes[..CHECKSUM_BYTES].copy_from_slice(&sum);
    Ok(bytes)
}

pub(super) fn unseal<T: DeserializeOwned>(place: &[u8], bytes: &[u8]) -> Result<T, CodecError> {
    decode(check(place, bytes)?)
}

/// What was sealed there, still encoded.
pub(super) fn check<'a>(place: &[u8], bytes: &'a [u8]) -> Result<&'a [u8], CodecError> {
    let (sum, body) = bytes.split_at_checked(CHECKSUM_BYTES).ok_or(CodecError::Short)?;
    if checksum(place, body) != sum {
        return Err(CodecError::Checksum);
    }
    Ok(body)
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn another_version_is_refused_by_its_number_and_is_no_damage() {
        let mut frame = encode("text").unwrap();
        frame[0] = 2;
        let error = decode::<String>(&frame).unwrap_err();
        assert!(!error.is_damage());
        assert_eq!(
            error.to_string(),
            "it is written in version 2, and this program reads version 1: update the older one"
        );
        let body = [&[2], &frame[1..]].concat();
        let stored = [checksum(b"place", &body).as_slice(), &body].concat();
        assert!(matches!(unseal::<String>(b"place", &stored), Err(CodecError::Version(2))));
        // A turned bit in the number is damage: the checksum covers it.
        let mut sealed = seal(b"place", "text").unwrap();
        sealed[CHECKSUM_BYTES] = 2;
        assert!(unseal::<String>(b"place", &sealed).unwrap_err().is_damage());
    }
}
