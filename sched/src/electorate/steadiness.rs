//! Which nodes are likely to stay, with hysteresis: a vote is not moved because somebody touched a mouse.
//!
//! Pure: the leader notes what nodes say of themselves, with the time, and asks here. Losing the name of a steady node takes a
//! while of being used or on battery; winning it back takes longer, so that a desktop whose owner comes and goes all
//! day stays on one side.

use std::collections::BTreeMap;

/// How patient to be with what nodes say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SteadinessRules {
    /// A steady node that says all this time that it is in use or on battery is not steady any more.
    pub lost_after_ms: u64,
    /// An unsteady node that says all this time that it is neither is steady again.
    pub regained_after_ms: u64,
}

impl Default for SteadinessRules {
    fn default() -> Self {
        Self { lost_after_ms: 60_000, regained_after_ms: 15 * 60_000 }
    }
}

/// What is remembered of one node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Memory {
    steady: bool,
    /// Since when it has been saying the opposite, without a break.
    doubted_since_ms: Option<u64>,
}

/// What the leader remembers of all. A new leader begins anew, and takes everybody for steady.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Steadiness(BTreeMap<String, Memory>);

impl Steadiness {
    /// Notes what a node says now: that nothing (neither battery nor owner) speaks against it, or that something does.
    /// Returns whether it counts as steady.
    pub fn note(&mut self, peer: &str, calm: bool, now_ms: u64, rules: &SteadinessRules) -> bool {
        let unknown = Memory { steady: true, doubted_since_ms: None };
        let memory = self.0.entry(peer.to_owned()).or_insert(unknown);
        if calm == memory.steady {
            memory.doubted_since_ms = None;
            return memory.steady;
        }
        let since = *memory.doubted_since_ms.get_or_insert(now_ms);
        let enough = if memory.steady { rules.lost_after_ms } else { rules.regained_after_ms };
        if now_ms.saturating_sub(since) >= enough {
            *memory = Memory { steady: calm, doubted_since_ms: None };
        }
        memory.steady
    }

    /// Forgets nodes that do not belong any more.
    pub fn retain(&mut self, belongs: impl Fn(&str) -> bool) {
        self.0.retain(|peer, _| belongs(peer));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const RULES: SteadinessRules = SteadinessRules { lost_after_ms: 60_000, regained_after_ms: 900_000 };

    /// What a node counts as, second by second, when it says these things for so many seconds each.
    fn seen(said: &[(bool, u64)]) -> Vec<bool> {
        let mut steadiness = Steadiness::default();
        let seconds = said.iter().flat_map(|(calm, seconds)| (0..*seconds).map(|_| *calm));
        seconds.zip(0..).map(|(calm, at)| steadiness.note("a", calm, at * 1_000, &RULES)).collect()
    }

    #[test]
    fn a_moment_at_the_mouse_changes_nothing() {
        let touched: Vec<(bool, u64)> = (0..50).flat_map(|_| [(false, 59), (true, 1)]).collect();
        assert!(seen(&touched).iter().all(|steady| *steady));
    }

    #[test]
    fn who_is_in_use_for_a_minute_has_to_be_left_alone_for_a_quarter_of_an_hour() {
        let seen = seen(&[(true, 10), (false, 100), (true, 899), (false, 1), (true, 1_000)]);
        let changes: Vec<usize> = (1..seen.len()).filter(|at| seen[*at] != seen[at - 1]).collect();
        assert_eq!(
            changes,
            [70, 1_910],
            "lost after a minute, regained after an unbroken quarter of an hour"
        );
    }

    #[test]
    fn who_left_is_forgotten() {
        let mut steadiness = Steadiness::default();
        steadiness.note("a", false, 0, &RULES);
        assert!(!steadiness.note("a", false, 60_000, &RULES));
        steadiness.retain(|_| false);
        assert!(steadiness.note("a", false, 61_000, &RULES), "nothing is held against a newcomer");
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]
        #[test]
        fn it_never_changes_more_often_than_the_rules_allow(said in proptest::collection::vec((any::<bool>(), 1..2_000u64), 1..40)) {
            let seen = seen(&said);
            let changes: Vec<usize> = (1..seen.len()).filter(|at| seen[*at] != seen[at - 1]).collect();
            for two in changes.windows(2) {
                let least = if seen[two[1]] { 900 } else { 60 };
                prop_assert!(two[1] - two[0] >= least, "{changes:?}");
            }
        }

        #[test]
        fn what_is_said_long_enough_is_believed(start in proptest::collection::vec((any::<bool>(), 1..2_000u64), 0..10), last: bool) {
            let mut said = start;
            said.push((last, 901));
            prop_assert_eq!(seen(&said).last().copied(), Some(last));
        }
    }
}
