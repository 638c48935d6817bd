//! Keys waiting to be reconciled: each once, at the earliest time that anybody asked for, with back-off. Times are
//! counted from when the turn began.

use crate::state::Key;
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

type Item = (usize, Key);

/// A delaying work queue. Bounded by the number of objects: an item stands in it once.
#[derive(Default)]
pub(super) struct Queue {
    due: BTreeSet<(Duration, Item)>,
    when: BTreeMap<Item, Duration>,
    failures: BTreeMap<Item, u32>,
}

impl Queue {
    /// Asks for `key` at `at`, or earlier if it was asked for earlier.
    pub fn add(&mut self, controller: usize, key: Key, at: Duration) {
        let item = (controller, key);
        if let Some(&before) = self.when.get(&item) {
            if before <= at {
                return;
            }
            self.due.remove(&(before, item.clone()));
        }
        self.when.insert(item.clone(), at);
        self.due.insert((at, item));
    }

    /// Asks again after a failure: `min` doubled for each failure in a row, at most `max`.
    pub fn retry(&mut self, controller: usize, key: Key, now: Duration, min: Duration, max: Duration) {
        let failures = self.failures.entry((controller, key.clone())).or_default();
        let wait = min.saturating_mul(1 << (*failures).min(16)).min(max);
        *failures = failures.saturating_add(1);
        self.add(controller, key, now + wait);
    }

    /// Forgets the failures of a key that went well.
    pub fn settled(&mut self, controller: usize, key: &Key) {
        self.failures.remove(&(controller, key.clone()));
    }

    pub fn take(&mut self, most: usize, now: Duration) -> Vec<Item> {
        let mut taken = Vec::new();
        while taken.len() < most {
            match self.due.first() {
                Some((at, _)) if *at <= now => {}
                _ => break,
            }
            if let Some((_, item)) = self.due.pop_first() {
                self.when.remove(&item);
                taken.push(item);
            }
        }
        taken
    }

    pub fn has_ready(&self, now: Duration) -> bool {
        self.due.first().is_some_and(|(at, _)| *at <= now)
    }

    pub fn next_due(&self) -> Option<Duration> {
        self.due.first().map(|(at, _)| *at)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::state::Resource;

    fn key(name: &str) -> Key {
        Key::new(Resource::fixed("pods"), "default", name)
    }

    #[test]
    fn a_key_stands_once_at_its_earliest_time() {
        let (mut queue, now) = (Queue::default(), Duration::ZERO);
        queue.add(0, key("a"), now + Duration::from_secs(9));
        queue.add(0, key("a"), now);
        queue.add(0, key("a"), now + Duration::from_secs(1));
        assert_eq!(queue.take(10, now), vec![(0, key("a"))]);
        assert_eq!(queue.next_due(), None);
    }

    #[test]
    fn failures_back_off_to_a_bound_and_are_forgotten() {
        let (mut queue, now) = (Queue::default(), Duration::ZERO);
        let (min, max) = (Duration::from_millis(20), Duration::from_secs(5));
        let mut waits = Vec::new();
        for _ in 0..20 {
            queue.retry(0, key("a"), now, min, max);
            waits.push(queue.next_due().unwrap() - now);
            queue.take(1, now + max);
        }
        assert_eq!(waits[..3], [min, 2 * min, 4 * min]);
        assert_eq!(waits[19], max);
        queue.settled(0, &key("a"));
        queue.retry(0, key("a"), now, min, max);
        assert_eq!(queue.next_due(), Some(now + min));
    }
}
