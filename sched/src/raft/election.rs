//! When to ask for votes: only after a quorum has said that it would grant them.
//!
//! A desktop that wakes up, or was cut off, has missed its leader; if it simply asked for votes, its higher term
//! would depose a leader that everyone else hears. openraft 0.9 has no such round of its own.

use super::config::Timings;
use super::log::Log;
use super::network::Links;
use super::types::{Id, Members, NodeId, Raft, node_id};
use super::wire::{Reply, Request};
use futures::StreamExt;
use futures::future::BoxFuture;
use futures::stream::FuturesUnordered;
use openraft::ServerState;
use sha2::{Digest, Sha256};
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

/// After this a question counts as unanswered, and is asked again.
const ANSWERED_WITHIN: Duration = Duration::from_secs(2);

/// Watches the leader's silence and starts elections that can be won, until the group stops.
pub(super) async fn run(
    raft: Raft,
    links: Links,
    log: Log,
    me: String,
    timings: Timings,
    stop: CancellationToken,
) {
    let id = node_id(&me);
    let mut poll = Poll::default();
    let mut round = 0;
    loop {
        round += 1;
        let spread = spread(&me, round, timings.election_spread);
        let patience = links.pulse.patience(timings.lease);
        let remaining = (patience + spread).saturating_sub(links.pulse.silence().unwrap_or_default());
        // A vote that was just asked for gets the time to be counted.
        let until = Instant::now() + remaining.max(timings.heartbeat + spread);
        let race = Race::of(&raft, id, &log);
        // The first round waits too: after a restart the leader is most likely alive.
        if race.runs() && (race.alone || (round > 1 && links.pulse.silence().is_none_or(|s| s >= patience))) {
            poll.ask(&race, &links);
        }
        loop {
            let race = Race::of(&raft, id, &log);
            let unheard = links.pulse.silence().is_none_or(|silence| silence >= patience);
            if race.runs() && (race.alone || unheard) && race.is_won_by(poll.fresh(timings.lease)) {
                // Whoever said so may have voted by the time of the next round.
                poll.granted.clear();
                tracing::info!(group = %links.group, round, "no leader is heard: asking for votes");
                if raft.trigger().elect().await.is_err() {
                    return;
                }
                break;
            }
            tokio::select! {
                () = stop.cancelled() => return,
                () = tokio::time::sleep_until(until) => break,
                Some((peer, grants)) = poll.asked.next() => poll.answered(peer, grants),
            }
        }
        tokio::select! {
            () = stop.cancelled() => return,
            () = tokio::time::sleep_until(until) => {}
        }
    }
}

/// A different pause each time and on each node, so that two candidates do not stay in step.
fn spread(me: &str, round: u64, most: Duration) -> Duration {
    let digest = Sha256::new().chain_update(me).chain_update(round.to_be_bytes()).finalize();
    most.mul_f64(f64::from(digest[0]) / 256.0)
}

/// What an election would be about.
struct Race {
    me: NodeId,
    members: Members,
    last: Option<Id>,
    /// Neither leads already, nor is still being filled.
    stands: bool,
    /// Nobody else votes.
    alone: bool,
}

impl Race {
    fn of(raft: &Raft, me: NodeId, log: &Log) -> Self {
        let metrics = raft.metrics().borrow().clone();
        let members = metrics.membership_config.membership().clone();
        let alone = members.voter_ids().all(|voter| voter == me);
        let last = raft.data_metrics().borrow().last_log;
        let stands = metrics.state != ServerState::Leader && !log.is_filling();
        Self { me, members, last, stands, alone }
    }

    /// Whether this node may stand at all.
    fn runs(&self) -> bool {
        self.stands && self.members.voter_ids().any(|voter| voter == self.me)
    }

    /// Whether these, and this node, are a quorum of every configuration in force.
    fn is_won_by(&self, mut granted: BTreeSet<NodeId>) -> bool {
        granted.insert(self.me);
        is_quorum(&self.members, &granted)
    }
}

/// Who would vote for this node. A question is not given up when a round is over: on a slow network the answers to all
/// questions of all rounds would come too late. There is at most one to each voter.
#[derive(Default)]
struct Poll {
    asked: FuturesUnordered<BoxFuture<'static, (NodeId, bool)>>,
    pending: BTreeSet<NodeId>,
    granted: BTreeMap<NodeId, Instant>,
}

impl Poll {
    fn ask(&mut self, race: &Race, links: &Links) {
        let voters: BTreeSet<NodeId> = race.members.voter_ids().filter(|id| *id != race.me).collect();
        for (id, node) in race.members.nodes().filter(|(id, _)| voters.contains(id)) {
            if self.pending.insert(*id) {
                let (id, peer, links, last_log_id) = (*id, node.peer.clone(), links.clone(), race.last);
                self.asked.push(Box::pin(async move {
                    let asked = links.ask(&peer, Request::WouldVote { last_log_id });
                    let reply = tokio::time::timeout(ANSWERED_WITHIN, asked).await;
                    (id, matches!(reply, Ok(Ok(Reply::WouldVote(true)))))
                }));
            }
        }
    }

    fn answered(&mut self, peer: NodeId, grants: bool) {
        self.pending.remove(&peer);
        match grants {
            true => self.granted.insert(peer, Instant::now()),
            false => self.granted.remove(&peer),
        };
    }

    /// Whose word is not older than this.
    fn fresh(&self, limit: Duration) -> BTreeSet<NodeId> {
        self.granted.iter().filter(|(_, at)| at.elapsed() <= limit).map(|(id, _)| *id).collect()
    }
}

/// Whether these are a quorum of every configuration in force.
pub(super) fn is_quorum(members: &Members, granted: &BTreeSet<NodeId>) -> bool {
    let configs = members.get_joint_config();
    !configs.is_empty()
        && configs.iter().all(|config| config.intersection(granted).count() * 2 > config.len())
}
