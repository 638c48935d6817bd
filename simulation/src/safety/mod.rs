//! Who may act: the real rules of `sched::electorate`, over an abstract Raft per epoch, with everything that breaks.
//!
//! The machines do what the daemon's `flock` does with those rules, step by step; Raft itself is a lean model of its own
//! ([`raft`]). What is checked is in [`check`] and where things are founded and committed.

mod check;
mod evictions;
mod founding;
mod gossip;
pub(super) mod ledger;
pub(super) mod message;
mod nemesis;
pub(super) mod node;
mod presence;
mod raft;
mod shell;
pub(super) mod world;

pub(super) use world::MS;

use super::clock::Micros;
use super::faults::{self, Fault};
use super::random::Random;
use super::trace::Trace;
use std::collections::BTreeMap;

/// By how much each machine's clock may be fast or slow, in parts per million: with one 10% slow and one 10% fast a node
/// still waits longer than a leader counts on it (`HOLD_MS : LEASE_MS` is 5 : 4).
pub const CLOCK_PPM: u64 = 100_000;

/// A rule that is bent, to see that the checks notice.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Mutation {
    #[default]
    None,
    /// Half of the roster counts as more than half.
    HalfIsEnough,
    /// A node that restarts does not wait until what it granted has run out.
    NoHoldAfterRestart,
    /// Nodes pledge themselves also to a founder that holds less.
    PledgeToOlder,
    /// Promises are said before they are on the disk.
    WordNotSynced,
    /// The roster changes in one step.
    NoJointRoster,
    /// Who leaves forgets its word as well.
    LeaversForget,
    /// How new a log is goes by its last change, not by its last entry.
    BlanksDoNotCount,
    /// The joint stage ends although nobody has noted it.
    NobodyNotes,
}

/// All that a run depends on.
#[derive(Clone, Debug)]
pub struct Plan {
    pub seed: u64,
    pub nodes: usize,
    /// Until then things break.
    pub until: Micros,
    pub faults: Vec<Fault>,
    pub mutation: Mutation,
    pub clock_ppm: u64,
    pub max_steps: u64,
    /// Whether the flock must come together in the end.
    pub liveness: bool,
    /// A voter that gave up its log knows that, and does not vote there with a blank one.
    pub remembers_votes: bool,
    /// What is ordered has a content, and clients and pods work with it: see [`super::work`].
    pub work: Option<super::work::Load>,
}

impl Plan {
    /// The run of a seed, with three to nine machines unless `nodes` says how many.
    pub fn of_seed(seed: u64, nodes: Option<usize>) -> Self {
        let mut random = Random::new(seed ^ 0x5eed_0000);
        let nodes = nodes.unwrap_or_else(|| 3 + random.below(7));
        let until = random.within(15, 60) * 1_000_000;
        let faults = faults::draw(&mut random, nodes, until);
        Self {
            seed,
            nodes,
            until,
            faults,
            mutation: Mutation::None,
            clock_ppm: CLOCK_PPM,
            max_steps: u64::MAX,
            liveness: true,
            remembers_votes: true,
            work: None,
        }
    }
}

/// What must not be was.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation {
    pub rule: &'static str,
    pub what: String,
    pub at_us: Micros,
}

#[derive(Clone, Debug, Default)]
pub struct Stats {
    pub steps: u64,
    pub messages: u64,
    pub virtual_ms: u64,
    pub faults: BTreeMap<&'static str, u64>,
    pub elections: u64,
    pub ordered: u64,
    pub checked: u64,
    pub voter_changes: u64,
    pub roster_changes: u64,
    pub pledges: u64,
    pub foundings: u64,
    pub yields: u64,
    pub left: u64,
    pub evicted: u64,
    /// Evictions that one group had decided and another one was told of.
    pub brought: u64,
    /// Runs in which the flock did not come together by itself, and could not: why.
    pub needs_people: BTreeMap<&'static str, u64>,
    /// Runs in which too few were left of some roster that somebody knew, and the flock came together all the same.
    pub came_together_with_few: u64,
    pub steps_aside: u64,
    /// How long after the last fault the flock was one, at most.
    pub healed_ms: u64,
    /// With work: changes of objects, clients' writes that were ordered and kept, documents that were adopted, edits that
    /// contradicted each other, containers that were started, pods that were offered to another group.
    pub changes: u64,
    pub acknowledged: u64,
    pub kept: u64,
    pub adopted: u64,
    pub conflicts: u64,
    pub started: u64,
    pub offered: u64,
}

/// Runs a plan; with `tracing`, what happened last is told.
pub fn run(plan: &Plan, tracing: bool) -> (Result<Stats, Violation>, Trace) {
    world::World::new(plan, tracing).run()
}
