//! What whoever acts does: orders what it is brought, takes the runner's turns, and adopts what was kept without an order.

use super::{Bend, Message, documents};
use crate::safety::ledger::{Content, Id};
use crate::safety::world::{World, name};
use gaggle::documents::wish_of;
use gaggle::flock::adoption::{self, Ahead, Burial};
use gaggle_gossip::intent::{Beyond, Conflict, KubernetesLists, Wanted, replica};
use gaggle_sched::controller::node::{NodeConfig, NodeReport};
use gaggle_sched::controller::{Note, Settings, notes};
use gaggle_sched::runner::{Lead, Origin, Planned, Proposal, Turn};
use gaggle_sched::state::{Adopted, Applied, Expect, Key, Lineage, Refused, Txn, Write};
use std::collections::{BTreeMap, VecDeque};
use std::rc::Rc;
use std::time::Duration;

/// Transactions in one batch.
const BATCH: usize = 128;
/// Documents that changed are looked at after this, and anyhow after the second.
const SETTLE_MS: u64 = 300;
const LOOK_EVERY_MS: u64 = 10_000;
/// Nothing was heard of a node for this long when gossip takes it for dead.
const DEAD_AFTER_MS: u64 = 1_500;

/// Who waits for a transaction's outcome.
#[derive(Clone, Debug)]
pub enum Waiter {
    Peer { from: usize, number: u64 },
    Plan(u64),
    Adoption(u64),
    Nobody,
}

/// A raft leader's term, and its turn while it acts.
pub struct Duties {
    of: (Rc<Lineage>, u64),
    /// What is in the log and not committed.
    pub ordering: BTreeMap<Id, Vec<Waiter>>,
    incoming: Vec<(Txn, Waiter)>,
    acting: Option<Acting>,
}

struct Acting {
    turn: Turn,
    began_ms: u64,
    stage: Stage,
    /// Plans that are being carried out.
    plans: BTreeMap<u64, Carried>,
    adoptions: BTreeMap<u64, (Key, Vec<Conflict>)>,
    strangers: BTreeMap<Key, u64>,
    documents_seen: u64,
    adopt_again: bool,
    settle_ms: u64,
    look_ms: u64,
}

struct Carried {
    origin: Option<Origin>,
    rest: VecDeque<Txn>,
    notes: Vec<Note>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Stage {
    First,
    Nodes,
    Keys,
    Placement,
}

impl World<'_> {
    /// Once every tick.
    pub fn tick_duties(&mut self, node: usize) {
        let same_term = |duties: &Duties, world: &Self| {
            world.part(node).is_some_and(|part| part.lineage == duties.of.0 && part.term == duties.of.1)
        };
        if self.work.life(node).duties.is_some() {
            let duties = self.work.life(node).duties.take();
            let kept = duties.filter(|duties| same_term(duties, self));
            self.work.life(node).duties = kept;
        }
        if !self.acts(node) {
            return self.stop_acting(node);
        }
        let Some(of) = self.process(node).lead.of.clone() else { return };
        let now_ms = self.ms(node);
        let life = self.work.life(node);
        let duties = life.duties.get_or_insert_with(|| Duties {
            of: of.clone(),
            ordering: BTreeMap::new(),
            incoming: Vec::new(),
            acting: None,
        });
        if duties.acting.is_none() {
            let lead = Lead { group: of.0.group.clone(), epoch: of.0.epoch, term: of.1 };
            duties.acting = Some(Acting {
                turn: Turn::new(&life.store, &lead, &Settings::default()),
                began_ms: now_ms,
                stage: Stage::First,
                plans: BTreeMap::new(),
                adoptions: BTreeMap::new(),
                strangers: BTreeMap::new(),
                documents_seen: 0,
                adopt_again: true,
                settle_ms: now_ms + SETTLE_MS,
                look_ms: 0,
            });
            self.note(node, || "acts".into());
        }
        self.take_turn(node);
        self.adopt(node);
        self.order_batch(node);
    }

    fn stop_acting(&mut self, node: usize) {
        let Some(duties) = &mut self.work.life(node).duties else { return };
        duties.acting = None;
        for (_, waiter) in std::mem::take(&mut duties.incoming) {
            if let Waiter::Peer { from, number } = waiter {
                self.answer(node, from, number, super::propose::Answer::NotLeader);
            }
        }
    }

    fn acting_now(&mut self, node: usize) -> Option<(&mut Acting, &mut Vec<(Txn, Waiter)>)> {
        let duties = self.work.life(node).duties.as_mut()?;
        Some((duties.acting.as_mut()?, &mut duties.incoming))
    }

    /// Takes a transaction to be ordered; `false` if this node does not act.
    pub fn take_transaction(&mut self, node: usize, txn: Txn, waiter: Waiter) -> bool {
        let acts = self.acts(node);
        match self.acting_now(node) {
            Some((_, incoming)) if acts => {
                incoming.push((txn, waiter));
                true
            }
            _ => false,
        }
    }

    fn order_batch(&mut self, node: usize) {
        loop {
            if !self.gate_is_open(node) {
                return;
            }
            let next = self.ledger.next();
            let Some(duties) = &mut self.work.life(node).duties else { return };
            let count = duties.incoming.len().min(BATCH);
            if count == 0 {
                return;
            }
            let (txns, waiters): (Vec<Txn>, Vec<Waiter>) = duties.incoming.drain(..count).unzip();
            duties.ordering.insert(next, waiters);
            self.order(node, Content::Txns(Rc::new(txns)));
        }
    }

    fn take_turn(&mut self, node: usize) {
        for _ in 0..3 {
            let (now_ms, time) = (self.ms(node), self.work.time(node, self.queue.now()));
            let reports = match self.nodes_are_due(node, now_ms) {
                true => self.reports(node),
                false => Vec::new(),
            };
            let life = self.work.life(node);
            let store = &life.store;
            let Some(acting) = life.duties.as_mut().and_then(|duties| duties.acting.as_mut()) else { return };
            if !acting.plans.is_empty() {
                return;
            }
            let now = Duration::from_millis(now_ms - acting.began_ms);
            let planned = match acting.stage {
                Stage::First => {
                    acting.turn.start_over(store, now);
                    acting.stage = Stage::Nodes;
                    let proposal =
                        Proposal { origin: Origin::Nodes, txns: vec![Txn::default()], notes: Vec::new() };
                    Planned { proposals: vec![proposal], notes: Vec::new() }
                }
                Stage::Nodes => {
                    acting.stage = Stage::Keys;
                    acting.turn.take_changes(store, now);
                    match acting.turn.nodes_are_due(now) {
                        true => acting.turn.nodes(store, &reports, &NodeConfig::default(), &time, now),
                        false => Planned::default(),
                    }
                }
                Stage::Keys => {
                    acting.stage = Stage::Placement;
                    acting.turn.reconcile(store, &time, now)
                }
                Stage::Placement => {
                    acting.stage = Stage::Nodes;
                    match acting.turn.placement_is_due(now) {
                        true => acting.turn.place(store, &BTreeMap::new(), &time, now),
                        false => Planned::default(),
                    }
                }
            };
            self.carry_out(node, planned);
        }
    }

    fn nodes_are_due(&self, node: usize, now_ms: u64) -> bool {
        let life = self.work.desks[node].life.as_ref();
        let acting = life.and_then(|life| life.duties.as_ref()?.acting.as_ref());
        acting.is_some_and(|acting| {
            let now = Duration::from_millis(now_ms - acting.began_ms);
            acting.plans.is_empty() && acting.stage == Stage::Nodes && acting.turn.nodes_are_due(now)
        })
    }

    fn carry_out(&mut self, node: usize, planned: Planned) {
        for Proposal { origin, txns, notes } in planned.proposals {
            let number = self.work.number();
            let mut rest: VecDeque<Txn> = txns.into();
            let Some(first) = rest.pop_front() else { continue };
            let first = self.bent(first);
            let Some((acting, incoming)) = self.acting_now(node) else { return };
            acting.plans.insert(number, Carried { origin: Some(origin), rest, notes });
            incoming.push((first, Waiter::Plan(number)));
        }
        self.tell(node, &planned.notes);
    }

    /// A Job's controller that forgets what is finished.
    fn bent(&self, mut txn: Txn) -> Txn {
        if self.plan.work.as_ref().is_some_and(|load| load.bend == Bend::Rerun) {
            for write in &mut txn.writes {
                let (Write::Put { value, .. } | Write::Status { status: value, .. }) = write else {
                    continue;
                };
                for status in ["/status", ""] {
                    let status = value.pointer_mut(status).and_then(|status| status.as_object_mut());
                    status.map(|status| status.remove("completedIndexes"));
                }
            }
        }
        txn
    }

    fn tell(&mut self, node: usize, said: &[Note]) {
        if said.is_empty() {
            return;
        }
        self.stats.conflicts += said.iter().filter(|note| note.reason == "ConflictingEdits").count() as u64;
        let time = self.work.time(node, self.queue.now());
        let events = notes::record(&self.work.life(node).store, said, &time, "leader");
        let Some((_, incoming)) = self.acting_now(node) else { return };
        incoming.extend(events.into_iter().map(|event| (event, Waiter::Nobody)));
    }

    /// A transaction that this node ordered took place, or was refused.
    pub fn settle_waiter(&mut self, node: usize, waiter: Waiter, result: Result<Applied, Refused>) {
        match waiter {
            Waiter::Nobody => {}
            Waiter::Peer { from, number } => {
                self.answer(node, from, number, super::propose::Answer::Ordered(result));
            }
            Waiter::Plan(number) => {
                let now_ms = self.ms(node);
                let Some((acting, incoming)) = self.acting_now(node) else { return };
                let now = Duration::from_millis(now_ms - acting.began_ms);
                let Some(mut carried) = acting.plans.remove(&number) else { return };
                match (result, carried.rest.pop_front()) {
                    (Ok(_), Some(next)) => {
                        acting.plans.insert(number, carried);
                        incoming.push((next, waiter));
                    }
                    (Ok(_), None) => {
                        if let Some(origin) = &carried.origin {
                            acting.turn.happened(origin);
                        }
                        self.tell(node, &carried.notes);
                    }
                    (Err(_), _) => {
                        if let Some(origin) = carried.origin {
                            acting.turn.refused(origin, now);
                        }
                    }
                }
            }
            Waiter::Adoption(number) => {
                let Some((acting, _)) = self.acting_now(node) else { return };
                let Some((key, conflicts)) = acting.adoptions.remove(&number) else { return };
                acting.adopt_again |= result.is_err();
                if result.is_ok() {
                    self.stats.adopted += 1;
                    self.note(node, || format!("has adopted what was kept of {key}"));
                    self.tell(node, &adoption::conflict_notes(&key, &conflicts));
                }
            }
        }
    }

    /// Documents that are ahead of what was adopted from them.
    fn adopt(&mut self, node: usize) {
        let (now_ms, now) = (self.ms(node), self.queue.now());
        let time = self.work.time(node, now);
        let no_base = self.plan.work.as_ref().is_some_and(|load| load.bend == Bend::NoBase);
        let number = self.work.numbers;
        let author = name(node);
        let super::desk::Desk { documents, life, .. } = &mut self.work.desks[node];
        let Some(life) = life else { return };
        let Some(duties) = &mut life.duties else { return };
        let Some(acting) = &mut duties.acting else { return };
        let due =
            acting.adopt_again || acting.documents_seen != life.documents_changed || now_ms >= acting.look_ms;
        if !acting.adoptions.is_empty() || now_ms < acting.settle_ms || !due {
            return;
        }
        (acting.settle_ms, acting.look_ms) = (now_ms + SETTLE_MS, now_ms + LOOK_EVERY_MS);
        (acting.documents_seen, acting.adopt_again) = (life.documents_changed, false);
        let store = &life.store;
        for key in store.gone_but_adopted(None) {
            let held = documents.get(&adoption::doc_key(key));
            let ended = match adoption::burial(&documents::said(held), store.adopted(key)) {
                Some(Burial::Forget) => Some(Adopted { change: Vec::new(), heads: Vec::new(), base: None }),
                Some(Burial::End) => {
                    let (wanted, now_ms) = (Wanted::Whole(None), documents::now_ms(now));
                    let change = replica::prepare(held, &author, &wanted, None, &KubernetesLists, now_ms);
                    change.ok().map(documents::adopted)
                }
                None => None,
            };
            if let Some(ended) = ended {
                let write = Write::Delete { key: key.clone(), expect: Expect::Absent, intent: Some(ended) };
                duties.incoming.push((write.into(), Waiter::Nobody));
            }
        }
        let digest = documents.iter().filter_map(|(doc, held)| Some((doc.clone(), replica::heads(held)?)));
        let differing: Vec<_> = adoption::differing(store, digest).collect();
        let keys: Vec<Key> = differing.iter().filter_map(|(doc, _)| adoption::object_key(doc)).collect();
        acting.strangers.retain(|key, _| keys.contains(key));
        let mut count = 0;
        for (doc, adopted) in differing {
            let (Some(held), Some(key)) = (documents.get(&doc), adoption::object_key(&doc)) else { continue };
            let beyond = match &adopted {
                Some(adopted) => replica::beyond(Some(held), adopted),
                None => replica::heads(held).map(|heads| Beyond { heads, anew: false }),
            };
            let Some(found) = Ahead::of(doc, adopted, beyond) else { continue };
            if adoption::may_run_already(store, &key) {
                let since = *acting.strangers.entry(key.clone()).or_insert(now_ms);
                let wait_ms = adoption::RUNNER_SPEAKS_WITHIN.as_millis() as u64;
                if now_ms - since < wait_ms {
                    acting.look_ms = acting.look_ms.min(since + wait_ms);
                    continue;
                }
            }
            let object = replica::value(held, &KubernetesLists);
            if let Some(there) = adoption::outlives(store, &key, object.as_ref(), &found) {
                let wanted = Wanted::Whole(Some(wish_of(there.value())));
                let change = replica::prepare(
                    Some(held),
                    &author,
                    &wanted,
                    None,
                    &KubernetesLists,
                    documents::now_ms(now),
                );
                let Ok(change) = change.map(documents::adopted) else { continue };
                count += 1;
                acting.adoptions.insert(number + count, (key.clone(), Vec::new()));
                let txn = adoption::beginning(&key, &there, &found, change);
                duties.incoming.push((txn, Waiter::Adoption(number + count)));
                continue;
            }
            let since = found.adopted.clone().unwrap_or_default();
            let conflicts = replica::conflicts(held, &since);
            let change = replica::changes_beyond(held, &since, adoption::CARRIED_BYTES).unwrap_or_default();
            let txn = adoption::adoption(store, &key, object, &found, change, &time);
            let Some(mut txn) = txn else { continue };
            acting.adopt_again |= !txn.writes.iter().any(adoption::adopts);
            if no_base {
                forget_base(&mut txn);
            }
            count += 1;
            acting.adoptions.insert(number + count, (key, conflicts));
            duties.incoming.push((txn, Waiter::Adoption(number + count)));
        }
        self.work.numbers += count;
    }

    /// What gossip says of the members of this node's group.
    fn reports(&self, node: usize) -> Vec<NodeReport> {
        let Some(process) = &self.machines[node].process else { return Vec::new() };
        let Some(of) = &process.of else { return Vec::new() };
        let now_ms = self.ms(node);
        let mut reports = Vec::new();
        for (peer, known) in process.known.iter().enumerate() {
            let Some(facts) = &known.facts else { continue };
            if facts.of.as_ref().is_none_or(|theirs| theirs.group != of.group) {
                continue;
            }
            let peer_name = name(peer);
            let alive = self.is_alive(node, peer) || process.lead.leases.holds(&peer_name, now_ms);
            let silent_ms = now_ms.saturating_sub(known.news_ms);
            let since = match alive {
                true => Duration::from_secs(60),
                false => Duration::from_millis(silent_ms.saturating_sub(DEAD_AFTER_MS)),
            };
            reports.push(NodeReport {
                name: peer_name.clone(),
                peer: peer_name,
                alive,
                since,
                leaving: facts.leaving,
                ready: true,
                addresses: vec![format!("10.0.{}.{}", peer / 250, peer % 250)],
                cpu_millis: 16_000,
                memory_bytes: 64 << 30,
                pods: 200,
                arch: "amd64".into(),
                ..NodeReport::default()
            });
        }
        reports
    }

    pub(super) fn answer(&mut self, node: usize, to: usize, number: u64, answer: super::propose::Answer) {
        match to == node {
            true => self.on_answer_to_proposal(node, number, answer),
            false => self.send_work(node, to, Message::Answer { number, answer }),
        }
    }
}

/// Whatever was adopted meanwhile is overwritten.
fn forget_base(txn: &mut Txn) {
    for write in &mut txn.writes {
        if let Write::Put { expect, intent, .. } = write {
            *expect = Expect::Any;
            if let Some(intent) = intent {
                intent.base = None;
            }
        }
    }
}
