//! The way to the leader, as the daemon's `flock::propose` goes it.

use super::lead::Waiter;
use crate::safety::world::World;
use gaggle_gossip::intent::DocKey;
use gaggle_sched::state::{Applied, Refused, Revision, Txn, TxnId};
use std::rc::Rc;

const ANSWER_MS: u64 = 6_000;
const DEADLINE_MS: u64 = 12_000;
const LEADERLESS_MS: u64 = 2_500;
const ASK_AGAIN_MS: u64 = 100;
const CATCH_UP_MS: u64 = 3_000;

/// What desktops say to each other about work.
pub enum Message {
    Propose {
        number: u64,
        txn: Rc<Txn>,
    },
    Answer {
        number: u64,
        answer: Answer,
    },
    /// Everything in the sender's documents.
    Documents(super::Documents),
    /// A change that was kept.
    Push(DocKey, Vec<u8>),
}

impl std::fmt::Debug for Message {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Propose { number, .. } => write!(f, "Propose({number})"),
            Self::Answer { number, answer } => write!(f, "Answer({number}, {answer:?})"),
            Self::Documents(_) => write!(f, "Documents"),
            Self::Push(key, _) => write!(f, "Push({key})"),
        }
    }
}

#[derive(Clone, Debug)]
pub enum Answer {
    Ordered(Result<Applied, Refused>),
    NotLeader,
}

/// What a proposal is for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Purpose {
    Request(usize),
    Status(String),
    /// Asked at this moment.
    Confirm(u64),
}

/// How a proposal ended without an order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unavailable {
    NoQuorum,
    Unknown,
}

pub struct Proposal {
    txn: Rc<Txn>,
    purpose: Purpose,
    begun_ms: u64,
    asked: Option<(usize, u64)>,
    again_ms: u64,
    lost: bool,
    /// The answer, while this node's view is not there yet.
    done: Option<(Result<Applied, Refused>, u64)>,
}

impl World<'_> {
    pub fn propose(&mut self, node: usize, mut txn: Txn, purpose: Purpose) -> u64 {
        let (number, begun_ms) = (self.work.number(), self.ms(node));
        txn.id = Some(TxnId(number, node as u64));
        let txn = Rc::new(txn);
        let proposal = Proposal { txn, purpose, begun_ms, asked: None, again_ms: 0, lost: false, done: None };
        self.work.life(node).proposals.insert(number, proposal);
        self.tend_proposal(node, number);
        number
    }

    pub fn tick_proposals(&mut self, node: usize) {
        let numbers: Vec<u64> = self.work.life(node).proposals.keys().copied().collect();
        for number in numbers {
            self.tend_proposal(node, number);
        }
    }

    fn tend_proposal(&mut self, node: usize, number: u64) {
        let now_ms = self.ms(node);
        let leader = self.known_status(node).0.or_else(|| self.acting(node));
        let revision = self.work.life(node).store.revision();
        let Some(proposal) = self.work.life(node).proposals.get_mut(&number) else { return };
        if let Some((result, until_ms)) = &proposal.done {
            if revision >= reached(result) || now_ms >= *until_ms {
                let result = result.clone();
                self.end_proposal(node, number, Ok(result));
            }
            return;
        }
        if let Some((asked, at_ms)) = proposal.asked {
            if leader == Some(asked) && now_ms < at_ms + ANSWER_MS {
                return;
            }
            (proposal.asked, proposal.lost) = (None, true);
        }
        let give_up_ms = proposal.begun_ms + if proposal.lost { DEADLINE_MS } else { LEADERLESS_MS };
        match leader {
            Some(leader) if now_ms >= proposal.again_ms => {
                let txn = proposal.txn.clone();
                proposal.asked = Some((leader, now_ms));
                if leader != node {
                    return self.send_work(node, leader, Message::Propose { number, txn });
                }
                let waiter = Waiter::Peer { from: node, number };
                if !self.take_transaction(node, (*txn).clone(), waiter) {
                    self.on_answer_to_proposal(node, number, Answer::NotLeader);
                }
            }
            _ if now_ms >= give_up_ms => {
                let why = if proposal.lost { Unavailable::Unknown } else { Unavailable::NoQuorum };
                self.end_proposal(node, number, Err(why));
            }
            _ => {}
        }
    }

    pub fn on_propose(&mut self, from: usize, node: usize, number: u64, txn: &Rc<Txn>) {
        let waiter = Waiter::Peer { from, number };
        if !self.take_transaction(node, (**txn).clone(), waiter) {
            self.answer(node, from, number, Answer::NotLeader);
        }
    }

    pub fn on_answer_to_proposal(&mut self, node: usize, number: u64, answer: Answer) {
        let now_ms = self.ms(node);
        if self.work.desks[node].life.is_none() {
            return;
        }
        let Some(proposal) = self.work.life(node).proposals.get_mut(&number) else { return };
        match answer {
            Answer::NotLeader => {
                proposal.asked = None;
                proposal.again_ms = now_ms + ASK_AGAIN_MS;
                let give_up_ms = proposal.begun_ms + if proposal.lost { DEADLINE_MS } else { LEADERLESS_MS };
                if now_ms >= give_up_ms {
                    let why = if proposal.lost { Unavailable::Unknown } else { Unavailable::NoQuorum };
                    self.end_proposal(node, number, Err(why));
                }
            }
            Answer::Ordered(result) => {
                proposal.done.get_or_insert((result, now_ms + CATCH_UP_MS));
                self.tend_proposal(node, number);
            }
        }
    }

    fn end_proposal(
        &mut self,
        node: usize,
        number: u64,
        result: Result<Result<Applied, Refused>, Unavailable>,
    ) {
        let Some(proposal) = self.work.life(node).proposals.remove(&number) else { return };
        match proposal.purpose {
            Purpose::Request(op) => self.request_answered(node, op, result, proposal.lost),
            Purpose::Status(uid) => self.report_answered(node, &uid, result.is_ok()),
            Purpose::Confirm(asked_ms) => {
                let applied = result.ok().and_then(Result::ok);
                self.confirmed_by_group(node, asked_ms, applied.map(|applied| applied.revision));
            }
        }
    }

    /// Who had a write of a client when it was acknowledged.
    pub fn note_holders(&mut self, from: usize, number: u64, id: crate::safety::ledger::Id) {
        let Some(life) = &self.work.desks[from].life else { return };
        let Some(Proposal { purpose: Purpose::Request(op), .. }) = life.proposals.get(&number) else {
            return;
        };
        let op = *op;
        let holders = super::held_by(self, id);
        let marks = holders.into_iter().map(|node| (node, self.work.desks[node].forgot)).collect();
        self.work.record.ops[op].holders = marks;
    }
}

/// What the view must have reached before an answer is passed on.
fn reached(result: &Result<Applied, Refused>) -> Revision {
    match result {
        Ok(applied) => applied.revision,
        Err(Refused::Conflict { current, .. }) => *current,
        Err(_) => Revision::default(),
    }
}
