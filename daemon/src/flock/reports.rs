//! What gossip says of the members, in the scheduler's terms.

use super::returning;
use crate::api::version::{self, kubernetes_arch};
use gaggle_gossip::membership::Member;
use gaggle_sched::controller::node::NodeReport;
use std::collections::{BTreeMap, BTreeSet};

/// One report for each member that has said who it is. `held`: the peers that stand behind the leader; what runs on
/// them goes on, whatever gossip says.
pub fn node_reports(members: &[Member], group: &str, held: &BTreeSet<String>) -> Vec<NodeReport> {
    let reports = members.iter().filter_map(|member| {
        let node = member.node.as_ref()?;
        // A member of another group is not ours to schedule on, until one of the groups yields.
        member.group.as_ref().filter(|facts| facts.group == group)?;
        let peer = member.peer.to_string();
        let alive = member.alive || held.contains(&peer);
        Some(NodeReport {
            name: node.name.clone(),
            peer,
            alive,
            since: match alive {
                true => member.since.elapsed(),
                false => {
                    let alive = members.iter().filter(|other| other.alive);
                    returning::dead_for(member.since.elapsed(), alive.map(|other| other.since.elapsed()))
                }
            },
            leaving: node.leaving,
            ready: node.ready,
            problem: node.problem.clone(),
            addresses: node.addresses.iter().map(ToString::to_string).collect(),
            labels: node.labels.clone(),
            cpu_millis: node.cpu_millis,
            memory_bytes: node.memory_bytes,
            pods: node.pods,
            kernel: node.kernel.clone(),
            os_image: node.os_image.clone(),
            arch: kubernetes_arch(&node.arch).to_owned(),
            engine: if node.engine.is_empty() { String::new() } else { format!("docker://{}", node.engine) },
            version: version::of_gaggle(&node.version),
            api_port: node.api_port,
        })
    });
    reports.collect()
}

/// Which images each node, by name, says it holds.
pub fn images_by_node(members: &[Member]) -> BTreeMap<String, BTreeSet<String>> {
    let alive = members.iter().filter(|member| member.alive);
    alive
        .filter_map(|member| {
            Some((member.node.as_ref()?.name.clone(), member.images.iter().cloned().collect()))
        })
        .collect()
}
