//! The run: machines, network and time, and what is true of all of them at every step.

use super::super::clock::{Clock, Micros};
use super::super::faults::{Fault, Moment};
use super::super::network::Network;
use super::super::queue::Queue;
use super::super::random::Random;
use super::super::trace::Trace;
use super::super::work::{Later, Work};
use super::ledger::{Id, Ledger};
use super::message::Message;
use super::node::{Disk, Facts, Known, Lead, Machine, NextDue, Process, Role};
use super::{Mutation, Plan, Stats, Violation};
use gaggle_sched::electorate::Tenure;
use gaggle_sched::electorate::assembly::Muster;
use gaggle_sched::electorate::attempts::Attempts;
use gaggle_sched::electorate::founding::Position;
use gaggle_sched::electorate::presence::{Grants, Word};
use gaggle_sched::state::Lineage;
use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;

pub const MS: Micros = 1_000;
/// How often a machine looks what is due.
const TICK: Micros = 50 * MS;
/// From the moment the network is whole and everybody is up, the flock has this long to act as one.
const PATIENCE: Micros = 120_000 * MS;
/// With work: a Job's pods are made again after a back-off of minutes.
const WORK_PATIENCE: Micros = 600_000 * MS;
/// It must go on for this long without a change.
const STEADY: Micros = 3_000 * MS;

#[derive(Debug)]
pub enum Event {
    Tick {
        node: usize,
        incarnation: u32,
    },
    Arrives {
        from: usize,
        to: usize,
        message: Message,
    },
    Begins(usize),
    Ends(usize),
    /// A machine that a fault took away is switched on, or wakes up.
    Up {
        node: usize,
        incarnation: u32,
    },
    Mend(Vec<(usize, usize)>),
    Flips {
        node: usize,
        left: u32,
        links: Vec<(usize, usize)>,
        cut: bool,
    },
    Heals,
    Checks,
    Work(Later),
}

pub struct World<'a> {
    pub plan: &'a Plan,
    pub queue: Queue<Event>,
    pub random: Random,
    pub network: Network,
    pub machines: Vec<Machine>,
    pub ledger: Ledger,
    pub trace: Trace,
    pub stats: Stats,
    pub violation: Option<Violation>,
    /// Faults that wait for their moment.
    pub lurking: Vec<Fault>,
    pub moments: Vec<(Moment, usize)>,
    /// Who founded what.
    pub founders: BTreeMap<Lineage, usize>,
    /// Who pledged itself to which epoch: to whom, and what it had seen by then.
    pub pledges: BTreeMap<(Lineage, usize), (usize, Option<Id>)>,
    pub committed: BTreeMap<Lineage, Id>,
    pub healed_at: Option<Micros>,
    pub work: Work,
    steady_since: Option<Micros>,
    must_heal: bool,
    done: bool,
}

impl<'a> World<'a> {
    pub fn new(plan: &'a Plan, tracing: bool) -> Self {
        let mut random = Random::new(plan.seed);
        let network = Network::new(plan.nodes, random.split());
        let mut world = Self {
            plan,
            queue: Queue::default(),
            network,
            machines: Vec::new(),
            ledger: Ledger::new(plan.mutation == Mutation::BlanksDoNotCount),
            trace: Trace::new(tracing),
            stats: Stats::default(),
            violation: None,
            lurking: Vec::new(),
            moments: Vec::new(),
            founders: BTreeMap::new(),
            pledges: BTreeMap::new(),
            committed: BTreeMap::new(),
            healed_at: None,
            work: Work::new(plan.nodes, plan.seed),
            steady_since: None,
            must_heal: true,
            done: false,
            random: random.split(),
        };
        for node in 0..plan.nodes {
            let clock = world.new_clock(0);
            world.machines.push(Machine {
                name: name(node),
                clock,
                disk: Disk::default(),
                process: None,
                incarnation: 0,
                asleep: false,
                said: 0,
                gone: false,
                crashes: 0,
            });
            // Most begin together; some are switched on later.
            let at = match world.random.below(4) {
                0 => world.random.within(0, plan.until / 3),
                _ => world.random.within(0, 500 * MS),
            };
            world.queue.at(at, Event::Up { node, incarnation: 0 });
        }
        for (index, fault) in plan.faults.iter().enumerate() {
            world.queue.at(fault.at, Event::Begins(index));
        }
        world.queue.at(plan.until, Event::Heals);
        if plan.work.is_some() {
            world.queue.at(3_000 * MS, Event::Work(Later::Writes));
        }
        world
    }

    fn new_clock(&mut self, now: Micros) -> Clock {
        let bound = self.plan.clock_ppm;
        // The extremes are what a bound is about.
        let fast = match self.random.below(4) {
            0 => -(bound as i64),
            1 => bound as i64,
            _ => self.random.within(0, 2 * bound) as i64 - bound as i64,
        };
        Clock::new(now, self.random.within(0, 1_000_000), fast)
    }

    pub fn run(mut self) -> (Result<Stats, Violation>, Trace) {
        while let Some(event) = self.queue.pop() {
            self.stats.steps += 1;
            self.happen(event);
            while let Some((moment, node)) = self.moments.pop() {
                self.lurk(moment, node);
            }
            if let Some(violation) = self.violation.take() {
                return (Err(violation), self.trace);
            }
            if self.done || self.stats.steps >= self.plan.max_steps {
                break;
            }
        }
        self.stats.virtual_ms = self.queue.now() / MS;
        (Ok(self.stats), self.trace)
    }

    fn happen(&mut self, event: Event) {
        match event {
            Event::Tick { node, incarnation } => {
                let machine = &self.machines[node];
                if machine.incarnation == incarnation && machine.acts() {
                    self.tick(node);
                    let jitter = self.random.within(0, TICK / 5);
                    self.queue.after(TICK + jitter, Event::Tick { node, incarnation });
                }
            }
            Event::Arrives { from, to, message } => self.arrive(from, to, message),
            Event::Begins(fault) => self.begin_fault(self.plan.faults[fault].clone()),
            Event::Ends(fault) => self.end_fault(&self.plan.faults[fault].what.clone()),
            Event::Up { node, incarnation } => {
                if self.machines[node].incarnation == incarnation && !self.machines[node].gone {
                    self.up(node);
                }
            }
            Event::Mend(links) => {
                if self.healed_at.is_none() {
                    links.iter().for_each(|(from, to)| self.network.mend(*from, *to));
                }
            }
            Event::Flips { node, left, links, cut } => self.flip(node, left, links, cut),
            Event::Heals => self.heal(),
            Event::Checks => self.check_liveness(),
            Event::Work(later) => self.happen_later(later),
        }
    }

    fn arrive(&mut self, from: usize, to: usize, message: Message) {
        if self.network.is_cut(from, to) && from != to {
            return;
        }
        if self.machines[to].asleep {
            // The kernel keeps some of it until the lid is opened.
            if self.random.permille(300) {
                self.queue.after(500 * MS, Event::Arrives { from, to, message });
            }
            return;
        }
        if self.machines[to].process.is_none() {
            return;
        }
        // A connection that one side refuses is none for the other.
        if from == to || !self.refuses(to, from) && !self.refuses(from, to) {
            self.receive(from, to, message);
        }
    }

    /// As the daemon's `flock::evicted` has it: who goes to another group goes by that one's evictions.
    fn refuses(&self, node: usize, other: usize) -> bool {
        let Some(process) = &self.machines[node].process else { return false };
        let view = process.view.map(|view| self.ledger.get(view));
        let is_own = |group: &str| process.of.as_ref().is_none_or(|of| of.group == group);
        view.is_some_and(|view| {
            is_own(&view.lineage.group) && view.roster.evicted.contains_key(&self.machines[other].name)
        })
    }

    pub fn send(&mut self, from: usize, to: usize, message: Message) {
        let arrivals: Vec<Micros> = self.network.arrivals(from, to).collect();
        self.stats.messages += 1;
        for after in arrivals {
            self.queue.after(after, Event::Arrives { from, to, message: message.clone() });
        }
    }

    /// The same, after something was brought to the disk.
    pub fn send_synced(&mut self, from: usize, to: usize, message: Message) {
        let flush = self.random.within(100, 12 * MS);
        let arrivals: Vec<Micros> = self.network.arrivals(from, to).collect();
        self.stats.messages += 1;
        for after in arrivals {
            self.queue.after(flush + after, Event::Arrives { from, to, message: message.clone() });
        }
    }

    pub fn ms(&self, node: usize) -> u64 {
        self.machines[node].clock.ms(self.queue.now())
    }

    pub fn note(&mut self, node: usize, what: impl FnOnce() -> String) {
        let now = self.queue.now();
        self.trace.note(now, &self.machines[node].name, what);
    }

    pub fn process(&mut self, node: usize) -> &mut Process {
        self.machines[node].process.as_mut().expect("events reach only processes that run")
    }

    pub fn violated(&mut self, rule: &'static str, what: String) {
        let at_us = self.queue.now();
        self.violation.get_or_insert(Violation { rule, what, at_us });
    }

    /// Switches a machine on, or wakes it.
    pub fn up(&mut self, node: usize) {
        if std::mem::take(&mut self.machines[node].asleep) {
            self.note(node, || "wakes up".into());
            self.work.desks[node].woke_at = self.queue.now();
            let incarnation = self.machines[node].incarnation;
            self.queue.after(self.random.clone().within(0, TICK), Event::Tick { node, incarnation });
            return;
        }
        if self.machines[node].process.is_some() {
            return;
        }
        let now = self.queue.now();
        self.machines[node].clock = self.new_clock(now);
        let now_ms = self.ms(node);
        let nodes = self.plan.nodes;
        let disk = &self.machines[node].disk;
        let saved = disk.views.last().copied();
        // A voter's state machine goes on from what the log's mark says.
        let marked = disk.part.as_ref().map(|part| part.commit);
        let view = saved.into_iter().chain(marked).max_by_key(|id| self.ledger.get(*id).position);
        let in_view = saved.map(|view| self.ledger.get(view).lineage.clone());
        let mut grants = match disk.word_lost {
            true => Grants::lost(now_ms),
            false => Grants::new(disk.word.clone(), now_ms),
        };
        if self.plan.mutation == Mutation::NoHoldAfterRestart {
            grants = Grants::new(disk.word.clone(), now_ms.saturating_sub(600_000));
        }
        let word: &Word = grants.word();
        let lost_word = disk.word_lost.then(|| word.clone());
        let aside = disk.part.as_ref().is_some_and(|part| grants.has_passed(&part.lineage));
        let of = disk.part.as_ref().map(|part| part.lineage.clone()).or(in_view);
        let process = Process {
            started_ms: now_ms,
            grants,
            given_ms: now_ms,
            of,
            view,
            aside,
            role: Role::Follower { leader: None },
            election_due_ms: now_ms + 1_000 + self.random.within(0, 1_000),
            lead: Lead::default(),
            heard: None,
            told: None,
            told_by: None,
            confirmed: false,
            without_quorum_since_ms: now_ms,
            live: BTreeSet::new(),
            live_since_ms: now_ms,
            contest: None,
            muster: Muster::Few,
            apart_since_ms: None,
            campaign: None,
            attempts: Attempts::default(),
            corrected: BTreeMap::new(),
            tenure: Tenure::default(),
            saved_ms: now_ms,
            known: vec![Known { news_ms: now_ms, ..Known::default() }; nodes],
            leaving_since_ms: None,
            next: NextDue::default(),
        };
        let machine = &mut self.machines[node];
        if let Some(word) = lost_word {
            // It stays lost until a new one was given, as the file stays unreadable.
            machine.disk.word = word;
        }
        machine.process = Some(process);
        self.work_up(node);
        let machine = &self.machines[node];
        let incarnation = machine.incarnation;
        self.note(node, || "is switched on".into());
        self.queue.after(self.random.clone().within(0, TICK), Event::Tick { node, incarnation });
    }

    /// Ends a process at once.
    pub fn crash(&mut self, node: usize, older_view: bool) {
        let choice = self.random.draw();
        let machine = &mut self.machines[node];
        machine.asleep = false;
        machine.incarnation += 1;
        machine.crashes += 1;
        self.work_down(node);
        let machine = &mut self.machines[node];
        if machine.process.take().is_none() {
            return;
        }
        if older_view {
            // A power cut: what was written and not flushed may be older.
            let left = choice as usize % (machine.disk.views.len() + 1);
            machine.disk.views.truncate(left.max(1));
            if let Some(part) = &mut machine.disk.part {
                let back = (choice >> 32) as usize % 4;
                let known = self
                    .ledger
                    .back_from(part.commit)
                    .take_while(|(_, entry)| entry.depth >= self.ledger.get(part.base).depth);
                part.commit = known.take(back + 1).last().map_or(part.commit, |(id, _)| id);
            }
        }
        self.note(node, || "crashes".into());
    }

    /// Whatever was wrong is over; from here on the flock must come together.
    fn heal(&mut self) {
        self.network.heal();
        self.lurking.clear();
        self.healed_at = Some(self.queue.now());
        self.trace.note(self.queue.now(), "-", || "the network is whole, and everybody is up".into());
        // Who was removed for good is switched off sooner or later; or goes on, and hears of it.
        let views = self.machines.iter().filter_map(|machine| machine.process.as_ref()?.view);
        let views = views.chain(self.machines.iter().flat_map(|machine| machine.disk.views.iter().copied()));
        let evicted: BTreeSet<String> =
            views.flat_map(|view| self.ledger.get(view).roster.evicted.keys().cloned()).collect();
        for peer in evicted {
            self.machines[index(&peer)].gone = self.random.permille(500);
        }
        let staying_dead = self.who_may_stay_dead();
        self.must_heal = staying_dead.is_some();
        let staying_dead = staying_dead.unwrap_or_default();
        for node in 0..self.plan.nodes {
            self.machines[node].incarnation += u32::from(self.machines[node].process.is_none());
            if self.machines[node].gone || staying_dead.contains(&node) {
                self.crash(node, false);
                self.machines[node].gone = true;
            } else {
                if let Some(process) = &mut self.machines[node].process {
                    process.leaving_since_ms = None;
                }
                self.up(node);
            }
        }
        self.queue.after(500 * MS, Event::Checks);
    }

    /// Some, as long as more than half of every roster that anybody knows is left. `None` if that much is not left of one
    /// even when everybody is up: then only people can go on.
    fn who_may_stay_dead(&mut self) -> Option<BTreeSet<usize>> {
        let known = self.machines.iter().flat_map(|machine| {
            let part = machine.disk.part.as_ref().map(|part| part.head);
            let view = machine.process.as_ref().and_then(|process| process.view);
            part.into_iter().chain(view).chain(machine.disk.views.last().copied())
        });
        let known: BTreeSet<Id> = known.collect();
        // Who lost its word helps nobody to found, and counts as missing for that.
        let unsure = |machine: &Machine| machine.disk.word_lost || machine.disk.word.unsure;
        let left = |dead: &BTreeSet<usize>| {
            let helps = |peer: &str| !dead.contains(&index(peer)) && !unsure(&self.machines[index(peer)]);
            known.iter().all(|id| {
                let roster = &self.ledger.get(*id).roster;
                roster.has_majority(|peer| helps(peer) && !roster.evicted.contains_key(peer))
            })
        };
        let mut dead: BTreeSet<usize> =
            (0..self.plan.nodes).filter(|node| self.machines[*node].gone).collect();
        if !left(&dead) {
            return None;
        }
        let mut random = self.random.split();
        let candidates = if random.permille(500) { self.plan.nodes / 2 } else { 0 };
        for _ in 0..candidates {
            let mut with = dead.clone();
            with.insert(random.below(self.plan.nodes));
            if left(&with) {
                dead = with;
            }
        }
        Some(dead)
    }

    fn check_liveness(&mut self) {
        let now = self.queue.now();
        match self.is_one().and_then(|()| self.work_settled()) {
            Ok(()) => {
                let since = *self.steady_since.get_or_insert(now);
                if now - since >= STEADY {
                    self.done = true;
                    self.check_work_at_the_end();
                    let healed = self.healed_at.unwrap_or(now);
                    match self.must_heal {
                        true => self.stats.healed_ms = self.stats.healed_ms.max((since - healed) / MS),
                        false => self.stats.came_together_with_few += 1,
                    }
                    return;
                }
            }
            Err(why) => {
                self.steady_since = None;
                let patience = if self.plan.work.is_some() { WORK_PATIENCE } else { PATIENCE };
                if now - self.healed_at.unwrap_or(now) > patience {
                    if !self.plan.liveness {
                        self.done = true;
                        return;
                    }
                    if let Err(reason) = self.could_act() {
                        *self.stats.needs_people.entry(reason).or_default() += 1;
                        self.done = true;
                        return;
                    }
                    self.describe();
                    let rule = match self.is_one() {
                        Ok(()) => super::super::work::RESTS,
                        Err(_) => "one group acts and everybody follows it",
                    };
                    return self.violated(rule, why);
                }
            }
        }
        self.queue.after(250 * MS, Event::Checks);
    }

    pub fn facts_of(&self, node: usize, of: usize) -> Option<&Rc<Facts>> {
        self.machines[node].process.as_ref()?.known[of].facts.as_ref()
    }

    /// How much of a group's order a view holds.
    pub fn position_in(&self, group: &str, view: Option<Id>) -> Position {
        let entry = view.map(|view| self.ledger.get(view)).filter(|entry| entry.lineage.group == group);
        entry.map_or_else(Position::default, |entry| entry.position)
    }
}

/// Machines whose name is a letter; those beyond have a `z` before it for each round.
const SINGLE_LETTERS: usize = 25;

/// Peers by name: in the order of their numbers.
pub fn name(node: usize) -> String {
    let letter = char::from(b'a' + (node % SINGLE_LETTERS) as u8);
    let mut name = "z".repeat(node / SINGLE_LETTERS);
    name.push(letter);
    name
}

pub fn index(peer: &str) -> usize {
    let rounds = peer.len().saturating_sub(1);
    rounds * SINGLE_LETTERS + peer.bytes().last().map_or(0, |byte| usize::from(byte - b'a'))
}
