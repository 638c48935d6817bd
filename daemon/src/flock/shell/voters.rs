//! What the leader does about who votes.

use super::{Shell, millis};
use gaggle_gossip::membership::{Member, NodeFacts};
use gaggle_sched::controller::node;
use gaggle_sched::electorate::{self, Candidate, Need, Steadiness, SteadinessRules, VoterRules};
use gaggle_sched::raft::{self, Role};
use gaggle_sched::state::{Object, Resource};
use std::collections::BTreeSet;
use std::time::Duration;
use tokio::time::Instant;

/// What the leader remembers between one look at the electorate and the next. It begins anew with each term.
#[derive(Default)]
pub(super) struct Tending {
    term: u64,
    steadiness: Steadiness,
    /// When a vote was last moved for steadiness' sake, or this node began to lead.
    swapped_ms: u64,
}

impl Tending {
    fn of_term(&mut self, term: u64) -> &mut Self {
        if self.term != term {
            *self = Self { term, steadiness: Steadiness::default(), swapped_ms: now_ms() };
        }
        self
    }
}

/// A change of the electorate that failed is not tried again sooner.
const CHANGE_AGAIN: Duration = Duration::from_millis(500);

impl Shell {
    pub(super) fn tend_electorate(&mut self, members: &[Member]) {
        match self.changing.take_if(|change| change.is_finished()) {
            Some(_) => self.change_after = Instant::now() + CHANGE_AGAIN,
            None if self.changing.is_some() => return,
            None => {}
        }
        if Instant::now() < self.change_after {
            return;
        }
        let Some(group) = self.part.borrow().clone() else { return };
        let status = group.status().borrow().clone();
        if status.role != Role::Leader || !status.quorum {
            return;
        }
        // The whole roster, the dead and the just restarted too: an electorate does not shrink because nodes died.
        let mut roster = self.roster_peers();
        roster.extend(
            members.iter().filter(|member| is_of(member, &status)).map(|member| member.peer.to_string()),
        );
        roster.insert(self.me.to_string());
        let tending = self.tending.of_term(status.term);
        tending.steadiness.retain(|peer| roster.contains(peer));
        let (now_ms, started) = (now_ms(), self.started);
        let candidates = roster.into_iter().map(|peer| {
            let Some(member) = members.iter().find(|member| member.peer.to_string() == peer) else {
                let dead_for_ms = millis(started);
                return Candidate {
                    peer,
                    alive: false,
                    connected: false,
                    leaving: false,
                    lost: false,
                    started_ms: 0,
                    steady: true,
                    dead_for_ms,
                };
            };
            let steady = tending.steadiness.note(&peer, is_calm(member), now_ms, &SteadinessRules::default());
            Candidate {
                peer,
                alive: member.alive && (is_of(member, &status) || member.peer == self.me),
                connected: member.connected || member.peer == self.me,
                leaving: member.node.as_ref().is_some_and(|node| node.leaving),
                lost: is_of(member, &status) && member.group.as_ref().is_some_and(|facts| facts.lost),
                // By its own clock, which may be wrong: it did not start after it was first heard.
                started_ms: member.node.as_ref().map_or(0, |node| node.started_ms).min(heard_ms(member)),
                steady,
                dead_for_ms: if member.alive { 0 } else { member.since.elapsed().as_millis() as u64 },
            }
        });
        let candidates: Vec<Candidate> = candidates.collect();
        let input = electorate::Input {
            now_ms,
            me: &self.me.to_string(),
            voters: &status.voters,
            candidates: &candidates,
            swapped_ms: tending.swapped_ms,
            rules: &VoterRules { max: self.config.voters, ..VoterRules::default() },
        };
        let Some(change) = electorate::next_change(&input) else { return };
        if change.need == Need::Steadier {
            tending.swapped_ms = now_ms;
        }
        tracing::info!(voters = ?change.voters, why = change.why, "changing the electorate");
        let (tell, before) = (self.tell.clone(), status.voters);
        self.changing = Some(tokio::spawn(async move {
            match group.set_voters(change.voters.clone()).await {
                Ok(()) => tell.voters(&before, &change.voters, &change.why),
                Err(error) => tracing::warn!(%error, "the electorate did not change"),
            }
        }));
    }

    /// The peers of the nodes that belong, alive or not.
    pub(super) fn roster_peers(&self) -> BTreeSet<String> {
        let peer = |object: &Object| object.annotation(node::PEER).map(str::to_owned);
        self.view.read(|store| {
            store.list(&Resource::fixed("nodes"), None).filter_map(|(_, object)| peer(object)).collect()
        })
    }
}

fn is_of(member: &Member, status: &raft::Status) -> bool {
    member.group.as_ref().is_some_and(|facts| facts.group == status.group.as_str())
}

/// Neither its battery nor its owner speaks against its staying. What is not known does not.
fn is_calm(member: &Member) -> bool {
    let says = |fact: fn(&NodeFacts) -> Option<bool>| member.node.as_ref().and_then(fact).unwrap_or_default();
    !says(|node| node.on_battery) && !says(|node| node.owner_active)
}

fn heard_ms(member: &Member) -> u64 {
    now_ms().saturating_sub(member.since.elapsed().as_millis() as u64)
}

fn now_ms() -> u64 {
    std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).map_or(0, |now| now.as_millis() as u64)
}
