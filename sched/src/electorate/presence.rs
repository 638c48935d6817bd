//! Presence: the leases without which a leader does not act.
//!
//! A leader asks every node of the roster, a few times a second, whether it still follows; each answer is a lease. It
//! acts (orders clients' writes, reconciles, schedules) only while it holds leases from more than half of the roster. A
//! node gives leases to one founding of one group at a time: to another one only after what it gave before has run out.
//! Since two majorities of a roster share a node, no two leaders act at once.
//!
//! The clock bound: a lease counts from when the leader *asked* and is [`LEASE_MS`] long on the leader's clock; the node
//! holds still for [`HOLD_MS`] from when it *answered*, on its own. So clocks need not agree about what time it is; within
//! one lease they must not differ in speed by more than `HOLD_MS : LEASE_MS`, and they must go on while the machine
//! sleeps (Linux: `CLOCK_BOOTTIME`).

use super::founding::AFTER_START_MS;
use super::roster::{Count, Roster};
use crate::state::{Lineage, Revision};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// How long an answer counts for the leader, from when it asked.
pub const LEASE_MS: u64 = 2_000;
/// How long a node that answered pledges itself to nobody else: a quarter longer, for clocks of different speed.
pub const HOLD_MS: u64 = 2_500;
/// How often the leader asks. Several times per lease, so that one lost answer is no lost lease.
pub const ASK_EVERY_MS: u64 = 300;

/// A node that has gone beyond a leader's epoch is heard for this long before the leader steps aside: the founding that it
/// pledged itself to may be about to succeed. Shorter than a leader that may not act waits before it lets others be elected,
/// who would begin to count anew.
pub const BEYOND_MS: u64 = 3_000;
/// How long a leader asks nobody, itself neither, when it steps aside: until everybody's leases have run out and those who
/// are here had time to found the group anew. It may be the one to do so, and have just been started.
pub const STEP_ASIDE_MS: u64 = HOLD_MS + AFTER_START_MS + 3_000;

/// The leader's count of leases, of one lead: begun anew when it is elected again.
#[derive(Clone, Debug, Default)]
pub struct Leases {
    of: BTreeMap<String, Lease>,
    /// Who has gone beyond this leader's epoch, and when it was asked when it said so first.
    beyond: BTreeMap<String, u64>,
}

#[derive(Clone, Copy, Debug)]
struct Lease {
    asked_ms: u64,
    noted: Revision,
}

/// Whether a leader may act.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    /// More than half of the roster stands behind it until then, if no lease is renewed.
    Acts {
        until_ms: u64,
    },
    Waits(Count),
}

impl Leases {
    /// A peer answered a question asked at `asked_ms`; the newest roster it has durably noted is that of revision `noted`.
    pub fn granted(&mut self, peer: &str, asked_ms: u64, noted: Revision) {
        self.beyond.remove(peer);
        let lease = self.of.entry(peer.to_owned()).or_insert(Lease { asked_ms, noted });
        // Answers may overtake each other.
        lease.asked_ms = lease.asked_ms.max(asked_ms);
        lease.noted = lease.noted.max(noted);
    }

    /// A peer gives no lease any more: it pledged itself elsewhere, or follows another group.
    pub fn refused(&mut self, peer: &str) {
        self.of.remove(peer);
    }

    /// A peer has gone beyond this leader's epoch, and gives it no lease any more: [`NoLease::Passed`], or
    /// [`NoLease::Elsewhere`] of a newer epoch of the same group. Its founding may have come to nothing, or be lost.
    pub fn passed(&mut self, peer: &str, asked_ms: u64) {
        self.refused(peer);
        self.beyond.entry(peer.to_owned()).or_insert(asked_ms);
    }

    /// Whether this leader should stop asking for leases for [`STEP_ASIDE_MS`]: members of the roster have gone beyond its
    /// epoch, for good, so that it would lead without them, and could not have them as voters. With nobody leading, the
    /// group is founded anew with everybody, at an epoch that all of them can follow.
    pub fn steps_aside(&self, roster: &Roster, now_ms: u64) -> bool {
        let long = |since: u64| now_ms.saturating_sub(since) >= BEYOND_MS;
        self.beyond.iter().any(|(peer, since)| long(*since) && roster.names(peer))
    }

    /// Whether a peer's lease counts now.
    pub fn holds(&self, peer: &str, now_ms: u64) -> bool {
        self.of.get(peer).is_some_and(|lease| now_ms.saturating_sub(lease.asked_ms) < LEASE_MS)
    }

    /// Whether a peer has noted the roster of this revision.
    pub fn noted(&self, peer: &str, roster: Revision) -> bool {
        self.of.get(peer).is_some_and(|lease| lease.noted >= roster)
    }

    /// Whether the leader may act at `now_ms`. It asks itself too, so it stands in its own count.
    pub fn standing(&self, roster: &Roster, now_ms: u64) -> Standing {
        let there = |peer: &str| self.holds(peer, now_ms);
        if !roster.has_majority(there) {
            return Standing::Waits(roster.count(there));
        }
        // One lease after the other runs out; the set whose majority is gone first decides.
        let ends = roster.sets().filter_map(|set| {
            let ends = set.iter().filter_map(|peer| self.of.get(peer)).map(|lease| lease.asked_ms + LEASE_MS);
            let mut ends: Vec<u64> = ends.collect();
            ends.sort_unstable_by_key(|end| std::cmp::Reverse(*end));
            ends.get(set.len() / 2).copied()
        });
        // An empty roster: nobody is needed, and nothing is known for longer than one lease.
        Standing::Acts { until_ms: ends.min().unwrap_or(now_ms + LEASE_MS) }
    }
}

/// How long a leader that votes alone waits for others to vote as well, before it orders writes all the same.
pub const GROW_WITHIN_MS: u64 = 10_000;
/// The smallest electorate that loses nothing with one voter.
const COMPANY: usize = 3;

/// Whether a leader of so many voters may order writes by now. What a single voter has acknowledged is gone with its desktop: a
/// founder behind whom enough stand to vote (`there`, of whom at most `most_voters` do) waits until they can.
pub fn may_order(voters: usize, there: usize, most_voters: usize, leads_for_ms: u64) -> bool {
    let has_company = there.min(most_voters) >= COMPANY;
    !has_company || voters >= COMPANY || leads_for_ms >= GROW_WITHIN_MS
}

/// What a node must remember of its word, also through a crash: it is on disk before an answer that rests on it is sent.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Word {
    /// Whose leader gets leases; `None` until the first one is given.
    pub given: Option<Lineage>,
    /// The founding that this node has pledged itself to, of the same group.
    pub pledge: Option<Pledge>,
    /// Revision of the newest roster that it has seen of that group.
    pub roster: Revision,
    /// What was promised before was lost with a damaged disk: no pledge is given until `given` is a newer lineage
    /// than the one that the lost word may have been about.
    #[serde(default)]
    pub unsure: bool,
    /// What was promised in other groups, at most [`LEFT`] of them, the one that was left last at the end: a node may come back
    /// to one, and must not have forgotten there whose founding it has helped.
    #[serde(default)]
    pub left: Vec<Left>,
}

/// A cluster has one group, or a few while it is cut. Of more, what was promised in the one that was left first is forgotten.
const LEFT: usize = 16;

/// What a node's word was in a group that it has left.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Left {
    pub group: String,
    /// The epoch whose leader got leases last.
    pub given: u64,
    /// The highest epoch that leases or a pledge were given to.
    pub reached: u64,
    pub roster: Revision,
}

impl Word {
    /// What was promised in this group, the present one or one that was left.
    fn of(&self, group: &str) -> Option<Left> {
        match self.given.as_ref().filter(|given| given.group == group) {
            Some(given) => {
                let pledged = self.pledge.as_ref().map_or(0, |pledge| pledge.epoch);
                let reached = given.epoch.max(pledged);
                Some(Left { group: group.to_owned(), given: given.epoch, reached, roster: self.roster })
            }
            None => self.left.iter().find(|left| left.group == group).cloned(),
        }
    }

    /// The word of a node that goes to another group: all but what it gives there.
    fn leaving_for(self, group: &str) -> Self {
        let now = self.given.as_ref().and_then(|given| self.of(&given.group));
        let roster = self.of(group).map_or(Revision::default(), |there| there.roster);
        let mut left = self.left;
        left.retain(|left| left.group != group);
        left.extend(now);
        let surplus = left.len().saturating_sub(LEFT);
        left.drain(..surplus);
        Self { given: None, pledge: None, roster, unsure: self.unsure, left }
    }
}

/// "I help to found this epoch of my group, led by this peer, and no older one goes on with me."
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pledge {
    pub epoch: u64,
    pub to: String,
}

/// Why a node gives a leader no lease.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
pub enum NoLease {
    #[error("this node follows no group yet")]
    NoGroup,
    #[error("this node follows epoch {} of group {}", .0.epoch, .0.group)]
    Elsewhere(Lineage),
    #[error("this node has gone on to epoch {0}")]
    Passed(u64),
    #[error("a leader of epoch {} of group {} may still count on this node", .0.epoch, .0.group)]
    Held(Lineage),
}

/// The node's side: what it granted, and what it gave its word for.
///
/// Whoever drives this writes [`Grants::word`] to disk, when it has changed, before the answer that changed it is sent.
#[derive(Clone, Debug)]
pub struct Grants {
    word: Word,
    /// Until then a leader of `word.given` may count on this node. From the start on, since what was granted right before a
    /// restart is not known.
    held_until_ms: u64,
}

impl Grants {
    /// A node that starts at `now_ms` with the word that it finds on its disk.
    pub fn new(word: Word, now_ms: u64) -> Self {
        Self { word, held_until_ms: now_ms + HOLD_MS }
    }

    /// A node that starts at `now_ms` and finds a word on its disk that it cannot read. Its view says nothing about that
    /// word: it may be older, and of another lineage. So it waits out whatever it may have granted, to everybody.
    pub fn lost(now_ms: u64) -> Self {
        let word = Word { unsure: true, ..Word::default() };
        Self { word, held_until_ms: now_ms + HOLD_MS }
    }

    pub fn word(&self) -> &Word {
        &self.word
    }

    /// Whether some leader may still count on this node.
    pub fn is_held(&self, now_ms: u64) -> bool {
        (self.word.given.is_some() || self.word.unsure) && now_ms < self.held_until_ms
    }

    /// Whether this node has pledged itself beyond this lineage, or given leases beyond it: it takes no part in it.
    pub fn has_passed(&self, lineage: &Lineage) -> bool {
        self.reached(&lineage.group) > lineage.epoch
    }

    /// The highest epoch of a group that this node has promised anything to; 0 if none.
    pub fn reached(&self, group: &str) -> u64 {
        self.word.of(group).map_or(0, |promised| promised.reached)
    }

    /// What was promised in a group.
    pub(super) fn promised(&self, group: &str) -> Option<Left> {
        self.word.of(group)
    }

    /// The roster of this revision is in force in that lineage, as this node's view of it says; 0 if it has no such view yet.
    ///
    /// One that was noted in an older epoch, and is newer than that, was not carried over: too few had noted it for it to be
    /// counted by. Whoever asks by the roster in force would be refused because of it for ever.
    ///
    /// Nothing is noted of a group that got no lease yet, while the word is about another one.
    pub fn note_roster(&mut self, of: &Lineage, roster: Revision) {
        if self.word.given.as_ref().is_some_and(|given| given.group != of.group) {
            return;
        }
        let noted = self.word.roster;
        let is_history = self.word.given.as_ref() == Some(of) && noted.epoch() < of.epoch;
        self.word.roster =
            if is_history && roster > Revision::default() { roster } else { noted.max(roster) };
    }

    /// Answers a leader that asks: a lease, if this node follows that very lineage (`mine`), has not gone beyond it, and no
    /// leader of another one may still count on it.
    ///
    /// # Errors
    /// Says why not; nothing has changed then.
    pub fn grant(&mut self, leader: &Lineage, mine: Option<&Lineage>, now_ms: u64) -> Result<(), NoLease> {
        let mine = mine.ok_or(NoLease::NoGroup)?;
        if mine != leader {
            return Err(NoLease::Elsewhere(mine.clone()));
        }
        if self.has_passed(leader) {
            return Err(NoLease::Passed(self.reached(&leader.group)));
        }
        if self.word.given.as_ref() != Some(leader) {
            if self.is_held(now_ms) {
                return Err(NoLease::Held(self.word.given.clone().unwrap_or_else(|| leader.clone())));
            }
            // Who does not even know what the lost word was about learns it here, and stays unsure.
            let unsure = self.word.unsure && self.word.given.is_none();
            let word = self.word_for(&leader.group);
            self.word = Word { given: Some(leader.clone()), unsure, ..word };
        }
        self.held_until_ms = self.held_until_ms.max(now_ms + HOLD_MS);
        Ok(())
    }

    /// Gives this node's word for an epoch of the group that it follows; see [`super::founding::pledge`].
    pub(super) fn pledge(&mut self, mine: &Lineage, pledge: Pledge) {
        let word = self.word_for(&mine.group);
        let given = word.given.clone().or_else(|| Some(mine.clone()));
        self.word = Word { given, pledge: Some(pledge), unsure: false, ..word };
    }

    /// The word as it is in this group.
    fn word_for(&self, group: &str) -> Word {
        match self.word.given.as_ref().is_some_and(|given| given.group == group) {
            true => self.word.clone(),
            false => self.word.clone().leaving_for(group),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn roster(members: &str) -> Roster {
        Roster { members: members.split_whitespace().map(str::to_owned).collect(), ..Roster::default() }
    }

    fn lineage(epoch: u64) -> Lineage {
        Lineage { group: "g".into(), epoch }
    }

    #[test]
    fn a_leader_acts_until_its_majority_has_run_out() {
        let roster = roster("a b c");
        let mut leases = Leases::default();
        leases.granted("a", 1_000, Revision::default());
        assert_eq!(leases.standing(&roster, 1_000), Standing::Waits(Count { there: 1, of: 3 }));
        leases.granted("b", 400, Revision::default());
        assert_eq!(leases.standing(&roster, 1_000), Standing::Acts { until_ms: 2_400 });
        assert_eq!(leases.standing(&roster, 2_399), Standing::Acts { until_ms: 2_400 });
        assert_eq!(leases.standing(&roster, 2_400), Standing::Waits(Count { there: 1, of: 3 }));
        leases.granted("c", 2_000, Revision::default());
        assert_eq!(leases.standing(&roster, 2_400), Standing::Acts { until_ms: 3_000 });
        leases.refused("c");
        assert_eq!(leases.standing(&roster, 2_400), Standing::Waits(Count { there: 1, of: 3 }));
    }

    #[test]
    fn an_old_answer_that_comes_late_does_not_shorten_a_lease() {
        let mut leases = Leases::default();
        leases.granted("a", 900, Revision(7));
        leases.granted("a", 300, Revision(5));
        assert!(leases.holds("a", 900 + LEASE_MS - 1) && leases.noted("a", Revision(7)));
        assert!(!leases.holds("a", 900 + LEASE_MS));
    }

    #[test]
    fn a_leader_steps_aside_for_members_who_have_gone_beyond_its_epoch() {
        let mut leases = Leases::default();
        leases.passed("b", 1_000);
        leases.passed("x", 0);
        leases.passed("b", 5_000);
        assert!(!leases.steps_aside(&roster("a b c"), 1_000 + BEYOND_MS - 1));
        assert!(leases.steps_aside(&roster("a b c"), 1_000 + BEYOND_MS));
        assert!(!leases.steps_aside(&roster("a c"), 99_999), "x and b are strangers");
        leases.granted("b", 5_300, Revision::default());
        assert!(!leases.steps_aside(&roster("a b c"), 99_999), "it has come back, with the epoch");
    }

    #[test]
    fn strangers_do_not_count() {
        let mut leases = Leases::default();
        for peer in ["x", "y", "z", "a"] {
            leases.granted(peer, 0, Revision::default());
        }
        assert_eq!(leases.standing(&roster("a b c"), 10), Standing::Waits(Count { there: 1, of: 3 }));
    }

    #[test]
    fn a_node_leases_only_to_the_lineage_it_follows_and_not_below_its_pledge() {
        let mut grants = Grants::new(Word::default(), 0);
        assert_eq!(grants.grant(&lineage(1), None, 5), Err(NoLease::NoGroup));
        assert_eq!(grants.grant(&lineage(1), Some(&lineage(2)), 5), Err(NoLease::Elsewhere(lineage(2))));
        assert!(!grants.is_held(6), "a refusal holds nothing, and nothing was given before");
        assert_eq!(grants.grant(&lineage(1), Some(&lineage(1)), 5), Ok(()));
        assert!(grants.is_held(5 + HOLD_MS - 1) && !grants.is_held(5 + HOLD_MS));
        grants.pledge(&lineage(1), Pledge { epoch: 2, to: "a".into() });
        assert_eq!(grants.grant(&lineage(1), Some(&lineage(1)), 6), Err(NoLease::Passed(2)));
        assert_eq!(grants.grant(&lineage(2), Some(&lineage(2)), 5 + HOLD_MS), Ok(()));
        assert_eq!(grants.grant(&lineage(1), Some(&lineage(1)), 99_999), Err(NoLease::Passed(2)));
    }

    #[test]
    fn a_node_that_lost_its_word_waits_out_what_it_may_have_given() {
        let mut grants = Grants::lost(1_000);
        let early = grants.grant(&lineage(1), Some(&lineage(1)), 1_000 + HOLD_MS - 1);
        assert_eq!(early, Err(NoLease::Held(lineage(1))));
        assert_eq!(grants.grant(&lineage(1), Some(&lineage(1)), 1_000 + HOLD_MS), Ok(()));
        assert!(grants.word().unsure, "it may have pledged itself beyond that");
        assert_eq!(grants.grant(&lineage(2), Some(&lineage(2)), 1_000 + 2 * HOLD_MS), Ok(()));
        assert!(!grants.word().unsure, "what it promised before is history");
    }

    #[test]
    fn a_founder_orders_nothing_before_others_vote_if_they_can() {
        assert!(may_order(1, 1, 7, 0) && may_order(1, 2, 7, 0), "nobody could vote beside it");
        assert!(!may_order(1, 3, 7, 0) && !may_order(1, 5, 7, GROW_WITHIN_MS - 1));
        assert!(may_order(3, 5, 7, 0));
        assert!(may_order(1, 5, 1, 0), "one voter is what its owner asked for");
        assert!(may_order(1, 5, 7, GROW_WITHIN_MS), "they do not come to vote");
    }

    #[test]
    fn both_sets_of_a_joint_roster_bound_how_long_a_leader_acts() {
        let joint = roster("a b c").next(&roster("c d e").members, |_| false).unwrap();
        let mut leases = Leases::default();
        for (peer, asked_ms) in [("a", 500), ("b", 400), ("c", 300), ("d", 100), ("e", 0)] {
            leases.granted(peer, asked_ms, Revision::default());
        }
        assert_eq!(leases.standing(&joint, 600), Standing::Acts { until_ms: 2_100 });
    }

    #[test]
    fn a_roster_that_a_founding_went_on_without_is_forgotten_when_its_state_is_seen() {
        let at = |epoch, n| Revision(Revision::first_of(epoch).0 + n);
        let mut grants = Grants::new(Word::default(), 0);
        grants.grant(&lineage(2), Some(&lineage(2)), HOLD_MS).unwrap();
        grants.note_roster(&lineage(2), at(1, 3));
        grants.note_roster(&lineage(2), at(2, 5));
        grants.note_roster(&lineage(2), at(2, 4));
        assert_eq!(grants.word().roster, at(2, 5), "within an epoch the newest counts");
        grants.grant(&lineage(3), Some(&lineage(3)), 3 * HOLD_MS).unwrap();
        grants.note_roster(&lineage(3), Revision::default());
        assert_eq!(grants.word().roster, at(2, 5), "the new epoch may have carried it over");
        grants.note_roster(&lineage(3), at(1, 3));
        assert_eq!(grants.word().roster, at(1, 3), "it has not");
        grants.note_roster(&lineage(3), at(3, 1));
        grants.note_roster(&lineage(3), at(1, 3));
        assert_eq!(grants.word().roster, at(3, 1));
    }

    #[test]
    fn no_two_lineages_may_count_on_a_node_at_once_also_after_a_restart() {
        let other = Lineage { group: "h".into(), epoch: 9 };
        let mut grants = Grants::new(Word::default(), 0);
        grants.grant(&lineage(1), Some(&lineage(1)), 1_000).unwrap();
        grants.note_roster(&lineage(1), Revision(7));
        let held = Err(NoLease::Held(lineage(1)));
        assert_eq!(grants.grant(&other, Some(&other), 1_000 + HOLD_MS - 1), held);

        let mut restarted = Grants::new(grants.word().clone(), 2_000);
        assert_eq!(restarted.grant(&other, Some(&other), 2_000 + HOLD_MS - 1), held);
        assert_eq!(restarted.grant(&lineage(1), Some(&lineage(1)), 2_001), Ok(()), "its own goes on at once");
        assert_eq!(restarted.grant(&other, Some(&other), 2_001 + HOLD_MS), Ok(()));
        let left = Left { group: "g".into(), given: 1, reached: 1, roster: Revision(7) };
        let word = Word { given: Some(other), left: vec![left], ..Word::default() };
        assert_eq!(restarted.word(), &word, "rosters of different groups do not compare");
    }

    #[test]
    fn what_was_promised_in_a_group_is_not_forgotten_in_the_next_one() {
        let of = |group: &str, epoch| Lineage { group: group.into(), epoch };
        let mut grants = Grants::new(Word::default(), 0);
        let mut now = 0;
        let mut serve = |grants: &mut Grants, lineage: &Lineage| {
            now += HOLD_MS;
            grants.grant(lineage, Some(lineage), now)
        };
        serve(&mut grants, &of("g", 5)).unwrap();
        grants.note_roster(&of("g", 5), Revision(70));
        grants.pledge(&of("g", 5), Pledge { epoch: 6, to: "founder".into() });
        serve(&mut grants, &of("h", 9)).unwrap();
        assert_eq!((grants.word().roster, &grants.word().pledge), (Revision::default(), &None));
        grants.note_roster(&of("g", 5), Revision(99));
        assert_eq!(grants.word().roster, Revision::default(), "the word is about another group");
        assert_eq!(serve(&mut grants, &of("g", 5)), Err(NoLease::Passed(6)));
        assert!(grants.has_passed(&of("g", 5)) && !grants.has_passed(&of("g", 6)));
        serve(&mut grants, &of("g", 6)).unwrap();
        assert_eq!((grants.word().roster, grants.reached("h")), (Revision(70), 9));
        for n in 0..2 * LEFT as u64 {
            serve(&mut grants, &of(&format!("n{n}"), 1)).unwrap();
        }
        assert_eq!((grants.word().left.len(), grants.reached("g"), grants.reached("n20")), (LEFT, 0, 1));
    }
}
