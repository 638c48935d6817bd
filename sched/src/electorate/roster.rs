//! The roster: which nodes belong, and how that changes.
//!
//! Whoever acts for the flock needs more than half of the roster behind it: the leader of a group ([`super::presence`]) as
//! well as whoever founds the group anew ([`super::founding`]). Both hold only while two such majorities always share a
//! node. A change of the roster would break that, so it goes through a joint stage, as Raft's changes of members do
//! (Ongaro, "Consensus: Bridging Theory and Practice", 4.3): while the old members may still be all that somebody knows
//! of, a majority is one of the old and one of the new.

use crate::state::{Key, Resource, Revision, Store};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};

const ROSTERS: Resource = Resource::fixed("rosters.gaggle.dev");
const NAME: &str = "flock";

/// How many evicted keys are remembered. Past it the oldest name (in order of peer ids) is forgotten, which only means that
/// such a node, if it still exists and is switched on, could join again.
pub const EVICTED_LIMIT: usize = 1024;

/// The nodes that belong, by peer id, alive or not.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Roster {
    pub members: BTreeSet<String>,
    /// The members before the last change, until more than half of them are known to have noted it down.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub before: Option<BTreeSet<String>>,
    /// Peers that were removed for good, with the names they had.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub evicted: BTreeMap<String, String>,
}

/// How many are there of how many, in the set that lacks most.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Count {
    pub there: usize,
    pub of: usize,
}

impl Roster {
    /// Where the roster is kept in the scheduling state. No client sees this resource.
    pub fn key() -> Key {
        Key::new(ROSTERS, "", NAME)
    }

    /// The roster that a store holds and the revision it was written at; `None` before a group's first.
    pub fn of(store: &Store) -> Option<(Self, Revision)> {
        let object = store.get(&Self::key())?;
        let roster = serde_json::from_value(object.value().get("roster")?.clone()).ok()?;
        Some((roster, object.revision()))
    }

    /// The object to store.
    pub fn object(&self) -> serde_json::Value {
        serde_json::json!({"metadata": {"name": NAME}, "roster": self})
    }

    /// The sets of which a majority each is needed.
    pub(super) fn sets(&self) -> impl Iterator<Item = &BTreeSet<String>> {
        std::iter::once(&self.members).chain(&self.before)
    }

    /// Whether a peer still counts, as one of the members or of those before.
    pub fn names(&self, peer: &str) -> bool {
        self.sets().any(|set| set.contains(peer))
    }

    /// Whether more than half is there, of the old and of the new members.
    pub fn has_majority(&self, there: impl Fn(&str) -> bool) -> bool {
        self.sets().all(|set| is_majority(set, &there))
    }

    /// The count to tell people of: that of the set which lacks most.
    pub fn count(&self, there: impl Fn(&str) -> bool) -> Count {
        let counts = self.sets().map(|set| Count { there: present(set, &there), of: set.len() });
        let lacks = |count: &Count| (count.of / 2 + 1).saturating_sub(count.there);
        counts.max_by_key(lacks).unwrap_or(Count { there: 0, of: 0 })
    }

    /// The next step towards these members, if one is due: into the joint stage, or out of it.
    ///
    /// `noted` says of a peer whether it has durably noted this very roster.
    pub fn next(&self, wanted: &BTreeSet<String>, noted: impl Fn(&str) -> bool) -> Option<Self> {
        match &self.before {
            Some(before) => is_majority(before, &noted).then(|| Self { before: None, ..self.clone() }),
            None if *wanted == self.members => None,
            // Nobody belonged: no majority of theirs could be missed.
            None if self.members.is_empty() => Some(Self { members: wanted.clone(), ..self.clone() }),
            None => {
                let before = Some(self.members.clone());
                Some(Self { members: wanted.clone(), before, ..self.clone() })
            }
        }
    }

    /// With this peer refused from now on. The members change on their own, by [`Roster::next`].
    pub fn evicting(&self, peer: &str, name: &str) -> Self {
        let mut roster = self.clone();
        roster.evicted.insert(peer.to_owned(), name.to_owned());
        while roster.evicted.len() > EVICTED_LIMIT {
            roster.evicted.pop_first();
        }
        roster
    }
}

fn present(set: &BTreeSet<String>, there: &impl Fn(&str) -> bool) -> usize {
    set.iter().filter(|peer| there(peer)).count()
}

/// More than half; nobody at all is a majority of nobody.
fn is_majority(set: &BTreeSet<String>, there: &impl Fn(&str) -> bool) -> bool {
    set.is_empty() || present(set, there) * 2 > set.len()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set(peers: &str) -> BTreeSet<String> {
        peers.split_whitespace().map(str::to_owned).collect()
    }

    fn roster(members: &str) -> Roster {
        Roster { members: set(members), ..Roster::default() }
    }

    #[test]
    fn half_is_no_majority() {
        let four = roster("a b c d");
        assert!(!four.has_majority(|peer| "a b".contains(peer)));
        assert!(four.has_majority(|peer| "a b c".contains(peer)));
        assert_eq!(four.count(|peer| "a b".contains(peer)), Count { there: 2, of: 4 });
    }

    #[test]
    fn a_change_needs_both_majorities_until_the_old_members_know_of_it() {
        let wanted = set("a c d e f");
        let joint = roster("a b c").next(&wanted, |_| true).expect("a change is due");
        assert_eq!((&joint.members, &joint.before), (&wanted, &Some(set("a b c"))));
        assert!(!joint.has_majority(|peer| "a b c".contains(peer)), "three of the new five are missing");
        assert!(!joint.has_majority(|peer| "d e f".contains(peer)), "none of the old ones");
        assert!(joint.has_majority(|peer| "a c d".contains(peer)));

        assert_eq!(joint.next(&wanted, |peer| peer == "a"), None, "one of three has noted it");
        assert_eq!(joint.next(&set("a"), |peer| peer == "a"), None, "no second change during the first");
        let settled = joint.next(&wanted, |peer| "a b".contains(peer)).expect("two of three have");
        assert_eq!(settled, roster("a c d e f"));
        assert_eq!(settled.next(&wanted, |_| true), None);
    }

    #[test]
    fn the_first_members_need_no_joint_stage() {
        assert_eq!(Roster::default().next(&set("a"), |_| false), Some(roster("a")));
    }

    #[test]
    fn it_is_read_back_as_it_was_stored() {
        let mut store = Store::default();
        assert_eq!(Roster::of(&store), None);
        let roster = roster("a b").next(&set("a"), |_| false).unwrap().evicting("b", "bob");
        let write = crate::state::Write::Put {
            key: Roster::key(),
            value: roster.object(),
            expect: crate::state::Expect::Absent,
            intent: None,
        };
        let applied = store.apply(&write.into()).unwrap();
        assert_eq!(Roster::of(&store), Some((roster, applied.revision)));
    }

    #[test]
    fn evictions_are_bounded() {
        let mut full = Roster::default();
        for n in 0..=EVICTED_LIMIT {
            full = full.evicting(&format!("{n:05}"), "x");
        }
        assert_eq!(full.evicted.len(), EVICTED_LIMIT);
        assert!(full.evicted.contains_key("01024") && !full.evicted.contains_key("00000"));
    }
}
