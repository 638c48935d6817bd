//! NodeName, nodeSelector and node affinity: does the pod want the node
//! (<https://kubernetes.io/docs/concepts/scheduling-eviction/assign-pod-node/>).

use super::Rejection;
use crate::scheduler::cluster::Machine;
use crate::scheduler::demand::Demand;
use k8s_openapi::api::core::v1::{NodeAffinity, NodeSelectorRequirement, NodeSelectorTerm};

pub(super) fn node_name(demand: &Demand, machine: &Machine) -> Result<(), Rejection> {
    let wanted = demand.spec().and_then(|spec| spec.node_name.as_deref()).filter(|name| !name.is_empty());
    if wanted.is_some_and(|wanted| wanted != machine.name) {
        return Err(Rejection::fixed("node(s) didn't match the requested node name"));
    }
    Ok(())
}

pub(in crate::scheduler) fn node_affinity(demand: &Demand, machine: &Machine) -> Result<(), Rejection> {
    if wants(demand, machine) {
        return Ok(());
    }
    Err(Rejection::fixed("node(s) didn't match Pod's node affinity/selector"))
}

/// Whether nodeSelector and the required node affinity allow the node.
pub(super) fn wants(demand: &Demand, machine: &Machine) -> bool {
    let Some(spec) = demand.spec() else { return true };
    let selector = spec.node_selector.iter().flatten();
    if !selector.into_iter().all(|(name, value)| machine.labels.get(name) == Some(value)) {
        return false;
    }
    let required = affinity(demand)
        .and_then(|affinity| affinity.required_during_scheduling_ignored_during_execution.as_ref());
    required.is_none_or(|selector| selector.node_selector_terms.iter().any(|term| fits(term, machine)))
}

/// The weights of the preferred terms that the node fulfils.
pub(in crate::scheduler) fn preference(demand: &Demand, machine: &Machine) -> i64 {
    let preferred = affinity(demand)
        .and_then(|affinity| affinity.preferred_during_scheduling_ignored_during_execution.as_ref());
    let fitting = preferred.into_iter().flatten().filter(|term| fits(&term.preference, machine));
    fitting.map(|term| i64::from(term.weight)).sum()
}

fn affinity(demand: &Demand) -> Option<&NodeAffinity> {
    demand.spec()?.affinity.as_ref()?.node_affinity.as_ref()
}

/// All requirements of a term; an empty term fits nothing.
fn fits(term: &NodeSelectorTerm, machine: &Machine) -> bool {
    let expressions = term.match_expressions.as_deref().unwrap_or_default();
    let fields = term.match_fields.as_deref().unwrap_or_default();
    let label = |name: &str| machine.labels.get(name).map(String::as_str);
    let field = |name: &str| (name == "metadata.name").then_some(machine.name.as_str());
    !(expressions.is_empty() && fields.is_empty())
        && expressions.iter().all(|requirement| fulfilled(requirement, label(&requirement.key)))
        && fields.iter().all(|requirement| fulfilled(requirement, field(&requirement.key)))
}

fn fulfilled(requirement: &NodeSelectorRequirement, found: Option<&str>) -> bool {
    let values = requirement.values.as_deref().unwrap_or_default();
    let listed = found.is_some_and(|found| values.iter().any(|value| value == found));
    let numbers = || Some((found?.parse::<i64>().ok()?, values.first()?.parse::<i64>().ok()?));
    match requirement.operator.as_str() {
        "In" => listed,
        "NotIn" => !listed,
        "Exists" => found.is_some(),
        "DoesNotExist" => found.is_none(),
        "Gt" => numbers().is_some_and(|(found, bound)| found > bound),
        "Lt" => numbers().is_some_and(|(found, bound)| found < bound),
        _ => false,
    }
}
