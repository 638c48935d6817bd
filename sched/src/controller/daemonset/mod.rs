//! DaemonSets: one pod on every node that is chosen and there.
//!
//! A desktop that does not answer, or is leaving, is left out of everything: desktops are switched off every evening, and
//! a roll-out that waited for each of them would end on Monday. Its pod stays bound to it, goes on when it comes back,
//! and is counted and replaced then.

mod birth;
mod rollout;

use super::birth::Births;
use super::deletion::{self, Grace};
use super::history::{History, REVISION, hash_in};
use super::instant::elapsed;
use super::loaded::{Loaded, set, to_json};
use super::owners::{self, claim};
use super::pods::{self, Availability, availability};
use super::{Controller, Note, Plan};
use crate::scheduler::hosting::{Daemon, Hosting};
use crate::state::{Change, Key, Object, Resource, Store, resource_of};
use k8s_openapi::api::apps::v1::{ControllerRevision, DaemonSet, DaemonSetSpec, DaemonSetStatus};
use k8s_openapi::api::core::v1::{Node, Pod};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{LabelSelector, Time};
use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

const NAME: &str = "daemonset-controller";
const PODS: Resource = Resource::fixed("pods");
const NODES: Resource = Resource::fixed("nodes");
/// Pods made or deleted per plan (Kubernetes' burst).
const BURST: usize = 250;
/// A daemon that failed is made again this long after it was made, at the earliest: an agent that refuses it would
/// otherwise be asked without a pause.
const FAILED_WAIT: Duration = Duration::from_secs(10);

pub struct DaemonSetController;

impl Controller for DaemonSetController {
    fn name(&self) -> &'static str {
        NAME
    }

    fn concerned(&self, store: &Store, change: &Change) -> Vec<Key> {
        if change.key.resource == PODS || change.key.resource == resource_of::<ControllerRevision>() {
            return owners::concerned::<DaemonSet>(store, change, selector_of);
        }
        if change.key.resource == NODES && is_another(change.previous.as_deref(), change.object.as_deref()) {
            return self.all(store);
        }
        if change.key.resource == resource_of::<DaemonSet>() { vec![change.key.clone()] } else { Vec::new() }
    }

    fn all(&self, store: &Store) -> Vec<Key> {
        store.list(&resource_of::<DaemonSet>(), None).map(|(key, _)| key).collect()
    }

    fn reconcile(&self, store: &Store, key: &Key, now: &Time) -> Plan {
        let Some(owner) = Loaded::<DaemonSet>::get(store, key) else { return Plan::default() };
        let Some(spec) = owner.spec.clone() else { return Plan::default() };
        Work::new(store, &owner, &spec, now).run()
    }
}

fn selector_of(owner: &DaemonSet) -> Option<Cow<'_, LabelSelector>> {
    Some(Cow::Borrowed(&owner.spec.as_ref()?.selector))
}

/// Whether a node changed in what decides about daemons: addresses and versions come and go without that.
fn is_another(before: Option<&Object>, after: Option<&Object>) -> bool {
    let face = |object: &Object| {
        let node = object.typed::<Node>()?;
        let taints = node.spec.as_ref().and_then(|spec| spec.taints.clone());
        Some((node.metadata.labels.clone(), taints, is_away(&node)))
    };
    before.and_then(face) != after.and_then(face)
}

/// Whether nobody on the node could start or stop anything, or nothing is to be started there any more.
fn is_away(node: &Node) -> bool {
    let conditions = node.status.iter().flat_map(|status| status.conditions.iter().flatten());
    let mut ready = conditions.filter(|condition| condition.type_ == "Ready");
    node.metadata.deletion_timestamp.is_some()
        || ready.any(|ready| ready.status == "Unknown" || ready.reason.as_deref() == Some("NodeLeaving"))
}

/// A node that is there, and the daemon's pods on it, the one that counts first.
struct Place {
    node: String,
    hosting: Hosting,
    pods: Vec<Loaded<Pod>>,
}

/// One reconciliation.
struct Work<'a> {
    store: &'a Store,
    owner: &'a Loaded<DaemonSet>,
    spec: &'a DaemonSetSpec,
    now: &'a Time,
    history: History,
    /// Of the template as it is now.
    hash: String,
    births: Births<'a>,
    plan: Plan,
}

impl<'a> Work<'a> {
    fn new(store: &'a Store, owner: &'a Loaded<DaemonSet>, spec: &'a DaemonSetSpec, now: &'a Time) -> Self {
        let collisions = owner.status.as_ref().and_then(|status| status.collision_count);
        let history = History::of(store, owner, &spec.template, collisions, now);
        let hash = hash_in(&owner.key.name, &history.update).unwrap_or_default().to_owned();
        let births = Births::new(store, &owner.key, NAME);
        Self { store, owner, spec, now, history, hash, births, plan: Plan::default() }
    }

    fn run(mut self) -> Plan {
        std::mem::take(&mut self.history.writes).into_iter().for_each(|write| self.plan.write(write));
        if let Some(revision) = self.history.birth.take()
            && !self.births.add_revision(&revision, &mut self.plan)
        {
            return self.plan;
        }
        let claimed = claim::<DaemonSet, Pod>(self.store, self.owner, Some(&self.spec.selector));
        claimed.writes.into_iter().for_each(|write| self.plan.write(write));
        self.forget(&claimed.dependents);
        let before = self.plan.writes.len();
        let places = self.places(claimed.dependents);
        let mut status = self.status(&places);
        if !pods::is_going(self.owner) {
            self.manage(&places);
            // Counted in the transaction that makes them: a plan of the same state cannot make them again.
            status.current_number_scheduled += i32::try_from(self.births.pods()).unwrap_or(i32::MAX);
            // What was deleted a moment ago must not be taken for what is still to be replaced.
            if self.plan.writes.len() == before && self.births.pods() == 0 {
                self.roll(&places);
            }
        }
        if self.owner.status.as_ref() != Some(&status) || !self.births.is_empty() {
            let mut writes = vec![self.owner.edit(|value| set(value, &["status"], to_json(&status)))];
            writes.extend(self.births.into_writes());
            self.plan.transaction(writes);
        }
        self.plan
    }

    fn forget(&mut self, pods: &[Loaded<Pod>]) {
        let used: BTreeSet<&str> = pods.iter().filter_map(|pod| pod.object.label(REVISION)).collect();
        let is_live =
            |name: &str| hash_in(&self.owner.key.name, name).is_some_and(|hash| used.contains(hash));
        let limit = self.spec.revision_history_limit;
        let forgotten = self.history.forget(limit, self.now, is_live);
        forgotten.into_iter().for_each(|write| self.plan.write(write));
    }

    /// Every node that is there with its pods. What was made for a node that is gone goes, too, unless it is bound:
    /// then it goes with the node.
    fn places(&mut self, dependents: Vec<Loaded<Pod>>) -> Vec<Place> {
        let mut of_node: BTreeMap<String, Vec<Loaded<Pod>>> = BTreeMap::new();
        // What has ended and is on its way out holds up no successor.
        for pod in dependents.into_iter().filter(|pod| !(pods::is_finished(pod) && pods::is_terminating(pod)))
        {
            let node = birth::target(&pod).unwrap_or_default().to_owned();
            of_node.entry(node).or_default().push(pod);
        }
        let mut spec = self.spec.template.spec.clone().unwrap_or_default();
        birth::tolerate(&mut spec);
        let daemon = Daemon::new(Pod { spec: Some(spec), ..Pod::default() });
        let mut places = Vec::new();
        for (key, object) in self.store.list(&NODES, None) {
            let mut pods = of_node.remove(&key.name).unwrap_or_default();
            let Some(node) = object.typed::<Node>().filter(|node| !is_away(node)) else { continue };
            pods.sort_by_cached_key(|pod| {
                let born = pod.metadata.creation_timestamp.clone();
                (pods::node_of(pod).is_none(), born, pod.key.clone())
            });
            let hosting = daemon.hosting(&key.name, &node);
            places.push(Place { node: key.name, hosting, pods });
        }
        if !pods::is_going(self.owner) {
            for pod in of_node.into_values().flatten().filter(|pod| pods::node_of(pod).is_none()) {
                self.delete(&pod);
            }
        }
        places
    }

    /// Makes what is missing and removes what is too much.
    fn manage(&mut self, places: &[Place]) {
        // What is forbidden on one node is forbidden on all, but those that have a daemon are still set right.
        let mut allowed = true;
        for place in places {
            if self.births.pods() + self.plan.writes.len() >= BURST {
                self.plan.requeue(Duration::ZERO);
                return;
            }
            match place.hosting {
                Hosting::Wanted if place.pods.is_empty() => {
                    allowed = allowed && self.give_birth(&place.node);
                }
                Hosting::Unwanted => place.pods.iter().for_each(|pod| self.delete(pod)),
                Hosting::Wanted | Hosting::Kept => self.tidy(place),
            }
        }
    }

    /// Leaves one daemon on the node, or one of each template while a roll-out makes the new one first.
    fn tidy(&mut self, place: &Place) {
        let mut running = Vec::new();
        for pod in place.pods.iter().filter(|pod| !pods::is_terminating(pod)) {
            match pods::phase(pod) {
                "Failed" => self.replace_failed(place, pod),
                "Succeeded" => {
                    let message = format!(
                        "Found succeeded daemon pod {}/{} on node {}, will try to delete it",
                        pod.key.namespace, pod.key.name, place.node
                    );
                    self.plan.events.push(Note::normal(&self.owner.key, NAME, "SucceededDaemonPod", message));
                    self.delete(pod);
                }
                _ => running.push(pod),
            }
        }
        let (new, old): (Vec<&Loaded<Pod>>, Vec<&Loaded<Pod>>) =
            running.iter().copied().partition(|pod| self.is_new(pod));
        if self.surges() && !new.is_empty() && !old.is_empty() {
            new.iter().skip(1).chain(old.iter().skip(1)).for_each(|pod| self.delete(pod));
            if !pods::is_ready(old[0]) || self.serves(new[0]) {
                self.delete(old[0]);
            }
        } else {
            running.iter().skip(1).for_each(|pod| self.delete(pod));
        }
    }

    fn replace_failed(&mut self, place: &Place, pod: &Loaded<Pod>) {
        // One that seems to be born later than now is of before the clock was set back.
        let born = pod.metadata.creation_timestamp.as_ref().filter(|born| **born <= *self.now);
        let age = born.map_or(FAILED_WAIT, |born| elapsed(self.now, born));
        if let Some(wait) = FAILED_WAIT.checked_sub(age).filter(|wait| !wait.is_zero()) {
            return self.plan.requeue(wait);
        }
        let message = format!(
            "Found failed daemon pod {}/{} on node {}, will try to kill it",
            pod.key.namespace, pod.key.name, place.node
        );
        self.plan.events.push(Note::warning(&self.owner.key, NAME, "FailedDaemonPod", message));
        self.delete(pod);
    }

    /// Whether the namespace allows it.
    fn give_birth(&mut self, node: &str) -> bool {
        let ordinal = self.births.pods() as u64;
        let template = &self.spec.template;
        let pod = birth::pod(self.store, self.owner, template, &self.hash, node, ordinal, self.now);
        self.births.add(pod, &mut self.plan)
    }

    fn delete(&mut self, pod: &Loaded<Pod>) {
        if pods::is_terminating(pod) {
            return;
        }
        let write = deletion::delete(&pod.key, &pod.object, Grace::AsSpecified, self.now);
        let Some(write) = write else { return };
        self.plan.write(write);
        let message = format!("Deleted pod: {}", pod.key.name);
        self.plan.events.push(Note::normal(&self.owner.key, NAME, "SuccessfulDelete", message));
    }

    /// Whether a pod is of the template as it is now.
    fn is_new(&self, pod: &Loaded<Pod>) -> bool {
        pod.object.label(REVISION) == Some(&self.hash)
    }

    fn serves(&mut self, pod: &Loaded<Pod>) -> bool {
        match availability(pod, self.spec.min_ready_seconds.unwrap_or(0), self.now) {
            Availability::Available => true,
            Availability::In(wait) => {
                self.plan.requeue(wait);
                false
            }
            Availability::NotReady => false,
        }
    }

    fn status(&mut self, places: &[Place]) -> DaemonSetStatus {
        let mut status = DaemonSetStatus {
            observed_generation: self.owner.metadata.generation,
            collision_count: Some(self.history.collisions).filter(|count| *count > 0),
            conditions: self.owner.status.as_ref().and_then(|status| status.conditions.clone()),
            ..DaemonSetStatus::default()
        };
        let (mut updated, mut available) = (0, 0);
        for place in places {
            let first = place.pods.first();
            if place.hosting != Hosting::Wanted {
                status.number_misscheduled += i32::from(first.is_some());
                continue;
            }
            status.desired_number_scheduled += 1;
            let Some(pod) = first else { continue };
            status.current_number_scheduled += 1;
            status.number_ready += i32::from(pods::is_ready(pod));
            available += i32::from(self.serves(pod));
            updated += i32::from(self.is_new(pod));
        }
        let some = |count: i32| Some(count).filter(|count| *count > 0);
        status.updated_number_scheduled = some(updated);
        status.number_available = some(available);
        status.number_unavailable = some(status.desired_number_scheduled - available);
        status
    }
}

#[cfg(test)]
mod tests;
