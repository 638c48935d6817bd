//! What will happen, in order.

use super::clock::Micros;
use std::cmp::Reverse;
use std::collections::BinaryHeap;

/// Events by time; those of the same moment in the order in which they were made.
#[derive(Debug)]
pub struct Queue<E> {
    waiting: BinaryHeap<Reverse<Waiting<E>>>,
    made: u64,
    now: Micros,
}

#[derive(Debug)]
struct Waiting<E> {
    at: Micros,
    order: u64,
    event: E,
}

impl<E> PartialEq for Waiting<E> {
    fn eq(&self, other: &Self) -> bool {
        (self.at, self.order) == (other.at, other.order)
    }
}

impl<E> Eq for Waiting<E> {}

impl<E> PartialOrd for Waiting<E> {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl<E> Ord for Waiting<E> {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        (self.at, self.order).cmp(&(other.at, other.order))
    }
}

impl<E> Default for Queue<E> {
    fn default() -> Self {
        Self { waiting: BinaryHeap::new(), made: 0, now: 0 }
    }
}

impl<E> Queue<E> {
    pub fn now(&self) -> Micros {
        self.now
    }

    pub fn after(&mut self, micros: Micros, event: E) {
        self.at(self.now + micros, event);
    }

    pub fn at(&mut self, at: Micros, event: E) {
        self.made += 1;
        self.waiting.push(Reverse(Waiting { at: at.max(self.now), order: self.made, event }));
    }

    /// The next event; it is then the time at which that happens.
    pub fn pop(&mut self) -> Option<E> {
        let Reverse(next) = self.waiting.pop()?;
        self.now = next.at;
        Some(next.event)
    }
}
