//! The key that a phrase is stretched into, and everything that derives from it.
//!
//! Must never know what the derived keys protect, and never shows a key.

use std::fmt;

use argon2::{Algorithm, Argon2, Params, Version};
use hkdf::Hkdf;
use sha2::Sha256;
use zeroize::Zeroizing;

use super::Phrase;

/// argon2id with 64 MiB, three passes and one lane: the second recommended choice of RFC 9106 (section 4) in memory
/// and passes, with one lane so that it costs the same on every desktop.
const MEMORY_KIB: u32 = 64 * 1024;
const PASSES: u32 = 3;
const LANES: u32 = 1;
/// The salt is fixed, since nodes that have never met must reach the same key from the phrase alone. It keeps
/// tables made for other programs useless; tables for this one are what the phrase's strength is for. A new
/// version of the stretch needs a new salt.
const SALT: &[u8] = b"gaggle cluster key, version 1";
/// Prefix of every purpose, so that keys of later versions never coincide with these.
const INFO: &[u8] = b"gaggle/1/";
/// Bytes of the public id: 64 bits tell clusters in one building apart.
const ID_BYTES: usize = 8;

/// The root of a cluster's secrets. Redacted in `Debug`, overwritten when dropped.
#[derive(Clone, PartialEq, Eq)]
pub struct ClusterKey(Zeroizing<[u8; 32]>);

/// The stretch needs 64 MiB and fixed parameters; it fails only without that memory.
#[derive(Debug, thiserror::Error)]
#[error("the phrase could not be stretched into a key: {reason}")]
pub struct StretchError {
    reason: String,
}

impl ClusterKey {
    /// Stretches a phrase. Takes about a hundred milliseconds of one core and 64 MiB: call it on a blocking thread.
    ///
    /// # Errors
    /// When the memory cannot be had.
    pub fn stretch(phrase: &Phrase) -> Result<Self, StretchError> {
        let failed = |error: argon2::Error| StretchError { reason: error.to_string() };
        let params = Params::new(MEMORY_KIB, PASSES, LANES, Some(32)).map_err(failed)?;
        let mut key = Zeroizing::new([0u8; 32]);
        Argon2::new(Algorithm::Argon2id, Version::V0x13, params)
            .hash_password_into(phrase.as_str().as_bytes(), SALT, key.as_mut())
            .map_err(failed)?;
        Ok(Self(key))
    }

    /// A key that was stored. The bytes are all there is to it: they need the same care as the phrase.
    #[must_use]
    pub fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(Zeroizing::new(bytes))
    }

    /// The bytes to store, in a file of mode 0600.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }

    /// The key for one purpose (HKDF-SHA256, RFC 5869). Different purposes give independent keys, and none gives
    /// the root away.
    #[must_use]
    pub fn derive(&self, purpose: &str) -> [u8; 32] {
        let hkdf = Hkdf::<Sha256>::new(None, self.0.as_ref());
        let mut key = [0u8; 32];
        if hkdf.expand_multi_info(&[INFO, purpose.as_bytes()], &mut key).is_err() {
            unreachable!("HKDF-SHA256 expands to 8,160 bytes, and 32 are asked of it");
        }
        key
    }

    /// A short public name of the cluster: 16 hexadecimal digits that two nodes share if and only if they share the
    /// phrase, and that say nothing about it.
    #[must_use]
    pub fn cluster_id(&self) -> String {
        self.derive("public cluster id")[..ID_BYTES].iter().map(|byte| format!("{byte:02x}")).collect()
    }
}

impl fmt::Debug for ClusterKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ClusterKey(redacted)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::identity::Strength;

    #[test]
    fn the_same_phrase_gives_the_same_key_on_every_desktop() {
        let phrase = |text| Phrase::parse(text, Strength::Forced).unwrap();
        let one = ClusterKey::stretch(&phrase("six geese a-laying")).unwrap();
        let same = ClusterKey::stretch(&phrase(" six geese a-laying\n")).unwrap();
        let other = ClusterKey::stretch(&phrase("six geese a-layinG")).unwrap();
        assert_eq!(one.as_bytes(), same.as_bytes());
        assert_ne!(one.as_bytes(), other.as_bytes());
        assert_ne!(one.cluster_id(), other.cluster_id());
        // A change of parameters or salt would lock every existing cluster out: this value is for ever.
        assert_eq!(one.cluster_id(), "70def78eabc03bc2");
    }

    #[test]
    fn purposes_are_independent_and_nothing_shows_the_key() {
        let key = ClusterKey::from_bytes([7; 32]);
        assert_ne!(key.derive("a"), key.derive("b"));
        assert_ne!(&key.derive("a"), key.as_bytes());
        assert_eq!(key.cluster_id().len(), 2 * ID_BYTES);
        assert_eq!(format!("{key:?}"), "ClusterKey(redacted)");
    }
}
