//! When a node that could not found its group anew asks again.

/// After the first attempt; twice as long after each, up to `DOUBLINGS` times: a node that hears no leader which all others hear
/// may stay so for long.
const PAUSE_MS: u64 = 700;
const DOUBLINGS: u32 = 3;

/// A node's attempts at a founding, none of which has come to anything yet.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Attempts {
    begun: u32,
    due_ms: u64,
    reached: u64,
}

impl Attempts {
    /// The highest epoch that a peer has spoken of when it refused; the next attempt is to be beyond it.
    pub fn reached(&self) -> u64 {
        self.reached
    }

    pub fn is_due(&self, now_ms: u64) -> bool {
        now_ms >= self.due_ms
    }

    /// One begins. `drawn` is a random number from 0 to 1, which makes the pause after it up to a quarter shorter or longer: of
    /// two that ask in step each could be an epoch behind what the other has just pledged itself to, for ever.
    pub fn begin(&mut self, drawn: f64, now_ms: u64) {
        let pause_ms = (PAUSE_MS << self.begun) as f64 * (0.75 + drawn.clamp(0.0, 1.0) / 2.0);
        self.due_ms = now_ms.saturating_add(pause_ms as u64);
        self.begun = (self.begun + 1).min(DOUBLINGS);
    }

    /// A peer refused because it has reached that epoch. It would perhaps pledge itself to a later one, and is soon asked: the
    /// longer pauses are for those who refuse.
    pub fn passed(&mut self, epoch: u64, now_ms: u64) {
        self.reached = self.reached.max(epoch);
        self.due_ms = self.due_ms.min(now_ms.saturating_add(PAUSE_MS));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn pauses_grow_to_a_bound() {
        let mut attempts = Attempts::default();
        let mut pauses = Vec::new();
        for now_ms in [0, 10_000, 20_000, 30_000, 40_000] {
            assert!(attempts.is_due(now_ms));
            attempts.begin(0.5, now_ms);
            pauses.push((now_ms..).find(|later_ms| attempts.is_due(*later_ms)).unwrap() - now_ms);
        }
        assert_eq!(pauses, [700, 1_400, 2_800, 5_600, 5_600]);
    }

    #[test]
    fn who_is_refused_for_the_epoch_alone_asks_soon_and_beyond_it() {
        let mut attempts = Attempts::default();
        (0..4).for_each(|n| attempts.begin(1.0, n));
        attempts.passed(7, 100);
        attempts.passed(5, 100);
        assert_eq!(attempts.reached(), 7);
        assert!(!attempts.is_due(799) && attempts.is_due(800));
        attempts.passed(8, 500);
        assert!(attempts.is_due(800), "it is never put off");
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(512) })]
        /// Two of three desktops are left. One holds less: its asking moves itself on to a further epoch, and is refused. The
        /// other holds the newest, and may found as soon as it asks for an epoch that the first has not reached.
        #[test]
        fn two_that_ask_in_step_do_not_keep_each_other_from_it(
            phase_ms in 0..6_000u64,
            drawn in proptest::collection::vec(0.0..1.0, 64),
        ) {
            let (mut newest, mut other) = (Attempts::default(), Attempts::default());
            let (mut pledged, mut drawn) = (0, drawn.into_iter().cycle());
            let mut next = || drawn.next().unwrap_or_default();
            for now_ms in 0..30_000 {
                if other.is_due(now_ms) {
                    other.begin(next(), now_ms);
                    pledged += 1;
                }
                if now_ms >= phase_ms && newest.is_due(now_ms) {
                    newest.begin(next(), now_ms);
                    if newest.reached() + 1 > pledged {
                        return Ok(());
                    }
                    newest.passed(pledged, now_ms);
                }
            }
            prop_assert!(false, "nobody founds the group: {pledged} epochs were pledged away");
        }
    }
}
