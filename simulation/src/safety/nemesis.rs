//! Faults, as they happen to the machines.

use super::super::faults::{Fault, Moment, Then, What};
use super::node::isolate;
use super::world::{Event, MS, World};
use std::collections::BTreeSet;

impl World<'_> {
    pub fn begin_fault(&mut self, fault: Fault) {
        if self.healed_at.is_some() {
            return;
        }
        self.trace.note(self.queue.now(), "*", || format!("{:?} for {} ms", fault.what, fault.lasts / MS));
        *self.stats.faults.entry(fault.what.kind()).or_default() += 1;
        match fault.what.clone() {
            What::Crash { nodes, older_view } => {
                for node in nodes {
                    self.take_down(node, older_view, fault.lasts);
                }
            }
            What::LoseWord(node) => {
                self.take_down(node, true, fault.lasts);
                self.machines[node].disk.word_lost = true;
            }
            What::Partition(side) => self.cut_for(self.network.between(&side), fault.lasts),
            What::OneWay(from, to) => self.cut_for(vec![(from, to)], fault.lasts),
            What::Flap(node) => {
                let links = isolate(&self.network, node);
                let left = (fault.lasts / (700 * MS)) as u32 * 2;
                self.flip(node, left, links, false);
            }
            What::Suspend(node) => self.suspend(node, fault.lasts),
            What::Leave(node) => {
                let now_ms = self.ms(node);
                if let Some(process) = &mut self.machines[node].process {
                    process.leaving_since_ms.get_or_insert(now_ms);
                }
            }
            What::Evict(node) => self.evict(node),
            What::Loss(permille) => {
                self.network.lost_permille = permille;
                self.end_later(&fault);
            }
            What::Slow(upto) => {
                self.network.delay = (1_000, upto);
                self.end_later(&fault);
            }
            What::When(..) => self.lurking.push(fault),
        }
    }

    fn end_later(&mut self, fault: &Fault) {
        let index = self.plan.faults.iter().position(|other| other == fault);
        if let Some(index) = index {
            self.queue.after(fault.lasts, Event::Ends(index));
        }
    }

    pub fn end_fault(&mut self, what: &What) {
        match what {
            What::Loss(_) => self.network.lost_permille = 0,
            What::Slow(_) => self.network.delay = (100, 4 * MS),
            _ => {}
        }
    }

    fn cut_for(&mut self, links: Vec<(usize, usize)>, lasts: u64) {
        links.iter().for_each(|(from, to)| self.network.cut(*from, *to));
        self.queue.after(lasts, Event::Mend(links));
    }

    pub fn flip(&mut self, node: usize, left: u32, links: Vec<(usize, usize)>, cut: bool) {
        if self.healed_at.is_some() {
            return;
        }
        for (from, to) in &links {
            match cut {
                true => self.network.mend(*from, *to),
                false => self.network.cut(*from, *to),
            }
        }
        // Never left out of reach.
        if left > 0 || !cut {
            let after = self.random.within(100 * MS, 1_200 * MS);
            let left = left.saturating_sub(1);
            self.queue.after(after, Event::Flips { node, left, links, cut: !cut });
        }
    }

    fn take_down(&mut self, node: usize, older_view: bool, lasts: u64) {
        if self.machines[node].process.is_none() {
            return;
        }
        self.crash(node, older_view);
        let incarnation = self.machines[node].incarnation;
        self.queue.after(lasts, Event::Up { node, incarnation });
    }

    fn suspend(&mut self, node: usize, lasts: u64) {
        let machine = &mut self.machines[node];
        if machine.acts() {
            machine.asleep = true;
            let incarnation = machine.incarnation;
            self.note(node, || "falls asleep".into());
            self.queue.after(lasts, Event::Up { node, incarnation });
        }
    }

    /// People remove a node through whoever acts.
    fn evict(&mut self, evicted: usize) {
        let leader = (0..self.plan.nodes).find(|node| {
            *node != evicted
                && self.machines[*node].acts()
                && self.acts(*node)
                && !self.has_open_roster(*node)
                && self.can_spare(*node, evicted)
        });
        let Some(leader) = leader else { return };
        let name = self.machines[evicted].name.clone();
        let view = self.process(leader).view.map(|view| self.ledger.get(view).roster.clone());
        let Some(roster) = view else { return };
        self.propose_roster(leader, roster.evicting(&name, &name));
        self.stats.evicted += 1;
        // It lives, and does not know; nobody who has heard of it listens to it.
    }

    /// Something happened for which a fault has waited.
    pub fn lurk(&mut self, moment: Moment, node: usize) {
        let waits = |fault: &Fault| matches!(fault.what, What::When(when, _) if when == moment);
        let Some(at) = self.lurking.iter().position(waits) else { return };
        let Fault { lasts, what, .. } = self.lurking.remove(at);
        let What::When(_, then) = what else { return };
        self.note(node, || format!("{moment:?}: {then:?} for {} ms", lasts / MS));
        match then {
            Then::Crash => self.take_down(node, true, lasts),
            Then::Suspend => self.suspend(node, lasts),
            Then::Isolate => self.cut_for(isolate(&self.network, node), lasts),
            Then::Mute => {
                let links = isolate(&self.network, node);
                let out: BTreeSet<_> = links.into_iter().filter(|(from, _)| *from == node).collect();
                self.cut_for(out.into_iter().collect(), lasts);
            }
        }
    }
}
