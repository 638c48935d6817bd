//! Leases: the leader asks, the others answer, and the roster changes. As the daemon's `flock::presence` does it.

use super::super::faults::Moment;
use super::Mutation;
use super::ledger::Content;
use super::message::{Message, Refusal};
use super::node::{Heard, Lead};
use super::world::{World, index};
use gaggle_sched::electorate::presence::{ASK_EVERY_MS, LEASE_MS, Leases, NoLease, STEP_ASIDE_MS, Standing};
use gaggle_sched::electorate::roster::Roster;
use gaggle_sched::state::{Lineage, Revision};
use std::collections::BTreeSet;
use std::rc::Rc;

const RESIGN_AFTER_MS: u64 = 6_000;
const RESIGN_MS: u64 = 2_000;
const ROSTER_AGAIN_MS: u64 = 100;
/// Who has been dead for this long belongs no more.
const FORGET_DEAD_MS: u64 = 12_000;

impl World<'_> {
    pub fn tick_lead(&mut self, node: usize) {
        let of = self.lead_of(node);
        if of != self.process(node).lead.of {
            let Lead { silent_until_ms, aside_until_ms, .. } = self.process(node).lead;
            self.process(node).lead =
                Lead { of: of.clone(), silent_until_ms, aside_until_ms, ..Lead::default() };
        }
        if of.is_none() {
            return;
        }
        self.recompute(node);
        let now_ms = self.ms(node);
        let lead = &mut self.process(node).lead;
        if lead.leases.steps_aside(&lead.roster.0, now_ms) {
            lead.aside_until_ms = now_ms + STEP_ASIDE_MS;
            lead.leases = Leases::default();
            lead.until_ms = None;
            self.stats.steps_aside += 1;
            self.note(node, || "steps aside: members have gone beyond its epoch".into());
        }
        let lead = &self.process(node).lead;
        if now_ms >= lead.ask_due_ms && now_ms >= lead.aside_until_ms {
            self.process(node).lead.ask_due_ms = now_ms + ASK_EVERY_MS;
            self.ask_all(node);
        }
        self.tend_roster(node);
        self.resign_if_forlorn(node);
    }

    /// Until when this node may act, as the leases and the roster in its view say.
    pub fn recompute(&mut self, node: usize) {
        let now_ms = self.ms(node);
        let Some((lineage, _)) = self.process(node).lead.of.clone() else { return };
        let roster = self.process(node).view.map(|view| self.ledger.get(view));
        let roster = roster.filter(|entry| entry.lineage == lineage);
        let roster = roster.map(|entry| (entry.roster.clone(), entry.roster_revision)).unwrap_or_default();
        let mutation = self.plan.mutation;
        let lead = &mut self.process(node).lead;
        let counted = counted(&roster.0, mutation, |peer| lead.leases.holds(peer, now_ms));
        let until_ms = match lead.leases.standing(&counted, now_ms) {
            Standing::Acts { until_ms } => Some(until_ms),
            Standing::Waits(_) => None,
        };
        lead.roster = roster;
        lead.until_ms = until_ms;
    }

    /// Whether this node may order something at this very moment: the gate.
    pub fn gate_is_open(&self, node: usize) -> bool {
        let Some(process) = &self.machines[node].process else { return false };
        let now_ms = self.ms(node);
        process.lead.until_ms.is_some_and(|until_ms| now_ms < until_ms)
            && process.lead.of.is_some()
            && process.lead.of == self.lead_of(node)
    }

    pub fn acts(&self, node: usize) -> bool {
        let process = self.machines[node].process.as_ref();
        let of = process.and_then(|process| process.of.as_ref());
        let leads = process.and_then(|process| process.lead.of.as_ref()).map(|(lineage, _)| lineage);
        leads.is_some() && of == leads && self.gate_is_open(node)
    }

    /// The leader that acts for this node's group, if one was heard within a lease or is this node itself.
    pub fn acting(&self, node: usize) -> Option<usize> {
        if self.acts(node) {
            return Some(node);
        }
        let process = self.machines[node].process.as_ref()?;
        let heard = process
            .heard
            .as_ref()
            .filter(|heard| heard.acting && Some(&heard.lineage) == process.of.as_ref());
        let now_ms = self.ms(node);
        let heard = heard.filter(|heard| now_ms.saturating_sub(heard.at_ms) < LEASE_MS);
        heard.map(|heard| heard.peer).filter(|peer| *peer != node)
    }

    fn ask_all(&mut self, node: usize) {
        let Some((lineage, term)) = self.process(node).lead.of.clone() else { return };
        let acting = self.gate_is_open(node);
        let asked_ms = self.ms(node);
        let roster = self.process(node).lead.roster.0.clone();
        for peer in 0..self.plan.nodes {
            let follows = self
                .facts_of(node, peer)
                .is_some_and(|facts| facts.of.as_ref().is_some_and(|of| of.group == lineage.group));
            if peer == node || follows || roster.names(&self.machines[peer].name) {
                let name = super::world::name(peer);
                let holds = self.process(node).lead.leases.holds(&name, asked_ms);
                let lineage = lineage.clone();
                self.send(node, peer, Message::Lease { lineage, term, acting, holds, asked_ms });
            }
        }
    }

    pub fn on_lease(
        &mut self,
        from: usize,
        node: usize,
        (lineage, term): (Rc<Lineage>, u64),
        (acting, holds): (bool, bool),
        asked_ms: u64,
    ) {
        let refused =
            |why: Refusal| Message::Leased { lineage: lineage.clone(), term, asked_ms, noted: Err(why) };
        let now_ms = self.ms(node);
        let mine = self.process(node).of.clone();
        if mine.as_ref() == Some(&lineage) {
            if !self.may_lead(node, from) {
                return self.send(node, from, refused(Refusal::Other));
            }
            let heard = self.process(node).heard.as_ref();
            if heard.is_none_or(|last| last.lineage != lineage || last.term <= term) {
                let heard = Heard { lineage: lineage.clone(), peer: from, term, acting, at_ms: now_ms };
                self.process(node).heard = Some(heard);
            }
        }
        let granted = self.process(node).grants.grant(&lineage, mine.as_deref(), now_ms);
        if let Err(no_lease) = granted {
            self.note(node, || format!("gives {} no lease: {no_lease}", super::world::name(from)));
            let why = match &no_lease {
                NoLease::Passed(_) => Refusal::Passed,
                NoLease::Elsewhere(of) if of.group == lineage.group && of.epoch > lineage.epoch => {
                    Refusal::Passed
                }
                _ => Refusal::Other,
            };
            let answer = refused(why);
            let newer = |of: &Rc<Lineage>| of.group == lineage.group && lineage.epoch > of.epoch;
            if mine.as_ref().is_some_and(newer) {
                self.yield_to(node, lineage.clone(), "the group was founded anew");
                self.process(node).told_by = Some(from);
            }
            return self.send(node, from, answer);
        }
        let view = self.process(node).view.map(|view| self.ledger.get(view));
        let in_force = view.filter(|entry| entry.lineage == lineage);
        let in_force = in_force.map_or(Revision::default(), |entry| entry.roster_revision);
        let process = self.process(node);
        process.grants.note_roster(&lineage, in_force);
        process.given_ms = now_ms;
        let noted = Ok(process.grants.word().roster);
        self.keep_word(node);
        if acting && holds {
            self.work_led(node);
        }
        self.send_synced(node, from, Message::Leased { lineage, term, asked_ms, noted });
    }

    /// What was promised is on the disk before it is said.
    pub fn keep_word(&mut self, node: usize) {
        if self.plan.mutation == Mutation::WordNotSynced && self.random.permille(500) {
            return;
        }
        let word = self.process(node).grants.word().clone();
        let disk = &mut self.machines[node].disk;
        if disk.word != word {
            disk.word_lost &= word.unsure;
            disk.word = word;
        }
    }

    fn may_lead(&self, node: usize, peer: usize) -> bool {
        let (leader, voters) = self.known_status(node);
        leader.is_none_or(|leader| leader == peer) || voters.is_some_and(|voters| voters.names(peer))
    }

    pub fn on_leased(
        &mut self,
        from: usize,
        node: usize,
        of: (Rc<Lineage>, u64),
        asked_ms: u64,
        noted: Result<Revision, Refusal>,
    ) {
        let peer = self.machines[from].name.clone();
        let lead = &mut self.process(node).lead;
        if lead.of.as_ref() != Some(&of) {
            return;
        }
        match noted {
            Ok(noted) => lead.leases.granted(&peer, asked_ms, noted),
            Err(Refusal::Passed) => lead.leases.passed(&peer, asked_ms),
            Err(Refusal::Other) => lead.leases.refused(&peer),
        }
        self.recompute(node);
        self.check_lead(node);
    }

    /// The next step of the roster towards who belongs, as `flock::roster::step` has it.
    fn tend_roster(&mut self, node: usize) {
        let now_ms = self.ms(node);
        if !self.acts(node) || now_ms < self.process(node).next.roster_ms || self.has_open_roster(node) {
            return;
        }
        let (roster, revision) = self.process(node).lead.roster.clone();
        let mut wanted: BTreeSet<String> = (0..self.plan.nodes)
            .filter(|peer| self.belongs(node, *peer, &roster))
            .map(|peer| self.machines[peer].name.clone())
            .collect();
        wanted.retain(|peer| !roster.evicted.contains_key(peer));
        if wanted.is_empty() {
            wanted = roster.members.clone();
        }
        let mutation = self.plan.mutation;
        let leases: &Leases = &self.process(node).lead.leases;
        let noted = |peer: &str| mutation == Mutation::NobodyNotes || leases.noted(peer, revision);
        let Some(mut next) = roster.next(&wanted, noted) else { return };
        if mutation == Mutation::NoJointRoster {
            next.before = None;
        }
        if !counted(&next, mutation, |peer| leases.holds(peer, now_ms))
            .has_majority(|peer| leases.holds(peer, now_ms))
        {
            return;
        }
        self.process(node).next.roster_ms = now_ms + ROSTER_AGAIN_MS;
        self.propose_roster(node, next);
    }

    pub fn propose_roster(&mut self, node: usize, roster: Roster) {
        self.note(node, || format!("proposes the roster {:?}, before {:?}", roster.members, roster.before));
        self.stats.roster_changes += 1;
        self.order(node, Content::Roster(Rc::new(roster)));
        self.moments.push((Moment::RosterProposed, node));
    }

    /// A roster is in the log that is not in the view yet.
    pub fn has_open_roster(&self, node: usize) -> bool {
        let Some(part) = self.part(node) else { return false };
        self.ledger.get(part.head).roster_revision != self.ledger.get(part.commit).roster_revision
    }

    /// Whether the leader finds that this peer should be a member: it follows, or has not been dead for long.
    fn belongs(&self, node: usize, peer: usize, roster: &Roster) -> bool {
        if peer == node {
            return self.machines[node]
                .process
                .as_ref()
                .is_some_and(|process| process.leaving_since_ms.is_none());
        }
        let Some(process) = &self.machines[node].process else { return false };
        let known = &process.known[peer];
        let member = roster.members.contains(&self.machines[peer].name);
        let Some(facts) = &known.facts else { return member };
        if facts.leaving {
            return false;
        }
        let group = |of: &Rc<Lineage>| process.of.as_ref().is_some_and(|mine| mine.group == of.group);
        let follows = facts.of.as_ref().is_some_and(group);
        let silent_ms = self.ms(node).saturating_sub(known.news_ms);
        (follows && self.is_alive(node, peer)) || (member && silent_ms < FORGET_DEAD_MS)
    }

    fn resign_if_forlorn(&mut self, node: usize) {
        let now_ms = self.ms(node);
        let acts = self.acts(node);
        let roster = self.process(node).lead.roster.0.clone();
        let lives = roster.has_majority(|peer| index(peer) == node || self.is_alive(node, index(peer)));
        let lead = &mut self.process(node).lead;
        if acts || !lives {
            lead.waits_since_ms = None;
        } else if now_ms - *lead.waits_since_ms.get_or_insert(now_ms) >= RESIGN_AFTER_MS {
            lead.waits_since_ms = None;
            lead.silent_until_ms = now_ms + RESIGN_MS;
            self.note(node, || "resigns: enough live, but they do not stand behind it".into());
        }
    }
}

/// The roster by which is counted; with a rule bent, one in which half is enough.
pub(super) fn counted(roster: &Roster, mutation: Mutation, there: impl Fn(&str) -> bool) -> Roster {
    let mut roster = roster.clone();
    if mutation == Mutation::HalfIsEnough && roster.members.len().is_multiple_of(2) {
        let absent = roster.members.iter().find(|peer| !there(peer)).cloned();
        absent.map(|peer| roster.members.remove(&peer));
    }
    roster
}
