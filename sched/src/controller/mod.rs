//! Controllers: each a pure function from (store, key, now) to a plan.
//!
//! No async, no clock, no randomness in here: time is an argument, and names and uids are derived from what the
//! store holds, so that the same input gives the same plan.

mod access;
mod birth;
mod bounds;
mod cronjob;
mod daemonset;
pub mod definition;
pub mod deletion;
mod deployment;
pub mod disruption;
mod events;
mod garbage;
mod history;
pub mod identity;
mod instant;
mod job;
pub(crate) mod loaded;
pub mod names;
pub mod namespace;
pub mod node;
pub mod notes;
mod owners;
pub(crate) mod pods;
mod priority;
mod quota;
mod replicaset;
pub mod schedule;
pub mod selector;
pub mod serviceaccount;
mod statefulset;
pub mod token;

#[cfg(test)]
pub(crate) mod harness;

pub use access::AccessController;
pub use pods::{DISRUPTION_TARGET, is_ready, says_ready};
pub use replicaset::DELETION_COST;

use crate::state::{Change, Key, Store, Txn, Write};
use k8s_openapi::api::apps::v1::ReplicaSet;
use k8s_openapi::api::core::v1::ReplicationController;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use std::marker::PhantomData;
use std::sync::Arc;
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

impl Plan {
    /// Adds a transaction of its own for `write`.
    pub fn write(&mut self, write: Write) {
        self.writes.push(write.into());
    }

    /// Adds one transaction that happens as a whole; none if there is nothing in it.
    pub fn transaction(&mut self, writes: Vec<Write>) {
        if !writes.is_empty() {
            self.writes.push(Txn::from(writes));
        }
    }

    /// Asks to be called again after `wait` at the latest.
    pub fn requeue(&mut self, wait: Duration) {
        self.requeue_after = Some(self.requeue_after.map_or(wait, |earlier| earlier.min(wait)));
    }

    /// Adds what another plan wants.
    pub fn merge(&mut self, other: Plan) {
        self.writes.extend(other.writes);
        self.events.extend(other.events);
        if let Some(wait) = other.requeue_after {
            self.requeue(wait);
        }
    }
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

impl Note {
    pub fn normal(about: &Key, source: &'static str, reason: &str, message: impl Into<String>) -> Self {
        let (about, kind) = (about.clone(), NoteKind::Normal);
        Self { about, kind, reason: reason.to_owned(), message: message.into(), source }
    }

    pub fn warning(about: &Key, source: &'static str, reason: &str, message: impl Into<String>) -> Self {
        let (about, kind) = (about.clone(), NoteKind::Warning);
        Self { about, kind, reason: reason.to_owned(), message: message.into(), source }
    }
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

/// What controllers are told that no store says.
#[derive(Clone, Debug, Default)]
pub struct Settings {
    /// The certificate of the cluster's authority, which every namespace is told; empty: none is.
    pub authority_pem: Arc<str>,
    /// Signs tokens for Secrets that are to hold one; `None`: none does.
    pub signer: Option<Arc<dyn token::SignTokens>>,
}

/// Every controller that a leader runs. (Nodes come from membership, not from the store: see [`node`].)
pub fn controllers(settings: &Settings) -> Vec<Box<dyn Controller>> {
    vec![
        Box::new(namespace::NamespaceController),
        Box::new(access::AccessController),
        Box::new(serviceaccount::ServiceAccountController { authority_pem: settings.authority_pem.clone() }),
        Box::new(token::TokenController {
            signer: settings.signer.clone(),
            authority_pem: settings.authority_pem.clone(),
        }),
        Box::new(definition::DefinitionController),
        Box::new(deployment::DeploymentController),
        Box::new(replicaset::ReplicaController::<ReplicaSet>(PhantomData)),
        Box::new(replicaset::ReplicaController::<ReplicationController>(PhantomData)),
        Box::new(statefulset::StatefulSetController),
        Box::new(daemonset::DaemonSetController),
        Box::new(job::JobController),
        Box::new(cronjob::CronJobController),
        Box::new(quota::QuotaController),
        Box::new(priority::PriorityClassController),
        Box::new(disruption::DisruptionController),
        Box::new(garbage::GarbageCollector),
        Box::new(garbage::finished::FinishedPodCollector),
        Box::new(events::EventCollector),
    ]
}
