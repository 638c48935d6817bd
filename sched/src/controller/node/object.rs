//! The Node object of a report: labels, taints, capacity, addresses, conditions.

use super::super::instant::elapsed;
use super::super::loaded::{Loaded, set, to_json, unset};
use super::super::names::Origin;
use super::{NodeReport, PEER};
use crate::state::Store;
use k8s_openapi::api::core::v1::{Node, NodeCondition, NodeSpec, NodeStatus, Taint};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, Time};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::Duration;

pub(super) const NOT_READY: &str = "node.kubernetes.io/not-ready";
pub(super) const UNREACHABLE: &str = "node.kubernetes.io/unreachable";
const UNSCHEDULABLE: &str = "node.kubernetes.io/unschedulable";
/// The labels that the desktop reported last, to tell them from those that users gave.
const REPORTED_LABELS: &str = "gaggle.dev/reported-labels";
/// Labels and addresses taken from one report, and the bytes of each text: what a peer says is bounded.
const LABEL_LIMIT: usize = 64;
const ADDRESS_LIMIT: usize = 32;
const TEXT_LIMIT: usize = 512;
/// Bytes of a label's name and value in Kubernetes.
const LABEL_NAME_LIMIT: usize = 317;
const LABEL_VALUE_LIMIT: usize = 63;

pub(super) fn new_node(store: &Store, report: &NodeReport, now: &Time) -> Node {
    let revision = store.revision();
    let origin = Origin { owner_uid: &report.peer, purpose: "node", ordinal: 0, revision };
    let node = Node {
        metadata: ObjectMeta {
            name: Some(report.name.clone()),
            uid: Some(origin.uid()),
            creation_timestamp: Some(now.clone()),
            ..ObjectMeta::default()
        },
        spec: Some(NodeSpec::default()),
        status: Some(NodeStatus::default()),
    };
    let mut value = to_json(&node);
    apply(&mut value, &node, report, now);
    serde_json::from_value(value).unwrap_or(node)
}

/// The Node as it should be. What users set (labels, taints, cordon) stays.
pub(super) fn updated(node: &Loaded<Node>, report: &NodeReport, now: &Time) -> Value {
    let mut value = node.object.value().clone();
    if report.alive {
        apply(&mut value, node, report, now);
    } else {
        apply_health(&mut value, node, &Health::Unreachable, now);
    }
    value
}

/// The Node of a desktop of which membership knows nothing.
pub(super) fn unreachable(node: &Loaded<Node>, now: &Time) -> Value {
    let mut value = node.object.value().clone();
    apply_health(&mut value, node, &Health::Unreachable, now);
    value
}

pub(super) fn is_ready(node: &Node) -> bool {
    ready_condition(node).is_some_and(|ready| ready.status == "True")
}

/// How long the Node has not been ready; nothing if it is.
pub(super) fn not_ready_for(node: &Node, now: &Time) -> Duration {
    let since = ready_condition(node).filter(|ready| ready.status != "True");
    since.and_then(|ready| ready.last_transition_time.as_ref()).map_or(Duration::ZERO, |at| elapsed(now, at))
}

fn ready_condition(node: &Node) -> Option<&NodeCondition> {
    node.status.as_ref()?.conditions.iter().flatten().find(|condition| condition.type_ == "Ready")
}

fn apply(value: &mut Value, node: &Node, report: &NodeReport, now: &Time) {
    apply_labels(value, node, report);
    set(value, &["metadata", "annotations", PEER], json!(report.peer));
    let amounts = json!({
        "cpu": cpu(report.cpu_millis),
        "memory": memory(report.memory_bytes),
        "pods": report.pods.to_string(),
    });
    // Extended resources that somebody put there stay.
    for (name, amount) in amounts.as_object().into_iter().flatten() {
        set(value, &["status", "capacity", name], amount.clone());
        set(value, &["status", "allocatable", name], amount.clone());
    }
    let addresses = report.addresses.iter().filter(|text| text.parse::<IpAddr>().is_ok()).take(ADDRESS_LIMIT);
    let mut addresses: Vec<Value> =
        addresses.map(|address| json!({"type": "InternalIP", "address": address})).collect();
    addresses.push(json!({"type": "Hostname", "address": report.name}));
    set(value, &["status", "addresses"], json!(addresses));
    let info = json!({
        "machineID": clip(&report.peer),
        "systemUUID": clip(&report.peer),
        "bootID": "",
        "kernelVersion": clip(&report.kernel),
        "osImage": clip(&report.os_image),
        "containerRuntimeVersion": clip(&report.engine),
        "kubeletVersion": clip(&report.version),
        "kubeProxyVersion": "",
        "operatingSystem": "linux",
        "architecture": clip(&report.arch),
    });
    set(value, &["status", "nodeInfo"], info);
    set(value, &["status", "daemonEndpoints"], json!({"kubeletEndpoint": {"Port": report.api_port}}));
    let health = match report {
        NodeReport { leaving: true, .. } => {
            Health::NotReady("NodeLeaving", "the desktop is leaving the cluster")
        }
        NodeReport { ready: true, .. } => Health::Ready,
        _ if report.problem.is_empty() => Health::NotReady("KubeletNotReady", "the agent is not ready"),
        _ => Health::NotReady("KubeletNotReady", clip(&report.problem)),
    };
    apply_health(value, node, &health, now);
}

fn apply_labels(value: &mut Value, node: &Node, report: &NodeReport) {
    let valid = |(name, text): &(&String, &String)| {
        !name.is_empty() && name.len() <= LABEL_NAME_LIMIT && text.len() <= LABEL_VALUE_LIMIT
    };
    let given = report.labels.iter().filter(valid).take(LABEL_LIMIT);
    let mut labels: BTreeMap<String, String> =
        given.map(|(name, text)| (name.clone(), text.clone())).collect();
    labels.insert("kubernetes.io/hostname".into(), report.name.clone());
    labels.insert("kubernetes.io/os".into(), "linux".into());
    labels.insert("kubernetes.io/arch".into(), clip(&report.arch).into());
    let before: BTreeMap<String, String> = node
        .metadata
        .annotations
        .as_ref()
        .and_then(|annotations| serde_json::from_str(annotations.get(REPORTED_LABELS)?).ok())
        .unwrap_or_default();
    // Only what the desktop says anew is applied: a user's change of the same label outlives the next report.
    for name in before.keys().filter(|name| !labels.contains_key(*name)) {
        unset(value, &["metadata", "labels", name]);
    }
    for (name, text) in labels.iter().filter(|(name, text)| before.get(*name) != Some(text)) {
        set(value, &["metadata", "labels", name], json!(text));
    }
    set(value, &["metadata", "annotations", REPORTED_LABELS], json!(json!(labels).to_string()));
}

enum Health<'a> {
    Ready,
    NotReady(&'static str, &'a str),
    Unreachable,
}

fn apply_health(value: &mut Value, node: &Node, health: &Health<'_>, now: &Time) {
    let silent = "the desktop does not answer";
    let (status, reason, message) = match health {
        Health::Ready => ("True", "KubeletReady", "the agent is ready"),
        Health::NotReady(reason, problem) => ("False", *reason, *problem),
        Health::Unreachable => ("Unknown", "NodeStatusUnknown", silent),
    };
    let pressure = |type_: &'static str, enough: &'static str| match health {
        Health::Unreachable => (type_, "Unknown", "NodeStatusUnknown", silent),
        _ => (type_, "False", enough, "the desktop has enough"),
    };
    let wanted = [
        pressure("MemoryPressure", "KubeletHasSufficientMemory"),
        pressure("DiskPressure", "KubeletHasNoDiskPressure"),
        pressure("PIDPressure", "KubeletHasSufficientPID"),
        ("Ready", status, reason, message),
    ];
    let old = node.status.as_ref().and_then(|status| status.conditions.clone()).unwrap_or_default();
    let types = wanted.map(|(type_, ..)| type_);
    let mut conditions: Vec<NodeCondition> = wanted
        .into_iter()
        .map(|wanted| condition(wanted, old.iter().find(|old| old.type_ == wanted.0), now))
        .collect();
    conditions.extend(old.into_iter().filter(|old| !types.contains(&old.type_.as_str())));
    set(value, &["status", "conditions"], to_json(&conditions));
    apply_taints(value, node, health, now);
}

/// A condition keeps its times while it says the same: heartbeats do not belong into the log.
fn condition(
    (type_, status, reason, message): (&str, &str, &str, &str),
    old: Option<&NodeCondition>,
    now: &Time,
) -> NodeCondition {
    let same = |old: &&NodeCondition| {
        old.status == status
            && old.reason.as_deref() == Some(reason)
            && old.message.as_deref() == Some(message)
    };
    if let Some(old) = old.filter(same) {
        return old.clone();
    }
    let since = old.filter(|old| old.status == status).and_then(|old| old.last_transition_time.clone());
    NodeCondition {
        type_: type_.into(),
        status: status.into(),
        reason: Some(reason.into()),
        message: Some(message.into()),
        last_heartbeat_time: Some(now.clone()),
        last_transition_time: Some(since.unwrap_or_else(|| now.clone())),
    }
}

fn apply_taints(value: &mut Value, node: &Node, health: &Health<'_>, now: &Time) {
    let spec = node.spec.as_ref();
    let old = spec.and_then(|spec| spec.taints.clone()).unwrap_or_default();
    let mut wanted: Vec<(&str, &str)> = match health {
        Health::Ready => Vec::new(),
        Health::NotReady(..) => vec![(NOT_READY, "NoSchedule"), (NOT_READY, "NoExecute")],
        Health::Unreachable => vec![(UNREACHABLE, "NoSchedule"), (UNREACHABLE, "NoExecute")],
    };
    if spec.and_then(|spec| spec.unschedulable) == Some(true) {
        wanted.push((UNSCHEDULABLE, "NoSchedule"));
    }
    let managed = |taint: &Taint| [NOT_READY, UNREACHABLE, UNSCHEDULABLE].contains(&taint.key.as_str());
    let mut taints: Vec<Taint> = old.iter().filter(|taint| !managed(taint)).cloned().collect();
    for (key, effect) in wanted {
        let there = old.iter().find(|taint| taint.key == key && taint.effect == effect);
        taints.push(there.cloned().unwrap_or_else(|| Taint {
            key: key.into(),
            effect: effect.into(),
            value: None,
            time_added: Some(now.clone()),
        }));
    }
    if taints.is_empty() {
        unset(value, &["spec", "taints"]);
    } else if taints != old {
        set(value, &["spec", "taints"], to_json(&taints));
    }
}

/// Whole cores where they are whole.
fn cpu(millis: u64) -> String {
    if millis.is_multiple_of(1000) { (millis / 1000).to_string() } else { format!("{millis}m") }
}

/// In KiB, as Kubernetes' agents report it.
fn memory(bytes: u64) -> String {
    if bytes.is_multiple_of(1024) { format!("{}Ki", bytes / 1024) } else { bytes.to_string() }
}

fn clip(text: &str) -> &str {
    let mut end = text.len().min(TEXT_LIMIT);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    &text[..end]
}
