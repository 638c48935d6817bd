//! Raft, as little of it as orders entries safely within an epoch: terms, votes, logs, joint changes of the voters.
//!
//! A log travels as its last entry, so there are no gaps to fill; everything else may happen that happens to Raft: logs
//! that were not acknowledged, leaders that do not know that they are not, votes that are lost.

use super::super::faults::Moment;
use super::ledger::{Content, Id, Voters};
use super::message::Message;
use super::node::{Leading, Part, Role};
use super::world::World;
use gaggle_sched::state::Lineage;
use std::collections::BTreeSet;
use std::rc::Rc;

pub(super) const BEAT_MS: u64 = 150;
const ELECTION_MS: (u64, u64) = (700, 1_400);
/// A leader that has not heard a quorum for this long does not think that it has one.
const PULSE_MS: u64 = 1_000;
const LEARN_WITHIN_MS: u64 = 3_000;

impl World<'_> {
    /// This node's part, while it runs.
    pub fn part(&self, node: usize) -> Option<&Part> {
        let machine = &self.machines[node];
        machine.process.as_ref().filter(|process| !process.aside).and(machine.disk.part.as_ref())
    }

    fn part_mut(&mut self, node: usize) -> Option<&mut Part> {
        let machine = &mut self.machines[node];
        machine.process.as_ref().filter(|process| !process.aside).and(machine.disk.part.as_mut())
    }

    pub fn voters(&self, node: usize) -> Option<Rc<Voters>> {
        self.part(node).map(|part| self.ledger.get(part.head).voters.clone())
    }

    pub fn leading(&mut self, node: usize) -> Option<&mut Leading> {
        match &mut self.machines[node].process.as_mut()?.role {
            Role::Leader(leading) => Some(leading),
            _ => None,
        }
    }

    pub fn raft_leader(&self, node: usize) -> Option<usize> {
        self.part(node)?;
        match &self.machines[node].process.as_ref()?.role {
            Role::Follower { leader } => *leader,
            Role::Candidate { .. } => None,
            Role::Leader(_) => Some(node),
        }
    }

    /// Whether this node leads, hears a quorum, and knows everything that was ordered before: the lineage and the term.
    pub fn lead_of(&self, node: usize) -> Option<(Rc<Lineage>, u64)> {
        let part = self.part(node)?;
        let Role::Leader(leading) = &self.machines[node].process.as_ref()?.role else { return None };
        let now_ms = self.ms(node);
        let hears = |peer: usize| {
            peer == node
                || leading.heard_ms.get(&peer).is_some_and(|heard| now_ms.saturating_sub(*heard) < PULSE_MS)
        };
        let quorum = self.ledger.get(part.head).voters.is_quorum(hears);
        let caught_up = self.ledger.get(part.commit).term == part.term;
        (quorum && caught_up).then(|| (part.lineage.clone(), part.term))
    }

    /// A part begins to run, or its role changes.
    pub fn follow_leader(&mut self, node: usize, leader: Option<usize>) {
        let patience = self.random.within(ELECTION_MS.0, ELECTION_MS.1);
        let due = self.ms(node) + patience;
        let process = self.process(node);
        process.role = Role::Follower { leader };
        process.election_due_ms = due;
    }

    pub fn tick_raft(&mut self, node: usize) {
        let Some(voters) = self.voters(node) else { return };
        let now_ms = self.ms(node);
        if self.leading(node).is_some() {
            let beat_due = self.process(node).next.beat_ms;
            if now_ms >= beat_due {
                self.process(node).next.beat_ms = now_ms + BEAT_MS;
                self.replicate(node);
            }
            self.tend_change(node);
        } else if voters.names(node) && now_ms >= self.process(node).election_due_ms {
            self.campaign_for_lead(node);
        }
    }

    fn campaign_for_lead(&mut self, node: usize) {
        self.follow_leader(node, None);
        let Some(part) = self.part_mut(node) else { return };
        part.term += 1;
        part.vote = Some(node);
        let (lineage, term, head) = (part.lineage.clone(), part.term, part.head);
        let last = (self.ledger.get(head).term, self.ledger.get(head).depth);
        let voters = self.ledger.get(head).voters.clone();
        self.process(node).role = Role::Candidate { votes: [node].into() };
        self.note(node, || format!("stands for election in term {term} of epoch {}", lineage.epoch));
        for peer in voters.all().into_iter().filter(|peer| *peer != node) {
            self.send_synced(node, peer, Message::Vote { lineage: lineage.clone(), term, last });
        }
        self.count_votes(node);
    }

    pub fn on_vote(&mut self, from: usize, node: usize, lineage: Rc<Lineage>, term: u64, last: (u64, u32)) {
        let Some(part) = self.part(node).filter(|part| part.lineage == lineage) else { return };
        let head = self.ledger.get(part.head);
        let mine = (head.term, head.depth);
        if term > part.term {
            self.step_down(node, term);
        }
        let Some(part) = self.part_mut(node) else { return };
        let free = part.vote.is_none_or(|vote| vote == from);
        let granted = term == part.term && free && last >= mine;
        if granted {
            part.vote = Some(from);
            self.follow_leader(node, None);
        }
        self.send_synced(node, from, Message::Voted { lineage, term, granted });
    }

    fn step_down(&mut self, node: usize, term: u64) {
        if let Some(part) = self.part_mut(node) {
            part.term = term;
            part.vote = None;
        }
        if self.leading(node).is_some() {
            self.note(node, || format!("is deposed: term {term} has begun"));
            self.follow_leader(node, None);
        } else {
            self.process(node).role = Role::Follower { leader: None };
        }
    }

    pub fn on_voted(&mut self, from: usize, node: usize, lineage: &Lineage, term: u64, granted: bool) {
        let Some(part) = self.part(node).filter(|part| *part.lineage == *lineage) else { return };
        if term > part.term {
            return self.step_down(node, term);
        }
        if term < part.term || !granted {
            return;
        }
        if let Role::Candidate { votes } = &mut self.process(node).role {
            votes.insert(from);
            self.count_votes(node);
        }
    }

    fn count_votes(&mut self, node: usize) {
        let Some(voters) = self.voters(node) else { return };
        let Role::Candidate { votes } = &self.process(node).role else { return };
        let votes = votes.clone();
        if voters.is_quorum(|peer| votes.contains(&peer)) {
            self.begin_lead(node);
        }
    }

    /// Elected, or the only voter there is.
    pub fn begin_lead(&mut self, node: usize) {
        let began_ms = self.ms(node);
        self.process(node).role = Role::Leader(Box::new(Leading { began_ms, ..Leading::default() }));
        let Some(part) = self.part(node) else { return };
        let (term, epoch) = (part.term, part.lineage.epoch);
        self.note(node, || format!("leads epoch {epoch} in term {term}"));
        self.stats.elections += 1;
        self.moments.push((Moment::Elected, node));
        self.append(node, Content::Blank);
    }

    /// Puts something at the end of the leader's log.
    pub fn append(&mut self, node: usize, what: Content) {
        let Some(part) = self.part(node) else { return };
        let (head, term) = (part.head, part.term);
        let head = self.ledger.append(head, term, what);
        if let Some(part) = self.part_mut(node) {
            part.head = head;
        }
        self.replicate(node);
        self.advance(node);
    }

    fn replicate(&mut self, node: usize) {
        if self.ms(node) < self.process(node).lead.silent_until_ms {
            return;
        }
        let Some(part) = self.part(node) else { return };
        let (lineage, term, head, commit) = (part.lineage.clone(), part.term, part.head, part.commit);
        let mut to = self.ledger.get(head).voters.all();
        let learners = self.leading(node).and_then(|leading| leading.change.as_ref());
        to.extend(learners.into_iter().flat_map(|(_, learners, _)| learners.iter().copied()));
        to.remove(&node);
        for peer in to {
            self.send(node, peer, Message::Append { lineage: lineage.clone(), term, head, commit });
        }
    }

    pub fn on_append(
        &mut self,
        from: usize,
        node: usize,
        lineage: Rc<Lineage>,
        term: u64,
        (head, commit): (Id, Id),
    ) {
        if self.part(node).is_none() && !self.accept_part(from, node, &lineage, term, (head, commit)) {
            return;
        }
        let Some(part) = self.part(node).filter(|part| part.lineage == lineage) else { return };
        if term < part.term {
            let term = part.term;
            return self.send(node, from, Message::Appended { lineage, term, head: None });
        }
        if term > part.term {
            self.step_down(node, term);
        }
        self.follow_leader(node, Some(from));
        let Some(part) = self.part(node) else { return };
        let (mine, known) = (part.head, part.commit);
        // What arrives late from the same leader takes nothing away.
        let head = if self.ledger.holds(mine, head) { mine } else { head };
        if head == mine || self.ledger.holds(head, known) {
            let commit = if self.ledger.holds(commit, known) { commit } else { known };
            if let Some(part) = self.part_mut(node) {
                (part.head, part.commit) = (head, commit);
            }
            self.apply(node, commit);
            self.send_synced(node, from, Message::Appended { lineage, term, head: Some(head) });
        } else {
            self.violated(
                "what was committed in an epoch stays in its logs",
                format!(
                    "{} was to take back a committed entry for {}",
                    self.machines[node].name, self.machines[from].name
                ),
            );
        }
    }

    pub fn on_appended(&mut self, from: usize, node: usize, lineage: &Lineage, term: u64, head: Option<Id>) {
        let Some(part) = self.part(node).filter(|part| *part.lineage == *lineage) else { return };
        if term > part.term {
            return self.step_down(node, term);
        }
        if term < part.term {
            return;
        }
        let (mine, now_ms) = (part.head, self.ms(node));
        let Some(head) = head.filter(|head| self.ledger.holds(mine, *head)) else { return };
        let depth = self.ledger.get(head).depth;
        let behind = self.leading(node).and_then(|leading| leading.matched.get(&from).copied());
        let further = behind.is_none_or(|behind| self.ledger.get(behind).depth < depth);
        let Some(leading) = self.leading(node) else { return };
        leading.heard_ms.insert(from, now_ms);
        if further {
            leading.matched.insert(from, head);
            self.advance(node);
        }
    }

    /// Commits what a quorum holds.
    fn advance(&mut self, node: usize) {
        let Some(part) = self.part(node) else { return };
        let (head, commit, term) = (part.head, part.commit, part.term);
        let Some(Role::Leader(leading)) = self.machines[node].process.as_ref().map(|process| &process.role)
        else {
            return;
        };
        let newest = {
            let ledger = &self.ledger;
            let held = |id: Id, peer: usize| {
                let depth = ledger.get(id).depth;
                let theirs = leading.matched.get(&peer).map(|theirs| ledger.get(*theirs).depth);
                peer == node || theirs.is_some_and(|theirs| theirs >= depth)
            };
            let open = ledger.back_from(head).take_while(|(id, _)| *id != commit);
            // By the voters of the newest entry: they count from when they are in the log.
            let voters = &ledger.get(head).voters;
            let mut of_term = open.take_while(|(_, entry)| entry.term == term);
            of_term.find(|(id, _)| voters.is_quorum(|peer| held(*id, peer))).map(|(id, _)| id)
        };
        let Some(newest) = newest else { return };
        if let Some(part) = self.part_mut(node) {
            part.commit = newest;
        }
        self.committed(node, commit, newest);
        self.apply(node, newest);
        self.replicate(node);
        let voters = self.ledger.get(newest).voters.clone();
        if !voters.names(node) && newest == head {
            self.note(node, || "is voted out".into());
            self.follow_leader(node, None);
        }
    }

    /// A change of the voters that is under way: learners first, then both sets, then the new one.
    fn tend_change(&mut self, node: usize) {
        let Some(part) = self.part(node) else { return };
        let (head, commit, now_ms) = (part.head, part.commit, self.ms(node));
        let current = self.ledger.get(head).voters.clone();
        if current.before.is_some() {
            let settled =
                self.ledger.back_from(head).find(|(_, entry)| matches!(entry.what, Content::Voters(_)));
            if settled.is_some_and(|(id, _)| self.ledger.holds(commit, id)) {
                let now = Voters { now: current.now.clone(), before: None };
                self.append(node, Content::Voters(Rc::new(now)));
            }
            return;
        }
        let Some(leading) = self.leading(node) else { return };
        let Some((change, learners, until_ms)) = leading.change.clone() else { return };
        if now_ms > until_ms {
            leading.change = None;
            leading.change_after_ms = now_ms + 500;
            return;
        }
        let caught_up = |peer: &usize| leading.matched.contains_key(peer);
        if learners.iter().all(caught_up) {
            leading.change = None;
            leading.change_after_ms = now_ms + 500;
            let now: BTreeSet<usize> = change.voters.iter().map(|peer| super::world::index(peer)).collect();
            self.note(node, || format!("changes the voters: {}", change.why));
            self.stats.voter_changes += 1;
            self.moments.push((Moment::VotersChanging, node));
            let before = Some(current.now.clone());
            self.append(node, Content::Voters(Rc::new(Voters { now, before })));
        }
    }

    pub fn begin_change(
        &mut self,
        node: usize,
        change: gaggle_sched::electorate::VoterChange,
        voters: &BTreeSet<usize>,
    ) {
        let new: BTreeSet<usize> = change.voters.iter().map(|peer| super::world::index(peer)).collect();
        let learners: BTreeSet<usize> = new.difference(voters).copied().collect();
        let until_ms = self.ms(node) + LEARN_WITHIN_MS;
        if let Some(leading) = self.leading(node) {
            leading.matched.retain(|peer, _| !learners.contains(peer));
            leading.change = Some((change, learners, until_ms));
        }
    }
}
