//! Controllers: each a pure function from (store, key, now) to a plan.
//!
//! No async, no clock, no randomness in here: time is an argument, and names and uids are derived from what the
//! store holds, so that the same input gives the same plan.

use crate::state::{Change, Key, Store, Txn};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use std::time::Duration;

/// What a controller wants to happen, and why.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Plan {
    /// Proposed in order; a refused one (somebody was faster) is not an error: the key is reconciled again.
    pub writes: Vec<Txn>,
    /// What users should be able to read in `kubectl describe`.
    pub events: Vec<Note>,
    /// When to look again although nothing changed.
    pub requeue_after: Option<Duration>,
}

/// An event about an object, before it is counted and stored as a Kubernetes Event.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Note {
    pub about: Key,
    pub kind: NoteKind,
    /// One CamelCase word, as Kubernetes' own controllers use it: `SuccessfulCreate`.
    pub reason: String,
    pub message: String,
    /// Which controller says so: `deployment-controller`.
    pub source: &'static str,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NoteKind {
    Normal,
    Warning,
}

/// One controller: which keys a change concerns, and what a key needs.
pub trait Controller: Send + Sync {
    /// As events name it: `job-controller`.
    fn name(&self) -> &'static str;

    /// The keys to reconcile because of a change (of any kind).
    fn concerned(&self, store: &Store, change: &Change) -> Vec<Key>;

    /// Every key to reconcile when a leader begins.
    fn all(&self, store: &Store) -> Vec<Key>;

    fn reconcile(&self, store: &Store, key: &Key, now: &Time) -> Plan;
}
