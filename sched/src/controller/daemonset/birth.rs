//! A daemon's pod: bound for one node by its affinity, and patient with whatever that node suffers from
//! (<https://kubernetes.io/docs/concepts/workloads/controllers/daemonset/#taints-and-tolerations>).

use super::super::history::REVISION;
use super::super::loaded::Loaded;
use super::super::pods;
use crate::state::Store;
use k8s_openapi::api::apps::v1::DaemonSet;
use k8s_openapi::api::core::v1::{
    NodeSelector, NodeSelectorRequirement, NodeSelectorTerm, Pod, PodSpec, PodTemplateSpec, Toleration,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

/// What every daemon tolerates: taint and effect.
const TOLERATED: [(&str, &str); 6] = [
    ("node.kubernetes.io/not-ready", "NoExecute"),
    ("node.kubernetes.io/unreachable", "NoExecute"),
    ("node.kubernetes.io/disk-pressure", "NoSchedule"),
    ("node.kubernetes.io/memory-pressure", "NoSchedule"),
    ("node.kubernetes.io/pid-pressure", "NoSchedule"),
    ("node.kubernetes.io/unschedulable", "NoSchedule"),
];
/// One that uses its node's network may be what brings it up.
const NETWORK: (&str, &str) = ("node.kubernetes.io/network-unavailable", "NoSchedule");
const NODE_NAME: &str = "metadata.name";

/// The pod of one node, of the template that `hash` names.
pub(super) fn pod(
    store: &Store,
    owner: &Loaded<DaemonSet>,
    template: &PodTemplateSpec,
    hash: &str,
    node: &str,
    ordinal: u64,
    now: &Time,
) -> Pod {
    let mut pod = pods::from_template(store, owner, template, &owner.key.name, ordinal, now);
    pod.metadata.labels.get_or_insert_default().insert(REVISION.into(), hash.to_owned());
    let spec = pod.spec.get_or_insert_default();
    tolerate(spec);
    aim(spec, node);
    pod
}

/// Adds the tolerations of a daemon. One of the template for the same taint gives way: it might end.
pub(super) fn tolerate(spec: &mut PodSpec) {
    let network = (spec.host_network == Some(true)).then_some(NETWORK);
    let tolerations = spec.tolerations.get_or_insert_default();
    for (key, effect) in TOLERATED.into_iter().chain(network) {
        let same = |given: &Toleration| {
            given.key.as_deref() == Some(key)
                && given.effect.as_deref() == Some(effect)
                && given.operator.as_deref() == Some("Exists")
        };
        tolerations.retain(|given| !same(given));
        tolerations.push(Toleration {
            key: Some(key.into()),
            operator: Some("Exists".into()),
            effect: Some(effect.into()),
            ..Toleration::default()
        });
    }
}

/// Allows the pod one node only, beside what its template asks of nodes.
fn aim(spec: &mut PodSpec, node: &str) {
    let only = NodeSelectorRequirement {
        key: NODE_NAME.into(),
        operator: "In".into(),
        values: Some(vec![node.to_owned()]),
    };
    let affinity = spec.affinity.get_or_insert_default().node_affinity.get_or_insert_default();
    let required = affinity
        .required_during_scheduling_ignored_during_execution
        .get_or_insert_with(|| NodeSelector { node_selector_terms: Vec::new() });
    if required.node_selector_terms.is_empty() {
        required.node_selector_terms.push(NodeSelectorTerm::default());
    }
    for term in &mut required.node_selector_terms {
        term.match_fields = Some(vec![only.clone()]);
    }
}

/// The node that a daemon's pod is bound to or made for.
pub(super) fn target(pod: &Pod) -> Option<&str> {
    pods::node_of(pod).or_else(|| {
        let affinity = pod.spec.as_ref()?.affinity.as_ref()?.node_affinity.as_ref()?;
        let required = affinity.required_during_scheduling_ignored_during_execution.as_ref()?;
        let fields = required.node_selector_terms.first()?.match_fields.as_ref()?;
        let name = fields.iter().find(|field| field.key == NODE_NAME)?;
        name.values.as_ref()?.first().map(String::as_str)
    })
}
