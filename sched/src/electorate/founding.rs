//! Founding a group anew, from what survived, when its voters are lost and more than half of its roster is there.
//!
//! Whoever holds the newest view asks the others to pledge themselves to the next epoch, led by it. With pledges from more
//! than half of the roster it founds the epoch with its view. A node pledges only when no leader may count on it any more
//! ([`super::presence`]), only to who holds nothing older than itself, and once per epoch: so an epoch has one founder, and
//! what any of the pledged has seen is in it.

use super::presence::{Grants, HOLD_MS, Pledge};
use super::roster::{Count, Roster};
use crate::state::{Lineage, Revision};
use serde::{Deserialize, Serialize};
use std::cmp::Reverse;

/// A node that was just started gives the others, and among them the voters, this long to come back as well.
pub const AFTER_START_MS: u64 = 10_000;

/// How much of a group's order a node holds, what its voter's log holds beyond its view included. The greater one is the
/// newer one, as with Raft's logs (Ongaro and Ousterhout, "In Search of an Understandable Consensus Algorithm", 5.4.1):
/// what a later term ordered counts for more than a longer tail that an earlier one left behind.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Position {
    pub epoch: u64,
    /// Raft's term of the last entry, also of one that changed nothing, as a new leader's first: it is what commits the
    /// entries of earlier terms before it. Without it a tail that an earlier leader left behind would count for more than
    /// what was committed after it.
    pub term: u64,
    pub revision: Revision,
}

/// Another node of the group that can be reached now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Survivor {
    pub peer: String,
    /// As it said last: it may be further by now.
    pub position: Position,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FoundingRules {
    /// No leader that acts was heard for this long: longer than any lease, and than an election takes.
    pub wait_ms: u64,
    /// Each node that should found before this one is given this long to do it.
    pub turn_ms: u64,
}

impl Default for FoundingRules {
    fn default() -> Self {
        Self { wait_ms: HOLD_MS + 500, turn_ms: 1_500 }
    }
}

impl FoundingRules {
    /// As they are for a node that has heard no leader act since it was started.
    #[must_use]
    pub fn after_start(self) -> Self {
        Self { wait_ms: self.wait_ms.max(AFTER_START_MS), ..self }
    }
}

/// What a node knows when it decides.
#[derive(Clone, Debug)]
pub struct Situation<'a> {
    pub me: &'a str,
    pub position: Position,
    pub roster: &'a Roster,
    /// Of the same group, alive and connected. Not this node.
    pub survivors: &'a [Survivor],
    /// How long no leader that acts was heard, and no pledge was given to anybody.
    pub unled_ms: u64,
    pub rules: &'a FoundingRules,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// There is a leader, or there was one a moment ago.
    Stay,
    /// Less than more than half is there: nothing but people can go on.
    TooFew(Count),
    /// It is another one's turn.
    Wait { founder: String },
    /// Ask the others for their pledges.
    Ask { why: String },
}

/// What to do now.
pub fn next(situation: &Situation) -> Step {
    let Situation { me, roster, survivors, rules, .. } = situation;
    // Before a group's first roster nobody belongs, and whoever has heard of it would be enough by itself.
    if situation.unled_ms < rules.wait_ms || roster.members.is_empty() {
        return Step::Stay;
    }
    // Who does not belong keeps out of it, unless none of those who do holds as much: they pledge themselves to nobody who
    // holds less, nor does this node, whose log may end with the very entry that takes it off the roster.
    let as_much = |s: &Survivor| roster.names(&s.peer) && s.position >= situation.position;
    if !roster.names(me) && survivors.iter().any(as_much) {
        return Step::Stay;
    }
    let there = |peer: &str| peer == *me || survivors.iter().any(|survivor| survivor.peer == peer);
    if !roster.has_majority(there) {
        return Step::TooFew(roster.count(there));
    }
    let better = better_placed(situation);
    match better.last() {
        Some(founder) if situation.unled_ms < rules.wait_ms.saturating_add(turn_ms(situation, &better)) => {
            Step::Wait { founder: (*founder).clone() }
        }
        _ => {
            let Count { there, of } = roster.count(there);
            Step::Ask { why: format!("no leader is heard, and {there} of {of} desktops are here") }
        }
    }
}

/// Whether less than half have been by themselves for so long that they go on, where their owners wish it so
/// (`after_ms`), and it is this node's turn to see to it.
pub fn is_left_alone(situation: &Situation, after_ms: u64) -> bool {
    let turn_ms = turn_ms(situation, &better_placed(situation));
    situation.roster.names(situation.me) && situation.unled_ms >= after_ms.saturating_add(turn_ms)
}

/// Who of those who are here should found before this node does, the best placed last.
fn better_placed<'a>(situation: &Situation<'a>) -> Vec<&'a String> {
    let rank = |position: Position, peer: &'a str| (position, Reverse(peer));
    let mine = rank(situation.position, situation.me);
    let members = situation.survivors.iter().filter(|s| situation.roster.names(&s.peer));
    let mut better: Vec<_> = members.map(|s| (rank(s.position, &s.peer), &s.peer)).collect();
    better.retain(|(rank, _)| *rank > mine);
    better.sort_unstable();
    better.into_iter().map(|(_, peer)| peer).collect()
}

/// How long they are given, in all.
fn turn_ms(situation: &Situation, better: &[&String]) -> u64 {
    u64::try_from(better.len()).unwrap_or(u64::MAX).saturating_mul(situation.rules.turn_ms)
}

/// "Pledge yourself to this epoch, with me as its founder."
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ask {
    pub lineage: Lineage,
    pub position: Position,
    /// The revision of the roster whose majority the founder counts.
    pub roster: Revision,
}

/// Whether a node listens to who asks, knowing this roster: whoever belongs may ask, and a roster newer than the one known
/// here may name whom this one does not.
pub fn may_ask(from: &str, ask: &Ask, roster: &Roster, revision: Revision) -> bool {
    ask.roster > revision || roster.names(from)
}

/// Why a node does not pledge itself.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
pub enum NoPledge {
    #[error("this node follows another group")]
    OtherGroup,
    #[error("this node has reached epoch {0} already")]
    Passed(u64),
    #[error("a leader may still count on this node")]
    Led,
    #[error("this node lost what it promised before")]
    Unsure,
    #[error("this node holds more: {0:?}")]
    Newer(Position),
    #[error("this node knows of a newer roster, of revision {0}")]
    NewerRoster(Revision),
}

/// Answers a node that wants to found the group anew. `mine` is what this node follows, `position` how much it holds. If it
/// pledges itself, [`Grants::word`] must be on disk before the answer is sent.
///
/// # Errors
/// Says why not; nothing has changed then.
pub fn pledge(
    grants: &mut Grants,
    ask: &Ask,
    from: &str,
    mine: Option<&Lineage>,
    position: Position,
    now_ms: u64,
) -> Result<(), NoPledge> {
    let mine = mine.filter(|mine| mine.group == ask.lineage.group).ok_or(NoPledge::OtherGroup)?;
    let word = grants.word();
    let given = word.given.as_ref().filter(|given| given.group == mine.group);
    let promised = grants.promised(&mine.group);
    let begun = mine.epoch.max(promised.as_ref().map_or(0, |promised| promised.given));
    if begun >= ask.lineage.epoch {
        return Err(NoPledge::Passed(begun));
    }
    // The same founder may ask again, but not whoever has been in another group since: it does not remember whom it was.
    let is_again = given.is_some()
        && word.pledge.as_ref().is_some_and(|pledge| pledge.epoch == ask.lineage.epoch && pledge.to == from);
    let reached = grants.reached(&mine.group);
    if reached >= ask.lineage.epoch && !is_again {
        return Err(NoPledge::Passed(reached));
    }
    if word.unsure {
        return Err(NoPledge::Unsure);
    }
    if grants.is_held(now_ms) {
        return Err(NoPledge::Led);
    }
    // What was noted of an epoch counts no more once a majority has gone on from it.
    let counts = promised.filter(|promised| promised.given >= ask.position.epoch);
    if let Some(promised) = counts.filter(|promised| promised.roster > ask.roster) {
        return Err(NoPledge::NewerRoster(promised.roster));
    }
    if position > ask.position {
        return Err(NoPledge::Newer(position));
    }
    grants.pledge(mine, Pledge { epoch: ask.lineage.epoch, to: from.to_owned() });
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::super::presence::Word;
    use super::*;

    /// Or the two would wait for each other for ever: nobody else may found where the leader holds the newest state.
    #[test]
    fn a_leader_that_steps_aside_after_a_restart_has_the_time_to_found() {
        let rules = FoundingRules::default().after_start();
        assert!(rules.wait_ms >= AFTER_START_MS);
        assert!(super::super::presence::STEP_ASIDE_MS > rules.wait_ms + rules.turn_ms);
    }

    fn lineage(epoch: u64) -> Lineage {
        Lineage { group: "g".into(), epoch }
    }

    fn at(revision: u64) -> Position {
        Position { epoch: 1, term: 1, revision: Revision(revision) }
    }

    fn roster(members: &str) -> Roster {
        Roster { members: members.split_whitespace().map(str::to_owned).collect(), ..Roster::default() }
    }

    fn survivor(peer: &str, revision: u64) -> Survivor {
        Survivor { peer: peer.into(), position: at(revision) }
    }

    fn step(me: &str, revision: u64, survivors: &[Survivor], unled_ms: u64) -> Step {
        let (roster, rules) = (roster("a b c d e"), FoundingRules::default());
        next(&Situation { me, position: at(revision), roster: &roster, survivors, unled_ms, rules: &rules })
    }

    #[test]
    fn the_newest_view_founds_when_more_than_half_is_there() {
        let two = [survivor("a", 7), survivor("c", 9)];
        assert_eq!(step("b", 8, &two, 2_999), Step::Stay);
        assert_eq!(step("b", 8, &two[..1], 3_000), Step::TooFew(Count { there: 2, of: 5 }));
        assert_eq!(step("b", 8, &two, 3_000), Step::Wait { founder: "c".into() });
        assert!(matches!(step("b", 8, &two, 4_500), Step::Ask { .. }), "the better one had its turn");
        assert!(matches!(step("b", 9, &two, 3_000), Step::Ask { .. }), "the lower id of two equals");
        assert_eq!(step("x", 9, &two, 3_000), Step::Stay, "not of the roster");
        assert_eq!(
            step("x", 99, &two, 3_000),
            Step::TooFew(Count { there: 2, of: 5 }),
            "it does not count itself"
        );
        let three = [survivor("a", 7), survivor("c", 9), survivor("d", 9)];
        assert!(matches!(step("x", 99, &three, 3_000), Step::Ask { .. }), "nobody who belongs could found");
    }

    #[test]
    fn a_group_without_a_roster_is_not_founded_anew() {
        let (roster, rules) = (Roster::default(), FoundingRules::default());
        let mine = Situation {
            me: "a",
            position: at(9),
            roster: &roster,
            survivors: &[],
            unled_ms: 9_000,
            rules: &rules,
        };
        assert_eq!(next(&mine), Step::Stay, "more than half of nobody is there, on every side of every cut");
    }

    #[test]
    fn who_is_about_to_belong_no_more_founds_if_it_holds_the_newest() {
        let rules = FoundingRules::default();
        let joint = Roster { before: Some(roster("a b c d").members), ..roster("a c d") };
        let others = [survivor("c", 7), survivor("d", 7)];
        let (me, position) = ("b", at(8));
        let mine =
            Situation { me, position, roster: &joint, survivors: &others, unled_ms: 3_000, rules: &rules };
        assert!(matches!(next(&mine), Step::Ask { .. }), "it would pledge itself to nobody who holds less");
        let others = [survivor("b", 8), survivor("d", 7)];
        let theirs = Situation { me: "c", position: at(7), survivors: &others, ..mine };
        assert_eq!(next(&theirs), Step::Wait { founder: "b".into() });
    }

    #[test]
    fn those_who_are_left_alone_go_on_one_after_the_other() {
        let (roster, rules) = (roster("a b c d e"), FoundingRules::default());
        let others = [survivor("a", 9)];
        let alone = |me: &str, revision: u64, unled_ms: u64| {
            let position = at(revision);
            let situation =
                Situation { me, position, roster: &roster, survivors: &others, unled_ms, rules: &rules };
            is_left_alone(&situation, 60_000)
        };
        assert!(!alone("b", 9, 60_000), "a holds as much and has the lower id");
        assert!(alone("b", 9, 61_500), "it had its turn, or its owner does not wish so");
        assert!(alone("b", 10, 60_000) && !alone("b", 10, 59_999));
        assert!(!alone("x", 99, 99_999), "not of the roster");
    }

    #[test]
    fn a_later_term_beats_a_longer_tail() {
        let late = Position { epoch: 1, term: 3, revision: Revision(5) };
        assert!(late > Position { epoch: 1, term: 2, revision: Revision(50) });
    }

    fn ask(epoch: u64, revision: u64) -> Ask {
        Ask { lineage: lineage(epoch), position: at(revision), roster: Revision(4) }
    }

    #[test]
    fn who_knows_a_newer_roster_is_no_stranger() {
        let (known, ask) = (roster("a b c"), ask(2, 9));
        assert!(may_ask("b", &ask, &known, Revision(9)));
        assert!(!may_ask("x", &ask, &known, Revision(4)));
        assert!(may_ask("x", &ask, &known, Revision(3)), "it may have been named since");
    }

    #[test]
    fn a_node_pledges_once_per_epoch_and_only_upwards() {
        let mine = lineage(1);
        let mut grants = Grants::new(Word::default(), 0);
        let mut answer = |ask: &Ask, from: &str| pledge(&mut grants, ask, from, Some(&mine), at(5), 9_000);
        assert_eq!(answer(&ask(1, 5), "a"), Err(NoPledge::Passed(1)));
        assert_eq!(answer(&ask(3, 4), "a"), Err(NoPledge::Newer(at(5))));
        assert_eq!(answer(&ask(3, 5), "a"), Ok(()));
        assert_eq!(answer(&ask(3, 5), "a"), Ok(()), "asked again: the first answer was lost");
        assert_eq!(answer(&ask(3, 6), "b"), Err(NoPledge::Passed(3)));
        assert_eq!(answer(&ask(2, 6), "b"), Err(NoPledge::Passed(3)));
        assert_eq!(answer(&ask(4, 6), "b"), Ok(()));
        let other = Lineage { group: "h".into(), epoch: 1 };
        assert_eq!(
            pledge(&mut grants, &ask(5, 6), "b", Some(&other), at(1), 9_000),
            Err(NoPledge::OtherGroup)
        );
        assert_eq!(pledge(&mut grants, &ask(5, 6), "b", None, at(1), 9_000), Err(NoPledge::OtherGroup));
    }

    #[test]
    fn a_node_that_is_led_or_knows_a_newer_roster_does_not_pledge() {
        let mine = lineage(1);
        let mut grants = Grants::new(Word::default(), 0);
        grants.grant(&mine, Some(&mine), 1_000).unwrap();
        let held = 1_000 + HOLD_MS;
        assert_eq!(pledge(&mut grants, &ask(2, 9), "a", Some(&mine), at(5), held - 1), Err(NoPledge::Led));
        grants.note_roster(&mine, Revision(5));
        let newer = Err(NoPledge::NewerRoster(Revision(5)));
        assert_eq!(pledge(&mut grants, &ask(2, 9), "a", Some(&mine), at(5), held), newer);
        let gone_on = Ask { position: Position { epoch: 2, ..at(1) }, ..ask(3, 0) };
        assert_eq!(pledge(&mut grants.clone(), &gone_on, "a", Some(&mine), at(5), held), Ok(()));
        let knows = Ask { roster: Revision(5), ..ask(2, 9) };
        assert_eq!(pledge(&mut grants, &knows, "a", Some(&mine), at(5), held), Ok(()));
        // From then on the old epoch gets no lease, and the new one does.
        assert!(grants.grant(&mine, Some(&mine), held).is_err());
        assert_eq!(grants.grant(&lineage(2), Some(&lineage(2)), held), Ok(()));
    }
}
