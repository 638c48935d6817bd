//! A machine: what its disk keeps, and what its process knows.

use super::super::clock::Clock;
use super::super::network::Network;
use super::ledger::{Id, Voters};
use gaggle_sched::electorate::assembly::Muster;
use gaggle_sched::electorate::attempts::Attempts;
use gaggle_sched::electorate::founding::{Ask, Position};
use gaggle_sched::electorate::presence::{Grants, Leases, Word};
use gaggle_sched::electorate::roster::Roster;
use gaggle_sched::electorate::{Tenure, VoterChange};
use gaggle_sched::state::{Lineage, Revision};
use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;

/// What is there after the power was cut.
#[derive(Clone, Debug, Default)]
pub struct Disk {
    pub word: Word,
    pub word_lost: bool,
    /// The views that were saved, the newest last; which one is there after a crash is the disk's secret.
    pub views: Vec<Id>,
    pub part: Option<Part>,
    /// Lineages whose log this node gave up while it was counted as a voter: it must not vote there with a blank one.
    pub gave_up: BTreeSet<Lineage>,
    /// The term that this node had reached when it gave up a part: no earlier leader may have it as a voter again.
    pub left_terms: BTreeMap<Lineage, u64>,
    /// Whom any group has evicted that this machine has followed.
    pub evicted: BTreeSet<String>,
}

/// A voter's files, and what its core knows.
#[derive(Clone, Debug)]
pub struct Part {
    pub lineage: Rc<Lineage>,
    pub term: u64,
    pub vote: Option<usize>,
    pub head: Id,
    /// What is known to be committed; a restart goes on from `base`.
    pub commit: Id,
    pub base: Id,
}

#[derive(Debug)]
pub enum Role {
    Follower { leader: Option<usize> },
    Candidate { votes: BTreeSet<usize> },
    Leader(Box<Leading>),
}

#[derive(Debug, Default)]
pub struct Leading {
    /// How much of this leader's log the others hold.
    pub matched: BTreeMap<usize, Id>,
    /// When the others answered, on this machine's clock.
    pub heard_ms: BTreeMap<usize, u64>,
    /// Learners that shall vote, until when they must have caught up.
    pub change: Option<(VoterChange, BTreeSet<usize>, u64)>,
    pub change_after_ms: u64,
    pub began_ms: u64,
}

/// The leases of one lead, as the daemon's `Leader` keeps them.
#[derive(Debug, Default)]
pub struct Lead {
    pub of: Option<(Rc<Lineage>, u64)>,
    pub leases: Leases,
    /// The roster by which the leader counts: its view's, as it was looked at last.
    pub roster: (Rc<Roster>, Revision),
    pub until_ms: Option<u64>,
    pub ask_due_ms: u64,
    pub waits_since_ms: Option<u64>,
    pub silent_until_ms: u64,
    /// It asks for no leases until then.
    pub aside_until_ms: u64,
}

/// The leader that asked this node last.
#[derive(Clone, Debug)]
pub struct Heard {
    pub lineage: Rc<Lineage>,
    pub peer: usize,
    pub term: u64,
    pub acting: bool,
    pub at_ms: u64,
}

/// What the voter that is followed said.
#[derive(Clone, Debug)]
pub struct Told {
    pub leader: Option<usize>,
    pub voters: Rc<Voters>,
    pub at_ms: u64,
}

/// What a node says of itself through gossip.
#[derive(Clone, Debug)]
pub struct Facts {
    pub of: Option<Rc<Lineage>>,
    pub position: Position,
    pub role: Place,
    pub members: usize,
    pub acting: bool,
    pub started_ms: u64,
    pub leaving: bool,
    pub lost: bool,
    pub could_act: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Place {
    None,
    Follower,
    Voter,
    Leader,
}

/// What is known of another through gossip.
#[derive(Clone, Debug, Default)]
pub struct Known {
    pub facts: Option<Rc<Facts>>,
    /// Grows with everything that the other says, also across its restarts.
    pub version: u64,
    /// When the version grew last, and when it said something to this node itself; on this machine's clock.
    pub news_ms: u64,
    pub direct_ms: Option<u64>,
}

#[derive(Debug)]
pub struct Campaign {
    pub number: u64,
    pub ask: Ask,
    pub roster: Rc<Roster>,
    pub pledging: bool,
    pub granted: BTreeSet<usize>,
    pub waits_for: BTreeSet<usize>,
    pub until_ms: u64,
}

/// What a process knows, and forgets when it ends.
#[derive(Debug)]
pub struct Process {
    pub started_ms: u64,
    pub grants: Grants,
    pub given_ms: u64,
    pub of: Option<Rc<Lineage>>,
    pub view: Option<Id>,
    /// This node's part, set aside for a founding: the files are left, and nobody runs it.
    pub aside: bool,
    pub role: Role,
    pub election_due_ms: u64,
    pub lead: Lead,
    pub heard: Option<Heard>,
    pub told: Option<Told>,
    pub told_by: Option<usize>,
    pub confirmed: bool,
    pub without_quorum_since_ms: u64,
    pub live: BTreeSet<usize>,
    pub live_since_ms: u64,
    pub contest: Option<(Rc<Lineage>, u64)>,
    pub muster: Muster,
    pub apart_since_ms: Option<u64>,
    pub campaign: Option<Campaign>,
    pub attempts: Attempts,
    pub corrected: BTreeMap<usize, Position>,
    pub tenure: Tenure,
    pub saved_ms: u64,
    pub known: Vec<Known>,
    pub leaving_since_ms: Option<u64>,
    pub next: NextDue,
}

/// When which step is due, on this machine's clock.
#[derive(Clone, Copy, Debug, Default)]
pub struct NextDue {
    pub shell_ms: u64,
    pub beat_ms: u64,
    pub gossip_ms: u64,
    pub write_ms: u64,
    pub roster_ms: u64,
    pub eviction_ms: u64,
}

#[derive(Debug)]
pub struct Machine {
    pub name: String,
    pub clock: Clock,
    pub disk: Disk,
    /// `None` while it is off.
    pub process: Option<Process>,
    /// Events for earlier processes are void.
    pub incarnation: u32,
    pub asleep: bool,
    /// For as long as it lives: versions of what it says through gossip.
    pub said: u64,
    /// Removed for good, or not there yet.
    pub gone: bool,
    pub crashes: u32,
}

impl Machine {
    /// Whether it runs now.
    pub fn acts(&self) -> bool {
        self.process.is_some() && !self.asleep
    }
}

/// The links of a machine that is out of reach, to mend them later.
pub fn isolate(network: &Network, node: usize) -> Vec<(usize, usize)> {
    network.between(&[node].into())
}
