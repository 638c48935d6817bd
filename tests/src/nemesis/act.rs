//! Carrying a plan out. Whatever happens, all is made whole again at the end.

use super::fault::{Fault, Who};
use super::plan::{Fitting, Plan, Step};
use super::repair::Repairs;
use crate::bench::{Bench, Desktop, Flock, Up, poll};
use crate::history::clients::Stop;
use crate::kube::SOON;
use anyhow::{Context, Result};
use nix::sys::signal::Signal;
use std::time::Duration;

/// How long a flapping cable is out, and in.
const FLAP: Duration = Duration::from_millis(700);
/// Added to a desktop's number, it is the end of the address that a desktop has after a change.
const OTHER_ADDRESSES: usize = 100;

/// Starts all daemons, on desktops that have what the plan needs.
///
/// # Errors
/// When the bench cannot give it to them, or they do not become one flock.
pub fn fit(bench: &Bench, fitting: Fitting) -> Result<Flock> {
    bench.each(|desktop| {
        if fitting.own_disk {
            desktop.failing_disk()?;
        }
        let up = Up::default();
        desktop.start_daemon(&if fitting.own_clock { desktop.with_own_clock(up)? } else { up })
    })?;
    bench.assembled(&(1..=bench.desktops().len()).collect::<Vec<_>>())
}

/// Does to the bench what the plan says and tells each thing as it is done. Ends early when `stop` rings.
///
/// # Errors
/// When the bench cannot do it, or the flock is not whole again afterwards.
pub fn carry_out(bench: &Bench, plan: &Plan, stop: &Stop, tell: &dyn Fn(&str)) -> Result<()> {
    let mut nemesis = Nemesis { bench, stop, tell, repairs: Repairs::default() };
    let done = plan.steps.iter().try_for_each(|step| nemesis.step(step));
    nemesis.repair()?;
    done?;
    bench.assembled(&nemesis.all())?;
    tell("whole again");
    Ok(())
}

struct Nemesis<'a> {
    bench: &'a Bench,
    stop: &'a Stop,
    tell: &'a dyn Fn(&str),
    /// What has to be undone.
    repairs: Repairs,
}

impl Nemesis<'_> {
    fn all(&self) -> Vec<usize> {
        (1..=self.bench.desktops().len()).collect()
    }

    fn step(&mut self, step: &Step) -> Result<()> {
        if self.stop.wait(Duration::ZERO) {
            return Ok(());
        }
        let order = self.order()?;
        for fault in &step.faults {
            self.inflict(fault, &order)?;
        }
        self.stop.wait(step.holds);
        self.repair()?;
        if step.whole {
            self.bench.assembled(&self.all())?;
            (self.tell)("the flock is whole");
        }
        self.stop.wait(step.calm);
        Ok(())
    }

    /// The desktops by their part: the leader first.
    fn order(&self) -> Result<Vec<usize>> {
        let leader = poll(SOON, "somebody to say who leads", || {
            for desktop in self.bench.desktops() {
                if let Ok(flock) = desktop.status()
                    && flock.quorum
                    && let Some(leader) = flock.leader
                {
                    return Ok(self.bench.desktops().iter().find(|desktop| desktop.name() == leader));
                }
            }
            Ok(None)
        })?;
        let mut order = self.all();
        order.retain(|index| *index != leader.index());
        order.insert(0, leader.index());
        Ok(order)
    }

    fn inflict(&mut self, fault: &Fault, order: &[usize]) -> Result<()> {
        let one = |who: &Who| match who {
            Who::Leader => order[0],
            Who::Other(number) => order[number + 1],
        };
        let some = |who: &[Who]| who.iter().map(one).collect::<Vec<_>>();
        let bench = self.bench;
        let tell = |what: String| (self.tell)(&format!("{what} (d{} leads)", order[0]));
        match fault {
            Fault::Kill(who) => {
                tell(format!("kill the daemons of {:?}", some(who)));
                bench.each_of(&some(who), |desktop| end(desktop.kill_daemon(), desktop))
            }
            Fault::KillAll => {
                tell("kill all daemons".into());
                bench.each(|desktop| end(desktop.kill_daemon(), desktop))
            }
            Fault::Crash(who) => {
                tell(format!("crash {:?}", some(who)));
                bench.each_of(&some(who), Desktop::crash)
            }
            Fault::PowerCut(who) => {
                tell(format!("cut the power of {:?}", some(who)));
                bench.each_of(&some(who), Desktop::power_cut)
            }
            Fault::Leave(who) => {
                tell(format!("d{} leaves", one(who)));
                end(bench.desktop(one(who)).stop_daemon(), bench.desktop(one(who)))
            }
            Fault::Sleep(who) => {
                tell(format!("close the lids of {:?}", some(who)));
                self.repairs.wake.extend(some(who));
                bench.each_of(&some(who), Desktop::suspend)
            }
            Fault::Cut(groups) => {
                let groups: Vec<Vec<usize>> = groups.iter().map(|group| some(group)).collect();
                tell(format!("cut into {groups:?}"));
                bench.cut(&groups.iter().map(Vec::as_slice).collect::<Vec<_>>())
            }
            Fault::OneWay(from, to) => {
                tell(format!("nothing from {:?} reaches {:?}", some(from), some(to)));
                for &from in &some(from) {
                    for &to in &some(to) {
                        bench.cut_one_way(from, to)?;
                    }
                }
                Ok(())
            }
            Fault::Flap(who, times) => {
                let flapping = one(who);
                let rest: Vec<usize> = order.iter().copied().filter(|index| *index != flapping).collect();
                tell(format!("the cable of d{flapping} goes out and in {times} times"));
                for _ in 0..*times {
                    bench.cut(&[&rest, &[flapping]])?;
                    self.stop.wait(FLAP);
                    bench.heal()?;
                    self.stop.wait(FLAP);
                }
                Ok(())
            }
            Fault::Lossy(percent) => {
                tell(format!("{percent} of a hundred packets are lost"));
                self.repairs.cables = true;
                bench.lose_packets(*percent as f64 / 100.0)
            }
            Fault::Readdress(who) => {
                tell(format!("{:?} get other addresses", some(who)));
                self.repairs.addresses.extend(some(who));
                bench.each_of(&some(who), |desktop| {
                    desktop.readdress(u8::try_from(OTHER_ADDRESSES + desktop.index())?)
                })
            }
            Fault::Clock(who, minutes) => {
                tell(format!("the clock of d{} jumps by {minutes} minutes", one(who)));
                self.repairs.clocks.insert(one(who));
                bench.desktop(one(who)).set_clock(minutes * 60)
            }
            Fault::FullDisk(who) => {
                tell(format!("the disks of {:?} are full", some(who)));
                self.repairs.fillers.extend(some(who));
                bench.each_of(&some(who), Desktop::fill_disk)
            }
            Fault::ReadOnlyDisk(who) => {
                tell(format!("the disk of d{} can only be read", one(who)));
                self.repairs.disks.insert(one(who));
                bench.desktop(one(who)).fail_disk()
            }
            Fault::StuckEngine(who) => {
                tell(format!("the engine of d{} is stuck", one(who)));
                self.repairs.engines.insert(one(who));
                bench.desktop(one(who)).engine().signal(Signal::SIGSTOP)
            }
            Fault::Starve(who, percent) => {
                tell(format!("d{} has {percent} hundredths of a processor", one(who)));
                self.repairs.hungry.insert(one(who));
                bench.desktop(one(who)).starve(*percent)
            }
        }
    }

    fn repair(&mut self) -> Result<()> {
        (self.tell)("repair all");
        std::mem::take(&mut self.repairs).carry_out(self.bench)
    }
}

/// A daemon that is gone already (its part changed between asking and acting) is as it should be.
fn end(ended: Result<()>, desktop: &Desktop) -> Result<()> {
    match ended {
        Err(_) if desktop.daemon().pid().is_none() => Ok(()),
        other => other.with_context(|| format!("ending the daemon of {}", desktop.name())),
    }
}
