//! Which group a node belongs to: when to found one, whom to follow, which of two groups gives way.
//!
//! Every node decides for itself from what it hears. The rules are such that nodes that hear the same decide the
//! same, and that a decision, once begun, makes itself more right: the group that yields gets smaller.

use super::roster::Roster;
use crate::state::Lineage;
use std::cmp::Reverse;

/// What a node does in its group.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    Leader,
    Voter,
    Follower,
}

/// What another node says about the group it is in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Claim {
    pub lineage: Lineage,
    /// Members of the group, as its leader counts them.
    pub members: usize,
    pub part: Part,
    /// Whether it hears of a quorum.
    pub quorum: bool,
}

/// Another node, as this one sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Seen {
    pub peer: String,
    pub alive: bool,
    pub connected: bool,
    pub group: Option<Claim>,
}

/// The group that this node is in, or remembers from before it was restarted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mine {
    pub lineage: Lineage,
    /// As this node knows it; what the leader says counts for more, where it is heard.
    pub members: usize,
    /// Whether it can neither act nor be founded anew for want of members who are here and of another group
    /// ([`is_scattered`]).
    pub scattered: bool,
    /// Whether this node is one of its voters.
    pub votes: bool,
    /// Who acts for it as its leader, as far as this node hears; itself, too.
    pub acting: Option<String>,
    /// Whether this node has heard of a quorum of it since it started: otherwise it only remembers the group.
    pub heard: bool,
    /// Whether this node holds anything of what the group has ordered.
    pub holds: bool,
    /// How long there has been no quorum; since the start if there was none yet.
    pub without_quorum_ms: u64,
}

/// A group to give way to, and for how long it has been the same one: what the caller remembers of [`rival`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Contest {
    pub lineage: Lineage,
    pub for_ms: u64,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AssemblyRules {
    /// Nobody joined or left for this long: then whoever starts at the same time has been heard.
    pub founding_quiet_ms: u64,
    /// Two leaders' counts must tell the same story for this long before a group yields.
    pub yield_hold_ms: u64,
    /// Who hears a leader waits this long for it to yield first. It counts its group best, and who leaves before it is still
    /// counted there: what the others then lack to act.
    pub led_yield_hold_ms: u64,
    /// How long a remembered group is waited for before another one is joined: others may be switched on a little
    /// later, and hold its newest state.
    pub rejoin_grace_ms: u64,
}

impl Default for AssemblyRules {
    fn default() -> Self {
        Self { founding_quiet_ms: 700, yield_hold_ms: 500, led_yield_hold_ms: 3_000, rejoin_grace_ms: 10_000 }
    }
}

/// All that a node knows when it decides.
#[derive(Clone, Debug)]
pub struct Situation<'a> {
    pub me: &'a str,
    /// How long the set of live members has been the same.
    pub quiet_for_ms: u64,
    pub up_for_ms: u64,
    pub mine: Option<&'a Mine>,
    pub others: &'a [Seen],
    pub contest: Option<&'a Contest>,
    pub rules: &'a AssemblyRules,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Decision {
    /// In no group yet, and nothing to do but listen.
    Wait { why: String },
    /// Found a group with a fresh id.
    Found { why: String },
    /// Follow this peer, a voter of that group.
    Follow { peer: String, lineage: Lineage, why: String },
    /// Leave the present group (forget it, follow the other one).
    Yield { to: Lineage, why: String },
    /// Nothing to change.
    Stay,
}

/// What to do now.
pub fn decide(situation: &Situation) -> Decision {
    match situation.mine {
        None => assemble(situation),
        Some(mine) => keep_or_yield(situation, mine),
    }
}

/// The group that this node's own should give way to, if there is one. The caller remembers since when it has been
/// the same and says so in [`Situation::contest`].
pub fn rival(situation: &Situation) -> Option<Lineage> {
    let mine = situation.mine?;
    // A majority of the roster has pledged itself to it, whether or not it acts already: it waits for its members.
    let anew = claims(situation).filter(|(_, claim)| claim.part != Part::Follower);
    let anew = anew.map(|(_, claim)| &claim.lineage);
    let anew = anew.filter(|other| other.group == mine.lineage.group && other.epoch > mine.lineage.epoch);
    if let Some(newest) = anew.max_by_key(|other| other.epoch) {
        return Some(newest.clone());
    }
    let best = living_groups(situation)
        .filter(|group| group.lineage.group != mine.lineage.group)
        .max_by_key(Group::rank)?;
    (own(situation, mine).rank() < best.rank() || mine.acting.is_none()).then(|| best.lineage.clone())
}

/// Whether more than half of a group's members are here, but not of it: some say that they are of another one. `me` is of it.
pub fn is_scattered(me: &str, group: &str, roster: &Roster, others: &[Seen]) -> bool {
    let here = || others.iter().filter(|seen| seen.alive && seen.connected);
    let is_of = |seen: &Seen| seen.group.as_ref().is_some_and(|claim| claim.lineage.group == group);
    let stays = |peer: &str| peer == me || here().any(|seen| seen.peer == peer && is_of(seen));
    let is_of_any = |peer: &str| peer == me || here().any(|seen| seen.peer == peer && seen.group.is_some());
    !roster.has_majority(stays) && roster.has_majority(is_of_any)
}

/// A group that others speak of.
struct Group<'a> {
    lineage: &'a Lineage,
    members: usize,
}

impl<'a> Group<'a> {
    /// The larger group first, then the lower id, then the newer founding of the same one.
    fn rank(&self) -> (usize, Reverse<&'a str>, u64) {
        (self.members, Reverse(&self.lineage.group), self.lineage.epoch)
    }
}

fn claims<'a>(situation: &Situation<'a>) -> impl Iterator<Item = (&'a Seen, &'a Claim)> + use<'a> {
    let reachable = situation.others.iter().filter(|seen| seen.alive && seen.connected);
    reachable.filter_map(|seen| Some((seen, seen.group.as_ref()?)))
}

/// Groups with a quorum, counted by their leader where it is heard itself.
fn living_groups<'a>(situation: &Situation<'a>) -> impl Iterator<Item = Group<'a>> + use<'a> {
    let living: Vec<_> =
        claims(situation).filter(|(_, claim)| claim.quorum).map(|(_, claim)| claim).collect();
    let of_leaders: Vec<_> = living.iter().filter(|claim| claim.part == Part::Leader).copied().collect();
    living.into_iter().map(move |claim| {
        let leader = of_leaders.iter().find(|leader| leader.lineage == claim.lineage);
        Group { lineage: &claim.lineage, members: leader.unwrap_or(&claim).members }
    })
}

/// This node's own group, counted by its leader as well, if one acts: a count that came here a moment ago may be smaller than
/// what the other group's leader goes by, and then both groups would yield.
fn own<'a>(situation: &Situation, mine: &'a Mine) -> Group<'a> {
    let acting = claims(situation).filter(|(_, claim)| claim.part == Part::Leader && claim.quorum);
    let counts = acting.filter(|(_, claim)| claim.lineage == mine.lineage).map(|(_, claim)| claim.members);
    Group { lineage: &mine.lineage, members: counts.max().unwrap_or(mine.members) }
}

/// Whether a voter of that group is here, whom one could follow.
fn is_followed(situation: &Situation, lineage: &Lineage) -> bool {
    claims(situation).any(|(_, claim)| claim.part != Part::Follower && claim.lineage == *lineage)
}

/// A group to go to where this node's own brought it nothing and cannot be followed: whoever led it has yielded itself, say.
/// Nothing is lost with it, and the other group may need this very node to act again.
fn way_out(situation: &Situation, mine: &Mine) -> Option<Lineage> {
    let waited = mine.without_quorum_ms >= situation.rules.rejoin_grace_ms;
    if mine.holds || !waited || is_followed(situation, &mine.lineage) {
        return None;
    }
    best_to_follow(situation).map(|(_, claim)| claim.lineage.clone())
}

/// A group to go to from one whose members are scattered over several, so that none may be able to act. What this node holds
/// of its own is kept as intent. Of two such groups the one that ranks lower is left, or the one without voters.
fn gathering(situation: &Situation, mine: &Mine) -> Option<Lineage> {
    if !mine.scattered || mine.acting.is_some() || mine.without_quorum_ms < situation.rules.rejoin_grace_ms {
        return None;
    }
    let (_, best) = best_to_follow(situation)?;
    let can_be_led = mine.votes || is_followed(situation, &mine.lineage);
    let other = Group { lineage: &best.lineage, members: best.members };
    let better = best.quorum || !can_be_led || own(situation, mine).rank() < other.rank();
    (best.lineage.group != mine.lineage.group && better).then(|| best.lineage.clone())
}

/// Whether another node acts as the leader of this node's group and says that it is of it.
fn waits_for_its_leader(situation: &Situation, mine: &Mine) -> bool {
    let Some(leader) = mine.acting.as_deref().filter(|leader| *leader != situation.me) else { return false };
    let left =
        |(seen, claim): (&Seen, &Claim)| seen.peer == leader && claim.lineage.group != mine.lineage.group;
    !claims(situation).any(left)
}

fn keep_or_yield(situation: &Situation, mine: &Mine) -> Decision {
    if let Some(to) = way_out(situation, mine) {
        let why = "nothing came of the group that this node followed, and none of its voters is here".into();
        return Decision::Yield { to, why };
    }
    if let Some(to) = gathering(situation, mine) {
        let why = "the members of this node's own group are of other groups now".into();
        return Decision::Yield { to, why };
    }
    let Some(to) = rival(situation) else { return Decision::Stay };
    if to.group == mine.lineage.group {
        let why = "the group was founded anew while this node was away".into();
        return Decision::Yield { to, why };
    }
    let rules = situation.rules;
    let hold_ms =
        if waits_for_its_leader(situation, mine) { rules.led_yield_hold_ms } else { rules.yield_hold_ms };
    let held = situation.contest.is_some_and(|c| c.lineage == to && c.for_ms >= hold_ms);
    let outranked = living_groups(situation)
        .filter(|group| *group.lineage == to)
        .any(|group| own(situation, mine).rank() < group.rank());
    // A group that this node heard of and that is the smaller one has lost already, quorum or not. One that is only
    // remembered, or was the larger one, may come back.
    let lost = outranked && mine.heard;
    let given_up = mine.acting.is_none() && mine.without_quorum_ms >= rules.rejoin_grace_ms;
    if held && (lost || given_up) {
        let why = if lost { "it is the larger group" } else { "this node's own group did not come back" };
        return Decision::Yield { to, why: why.into() };
    }
    Decision::Stay
}

/// Whom a node follows that has no group to lose.
fn best_to_follow<'a>(situation: &Situation<'a>) -> Option<(&'a Seen, &'a Claim)> {
    let followable = claims(situation).filter(|(_, claim)| claim.part != Part::Follower);
    followable.max_by_key(|(seen, claim)| {
        let rank = Group { lineage: &claim.lineage, members: claim.members }.rank();
        (claim.quorum, rank, claim.part == Part::Leader, Reverse(&seen.peer))
    })
}

fn assemble(situation: &Situation) -> Decision {
    if let Some((seen, claim)) = best_to_follow(situation) {
        let why =
            if claim.quorum { "its group acts" } else { "its group is known, and waits for its quorum" };
        return Decision::Follow { peer: seen.peer.clone(), lineage: claim.lineage.clone(), why: why.into() };
    }
    let alive = || situation.others.iter().filter(|seen| seen.alive);
    if let Some(seen) = alive().find(|seen| seen.group.is_some()) {
        return Decision::Wait {
            why: format!("{} is in a group whose voters are not reached yet", seen.peer),
        };
    }
    let quiet = situation.rules.founding_quiet_ms;
    if situation.quiet_for_ms < quiet || situation.up_for_ms < quiet {
        return Decision::Wait { why: "listening for others".into() };
    }
    let lowest = alive().filter(|seen| seen.connected).map(|seen| seen.peer.as_str()).min();
    match lowest.filter(|peer| *peer < situation.me) {
        Some(peer) => Decision::Wait { why: format!("{peer} is the one to found the group") },
        None => Decision::Found { why: "nobody speaks of a group, and no lower id is here".into() },
    }
}

#[cfg(test)]
mod tests;
