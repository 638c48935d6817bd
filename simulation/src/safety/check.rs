//! What must be true, whatever breaks.

use super::super::faults::Moment;
use super::ledger::{Content, Entry, Id};
use super::world::{World, index, name};
use gaggle_sched::electorate::founding::Position;
use gaggle_sched::electorate::roster::Roster;
use gaggle_sched::electorate::size_for;
use gaggle_sched::state::Lineage;
use std::collections::BTreeSet;
use std::rc::Rc;

/// What a group lacks that cannot act, the nearest to it last.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
enum Lack {
    Group,
    Machines,
    Forgotten,
    Words,
    Newest,
}

impl Lack {
    fn text(self) -> &'static str {
        match self {
            Self::Group => "nobody knows of a group",
            Self::Machines => "half of the roster or more is off or removed",
            Self::Forgotten => "half of the roster or more has left and forgotten it",
            Self::Words => "half of the roster or more is off or has lost its word",
            Self::Newest => {
                "nobody who belongs and knows its word holds the newest, or a roster as new as others have seen"
            }
        }
    }
}

impl World<'_> {
    /// A node's view becomes this one.
    pub fn set_view(&mut self, node: usize, view: Id) {
        let old = self.process(node).view.replace(view);
        self.work_view(node, old, view);
        let new = self.ledger.get(view);
        let Some(old) = old.map(|old| self.ledger.get(old)) else { return };
        if old.lineage.group == new.lineage.group && old.position.revision > new.position.revision {
            let what = format!("{} goes from {:?} to {:?}", name(node), old.position, new.position);
            self.violated("a view's revision never goes back in its group", what);
        }
    }

    /// A leader finds that a quorum holds everything up to `now`.
    pub fn committed(&mut self, node: usize, before: Id, now: Id) {
        let lineage = self.ledger.get(now).lineage.clone();
        let open: Vec<Id> =
            self.ledger.back_from(now).take_while(|(id, _)| *id != before).map(|(id, _)| id).collect();
        for id in open {
            let roster = matches!(self.ledger.get(id).what, Content::Roster(_));
            if roster && !self.ledger.get(id).committed {
                self.moments.push((Moment::RosterCommitted, node));
            }
            self.ledger.mark_committed(id);
        }
        match self.committed.get(&*lineage).copied() {
            Some(known) if self.ledger.holds(known, now) => {}
            Some(known) if !self.ledger.holds(now, known) => {
                let what = format!(
                    "{} commits in epoch {} without what was committed before",
                    name(node),
                    lineage.epoch
                );
                self.violated("what was committed in an epoch stays in its logs", what);
            }
            _ => _ = self.committed.insert((*lineage).clone(), now),
        }
    }

    /// A leader that may act at this moment: more than half of its roster stands behind it and has gone no further, and
    /// nobody acts for another lineage that could meet it.
    pub fn check_lead(&mut self, node: usize) {
        if !self.gate_is_open(node) || self.violation.is_some() {
            return;
        }
        self.stats.checked += 1;
        let Some((lineage, term)) = self.process(node).lead.of.clone() else { return };
        let roster = self.process(node).lead.roster.0.clone();
        if !roster.has_majority(|peer| self.stands_behind(index(peer), &lineage)) {
            let away: Vec<String> = roster
                .members
                .iter()
                .chain(roster.before.iter().flatten())
                .filter(|peer| !self.stands_behind(index(peer), &lineage))
                .cloned()
                .collect();
            let what = format!(
                "{} acts for {} epoch {}, and these of its roster do not stand behind it: {away:?}",
                name(node),
                lineage.group,
                lineage.epoch
            );
            return self.violated("a leader that acts has more than half of its roster behind it", what);
        }
        for other in (0..self.plan.nodes).filter(|other| *other != node) {
            // Also one that sleeps, or whose words reach nobody: it will think that it may go on where it was.
            if !self.gate_is_open(other) {
                continue;
            }
            let Some((of, in_term)) = self.machines[other].process.as_ref().and_then(|p| p.lead.of.clone())
            else {
                continue;
            };
            if of.group == lineage.group && (of.epoch != lineage.epoch || in_term == term) {
                let what = format!(
                    "{} acts for epoch {} in term {term}, {} for epoch {} in term {in_term}",
                    name(node),
                    lineage.epoch,
                    name(other),
                    of.epoch
                );
                return self.violated("no two leaders act at once", what);
            }
        }
    }

    /// Whether a node has given its word to this lineage and may not help another now.
    fn stands_behind(&self, node: usize, lineage: &Rc<Lineage>) -> bool {
        let machine = &self.machines[node];
        let word = &machine.disk.word;
        // Who lost its word waits, whatever it was, and pledges itself to nobody.
        let lost =
            (machine.disk.word_lost || word.unsure) && (word.given.is_none() || machine.process.is_none());
        let given = lost || word.given.as_ref() == Some(&**lineage);
        let passed = word.pledge.as_ref().is_some_and(|pledge| pledge.epoch > lineage.epoch);
        // One that is off holds still for a while when it comes back.
        let held = machine.process.as_ref().is_none_or(|process| process.grants.is_held(self.ms(node)));
        given && !passed && held
    }

    /// Who acts, but for those whom a group evicted that acts and is no smaller: others refuse them.
    pub fn leaders(&self) -> Vec<usize> {
        let acts = |node: &usize| self.machines[*node].acts() && self.acts(*node);
        let acting: Vec<usize> = (0..self.plan.nodes).filter(acts).collect();
        let size = |node| self.roster_of(node).map_or(0, |roster| roster.members.len());
        let gives_way =
            |node, other| self.evicts(other, node) && !(self.evicts(node, other) && size(node) > size(other));
        let counts = |node: &usize| !acting.iter().any(|other| gives_way(*node, *other));
        acting.iter().copied().filter(counts).collect()
    }

    /// Whether this node was evicted by a group that acts.
    pub fn is_evicted(&self, node: usize) -> bool {
        self.leaders().into_iter().any(|leader| self.evicts(leader, node))
    }

    fn evicts(&self, leader: usize, node: usize) -> bool {
        self.roster_of(leader).is_some_and(|roster| roster.evicted.contains_key(&name(node)))
    }

    fn roster_of(&self, node: usize) -> Option<&Roster> {
        let view = self.machines[node].process.as_ref()?.view?;
        Some(&self.ledger.get(view).roster)
    }

    /// Whether exactly one group acts, and every node that is up follows it and has what it had a moment ago.
    pub fn is_one(&self) -> Result<(), String> {
        let up: Vec<usize> = (0..self.plan.nodes).filter(|node| self.machines[*node].acts()).collect();
        let acting = self.leaders();
        let [leader] = acting[..] else {
            let names: Vec<String> = acting.iter().map(|node| name(*node)).collect();
            return Err(format!("these act: {names:?}"));
        };
        let Some(process) = &self.machines[leader].process else { return Err("it ended".into()) };
        let Some(view) = process.view else { return Err("its view is empty".into()) };
        let roster = self.ledger.get(view).roster.clone();
        let belong = up.iter().filter(|node| roster.members.contains(&name(**node))).count();
        let voters = self.ledger.get(view).voters.clone();
        if voters.now.len() < size_for(belong, 7) || voters.before.is_some() {
            return Err(format!("{voters:?} vote, of {belong} that are up"));
        }
        let stay: Vec<usize> =
            up.iter().copied().filter(|node| !roster.evicted.contains_key(&name(*node))).collect();
        let known = stay.iter().flat_map(|node| &self.machines[*node].disk.evicted);
        let mut forgotten = known.filter(|peer| !roster.evicted.contains_key(*peer));
        if let Some(peer) = forgotten.find(|peer| self.can_spare(leader, index(peer))) {
            return Err(format!("{peer} was evicted by a group, and not by the one that acts"));
        }
        for node in stay {
            let Some(other) = &self.machines[node].process else { continue };
            if other.of != process.of {
                return Err(format!(
                    "{} is of {:?}, while {} acts for {:?}",
                    name(node),
                    other.of,
                    name(leader),
                    process.of
                ));
            }
            if self.acting(node).is_none() {
                return Err(format!("{} hears of no leader that acts", name(node)));
            }
            let Some(theirs) = other.view else { return Err(format!("{} sees nothing", name(node))) };
            let (mine, theirs) = (self.ledger.get(view), self.ledger.get(theirs));
            if mine.lineage != theirs.lineage || theirs.depth + 20 < mine.depth {
                return Err(format!(
                    "{} sees {:?}, and {} {:?}",
                    name(node),
                    theirs.position,
                    name(leader),
                    mine.position
                ));
            }
            if !roster.members.contains(&name(node)) || roster.before.is_some() {
                return Err(format!(
                    "{} is not on the roster {:?}, before {:?}",
                    name(node),
                    roster.members,
                    roster.before
                ));
            }
        }
        Ok(())
    }

    /// Whether more than half of the newest roster of some group is up, of that group, and knows its word, and one of them
    /// holds that roster: then it must act.
    ///
    /// # Errors
    /// What the group that is nearest to it lacks.
    pub fn could_act(&self) -> Result<(), &'static str> {
        let of = |node: usize| self.machines[node].process.as_ref().and_then(|process| process.of.as_ref());
        // What those alone are of who were evicted by others is nobody's concern.
        let stays = |node: &usize| !(0..self.plan.nodes).any(|other| self.evicts(other, *node));
        let groups: BTreeSet<&String> =
            (0..self.plan.nodes).filter(stays).filter_map(of).map(|of| &of.group).collect();
        let all = groups.into_iter().map(|group| self.group_could_act(group));
        let nearness = |could: &Result<(), Lack>| could.err().map_or(u8::MAX, |lack| lack as u8);
        all.max_by_key(nearness).unwrap_or(Err(Lack::Group)).map_err(Lack::text)
    }

    fn group_could_act(&self, group: &str) -> Result<(), Lack> {
        let of = |node: usize| self.machines[node].process.as_ref().and_then(|process| process.of.as_ref());
        let running = (0..self.plan.nodes)
            .filter_map(|node| Some((node, &self.machines[node], self.machines[node].process.as_ref()?)));
        // Who has a log counts by the roster at its end, and asks by that.
        let held = running.flat_map(|(node, machine, process)| {
            let log = machine.disk.part.as_ref().map(|part| part.head);
            process.view.into_iter().chain(log).map(move |id| (self.ledger.get(id), node))
        });
        let of_group = held.filter(|(entry, _)| entry.lineage.group == *group);
        let holders: Vec<_> = of_group.map(|(entry, node)| (entry.position, entry, node)).collect();
        let (newest, view, _) = holders.iter().max_by_key(|(position, ..)| *position).ok_or(Lack::Group)?;
        let roster = &view.roster;
        let is_up =
            |peer: &str| self.machines[index(peer)].process.is_some() && !roster.evicted.contains_key(peer);
        // Who follows another group may come back.
        let remembers = |peer: &str| is_up(peer) && of(index(peer)).is_some();
        let is_sure = |node: usize| !self.machines[node].disk.word.unsure;
        let helps = |peer: &str| remembers(peer) && is_sure(index(peer));
        // Unless it waits where it is, because of who lost its word there.
        let runs = |node: &usize| self.machines[*node].process.is_some();
        let all_are_sure = (0..self.plan.nodes).filter(runs).all(is_sure);
        let is_of = |peer: &str| all_are_sure || of(index(peer)).is_some_and(|of| of.group == *group);
        if !roster.has_majority(is_up) {
            return Err(Lack::Machines);
        }
        if !roster.has_majority(remembers) {
            return Err(Lack::Forgotten);
        }
        if !roster.has_majority(|peer| helps(peer) && is_of(peer)) {
            return Err(Lack::Words);
        }
        // Who has seen a newer roster than the newest that is here would not pledge itself by it.
        let accepts = |peer: &str| {
            let word = &self.machines[index(peer)].disk.word;
            let of_this_epoch =
                word.given.as_ref().is_some_and(|given| given.group == *group && given.epoch >= newest.epoch);
            !of_this_epoch || word.roster <= view.roster_revision
        };
        if !roster.has_majority(|peer| helps(peer) && accepts(peer)) {
            return Err(Lack::Newest);
        }
        let knows = |(position, _, node): &(Position, &Entry, usize)| {
            position == newest && helps(&name(*node)) && roster.names(&name(*node))
        };
        if holders.iter().any(knows) { Ok(()) } else { Err(Lack::Newest) }
    }

    /// What every machine knows, for people.
    pub fn describe(&mut self) {
        for node in 0..self.plan.nodes {
            let machine = &self.machines[node];
            let text = match &machine.process {
                None => "is off".to_owned(),
                Some(process) => {
                    let position = process.view.map(|view| self.ledger.get(view).position);
                    let roster = process.view.map(|view| self.ledger.get(view).roster.clone());
                    let part = machine.disk.part.as_ref().map(|part| {
                        let head = self.ledger.get(part.head);
                        (&part.lineage, part.term, &head.voters, head.position)
                    });
                    format!(
                        "of {:?}; view {position:?}; roster {roster:?}; word {:?}; part {part:?}, aside {}; {:?}; told {:?}",
                        process.of, machine.disk.word, process.aside, process.role, process.told
                    )
                }
            };
            self.note(node, || text);
        }
    }
}
