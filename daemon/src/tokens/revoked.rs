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

    /// The last issue of a user's tokens that was revoked, and every one before it with it; 0 if none was.
    fn last(&self, store: &Store, user: &str) -> u32 {
        let ordered = store.get(&Self::key()).and_then(|object| object.value().get("data")?.as_object());
        let unordered = self.unordered.read().unwrap_or_else(PoisonError::into_inner);
        let keys = ordered.into_iter().flat_map(|data| data.keys()).chain(unordered.keys());
        let user = written(user);
        keys.filter_map(|key| issue_of(key))
            .filter(|(of, _)| *of == user)
            .map(|(_, issue)| issue)
            .max()
            .unwrap_or(0)
    }

    pub fn is_revoked(&self, store: &Store, user: &str, issue: u32) -> bool {
        issue <= self.last(store, user)
    }

    /// What was heard, for whoever writes the ConfigMap: nothing of it may get lost.
    pub fn notes(&self) -> BTreeMap<String, Value> {
        self.unordered.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The issue that a user's tokens belong to now.
    pub fn current_issue(&self, store: &Store, user: &str) -> u32 {
        self.last(store, user).saturating_add(1)
    }
}

/// The key in the ConfigMap for one issue of a user's tokens.
pub fn revocation_key(user: &str, issue: u32) -> String {
    format!("{}.{issue}", written(user))
}

/// The user, as [`written`], and the issue of a key.
fn issue_of(key: &str) -> Option<(&str, u32)> {
    let (user, issue) = key.rsplit_once('.')?;
    Some((user, issue.parse().ok()?))
}

/// The keys that are not the last of their user: what they revoke, a later one does.
pub fn superseded<'a>(keys: impl Iterator<Item = &'a str> + Clone) -> impl Iterator<Item = &'a str> {
    let mut last: BTreeMap<&str, u32> = BTreeMap::new();
    for (user, issue) in keys.clone().filter_map(issue_of) {
        let newest = last.entry(user).or_default();
        *newest = issue.max(*newest);
    }
    keys.filter(move |key| {
        issue_of(key).is_some_and(|(user, issue)| last.get(user).is_some_and(|newest| issue < *newest))
    })
}

/// A user's name where a key has it: what a key cannot hold is written by its bytes.
fn written(user: &str) -> String {
    let mut key = String::with_capacity(user.len() + 4);
    for byte in user.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' => key.push(char::from(byte)),
            _ => key.push_str(&format!("_{byte:02x}")),
        }
    }
    key
}
