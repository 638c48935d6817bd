//! NodeResourcesFit and NodePorts: is there room.

use super::Rejection;
use crate::scheduler::cluster::Machine;
use crate::scheduler::demand::Demand;

pub(super) fn resources(demand: &Demand, machine: &Machine) -> Result<(), Rejection> {
    let mut rejection = Rejection { reasons: Vec::new(), resolvable: true };
    for (name, wanted) in demand.requests.iter().filter(|(_, wanted)| **wanted > 0) {
        if *wanted <= machine.free(name) {
            continue;
        }
        rejection.reasons.push(match name.as_str() {
            "pods" => "Too many pods".to_owned(),
            name => format!("Insufficient {name}"),
        });
        // Not even the empty node has that much.
        rejection.resolvable &= *wanted <= machine.offers.get(name).copied().unwrap_or(0);
    }
    if rejection.reasons.is_empty() { Ok(()) } else { Err(rejection) }
}

pub(super) fn ports(demand: &Demand, machine: &Machine) -> Result<(), Rejection> {
    if demand.conflicts_with(&machine.ports) {
        return Err(Rejection::resolvable("node(s) didn't have free ports for the requested pod ports"));
    }
    Ok(())
}
