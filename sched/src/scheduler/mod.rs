//! Which node runs which pod: filter, score, bind, explain.
//!
//! Pure, over an index of numbers that is built from the store at each call. It knows nothing of who dies or
//! why a node is not ready, only what Node objects say.

mod cluster;
mod demand;
mod explain;
mod filter;
pub mod hosting;
pub mod quantity;
mod score;

use crate::controller::loaded::{Loaded, set, to_json};
use crate::controller::{Note, Plan, pods};
use crate::state::{Resource, Store};
use cluster::Cluster;
use demand::Demand;
use filter::Topology;
use k8s_openapi::api::core::v1::{Pod, PodCondition};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use serde_json::{Value, json};
use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

const NAME: &str = "default-scheduler";
const PODS: Resource = Resource::fixed("pods");
const SCHEDULED: &str = "PodScheduled";
/// The group whose leader bound the pod.
pub const GROUP: &str = "gaggle.dev/group";
/// Epoch and term of that leader, `epoch.term`: agents obey only the newest that they have seen.
pub const ATTEMPT: &str = "gaggle.dev/attempt";
/// Writes per call: the rest is looked at again at once, with these committed.
const WRITE_LIMIT: usize = 1000;

/// Who binds: marked on every binding, so that an old leader's cannot win over a newer one's.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fencing {
    pub group: String,
    pub epoch: u64,
    pub term: u64,
}

/// Binds every pending pod that fits somewhere, the most important and then the oldest first, each seeing where
/// the earlier ones went; says of the others why they do not fit. `images` are the images that each node has.
pub fn schedule(
    store: &Store,
    images: &BTreeMap<String, BTreeSet<String>>,
    fencing: &Fencing,
    now: &Time,
) -> Plan {
    let mut plan = Plan::default();
    let mut cluster = Cluster::new(store, images);
    let mut pending = Vec::new();
    for (key, object) in store.list(&PODS, None) {
        let Some(pod) = Loaded::<Pod>::from_object(key, object).filter(|pod| is_ours(pod)) else { continue };
        if pods::node_of(&pod).is_some() {
            // Bound by its manifest: marked, so that agents can tell whether it is still meant.
            if pod.object.annotation(ATTEMPT).is_none() {
                plan.writes.push(pod.edit(|value| bind(value, &pod, None, fencing, now)).into());
            }
        } else {
            pending.push(pod);
        }
    }
    pending.sort_by_cached_key(|pod| {
        let priority = pod.spec.as_ref().and_then(|spec| spec.priority).unwrap_or(0);
        (Reverse(priority), pod.metadata.creation_timestamp.clone(), pod.key.clone())
    });
    for pod in &pending {
        if plan.writes.len() >= WRITE_LIMIT {
            plan.requeue(Duration::ZERO);
            break;
        }
        place(&mut cluster, pod, fencing, now, &mut plan);
    }
    plan
}

/// Pods that are to run and that no other scheduler was asked for.
fn is_ours(pod: &Pod) -> bool {
    let scheduler = pod.spec.as_ref().and_then(|spec| spec.scheduler_name.as_deref());
    pods::is_active(pod) && scheduler.is_none_or(|scheduler| scheduler.is_empty() || scheduler == NAME)
}

fn place(cluster: &mut Cluster, pod: &Loaded<Pod>, fencing: &Fencing, now: &Time, plan: &mut Plan) {
    let gates = pod.spec.as_ref().and_then(|spec| spec.scheduling_gates.as_deref()).unwrap_or_default();
    if !gates.is_empty() {
        let message = "Scheduling is blocked due to non-empty scheduling gates";
        refuse(pod, "SchedulingGated", message, now, plan);
        return;
    }
    let Some(typed) = pod.object.typed::<Pod>() else { return };
    let demand = Arc::new(Demand::new(pod.key.clone(), typed));
    let topology = Topology::new(&demand, cluster);
    let (mut candidates, mut rejections) = (Vec::new(), Vec::new());
    for (index, machine) in cluster.machines.iter().enumerate() {
        match filter::check(&demand, machine, &topology) {
            Ok(()) => candidates.push(index),
            Err(rejection) => rejections.push(rejection),
        }
    }
    match score::best(&demand, &cluster.machines, &candidates) {
        Some(best) => {
            let node = cluster.machines[best].name.clone();
            cluster.machines[best].place(demand.clone());
            plan.writes.push(pod.edit(|value| bind(value, pod, Some(&node), fencing, now)).into());
            let message = format!("Successfully assigned {}/{} to {node}", pod.key.namespace, pod.key.name);
            plan.events.push(Note::normal(&pod.key, NAME, "Scheduled", message));
        }
        None => {
            let message = explain::explain(&rejections);
            if refuse(pod, "Unschedulable", &message, now, plan) {
                plan.events.push(Note::warning(&pod.key, NAME, "FailedScheduling", message));
            }
        }
    }
}

fn bind(value: &mut Value, pod: &Loaded<Pod>, node: Option<&str>, fencing: &Fencing, now: &Time) {
    if let Some(node) = node {
        set(value, &["spec", "nodeName"], json!(node));
    }
    set(value, &["metadata", "annotations", GROUP], json!(fencing.group));
    let attempt = format!("{}.{}", fencing.epoch, fencing.term);
    set(value, &["metadata", "annotations", ATTEMPT], json!(attempt));
    put_condition(value, pod, "True", None, now);
}

/// Says on the pod why it has no node; `false` if it says so already.
fn refuse(pod: &Loaded<Pod>, reason: &str, message: &str, now: &Time, plan: &mut Plan) -> bool {
    let before = pods::condition(pod, SCHEDULED);
    let same = before.is_some_and(|before| {
        before.status == "False"
            && before.reason.as_deref() == Some(reason)
            && before.message.as_deref() == Some(message)
    });
    if !same {
        let edit = |value: &mut Value| put_condition(value, pod, "False", Some((reason, message)), now);
        plan.writes.push(pod.edit(edit).into());
    }
    !same
}

fn put_condition(value: &mut Value, pod: &Pod, status: &str, why: Option<(&str, &str)>, now: &Time) {
    let mut conditions = pod.status.as_ref().and_then(|status| status.conditions.clone()).unwrap_or_default();
    let old = conditions.iter().position(|condition| condition.type_ == SCHEDULED);
    let old = old.map(|index| conditions.remove(index));
    let since = old.filter(|old| old.status == status).and_then(|old| old.last_transition_time);
    conditions.push(PodCondition {
        type_: SCHEDULED.into(),
        status: status.into(),
        reason: why.map(|(reason, _)| reason.to_owned()),
        message: why.map(|(_, message)| message.to_owned()),
        last_transition_time: Some(since.unwrap_or_else(|| now.clone())),
        ..PodCondition::default()
    });
    set(value, &["status", "conditions"], to_json(&conditions));
}

#[cfg(test)]
mod tests;
