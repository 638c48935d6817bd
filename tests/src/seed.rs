//! Numbers from a seed: the same seed makes the same choices on every machine and in every version.

use std::time::Duration;

/// `SplitMix64`: small, well spread, and never to change, since seeds are written into reports.
#[derive(Debug, Clone)]
pub struct Seed(u64);

impl Seed {
    /// Choices that this number alone decides.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// A source of its own for a part of the run, so that parts do not disturb each other's choices.
    #[must_use]
    pub fn part(&self, name: &str, number: usize) -> Self {
        let mut part = Self(self.0 ^ number as u64);
        for byte in name.bytes() {
            part.0 ^= u64::from(byte);
            part.0 = part.next();
        }
        part
    }

    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// A number below `end`, which must not be 0.
    pub fn below(&mut self, end: usize) -> usize {
        // The bias of a remainder is far below what anybody could notice here.
        (self.next() % end as u64) as usize
    }

    /// Whether something happens that happens in so many of a hundred cases.
    pub fn percent(&mut self, chance: usize) -> bool {
        self.below(100) < chance
    }

    /// One of these.
    ///
    /// # Panics
    /// When there is none.
    pub fn pick<'a, T>(&mut self, from: &'a [T]) -> &'a T {
        &from[self.below(from.len())]
    }

    /// A time between two, in whole milliseconds.
    pub fn between(&mut self, least_ms: u64, most_ms: u64) -> Duration {
        Duration::from_millis(least_ms + self.next() % (most_ms - least_ms + 1))
    }

    /// The same elements in another order.
    pub fn shuffled<T>(&mut self, mut elements: Vec<T>) -> Vec<T> {
        for end in (1..elements.len()).rev() {
            elements.swap(end, self.below(end + 1));
        }
        elements
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_always_makes_the_same_choices() {
        // The numbers that are published with the algorithm.
        let mut seed = Seed::new(1_234_567);
        let first = [seed.next(), seed.next(), seed.next()];
        assert_eq!(first, [6_457_827_717_110_365_317, 3_203_168_211_198_807_973, 9_817_491_932_198_370_423]);
        let mut parts = [Seed::new(7).part("client", 0), Seed::new(7).part("client", 1)];
        let [one, other] = parts.each_mut().map(|part| part.below(usize::MAX));
        assert_ne!(one, other);
    }

    #[test]
    fn shuffling_keeps_every_element() {
        let mut shuffled = Seed::new(3).shuffled((0..50).collect::<Vec<_>>());
        assert_ne!(shuffled, (0..50).collect::<Vec<_>>());
        shuffled.sort_unstable();
        assert_eq!(shuffled, (0..50).collect::<Vec<_>>());
    }
}
