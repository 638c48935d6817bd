//! StatefulSets: pods with a number and a name of their own, made, changed and removed in order.
//!
//! A pod's object is its identity: it is made under a fixed name that must be free, so two leaders' plans cannot
//! both make it, and a name is free again only when the pod has surely ended (see [`super::identity`]).

mod member;
mod revisions;

use super::birth::Births;
use super::deletion::{self, Grace};
use super::loaded::{Loaded, set, to_json};
use super::owners::{self, claim};
use super::pods::{self, Availability, availability};
use super::{Controller, Note, Plan};
use crate::state::{Change, Key, Resource, Store, resource_of};
use k8s_openapi::api::apps::v1::{ControllerRevision, StatefulSet, StatefulSetSpec, StatefulSetStatus};
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{LabelSelector, Time};
use revisions::Revisions;
use std::borrow::Cow;
use std::collections::BTreeMap;
use std::ops::Range;
use std::time::Duration;

const NAME: &str = "statefulset-controller";
const PODS: Resource = Resource::fixed("pods");
/// Pods made or deleted per plan where the order is of no matter.
const BURST: usize = 500;

pub struct StatefulSetController;

impl Controller for StatefulSetController {
    fn name(&self) -> &'static str {
        NAME
    }

    fn concerned(&self, store: &Store, change: &Change) -> Vec<Key> {
        if change.key.resource == PODS || change.key.resource == resource_of::<ControllerRevision>() {
            return owners::concerned::<StatefulSet>(store, change, selector_of);
        }
        if change.key.resource == resource_of::<StatefulSet>() {
            vec![change.key.clone()]
        } else {
            Vec::new()
        }
    }

    fn all(&self, store: &Store) -> Vec<Key> {
        store.list(&resource_of::<StatefulSet>(), None).map(|(key, _)| key).collect()
    }

    fn reconcile(&self, store: &Store, key: &Key, now: &Time) -> Plan {
        let Some(owner) = Loaded::<StatefulSet>::get(store, key) else { return Plan::default() };
        let Some(spec) = owner.spec.clone() else { return Plan::default() };
        let revisions = Revisions::of(store, &owner, &spec, now);
        let work = Work { store, owner: &owner, spec: &spec, now, revisions, plan: Plan::default() };
        work.run()
    }
}

fn selector_of(owner: &StatefulSet) -> Option<Cow<'_, LabelSelector>> {
    Some(Cow::Borrowed(&owner.spec.as_ref()?.selector))
}

/// One reconciliation.
struct Work<'a> {
    store: &'a Store,
    owner: &'a Loaded<StatefulSet>,
    spec: &'a StatefulSetSpec,
    now: &'a Time,
    revisions: Revisions,
    plan: Plan,
}

type Members = BTreeMap<i64, Loaded<Pod>>;

/// Whether what comes next in the order may be looked at.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Turn {
    Next,
    Wait,
}

impl Work<'_> {
    fn run(mut self) -> Plan {
        self.revisions.writes.drain(..).for_each(|write| self.plan.write(write));
        let mut births = Births::new(self.store, &self.owner.key, NAME);
        if let Some(revision) = self.revisions.birth.take()
            && !births.add_revision(&revision, &mut self.plan)
        {
            return self.plan;
        }
        let members = self.members();
        let status = self.status(&members);
        if !pods::is_going(self.owner) && self.steps(&members, &mut births) == Turn::Next {
            self.roll(&members);
        }
        if self.owner.status.as_ref() != Some(&status) || !births.is_empty() {
            let mut writes = vec![self.owner.edit(|value| set(value, &["status"], to_json(&status)))];
            writes.extend(births.into_writes());
            self.plan.transaction(writes);
        }
        self.plan
    }

    /// The set's pods by number; orphans that have the name of one are adopted.
    fn members(&mut self) -> Members {
        let claimed = claim::<StatefulSet, Pod>(self.store, self.owner, Some(&self.spec.selector));
        let number = |key: &Key| member::number(&self.owner.key.name, &key.name);
        let is_release = |key: &Key| claimed.dependents.iter().all(|pod| pod.key != *key);
        let kept =
            claimed.writes.iter().filter(|write| is_release(write.key()) || number(write.key()).is_some());
        kept.for_each(|write| self.plan.write(write.clone()));
        let dependents = claimed.dependents.into_iter();
        dependents.filter_map(|pod| Some((number(&pod.key)?, pod))).collect()
    }

    fn range(&self) -> Range<i64> {
        let start = i64::from(self.spec.ordinals.as_ref().and_then(|ordinals| ordinals.start).unwrap_or(0));
        start..start + i64::from(self.spec.replicas.unwrap_or(1).max(0))
    }

    fn is_parallel(&self) -> bool {
        self.spec.pod_management_policy.as_deref() == Some("Parallel")
    }

    /// The first number that an update may touch; `None` where pods are only replaced by hand.
    fn partition(&self) -> Option<i64> {
        let strategy = self.spec.update_strategy.as_ref();
        if strategy.and_then(|strategy| strategy.type_.as_deref()) == Some("OnDelete") {
            return None;
        }
        let rolling = strategy.and_then(|strategy| strategy.rolling_update.as_ref());
        let partition = rolling.and_then(|rolling| rolling.partition).unwrap_or(0);
        Some(self.range().start + i64::from(partition))
    }

    fn serves(&mut self, pod: &Loaded<Pod>) -> bool {
        if !pods::is_active(pod) {
            return false;
        }
        match availability(pod, self.spec.min_ready_seconds.unwrap_or(0), self.now) {
            Availability::Available => true,
            Availability::In(wait) => {
                self.plan.requeue(wait);
                false
            }
            Availability::NotReady => false,
        }
    }

    /// Makes what is missing and removes what is too much, one after the other unless the order is of no matter.
    fn steps(&mut self, members: &Members, births: &mut Births<'_>) -> Turn {
        let (range, parallel) = (self.range(), self.is_parallel());
        let mut turn = Turn::Next;
        // What is forbidden to one is forbidden to all.
        let mut allowed = true;
        for number in range.clone() {
            let ready = match members.get(&number) {
                None => {
                    if births.pods() >= BURST {
                        self.plan.requeue(Duration::ZERO);
                        return Turn::Wait;
                    }
                    allowed = allowed && self.give_birth(number, births);
                    false
                }
                Some(pod) if pods::is_finished(pod) && !pods::is_terminating(pod) => {
                    self.delete(pod, "it has ended and is made again");
                    false
                }
                Some(pod) => self.serves(pod),
            };
            if !ready {
                turn = Turn::Wait;
                if !parallel {
                    return turn;
                }
            }
        }
        for (_, pod) in members.iter().rev().filter(|(number, _)| !range.contains(number)) {
            turn = Turn::Wait;
            if !pods::is_terminating(pod) {
                self.delete(pod, "the set has become smaller");
            }
            if !parallel {
                return turn;
            }
        }
        turn
    }

    /// Replaces the last pod of an old template; every other one serves.
    fn roll(&mut self, members: &Members) {
        let Some(partition) = self.partition() else { return };
        let range = self.range();
        let old = members.iter().rev().find(|(number, pod)| {
            range.contains(number) && **number >= partition && !self.revisions.is_update(pod)
        });
        if let Some((_, pod)) = old {
            self.delete(pod, "its template has changed");
        }
    }

    /// Whether the namespace allows it.
    fn give_birth(&mut self, number: i64, births: &mut Births<'_>) -> bool {
        let newest = self.partition().is_none_or(|partition| number >= partition);
        let (revision, template) = match newest {
            true => (self.revisions.update.clone(), self.spec.template.clone()),
            false => self.revisions.current_template(&self.spec.template),
        };
        let pod = member::pod(self.store, self.owner, self.spec, &template, &revision, number, self.now);
        let message = format!(
            "create Pod {} in StatefulSet {} successful",
            pod.metadata.name.as_deref().unwrap_or_default(),
            self.owner.key.name
        );
        births.add_told(pod, message, &mut self.plan)
    }

    fn delete(&mut self, pod: &Loaded<Pod>, why: &str) {
        let Some(write) = deletion::delete(&pod.key, &pod.object, Grace::AsSpecified, self.now) else {
            return;
        };
        self.plan.write(write);
        let (name, set) = (&pod.key.name, &self.owner.key.name);
        let message = format!("delete Pod {name} in StatefulSet {set} successful: {why}");
        self.plan.events.push(Note::normal(&self.owner.key, NAME, "SuccessfulDelete", message));
    }

    fn status(&mut self, members: &Members) -> StatefulSetStatus {
        let (mut ready, mut available, mut current, mut updated) = (0, 0, 0, 0);
        for pod in members.values() {
            ready += i32::from(pods::is_ready(pod) && !pods::is_terminating(pod));
            available += i32::from(self.serves(pod));
            if pods::is_active(pod) {
                current += i32::from(self.revisions.is_current(pod));
                updated += i32::from(self.revisions.is_update(pod));
            }
        }
        let replicas = count(members.len());
        let wanted = self.spec.replicas.unwrap_or(1);
        // A roll-out is over when everything is of the new template and serves.
        if self.partition().is_some() && updated == replicas && ready == replicas && replicas == wanted {
            self.revisions.current = self.revisions.update.clone();
            current = updated;
        }
        let before = self.owner.status.as_ref();
        StatefulSetStatus {
            replicas,
            ready_replicas: Some(ready),
            available_replicas: Some(available),
            current_replicas: Some(current),
            updated_replicas: Some(updated),
            current_revision: Some(self.revisions.current.clone()),
            update_revision: Some(self.revisions.update.clone()),
            observed_generation: self.owner.metadata.generation,
            collision_count: Some(self.revisions.collisions),
            conditions: before.and_then(|status| status.conditions.clone()),
        }
    }
}

fn count(number: usize) -> i32 {
    i32::try_from(number).unwrap_or(i32::MAX)
}

#[cfg(test)]
mod tests;
