//! Founding the group anew. As the daemon's `flock::shell::founding` does it.

use super::super::faults::Moment;
use super::Mutation;
use super::ledger::Id;
use super::message::Message;
use super::node::Campaign;
use super::presence::counted;
use super::world::{World, index, name};
use gaggle_sched::electorate::attempts::Attempts;
use gaggle_sched::electorate::founding::{
    self, Ask, FoundingRules, NoPledge, Position, Situation, Step, Survivor,
};
use gaggle_sched::electorate::roster::Roster;
use gaggle_sched::state::{Lineage, Revision};
use std::collections::BTreeSet;
use std::rc::Rc;

const PREVIEW_WITHIN_MS: u64 = 1_000;
const PLEDGE_WITHIN_MS: u64 = 5_000;

/// What a node knows best of its group.
pub struct Best {
    pub id: Id,
    pub position: Position,
    pub roster: Rc<Roster>,
    pub revision: Revision,
}

impl World<'_> {
    pub fn best_known(&self, node: usize) -> Option<Best> {
        let machine = &self.machines[node];
        let process = machine.process.as_ref()?;
        let of = process.of.as_ref()?;
        // Also while the part runs: who holds more in its log than in its view must not ask as if it held less.
        let left = machine.disk.part.as_ref().map(|part| part.head);
        let of_group =
            left.into_iter().chain(process.view).filter(|id| self.ledger.get(*id).lineage.group == of.group);
        let best = of_group.max_by_key(|id| self.ledger.get(*id).position)?;
        let entry = self.ledger.get(best);
        (entry.roster_revision != Revision::default()).then(|| Best {
            id: best,
            position: entry.position,
            roster: entry.roster.clone(),
            revision: entry.roster_revision,
        })
    }

    fn survivors(&self, node: usize) -> Vec<Survivor> {
        let Some(process) = &self.machines[node].process else { return Vec::new() };
        let Some(of) = &process.of else { return Vec::new() };
        let there = (0..self.plan.nodes).filter(|peer| *peer != node);
        let there = there.filter(|peer| self.is_alive(node, *peer) && self.is_connected(node, *peer));
        let survivors = there.filter_map(|peer| {
            let facts = self.facts_of(node, peer)?;
            facts.of.as_ref().filter(|theirs| theirs.group == of.group)?;
            let position = facts.position.max(process.corrected.get(&peer).copied().unwrap_or_default());
            Some(Survivor { peer: name(peer), position })
        });
        survivors.collect()
    }

    pub fn tend_founding(&mut self, node: usize) {
        let now_ms = self.ms(node);
        if let Some(campaign) = &self.process(node).campaign {
            let granted = &campaign.granted;
            let enough = counted(&campaign.roster, Mutation::None, |_| false)
                .has_majority(|peer| index(peer) == node || granted.contains(&index(peer)));
            if enough || campaign.waits_for.is_empty() || now_ms >= campaign.until_ms {
                self.weigh(node);
            }
            return;
        }
        if self.acting(node).is_some() {
            let process = self.process(node);
            process.corrected.clear();
            process.attempts = Attempts::default();
            return;
        }
        let Some(known) = self.best_known(node) else { return };
        let survivors = self.survivors(node);
        let mut rules = FoundingRules::default();
        let process = self.process(node);
        if !process.confirmed {
            rules = rules.after_start();
        }
        let unled_ms = now_ms.saturating_sub(process.given_ms);
        let again = process.attempts.is_due(now_ms);
        let me = name(node);
        let here = |peer: &str| peer == me || survivors.iter().any(|survivor| survivor.peer == peer);
        let roster = counted(&known.roster, self.plan.mutation, here);
        let situation = Situation {
            me: &me,
            position: known.position,
            roster: &roster,
            survivors: &survivors,
            unled_ms,
            rules: &rules,
        };
        if matches!(founding::next(&situation), Step::Ask { .. }) && again {
            self.preview(node, known);
        }
    }

    fn preview(&mut self, node: usize, known: Best) {
        let now_ms = self.ms(node);
        let Some(of) = self.process(node).of.clone() else { return };
        let told = (0..self.plan.nodes).filter_map(|peer| self.facts_of(node, peer)?.of.clone());
        let told = told.filter(|other| other.group == of.group).map(|other| other.epoch).max();
        let drawn = self.random.within(0, 1_000) as f64 / 1_000.0;
        let process = self.process(node);
        let reached = process.grants.reached(&of.group);
        let highest =
            [told.unwrap_or(0), of.epoch, reached, process.attempts.reached()].into_iter().max().unwrap_or(0);
        process.attempts.begin(drawn, now_ms);
        let lineage = Lineage { group: of.group.clone(), epoch: highest + 1 };
        let ask = Ask { lineage, position: known.position, roster: known.revision };
        if self.would_pledge(node, node, &ask).is_ok() {
            self.note(node, || format!("asks whether epoch {} should be founded", ask.lineage.epoch));
            self.campaign(node, ask, known.roster, false);
        }
    }

    fn campaign(&mut self, node: usize, ask: Ask, roster: Rc<Roster>, pledging: bool) {
        let now_ms = self.ms(node);
        let roster = Rc::new(counted(&roster, self.plan.mutation, |peer| {
            index(peer) == node || self.is_connected(node, index(peer))
        }));
        let others = self.survivors(node).into_iter().filter(|survivor| roster.names(&survivor.peer));
        let waits_for: BTreeSet<usize> = others.map(|survivor| index(&survivor.peer)).collect();
        let number = self.random.draw();
        let asked = Rc::new(ask.clone());
        for peer in &waits_for {
            let ask = asked.clone();
            let message =
                if pledging { Message::Pledge { number, ask } } else { Message::Preview { number, ask } };
            self.send(node, *peer, message);
        }
        let until_ms = now_ms + if pledging { PLEDGE_WITHIN_MS } else { PREVIEW_WITHIN_MS };
        let granted = BTreeSet::new();
        self.process(node).campaign =
            Some(Campaign { number, ask, roster, pledging, granted, waits_for, until_ms });
    }

    /// What this node would say, as far as its view goes; nothing is promised.
    pub fn would_pledge(&self, node: usize, from: usize, ask: &Ask) -> Result<(), NoPledge> {
        let Some(process) = &self.machines[node].process else { return Err(NoPledge::OtherGroup) };
        let position = match self.plan.mutation {
            Mutation::PledgeToOlder => Position::default(),
            _ => self.position_in(&ask.lineage.group, process.view),
        };
        let mut grants = process.grants.clone();
        founding::pledge(&mut grants, ask, &name(from), process.of.as_deref(), position, self.ms(node))
    }

    fn pledge(&mut self, node: usize, from: usize, ask: &Ask, position: Position) -> Result<(), NoPledge> {
        let now_ms = self.ms(node);
        let mutation = self.plan.mutation;
        let view = self.process(node).view;
        let process = self.process(node);
        let mine = process.of.clone();
        let position = if mutation == Mutation::PledgeToOlder { Position::default() } else { position };
        let roster = if mutation == Mutation::NobodyNotes { Revision(u64::MAX) } else { ask.roster };
        let asked = Ask { roster, ..ask.clone() };
        founding::pledge(&mut process.grants, &asked, &name(from), mine.as_deref(), position, now_ms)?;
        process.given_ms = now_ms;
        self.keep_word(node);
        self.stats.pledges += 1;
        self.note(node, || format!("pledges itself to epoch {} of {}", ask.lineage.epoch, name(from)));
        self.pledges.insert((ask.lineage.clone(), node), (from, view));
        self.moments.push((Moment::Pledged, node));
        Ok(())
    }

    pub fn on_pledge(&mut self, from: usize, node: usize, number: u64, ask: &Ask) {
        if let Err(no_pledge) = self.would_pledge(node, from, ask) {
            return self.send(node, from, Message::Answer { number, answer: Some(Err(no_pledge)) });
        }
        let may_ask = |known: Best| founding::may_ask(&name(from), ask, &known.roster, known.revision);
        if !self.best_known(node).is_none_or(may_ask) {
            return self.send(node, from, Message::Answer { number, answer: None });
        }
        self.set_aside(node);
        let position = self.best_known(node).map(|known| known.position).unwrap_or_default();
        let answer = self.pledge(node, from, ask, position);
        if answer.is_err() {
            self.take_up_again_unless_passed(node);
        }
        self.send_synced(node, from, Message::Answer { number, answer: Some(answer) });
    }

    pub fn on_answer(&mut self, from: usize, node: usize, number: u64, answer: Option<Result<(), NoPledge>>) {
        self.note(node, || format!("hears from {} about its founding: {answer:?}", name(from)));
        let now_ms = self.ms(node);
        let process = self.process(node);
        let Some(campaign) = process.campaign.as_mut().filter(|campaign| campaign.number == number) else {
            return;
        };
        campaign.waits_for.remove(&from);
        match answer {
            Some(Ok(())) => _ = campaign.granted.insert(from),
            Some(Err(NoPledge::Newer(position))) => _ = process.corrected.insert(from, position),
            Some(Err(NoPledge::Passed(epoch))) => process.attempts.passed(epoch, now_ms),
            Some(Err(_)) | None => {}
        }
    }

    /// A round of asking is over.
    fn weigh(&mut self, node: usize) {
        let Some(done) = self.process(node).campaign.take() else { return };
        let enough = |roster: &Roster| {
            roster.has_majority(|peer| index(peer) == node || done.granted.contains(&index(peer)))
        };
        if self.acting(node).is_some() || !enough(&done.roster) {
            return;
        }
        if done.pledging {
            return self.found_anew(node, &done);
        }
        self.set_aside(node);
        let Some(known) = self.best_known(node) else { return };
        let ask = Ask { position: known.position, roster: known.revision, ..done.ask };
        match self.pledge(node, node, &ask, known.position) {
            Ok(()) => self.campaign(node, ask, known.roster, true),
            Err(_) => self.take_up_again_unless_passed(node),
        }
    }

    fn set_aside(&mut self, node: usize) {
        let process = self.process(node);
        process.lead = Default::default();
        process.role = super::node::Role::Follower { leader: None };
        if self.machines[node].disk.part.is_some() {
            self.process(node).aside = true;
        }
    }

    fn take_up_again_unless_passed(&mut self, node: usize) {
        let part = self.machines[node].disk.part.as_ref().map(|part| part.lineage.clone());
        let Some(lineage) = part else { return };
        if !self.process(node).grants.has_passed(&lineage) {
            self.process(node).aside = false;
            self.follow_leader(node, None);
        }
    }

    fn found_anew(&mut self, node: usize, done: &Campaign) {
        let Some(known) = self.best_known(node) else { return };
        let lineage = &done.ask.lineage;
        self.note(node, || {
            format!(
                "founds epoch {} at {:?}, counting {:?}, pledged {:?}",
                lineage.epoch, known.position, done.roster, done.granted
            )
        });
        self.stats.foundings += 1;
        for peer in done.granted.iter().copied().chain([node]) {
            let Some((to, Some(seen))) = self.pledges.get(&(lineage.clone(), peer)).copied() else {
                continue;
            };
            // What was seen of an epoch that others have gone on from without this node is kept by its intent.
            let same = self.ledger.get(seen).lineage == self.ledger.get(known.id).lineage;
            if same && to == node && !self.ledger.holds(known.id, self.ledger.last_change(seen)) {
                let (mine, theirs) = (known.position, self.ledger.get(seen).position);
                self.violated(
                    "a founding holds what any of the pledged had seen",
                    format!(
                        "{} founds epoch {} with {mine:?}; {} had seen {theirs:?}",
                        name(node),
                        lineage.epoch,
                        name(peer)
                    ),
                );
            }
        }
        self.begin_group(node, Some(known.id), Rc::new(lineage.clone()));
        self.moments.push((Moment::Founded, node));
    }
}
