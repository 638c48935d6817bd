//! Intent documents: changes are applied, spread, compared.

use super::Message;
use crate::clock::Micros;
use crate::safety::world::World;
use gaggle::flock::adoption::Said;
use gaggle_gossip::intent::KubernetesLists;
use gaggle_gossip::intent::replica::{self, Held, Replica};
use gaggle_gossip::intent::{Change, Heads};
use gaggle_sched::state::{Adopted, Expired, Seen};
use std::collections::HashMap;
use std::rc::Rc;

/// How often a desktop tells some other one what it has.
const COMPARE_EVERY_MS: u64 = 1_000;
const BUDGET: usize = 1 << 20;
/// 2026-01-01, for documents' clocks.
const BEGAN_MS: u64 = 1_767_225_600_000;

/// The old document by its place in memory, the key, the change.
type Question = (usize, String, Vec<u8>);
/// The old one, so that nothing else comes to its place, and the new one.
type Answer = (Option<Held>, Option<Held>);

/// Applying the same change to the same document gives the same one: it is done once.
#[derive(Default)]
pub struct Memo {
    applied: HashMap<Question, Answer>,
    /// Documents without changes that wait, by key, incarnation and heads.
    alike: HashMap<(String, u32, Heads), Held>,
}

impl Memo {
    fn apply(&mut self, old: Option<&Held>, key: &str, change: &[u8], now_ms: u64) -> Option<Held> {
        let place = old.map_or(0, |old| std::sync::Arc::as_ptr(old) as usize);
        let question = (place, key.to_owned(), change.to_vec());
        if let Some((_, new)) = self.applied.get(&question) {
            return new.clone();
        }
        let new = replica::apply(old, change, &KubernetesLists, now_ms).ok().flatten();
        let new = new.map(|new| match (replica::is_whole(&new), replica::heads(&new)) {
            (true, Some(heads)) => {
                let alike = (key.to_owned(), replica::incarnation(&new), heads);
                self.alike.entry(alike).or_insert(new).clone()
            }
            _ => new,
        });
        self.applied.insert(question, (old.cloned(), new.clone()));
        new
    }
}

pub fn now_ms(now: Micros) -> u64 {
    BEGAN_MS + now / 1_000
}

pub fn adopted(change: Change) -> Adopted {
    Adopted { change: change.bytes, heads: change.heads, base: change.base }
}

pub fn said(held: Option<&Held>) -> Said {
    Said {
        buried: replica::is_buried(held),
        deleted: replica::is_deleted(held),
        heads: held.and_then(replica::heads),
    }
}

impl World<'_> {
    pub fn apply_change(&mut self, node: usize, key: &str, change: &[u8]) {
        let now_ms = now_ms(self.queue.now());
        let old = self.work.desks[node].documents.get(key).cloned();
        let Some(new) = self.work.memo.apply(old.as_ref(), key, change, now_ms) else { return };
        let desk = &mut self.work.desks[node];
        Rc::make_mut(&mut desk.documents).set(key.to_owned(), new);
        if let Some(life) = &mut desk.life {
            life.documents_changed += 1;
        }
    }

    /// Brings the changes of committed writes into this node's documents.
    pub fn take_intent(&mut self, node: usize) {
        let life = self.work.life(node);
        let changes = match life.store.changes_since(life.documents_seen) {
            Ok(changes) => changes,
            Err(Expired { oldest }) => {
                life.documents_seen = Seen { generation: life.store.generation(), revision: oldest };
                life.store.changes_since(life.documents_seen).unwrap_or_default()
            }
        };
        let Some(last) = changes.last() else { return };
        life.documents_seen.revision = last.revision;
        for change in &changes {
            if let Some(intent) = change.intent.as_ref().filter(|intent| !intent.change.is_empty()) {
                self.apply_change(node, &change.key.to_string(), &intent.change);
            }
        }
    }

    /// Tells another one what is in the documents here.
    pub fn exchange(&mut self, node: usize) {
        let now_ms = self.ms(node);
        if now_ms < self.work.life(node).exchange_ms {
            return;
        }
        let wait_ms = self.work.random().within(COMPARE_EVERY_MS / 2, COMPARE_EVERY_MS * 3 / 2);
        self.work.life(node).exchange_ms = now_ms + wait_ms;
        let peers = self.connected_peers(node);
        if !peers.is_empty() {
            let peer = *self.work.random().pick(&peers);
            let documents = self.work.desks[node].documents.clone();
            self.send_work(node, peer, Message::Documents(documents));
        }
    }

    pub fn connected_peers(&self, node: usize) -> Vec<usize> {
        (0..self.plan.nodes).filter(|peer| *peer != node && self.is_connected(node, *peer)).collect()
    }

    pub fn merge_documents(&mut self, node: usize, theirs: &Replica) {
        let missing: Vec<(String, Vec<u8>)> = {
            let mine = &self.work.desks[node].documents;
            let different = theirs
                .iter()
                .filter(|(key, held)| mine.get(key).is_none_or(|mine| !std::sync::Arc::ptr_eq(mine, held)));
            let frames = different
                .filter_map(|(key, held)| Some((key.clone(), replica::since(held, mine.get(key), BUDGET)?)));
            frames.collect()
        };
        for (key, frame) in missing {
            self.apply_change(node, &key, &frame);
        }
    }
}
