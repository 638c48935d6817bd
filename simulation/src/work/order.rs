//! What is ordered: transactions in the entries of the logs, applied by every voter and followed by everybody else.

use super::Bend;
use super::desk::Life;
use super::lead::Waiter;
use crate::safety::ledger::{Content, Entry, Id, Ledger};
use crate::safety::world::{World, name};
use gaggle_sched::electorate::roster::Roster;
use gaggle_sched::state::{
    Adopted, Applied, Change, Expect, Frozen, Key, Lineage, Refused, Resource, Store, Txn, Write,
};
use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;
use std::sync::Arc;

/// A state is kept whole at least as often as every so many entries, so that any other is soon made again.
const CHECKPOINT_EVERY: u32 = 64;

/// What came of an entry, as who applied it first found.
pub struct Came {
    pub changes: Vec<Arc<Change>>,
}

/// States and changes of everything that was committed.
#[derive(Default)]
pub struct Archive {
    checkpoints: BTreeMap<Id, Frozen>,
    came: BTreeMap<Id, Rc<Came>>,
    /// Of each founding: the indexes of Jobs (by uid) that were seen to be finished.
    finished: BTreeMap<Lineage, BTreeMap<String, BTreeSet<String>>>,
}

impl Archive {
    /// The last entry up to this one by which readers saw something change.
    pub fn last_seen(&self, ledger: &Ledger, id: Id) -> Id {
        let changed = |(id, entry): &(Id, &Entry)| {
            matches!(entry.what, Content::Founding)
                || self.came.get(id).is_some_and(|came| !came.changes.is_empty())
        };
        ledger.back_from(id).find(changed).map_or(id, |(id, _)| id)
    }

    /// The state that holds everything up to an entry.
    pub fn state_at(&self, ledger: &Ledger, id: Id, bend: Bend) -> Store {
        let mut path = Vec::new();
        let mut store = None;
        for (at, entry) in ledger.back_from(id) {
            if let Some(frozen) = self.checkpoints.get(&at) {
                store = Some(Store::from_frozen(frozen.clone()));
                break;
            }
            path.push(entry);
        }
        let mut store = store.unwrap_or_default();
        for entry in path.into_iter().rev() {
            apply(&mut store, entry, bend);
        }
        store
    }
}

/// What an entry does to a state.
fn apply(store: &mut Store, entry: &Entry, bend: Bend) -> Vec<Result<Applied, Refused>> {
    let results = match &entry.what {
        Content::Txns(txns) if bend == Bend::NoCompare => {
            txns.iter().map(|txn| store.apply(&without_compare(txn))).collect()
        }
        Content::Txns(txns) => txns.iter().map(|txn| store.apply(txn)).collect(),
        Content::Roster(roster) => {
            let write =
                Write::Put { key: Roster::key(), value: roster.object(), expect: Expect::Any, intent: None };
            vec![store.apply(&write.into())]
        }
        Content::Founding | Content::Blank | Content::Voters(_) | Content::Write => Vec::new(),
    };
    store.set_term(entry.term);
    results
}

fn without_compare(txn: &Txn) -> Txn {
    let mut txn = txn.clone();
    for write in &mut txn.writes {
        if let Write::Put { expect, intent, .. } = write {
            if matches!(expect, Expect::Revision(_)) {
                *expect = Expect::Any;
            }
            *intent = intent.take().map(|intent| Adopted { base: None, ..intent });
        }
    }
    txn
}

/// Who of the machines has an entry in its log or its view.
pub fn held_by(world: &World<'_>, id: Id) -> BTreeSet<usize> {
    let holds = |machine: &crate::safety::node::Machine| {
        let head = machine.disk.part.as_ref().map(|part| part.head);
        let view = machine.process.as_ref().and_then(|process| process.view);
        head.into_iter().chain(view).any(|all| world.ledger.holds(all, id))
    };
    (0..world.machines.len()).filter(|node| holds(&world.machines[*node])).collect()
}

impl World<'_> {
    fn bend(&self) -> Bend {
        self.plan.work.as_ref().map_or(Bend::None, |load| load.bend)
    }

    pub fn state_at(&self, id: Id) -> Store {
        self.work.archive.state_at(&self.ledger, id, self.bend())
    }

    /// A group begins at this entry, with what `before` holds.
    pub fn work_founded(&mut self, before: Option<Id>, id: Id) {
        if self.plan.work.is_none() {
            return;
        }
        let mut store = before.map(|before| self.state_at(before)).unwrap_or_default();
        let lineage = (*self.ledger.get(id).lineage).clone();
        store.found(lineage.clone());
        self.work.archive.checkpoints.insert(id, store.freeze());
        let finished = finished_indexes(&store);
        self.work.archive.finished.insert(lineage, finished);
    }

    /// A node's view went from one entry to another.
    pub fn work_view(&mut self, node: usize, old: Option<Id>, new: Id) {
        if self.plan.work.is_none() || self.work.desks[node].life.is_none() || old == Some(new) {
            return;
        }
        let lineage = self.ledger.get(new).lineage.clone();
        let linear =
            old.filter(|old| self.ledger.get(*old).lineage == lineage && self.ledger.holds(new, *old));
        let Some(old) = linear else {
            let store = self.state_at(new);
            let life = self.work.life(node);
            life.store.replace(store, (*lineage).clone());
            life.knows_ordered = true;
            return;
        };
        let votes = self.part(node).is_some();
        if votes && !self.work.life(node).knows_ordered {
            let store = self.state_at(old);
            let life = self.work.life(node);
            life.store.learn_ordered(store);
            life.knows_ordered = true;
        }
        let mut path: Vec<Id> =
            self.ledger.back_from(new).take_while(|(id, _)| *id != old).map(|(id, _)| id).collect();
        path.reverse();
        for id in path {
            match self.work.archive.came.get(&id).cloned().filter(|_| !votes) {
                Some(came) => self.follow_entry(node, id, &came),
                None => self.apply_entry(node, id),
            }
        }
    }

    /// A follower gets what a voter made of an entry.
    fn follow_entry(&mut self, node: usize, id: Id, came: &Came) {
        let term = self.ledger.get(id).term;
        let gaps = self.bend() == Bend::Gaps;
        let missed = gaps && self.work.random().permille(20);
        let Life { store, knows_ordered, .. } = self.work.life(node);
        *knows_ordered = false;
        let skipped = usize::from(missed);
        let before = store.revision();
        came.changes.iter().skip(skipped).for_each(|change| store.follow_shared(change));
        store.set_term(term);
        let mine = store.changes_after(before).unwrap_or_default();
        let was = |change: &Change| change.previous.as_ref().map(|object| object.revision());
        let others = came.changes.iter().skip(skipped);
        if let Some((mine, other)) = mine.iter().zip(others).find(|(mine, other)| was(mine) != was(other)) {
            let (key, was, there) = (mine.key.clone(), was(mine), was(other));
            let what = format!("{} had {key} at {was:?}, others at {there:?}", name(node));
            self.violated("views are equal at the same revision", what);
        }
    }

    fn apply_entry(&mut self, node: usize, id: Id) {
        let bend = self.bend();
        let entry = self.ledger.get(id);
        let store = &mut self.work.desks[node].life.as_mut().expect("checked by the caller").store;
        let before = store.revision();
        let results = apply(store, entry, bend);
        let changes = store.changes_after(before).unwrap_or_default();
        let (lineage, what, deep) = (entry.lineage.clone(), entry.what.clone(), entry.depth);
        match self.work.archive.came.get(&id).cloned() {
            Some(came) => self.compare_with(node, &came, &changes),
            None => {
                if deep.is_multiple_of(CHECKPOINT_EVERY) {
                    let frozen = self.work.life(node).store.freeze();
                    self.work.archive.checkpoints.insert(id, frozen);
                }
                self.stats.changes += changes.len() as u64;
                self.check_compared(&what, &results, &changes);
                self.check_indexes(&lineage, &changes);
                self.work.archive.came.insert(id, Rc::new(Came { changes }));
            }
        }
        let waiting = match &mut self.work.life(node).duties {
            Some(duties) => duties.ordering.remove(&id).unwrap_or_default(),
            None => Vec::new(),
        };
        for (waiter, result) in waiting.into_iter().zip(results) {
            self.tell_outcome(node, waiter, result, id);
        }
    }

    fn tell_outcome(&mut self, node: usize, waiter: Waiter, result: Result<Applied, Refused>, id: Id) {
        if let (Waiter::Peer { from, number }, Ok(_)) = (&waiter, &result) {
            self.note_holders(*from, *number, id);
        }
        self.settle_waiter(node, waiter, result);
    }

    /// What two make of the same entry is the same.
    fn compare_with(&mut self, node: usize, came: &Came, changes: &[Arc<Change>]) {
        let same = came.changes.len() == changes.len()
            && came.changes.iter().zip(changes).all(|(a, b)| {
                let value = |change: &Change| change.object.as_ref().map(|object| object.value().clone());
                (a.revision, &a.key) == (b.revision, &b.key) && value(a) == value(b)
            });
        if !same {
            let what = format!("{} makes {changes:?} of what others made {:?} of", name(node), came.changes);
            self.violated("views are equal at the same revision", what);
        }
    }

    /// A write that was made for a revision took place on that revision.
    fn check_compared(
        &mut self,
        what: &Content,
        results: &[Result<Applied, Refused>],
        changes: &[Arc<Change>],
    ) {
        let Content::Txns(txns) = what else { return };
        for (txn, result) in txns.iter().zip(results) {
            let [Write::Put { key, expect: Expect::Revision(wanted), .. }] = &txn.writes[..] else {
                continue;
            };
            let Ok(applied) = result else { continue };
            let Some(change) = changes.iter().find(|change| change.revision == applied.revision) else {
                // Sent twice: it took place before.
                continue;
            };
            let found = change.previous.as_ref().map(|object| object.revision());
            if change.key == *key && found != Some(*wanted) {
                let what = format!("{key} was {found:?}, and a write made for {wanted} took place");
                self.violated("compare-and-set is linearizable", what);
            }
        }
    }

    /// No pod is made for an index that is finished.
    fn check_indexes(&mut self, lineage: &Lineage, changes: &[Arc<Change>]) {
        let finished = self.work.archive.finished.entry(lineage.clone()).or_default();
        let mut again = None;
        for change in changes {
            let Some(object) = &change.object else { continue };
            match change.key.resource.as_str() {
                "jobs.batch" => learn_finished(finished, object),
                "pods" if change.previous.is_none() => {
                    let index = object.annotation("batch.kubernetes.io/job-completion-index");
                    let owner = object.owner_uids().next();
                    let (Some(index), Some(owner)) = (index, owner) else { continue };
                    if finished.get(owner).is_some_and(|done| done.contains(index)) {
                        again = Some(format!("{} is made for index {index}", change.key));
                    }
                }
                _ => {}
            }
        }
        if let Some(what) = again {
            self.violated("a finished index of a Job does not run again", what);
        }
    }

    /// The intent of what a node's view and its log hold goes into its documents, before both end.
    pub fn work_keep_intent(&mut self, node: usize) {
        if self.plan.work.is_none() || self.work.desks[node].life.is_none() {
            return;
        }
        let store = &self.work.life(node).store;
        let known = match store.changes_after(Default::default()) {
            Ok(changes) => changes,
            Err(expired) => store.changes_after(expired.oldest).unwrap_or_default(),
        };
        let mut kept: Vec<(Key, Vec<u8>)> = known.iter().filter_map(|change| intent_of(change)).collect();
        if let Some(part) = &self.machines[node].disk.part {
            let mut store = self.state_at(part.base);
            let (from, bend) = (store.revision(), self.bend());
            let log: Vec<&Entry> = self
                .ledger
                .back_from(part.head)
                .take_while(|(id, _)| *id != part.base)
                .map(|(_, e)| e)
                .collect();
            log.into_iter().rev().for_each(|entry| drop(apply(&mut store, entry, bend)));
            kept.extend(store.changes_after(from).unwrap_or_default().iter().filter_map(|c| intent_of(c)));
        }
        for (key, change) in kept {
            self.apply_change(node, &key.to_string(), &change);
        }
    }
}

fn intent_of(change: &Change) -> Option<(Key, Vec<u8>)> {
    let intent = change.intent.as_ref().filter(|intent| !intent.change.is_empty())?;
    Some((change.key.clone(), intent.change.clone()))
}

fn finished_indexes(store: &Store) -> BTreeMap<String, BTreeSet<String>> {
    let mut finished = BTreeMap::new();
    for (_, job) in store.list(&Resource::new("batch", "jobs"), None) {
        learn_finished(&mut finished, job);
    }
    finished
}

fn learn_finished(finished: &mut BTreeMap<String, BTreeSet<String>>, job: &Arc<gaggle_sched::state::Object>) {
    let Some(text) = job.value().pointer("/status/completedIndexes").and_then(|text| text.as_str()) else {
        return;
    };
    let done = finished.entry(job.uid().to_owned()).or_default();
    for part in text.split(',').filter(|part| !part.is_empty()) {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        let (Ok(first), Ok(last)) = (first.parse::<u32>(), last.parse::<u32>()) else { continue };
        done.extend((first..=last).map(|index| index.to_string()));
    }
}
