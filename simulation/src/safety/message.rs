//! What machines say to each other.

use super::ledger::{Id, Voters};
use super::node::Facts;
use gaggle_sched::electorate::founding::{Ask, NoPledge};
use gaggle_sched::state::{Lineage, Revision};
use std::rc::Rc;

/// Why there is no lease, as far as a leader cares.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    Passed,
    Other,
}

#[derive(Clone, Debug)]
pub enum Message {
    /// All that the sender knows of everybody, and how new it is.
    Gossip(Rc<Vec<(Option<Rc<Facts>>, u64)>>),
    /// A leader's log; also its heartbeat.
    Append {
        lineage: Rc<Lineage>,
        term: u64,
        head: Id,
        commit: Id,
    },
    Appended {
        lineage: Rc<Lineage>,
        term: u64,
        head: Option<Id>,
    },
    /// With the term and the length of the candidate's log.
    Vote {
        lineage: Rc<Lineage>,
        term: u64,
        last: (u64, u32),
    },
    Voted {
        lineage: Rc<Lineage>,
        term: u64,
        granted: bool,
    },
    /// A follower asks a voter.
    Poll,
    Served {
        view: Id,
        lineage: Rc<Lineage>,
        leader: Option<usize>,
        voters: Rc<Voters>,
    },
    Lease {
        lineage: Rc<Lineage>,
        term: u64,
        acting: bool,
        /// The receiver stands behind the sender, as far as that knows.
        holds: bool,
        asked_ms: u64,
    },
    Leased {
        lineage: Rc<Lineage>,
        term: u64,
        asked_ms: u64,
        noted: Result<Revision, Refusal>,
    },
    Preview {
        number: u64,
        ask: Rc<Ask>,
    },
    Pledge {
        number: u64,
        ask: Rc<Ask>,
    },
    /// `None`: it does not know the founder.
    Answer {
        number: u64,
        answer: Option<Result<(), NoPledge>>,
    },
    /// To a leader: a group of the cluster has decided it.
    Evict(String),
    Work(Rc<super::super::work::Message>),
}
