//! The bench: desktops on a switch that can be switched on, killed, cut apart and joined again.
//!
//! It owns everything that it makes on this machine (network namespaces, control groups, processes, a directory)
//! and takes it all away when it is dropped; [`reaper`] does so when the owner is killed.

mod address;
mod cgroup;
mod daemon;
mod desktop;
mod faults;
mod flock;
mod harness;
mod image;
mod layout;
mod outcome;
mod process;
mod reaper;
mod registry;
mod service;
mod switch;
mod wait;

pub use daemon::Up;
pub use desktop::Desktop;
pub use faults::{Damage, LongWires};
pub use flock::{Flock, NodeStatus};
pub use harness::{on_bench, with_bench};
pub use image::Image;
pub use layout::Layout;
pub use outcome::{Outcome, Running};
pub use reaper::{live, sweep};
pub use registry::Registry;
pub use wait::poll;

use anyhow::{Context, Result};
use std::path::PathBuf;
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

/// What a bench is made of.
#[derive(Debug, Clone)]
pub struct BenchConfig {
    /// How many desktops, numbered from 1.
    pub desktops: usize,
    /// The binary under test; by default the one that was built beside the running test, or `GAGGLE_BINARY`.
    pub binary: Option<PathBuf>,
    /// Whether the desktops are switched on, with their engines, before `Bench::new` returns.
    pub switched_on: bool,
    pub engines: Engines,
}

/// How the desktops' engines are run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub enum Engines {
    /// Containers outlive their engine, as gaggle asks of every desktop.
    LiveRestore,
    /// As Docker Swarm needs them: it does not go with live restore.
    Swarm,
}

impl BenchConfig {
    /// This many desktops, on, with running engines and no daemons yet.
    #[must_use]
    pub fn desktops(desktops: usize) -> Self {
        Self { desktops, binary: None, switched_on: true, engines: Engines::LiveRestore }
    }
}

/// Several desktops on one switch.
///
/// Dropping it ends every process on them and removes every trace.
#[derive(Debug)]
pub struct Bench {
    layout: Arc<Layout>,
    desktops: Vec<Desktop>,
    // Dropped last: closing its pipe is what starts the teardown.
    reaper: Option<reaper::Reaper>,
}

impl Bench {
    /// Makes the switch and the desktops, and starts the engines side by side.
    pub fn new(config: BenchConfig) -> Result<Self> {
        reaper::sweep().context("clearing what killed benches left behind")?;
        let layout = Arc::new(Layout::create(&config)?);
        let reaper = reaper::Reaper::start(&layout)?;
        let desktops = (1..=config.desktops).map(|index| Desktop::new(Arc::clone(&layout), index)).collect();
        let bench = Self { layout, desktops, reaper: Some(reaper) };
        switch::create(&bench.layout)?;
        if config.switched_on {
            bench.each(Desktop::on)?;
        }
        Ok(bench)
    }

    /// A second handle on a bench that another process owns; dropping it changes nothing.
    pub fn attach(dir: &std::path::Path) -> Result<Self> {
        let layout = Arc::new(Layout::read(dir)?);
        let desktops = (1..=layout.desktops).map(|index| Desktop::new(Arc::clone(&layout), index)).collect();
        Ok(Self { layout, desktops, reaper: None })
    }

    /// The names, addresses and paths in use.
    #[must_use]
    pub fn layout(&self) -> &Layout {
        &self.layout
    }

    /// The desktop with this number, counted from 1.
    ///
    /// # Panics
    /// When there is none.
    #[must_use]
    pub fn desktop(&self, index: usize) -> &Desktop {
        &self.desktops[index - 1]
    }

    /// All desktops in order.
    #[must_use]
    pub fn desktops(&self) -> &[Desktop] {
        &self.desktops
    }

    /// Does something to every desktop at the same time; the first failure is returned after all have ended.
    pub fn each(&self, action: impl Fn(&Desktop) -> Result<()> + Sync) -> Result<()> {
        self.each_of(&(1..=self.desktops.len()).collect::<Vec<_>>(), action)
    }

    /// Does something to these desktops at the same time.
    pub fn each_of(&self, indexes: &[usize], action: impl Fn(&Desktop) -> Result<()> + Sync) -> Result<()> {
        let action = &action;
        std::thread::scope(|scope| {
            let threads: Vec<_> = indexes
                .iter()
                .map(|&index| {
                    let desktop = self.desktop(index);
                    scope.spawn(move || action(desktop).with_context(|| desktop.name()))
                })
                .collect();
            threads
                .into_iter()
                .map(|thread| thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)))
                .fold(Ok(()), Result::and)
        })
    }

    /// A command with the machine's files and the bench's network, as one more computer on the same switch.
    /// It ends with the bench.
    pub fn visitor(&self, line: &str) -> Result<Command> {
        let mut command = Command::new("sh");
        command
            .args(["-c", desktop::JOIN, "join"])
            .arg(cgroup::visitors(&self.layout)?)
            .args(["--", "nsenter", &format!("--net=/run/netns/{}", self.layout.switch())])
            .args(["--", "bash", "-c", line]);
        Ok(command)
    }

    /// Cuts the network so that only desktops of the same group hear each other.
    /// Those in no group stay with the first one.
    pub fn cut(&self, groups: &[&[usize]]) -> Result<()> {
        switch::cut(&self.layout, groups)
    }

    /// Drops every frame from one desktop to another, but not those of the other way.
    pub fn cut_one_way(&self, from: usize, to: usize) -> Result<()> {
        switch::cut_one_way(&self.layout, from, to)
    }

    /// Joins all desktops on one network again.
    pub fn heal(&self) -> Result<()> {
        switch::heal(&self.layout)
    }

    /// Waits until `done` says `Ok(Some(_))`. Its last answer, and the end of every daemon's log, are in the error.
    pub fn wait_until<T>(
        &self,
        deadline: Duration,
        what: &str,
        done: impl FnMut() -> Result<Option<T>>,
    ) -> Result<T> {
        wait::poll(deadline, what, done).map_err(|error| error.context(self.report()))
    }

    /// The end of every daemon's log: what a failed test shows.
    #[must_use]
    pub fn report(&self) -> String {
        self.desktops.iter().map(Desktop::report).collect()
    }
}

impl Drop for Bench {
    fn drop(&mut self) {
        if let Some(reaper) = self.reaper.take() {
            reaper.finish();
        }
    }
}
