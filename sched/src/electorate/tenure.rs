//! Whether a node's part in the electorate is over: a voter that was voted out is not always told, and sees it when the
//! others' voters do not name it.
//!
//! A part that is over is dropped with its log, so the answer must be no while the group may still count on that log: only a
//! change of the voters that is committed has voted anybody out. One that is in a log and not committed may be replaced by
//! another leader's, who then counts on every voter of before.

/// How patient to be before a part that is not named is dropped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TenureRules {
    /// A part that was named: the change may be one of several.
    pub voted_out_after_ms: u64,
    /// One that never was: a newcomer that was invited. It may be invited again.
    pub never_voted_after_ms: u64,
}

impl Default for TenureRules {
    fn default() -> Self {
        Self { voted_out_after_ms: 500, never_voted_after_ms: 60_000 }
    }
}

/// What the part's own log says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Own {
    /// This node is among the voters, of the newest change or of the last committed one.
    pub names: bool,
    /// By the newest change in the log a leader is bringing this node in, and it is no voter yet.
    pub learns: bool,
    /// The part knows a leader.
    pub led: bool,
    /// Index of the newest change of the voters in the log, committed or not.
    pub named_at: u64,
}

/// What another node of the group says that knows its leader.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Theirs {
    /// This node is among its voters.
    pub names: bool,
    /// Index of the last entry in its state.
    pub applied: u64,
}

/// What a node remembers of its part's place among the voters. A new part begins with a new one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tenure {
    has_voted: bool,
    unnamed_since_ms: Option<u64>,
}

impl Tenure {
    /// Whether to drop the part. `theirs`: the newest word that is not stale. To be asked again and again, with a clock that
    /// does not go back.
    pub fn is_over(&mut self, own: Own, theirs: Option<Theirs>, rules: &TenureRules, now_ms: u64) -> bool {
        // A log that is still catching up may name this node as the voter that it was once: only what the leader says
        // as well makes it one, or it would be taken for voted out before it can ever be voted in.
        self.has_voted |= own.names && theirs.is_none_or(|theirs| theirs.names);
        // Voted out and not gone yet, it is wanted again: whoever brings it in counts on what it is given now.
        self.has_voted &= own.names || !own.learns;
        let unnamed = match theirs {
            // Voted out by a change that is committed, and not merely unknown to one who is behind. Or named by the others
            // and not by its own log: they count on a log that is gone.
            Some(theirs) if !own.led || !own.names => {
                let knows = theirs.applied >= own.named_at;
                (knows && !theirs.names) || !self.has_voted
            }
            // Whoever brings it in may count on it already, and be away.
            None if own.learns => false,
            _ => !own.names,
        };
        if !unnamed {
            self.unnamed_since_ms = None;
            return false;
        }
        let since_ms = *self.unnamed_since_ms.get_or_insert(now_ms);
        let patience_ms = if self.has_voted { rules.voted_out_after_ms } else { rules.never_voted_after_ms };
        now_ms.saturating_sub(since_ms) > patience_ms
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const RULES: TenureRules = TenureRules { voted_out_after_ms: 500, never_voted_after_ms: 60_000 };

    fn own(names: bool, led: bool, named_at: u64) -> Own {
        Own { names, learns: false, led, named_at }
    }

    fn word(names: bool, applied: u64) -> Option<Theirs> {
        Some(Theirs { names, applied })
    }

    /// A part that has been named at index 5 by itself and by the others.
    fn voter() -> Tenure {
        let mut tenure = Tenure::default();
        assert!(!tenure.is_over(own(true, true, 5), word(true, 5), &RULES, 0));
        tenure
    }

    #[test]
    fn a_voter_that_a_committed_change_voted_out_is_done_after_its_patience() {
        let mut tenure = voter();
        // Nobody tells it any more: it hears of the change from those who have applied it.
        for now_ms in [1_000, 1_500] {
            assert!(!tenure.is_over(own(true, false, 5), word(false, 9), &RULES, now_ms));
        }
        assert!(tenure.is_over(own(true, false, 5), word(false, 9), &RULES, 1_501));
    }

    #[test]
    fn a_change_that_is_not_committed_votes_nobody_out() {
        let mut tenure = voter();
        // The leader wrote at index 9 that this node is out, and died. Its own log has that entry and does not name it;
        // those who elect another leader have applied 8 entries, and may overwrite the ninth.
        for now_ms in (1_000..100_000).step_by(500) {
            assert!(!tenure.is_over(own(false, false, 9), word(false, 8), &RULES, now_ms), "at {now_ms}");
            assert!(!tenure.is_over(own(false, true, 9), word(true, 8), &RULES, now_ms), "at {now_ms}");
        }
        // The next leader commits the ninth as it is.
        assert!(!tenure.is_over(own(false, true, 9), word(false, 9), &RULES, 100_000));
        assert!(tenure.is_over(own(false, true, 9), word(false, 9), &RULES, 100_501));
    }

    #[test]
    fn one_who_is_behind_votes_nobody_out() {
        let mut tenure = voter();
        for now_ms in (1_000..100_000).step_by(500) {
            // It was voted in at index 12, which the other has not seen yet.
            assert!(!tenure.is_over(own(true, false, 12), word(false, 11), &RULES, now_ms));
        }
    }

    #[test]
    fn a_newcomer_has_the_longer_patience_and_its_old_log_makes_it_no_voter() {
        let mut tenure = Tenure::default();
        // Catching up, its log says that it was a voter once; the leader does not.
        for now_ms in [0, 30_000, 60_000] {
            assert!(!tenure.is_over(own(true, false, 3), word(false, 9), &RULES, now_ms));
        }
        assert!(tenure.is_over(own(true, false, 3), word(false, 9), &RULES, 60_001));
        let mut tenure = Tenure::default();
        assert!(!tenure.is_over(own(false, true, 3), word(false, 9), &RULES, 0));
        // Named in time.
        assert!(!tenure.is_over(own(true, true, 10), word(true, 10), &RULES, 59_000));
        assert!(!tenure.is_over(own(true, true, 10), word(true, 10), &RULES, 90_000));
    }

    #[test]
    fn who_is_voted_in_again_before_it_is_gone_stays() {
        let mut tenure = voter();
        assert!(!tenure.is_over(own(false, true, 9), word(false, 9), &RULES, 1_000));
        let learner = Own { learns: true, ..own(false, true, 10) };
        for now_ms in [1_200, 10_000, 60_000] {
            assert!(!tenure.is_over(learner, word(false, 10), &RULES, now_ms), "at {now_ms}");
        }
        // Nobody says anything: whoever brings it in may have named it, and be gone for a while.
        assert!(!tenure.is_over(Own { led: false, ..learner }, None, &RULES, 60_300));
        assert!(!tenure.is_over(own(true, true, 12), word(true, 12), &RULES, 60_500));
        // And out once more.
        assert!(!tenure.is_over(own(false, true, 14), word(false, 14), &RULES, 61_000));
        assert!(tenure.is_over(own(false, true, 14), word(false, 14), &RULES, 61_501));
        // One that was never named waits as long as nobody else is heard.
        let (mut tenure, alone) = (Tenure::default(), Own { led: false, ..learner });
        for now_ms in [0, 100_000, 200_000] {
            assert!(!tenure.is_over(alone, None, &RULES, now_ms), "at {now_ms}");
        }
        assert!(!tenure.is_over(alone, word(false, 20), &RULES, 300_000));
        assert!(tenure.is_over(alone, word(false, 20), &RULES, 360_001));
    }

    proptest! {
        /// Whatever was heard in whatever order: a voter's part is dropped only on the word of one that has applied
        /// every change of the voters that its log holds, or on its own log's, when nobody else says anything.
        #[test]
        fn a_voters_log_goes_only_on_a_word_that_knows_as_much(
            looks in prop::collection::vec((any::<bool>(), any::<bool>(), 5_u64..20, prop::option::of((any::<bool>(), 0_u64..20)), 0_u64..2_000), 1..60),
        ) {
            let mut tenure = voter();
            let mut now_ms = 0;
            for (names, led, named_at, heard, later_ms) in looks {
                now_ms += later_ms;
                let heard = heard.map(|(names, applied)| Theirs { names, applied });
                if tenure.is_over(own(names, led, named_at), heard, &RULES, now_ms) {
                    match heard {
                        Some(heard) => prop_assert!(!heard.names && heard.applied >= named_at),
                        None => prop_assert!(!names),
                    }
                }
            }
        }
    }
}
