//! Which revisions were lost when a group was founded anew: who founds it goes on from the newest state among those who are
//! there, and what others had ordered beyond that is not part of what follows.
//!
//! Without this a client that was shown such a revision, and says so, would be told a later state without it, as if it had
//! never been. It has to be told that its revision means nothing any more.

use super::Revision;
use serde::{Deserialize, Serialize};

/// How many foundings are remembered. Revisions from before the oldest of them may be lost.
const LIMIT: usize = 64;

/// From one revision (which is held) to another one, the first of what was founded.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Gap {
    after: Revision,
    up_to: Revision,
}

/// Revisions that may have been ordered once and are not part of this order.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Gaps {
    /// Oldest first.
    list: Vec<Gap>,
    /// Up to which nothing is known any more.
    forgotten: Revision,
}

impl Gaps {
    /// The order was begun anew: its first revision follows `after` at once.
    pub(super) fn note(&mut self, after: Revision, up_to: Revision) {
        self.list.push(Gap { after, up_to });
        if self.list.len() > LIMIT {
            self.forgotten = self.list.remove(0).up_to;
        }
    }

    /// Whether somebody may have been shown this revision by those who were left behind.
    pub(super) fn contain(&self, revision: Revision) -> bool {
        revision < self.forgotten || self.list.iter().any(|gap| gap.after < revision && revision < gap.up_to)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_ordered_beyond_a_founding_is_lost_and_nothing_else() {
        let mut gaps = Gaps::default();
        assert!(!gaps.contain(Revision(1)));
        gaps.note(Revision(7), Revision(100));
        gaps.note(Revision(105), Revision(200));
        let lost: Vec<u64> = (1..210).filter(|revision| gaps.contain(Revision(*revision))).collect();
        assert_eq!(lost, (8..100).chain(106..200).collect::<Vec<_>>());
    }

    #[test]
    fn of_what_is_forgotten_nothing_is_believed() {
        let mut gaps = Gaps::default();
        (0..=LIMIT as u64).for_each(|n| gaps.note(Revision(n * 10), Revision(n * 10 + 5)));
        assert!(gaps.contain(Revision(1)) && gaps.contain(Revision(4)) && !gaps.contain(Revision(7)));
        assert_eq!(gaps.list.len(), LIMIT);
    }
}
