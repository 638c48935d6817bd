//! How chitchat is set up, and how its state is read.
//!
//! The failure detector and the exchange of keys are chitchat's; nothing here runs by itself.

use std::collections::HashSet;
use std::time::Duration;

use chitchat::{
    Chitchat, ChitchatConfig, ChitchatHandle, ChitchatId, FailureDetectorConfig, NodeState, spawn_chitchat,
};

use super::facts::{ADDRESSES, GROUP, IMAGES, NODE};
use super::link::Net;
use super::roll::{Sighting, Value};
use super::{MembershipConfig, place};
use crate::transport::Transport;

/// Guards against another program's gossip; members of other clusters never get this far.
const CLUSTER: &str = "gaggle/1";
/// Intervals between heartbeats that a detector remembers: some minutes.
const WINDOW: usize = 1000;
/// How long a deleted key is remembered. No key is ever deleted here.
const TOMBSTONES: Duration = Duration::from_secs(3600);

/// Starts chitchat as a new run of this node.
pub(super) async fn spawn(
    config: &MembershipConfig,
    transport: &Transport,
    generation: u64,
    net: &Net,
) -> anyhow::Result<ChitchatHandle> {
    let local = transport.local();
    let config = ChitchatConfig {
        chitchat_id: place::chitchat_id(&local, generation),
        cluster_id: CLUSTER.to_owned(),
        gossip_interval: config.interval,
        listen_addr: place::of(&local),
        seed_nodes: Vec::new(),
        failure_detector_config: FailureDetectorConfig {
            phi_threshold: config.phi,
            sampling_window_size: WINDOW,
            max_interval: config.interval * 5,
            initial_interval: config.interval,
            dead_node_grace_period: config.dead_kept,
        },
        marked_for_deletion_grace_period: TOMBSTONES,
        catchup_callback: None,
        extra_liveness_predicate: None,
    };
    spawn_chitchat(config, Vec::new(), net).await
}

/// What chitchat holds, one sighting for each run of each node whose name is consistent.
pub(super) fn sightings(chitchat: &Chitchat) -> impl Iterator<Item = Sighting<'_>> {
    let alive: HashSet<&ChitchatId> = chitchat.live_nodes().collect();
    chitchat.node_states().iter().filter_map(move |(id, state)| {
        Some(Sighting {
            peer: place::peer(id)?,
            generation: id.generation_id,
            alive: alive.contains(id),
            node: value(state, NODE),
            group: value(state, GROUP),
            images: value(state, IMAGES),
            addresses: value(state, ADDRESSES),
        })
    })
}

fn value<'a>(state: &'a NodeState, key: &str) -> Option<Value<'a>> {
    let held = state.get_versioned(key).filter(|held| !held.is_deleted())?;
    Some(Value { version: held.version, text: &held.value })
}
