//! What the flock does with what it orders: the real store, documents, controllers, scheduler and planner of pods, over the
//! machines, the network and the elections of [`super::safety`].
//!
//! The entries of that simulation's logs get a content here: transactions. Every desktop has a real [`Store`] as its view and
//! real intent documents; whoever acts runs the real turn of the runner; every agent plans with the real planner over an
//! engine in memory ([`engine`]); clients create, edit, scale and delete through random desktops, also where nobody orders
//! anything. The steps around these are those of the daemon's shells, written again without waiting: a change there belongs
//! here, too. What is checked is in [`check`], [`watch`] and [`order`].
//!
//! [`Store`]: gaggle_sched::state::Store

mod agent;
mod check;
mod clients;
mod desk;
mod documents;
mod engine;
mod lead;
mod objects;
mod order;
mod propose;
mod record;
mod watch;

pub(super) use check::RESTS;
pub(super) use desk::Work;
pub(super) use order::held_by;
pub(super) use propose::Message;

use super::clock::Micros;
use super::safety::MS;
use super::safety::world::World;
use desk::Life;
use gaggle_gossip::intent::replica;
use gaggle_sched::state::Store;
use record::Outcome;
use std::rc::Rc;

/// What clients do in a run, and which rule is bent.
#[derive(Clone, Debug)]
pub struct Load {
    /// How long, on average, until some client writes again.
    pub every: Micros,
    pub writes: usize,
    pub bend: Bend,
}

impl Default for Load {
    fn default() -> Self {
        Self { every: 500 * MS, writes: 40, bend: Bend::None }
    }
}

/// A rule that is bent, to see that the checks notice.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Bend {
    #[default]
    None,
    /// The store takes every write, whatever it was made for.
    NoCompare,
    /// What a document says is adopted on top of whatever was adopted meanwhile.
    NoBase,
    /// What was kept without an order is not on the disk.
    NotKept,
    /// Finished indexes of a Job are forgotten.
    Rerun,
    /// Identities go on although no leader is heard.
    NoHold,
    /// Now and then a follower misses a change.
    Gaps,
    /// Agents start what older bindings say.
    AnyAttempt,
    /// Desktops go on from a revision that a founding anew was without.
    Believed,
}

/// What happens to a desktop's work later. Void once the machine was switched off in between.
#[derive(Debug)]
pub(super) enum Later {
    /// A task of the agent comes to its turn, as it was planned for this group.
    Performs {
        node: usize,
        crashes: u32,
        group: String,
        uid: String,
        actions: Vec<gaggle::agent::planner::Action>,
    },
    /// A container ends.
    Ends { node: usize, crashes: u32, id: String, code: i32 },
    /// Some client writes.
    Writes,
}

impl World<'_> {
    /// What is due on a desktop that runs.
    pub fn tick_work(&mut self, node: usize) {
        if self.plan.work.is_none() || self.work.desks[node].life.is_none() {
            return;
        }
        self.take_intent(node);
        self.tick_proposals(node);
        self.tick_requests(node);
        self.tick_agent(node);
        self.tick_duties(node);
        self.exchange(node);
        self.tick_watch(node);
    }

    pub fn happen_later(&mut self, later: Later) {
        match later {
            Later::Writes => self.some_client_writes(),
            Later::Performs { node, crashes, group, uid, actions } => {
                if self.machines[node].asleep && self.machines[node].crashes == crashes {
                    let again = Later::Performs { node, crashes, group, uid, actions };
                    return self.queue.after(200 * MS, super::safety::world::Event::Work(again));
                }
                if self.machines[node].crashes == crashes {
                    self.perform(node, &group, &uid, actions);
                }
            }
            Later::Ends { node, crashes, id, code } => {
                if self.machines[node].asleep && self.machines[node].crashes == crashes {
                    let again = Later::Ends { node, crashes, id, code };
                    return self.queue.after(200 * MS, super::safety::world::Event::Work(again));
                }
                if self.machines[node].crashes == crashes {
                    self.end_container(node, &id, code);
                }
            }
        }
    }

    pub fn receive_work(&mut self, from: usize, node: usize, message: &Message) {
        if self.work.desks[node].life.is_none() {
            return;
        }
        match message {
            Message::Propose { number, txn } => self.on_propose(from, node, *number, txn),
            Message::Answer { number, answer } => self.on_answer_to_proposal(node, *number, answer.clone()),
            Message::Documents(theirs) => self.merge_documents(node, theirs),
            Message::Push(key, change) => self.apply_change(node, key, change),
        }
    }

    /// A process begins, with what its disk holds.
    pub fn work_up(&mut self, node: usize) {
        if self.plan.work.is_none() {
            return;
        }
        let view = self.process(node).view;
        let mut store = Store::default();
        if let Some(view) = view {
            let lineage = (*self.ledger.get(view).lineage).clone();
            store.replace(self.state_at(view), lineage);
        }
        let now_ms = self.ms(node);
        self.work.desks[node].woke_at = self.queue.now();
        self.work.desks[node].life = Some(Box::new(Life::new(store, now_ms)));
    }

    /// The machine is off.
    pub fn work_down(&mut self, node: usize) {
        let Some(life) = self.work.desks[node].life.take() else { return };
        life.requests
            .iter()
            .for_each(|request| self.work.record.ops[request.op()].outcome = Outcome::Unknown);
        self.stop_engine(node);
    }

    /// It has left: its containers are gone, its documents stay on its disk.
    pub fn work_left(&mut self, node: usize) {
        self.work.desks[node].forgot += 1;
        self.work.desks[node].engine.containers.clear();
    }

    fn send_work(&mut self, from: usize, to: usize, message: Message) {
        self.send(from, to, super::safety::message::Message::Work(Rc::new(message)));
    }

    pub(super) fn later(&mut self, micros: Micros, later: Later) {
        self.queue.after(micros, super::safety::world::Event::Work(later));
    }
}

/// A copy of a node's documents, as it is sent.
type Documents = Rc<replica::Replica>;
