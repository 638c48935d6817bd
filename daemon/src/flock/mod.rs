//! The flock as one desktop lives in it: whom it sees, which group it is of, whom it follows, and its part in
//! the electorate.
//!
//! The rules are `sched::electorate`'s; this is the shell around them. One task owns the state, the rest of the
//! daemon holds watches. A voter's state machine writes its view; every other node's view follows a voter's
//! stream, and whoever reads the view does not notice which of the two it is.

mod adopt;
pub mod adoption;
mod evicted;
pub mod eviction;
mod follow;
mod handle;
mod orphans;
mod presence;
mod propose;
mod raft_net;
mod reports;
mod returning;
mod roster;
mod rpc;
mod shell;
mod sync;
mod tell;

pub use adopt::{FlockDocuments, adopt_forever, apply_forever, compact_forever};
pub use evicted::{bring_forever, refuse_forever, until_evicted};
pub use handle::{Flock, FlockConfig, LeaveProgress};
pub use propose::ToLeader;
pub use reports::{images_by_node, node_reports};
pub use sync::exchange;

use gaggle_gossip::PeerId;
use serde::Serialize;

const RAFT: &str = "/gaggle/raft/1";
const FOLLOW: &str = "/gaggle/follow/1";
const PROPOSE: &str = "/gaggle/propose/1";
const INTENT: &str = "/gaggle/intent/1";

/// What part a node has in its group.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Part {
    Leader,
    Voter,
    #[default]
    Follower,
}

/// What this desktop knows of the group.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FlockStatus {
    /// Empty while no group is known.
    pub group: String,
    pub epoch: u64,
    pub term: u64,
    pub leader: Option<PeerId>,
    pub voters: Vec<PeerId>,
    pub part: Part,
    /// A leader acts: more than half of the desktops stand behind it, and writes are ordered.
    pub quorum: bool,
    /// How many desktops stand behind the leader, or are here while there is none, and how many belong; 0 of 0 while that
    /// is not known.
    pub there: usize,
    pub roster: usize,
    /// The view is following the group now; while it is not, what it shows may be old.
    pub current: bool,
    /// What this node is doing or waiting for, for people.
    pub why: String,
}
