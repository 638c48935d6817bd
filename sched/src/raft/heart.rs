//! That a leader and its voters live, while their disks keep them busy.
//!
//! openraft's core flushes what is appended before it does anything else: it sends no heartbeat and answers none. On a disk
//! that takes a second for a flush (a spinning one under load), the voters would take their leader for dead and elect another,
//! which is no faster, and a leader would miss its quorum: an election for every write. So a leader asks those who have not
//! answered for a while whether they are still there, beside the core, and is answered beside the core. That says nothing of
//! what anybody's log holds.

use super::election::is_quorum;
use super::log::Log;
use super::network::Links;
use super::status::Pulse;
use super::types::{Members, NodeId, Raft};
use super::wire::{Reply, Request};
use futures::StreamExt;
use futures::stream::FuturesUnordered;
use openraft::ServerState;
use std::collections::BTreeSet;
use std::time::Duration;
use tokio::time::MissedTickBehavior;
use tokio_util::sync::CancellationToken;

/// A disk that works on one thing for longer than this is taken for dead, and with it the node that it belongs to: another
/// one should lead.
pub(super) const BUSY_LIMIT: Duration = Duration::from_secs(5);

/// Asks, whenever this node leads, the voters that were not heard for two heartbeats.
pub(super) async fn run(raft: Raft, links: Links, log: Log, heartbeat: Duration, stop: CancellationToken) {
    let mut tick = tokio::time::interval(heartbeat);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            _ = tick.tick() => {}
        }
        let metrics = raft.metrics().borrow().clone();
        let leads = metrics.state == ServerState::Leader && metrics.running_state.is_ok();
        if !leads || !metrics.vote.is_committed() || log.busy_for() > BUSY_LIMIT {
            continue;
        }
        let members = metrics.membership_config.membership();
        let voters: BTreeSet<NodeId> = members.voter_ids().filter(|id| *id != metrics.id).collect();
        let unheard = |id: &NodeId| links.pulse.unanswered(*id) >= 2 * heartbeat;
        let quorum = links.pulse.leads_with_quorum();
        let mut asked: FuturesUnordered<_> = members
            .nodes()
            .filter(|(id, _)| voters.contains(id) && unheard(id))
            .map(|(id, node)| {
                let request = Request::Alive { vote: metrics.vote, quorum };
                let links = &links;
                async move { (*id, links.ask(&node.peer, request).await) }
            })
            .collect();
        let hear = async {
            while let Some((id, reply)) = asked.next().await {
                if matches!(reply, Ok(Reply::Alive(true))) {
                    links.pulse.answered(id);
                }
            }
        };
        // Who takes longer is asked again.
        _ = tokio::time::timeout(2 * heartbeat, hear).await;
    }
}

/// Whether a quorum of every configuration in force has answered within `limit`.
pub(super) fn hears_quorum(pulse: &Pulse, members: &Members, me: NodeId, limit: Duration) -> bool {
    let mut heard: BTreeSet<NodeId> =
        members.voter_ids().filter(|id| pulse.unanswered(*id) <= limit).collect();
    heard.insert(me);
    is_quorum(members, &heard)
}
