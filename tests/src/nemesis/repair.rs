//! Undoing faults: every desktop on, awake and fed, with a good cable, disk, engine and clock, and its daemon running.

use crate::bench::Bench;
use anyhow::Result;
use nix::sys::signal::Signal;
use std::collections::BTreeSet;

/// What has to be undone beyond what shows by looking: the desktops that it was done to.
#[derive(Debug, Default)]
pub struct Repairs {
    pub wake: BTreeSet<usize>,
    pub hungry: BTreeSet<usize>,
    pub engines: BTreeSet<usize>,
    pub fillers: BTreeSet<usize>,
    pub disks: BTreeSet<usize>,
    pub clocks: BTreeSet<usize>,
    pub addresses: BTreeSet<usize>,
    /// Packets are lost, everywhere.
    pub cables: bool,
}

impl Repairs {
    /// Undoes it all, on all desktops at the same time.
    ///
    /// # Errors
    /// When the bench cannot do it.
    pub fn carry_out(self, bench: &Bench) -> Result<()> {
        bench.heal()?;
        if self.cables {
            bench.heal_cables()?;
        }
        bench.each(|desktop| {
            let index = desktop.index();
            // What has no processor or is asleep can be asked for nothing.
            if self.hungry.contains(&index) {
                desktop.feed()?;
            }
            if self.wake.contains(&index) {
                desktop.resume()?;
            }
            if self.engines.contains(&index) && desktop.engine().pid().is_some() {
                desktop.engine().signal(Signal::SIGCONT)?;
            }
            if self.clocks.contains(&index) {
                desktop.set_clock(0)?;
            }
            if self.addresses.contains(&index) {
                desktop.readdress(u8::try_from(index)?)?;
            }
            if self.fillers.contains(&index) {
                desktop.empty_disk()?;
            }
            // Its owner switches it off and on, and the disk is checked at the start.
            if self.disks.contains(&index) {
                desktop.crash()?;
            }
            if !desktop.is_on() {
                desktop.on()?;
            }
            if desktop.daemon().pid().is_none() {
                desktop.restart_daemon()?;
            }
            Ok(())
        })
    }
}
