//! The electorate: the odd set of nodes that vote, and the next step towards the right one.

use std::collections::BTreeSet;

/// A member of the roster, alive or dead. Whoever left properly is not among the candidates any more.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Candidate {
    pub peer: String,
    /// Membership hears it.
    pub alive: bool,
    /// The leader has a connection to it.
    pub connected: bool,
    /// It said that it is about to leave.
    pub leaving: bool,
    /// It said that it is counted as a voter and has lost its log: it cannot vote before it was voted out.
    pub lost: bool,
    /// When it started, on the clock of [`Input::now_ms`].
    pub started_ms: u64,
    /// Likely to stay: not on battery, not busy with its owner (see [`super::Steadiness`]).
    pub steady: bool,
    /// How long it has been dead; 0 while it is alive.
    pub dead_for_ms: u64,
}

impl Candidate {
    /// Can answer now, also when it is about to leave.
    fn answers(&self) -> bool {
        self.alive && self.connected && !self.lost
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VoterRules {
    /// The largest electorate. More voters survive more deaths, and every write waits for more of them.
    pub max: usize,
    /// A voter that has been dead for this long is replaced: longer than a restart of the daemon takes.
    pub dead_grace_ms: u64,
    /// A node votes only after it has been up for this long, so that one that keeps crashing does not.
    pub newcomer_settle_ms: u64,
    /// An unsteady voter is swapped for a steady spare at most this often: every change of the electorate is a moment in
    /// which one more death would hurt, and a vote on a laptop is no emergency.
    pub swap_every_ms: u64,
    /// The spare must have been up for this long, when the swap is for steadiness alone.
    pub swap_settle_ms: u64,
}

impl Default for VoterRules {
    fn default() -> Self {
        Self {
            max: 7,
            dead_grace_ms: 1_500,
            newcomer_settle_ms: 300,
            swap_every_ms: 300_000,
            swap_settle_ms: 60_000,
        }
    }
}

/// What the leader knows.
#[derive(Clone, Debug)]
pub struct Input<'a> {
    pub now_ms: u64,
    /// The leader's own peer id.
    pub me: &'a str,
    pub voters: &'a BTreeSet<String>,
    pub candidates: &'a [Candidate],
    /// When this leader last swapped a voter for steadiness, or began to lead, on the clock of `now_ms`.
    pub swapped_ms: u64,
    pub rules: &'a VoterRules,
}

/// The set that should vote next, and why.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VoterChange {
    pub voters: BTreeSet<String>,
    pub why: String,
    pub need: Need,
}

/// How much a change matters.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Need {
    /// The electorate lacks somebody, or has too many.
    Due,
    /// It would be steadier. Whoever makes it notes the time, for [`Input::swapped_ms`].
    Steadier,
}

/// How many of `members` nodes vote: 1 below three, 3 from three, 5 from five, 7 from seven, and never more than
/// `max`. Always odd: an even one survives no more deaths than the odd one below it.
pub fn size_for(members: usize, max: usize) -> usize {
    let odd = |n: usize| n.saturating_sub(1) | 1;
    match members {
        0..3 => 1,
        _ => odd(members).min(odd(max)),
    }
}

/// The next single change of the electorate, if one is due: swap one voter, or go to the next odd size.
///
/// It is made with joint consensus, so it never passes through an even size; only while a voter that lost its log is
/// out and nobody can take its place does the electorate rest at one. `None` also when a change is due but
/// the voters that answer could not carry it: neither the old nor the new set may lose its quorum by it.
pub fn next_change(input: &Input) -> Option<VoterChange> {
    if !input.voters.contains(input.me) {
        // Voted out: whoever is elected next goes on.
        return None;
    }
    let table = Table::new(input);
    let even = input.voters.len().is_multiple_of(2);
    let change = if even {
        table.resize().or_else(|| table.replace_one())
    } else {
        table.replace_one().or_else(|| table.resize())
    };
    let change = change.or_else(|| table.hand_over()).or_else(|| table.steady_one())?;
    (change.voters != *input.voters && table.carries(&change.voters)).then_some(change)
}

struct Table<'a> {
    input: &'a Input<'a>,
    /// Nodes that could become voters, best first.
    spares: Vec<&'a Candidate>,
    /// The size that the electorate should have.
    goal: usize,
}

impl<'a> Table<'a> {
    fn new(input: &'a Input) -> Self {
        let up_for = |c: &Candidate| input.now_ms.saturating_sub(c.started_ms);
        let mut spares: Vec<_> = input.candidates.iter().collect();
        spares.retain(|c| c.answers() && !c.leaving && !input.voters.contains(&c.peer));
        spares.retain(|c| up_for(c) >= input.rules.newcomer_settle_ms);
        spares.sort_by_key(|c| (!c.steady, c.started_ms, &c.peer));
        let staying = input.candidates.iter().filter(|c| !c.leaving);
        let most = size_for(staying.clone().count(), input.rules.max);
        let least = size_for(staying.filter(|c| c.alive).count(), input.rules.max);
        // The dead count for what exists and not for what is missing: an electorate grows with the living, and
        // shrinks only with the roster. The size in between is kept, if it is odd.
        let kept = input.voters.len().saturating_sub(1) | 1;
        Self { input, spares, goal: kept.clamp(least, most) }
    }

    fn candidate(&self, peer: &str) -> Option<&'a Candidate> {
        self.input.candidates.iter().find(|c| c.peer == peer)
    }

    /// How urgently a voter should go; 0 if it should stay.
    fn unfit(&self, peer: &str) -> u8 {
        match self.candidate(peer) {
            None => 4,
            Some(c) if c.leaving => 3,
            Some(c) if c.lost => 2,
            Some(c) if !c.alive && c.dead_for_ms >= self.input.rules.dead_grace_ms => 1,
            Some(_) => 0,
        }
    }

    /// The other voters, the one to go first in front: the unfit, the unsteady, the youngest.
    fn expendable(&self) -> Vec<&'a String> {
        let mut others: Vec<_> = self.input.voters.iter().filter(|peer| *peer != self.input.me).collect();
        others.sort_by_key(|peer| {
            let (steady, started) = self.candidate(peer).map_or((false, 0), |c| (c.steady, c.started_ms));
            let answers = self.candidate(peer).is_some_and(Candidate::answers);
            (std::cmp::Reverse(self.unfit(peer)), answers, steady, std::cmp::Reverse(started))
        });
        others
    }

    /// Swaps a dead or leaving voter for a spare, unless the electorate shrinks anyway. One that lost its log goes
    /// also without a spare: it does not vote in any case, and may come back in as a newcomer.
    fn replace_one(&self) -> Option<VoterChange> {
        if self.input.voters.len() > self.goal {
            return None;
        }
        let out = *self.expendable().first()?;
        let why = match self.unfit(out) {
            0 => return None,
            1 => "is dead",
            2 => "has lost its log",
            3 => "is leaving",
            _ => "has left",
        };
        let mut voters = self.input.voters.clone();
        voters.remove(out);
        let Some(spare) = self.spares.first() else {
            let lost = self.candidate(out).is_some_and(|c| c.lost && !c.leaving);
            let why = format!("{out} {why}: it is to come back in as a newcomer");
            return lost.then_some(VoterChange { voters, why, need: Need::Due });
        };
        voters.insert(spare.peer.clone());
        let why = format!("{out} {why}: {} votes in its place", spare.peer);
        Some(VoterChange { voters, why, need: Need::Due })
    }

    /// Swaps an unsteady voter for a steady spare, the leader last. With every swap there is one unsteady voter less, so it
    /// ends. Only in an electorate whose voters all answer: one that has lost some has other worries.
    fn steady_one(&self) -> Option<VoterChange> {
        let Input { now_ms, me, swapped_ms, rules, .. } = *self.input;
        let rested = now_ms.saturating_sub(swapped_ms) >= rules.swap_every_ms;
        let whole = self
            .input
            .voters
            .iter()
            .all(|peer| self.unfit(peer) == 0 && self.candidate(peer).is_some_and(Candidate::answers));
        if !rested || !whole || self.input.voters.len() != self.goal {
            return None;
        }
        let unsteady = |peer: &&String| self.candidate(peer).is_some_and(|c| !c.steady);
        let myself = self.input.voters.get(me);
        let out = self.expendable().into_iter().chain(myself).find(unsteady)?;
        let up_for = |c: &Candidate| now_ms.saturating_sub(c.started_ms);
        let spare = self.spares.iter().find(|c| c.steady && up_for(c) >= rules.swap_settle_ms)?;
        let mut voters = self.input.voters.clone();
        voters.remove(out);
        voters.insert(spare.peer.clone());
        let why = format!("{out} is on battery or in use: {} votes in its place", spare.peer);
        Some(VoterChange { voters, why, need: Need::Steadier })
    }

    /// Goes to the next odd size towards the goal.
    fn resize(&self) -> Option<VoterChange> {
        let (size, mut voters) = (self.input.voters.len(), self.input.voters.clone());
        if size < self.goal {
            let missing = if size.is_multiple_of(2) { 1 } else { 2 };
            let newcomers = self.spares.get(..missing)?;
            voters.extend(newcomers.iter().map(|c| c.peer.clone()));
            let why = format!("enough members for {} voters", voters.len());
            return Some(VoterChange { voters, why, need: Need::Due });
        }
        if size > self.goal {
            let surplus = if size.is_multiple_of(2) { 1 } else { 2 };
            let leaving = self.unfit(self.input.me) > 0;
            let mut out = self.expendable();
            if leaving {
                // A leader that leaves is one of those who go, in front of those who could stay.
                let fit = out.iter().position(|peer| self.unfit(peer) == 0).unwrap_or(out.len());
                let me = self.input.voters.get(self.input.me)?;
                out.insert(fit, me);
            }
            for peer in out.iter().take(surplus) {
                voters.remove(*peer);
            }
            let why = format!("the roster is down to what {} voters serve", voters.len());
            return Some(VoterChange { voters, why, need: Need::Due });
        }
        None
    }

    /// A leader that leaves passes its vote on, when everything else is done.
    fn hand_over(&self) -> Option<VoterChange> {
        let me = self.candidate(self.input.me).filter(|me| me.leaving)?;
        let spare = self.spares.first()?;
        let mut voters = self.input.voters.clone();
        voters.remove(&me.peer);
        voters.insert(spare.peer.clone());
        let why = format!("the leader is leaving: {} votes in its place", spare.peer);
        Some(VoterChange { voters, why, need: Need::Due })
    }

    /// Whether those who answer now are a quorum of the old set and of the new one.
    fn carries(&self, new: &BTreeSet<String>) -> bool {
        let quorum = |set: &BTreeSet<String>| {
            let answering = set.iter().filter(|peer| self.candidate(peer).is_some_and(Candidate::answers));
            answering.count() * 2 > set.len()
        };
        quorum(self.input.voters) && quorum(new)
    }
}

#[cfg(test)]
mod tests;
