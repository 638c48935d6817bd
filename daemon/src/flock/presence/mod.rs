//! Who stands behind whom: leases for the leader, pledges for whoever founds the group anew, over the desktops'
//! network.
//!
//! The rules are `sched::electorate`'s. Here are what desktops say to each other ([`Request`], [`Answer`]), a node's own
//! promises ([`Promises`]), and the leader's collecting of leases ([`Leader`]).

mod leader;
mod promises;
mod server;

pub(super) use leader::{Leader, Leading, Leases};
pub(super) use promises::{Promises, Unkept};
pub(super) use server::{Errand, serve_presence};

use super::rpc::Rpc;
use gaggle_gossip::PeerId;
use gaggle_sched::electorate::founding::{Ask, NoPledge, Position};
use gaggle_sched::electorate::presence::NoLease;
use gaggle_sched::electorate::roster::Count;
use gaggle_sched::state::{Lineage, Revision, Store};
use serde::{Deserialize, Serialize};
use std::time::Duration;

pub(super) const PRESENCE: &str = "/gaggle/presence/1";
/// Bytes of a request or an answer: names and numbers.
pub(super) const FRAME_LIMIT: usize = 4 << 10;
/// Epochs are the upper bits of revisions, which stay below 2^63: clients read them as signed integers, as etcd's are.
pub(super) const MAX_EPOCH: u64 = (1 << 23) - 1;

/// "I lead this lineage: do you still follow?"
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct LeaseAsk {
    pub lineage: Lineage,
    pub term: u64,
    /// Whether enough stand behind the leader.
    pub acting: bool,
    /// Whether the one that is asked is among them: its last answer arrived.
    pub holds: bool,
    /// How many do, of how many.
    pub there: usize,
    pub of: usize,
    /// Revision of the roster that the leader counts by.
    pub roster: Revision,
}

impl LeaseAsk {
    pub fn count(&self) -> Count {
        Count { there: self.there, of: self.of }
    }
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) enum Request {
    Lease(LeaseAsk),
    /// Would you pledge yourself, if I asked? Changes nothing: so that a node that hears less than the others does not
    /// disturb a leader that they hear.
    Preview(Ask),
    Pledge(Ask),
    /// People have decided that this group goes on with those who are here, and you hold the newest view of it.
    Recover {
        group: String,
    },
    /// People have decided so, and the answer is this group: follow it.
    Join {
        from: Lineage,
        to: Lineage,
    },
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) enum Answer {
    Lease {
        noted: Revision,
    },
    NoLease(NoLease),
    /// The asker is neither the leader nor a voter of the group, as far as this node knows.
    Stranger,
    Pledged,
    NoPledge(NoPledge),
    /// What was asked for by people was done, or why not.
    Done(Result<String, String>),
    /// This node cannot keep a promise now (its disk, or too much to do); nothing was promised.
    Unable(String),
}

/// Asks a peer.
pub(super) async fn ask(
    rpc: &Rpc,
    peer: PeerId,
    request: &Request,
    deadline: Duration,
) -> Result<Answer, String> {
    let frame = rmp_serde::to_vec_named(request).map_err(|error| error.to_string())?;
    let answer = rpc.call(peer, frame, deadline).await.map_err(|error| error.to_string())?;
    rmp_serde::from_slice(&answer).map_err(|error| format!("the answer of {peer} does not decode: {error}"))
}

/// How much of a group's order a store holds: nothing, if it is another group's.
pub(super) fn position_in(group: &str, store: &Store) -> Position {
    let lineage = store.lineage().filter(|lineage| lineage.group == group);
    lineage.map_or_else(Position::default, |lineage| Position {
        epoch: lineage.epoch,
        term: store.term(),
        revision: store.revision(),
    })
}
