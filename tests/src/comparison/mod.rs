//! Faults timed alike on gaggle and on its peers: what a person would wait for, seen from outside.
//!
//! "Running" is asked of the engines, not of whoever drives them, so that nobody's own bookkeeping is believed.

mod gaggle;
mod swarm;

pub use gaggle::Gaggle;
pub use swarm::Swarm;

use crate::bench::{Bench, BenchConfig, Desktop, Engines, Image, poll};
use crate::engine::Engine;
use anyhow::{Context, Result, ensure};
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::{Duration, Instant};

const DESKTOPS: usize = 3;
const REPLICAS: usize = 6;
/// The slowest recovery of any contender takes about a minute.
const PATIENCE: Duration = Duration::from_secs(240);
const IMAGE: &str = "busybox";

/// Something that keeps containers running on several desktops.
pub trait Contender: Sync {
    fn name(&self) -> &'static str;
    fn engines(&self) -> Engines;
    /// Makes one cluster of desktops that are on, with all the managers they can have.
    fn assemble(&self, bench: &Bench) -> Result<()>;
    /// What a desktop starts when it is switched on, beside its engine.
    fn boot(&self, desktop: &Desktop) -> Result<()>;
    /// Who leads, by its name.
    fn leader(&self, ask: &Desktop) -> Result<String>;
    /// Whether `desktop` is taken for alive and able to run something.
    fn is_ready(&self, ask: &Desktop, desktop: &Desktop) -> Result<bool>;
    /// Wants so many replicas of a container that sleeps.
    fn deploy(&self, ask: &Desktop, replicas: usize) -> Result<()>;
    fn remove(&self, ask: &Desktop) -> Result<()>;
    /// One attempt to store a small thing; an error unless it is stored where it outlives this desktop.
    fn write(&self, ask: &Desktop, name: &str) -> Result<()>;
    /// Stores a small thing on a desktop that is cut off, if that can be done at all; whether it could.
    fn write_alone(&self, ask: &Desktop, name: &str) -> Result<bool>;
    /// The small things that a desktop knows of.
    fn written(&self, ask: &Desktop) -> Result<Vec<String>>;
    /// Whether a desktop knows that it is without the others.
    fn knows_it_is_alone(&self, ask: &Desktop) -> Result<bool>;
}

/// What is timed, in the order in which it is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Quantity {
    WorkerCrash,
    WorkerPowerCut,
    LeaderCrashWrite,
    LeaderPowerCutWrite,
    LeaderCrash,
    LeaderPowerCut,
    Return,
    Heal,
}

impl Quantity {
    #[must_use]
    pub fn what(self) -> &'static str {
        match self {
            Self::WorkerCrash => "worker crashes: all replicas run again",
            Self::WorkerPowerCut => "worker loses power: all replicas run again",
            Self::LeaderCrashWrite => "leader crashes: a write is accepted",
            Self::LeaderPowerCutWrite => "leader loses power: a write is accepted",
            Self::LeaderCrash => "leader crashes: all replicas run again",
            Self::LeaderPowerCut => "leader loses power: all replicas run again",
            Self::Return => "a desktop is switched on again: Ready",
            Self::Heal => "a partition heals: one state everywhere",
        }
    }

    /// What gaggle promises, in seconds.
    #[must_use]
    pub fn limit(self) -> f64 {
        match self {
            Self::WorkerCrash | Self::WorkerPowerCut => 6.0,
            Self::LeaderCrashWrite | Self::LeaderPowerCutWrite => 2.0,
            Self::LeaderCrash | Self::LeaderPowerCut => 8.0,
            Self::Return | Self::Heal => 3.0,
        }
    }
}

/// Seconds, for each quantity one a round.
pub type Times = BTreeMap<Quantity, Vec<f64>>;

/// Times a contender through so many rounds of all faults. `tell` hears of each figure as it is taken.
pub fn time(
    contender: &dyn Contender,
    binary: Option<PathBuf>,
    rounds: usize,
    tell: &dyn Fn(Quantity, f64),
) -> Result<Times> {
    let config = BenchConfig { binary, engines: contender.engines(), ..BenchConfig::desktops(DESKTOPS) };
    let bench = Bench::new(config)?;
    let image = bench.image(&Image::busybox())?;
    bench.each(|desktop| desktop.load(&image))?;
    contender.assemble(&bench)?;
    let race = Race { bench: &bench, contender };
    let mut times = Times::new();
    let mut note = |quantity: Quantity, seconds: f64| {
        tell(quantity, seconds);
        times.entry(quantity).or_default().push(seconds);
    };
    for round in 0..rounds {
        for fault in [Fault::Crash, Fault::PowerCut] {
            for victim in [Victim::Worker, Victim::Leader] {
                let lost =
                    race.lose(victim, fault, round).with_context(|| format!("{victim:?}, {fault:?}"))?;
                lost.into_iter().for_each(|(quantity, seconds)| note(quantity, seconds));
            }
        }
        note(Quantity::Heal, race.cut_and_heal(round).context("a partition")?);
    }
    Ok(times)
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fault {
    Crash,
    PowerCut,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Victim {
    Worker,
    Leader,
}

struct Race<'a> {
    bench: &'a Bench,
    contender: &'a dyn Contender,
}

impl Race<'_> {
    /// Kills one desktop under the replicas, waits until all run elsewhere, and switches it on again.
    fn lose(&self, victim: Victim, fault: Fault, round: usize) -> Result<Vec<(Quantity, f64)>> {
        let Self { bench, contender } = *self;
        self.all_ready()?;
        let leader = contender.leader(bench.desktop(1))?;
        let of = |wanted: Victim| {
            let mut desktops = bench.desktops().iter();
            desktops.find(|desktop| (desktop.name() == leader) == (wanted == Victim::Leader))
        };
        let dead = of(victim).context("nobody to kill")?;
        let survivors: Vec<&Desktop> =
            bench.desktops().iter().filter(|desktop| desktop.name() != dead.name()).collect();
        let ask = survivors[0];
        contender.deploy(ask, REPLICAS)?;
        let all: Vec<&Desktop> = bench.desktops().iter().collect();
        running(&all, |count| count == REPLICAS)?;
        ensure!(Engine::at(dead.engine_socket()).running(IMAGE)? > 0, "{} has nothing to lose", dead.name());

        let began = Instant::now();
        match fault {
            Fault::Crash => dead.crash()?,
            Fault::PowerCut => dead.power_cut()?,
        }
        let (write, run) = std::thread::scope(|scope| {
            let writing = scope.spawn(|| -> Result<f64> {
                if victim == Victim::Worker {
                    return Ok(0.0);
                }
                let name = format!("{victim:?}-{fault:?}-{round}").to_lowercase();
                poll(PATIENCE, "a write", || contender.write(ask, &name).map(Some))?;
                Ok(began.elapsed().as_secs_f64())
            });
            let run = running(&survivors, |count| count >= REPLICAS).map(|()| began.elapsed().as_secs_f64());
            (writing.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)), run)
        });
        let (write, run) = (write?, run?);
        let mut figures = match (victim, fault) {
            (Victim::Worker, Fault::Crash) => vec![(Quantity::WorkerCrash, run)],
            (Victim::Worker, Fault::PowerCut) => vec![(Quantity::WorkerPowerCut, run)],
            (Victim::Leader, Fault::Crash) => {
                vec![(Quantity::LeaderCrashWrite, write), (Quantity::LeaderCrash, run)]
            }
            (Victim::Leader, Fault::PowerCut) => {
                vec![(Quantity::LeaderPowerCutWrite, write), (Quantity::LeaderPowerCut, run)]
            }
        };
        poll(PATIENCE, "the dead desktop to be known as dead", || {
            Ok((!contender.is_ready(ask, dead)?).then_some(()))
        })?;
        let began = Instant::now();
        // Engine and daemon start side by side, as at a desktop's boot.
        dead.on_without_engine()?;
        std::thread::scope(|scope| {
            let engine = scope.spawn(|| dead.start_engine());
            let boot = contender.boot(dead);
            engine.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)).and(boot)
        })?;
        poll(PATIENCE, "the returned desktop to be ready", || {
            Ok(contender.is_ready(ask, dead)?.then_some(()))
        })?;
        figures.push((Quantity::Return, began.elapsed().as_secs_f64()));
        self.clear()?;
        Ok(figures)
    }

    /// Cuts one desktop off, lets both sides write where they can, and heals.
    fn cut_and_heal(&self, round: usize) -> Result<f64> {
        let Self { bench, contender } = *self;
        self.all_ready()?;
        let leader = contender.leader(bench.desktop(1))?;
        let indexes: Vec<usize> = bench.desktops().iter().map(Desktop::index).collect();
        let (with, without): (Vec<usize>, Vec<usize>) =
            indexes.into_iter().partition(|index| bench.desktop(*index).name() == leader);
        let (alone, other) = (bench.desktop(without[0]), bench.desktop(without[1]));
        bench.cut(&[&[with[0], other.index()], &[alone.index()]])?;
        poll(PATIENCE, "the one to know that it is alone", || {
            Ok(contender.knows_it_is_alone(alone)?.then_some(()))
        })?;
        let mut names = vec![format!("many-{round}")];
        poll(PATIENCE, "a write", || contender.write(other, &names[0]).map(Some))?;
        if contender.write_alone(alone, &format!("alone-{round}"))? {
            names.push(format!("alone-{round}"));
        }
        let began = Instant::now();
        bench.heal()?;
        poll(PATIENCE, "all desktops to know all", || {
            for desktop in bench.desktops() {
                let written = contender.written(desktop)?;
                let missing = names.iter().find(|name| !written.contains(name));
                ensure!(missing.is_none(), "{} does not know {missing:?}", desktop.name());
            }
            Ok(Some(()))
        })?;
        Ok(began.elapsed().as_secs_f64())
    }

    fn all_ready(&self) -> Result<()> {
        poll(PATIENCE, "all desktops to be ready", || {
            for desktop in self.bench.desktops() {
                for ask in self.bench.desktops() {
                    let ready = self.contender.is_ready(ask, desktop)?;
                    ensure!(ready, "{} is not ready for {}", desktop.name(), ask.name());
                }
            }
            Ok(Some(()))
        })
    }

    fn clear(&self) -> Result<()> {
        self.all_ready()?;
        self.contender.remove(self.bench.desktop(1))?;
        let all: Vec<&Desktop> = self.bench.desktops().iter().collect();
        running(&all, |count| count == 0)
    }
}

/// Waits until the engines together run as many containers as wanted.
fn running(desktops: &[&Desktop], wanted: impl Fn(usize) -> bool) -> Result<()> {
    poll(PATIENCE, "the containers", || {
        let mut counts = Vec::new();
        for desktop in desktops {
            counts.push(Engine::at(desktop.engine_socket()).running(IMAGE)?);
        }
        ensure!(wanted(counts.iter().sum()), "running are {counts:?}");
        Ok(Some(()))
    })
}
