//! The answer to `gaggle status`.

use crate::flock::FlockStatus;
use gaggle_gossip::PeerId;
use gaggle_gossip::membership::{Member, Role};
use gaggle_sched::state::{Resource, Store};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// Where the cluster stands, as this desktop sees it. Scripts may rely on these fields.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct StatusReport {
    /// Public name of the cluster, derived from its phrase.
    pub cluster: String,
    /// The Raft group; empty while none is known.
    pub group: String,
    pub epoch: u64,
    pub term: u64,
    pub revision: u64,
    /// The leader's node name; `null` while there is none.
    pub leader: Option<String>,
    /// More than half of the desktops stand behind the leader: writes are ordered and pods scheduled.
    pub quorum: bool,
    /// How many desktops stand behind the leader, or are here while there is none, of how many that belong.
    #[serde(default)]
    pub there: usize,
    #[serde(default)]
    pub roster: usize,
    pub voters: Vec<String>,
    pub nodes: Vec<NodeStatus>,
    /// What this desktop is waiting for, if anything.
    #[serde(default)]
    pub waiting: String,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct NodeStatus {
    pub name: String,
    /// The peer id.
    pub id: String,
    pub addresses: Vec<String>,
    pub ready: bool,
    /// `leader`, `voter`, `follower`, or `gone` for a node of the roster that nobody hears.
    pub role: String,
    pub revision: u64,
    #[serde(default)]
    pub problem: String,
    #[serde(default)]
    pub pods: usize,
    /// `null` where it has no battery.
    #[serde(default)]
    pub on_battery: Option<bool>,
    /// Its owner is using it; `null` where that cannot be told.
    #[serde(default)]
    pub owner_active: Option<bool>,
}

/// Everyone of this group in the roster or in gossip, by name.
pub(super) fn report(cluster: &str, flock: &FlockStatus, members: &[Member], store: &Store) -> StatusReport {
    let name = |peer: &PeerId| {
        let member = members.iter().find(|member| member.peer == *peer);
        member.and_then(|member| Some(member.node.as_ref()?.name.clone())).unwrap_or_else(|| peer.to_string())
    };
    let mut nodes: BTreeMap<String, NodeStatus> = BTreeMap::new();
    for (key, object) in store.list(&Resource::fixed("nodes"), None) {
        let id = object.annotation("gaggle.dev/peer").unwrap_or_default().to_owned();
        let addresses = object.value().pointer("/status/addresses").and_then(|all| all.as_array());
        let addresses = addresses.into_iter().flatten().filter(|address| address["type"] == "InternalIP");
        nodes.insert(
            key.name.clone(),
            NodeStatus {
                pods: store.on_node(&key.name).count(),
                name: key.name,
                id,
                addresses: addresses
                    .filter_map(|address| Some(address["address"].as_str()?.to_owned()))
                    .collect(),
                ready: false,
                role: "gone".into(),
                revision: 0,
                problem: "not heard of".into(),
                on_battery: None,
                owner_active: None,
            },
        );
    }
    for member in members {
        let Some(facts) = &member.node else { continue };
        let group = member.group.clone().unwrap_or_default();
        // A name that another desktop of the roster holds: both are shown.
        let taken = nodes
            .get(&facts.name)
            .is_some_and(|node| !node.id.is_empty() && node.id != member.peer.to_string());
        if !member.alive && (taken || !nodes.contains_key(&facts.name)) {
            continue;
        }
        let shown = if taken { format!("{} ({})", facts.name, member.peer) } else { facts.name.clone() };
        let problem = match (member.alive, group.group == flock.group || group.group.is_empty()) {
            (false, _) => "not heard of".to_owned(),
            (true, false) => format!("of another group ({})", group.group),
            (true, true) => facts.problem.clone(),
        };
        let role = match (member.alive, group.role) {
            (false, _) => "gone",
            (true, Role::Leader) => "leader",
            (true, Role::Voter) => "voter",
            (true, Role::Follower | Role::None) => "follower",
        };
        nodes.insert(
            shown.clone(),
            NodeStatus {
                pods: store.on_node(&facts.name).count(),
                name: shown,
                id: member.peer.to_string(),
                addresses: facts.addresses.iter().map(ToString::to_string).collect(),
                ready: member.alive && facts.ready && !facts.leaving && !group.group.is_empty(),
                role: role.into(),
                revision: group.revision,
                problem,
                on_battery: facts.on_battery.filter(|_| member.alive),
                owner_active: facts.owner_active.filter(|_| member.alive),
            },
        );
    }
    let mut voters: Vec<String> = flock.voters.iter().map(name).collect();
    voters.sort();
    StatusReport {
        cluster: cluster.to_owned(),
        group: flock.group.clone(),
        epoch: flock.epoch,
        term: flock.term,
        revision: store.revision().0,
        leader: flock.leader.as_ref().map(name),
        quorum: flock.quorum,
        there: flock.there,
        roster: flock.roster,
        voters,
        nodes: nodes.into_values().collect(),
        waiting: flock.why.clone(),
    }
}
