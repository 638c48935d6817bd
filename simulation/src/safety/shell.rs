//! A node's place in the flock: whom it follows, when it founds or yields. As the daemon's `flock::shell` does it.

use super::super::faults::Moment;
use super::Mutation;
use super::ledger::{Content, Id, Voters};
use super::message::Message;
use super::node::{Disk, Part, Place, Role, Told};
use super::world::{World, index};
use gaggle_sched::electorate::assembly::{
    self, AssemblyRules, Claim, Contest, Decision, Mine, Muster, Seen, Situation,
};
use gaggle_sched::electorate::attempts::Attempts;
use gaggle_sched::electorate::{Candidate, Input, Own, Tenure, TenureRules, Theirs, VoterRules, next_change};
use gaggle_sched::state::Lineage;
use std::collections::BTreeSet;
use std::rc::Rc;

const SHELL_EVERY_MS: u64 = 100;
const STALE_MS: u64 = 2_500;
const TENURE: TenureRules = TenureRules { voted_out_after_ms: 500, never_voted_after_ms: 15_000 };
const SAVE_EVERY_MS: u64 = 5_000;
const LEAVE_WITHIN_MS: u64 = 10_000;
const WRITE_EVERY_MS: u64 = 400;
/// Saved views of which a crash may leave an older one.
const VIEWS: usize = 3;

impl World<'_> {
    pub fn tick(&mut self, node: usize) {
        self.tick_raft(node);
        self.tick_lead(node);
        self.check_lead(node);
        let now_ms = self.ms(node);
        if now_ms >= self.process(node).next.shell_ms {
            self.process(node).next.shell_ms = now_ms + SHELL_EVERY_MS;
            self.tick_shell(node);
        }
        if self.machines[node].process.is_none() {
            return;
        }
        self.gossip(node);
        let write_ms = self.process(node).next.write_ms;
        if now_ms >= write_ms {
            self.process(node).next.write_ms = now_ms + self.random.within(50, 2 * WRITE_EVERY_MS);
            if self.gate_is_open(node) && self.plan.work.is_none() {
                self.order(node, Content::Write);
            }
        }
        self.tick_work(node);
    }

    /// A leader that may act orders something.
    pub fn order(&mut self, node: usize, what: Content) {
        self.check_lead(node);
        self.stats.ordered += 1;
        self.append(node, what);
    }

    fn tick_shell(&mut self, node: usize) {
        let now_ms = self.ms(node);
        let live: BTreeSet<usize> = (0..self.plan.nodes).filter(|peer| self.is_alive(node, *peer)).collect();
        let acting = self.acting(node).is_some();
        let process = self.process(node);
        if live != process.live {
            (process.live, process.live_since_ms) = (live, now_ms);
        }
        if acting {
            process.confirmed = true;
            process.without_quorum_since_ms = now_ms;
        }
        match self.decide(node) {
            Decision::Stay | Decision::Wait { .. } => {}
            Decision::Found { why } => self.found_first(node, &why),
            Decision::Follow { lineage, why, .. } => self.turn_to(node, Rc::new(lineage), &why),
            Decision::Yield { to, why } => self.yield_to(node, Rc::new(to), &why),
        }
        self.tend_founding(node);
        self.keep_following(node);
        self.drop_unnamed_part(node);
        if self.acts(node) {
            self.tend_electorate(node);
        }
        if now_ms.saturating_sub(self.process(node).saved_ms) >= SAVE_EVERY_MS && self.part(node).is_none() {
            self.process(node).saved_ms = now_ms;
            self.save_view(node);
        }
        self.leave_if_due(node);
        self.tend_evictions(node);
    }

    pub fn save_view(&mut self, node: usize) {
        let view = self.process(node).view;
        let views = &mut self.machines[node].disk.views;
        if view != views.last().copied() {
            views.extend(view);
            let surplus = views.len().saturating_sub(VIEWS);
            views.drain(..surplus);
        }
    }

    fn decide(&mut self, node: usize) -> Decision {
        let now_ms = self.ms(node);
        let others: Vec<Seen> = (0..self.plan.nodes)
            .filter(|peer| *peer != node)
            .filter_map(|peer| {
                let facts = self.facts_of(node, peer)?;
                let claim = facts.of.as_ref().map(|of| Claim {
                    lineage: (**of).clone(),
                    members: facts.members,
                    part: match facts.role {
                        Place::Leader => assembly::Part::Leader,
                        Place::Voter => assembly::Part::Voter,
                        Place::Follower | Place::None => assembly::Part::Follower,
                    },
                    quorum: facts.acting,
                    could_act: facts.could_act,
                });
                let (alive, connected) = (self.is_alive(node, peer), self.is_connected(node, peer));
                Some(Seen { peer: super::world::name(peer), alive, connected, group: claim })
            })
            .collect();
        let acting = self.acting(node).map(super::world::name);
        let members = self.count_members(node);
        let muster = self.muster(node, &others);
        let part = self.part(node);
        let votes = part.is_some_and(|part| self.ledger.get(part.head).voters.names(node));
        let holds = self.holds_anything(node);
        let process = self.process(node);
        process.muster = muster;
        process.apart_since_ms = match muster {
            Muster::Together => None,
            Muster::Scattered | Muster::Few => process.apart_since_ms.or(Some(now_ms)),
        };
        let mine = process.of.as_ref().map(|of| Mine {
            lineage: (**of).clone(),
            members,
            muster,
            apart_for_ms: process.apart_since_ms.map_or(0, |since| now_ms.saturating_sub(since)),
            votes,
            acting,
            heard: process.confirmed,
            holds,
            without_quorum_ms: now_ms.saturating_sub(process.without_quorum_since_ms),
        });
        let (quiet_for_ms, up_for_ms) = (now_ms - process.live_since_ms, now_ms - process.started_ms);
        let rules = AssemblyRules::default();
        let me = super::world::name(node);
        let mut situation = Situation {
            me: &me,
            quiet_for_ms,
            up_for_ms,
            mine: mine.as_ref(),
            others: &others,
            contest: None,
            rules: &rules,
        };
        let contest = match (assembly::rival(&situation), process.contest.take()) {
            (None, _) => None,
            (Some(rival), Some((same, since))) if rival == *same => Some((same, since)),
            (Some(rival), _) => Some((Rc::new(rival), now_ms)),
        };
        process.contest = contest.clone();
        let contest = contest.map(|(of, since)| Contest { lineage: (*of).clone(), for_ms: now_ms - since });
        situation.contest = contest.as_ref();
        assembly::decide(&situation)
    }

    /// Whether a part, or the view, came here from the group that it follows.
    fn holds_anything(&self, node: usize) -> bool {
        let machine = &self.machines[node];
        let Some(process) = &machine.process else { return false };
        let view = process.view.map(|view| &self.ledger.get(view).lineage.group);
        machine.disk.part.is_some()
            || view.is_some_and(|group| process.of.as_ref().is_some_and(|of| of.group == *group))
    }

    pub fn count_members(&self, node: usize) -> usize {
        let view = self.machines[node].process.as_ref().and_then(|process| process.view);
        view.map_or(0, |view| self.ledger.get(view).roster.members.len())
    }

    /// Whether the members of its group are here.
    fn muster(&self, node: usize, others: &[Seen]) -> Muster {
        let of = self.machines[node].process.as_ref().and_then(|process| process.of.as_ref());
        let known = of.zip(self.best_known(node));
        known.map_or(Muster::Few, |(of, known)| {
            Muster::of(&super::world::name(node), &of.group, &known.roster, others)
        })
    }

    fn found_first(&mut self, node: usize, why: &str) {
        let group = format!("g{}{}", self.random.within(100, 100_000_000), super::world::name(node));
        let lineage = Rc::new(Lineage { group, epoch: self.random.within(1, 1 << 22) });
        self.note(node, || format!("founds {} at epoch {}: {why}", lineage.group, lineage.epoch));
        self.begin_group(node, None, lineage);
    }

    /// Begins a group of which this node is the only voter.
    pub fn begin_group(&mut self, node: usize, before: Option<Id>, lineage: Rc<Lineage>) {
        if let Some(other) = self.founders.insert((*lineage).clone(), node).filter(|other| *other != node) {
            let other = super::world::name(other);
            self.violated("an epoch has one founder", format!("{lineage:?} was founded by {other} as well"));
        }
        if before.is_some() {
            self.work_keep_intent(node);
        }
        let id = self.ledger.found(before, lineage.clone(), node);
        self.work_founded(before, id);
        self.committed.insert((*lineage).clone(), id);
        let part =
            Part { lineage: lineage.clone(), term: 1, vote: Some(node), head: id, commit: id, base: id };
        self.machines[node].disk.part = Some(part);
        self.process(node).aside = false;
        self.turn_to(node, lineage, "it was founded here");
        self.set_view(node, id);
        self.save_view(node);
        self.begin_lead(node);
    }

    pub fn turn_to(&mut self, node: usize, lineage: Rc<Lineage>, why: &str) {
        let now_ms = self.ms(node);
        if self.process(node).of.as_ref() == Some(&lineage) {
            return;
        }
        self.note(node, || format!("is now of {} epoch {}: {why}", lineage.group, lineage.epoch));
        let process = self.process(node);
        // What it asked the others to pledge themselves to was a founding from what it held of the group before.
        process.campaign = None;
        (process.muster, process.apart_since_ms) = (Muster::Few, None);
        process.attempts = Attempts::default();
        process.corrected.clear();
        process.told = None;
        process.told_by = None;
        process.confirmed = false;
        process.without_quorum_since_ms = now_ms;
        process.of = Some(lineage);
    }

    pub fn yield_to(&mut self, node: usize, to: Rc<Lineage>, why: &str) {
        self.work_keep_intent(node);
        self.drop_part(node);
        self.turn_to(node, to, why);
        self.moments.push((Moment::Yielded, node));
        self.stats.yields += 1;
    }

    pub fn drop_part(&mut self, node: usize) {
        // Flushed before the part's files go.
        if let Some(view) = self.machines[node].process.as_ref().and_then(|process| process.view) {
            self.machines[node].disk.views = vec![view];
        }
        if let Some(part) = self.machines[node].disk.part.take() {
            if self.plan.remembers_votes && self.ledger.get(part.head).voters.names(node) {
                self.machines[node].disk.gave_up.insert((*part.lineage).clone());
            }
            if self.plan.remembers_votes {
                self.machines[node].disk.left_terms.insert((*part.lineage).clone(), part.term);
            }
            self.note(node, || "drops its part in the electorate".into());
            // What a voter's log knew to be committed is in its view; that is kept from now on.
            self.save_view(node);
        }
        let process = self.process(node);
        process.aside = false;
        process.lead = Default::default();
        process.role = Role::Follower { leader: None };
    }

    /// What of a part that ends with its process has to be remembered.
    fn drop_part_on_disk(&mut self, node: usize) {
        let Some(part) = self.machines[node].disk.part.take().filter(|_| self.plan.remembers_votes) else {
            return;
        };
        let counted = self.ledger.get(part.head).voters.names(node);
        let disk = &mut self.machines[node].disk;
        disk.left_terms.insert((*part.lineage).clone(), part.term);
        if counted {
            disk.gave_up.insert((*part.lineage).clone());
        }
    }

    /// Frames arrive although this node has no part: the leader that it follows makes it a voter.
    pub fn accept_part(
        &mut self,
        from: usize,
        node: usize,
        lineage: &Rc<Lineage>,
        term: u64,
        (head, commit): (Id, Id),
    ) -> bool {
        let (leader, _) = self.known_status(node);
        let process = self.process(node);
        let passed = process.aside || process.grants.has_passed(lineage);
        // Once it is voted out, what it may have promised as a voter counts no more.
        let counted = self.ledger.get(commit).voters.names(node) || self.ledger.get(head).voters.names(node);
        let gave_up = counted && self.machines[node].disk.gave_up.contains(&**lineage);
        if gave_up || passed || self.process(node).of.as_ref() != Some(lineage) || leader != Some(from) {
            return false;
        }
        if self.machines[node].disk.part.is_some() {
            return false;
        }
        // A leader that others have deposed must not be made a quorum by a voter that has forgotten it: it is told the term.
        let left_term = self.machines[node].disk.left_terms.get(&**lineage).copied();
        if let Some(left_term) = left_term.filter(|left| term < *left) {
            let told = Message::Appended { lineage: lineage.clone(), term: left_term, head: None };
            self.send(node, from, told);
            return false;
        }
        let part =
            Part { lineage: lineage.clone(), term, vote: Some(from), head: commit, commit, base: commit };
        self.machines[node].disk.part = Some(part);
        self.machines[node].disk.gave_up.remove(&**lineage);
        self.note(node, || "takes a part in the electorate".into());
        let process = self.process(node);
        process.tenure = Tenure::default();
        self.follow_leader(node, Some(from));
        true
    }

    /// The leader and the voters, as this node's part or the voter that it follows says.
    pub fn known_status(&self, node: usize) -> (Option<usize>, Option<Rc<Voters>>) {
        let own = self.voters(node).filter(|voters| voters.names(node));
        let leader = self.raft_leader(node);
        if let (Some(own), Some(leader)) = (&own, leader) {
            return (Some(leader), Some(own.clone()));
        }
        let now_ms = self.ms(node);
        let told = self.machines[node].process.as_ref().and_then(|process| process.told.as_ref());
        let told = told.filter(|told| now_ms.saturating_sub(told.at_ms) < STALE_MS);
        told.map_or((None, own), |told| (told.leader, Some(told.voters.clone())))
    }

    fn keep_following(&mut self, node: usize) {
        let votes = self.voters(node).is_some_and(|voters| voters.names(node));
        if votes && self.raft_leader(node).is_some() {
            return;
        }
        let Some(of) = self.process(node).of.clone() else { return };
        let sources = (0..self.plan.nodes).filter(|peer| *peer != node && self.is_connected(node, *peer));
        let best = sources.filter_map(|peer| {
            let facts = self.facts_of(node, peer)?;
            let serves = facts.role >= Place::Voter && facts.of.as_ref() == Some(&of);
            serves.then_some((facts.acting, facts.role, facts.position.revision, peer))
        });
        let best = best.max().map(|(.., peer)| peer);
        let told_by = self.process(node).told_by;
        if let Some(peer) = best.or(told_by).filter(|peer| *peer != node) {
            self.send(node, peer, Message::Poll);
        }
    }

    pub fn on_poll(&mut self, from: usize, node: usize) {
        let Some(voters) = self.voters(node).filter(|voters| voters.names(node)) else { return };
        let Some(view) = self.process(node).view else { return };
        let lineage = self.part(node).map(|part| part.lineage.clone());
        let (Some(lineage), leader) = (lineage, self.raft_leader(node)) else { return };
        self.send(node, from, Message::Served { view, lineage, leader, voters });
    }

    pub fn on_served(
        &mut self,
        node: usize,
        view: Id,
        lineage: Rc<Lineage>,
        leader: Option<usize>,
        voters: Rc<Voters>,
    ) {
        let at_ms = self.ms(node);
        let process = self.process(node);
        let Some(of) = process.of.clone().filter(|of| of.group == lineage.group) else { return };
        if lineage.epoch < of.epoch {
            return;
        }
        if lineage.epoch > of.epoch {
            // What is left of a part of the older epoch would be in the way of an invitation.
            self.yield_to(node, lineage.clone(), "its voter says that the group was founded anew");
        }
        let process = self.process(node);
        process.told = Some(Told { leader, voters, at_ms });
        // While a part of this node's own writes the view, it only listens.
        if self.part(node).is_some() || self.ledger.get(view).lineage != lineage {
            return;
        }
        let behind = self.process(node).view.is_none_or(|mine| {
            let (mine, other) = (self.ledger.get(mine), self.ledger.get(view));
            mine.lineage != other.lineage || mine.depth < other.depth
        });
        if behind {
            self.set_view(node, view);
        }
    }

    /// Committed entries of this node's part reach its view.
    pub fn apply(&mut self, node: usize, commit: Id) {
        let view = self.process(node).view;
        let entry = self.ledger.get(commit);
        let behind = view.is_none_or(|view| {
            let view = self.ledger.get(view);
            view.lineage != entry.lineage || view.depth < entry.depth
        });
        if behind {
            self.set_view(node, commit);
        }
    }

    fn drop_unnamed_part(&mut self, node: usize) {
        let now_ms = self.ms(node);
        let Some(own) = self.voters(node) else {
            self.process(node).tenure = Tenure::default();
            return;
        };
        // A word here does not tell how far it has applied: parts are dropped sooner than they would be.
        let own =
            Own { names: own.names(node), learns: false, led: self.raft_leader(node).is_some(), named_at: 0 };
        let process = self.process(node);
        let told = process.told.as_ref();
        let theirs = told
            .filter(|told| now_ms.saturating_sub(told.at_ms) < STALE_MS && told.leader.is_some())
            .map(|told| Theirs { names: told.voters.names(node), applied: 0 });
        if process.tenure.is_over(own, theirs, &TENURE, now_ms) {
            self.drop_part(node);
        }
    }

    fn tend_electorate(&mut self, node: usize) {
        let now_ms = self.ms(node);
        let Some(voters) = self.voters(node).filter(|voters| voters.before.is_none()) else { return };
        let Some(leading) = self.leading(node) else { return };
        if leading.change.is_some() || now_ms < leading.change_after_ms {
            return;
        }
        let began_ms = leading.began_ms;
        let roster = self.process(node).lead.roster.0.clone();
        let group = self.process(node).of.clone().map(|of| of.group.clone());
        let is_of = |world: &Self, peer: usize| {
            let facts = world.facts_of(node, peer);
            facts.and_then(|facts| facts.of.as_ref()).is_some_and(|of| Some(&of.group) == group.as_ref())
        };
        let mut peers: BTreeSet<usize> = roster.members.iter().map(|peer| index(peer)).collect();
        peers.extend((0..self.plan.nodes).filter(|peer| is_of(self, *peer)));
        peers.insert(node);
        let candidates: Vec<Candidate> = peers
            .into_iter()
            .map(|peer| {
                let known = &self.machines[node].process.as_ref().expect("it ticks").known[peer];
                let facts = known.facts.as_ref();
                let alive = peer == node || (self.is_alive(node, peer) && is_of(self, peer));
                let leaving = match peer == node {
                    true => {
                        self.machines[node].process.as_ref().is_some_and(|me| me.leaving_since_ms.is_some())
                    }
                    false => facts.is_some_and(|facts| facts.leaving),
                };
                Candidate {
                    peer: super::world::name(peer),
                    alive,
                    connected: peer == node || self.is_connected(node, peer),
                    leaving,
                    lost: facts.is_some_and(|facts| facts.lost),
                    started_ms: facts.map_or(0, |facts| facts.started_ms),
                    steady: true,
                    dead_for_ms: if self.is_alive(node, peer) {
                        0
                    } else {
                        now_ms.saturating_sub(known.news_ms)
                    },
                }
            })
            .collect();
        let names: BTreeSet<String> = voters.now.iter().map(|peer| super::world::name(*peer)).collect();
        // Nodes' clocks begin anywhere: how long each is up is what it says, on a common scale in the daemon.
        let input = Input {
            now_ms: u64::MAX / 2,
            me: &super::world::name(node),
            voters: &names,
            candidates: &candidates,
            swapped_ms: began_ms,
            rules: &VoterRules::default(),
        };
        if let Some(change) = next_change(&input) {
            self.begin_change(node, change, &voters.now);
        }
    }

    /// A node that leaves ends when it belongs no more, or when that takes too long, and forgets everything.
    fn leave_if_due(&mut self, node: usize) {
        let now_ms = self.ms(node);
        let Some(since_ms) = self.process(node).leaving_since_ms else { return };
        let named = self
            .process(node)
            .view
            .is_some_and(|view| self.ledger.get(view).roster.names(&super::world::name(node)));
        let votes = self.voters(node).is_some_and(|voters| voters.names(node));
        if (named || votes) && now_ms - since_ms < LEAVE_WITHIN_MS {
            return;
        }
        self.note(node, || "has left, and forgets what it saw".into());
        self.stats.left += 1;
        self.crash(node, false);
        self.work_left(node);
        // But not what it promised: a leader may still count on it when it is back.
        let (word, word_lost) = match self.plan.mutation {
            Mutation::LeaversForget => Default::default(),
            _ => (self.machines[node].disk.word.clone(), self.machines[node].disk.word_lost),
        };
        self.drop_part_on_disk(node);
        let disk = std::mem::take(&mut self.machines[node].disk);
        let Disk { gave_up, left_terms, evicted, .. } = disk;
        self.machines[node].disk = Disk { word, word_lost, gave_up, left_terms, evicted, ..Disk::default() };
        let incarnation = self.machines[node].incarnation;
        let back = self.random.within(100_000, 5_000_000);
        self.queue.after(back, super::world::Event::Up { node, incarnation });
    }
}
