//! When a leader speaks, and that it and its voters live while their disks keep them busy.
//!
//! openraft ties two times together that have nothing to do with each other: how often a leader speaks, and how long it waits
//! for the answer to an append. On a network where an answer takes 400 ms, a leader that speaks every 150 ms and waits no
//! longer than that would never learn that anything was appended. So openraft's interval is the patience
//! ([`super::config`]), and the beat is here.
//!
//! A voter answers nothing before what it has appended is on its disk, and while openraft's core waits for the disk (to commit, to
//! vote, to purge), it sends no heartbeat and answers none. On a disk that takes a second for a flush (a spinning one under
//! load), the voters would take their leader for dead and elect another, which is no faster, and a leader would miss its
//! quorum: an election for every write. So a leader asks those who have not
//! answered for a while whether they are still there, beside the core, and is answered beside the core. That says nothing of
//! what anybody's log holds.

use super::election::is_quorum;
use super::log::Log;
use super::network::Links;
use super::status::Pulse;
use super::types::{Members, NodeId, Raft};
use super::wire::{Reply, Request};
use futures::StreamExt;
use futures::future::BoxFuture;
use futures::stream::FuturesUnordered;
use openraft::ServerState;
use std::collections::BTreeSet;
use std::time::Duration;
use tokio::time::MissedTickBehavior;
use tokio_util::sync::CancellationToken;

/// A disk that works on one thing for longer than this is taken for dead, and with it the node that it belongs to: another
/// one should lead.
pub(super) const BUSY_LIMIT: Duration = Duration::from_secs(5);
/// Who has not answered by then is asked again.
const ANSWERED_WITHIN: Duration = Duration::from_secs(2);

/// Lets this node speak once a heartbeat whenever it leads, and asks the voters that were not heard for two.
pub(super) async fn run(raft: Raft, links: Links, log: Log, heartbeat: Duration, stop: CancellationToken) {
    let mut tick = tokio::time::interval(heartbeat);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut asked: FuturesUnordered<BoxFuture<'static, (NodeId, bool)>> = FuturesUnordered::new();
    // At most one question to each voter is under way.
    let mut pending = BTreeSet::new();
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            _ = tick.tick() => {}
            Some((id, follows)) = asked.next() => {
                pending.remove(&id);
                if follows {
                    links.pulse.answered(id);
                }
                continue;
            }
        }
        let metrics = raft.metrics().borrow().clone();
        let leads = metrics.state == ServerState::Leader && metrics.running_state.is_ok();
        if !leads || !metrics.vote.is_committed() || log.busy_for() > BUSY_LIMIT {
            continue;
        }
        // A core that is busy with its disk gets to it later, and to all of them at once.
        if log.busy_for() < heartbeat && raft.trigger().heartbeat().await.is_err() {
            return;
        }
        let members = metrics.membership_config.membership();
        let voters: BTreeSet<NodeId> = members.voter_ids().filter(|id| *id != metrics.id).collect();
        let quorum = links.pulse.leads_with_quorum();
        for (id, node) in members.nodes().filter(|(id, _)| voters.contains(id)) {
            if links.pulse.unanswered(*id) >= 2 * heartbeat && pending.insert(*id) {
                let (id, peer, links) = (*id, node.peer.clone(), links.clone());
                let request = Request::Alive { vote: metrics.vote, quorum };
                asked.push(Box::pin(async move {
                    let reply = tokio::time::timeout(ANSWERED_WITHIN, links.ask(&peer, request)).await;
                    (id, matches!(reply, Ok(Ok(Reply::Alive(true)))))
                }));
            }
        }
    }
}

/// Whether a quorum of every configuration in force has answered within `limit`.
pub(super) fn hears_quorum(pulse: &Pulse, members: &Members, me: NodeId, limit: Duration) -> bool {
    let mut heard: BTreeSet<NodeId> =
        members.voter_ids().filter(|id| pulse.unanswered(*id) <= limit).collect();
    heard.insert(me);
    is_quorum(members, &heard)
}
