//! What becomes of the pods of a node that cannot run them any more.
//!
//! Kubernetes gives every pod a toleration of 300 s for unreachable nodes, because in a data centre a silent
//! node mostly comes back. Here a silent desktop was mostly switched off, and gossip has already waited; so
//! nobody adds that toleration, and only a `tolerationSeconds` that the pod states itself is waited for.

use super::super::deletion::{self, Grace};
use super::super::identity::{self, HELD, IDENTITY_FREED_AFTER};
use super::super::loaded::{Loaded, set, to_json};
use super::super::owners::controller_of;
use super::super::pods::{self, DISRUPTION_TARGET, NODE_LOST};
use super::super::{Note, Plan, instant};
use super::object::{NOT_READY, UNREACHABLE};
use super::{NAME, NodeConfig};
use crate::state::{Expect, Store, Txn, Write};
use k8s_openapi::api::core::v1::{Node, Pod, PodCondition, Toleration};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use serde_json::json;
use std::time::Duration;

const TRACKING: &str = "batch.kubernetes.io/job-tracking";

/// Kinds of owners that make a lost pod again.
const REMADE: [&str; 5] = ["DaemonSet", "Job", "ReplicaSet", "ReplicationController", "StatefulSet"];

/// Why pods have to go, and how patiently.
pub(super) struct Eviction {
    taint: &'static str,
    /// How long the node has been so.
    since: Duration,
    /// For how long it has surely heard no leader: what identities wait for.
    silent_for: Duration,
    grace: Duration,
    manner: Manner,
    why: &'static str,
}

/// Whether there is anybody who could stop the pods.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Manner {
    /// The agent answers: its pods are stopped with their grace period.
    Graceful,
    /// Nobody answers: the objects are removed, and should the desktop come back, its agent finds containers
    /// that no binding explains and removes them.
    Forced,
}

impl Eviction {
    pub(super) fn dead(since: Duration, config: &NodeConfig) -> Self {
        let (why, grace) = ("its node does not answer", config.dead_grace);
        let silent_for = since.min(config.acting_for);
        Self { taint: UNREACHABLE, since, silent_for, grace, manner: Manner::Forced, why }
    }

    pub(super) fn not_ready(since: Duration, grace: Duration) -> Self {
        let why = "its node cannot run pods";
        let silent_for = Duration::ZERO;
        Self { taint: NOT_READY, since, silent_for, grace, manner: Manner::Graceful, why }
    }

    pub(super) fn leaving() -> Self {
        Self::at_once(Manner::Graceful, Duration::ZERO, "its node is leaving")
    }

    pub(super) fn gone(silent_for: Duration, config: &NodeConfig) -> Self {
        Self::at_once(Manner::Forced, silent_for.min(config.acting_for), "its node is gone")
    }

    /// The name changes hands only when what its last holder ran is free.
    pub(super) fn replaced(config: &NodeConfig) -> Self {
        Self::at_once(Manner::Forced, config.acting_for, "another desktop has taken its node's name")
    }

    /// However long a pod would tolerate it.
    fn at_once(manner: Manner, silent_for: Duration, why: &'static str) -> Self {
        Self { taint: "", since: Duration::ZERO, silent_for, grace: Duration::ZERO, manner, why }
    }

    pub(super) fn run(&self, store: &Store, node: &Loaded<Node>, now: &Time) -> Plan {
        let mut plan = Plan::default();
        for key in store.on_node(&node.key.name) {
            let Some(pod) = Loaded::<Pod>::get(store, key) else { continue };
            if pods::is_finished(&pod) && !pods::is_terminating(&pod) {
                continue;
            }
            let Some(patience) = self.patience(&pod) else { continue };
            if let Some(wait) = patience.checked_sub(self.since).filter(|wait| !wait.is_zero()) {
                plan.requeue(wait);
                continue;
            }
            if self.manner == Manner::Forced
                && identity::is_single(&pod)
                && !pods::is_finished(&pod)
                && let Some(wait) =
                    IDENTITY_FREED_AFTER.checked_sub(self.silent_for).filter(|wait| !wait.is_zero())
            {
                plan.requeue(wait);
                plan.merge(hold(&pod, &node.key.name, now));
                continue;
            }
            plan.merge(match self.manner {
                Manner::Forced => lose(&pod, "DeletionByTaintManager", self.why, now),
                Manner::Graceful => self.stop(&pod, now),
            });
        }
        plan
    }

    /// How long the pod stays; `None` for ever.
    fn patience(&self, pod: &Pod) -> Option<Duration> {
        // A pod that is being deleted anyway tolerates nothing.
        if self.taint.is_empty() || pods::is_terminating(pod) {
            return Some(self.grace);
        }
        let tolerations = pod.spec.as_ref().and_then(|spec| spec.tolerations.as_deref()).unwrap_or_default();
        let mut fitting =
            tolerations.iter().filter(|toleration| tolerates(toleration, self.taint)).peekable();
        if fitting.peek().is_none() {
            return Some(self.grace);
        }
        let seconds = fitting.filter_map(|toleration| toleration.toleration_seconds).min()?;
        Some(instant::seconds(seconds).max(self.grace))
    }

    fn stop(&self, pod: &Loaded<Pod>, now: &Time) -> Plan {
        let mut plan = Plan::default();
        if pods::is_terminating(pod) {
            return plan;
        }
        if let Some(Write::Put { key, mut value, expect, intent }) =
            deletion::delete(&pod.key, &pod.object, Grace::AsSpecified, now)
        {
            set_conditions(&mut value, pod, "DeletionByTaintManager", self.why, now);
            plan.write(Write::Put { key, value, expect, intent });
            let message = format!("Stopping pod {}: {}", pod.key.name, self.why);
            plan.events.push(Note::normal(&pod.key, NAME, "TaintManagerEviction", message));
        }
        plan
    }
}

/// Says on an identity, once, why it is not made again yet.
fn hold(pod: &Loaded<Pod>, node: &str, now: &Time) -> Plan {
    let mut plan = Plan::default();
    if pods::condition(pod, HELD).is_some() {
        return plan;
    }
    let why = format!(
        "node {node} does not answer and may still run it; it is made again elsewhere {} s after the node was last heard",
        IDENTITY_FREED_AFTER.as_secs()
    );
    let mut conditions = pod.status.as_ref().and_then(|status| status.conditions.clone()).unwrap_or_default();
    conditions.push(PodCondition {
        type_: HELD.into(),
        status: "True".into(),
        reason: Some("NodeUnreachable".into()),
        message: Some(why.clone()),
        last_transition_time: Some(now.clone()),
        ..PodCondition::default()
    });
    plan.write(pod.edit(|value| set(value, &["status", "conditions"], to_json(&conditions))));
    let message = format!("Pod {} waits: {why}", pod.key.name);
    plan.events.push(Note::warning(&pod.key, NAME, "IdentityHeld", message));
    plan
}

/// What takes the remark of [`hold`] off the pods of a desktop that came back.
pub(super) fn release_held(store: &Store, node: &str) -> impl Iterator<Item = Write> {
    let pods = store.on_node(node).filter_map(|key| Loaded::<Pod>::get(store, key));
    pods.filter(|pod| pods::condition(pod, HELD).is_some()).map(|pod| {
        let conditions = pod.status.iter().flat_map(|status| status.conditions.iter().flatten());
        let rest: Vec<&PodCondition> = conditions.filter(|condition| condition.type_ != HELD).collect();
        pod.edit(|value| set(value, &["status", "conditions"], to_json(&rest)))
    })
}

/// Gives a pod up whose node cannot answer. Its controller makes another one at once; without a controller it
/// stays, Failed, so that its user learns what became of it.
pub(super) fn lose(pod: &Loaded<Pod>, reason: &str, why: &str, now: &Time) -> Plan {
    let mut plan = Plan::default();
    let expect = Expect::Uid(pod.object.uid().to_owned());
    let removal = Write::Delete { key: pod.key.clone(), expect, intent: None };
    // What a Job holds a pod for is counting, and a lost pod is not counted. Any other holder is waited for.
    let held = deletion::finalizers(&pod.object).any(|name| name != TRACKING);
    if pods::is_finished(pod) {
        let counted = deletion::finalizers(&pod.object).next().is_none();
        if pods::is_terminating(pod) && counted {
            plan.write(removal);
        }
        return plan;
    }
    let remade = controller_of(&pod.metadata).is_some_and(|owner| REMADE.contains(&owner.kind.as_str()));
    let goes = remade || pods::is_terminating(pod);
    let mark = pod.edit(|value| {
        set_conditions(value, pod, reason, why, now);
        set(value, &["status", "phase"], json!("Failed"));
        set(value, &["status", "reason"], json!(NODE_LOST));
        set(value, &["status", "message"], json!(format!("The pod is lost: {why}")));
        if goes && !pods::is_terminating(pod) {
            set(value, &["metadata", "deletionTimestamp"], to_json(now));
            set(value, &["metadata", "deletionGracePeriodSeconds"], json!(0));
        }
    });
    let mut writes = vec![mark];
    if goes && !held {
        // Both in one: whoever watches sees why the pod goes, and its replacement starts at once.
        writes.push(removal);
    }
    plan.writes.push(Txn::from(writes));
    let message = format!("Pod {} is lost: {why}", pod.key.name);
    plan.events.push(Note::warning(&pod.key, NAME, NODE_LOST, message));
    plan
}

/// DisruptionTarget True, Ready False.
fn set_conditions(value: &mut serde_json::Value, pod: &Pod, reason: &str, why: &str, now: &Time) {
    let status = pod.status.as_ref();
    let mut conditions = status.and_then(|status| status.conditions.clone()).unwrap_or_default();
    conditions.retain(|condition| condition.type_ != DISRUPTION_TARGET);
    for condition in &mut conditions {
        if matches!(condition.type_.as_str(), "Ready" | "ContainersReady") && condition.status == "True" {
            condition.status = "False".into();
            condition.reason = Some(reason.to_owned());
            condition.last_transition_time = Some(now.clone());
        }
    }
    conditions.push(PodCondition {
        type_: DISRUPTION_TARGET.into(),
        status: "True".into(),
        reason: Some(reason.to_owned()),
        message: Some(why.to_owned()),
        last_transition_time: Some(now.clone()),
        ..PodCondition::default()
    });
    set(value, &["status", "conditions"], to_json(&conditions));
}

fn tolerates(toleration: &Toleration, taint: &str) -> bool {
    let effect = toleration.effect.as_deref().is_none_or(|effect| effect.is_empty() || effect == "NoExecute");
    let key = toleration.key.as_deref().unwrap_or_default();
    let exists = toleration.operator.as_deref() == Some("Exists");
    // These taints have no value, so `Equal` fits only with none.
    let value = exists || toleration.value.as_deref().is_none_or(str::is_empty);
    effect && value && (key == taint || (key.is_empty() && exists))
}
