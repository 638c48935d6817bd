//! A schedule of faults from a seed. Pure; it names desktops by their part in the flock, since nobody knows
//! beforehand who will lead.

use crate::seed::Seed;
use std::fmt;
use std::time::Duration;

/// How long a fault lasts, and how long the bench is left alone afterwards.
const HOLDS_MS: (u64, u64) = (1500, 8000);
const CALM_MS: (u64, u64) = (500, 4000);
/// How often a desktop's cable goes out and in again, and how long it is in either state.
const FLAPS: (usize, usize) = (3, 6);
/// Of a hundred steps: those with two faults at once, and those after which the flock need not be whole again
/// before the next.
const DOUBLE: usize = 25;
const HASTY: usize = 40;

/// A desktop by its part in the flock at the moment of the fault.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Who {
    Leader,
    /// The others in order, from 0.
    Other(usize),
}

/// One thing that goes wrong.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fault {
    /// Daemons are killed; engines and containers go on.
    Kill(Vec<Who>),
    /// All daemons are killed at the same time.
    KillAll,
    /// All processes of a desktop die, and its kernel says so.
    Crash(Vec<Who>),
    /// The same, in silence.
    PowerCut(Vec<Who>),
    /// It leaves as its owner asks it to.
    Leave(Who),
    /// Only those of one group hear each other.
    Cut(Vec<Vec<Who>>),
    /// What the first ones send never reaches the second ones.
    OneWay(Vec<Who>, Vec<Who>),
    /// Its cable goes out and in, so many times.
    Flap(Who, usize),
}

impl Fault {
    /// How many desktops' daemons it ends.
    #[must_use]
    pub fn ends(&self, desktops: usize) -> usize {
        match self {
            Self::Kill(who) | Self::Crash(who) | Self::PowerCut(who) => who.len(),
            Self::KillAll => desktops,
            Self::Leave(_) => 1,
            Self::Cut(_) | Self::OneWay(..) | Self::Flap(..) => 0,
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

/// The schedule for a flock of this size: steps until their times fill `time`, at least one.
#[must_use]
pub fn plan(seed: &Seed, desktops: usize, time: Duration) -> Vec<Step> {
    let mut seed = seed.part("nemesis", desktops);
    let (mut steps, mut filled) = (Vec::new(), Duration::ZERO);
    while steps.is_empty() || filled < time {
        let step = step(&mut seed, desktops);
        filled += step.holds + step.calm;
        steps.push(step);
    }
    steps
}

fn step(seed: &mut Seed, desktops: usize) -> Step {
    let mut faults = vec![fault(seed, desktops)];
    if seed.percent(DOUBLE) {
        let more = fault(seed, desktops);
        let ended: usize = faults.iter().chain([&more]).map(|fault| fault.ends(desktops)).sum();
        let cuts = |fault: &Fault| matches!(fault, Fault::Cut(_) | Fault::Flap(..));
        // A second cut would heal the first one, and one desktop cannot end twice.
        if ended <= minority(desktops) && !(cuts(&faults[0]) && cuts(&more)) && faults[0] != more {
            let disjoint = |one: &Fault, other: &Fault| one.ends(desktops) == 0 || other.ends(desktops) == 0;
            if disjoint(&faults[0], &more) {
                faults.push(more);
            }
        }
    }
    Step {
        faults,
        holds: seed.between(HOLDS_MS.0, HOLDS_MS.1),
        calm: seed.between(CALM_MS.0, CALM_MS.1),
        whole: !seed.percent(HASTY),
    }
}

/// The most that may be gone while the rest still orders writes.
fn minority(desktops: usize) -> usize {
    (desktops.max(1) - 1) / 2
}

fn fault(seed: &mut Seed, desktops: usize) -> Fault {
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
    match seed.below(16) {
        0..=2 => Fault::Kill(few(seed)),
        3 => Fault::KillAll,
        4..=5 => Fault::Crash(few(seed)),
        6..=8 => Fault::PowerCut(few(seed)),
        9 => Fault::Leave(few(seed)[0]),
        10..=12 => {
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
        13..=14 => {
            let some = few(seed);
            let mut rest = everybody.clone();
            rest.retain(|who| !some.contains(who));
            let keep = 1 + seed.below(rest.len());
            rest.truncate(keep);
            if seed.percent(50) { Fault::OneWay(some, rest) } else { Fault::OneWay(rest, some) }
        }
        _ => Fault::Flap(few(seed)[0], FLAPS.0 + seed.below(FLAPS.1 - FLAPS.0 + 1)),
    }
}

impl fmt::Display for Who {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Leader => f.write_str("the leader"),
            Self::Other(number) => write!(f, "follower {number}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    fn many() -> impl Iterator<Item = (usize, Step)> {
        [3, 5].into_iter().flat_map(|desktops| {
            (0..200).flat_map(move |seed| {
                let steps = plan(&Seed::new(seed), desktops, Duration::from_secs(60));
                steps.into_iter().map(move |step| (desktops, step))
            })
        })
    }

    #[test]
    fn the_same_seed_makes_the_same_plan() {
        let plan = |seed| plan(&Seed::new(seed), 5, Duration::from_secs(120));
        assert_eq!(plan(4), plan(4));
        assert_ne!(plan(4), plan(5));
    }

    #[test]
    fn no_more_than_a_minority_is_ended_unless_all_are() {
        for (desktops, step) in many() {
            let ended: usize = step.faults.iter().map(|fault| fault.ends(desktops)).sum();
            assert!(ended <= minority(desktops) || step.faults == [Fault::KillAll], "{desktops}: {step:?}");
        }
    }

    #[test]
    fn everybody_named_is_in_the_flock_and_in_one_group() {
        for (desktops, step) in many() {
            for fault in &step.faults {
                let named: Vec<Who> = match fault {
                    Fault::Kill(who) | Fault::Crash(who) | Fault::PowerCut(who) => who.clone(),
                    Fault::Leave(who) | Fault::Flap(who, _) => vec![*who],
                    Fault::Cut(groups) => {
                        assert!(groups.iter().all(|group| !group.is_empty()), "{step:?}");
                        assert_eq!(groups.concat().len(), desktops, "{step:?}");
                        groups.concat()
                    }
                    Fault::OneWay(from, to) => {
                        assert!(!from.is_empty() && !to.is_empty(), "{step:?}");
                        from.iter().chain(to).copied().collect()
                    }
                    Fault::KillAll => vec![],
                };
                let distinct: BTreeSet<Who> = named.iter().copied().collect();
                assert_eq!(distinct.len(), named.len(), "{step:?}");
                let there = |who: &Who| matches!(who, Who::Leader) || *who < Who::Other(desktops - 1);
                assert!(named.iter().all(there), "{step:?}");
            }
        }
    }

    #[test]
    fn every_kind_of_fault_occurs() {
        let kinds: BTreeSet<String> = many()
            .flat_map(|(_, step)| step.faults)
            .map(|fault| match fault {
                Fault::Cut(groups) => {
                    let inside = groups[1].contains(&Who::Leader);
                    format!("cut into {} with the leader in the minority: {inside}", groups.len())
                }
                Fault::Kill(who) => format!("kill the leader: {}", who.contains(&Who::Leader)),
                Fault::PowerCut(who) => format!("cut power of the leader: {}", who.contains(&Who::Leader)),
                other => format!("{other:?}").split('(').next().unwrap_or_default().to_owned(),
            })
            .collect();
        // Four cuts, two kills, two power cuts; and all together, crash, leave, one way, flap.
        assert_eq!(kinds.len(), 13, "{kinds:?}");
        assert!(many().any(|(_, step)| step.faults.len() == 2));
        assert!(many().any(|(_, step)| !step.whole) && many().any(|(_, step)| step.whole));
    }
}
