//! The network between the machines: it delays, loses, reorders, doubles, and is cut in any shape.

use super::clock::Micros;
use super::random::Random;
use std::collections::BTreeSet;

#[derive(Clone, Debug)]
pub struct Network {
    random: Random,
    /// From, to: nothing passes that way. How often it was cut, so that overlapping cuts end one after the other.
    cuts: Vec<u8>,
    nodes: usize,
    pub lost_permille: u64,
    /// How long a message takes, in microseconds.
    pub delay: (Micros, Micros),
}

impl Network {
    pub fn new(nodes: usize, random: Random) -> Self {
        Self { random, cuts: vec![0; nodes * nodes], nodes, lost_permille: 0, delay: (100, 4_000) }
    }

    pub fn is_cut(&self, from: usize, to: usize) -> bool {
        self.cuts[from * self.nodes + to] > 0
    }

    pub fn cut(&mut self, from: usize, to: usize) {
        let cut = &mut self.cuts[from * self.nodes + to];
        *cut = cut.saturating_add(1);
    }

    pub fn mend(&mut self, from: usize, to: usize) {
        let cut = &mut self.cuts[from * self.nodes + to];
        *cut = cut.saturating_sub(1);
    }

    /// Every link that leads out of a side, both ways.
    pub fn between(&self, side: &BTreeSet<usize>) -> Vec<(usize, usize)> {
        let all = (0..self.nodes).flat_map(|from| (0..self.nodes).map(move |to| (from, to)));
        all.filter(|(from, to)| side.contains(from) != side.contains(to)).collect()
    }

    pub fn heal(&mut self) {
        self.cuts.fill(0);
        self.lost_permille = 0;
        self.delay = (100, 4_000);
    }

    /// When a message that is sent now arrives: never, once, or (where the sender did not hear that it had) twice.
    pub fn arrivals(&mut self, from: usize, to: usize) -> impl Iterator<Item = Micros> + use<> {
        let passes = from == to || (!self.is_cut(from, to) && !self.random.permille(self.lost_permille));
        let (low, high) = if from == to { (1, 50) } else { self.delay };
        // Now and then one is much later than the rest, and overtaken by many.
        let late = if from != to && self.random.permille(5) { 40 } else { 1 };
        let first = passes.then(|| self.random.within(low, high) * late);
        let again =
            (passes && from != to && self.random.permille(3)).then(|| self.random.within(low, high * 30));
        first.into_iter().chain(again)
    }
}
