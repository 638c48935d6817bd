//! What goes wrong, when: drawn from the seed before anything runs, so that a run can be repeated with fewer faults.

use super::clock::Micros;
use super::random::Random;
use std::collections::BTreeSet;

const SECOND: Micros = 1_000_000;

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    pub at: Micros,
    /// How long it lasts.
    pub lasts: Micros,
    pub what: What,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum What {
    /// The process ends at once. What was fsynced is left; `older_view`: the saved view is that of some time ago.
    Crash { nodes: BTreeSet<usize>, older_view: bool },
    /// These cannot talk with the others.
    Partition(BTreeSet<usize>),
    /// Nothing passes from the first to the second.
    OneWay(usize, usize),
    /// In reach for some moments, out of reach for some.
    Flap(usize),
    /// The machine sleeps; its clock goes on.
    Suspend(usize),
    /// It says that it is leaving, ends when it belongs no more, and comes back as a new member.
    Leave(usize),
    /// Removed for good.
    Evict(usize),
    /// So many of a thousand messages are lost.
    Loss(u64),
    /// Messages take up to so many microseconds.
    Slow(Micros),
    /// Crashes, and its disk has lost what it promised.
    LoseWord(usize),
    /// When this happens next, this is done to the node to which it happens.
    When(Moment, Then),
}

/// Moments at which a failure hurts most.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Moment {
    Elected,
    RosterProposed,
    RosterCommitted,
    VotersChanging,
    Pledged,
    Founded,
    Yielded,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Then {
    Crash,
    Suspend,
    Isolate,
    /// The others do not hear it, but it hears them.
    Mute,
}

impl What {
    /// For counting by kind.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Crash { nodes, .. } if nodes.len() > 1 => "power cut",
            Self::Crash { .. } => "crash",
            Self::Partition(_) => "partition",
            Self::OneWay(..) => "one-way cut",
            Self::Flap(_) => "flapping",
            Self::Suspend(_) => "suspend",
            Self::Leave(_) => "leave",
            Self::Evict(_) => "evict",
            Self::Loss(_) => "loss",
            Self::Slow(_) => "slow network",
            Self::LoseWord(_) => "damaged word",
            Self::When(..) => "at a bad moment",
        }
    }
}

/// Faults for a run of `nodes` machines, in order of time.
pub fn draw(random: &mut Random, nodes: usize, until: Micros) -> Vec<Fault> {
    let mut faults = Vec::new();
    // Some runs are rough, some have one or two faults with time between.
    let gap = *random.pick(&[SECOND / 2, SECOND, 2 * SECOND, 5 * SECOND]);
    // Each run prefers some kinds, so that rare ones also meet themselves.
    let favourite = random.below(16);
    let mut evictions = nodes.saturating_sub(3);
    let mut at = random.within(SECOND, 6 * SECOND);
    while at < until {
        let lasts = match random.below(4) {
            0 => random.within(50_000, SECOND),
            1 | 2 => random.within(SECOND, 6 * SECOND),
            _ => random.within(4 * SECOND, 15 * SECOND),
        };
        let kind = if random.permille(250) { favourite } else { random.below(16) };
        let mut what = draw_kind(random, nodes, kind);
        if matches!(what, What::Evict(_)) {
            match evictions.checked_sub(1) {
                Some(left) => evictions = left,
                None => what = What::Suspend(random.below(nodes)),
            }
        }
        faults.push(Fault { at, lasts, what });
        at += random.within(gap / 10, gap * 2);
    }
    faults
}

fn draw_kind(random: &mut Random, nodes: usize, kind: usize) -> What {
    let one = random.below(nodes);
    let other = (one + 1 + random.below(nodes - 1)) % nodes;
    let some =
        |random: &mut Random| -> BTreeSet<usize> { (0..nodes).filter(|_| random.permille(500)).collect() };
    match kind {
        0 | 1 => What::Crash { nodes: [one].into(), older_view: random.permille(500) },
        2 => What::Crash { nodes: some(random), older_view: random.permille(500) },
        3 | 4 => What::Partition(some(random)),
        5 => What::Partition([one].into()),
        6 => What::OneWay(one, other),
        7 => What::Flap(one),
        8 => What::Suspend(one),
        9 => What::Leave(one),
        10 if random.permille(200) => What::Evict(one),
        10 => What::LoseWord(one),
        11 => What::Loss(random.within(10, 400)),
        12 => What::Slow(random.within(20_000, 400_000)),
        _ => {
            let moments = [
                Moment::Elected,
                Moment::RosterProposed,
                Moment::RosterCommitted,
                Moment::VotersChanging,
                Moment::Pledged,
                Moment::Founded,
                Moment::Yielded,
            ];
            let then = [Then::Crash, Then::Suspend, Then::Isolate, Then::Mute];
            What::When(*random.pick(&moments), *random.pick(&then))
        }
    }
}
