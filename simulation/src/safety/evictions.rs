//! Who was removed for good ends, and what one group has decided the next one hears. As the daemon's `flock::evicted` has it.

use super::message::Message;
use super::world::{World, index};
use std::rc::Rc;

const BRING_EVERY_MS: u64 = 2_000;

impl World<'_> {
    pub fn tend_evictions(&mut self, node: usize) {
        let Some(process) = &self.machines[node].process else { return };
        let (Some(view), Some(of)) = (process.view, process.of.clone()) else { return };
        let entry = self.ledger.get(view);
        let (roster, lineage) = (Rc::clone(&entry.roster), Rc::clone(&entry.lineage));
        self.machines[node].disk.evicted.extend(roster.evicted.keys().cloned());
        if of.group == lineage.group && roster.evicted.contains_key(&self.machines[node].name) {
            self.note(node, || "was evicted, and ends".into());
            self.crash(node, false);
            return;
        }
        let now_ms = self.ms(node);
        let acting = self.acting(node).filter(|_| of == lineage);
        let (Some(leader), true) = (acting, now_ms >= self.process(node).next.eviction_ms) else { return };
        let evicted = &self.machines[node].disk.evicted;
        let Some(missing) = evicted.iter().find(|peer| !roster.evicted.contains_key(*peer)).cloned() else {
            return;
        };
        self.process(node).next.eviction_ms = now_ms + BRING_EVERY_MS;
        match leader == node {
            true => self.order_eviction(node, &missing),
            false => self.send(node, leader, Message::Evict(missing)),
        }
    }

    /// Whoever leads evicts a peer whose vote can be spared.
    pub fn order_eviction(&mut self, node: usize, peer: &str) {
        if !self.acts(node) || self.has_open_roster(node) || !self.can_spare(node, index(peer)) {
            return;
        }
        let Some(view) = self.process(node).view else { return };
        let roster = self.ledger.get(view).roster.clone();
        if !roster.evicted.contains_key(peer) {
            self.note(node, || format!("evicts {peer}, as another group had decided"));
            self.propose_roster(node, roster.evicting(peer, peer));
            self.stats.brought += 1;
        }
    }

    /// Whether the other voters that answer are more than half of all, and so are the others who belong.
    pub fn can_spare(&self, node: usize, peer: usize) -> bool {
        let view = self.machines[node].process.as_ref().and_then(|process| process.view);
        let Some(view) = view.map(|view| self.ledger.get(view)) else { return false };
        let answers = |other: usize| other != peer && (other == node || self.is_alive(node, other));
        let voters = &view.voters.now;
        let left = voters.iter().filter(|voter| answers(**voter)).count();
        (!voters.contains(&peer) || left * 2 > voters.len())
            && view.roster.has_majority(|other| answers(index(other)))
    }
}
