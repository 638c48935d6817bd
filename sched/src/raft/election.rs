//! When to ask for votes: only after a quorum has said that it would grant them.
//!
//! A desktop that wakes up, or was cut off, has missed its leader; if it simply asked for votes, its higher term
//! would depose a leader that everyone else hears. openraft 0.9 has no such round of its own.

use super::config::Timings;
use super::network::Links;
use super::types::{Id, Members, NodeId, Raft, node_id};
use super::wire::{Reply, Request};
use futures::StreamExt;
use futures::stream::FuturesUnordered;
use openraft::ServerState;
use sha2::{Digest, Sha256};
use std::collections::BTreeSet;
use std::time::Duration;
use tokio_util::sync::CancellationToken;

/// Watches the leader's silence and starts elections that can be won, until the group stops.
pub(super) async fn run(raft: Raft, links: Links, me: String, timings: Timings, stop: CancellationToken) {
    let id = node_id(&me);
    let mut round = 0;
    loop {
        round += 1;
        let spread = spread(&me, round, timings.election_spread);
        let remaining = (timings.lease + spread).saturating_sub(links.pulse.silence().unwrap_or_default());
        // A vote that was just asked for gets the time to be counted.
        let wait = remaining.max(timings.heartbeat + spread);
        let (members, leads, last) = {
            let metrics = raft.metrics().borrow().clone();
            let leads = metrics.state == ServerState::Leader;
            let last = raft.data_metrics().borrow().last_log;
            (metrics.membership_config.membership().clone(), leads, last)
        };
        let votes = members.voter_ids().any(|voter| voter == id);
        let alone = members.voter_ids().all(|voter| voter == id);
        if votes && !leads {
            let unheard = links.pulse.silence().is_none_or(|silence| silence >= timings.lease);
            // The first round waits too: after a restart the leader is most likely alive.
            let due = alone || (round > 1 && unheard);
            if due && could_win(&members, id, last, &links, timings.lease).await {
                tracing::info!(group = %links.group, round, "no leader is heard: asking for votes");
                if raft.trigger().elect().await.is_err() {
                    return;
                }
            }
        }
        tokio::select! {
            () = stop.cancelled() => return,
            () = tokio::time::sleep(wait) => {}
        }
    }
}

/// A different pause each time and on each node, so that two candidates do not stay in step.
fn spread(me: &str, round: u64, most: Duration) -> Duration {
    let digest = Sha256::new().chain_update(me).chain_update(round.to_be_bytes()).finalize();
    most.mul_f64(f64::from(digest[0]) / 256.0)
}

/// Whether a quorum of every configuration in force would vote for this node now.
async fn could_win(members: &Members, me: NodeId, last: Option<Id>, links: &Links, limit: Duration) -> bool {
    let voters: BTreeSet<NodeId> = members.voter_ids().filter(|id| *id != me).collect();
    let mut asked: FuturesUnordered<_> = members
        .nodes()
        .filter(|(id, _)| voters.contains(id))
        .map(|(id, node)| async move {
            let reply = links.ask(&node.peer, Request::WouldVote { last_log_id: last }).await;
            (*id, matches!(reply, Ok(Reply::WouldVote(true))))
        })
        .collect();
    let mut granted = BTreeSet::from([me]);
    let count = async {
        while !is_quorum(members, &granted) {
            match asked.next().await {
                Some((id, true)) => _ = granted.insert(id),
                Some((_, false)) => {}
                None => return false,
            }
        }
        true
    };
    tokio::time::timeout(limit, count).await.unwrap_or(false)
}

/// Whether these are a quorum of every configuration in force.
pub(super) fn is_quorum(members: &Members, granted: &BTreeSet<NodeId>) -> bool {
    let configs = members.get_joint_config();
    !configs.is_empty()
        && configs.iter().all(|config| config.intersection(granted).count() * 2 > config.len())
}
