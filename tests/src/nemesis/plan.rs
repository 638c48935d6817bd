//! A schedule of faults from a seed. Pure; it names desktops by their part in the flock, since nobody knows
//! beforehand who will lead.

use super::fault::{Fault, Who};
use crate::seed::Seed;
use std::time::Duration;

/// How long a fault lasts, and how long the bench is left alone afterwards.
const HOLDS_MS: (u64, u64) = (1500, 8000);
const CALM_MS: (u64, u64) = (500, 4000);
/// A fault that lasts longer than anybody waits for whoever is silent: what it ran is made anew elsewhere.
const HOLDS_LONG_MS: (u64, u64) = (13_000, 18_000);
/// How often a desktop's cable goes out and in again, and how long it is in either state.
const FLAPS: (usize, usize) = (3, 6);
/// Of a hundred packets, those that a bad network loses; and a starved desktop's hundredths of a processor.
const LOSSES: (usize, usize) = (5, 20);
const HUNDREDTHS: (usize, usize) = (4, 12);
/// How far a clock jumps at most, in minutes: a day and a half.
const JUMP: usize = 36 * 60;
/// Of a hundred steps: those with two faults at once, those that last long, and those after which the flock need not
/// be whole again before the next.
const DOUBLE: usize = 25;
const LONG: usize = 12;
const HASTY: usize = 40;
/// Of a hundred trials, those on desktops whose clock can be set, and those with a disk for the data alone: either
/// makes a desktop slower.
const OWN_CLOCKS: usize = 35;
const OWN_DISKS: usize = 35;

/// The kinds of faults and how often each comes, compared with the others.
const KINDS: [(Kind, usize); 16] = [
    (Kind::Kill, 3),
    (Kind::KillAll, 1),
    (Kind::Crash, 2),
    (Kind::PowerCut, 3),
    (Kind::Leave, 1),
    (Kind::Sleep, 3),
    (Kind::Cut, 3),
    (Kind::OneWay, 2),
    (Kind::Flap, 1),
    (Kind::Lossy, 1),
    (Kind::Readdress, 1),
    (Kind::Clock, 4),
    (Kind::FullDisk, 3),
    (Kind::ReadOnlyDisk, 2),
    (Kind::StuckEngine, 1),
    (Kind::Starve, 1),
];

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Kill,
    KillAll,
    Crash,
    PowerCut,
    Leave,
    Sleep,
    Cut,
    OneWay,
    Flap,
    Lossy,
    Readdress,
    Clock,
    FullDisk,
    ReadOnlyDisk,
    StuckEngine,
    Starve,
}

/// What desktops have to be given before their daemons start, for what the plan does to them.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Fitting {
    pub own_clock: bool,
    pub own_disk: bool,
}

impl Fitting {
    fn allows(self, kind: Kind) -> bool {
        match kind {
            Kind::Clock => self.own_clock,
            Kind::FullDisk | Kind::ReadOnlyDisk => self.own_disk,
            _ => true,
        }
    }
}

/// Faults that are there together, and what follows on them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Step {
    pub faults: Vec<Fault>,
    pub holds: Duration,
    pub calm: Duration,
    /// Whether the flock has to be whole again before the next step.
    pub whole: bool,
}

/// What is done in one trial.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Plan {
    pub fitting: Fitting,
    pub steps: Vec<Step>,
}

/// The schedule for a flock of this size: steps until their times fill `time`, at least one.
#[must_use]
pub fn plan(seed: &Seed, desktops: usize, time: Duration) -> Plan {
    let mut seed = seed.part("nemesis", desktops);
    let fitting = Fitting { own_clock: seed.percent(OWN_CLOCKS), own_disk: seed.percent(OWN_DISKS) };
    let (mut steps, mut filled) = (Vec::new(), Duration::ZERO);
    while steps.is_empty() || filled < time {
        let step = step(&mut seed, desktops, fitting);
        filled += step.holds + step.calm;
        steps.push(step);
    }
    Plan { fitting, steps }
}

fn step(seed: &mut Seed, desktops: usize, fitting: Fitting) -> Step {
    let mut faults = vec![fault(seed, desktops, fitting)];
    if seed.percent(DOUBLE) {
        let more = fault(seed, desktops, fitting);
        let taken: usize = faults.iter().chain([&more]).map(|fault| fault.takes(desktops)).sum();
        if taken <= minority(desktops) && faults[0].goes_with(&more) {
            faults.push(more);
        }
    }
    let long = seed.percent(LONG) && !faults.iter().any(Fault::hinders_ending);
    let holds = if long { HOLDS_LONG_MS } else { HOLDS_MS };
    Step {
        faults,
        holds: seed.between(holds.0, holds.1),
        calm: seed.between(CALM_MS.0, CALM_MS.1),
        whole: !seed.percent(HASTY),
    }
}

/// The most that may be gone while the rest still orders writes.
fn minority(desktops: usize) -> usize {
    (desktops.max(1) - 1) / 2
}

fn kind(seed: &mut Seed, fitting: Fitting) -> Kind {
    let kinds: Vec<(Kind, usize)> = KINDS.into_iter().filter(|(kind, _)| fitting.allows(*kind)).collect();
    let mut at = seed.below(kinds.iter().map(|(_, weight)| weight).sum());
    for (kind, weight) in kinds {
        match at.checked_sub(weight) {
            Some(left) => at = left,
            None => return kind,
        }
    }
    Kind::Kill
}

fn fault(seed: &mut Seed, desktops: usize, fitting: Fitting) -> Fault {
    let everybody: Vec<Who> = std::iter::once(Who::Leader).chain((0..desktops - 1).map(Who::Other)).collect();
    // Half of the faults that pick single desktops pick the leader among them.
    let few = |seed: &mut Seed| {
        let count = 1 + seed.below(minority(desktops).max(1));
        let mut picked = seed.shuffled(everybody.clone());
        if seed.percent(50) {
            picked.retain(|who| *who != Who::Leader);
            picked.insert(0, Who::Leader);
        }
        picked.truncate(count);
        picked.sort();
        picked
    };
    let from = |seed: &mut Seed, (least, most): (usize, usize)| least + seed.below(most - least + 1);
    match kind(seed, fitting) {
        Kind::Kill => Fault::Kill(few(seed)),
        Kind::KillAll => Fault::KillAll,
        Kind::Crash => Fault::Crash(few(seed)),
        Kind::PowerCut => Fault::PowerCut(few(seed)),
        Kind::Leave => Fault::Leave(few(seed)[0]),
        Kind::Sleep => Fault::Sleep(few(seed)),
        Kind::Cut => {
            let minority = few(seed);
            let mut rest = everybody.clone();
            rest.retain(|who| !minority.contains(who));
            let mut groups = vec![rest, minority];
            // In a third of the cuts nobody has a majority.
            if desktops > 3 && seed.percent(33) && groups[1].len() > 1 {
                let lone = groups[0].pop();
                groups.push(lone.into_iter().collect());
            }
            Fault::Cut(groups)
        }
        Kind::OneWay => {
            let some = few(seed);
            let mut rest = everybody.clone();
            rest.retain(|who| !some.contains(who));
            let keep = 1 + seed.below(rest.len());
            rest.truncate(keep);
            if seed.percent(50) { Fault::OneWay(some, rest) } else { Fault::OneWay(rest, some) }
        }
        Kind::Flap => Fault::Flap(few(seed)[0], from(seed, FLAPS)),
        Kind::Lossy => Fault::Lossy(from(seed, LOSSES)),
        // In half of the cases all at once, as where the server that hands them out was replaced.
        Kind::Readdress if seed.percent(50) => Fault::Readdress(everybody),
        Kind::Readdress => Fault::Readdress(few(seed)),
        Kind::Clock => {
            let minutes = i64::try_from(1 + seed.below(JUMP)).unwrap_or(1);
            Fault::Clock(few(seed)[0], if seed.percent(50) { minutes } else { -minutes })
        }
        Kind::FullDisk => Fault::FullDisk(few(seed)),
        Kind::ReadOnlyDisk => Fault::ReadOnlyDisk(few(seed)[0]),
        Kind::StuckEngine => Fault::StuckEngine(few(seed)[0]),
        Kind::Starve => {
            Fault::Starve(few(seed)[0], u32::try_from(from(seed, HUNDREDTHS)).unwrap_or(u32::MAX))
        }
    }
}

#[cfg(test)]
mod tests;
