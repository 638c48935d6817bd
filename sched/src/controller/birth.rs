//! Pods that a controller makes in one plan: admitted by their namespace's rules, told of, and written together with what
//! is charged for them.

use super::loaded::create;
use super::{Note, Plan};
use crate::admission::Ledger;
use crate::state::{Key, Store, Write};
use k8s_openapi::api::core::v1::Pod;
use std::time::Duration;

/// When to ask again for what a namespace's rules forbade: they may be others by then, and nothing says so.
const FORBIDDEN_WAIT: Duration = Duration::from_secs(10);

pub(super) struct Births<'a> {
    owner: &'a Key,
    controller: &'static str,
    ledger: Ledger<'a>,
    writes: Vec<Write>,
}

impl<'a> Births<'a> {
    pub(super) fn new(store: &'a Store, owner: &'a Key, controller: &'static str) -> Self {
        Self { owner, controller, ledger: Ledger::new(store), writes: Vec::new() }
    }

    pub(super) fn len(&self) -> usize {
        self.writes.len()
    }

    /// Takes a pod among those to be made, and tells of it; `false`, told as well, where it is forbidden: then the next
    /// one of its kind is, too.
    pub(super) fn add(&mut self, pod: Pod, plan: &mut Plan) -> bool {
        let name = pod.metadata.name.clone().unwrap_or_default();
        self.add_told(pod, format!("Created pod: {name}"), plan)
    }

    /// The same, with the words of the controller.
    pub(super) fn add_told(&mut self, mut pod: Pod, message: String, plan: &mut Plan) -> bool {
        let name = pod.metadata.name.clone().unwrap_or_default();
        match self.ledger.admit(&mut pod) {
            Ok(()) => {
                self.writes.push(create(&pod));
                plan.events.push(Note::normal(self.owner, self.controller, "SuccessfulCreate", message));
                true
            }
            Err(why) => {
                let message = format!("Error creating: pods \"{name}\" is forbidden: {why}");
                plan.events.push(Note::warning(self.owner, self.controller, "FailedCreate", message));
                plan.requeue(FORBIDDEN_WAIT);
                false
            }
        }
    }

    pub(super) fn into_writes(self) -> Vec<Write> {
        let mut writes = self.ledger.writes();
        writes.extend(self.writes);
        writes
    }
}
