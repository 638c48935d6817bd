//! PodDisruptionBudgets: how many of the pods that somebody relies on may be taken away now.
//!
//! An eviction takes one off `status.disruptionsAllowed` in the transaction that marks the pod, which expects the
//! budget's revision; this counts anew whenever pods or their number change.

mod evict;
mod expected;

pub use evict::{Blocked, evict};

use super::bounds::{Rounding, resolve};
use super::loaded::{Loaded, set, to_json};
use super::pods;
use super::selector::{self, Labels};
use super::{Controller, Plan};
use crate::state::{Change, Key, Object, Resource, Store, resource_of};
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::api::policy::v1::{PodDisruptionBudget, PodDisruptionBudgetStatus};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use serde_json::Value;

const NAME: &str = "disruption-controller";
const PODS: Resource = Resource::fixed("pods");
const ALLOWED: &str = "DisruptionAllowed";
/// Kinds that say how many pods there should be.
const SCALED: [&str; 4] =
    ["deployments.apps", "replicasets.apps", "replicationcontrollers", "statefulsets.apps"];

pub struct DisruptionController;

impl Controller for DisruptionController {
    fn name(&self) -> &'static str {
        NAME
    }

    fn concerned(&self, store: &Store, change: &Change) -> Vec<Key> {
        if change.key.resource == resource_of::<PodDisruptionBudget>() {
            return vec![change.key.clone()];
        }
        let states = [change.object.as_deref(), change.previous.as_deref()];
        if change.key.resource == PODS {
            if !is_another(change.previous.as_deref(), change.object.as_deref()) {
                return Vec::new();
            }
            let pods: Vec<_> = states.into_iter().flatten().filter_map(Object::typed::<Pod>).collect();
            let budgets = all_of(store, &change.key.namespace).into_iter();
            return budgets
                .filter(|budget| pods.iter().any(|pod| covers(budget, pod)))
                .map(|budget| budget.key)
                .collect();
        }
        let replicas =
            |object: Option<&Object>| object.and_then(|it| it.value().pointer("/spec/replicas")).cloned();
        let [after, before]: [Option<Value>; 2] = states.map(replicas);
        if !SCALED.contains(&change.key.resource.as_str()) || before == after {
            return Vec::new();
        }
        all_of(store, &change.key.namespace).into_iter().map(|budget| budget.key).collect()
    }

    fn all(&self, store: &Store) -> Vec<Key> {
        store.list(&resource_of::<PodDisruptionBudget>(), None).map(|(key, _)| key).collect()
    }

    fn reconcile(&self, store: &Store, key: &Key, now: &Time) -> Plan {
        let mut plan = Plan::default();
        let Some(budget) = Loaded::<PodDisruptionBudget>::get(store, key) else { return plan };
        if pods::is_going(&budget) {
            return plan;
        }
        let status = count(store, &budget, now);
        if budget.status.as_ref() != Some(&status) {
            plan.write(budget.edit(|value| set(value, &["status"], to_json(&status))));
        }
        plan
    }
}

/// Whether a pod changed in anything that a budget counts: most of its changes are news of its containers.
fn is_another(before: Option<&Object>, after: Option<&Object>) -> bool {
    const COUNTED: [&str; 4] =
        ["/metadata/labels", "/metadata/ownerReferences", "/metadata/deletionTimestamp", "/status/phase"];
    let (Some(before), Some(after)) = (before, after) else { return true };
    let readiness = |object: &Object| {
        let conditions = object.value().pointer("/status/conditions").and_then(Value::as_array);
        let mut conditions = conditions.into_iter().flatten();
        conditions.any(|one| one["type"] == "Ready" && one["status"] == "True")
    };
    COUNTED.iter().any(|field| before.value().pointer(field) != after.value().pointer(field))
        || readiness(before) != readiness(after)
}

fn all_of(store: &Store, namespace: &str) -> Vec<Loaded<PodDisruptionBudget>> {
    let budgets = store.list(&resource_of::<PodDisruptionBudget>(), Some(namespace));
    budgets.filter_map(|(key, object)| Loaded::from_object(key, object)).collect()
}

/// Whether a budget is for the pod. One without a selector is for none, one with an empty selector for all.
fn covers(budget: &PodDisruptionBudget, pod: &Pod) -> bool {
    let wanted = budget.spec.as_ref().and_then(|spec| spec.selector.as_ref());
    let none = Labels::new();
    let labels = pod.metadata.labels.as_ref().unwrap_or(&none);
    wanted.is_some_and(|wanted| selector::matches(wanted, labels))
}

fn count(store: &Store, budget: &Loaded<PodDisruptionBudget>, now: &Time) -> PodDisruptionBudgetStatus {
    let all = store.list(&PODS, Some(&budget.key.namespace));
    let covered: Vec<Loaded<Pod>> = all
        .filter_map(|(key, object)| Loaded::<Pod>::from_object(key, object))
        .filter(|pod| covers(budget, pod) && !pods::is_finished(pod))
        .collect();
    let spec = budget.spec.clone().unwrap_or_default();
    let (expected, desired) = match (&spec.max_unavailable, &spec.min_available) {
        (Some(most), _) => {
            let expected = expected::of(store, &covered);
            (expected, expected - resolve(most, expected, Rounding::Up))
        }
        (None, Some(share @ IntOrString::String(_))) => {
            let expected = expected::of(store, &covered);
            (expected, resolve(share, expected, Rounding::Up))
        }
        (None, Some(IntOrString::Int(least))) => (len(covered.len()), *least),
        // A budget that bounds nothing allows nothing, as in Kubernetes.
        (None, None) => (0, 0),
    };
    let healthy = covered.iter().filter(|pod| !pods::is_terminating(pod) && pods::is_ready(pod)).count();
    let (healthy, desired) = (len(healthy), desired.max(0));
    let allowed = if expected > 0 { (healthy - desired).max(0) } else { 0 };
    PodDisruptionBudgetStatus {
        conditions: Some(vec![condition(budget, allowed, now)]),
        current_healthy: healthy,
        desired_healthy: desired,
        disrupted_pods: None,
        disruptions_allowed: allowed,
        expected_pods: expected,
        observed_generation: budget.metadata.generation,
    }
}

fn len(count: usize) -> i32 {
    i32::try_from(count).unwrap_or(i32::MAX)
}

fn condition(budget: &Loaded<PodDisruptionBudget>, allowed: i32, now: &Time) -> Condition {
    let (status, reason) =
        if allowed > 0 { ("True", "SufficientPods") } else { ("False", "InsufficientPods") };
    let before = budget.status.as_ref().and_then(|status| status.conditions.as_ref());
    let before = before.and_then(|all| all.iter().find(|one| one.type_ == ALLOWED && one.status == status));
    Condition {
        type_: ALLOWED.into(),
        status: status.into(),
        reason: reason.into(),
        message: String::new(),
        last_transition_time: before
            .map_or_else(|| now.clone(), |before| before.last_transition_time.clone()),
        observed_generation: budget.metadata.generation,
    }
}

#[cfg(test)]
mod tests;
