//! What removing a node for good is: one transaction, and when it may not be.

use super::FlockStatus;
use gaggle_gossip::PeerId;
use gaggle_gossip::membership::Member;
use gaggle_sched::controller::{Note, node, notes};
use gaggle_sched::electorate::roster::{Count, Roster};
use gaggle_sched::state::{Expect, Propose, Store, Txn, View, Write};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use std::str::FromStr;

/// What is to be written, and what is to be told of it.
#[derive(Debug)]
pub struct Eviction {
    pub txn: Txn,
    pub events: Vec<Note>,
}

/// Why nobody is evicted now, for people.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NotNow {
    #[error("{0}")]
    DoesNotAct(String),
    #[error("{0}")]
    NeedsIt(String),
}

impl Eviction {
    /// One transaction: the peer is remembered as evicted, its Node goes, and so do its pods.
    ///
    /// # Errors
    /// While the flock does not act, or could not go on without the node.
    pub fn of(
        store: &Store,
        flock: &FlockStatus,
        members: &[Member],
        (name, peer): (&str, &str),
        now: &Time,
    ) -> Result<Self, NotNow> {
        acts(flock)?;
        let (roster, expect) = match Roster::of(store) {
            Some((roster, revision)) => (roster, Expect::Revision(revision)),
            None => (Roster::default(), Expect::Absent),
        };
        check_votes(flock, members, name, peer)?;
        check_roster(&roster, members, name, peer)?;
        let value = roster.evicting(peer, name).object();
        let mut writes = vec![Write::Put { key: Roster::key(), value, expect, intent: None }];
        let removal = node::evicted(store, name, peer, now);
        writes.extend(removal.writes.into_iter().flat_map(|txn| txn.writes));
        Ok(Self { txn: Txn::from(writes), events: removal.events })
    }
}

/// Stores what is to be told of an eviction, by this `node`. An event that cannot be stored is no loss: the roster says the same.
pub async fn tell(view: &View, propose: &dyn Propose, events: &[Note], node: &str) {
    let now = crate::app::now();
    for txn in view.read(|store| notes::record(store, events, &now, node)) {
        if let Err(error) = propose.propose(txn).await {
            tracing::debug!(%error, "the event of an eviction was not stored");
        }
    }
}

/// Whether anybody may be evicted at all.
///
/// # Errors
/// While the flock does not act.
pub fn acts(flock: &FlockStatus) -> Result<(), NotNow> {
    if flock.quorum && flock.current {
        return Ok(());
    }
    Err(NotNow::DoesNotAct(format!(
        "nobody can be evicted while the flock does not act ({}): bring back enough desktops, then try again",
        if flock.why.is_empty() { "there is no leader" } else { &flock.why }
    )))
}

/// An eviction takes the node's vote away at once, so the others must be able to go on without it.
fn check_votes(flock: &FlockStatus, members: &[Member], name: &str, peer: &str) -> Result<(), NotNow> {
    let Ok(peer) = PeerId::from_str(peer) else { return Ok(()) };
    if !flock.voters.contains(&peer) {
        return Ok(());
    }
    let answers = |voter: &&PeerId| members.iter().any(|member| member.peer == **voter && member.alive);
    let left = flock.voters.iter().filter(|voter| **voter != peer).filter(answers).count();
    if left * 2 > flock.voters.len() {
        return Ok(());
    }
    let why = match flock.voters.len() {
        1 => format!(
            "{name} holds the only vote: run `gaggle down` there instead, or add a third desktop first"
        ),
        of => format!(
            "without {name} only {left} of {of} voters would answer, too few to go on: wait some seconds until the dead \
             ones are replaced, or bring a desktop back"
        ),
    };
    Err(NotNow::NeedsIt(why))
}

/// It belongs until the roster has changed, which takes more than half of those who belong now.
fn check_roster(roster: &Roster, members: &[Member], name: &str, peer: &str) -> Result<(), NotNow> {
    let is_here = |other: &str| members.iter().any(|member| member.alive && member.peer.to_string() == other);
    let others = |other: &str| other != peer && is_here(other);
    if !roster.names(peer) || roster.has_majority(others) {
        return Ok(());
    }
    let Count { there, of } = roster.count(others);
    Err(NotNow::NeedsIt(format!(
        "without {name} only {there} of {of} desktops are here, too few to go on: run `gaggle down` there instead, or bring a \
         desktop back first"
    )))
}
