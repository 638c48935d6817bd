//! Names, uids and hashes that controllers give to what they make.
//!
//! They are derived from what the store holds: the same input gives the same plan, on every leader. It must
//! never know a clock or randomness.

use crate::state::Revision;
use k8s_openapi::api::core::v1::PodTemplateSpec;
use serde_json::Value;
use sha2::{Digest, Sha256};

/// Kubernetes' alphabet for generated names: no vowels and no look-alikes, so that no words come out.
const ALPHABET: &[u8; 27] = b"bcdfghjklmnpqrstvwxz2456789";
/// Characters that `generateName` adds.
const SUFFIX_LENGTH: usize = 5;
/// Characters of a pod-template-hash.
const HASH_LENGTH: usize = 10;
/// A name's bound in Kubernetes (a DNS label), less the suffix and its dash.
const BASE_LENGTH_LIMIT: usize = 63 - SUFFIX_LENGTH - 1;

/// The label that tells the pods of a Deployment's ReplicaSets apart.
pub const POD_TEMPLATE_HASH: &str = "pod-template-hash";

/// What makes a new object different from every other: who made it, for what, which of how many, and when (in
/// the store's own time). A uid is never given twice, because the revision has moved on.
#[derive(Clone, Copy, Debug)]
pub struct Origin<'a> {
    pub owner_uid: &'a str,
    pub purpose: &'a str,
    pub ordinal: u64,
    pub revision: Revision,
}

impl Origin<'_> {
    fn digest(&self, what: &str) -> [u8; 32] {
        let mut hasher = Sha256::new();
        for part in [what, self.owner_uid, self.purpose] {
            hasher.update((part.len() as u64).to_be_bytes());
            hasher.update(part);
        }
        hasher.update(self.ordinal.to_be_bytes());
        hasher.update(self.revision.0.to_be_bytes());
        hasher.finalize().into()
    }

    /// A uid in the shape of a UUID (version 8: made by hashing, RFC 9562).
    pub fn uid(&self) -> String {
        let mut bytes = self.digest("uid");
        bytes[6] = (bytes[6] & 0x0f) | 0x80;
        bytes[8] = (bytes[8] & 0x3f) | 0x80;
        let hex: String = bytes[..16].iter().map(|byte| format!("{byte:02x}")).collect();
        format!("{}-{}-{}-{}-{}", &hex[..8], &hex[8..12], &hex[12..16], &hex[16..20], &hex[20..])
    }

    /// `base` with five characters behind it, as `generateName` would make it.
    pub fn name(&self, base: &str) -> String {
        let base = clip(base, BASE_LENGTH_LIMIT);
        format!("{base}-{}", letters(&self.digest("name"), SUFFIX_LENGTH))
    }
}

/// The hash that tells a Deployment's templates apart. `collisions` is its `status.collisionCount`: one more
/// gives another hash, for when the ReplicaSet of that name is somebody else's.
pub fn template_hash(template: &PodTemplateSpec, collisions: i32) -> String {
    let mut hasher = Sha256::new();
    match serde_json::to_value(template) {
        Ok(value) => feed(&mut hasher, &value),
        Err(error) => tracing::error!(%error, "a pod template is not representable as JSON"),
    }
    hasher.update(collisions.to_be_bytes());
    letters(&hasher.finalize().into(), HASH_LENGTH)
}

/// Feeds JSON in one canonical form: keys sorted, every part marked with its type and length.
fn feed(hasher: &mut Sha256, value: &Value) {
    match value {
        Value::Object(fields) => {
            let mut fields: Vec<_> = fields.iter().collect();
            fields.sort_by(|a, b| a.0.cmp(b.0));
            hasher.update(format!("{{{}:", fields.len()));
            for (name, value) in fields {
                hasher.update(format!("{}:{name}", name.len()));
                feed(hasher, value);
            }
        }
        Value::Array(items) => {
            hasher.update(format!("[{}:", items.len()));
            items.iter().for_each(|item| feed(hasher, item));
        }
        Value::String(text) => hasher.update(format!("\"{}:{text}", text.len())),
        scalar => hasher.update(format!("={scalar};")),
    }
}

fn letters(digest: &[u8; 32], count: usize) -> String {
    // Three bytes a letter: the alphabet's 27 do not divide 256, and one byte would prefer some letters.
    let letter = |part: &[u8]| {
        let number = part.iter().fold(0_usize, |number, byte| number << 8 | usize::from(*byte));
        char::from(ALPHABET[number % ALPHABET.len()])
    };
    digest.chunks_exact(3).take(count).map(letter).collect()
}

fn clip(text: &str, limit: usize) -> &str {
    let mut end = text.len().min(limit);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    text[..end].trim_end_matches(['-', '.'])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_differ_where_they_must_and_agree_where_they_must() {
        let origin = Origin { owner_uid: "u", purpose: "pod", ordinal: 1, revision: Revision(7) };
        assert_eq!(origin.name("web"), origin.name("web"));
        assert_ne!(origin.uid(), Origin { ordinal: 2, ..origin }.uid());
        assert_ne!(origin.uid(), Origin { revision: Revision(8), ..origin }.uid());
        assert_eq!(origin.uid().len(), 36);
        assert_eq!(origin.name("web").len(), 9);
        assert!(origin.name(&"x".repeat(80)).len() <= 63);
    }

    #[test]
    fn a_template_keeps_its_hash_and_a_collision_changes_it() {
        let template = PodTemplateSpec::default();
        assert_eq!(template_hash(&template, 0), template_hash(&template, 0));
        assert_ne!(template_hash(&template, 0), template_hash(&template, 1));
        assert_eq!(template_hash(&template, 0).len(), HASH_LENGTH);
    }
}
