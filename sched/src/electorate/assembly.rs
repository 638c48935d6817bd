//! Which group a node belongs to: when to found one, whom to follow, which of two groups gives way.
//!
//! Every node decides for itself from what it hears. The rules are such that nodes that hear the same decide the
//! same, and that a decision, once begun, makes itself more right: the group that yields gets smaller.

use super::roster::Roster;
use crate::state::Lineage;
use std::cmp::Reverse;
use std::collections::BTreeMap;

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
    /// Whether more than half of its members are here, as far as it sees, of whichever group they say that they are.
    pub could_act: bool,
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
    pub muster: Muster,
    /// For how long it has not been [`Muster::Together`]; 0 if it is.
    pub apart_for_ms: u64,
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

/// Whether the members of a group are here, as one of them sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Muster {
    /// More than half are, and of this group.
    Together,
    /// More than half are, and of this group are too few: it can neither act nor be founded anew without those who say that
    /// they are of another one.
    Scattered,
    /// Half or less are.
    Few,
}

impl Muster {
    /// What `me`, which is of the group, sees of those on its roster.
    pub fn of(me: &str, group: &str, roster: &Roster, others: &[Seen]) -> Self {
        let here = || others.iter().filter(|seen| seen.alive && seen.connected);
        let is_of = |seen: &Seen| seen.group.as_ref().is_some_and(|claim| claim.lineage.group == group);
        let stays = |peer: &str| peer == me || here().any(|seen| seen.peer == peer && is_of(seen));
        // Who is of no group has forgotten this one, and joins it as a stranger.
        let is_of_any =
            |peer: &str| peer == me || here().any(|seen| seen.peer == peer && seen.group.is_some());
        match () {
            () if roster.has_majority(stays) => Self::Together,
            () if roster.has_majority(is_of_any) => Self::Scattered,
            () => Self::Few,
        }
    }
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

/// What may be hoped of a group, from all that is said of it: who compares two by the same claims comes to the same end.
#[derive(Clone, Copy)]
struct Hope<'a> {
    acts: bool,
    /// One of its voters is here.
    is_led: bool,
    could_act: bool,
    members: usize,
    /// The newest of the group.
    lineage: &'a Lineage,
}

impl<'a> Hope<'a> {
    fn of(claim: &'a Claim) -> Self {
        let Claim { lineage, members, part, quorum, could_act } = claim;
        let is_led = *part != Part::Follower;
        Self { acts: *quorum, is_led, could_act: *could_act, members: *members, lineage }
    }

    fn with(self, other: Self) -> Self {
        Self {
            acts: self.acts || other.acts,
            is_led: self.is_led || other.is_led,
            could_act: self.could_act || other.could_act,
            members: self.members.max(other.members),
            lineage: if other.lineage.epoch > self.lineage.epoch { other.lineage } else { self.lineage },
        }
    }

    fn rank(&self) -> (bool, bool, usize, Reverse<&'a str>) {
        (self.acts, self.is_led, self.members, Reverse(&self.lineage.group))
    }
}

/// A group to go to from one that lacks members, so that it cannot act: one that acts, or the one of which most may be hoped
/// among those that could with who is here. Either the members are scattered over several groups, and none may be able to act;
/// or most of this one are not here, and another one may need this very node. What it holds of its own is kept as intent.
fn gathering(situation: &Situation, mine: &Mine) -> Option<Lineage> {
    if mine.acting.is_some() || mine.apart_for_ms < situation.rules.rejoin_grace_ms {
        return None;
    }
    let own = Hope {
        acts: false,
        is_led: mine.votes,
        could_act: mine.muster != Muster::Few,
        members: mine.members,
        lineage: &mine.lineage,
    };
    let mut groups = BTreeMap::from([(mine.lineage.group.as_str(), own)]);
    for (_, claim) in claims(situation) {
        let (group, said) = (claim.lineage.group.as_str(), Hope::of(claim));
        let hope = groups.get(group).map_or(said, |known| known.with(said));
        groups.insert(group, hope);
    }
    let best = groups.into_values().filter(|hope| hope.acts || hope.could_act).max_by_key(Hope::rank)?;
    (best.lineage.group != mine.lineage.group).then(|| best.lineage.clone())
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
        let why = match mine.muster {
            Muster::Few => "too few of this node's own group are here, and enough of that one",
            Muster::Scattered | Muster::Together => {
                "the members of this node's own group are of other groups now"
            }
        };
        return Decision::Yield { to, why: why.into() };
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
