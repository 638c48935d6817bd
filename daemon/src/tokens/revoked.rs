//! Which users' tokens were revoked: a ConfigMap that only grows, of which a desktop heeds what the group has ordered
//! and what its own documents say beyond that, so that a revocation counts wherever it was heard of.
//!
//! Tokens have no list. Each says which *issue* of its user's tokens it belongs to; to revoke is to note that issue, and
//! what is signed afterwards belongs to the next one. No clock decides, since desktops' clocks differ.

use gaggle_sched::state::{Key, Resource, Store};
use serde_json::Value;
use std::collections::BTreeMap;
use std::sync::{Arc, PoisonError, RwLock};

/// The ConfigMap's place.
pub const REVOKED: (&str, &str) = ("kube-system", "gaggle-revoked-users");

/// What this desktop has heard of beside what is in its view.
#[derive(Clone, Debug, Default)]
pub struct Revocations {
    /// What the ConfigMap holds as this desktop's document has it.
    unordered: Arc<RwLock<BTreeMap<String, Value>>>,
}

impl Revocations {
    pub fn key() -> Key {
        Key::new(Resource::fixed("configmaps"), REVOKED.0, REVOKED.1)
    }

    /// What the document says now.
    pub fn heard(&self, document: Option<&Value>) {
        let data = document.and_then(|object| object.get("data")).and_then(Value::as_object);
        let notes = data.into_iter().flatten().map(|(key, note)| (key.clone(), note.clone())).collect();
        *self.unordered.write().unwrap_or_else(PoisonError::into_inner) = notes;
    }

    pub fn is_revoked(&self, store: &Store, user: &str, issue: u32) -> bool {
        let key = revocation_key(user, issue);
        let is_ordered = store
            .get(&Self::key())
            .is_some_and(|object| object.value().get("data").and_then(|data| data.get(&key)).is_some());
        is_ordered || self.unordered.read().unwrap_or_else(PoisonError::into_inner).contains_key(&key)
    }

    /// What was heard, for whoever writes the ConfigMap: nothing of it may get lost.
    pub fn notes(&self) -> BTreeMap<String, Value> {
        self.unordered.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The issue that a user's tokens belong to now.
    pub fn current_issue(&self, store: &Store, user: &str) -> u32 {
        (1..u32::MAX).find(|issue| !self.is_revoked(store, user, *issue)).unwrap_or(u32::MAX)
    }
}

/// The key in the ConfigMap for one issue of a user's tokens. What a key cannot hold is written by its bytes.
pub fn revocation_key(user: &str, issue: u32) -> String {
    let mut key = String::with_capacity(user.len() + 4);
    for byte in user.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' => key.push(char::from(byte)),
            _ => key.push_str(&format!("_{byte:02x}")),
        }
    }
    format!("{key}.{issue}")
}
