//! NodeUnschedulable and TaintToleration: does the node want the pod
//! (<https://kubernetes.io/docs/concepts/scheduling-eviction/taint-and-toleration/>).

use super::Rejection;
use crate::scheduler::cluster::Machine;
use crate::scheduler::demand::Demand;
use k8s_openapi::api::core::v1::{Taint, Toleration};

pub(super) fn cordon(demand: &Demand, machine: &Machine) -> Result<(), Rejection> {
    let taint = Taint {
        key: "node.kubernetes.io/unschedulable".into(),
        effect: "NoSchedule".into(),
        ..Taint::default()
    };
    if machine.cordoned && !is_tolerated(demand, &taint) {
        return Err(Rejection::fixed("node(s) were unschedulable"));
    }
    Ok(())
}

pub(super) fn taints(demand: &Demand, machine: &Machine) -> Result<(), Rejection> {
    let mut binding = machine.taints.iter().filter(|taint| taint.effect != "PreferNoSchedule");
    match binding.find(|taint| !is_tolerated(demand, taint)) {
        None => Ok(()),
        Some(taint) => {
            let value = taint.value.as_deref().unwrap_or_default();
            Err(Rejection::fixed(format!("node(s) had untolerated taint {{{}: {value}}}", taint.key)))
        }
    }
}

/// The effect of the taint that speaks most strongly against the pod, if any does: `NoExecute` or `NoSchedule`.
pub(in crate::scheduler) fn strongest_objection<'a>(
    demand: &Demand,
    machine: &'a Machine,
) -> Option<&'a str> {
    let hard = machine.taints.iter().filter(|taint| taint.effect != "PreferNoSchedule");
    // "NoExecute" is the lesser word of the two.
    hard.filter(|taint| !is_tolerated(demand, taint)).map(|taint| taint.effect.as_str()).min()
}

/// How many `PreferNoSchedule` taints speak against the node.
pub(in crate::scheduler) fn intolerable_preferences(demand: &Demand, machine: &Machine) -> usize {
    let soft = machine.taints.iter().filter(|taint| taint.effect == "PreferNoSchedule");
    soft.filter(|taint| !is_tolerated(demand, taint)).count()
}

fn is_tolerated(demand: &Demand, taint: &Taint) -> bool {
    let tolerations = demand.spec().and_then(|spec| spec.tolerations.as_deref()).unwrap_or_default();
    tolerations.iter().any(|toleration| tolerates(toleration, taint))
}

fn tolerates(toleration: &Toleration, taint: &Taint) -> bool {
    let set = |text: &Option<String>| text.clone().filter(|text| !text.is_empty());
    let effect = set(&toleration.effect).is_none_or(|effect| effect == taint.effect);
    let key = set(&toleration.key).is_none_or(|key| key == taint.key);
    let value = match toleration.operator.as_deref().unwrap_or("Equal") {
        "Exists" => true,
        // Without a key only `Exists` makes sense: it tolerates everything.
        "Equal" | "" => set(&toleration.key).is_some() && set(&toleration.value) == set(&taint.value),
        _ => false,
    };
    effect && key && value
}
