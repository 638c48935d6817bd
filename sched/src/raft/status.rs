//! What a group says about itself: who leads, who votes, and whether there is a quorum right now.

use super::config::Timings;
use super::heart::hears_quorum;
use super::log::{Flushed, Identity};
use super::types::{GroupId, NodeId, RaftPeer, voters};
use crate::state::Revision;
use openraft::{RaftMetrics, ServerState};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;
use tokio::time::Instant;

/// A group as one of its nodes sees it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Status {
    pub group: GroupId,
    pub epoch: u64,
    pub term: u64,
    pub revision: Revision,
    /// The leader's peer id. `None` when nobody has led for a while.
    pub leader: Option<String>,
    /// Peer ids, sorted; during a change, and until the last step of one is committed, those of both the old and the new
    /// set: whoever is not among them is not needed, whatever becomes of the change.
    pub voters: BTreeSet<String>,
    /// Index of the newest log entry here that says who votes. It may not be committed.
    #[serde(default)]
    pub named_at: u64,
    pub role: Role,
    /// A leader: a quorum answered it lately. Anyone else: a leader was heard lately that had one.
    pub quorum: bool,
    /// Index of the last log entry in the state.
    pub applied: u64,
    /// The group's files or its state failed on this node; it takes no part until it is started again.
    pub failed: Option<String>,
    /// A leader: everything that was ordered before its term is in its state.
    #[serde(default)]
    pub caught_up: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Role {
    Leader,
    Voter,
    /// Catching up, or no longer a voter.
    Learner,
}

impl Status {
    /// Whether only the progress differs: nothing that anybody has to be told at once.
    pub fn same_but_progress(&self, other: &Self) -> bool {
        let (revision, applied) = (other.revision, other.applied);
        Self { revision, applied, ..self.clone() } == *other
    }
}

/// The latest signs of life.
#[derive(Default)]
pub(super) struct Pulse {
    heard: Mutex<Option<Heard>>,
    gaps: Mutex<Gaps>,
    leads_with_quorum: AtomicBool,
    /// Who votes, as this node's log says.
    voters: Mutex<BTreeSet<NodeId>>,
    /// Who votes by what is committed, as far as this node knows.
    settled: Mutex<BTreeSet<String>>,
    /// When the others last answered this node as their leader.
    answers: Mutex<BTreeMap<NodeId, Instant>>,
}

#[derive(Clone, Copy)]
struct Heard {
    at: Instant,
    term: u64,
    had_quorum: bool,
}

/// For how long a gap is remembered, at least; at most twice as long.
const GAPS_FOR: Duration = Duration::from_secs(15);
/// The longest patience: beyond it, whoever is lost on a bad network is as good as dead.
const LONGEST_PATIENCE: Duration = Duration::from_millis(1500);

/// The longest pauses between two words of one leader, in this period of time and the one before.
#[derive(Default)]
struct Gaps {
    began: Option<Instant>,
    longest: Duration,
    longest_before: Duration,
}

impl Gaps {
    fn note(&mut self, gap: Duration, now: Instant) {
        let age = self.began.map_or(Duration::MAX, |began| now.saturating_duration_since(began));
        if age >= GAPS_FOR {
            let before = if age < 2 * GAPS_FOR { self.longest } else { Duration::ZERO };
            *self = Self { began: Some(now), longest: Duration::ZERO, longest_before: before };
        }
        self.longest = self.longest.max(gap);
    }

    fn longest(&self) -> Duration {
        self.longest.max(self.longest_before)
    }
}

impl Pulse {
    /// The leader of a term spoke and was accepted.
    pub fn heard_leader(&self, term: u64, had_quorum: bool) {
        self.heard_leader_at(Instant::now(), term, had_quorum);
    }

    fn heard_leader_at(&self, now: Instant, term: u64, had_quorum: bool) {
        let heard = Heard { at: now, term, had_quorum };
        let before = self.heard.lock().unwrap_or_else(PoisonError::into_inner).replace(heard);
        if let Some(before) = before.filter(|before| before.term == term) {
            let mut gaps = self.gaps.lock().unwrap_or_else(PoisonError::into_inner);
            gaps.note(now.saturating_duration_since(before.at), now);
        }
    }

    /// How long a leader may be silent before somebody else is wanted: `lease`, or longer where leaders that were alive have
    /// lately been silent for almost as long or longer (a network that delays and loses, a starved desktop).
    pub fn patience(&self, lease: Duration) -> Duration {
        let longest = self.gaps.lock().unwrap_or_else(PoisonError::into_inner).longest();
        lease.max((longest * 3 / 2).min(LONGEST_PATIENCE))
    }

    /// How long ago a leader was heard.
    pub fn silence(&self) -> Option<Duration> {
        let heard = *self.heard.lock().unwrap_or_else(PoisonError::into_inner);
        heard.map(|heard| heard.at.elapsed())
    }

    /// A voter answered this node as its leader.
    pub fn answered(&self, id: NodeId) {
        self.answers.lock().unwrap_or_else(PoisonError::into_inner).insert(id, Instant::now());
    }

    /// For how long one has not.
    pub fn unanswered(&self, id: NodeId) -> Duration {
        let answers = self.answers.lock().unwrap_or_else(PoisonError::into_inner);
        answers.get(&id).map_or(Duration::MAX, Instant::elapsed)
    }

    fn heard_quorum_within(&self, limit: Duration) -> bool {
        let heard = *self.heard.lock().unwrap_or_else(PoisonError::into_inner);
        heard.is_some_and(|heard| heard.had_quorum && heard.at.elapsed() <= limit)
    }

    pub fn counts(&self, id: NodeId) -> bool {
        self.voters.lock().unwrap_or_else(PoisonError::into_inner).contains(&id)
    }

    /// These vote by what is committed.
    pub fn settled(&self, voters: BTreeSet<String>) {
        *self.settled.lock().unwrap_or_else(PoisonError::into_inner) = voters;
    }

    pub fn leads_with_quorum(&self) -> bool {
        self.leads_with_quorum.load(Ordering::Relaxed)
    }
}

/// Derives the status from what openraft reports, and notes in the pulse who votes and whether this node leads a
/// quorum.
pub(super) fn derive(
    metrics: &RaftMetrics<NodeId, RaftPeer>,
    identity: &Identity,
    pulse: &Pulse,
    timings: &Timings,
    revision: Revision,
    flushed: &Flushed,
) -> Status {
    let members = metrics.membership_config.membership();
    let failed = metrics.running_state.as_ref().err().map(|fatal| fatal.to_string());
    // openraft's core hears of it only when it asks for something.
    let failed = failed.or_else(|| flushed.failure().map(|unwritten| unwritten.to_string()));
    let voter_ids: BTreeSet<NodeId> = members.voter_ids().collect();
    let votes = voter_ids.contains(&metrics.id);
    // Whoever left is not remembered for ever.
    pulse.answers.lock().unwrap_or_else(PoisonError::into_inner).retain(|id, _| voter_ids.contains(id));
    *pulse.voters.lock().unwrap_or_else(PoisonError::into_inner) = voter_ids;
    let role = match (votes, metrics.state) {
        (true, ServerState::Leader) => Role::Leader,
        (true, _) => Role::Voter,
        // Also a leader that has just voted itself out: openraft still calls it one, and fails if it is used as one.
        (false, _) => Role::Learner,
    };
    // Nobody says that there is no leader, or no quorum, before somebody would want another one.
    let patience = timings.quorum_timeout.max(pulse.patience(timings.lease) + timings.election_spread);
    let quorum = failed.is_none()
        && match role {
            Role::Leader => {
                let limit = timings.quorum_timeout;
                let acked = metrics.millis_since_quorum_ack.map(Duration::from_millis);
                // Those whose disks keep them from acknowledging still say that they follow.
                acked.is_some_and(|acked| acked <= limit) || hears_quorum(pulse, members, metrics.id, limit)
            }
            Role::Voter | Role::Learner => pulse.heard_quorum_within(patience),
        };
    pulse.leads_with_quorum.store(role == Role::Leader && quorum, Ordering::Relaxed);
    let leads_still = role == Role::Leader || pulse.silence().is_some_and(|silence| silence <= patience);
    let leader =
        metrics.current_leader.filter(|id| leads_still && (*id != metrics.id || votes)).and_then(|id| {
            if id == metrics.id {
                Some(identity.me.clone())
            } else {
                members.get_node(&id).map(|n| n.peer.clone())
            }
        });
    let named_at = *metrics.membership_config.log_id();
    let mut voters = voters(members);
    if named_at <= metrics.last_applied {
        pulse.settled(voters.clone());
    }
    voters.extend(pulse.settled.lock().unwrap_or_else(PoisonError::into_inner).iter().cloned());
    Status {
        group: identity.group.clone(),
        epoch: identity.epoch,
        term: metrics.current_term,
        revision,
        leader,
        voters,
        named_at: named_at.map_or(0, |id| id.index),
        role,
        quorum,
        applied: metrics.last_applied.map_or(0, |id| id.index),
        failed,
        caught_up: role == Role::Leader
            && metrics.last_applied.is_some_and(|id| id.leader_id.term == metrics.current_term),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LEASE: Duration = Duration::from_millis(750);

    /// A pulse that heard leaders of these terms, each so many milliseconds after the one before.
    fn heard(words: &[(u64, u64)]) -> Pulse {
        let (pulse, mut now) = (Pulse::default(), Instant::now());
        for (term, after_ms) in words {
            now += Duration::from_millis(*after_ms);
            pulse.heard_leader_at(now, *term, true);
        }
        pulse
    }

    #[test]
    fn patience_grows_with_the_pauses_of_living_leaders_and_shrinks_again() {
        let ordinary = [(1, 0), (1, 150), (1, 400), (1, 150)];
        assert_eq!(heard(&ordinary).patience(LEASE), LEASE);
        let slow = [(1, 0), (1, 800), (1, 150)];
        assert_eq!(heard(&slow).patience(LEASE), Duration::from_millis(1_200));
        let slept = [(1, 0), (1, 20_000)];
        assert_eq!(heard(&slept).patience(LEASE), LONGEST_PATIENCE);
        let well_again: Vec<_> = slow.into_iter().chain([(1, 150); 400]).collect();
        assert_eq!(heard(&well_again).patience(LEASE), LEASE, "it has been well for a minute");
    }

    #[test]
    fn the_pause_in_which_a_leader_died_teaches_no_patience() {
        assert_eq!(heard(&[(1, 0), (2, 2_000)]).patience(LEASE), LEASE);
    }
}
