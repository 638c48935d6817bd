//! How chitchat is set up, and how its state is read.
//!
//! The state and its exchange are chitchat's. Its own rounds and its failure detector are not: its interval is fixed at the
//! start, and its detector cannot know of pauses of this node. Both are left running slowly, because chitchat forgets
//! the dead by them. Whom this node speaks to, and when, is the shell's concern; who is alive is the detector's.

use std::time::Duration;

use chitchat::{Chitchat, ChitchatConfig, ChitchatHandle, FailureDetectorConfig, NodeState, spawn_chitchat};
use libp2p::PeerId;

use super::facts::{ADDRESSES, GROUP, IMAGES, NODE, PEER};
use super::place;
use super::roll::{Sighting, Value};

/// Guards against another program's gossip; members of other clusters never get this far.
const CLUSTER: &str = "gaggle/2";
/// Between chitchat's own rounds, in which it tidies up.
pub(super) const TIDIES_EVERY: Duration = Duration::from_secs(30);
/// Silence after which chitchat begins to forget a node, in its own intervals: minutes.
const FORGETS_AFTER: f64 = 8.0;
/// Intervals between heartbeats that chitchat remembers of each node. It takes their memory for all of them at once.
const WINDOW: usize = 8;
/// How long a deleted key is remembered. No key is ever deleted here.
const TOMBSTONES: Duration = Duration::from_secs(3600);

/// Starts chitchat as a new run of this node.
pub(super) async fn spawn(
    local: PeerId,
    generation: u64,
    dead_kept: Duration,
    tidies_every: Duration,
    net: &dyn chitchat::transport::Transport,
) -> anyhow::Result<ChitchatHandle> {
    let config = ChitchatConfig {
        chitchat_id: place::chitchat_id(&local, generation),
        cluster_id: CLUSTER.to_owned(),
        gossip_interval: tidies_every,
        listen_addr: place::of(&local),
        seed_nodes: Vec::new(),
        failure_detector_config: FailureDetectorConfig {
            phi_threshold: FORGETS_AFTER,
            sampling_window_size: WINDOW,
            max_interval: tidies_every * 5,
            initial_interval: tidies_every,
            dead_node_grace_period: dead_kept,
        },
        marked_for_deletion_grace_period: TOMBSTONES,
        catchup_callback: None,
        extra_liveness_predicate: None,
    };
    let peer = (PEER.to_owned(), local.to_base58());
    spawn_chitchat(config, vec![peer], net).await
}

/// What chitchat holds, one sighting for each run of each node whose name is consistent.
pub(super) fn sightings(chitchat: &Chitchat) -> impl Iterator<Item = Sighting<'_>> {
    chitchat.node_states().iter().filter_map(|(id, state)| {
        Some(Sighting {
            peer: place::peer(id, state.get(PEER)?)?,
            generation: id.generation_id,
            heartbeat: u64::from(state.heartbeat()),
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
