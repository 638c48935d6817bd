//! ReplicaSets and ReplicationControllers: as many pods of one template as asked for.
//!
//! Creating pods and counting them happens in one transaction with the owner's own revision expected, so
//! that two plans made from the same state cannot both create.

use super::birth::Births;
use super::deletion::{self, Grace};
use super::loaded::{Loaded, set};
use super::owners::{self, claim};
use super::pods::{self, Availability, availability};
use super::{Controller, Note, Plan, selector};
use crate::state::{Change, Key, Resource, Store, Write, resource_of};
use k8s_openapi::Metadata;
use k8s_openapi::api::apps::v1::ReplicaSet;
use k8s_openapi::api::core::v1::{Pod, PodTemplateSpec, ReplicationController};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{LabelSelector, ObjectMeta, Time};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use std::borrow::Cow;
use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::marker::PhantomData;
use std::time::Duration;

/// Pods made or deleted per plan (Kubernetes' burst): a transaction stays small enough for one log entry, and
/// the status shows progress in between.
const BURST: usize = 500;
/// Says which pods to delete first: the cheaper ones, 0 where nothing is said
/// (<https://kubernetes.io/docs/concepts/workloads/controllers/replicaset/#pod-deletion-cost>).
pub const DELETION_COST: &str = "controller.kubernetes.io/pod-deletion-cost";
/// The condition that tells that pods cannot be made.
pub(super) const REPLICA_FAILURE: &str = "ReplicaFailure";
const PODS: Resource = Resource::fixed("pods");

/// What a kind wants that keeps a number of pods.
pub(super) struct Wanted {
    selector: LabelSelector,
    template: PodTemplateSpec,
    replicas: i32,
    min_ready_seconds: i32,
}

/// A kind that keeps a number of pods of one template.
pub(super) trait Replicated:
    k8s_openapi::Resource + Metadata<Ty = ObjectMeta> + DeserializeOwned + Send + Sync + 'static
{
    const CONTROLLER: &'static str;
    fn selector(&self) -> Option<Cow<'_, LabelSelector>>;
    fn wanted(&self) -> Option<Wanted>;
}

impl Replicated for ReplicaSet {
    const CONTROLLER: &'static str = "replicaset-controller";

    fn selector(&self) -> Option<Cow<'_, LabelSelector>> {
        Some(Cow::Borrowed(&self.spec.as_ref()?.selector))
    }

    fn wanted(&self) -> Option<Wanted> {
        let spec = self.spec.as_ref()?;
        Some(Wanted {
            selector: spec.selector.clone(),
            template: spec.template.clone().unwrap_or_default(),
            replicas: spec.replicas.unwrap_or(1),
            min_ready_seconds: spec.min_ready_seconds.unwrap_or(0),
        })
    }
}

impl Replicated for ReplicationController {
    const CONTROLLER: &'static str = "replication-controller";

    fn selector(&self) -> Option<Cow<'_, LabelSelector>> {
        let match_labels = self.spec.as_ref()?.selector.clone();
        Some(Cow::Owned(LabelSelector { match_labels, match_expressions: None }))
    }

    fn wanted(&self) -> Option<Wanted> {
        let spec = self.spec.as_ref()?;
        Some(Wanted {
            selector: self.selector()?.into_owned(),
            template: spec.template.clone().unwrap_or_default(),
            replicas: spec.replicas.unwrap_or(1),
            min_ready_seconds: spec.min_ready_seconds.unwrap_or(0),
        })
    }
}

/// The controller of one such kind.
pub(super) struct ReplicaController<O>(pub PhantomData<fn() -> O>);

impl<O: Replicated> Controller for ReplicaController<O> {
    fn name(&self) -> &'static str {
        O::CONTROLLER
    }

    fn concerned(&self, store: &Store, change: &Change) -> Vec<Key> {
        if change.key.resource == PODS {
            return owners::concerned::<O>(store, change, O::selector);
        }
        if change.key.resource == resource_of::<O>() { vec![change.key.clone()] } else { Vec::new() }
    }

    fn all(&self, store: &Store) -> Vec<Key> {
        store.list(&resource_of::<O>(), None).map(|(key, _)| key).collect()
    }

    fn reconcile(&self, store: &Store, key: &Key, now: &Time) -> Plan {
        let Some(owner) = Loaded::<O>::get(store, key) else { return Plan::default() };
        let Some(wanted) = owner.wanted() else { return Plan::default() };
        reconcile(store, &owner, &wanted, now)
    }
}

fn reconcile<O: Replicated>(store: &Store, owner: &Loaded<O>, wanted: &Wanted, now: &Time) -> Plan {
    let mut plan = Plan::default();
    let claimed = claim::<O, Pod>(store, owner, Some(&wanted.selector));
    claimed.writes.into_iter().for_each(|write| plan.write(write));
    let mut active: Vec<Loaded<Pod>> =
        claimed.dependents.into_iter().filter(|pod| pods::is_active(pod)).collect();
    let mut counts = count(owner, wanted, &active, now, &mut plan);

    let replicas = usize::try_from(wanted.replicas).unwrap_or(0);
    let mut births = Births::new(store, &owner.key, O::CONTROLLER);
    if !pods::is_going(owner) && active.len() < replicas {
        let missing = replicas - active.len();
        for ordinal in 0..missing.min(BURST) {
            let (template, base) = (&wanted.template, &owner.key.name);
            let pod = pods::from_template(store, owner, template, base, ordinal as u64, now);
            if !births.add(pod, &mut plan) {
                break;
            }
        }
        counts.replicas += births.pods();
        // Fewer were made where the namespace forbids more: asking again at once would not help.
        if births.pods() == BURST && missing > BURST {
            plan.requeue(Duration::ZERO);
        }
    } else if !pods::is_going(owner) && active.len() > replicas {
        let surplus = active.len() - replicas;
        deletion_order(&mut active, now);
        for pod in active.iter().take(surplus.min(BURST)) {
            let Some(write) = deletion::delete(&pod.key, &pod.object, Grace::AsSpecified, now) else {
                continue;
            };
            plan.write(write);
            let message = format!("Deleted pod: {}", pod.key.name);
            plan.events.push(Note::normal(&owner.key, O::CONTROLLER, "SuccessfulDelete", message));
        }
    }
    let told = owner.object.value().pointer("/status/conditions").cloned().unwrap_or_else(|| json!([]));
    let conditions = with_failure(&told, births.refused(), now);
    if counts.differ_from(owner.object.value()) || conditions != told || !births.is_empty() {
        let mut writes: Vec<Write> = vec![owner.edit(|value| {
            counts.write(value);
            if conditions != told {
                set(value, &["status", "conditions"], conditions);
            }
        })];
        writes.extend(births.into_writes());
        plan.transaction(writes);
    }
    plan
}

/// The conditions with what is wrong now: why pods cannot be made, as it was first told.
fn with_failure(told: &Value, refused: Option<&str>, now: &Time) -> Value {
    let is_failure = |one: &Value| one["type"] == REPLICA_FAILURE;
    let mut conditions = told.as_array().cloned().unwrap_or_default();
    match refused {
        None => conditions.retain(|one| !is_failure(one)),
        Some(_) if conditions.iter().any(is_failure) => {}
        Some(why) => conditions.push(json!({
            "type": REPLICA_FAILURE, "status": "True", "reason": "FailedCreate", "message": why, "lastTransitionTime": now,
        })),
    }
    Value::Array(conditions)
}

/// What the status says of the pods.
struct Counts {
    replicas: usize,
    labelled: usize,
    ready: usize,
    available: usize,
    generation: i64,
}

impl Counts {
    fn fields(&self) -> [(&'static str, Value); 5] {
        [
            ("replicas", json!(self.replicas)),
            ("fullyLabeledReplicas", json!(self.labelled)),
            ("readyReplicas", json!(self.ready)),
            ("availableReplicas", json!(self.available)),
            ("observedGeneration", json!(self.generation)),
        ]
    }

    fn differ_from(&self, object: &Value) -> bool {
        self.fields().iter().any(|(field, count)| object["status"].get(*field) != Some(count))
    }

    fn write(&self, object: &mut Value) {
        for (field, count) in self.fields() {
            set(object, &["status", field], count);
        }
    }
}

fn count<O: Replicated>(
    owner: &Loaded<O>,
    wanted: &Wanted,
    active: &[Loaded<Pod>],
    now: &Time,
    plan: &mut Plan,
) -> Counts {
    let labels = wanted.template.metadata.as_ref().and_then(|metadata| metadata.labels.clone());
    let of_template = LabelSelector { match_labels: labels, match_expressions: None };
    let generation = owner.metadata().generation.unwrap_or(0);
    let mut counts = Counts { replicas: active.len(), labelled: 0, ready: 0, available: 0, generation };
    for pod in active {
        let of_pod = pod.metadata.labels.clone().unwrap_or_default();
        counts.labelled += usize::from(selector::matches(&of_template, &of_pod));
        counts.ready += usize::from(pods::is_ready(pod));
        match availability(pod, wanted.min_ready_seconds, now) {
            Availability::Available => counts.available += 1,
            Availability::In(wait) => plan.requeue(wait),
            Availability::NotReady => {}
        }
    }
    counts
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
