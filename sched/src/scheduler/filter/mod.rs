//! Which nodes can run a pod, and, for each that cannot, why not.
//!
//! One file per concern. The words of the reasons are Kubernetes' own: people search the web for them.

mod affinity;
mod fit;
mod taints;
mod topology;

pub(super) use affinity::preference;
pub(super) use taints::{intolerable_preferences, strongest_objection};
pub(super) use topology::Topology;

use super::cluster::Machine;
use super::demand::Demand;

/// Why a node cannot run a pod.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Rejection {
    pub reasons: Vec<String>,
    /// Whether it could if other pods went away.
    pub resolvable: bool,
}

impl Rejection {
    fn fixed(reason: impl Into<String>) -> Self {
        Self { reasons: vec![reason.into()], resolvable: false }
    }

    fn resolvable(reason: impl Into<String>) -> Self {
        Self { reasons: vec![reason.into()], resolvable: true }
    }
}

/// Asks every filter, in Kubernetes' order; the first that refuses explains.
pub(super) fn check(demand: &Demand, machine: &Machine, topology: &Topology<'_>) -> Result<(), Rejection> {
    taints::cordon(demand, machine)?;
    affinity::node_name(demand, machine)?;
    taints::taints(demand, machine)?;
    readiness(machine)?;
    affinity::node_affinity(demand, machine)?;
    fit::ports(demand, machine)?;
    fit::resources(demand, machine)?;
    topology.check(machine)
}

/// Whether the pod's node name, selector and required affinity choose the node.
pub(super) fn is_chosen(demand: &Demand, machine: &Machine) -> bool {
    affinity::node_name(demand, machine).is_ok() && affinity::wants(demand, machine)
}

/// Whatever a pod tolerates, a node that does not answer cannot start it.
fn readiness(machine: &Machine) -> Result<(), Rejection> {
    if machine.ready { Ok(()) } else { Err(Rejection::fixed("node(s) were not ready")) }
}
