//! ReplicaSets: as many pods of one template as asked for.
//!
//! Creating pods and counting them happens in one transaction with the ReplicaSet's own revision expected, so
//! that two plans made from the same state cannot both create.

use super::deletion::{self, Grace};
use super::loaded::{Loaded, create, set, to_json};
use super::owners::{self, claim};
use super::pods::{self, Availability, availability};
use super::{Controller, Note, Plan, selector};
use crate::state::{Change, Key, Resource, Store, Write, resource_of};
use k8s_openapi::api::apps::v1::{ReplicaSet, ReplicaSetSpec, ReplicaSetStatus};
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{LabelSelector, Time};
use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::time::Duration;

const NAME: &str = "replicaset-controller";
/// Pods made or deleted per plan (Kubernetes' burst): a transaction stays small enough for one log entry, and
/// the status shows progress in between.
const BURST: usize = 500;
/// Says which pods to delete first: the cheaper ones, 0 where nothing is said
/// (<https://kubernetes.io/docs/concepts/workloads/controllers/replicaset/#pod-deletion-cost>).
pub const DELETION_COST: &str = "controller.kubernetes.io/pod-deletion-cost";
const PODS: Resource = Resource::fixed("pods");

pub struct ReplicaSetController;

impl Controller for ReplicaSetController {
    fn name(&self) -> &'static str {
        NAME
    }

    fn concerned(&self, store: &Store, change: &Change) -> Vec<Key> {
        if change.key.resource == PODS {
            return owners::concerned::<ReplicaSet>(store, change, selector_of);
        }
        if change.key.resource == resource_of::<ReplicaSet>() { vec![change.key.clone()] } else { Vec::new() }
    }

    fn all(&self, store: &Store) -> Vec<Key> {
        store.list(&resource_of::<ReplicaSet>(), None).map(|(key, _)| key).collect()
    }

    fn reconcile(&self, store: &Store, key: &Key, now: &Time) -> Plan {
        let Some(set) = Loaded::<ReplicaSet>::get(store, key) else { return Plan::default() };
        let Some(spec) = set.spec.clone() else { return Plan::default() };
        reconcile(store, &set, &spec, now)
    }
}

fn selector_of(set: &ReplicaSet) -> Option<&LabelSelector> {
    Some(&set.spec.as_ref()?.selector)
}

fn reconcile(store: &Store, set: &Loaded<ReplicaSet>, spec: &ReplicaSetSpec, now: &Time) -> Plan {
    let mut plan = Plan::default();
    let claimed = claim::<ReplicaSet, Pod>(store, set, Some(&spec.selector));
    claimed.writes.into_iter().for_each(|write| plan.write(write));
    let mut active: Vec<Loaded<Pod>> =
        claimed.dependents.into_iter().filter(|pod| pods::is_active(pod)).collect();
    let mut status = count(set, spec, &active, now, &mut plan);

    let wanted = usize::try_from(spec.replicas.unwrap_or(1)).unwrap_or(0);
    let mut births = Vec::new();
    if !pods::is_going(set) && active.len() < wanted {
        let missing = wanted - active.len();
        births = give_birth(store, set, spec, missing.min(BURST), now, &mut plan);
        status.replicas += i32::try_from(births.len()).unwrap_or(i32::MAX);
        if missing > BURST {
            plan.requeue(Duration::ZERO);
        }
    } else if !pods::is_going(set) && active.len() > wanted {
        let surplus = active.len() - wanted;
        deletion_order(&mut active, now);
        for pod in active.iter().take(surplus.min(BURST)) {
            let Some(write) = deletion::delete(&pod.key, &pod.object, Grace::AsSpecified, now) else {
                continue;
            };
            plan.write(write);
            let message = format!("Deleted pod: {}", pod.key.name);
            plan.events.push(Note::normal(&set.key, NAME, "SuccessfulDelete", message));
        }
    }
    if set.status.as_ref() != Some(&status) || !births.is_empty() {
        births.insert(0, set.edit(|value| self::set(value, &["status"], to_json(&status))));
        plan.transaction(births);
    }
    plan
}

fn give_birth(
    store: &Store,
    set: &Loaded<ReplicaSet>,
    spec: &ReplicaSetSpec,
    count: usize,
    now: &Time,
    plan: &mut Plan,
) -> Vec<Write> {
    let template = spec.template.clone().unwrap_or_default();
    let make = |ordinal: usize| {
        let pod = pods::from_template(store, set, &template, &set.key.name, ordinal as u64, now);
        let message = format!("Created pod: {}", pod.metadata.name.as_deref().unwrap_or_default());
        plan.events.push(Note::normal(&set.key, NAME, "SuccessfulCreate", message));
        create(&pod)
    };
    (0..count).map(make).collect()
}

fn count(
    set: &Loaded<ReplicaSet>,
    spec: &ReplicaSetSpec,
    active: &[Loaded<Pod>],
    now: &Time,
    plan: &mut Plan,
) -> ReplicaSetStatus {
    let labels = spec.template.as_ref().and_then(|template| template.metadata.as_ref()?.labels.clone());
    let wanted = LabelSelector { match_labels: labels, match_expressions: None };
    let (mut labelled, mut ready, mut available) = (0, 0, 0);
    for pod in active {
        let of_pod = pod.metadata.labels.clone().unwrap_or_default();
        labelled += i32::from(selector::matches(&wanted, &of_pod));
        ready += i32::from(pods::is_ready(pod));
        match availability(pod, spec.min_ready_seconds.unwrap_or(0), now) {
            Availability::Available => available += 1,
            Availability::In(wait) => plan.requeue(wait),
            Availability::NotReady => {}
        }
    }
    ReplicaSetStatus {
        replicas: i32::try_from(active.len()).unwrap_or(i32::MAX),
        fully_labeled_replicas: Some(labelled),
        ready_replicas: Some(ready),
        available_replicas: Some(available),
        observed_generation: set.metadata.generation,
        conditions: set.status.as_ref().and_then(|status| status.conditions.clone()),
        terminating_replicas: None,
    }
}

/// Whom to delete first, as Kubernetes ranks them
/// (<https://kubernetes.io/docs/concepts/workloads/controllers/replicaset/#scaling-down-a-replicaset>):
/// unassigned, pending, not ready, cheap, crowded on a node, lately ready, often restarted, young.
pub(super) fn deletion_order(pods: &mut [Loaded<Pod>], now: &Time) {
    let mut on_node: BTreeMap<String, usize> = BTreeMap::new();
    for pod in pods.iter() {
        *on_node.entry(pods::node_of(pod).unwrap_or_default().to_owned()).or_default() += 1;
    }
    pods.sort_by_cached_key(|pod| {
        let node = pods::node_of(pod);
        let started = match pods::phase(pod) {
            "Pending" => 0,
            "Unknown" => 1,
            _ => 2,
        };
        let ready = pods::is_ready(pod);
        let cost =
            pod.object.annotation(DELETION_COST).and_then(|cost| cost.parse::<i32>().ok()).unwrap_or(0);
        let crowd = on_node.get(node.unwrap_or_default()).copied().unwrap_or(0);
        let since = pods::condition(pod, "Ready").and_then(|ready| ready.last_transition_time.clone());
        let since = since.filter(|_| ready).unwrap_or_else(|| now.clone());
        let statuses = pod.status.as_ref().and_then(|status| status.container_statuses.as_deref());
        let restarts = statuses.unwrap_or_default().iter().map(|status| status.restart_count).max();
        let born = pod.metadata.creation_timestamp.clone();
        let place = (node.is_some(), started, ready, cost);
        (place, Reverse(crowd), Reverse(since), Reverse(restarts), Reverse(born), pod.key.name.clone())
    });
}

#[cfg(test)]
mod tests;
