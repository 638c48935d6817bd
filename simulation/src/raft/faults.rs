//! What goes wrong, when: drawn from the seed before anything runs.

use super::super::random::Random;
use super::disk::{End, NORMAL};
use super::machine::{end_for, set_voters, start_all};
use super::{NODES, World};
use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    pub at: Duration,
    pub lasts: Duration,
    pub what: What,
}

/// Who it happens to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Who {
    Node(usize),
    /// Whoever leads then.
    Leader,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum What {
    /// The process ends.
    Crash(Who),
    /// The power goes: what was not flushed is lost.
    PowerCut(BTreeSet<usize>),
    /// The power goes in the middle of a write, so many flushes from now.
    CutInAWrite(Who, u32),
    Partition(BTreeSet<usize>),
    Isolate(Who),
    /// The others do not hear it, but it hears them; or the other way round.
    OneWay(Who, bool),
    Loss(u64),
    /// Frames take up to so many milliseconds.
    SlowNetwork(u64),
    /// Work on these disks takes up to so many milliseconds.
    SlowDisks(BTreeSet<usize>, u64),
    /// A leader is to make these the voters.
    Voters(BTreeSet<usize>),
    /// Leaders may not order.
    GateClosed(Who),
    Resign(Who),
}

impl What {
    fn kind(&self) -> &'static str {
        match self {
            Self::Crash(_) => "crash",
            Self::PowerCut(_) => "power cut",
            Self::CutInAWrite(..) => "power cut in a write",
            Self::Partition(_) => "partition",
            Self::Isolate(_) => "isolation",
            Self::OneWay(..) => "one-way cut",
            Self::Loss(_) => "loss",
            Self::SlowNetwork(_) => "slow network",
            Self::SlowDisks(..) => "slow disks",
            Self::Voters(_) => "change of voters",
            Self::GateClosed(_) => "closed gate",
            Self::Resign(_) => "resignation",
        }
    }
}

pub fn draw(random: &mut Random, nodes: usize, until: Duration) -> Vec<Fault> {
    let until = until.as_millis() as u64;
    let first = What::Voters((0..3).collect());
    let mut faults = vec![Fault { at: Duration::from_millis(1_500), lasts: Duration::ZERO, what: first }];
    let gap = *random.pick(&[500, 1_500, 4_000]);
    let mut at = 4_000;
    while at < until {
        let lasts = match random.below(3) {
            0 => random.within(50, 1_000),
            1 => random.within(1_000, 4_000),
            _ => random.within(3_000, 9_000),
        };
        let what = draw_one(random, nodes);
        faults.push(Fault { at: Duration::from_millis(at), lasts: Duration::from_millis(lasts), what });
        at += random.within(gap / 10, 2 * gap);
    }
    faults
}

fn draw_one(random: &mut Random, nodes: usize) -> What {
    let some = |random: &mut Random| (0..nodes).filter(|_| random.permille(400)).collect::<BTreeSet<_>>();
    let who = match random.permille(400) {
        true => Who::Leader,
        false => Who::Node(random.below(nodes)),
    };
    match random.below(16) {
        0 | 1 => What::Crash(who),
        2 => What::PowerCut(some(random)),
        3 | 4 => What::CutInAWrite(who, random.within(0, 8) as u32),
        5 => What::Partition(some(random)),
        6 => What::Isolate(who),
        7 => What::OneWay(who, random.permille(500)),
        8 => What::Loss(random.within(20, 400)),
        9 => What::SlowNetwork(random.within(20, 600)),
        10 => What::SlowDisks(some(random), random.within(50, 2_500)),
        11 => What::GateClosed(who),
        12 => What::Resign(who),
        _ => {
            let size = *random.pick(&[1, 2, 3, 3, 3, 5]);
            let mut voters = BTreeSet::new();
            while voters.len() < size {
                voters.insert(random.below(nodes));
            }
            What::Voters(voters)
        }
    }
}

pub async fn begin(world: &Arc<World>, fault: &Fault) {
    let who = |who: Who| match who {
        Who::Node(node) => Some(node),
        Who::Leader => world.leaders().first().copied(),
    };
    world.judge.note("*", || format!("{:?} for {} ms", fault.what, fault.lasts.as_millis()));
    world.judge.count(|stats| *stats.faults.entry(fault.what.kind()).or_default() += 1);
    let lasts_ms = fault.lasts.as_millis() as u64;
    match &fault.what {
        What::Crash(node) => {
            if let Some(node) = who(*node) {
                end_for(world, node, End::Process, lasts_ms).await;
            }
        }
        What::PowerCut(nodes) => {
            for node in nodes {
                end_for(world, *node, End::Power, lasts_ms).await;
            }
        }
        What::CutInAWrite(node, flushes) => {
            if let Some(node) = who(*node) {
                world.machines[node].lock().await.disk.dark_after(*flushes);
            }
        }
        What::Partition(side) => {
            cut_for(world, world.wires.bend(|network| network.between(side)), fault.lasts)
        }
        What::Isolate(node) => {
            if let Some(node) = who(*node) {
                cut_for(world, world.wires.bend(|network| network.between(&[node].into())), fault.lasts);
            }
        }
        What::OneWay(node, out) => {
            if let Some(node) = who(*node) {
                let mut links = world.wires.bend(|network| network.between(&[node].into()));
                links.retain(|(from, _)| (*from == node) == *out);
                cut_for(world, links, fault.lasts);
            }
        }
        What::Loss(permille) => {
            world.wires.bend(|network| network.lost_permille = *permille);
            later(world, fault.lasts, |world| world.wires.bend(|network| network.lost_permille = 0));
        }
        What::SlowNetwork(ms) => {
            world.wires.bend(|network| network.delay = (1_000, ms * 1_000));
            later(world, fault.lasts, |world| world.wires.bend(|network| network.delay = (100, 4_000)));
        }
        What::SlowDisks(nodes, ms) => {
            for node in nodes {
                let disk = world.machines[*node].lock().await.disk.clone();
                disk.set_latency((Duration::ZERO, Duration::from_millis(*ms)));
                later(world, fault.lasts, move |_| disk.set_latency(NORMAL));
            }
        }
        What::Voters(voters) => set_voters(world, voters.clone()),
        What::GateClosed(node) => {
            if let Some(node) = who(*node) {
                let gate = world.machines[node].lock().await.gate.clone();
                gate.close();
                later(world, fault.lasts, move |_| gate.open());
            }
        }
        What::Resign(node) => {
            if let Some(group) = who(*node).and_then(|node| world.wires.group(node)) {
                group.resign(fault.lasts);
            }
        }
    }
}

fn later(world: &Arc<World>, after: Duration, then: impl FnOnce(&World) + Send + 'static) {
    let world = world.clone();
    tokio::spawn(async move {
        tokio::time::sleep(after).await;
        then(&world);
    });
}

fn cut_for(world: &Arc<World>, links: Vec<(usize, usize)>, lasts: Duration) {
    world.wires.bend(|network| links.iter().for_each(|(from, to)| network.cut(*from, *to)));
    later(world, lasts, move |world| {
        world.wires.bend(|network| links.iter().for_each(|(from, to)| network.mend(*from, *to)));
    });
}

/// Whatever was wrong is over.
pub async fn heal(world: &Arc<World>) {
    world.judge.note("-", || "the network is whole, and everybody is on".into());
    world.wires.bend(super::super::network::Network::heal);
    for node in 0..NODES {
        let machine = world.machines[node].lock().await;
        machine.disk.set_latency(NORMAL);
        machine.disk.dark_after(u32::MAX);
        machine.gate.open();
    }
    start_all(world).await;
}
