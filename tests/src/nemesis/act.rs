//! Carrying a plan out. Whatever happens, all is made whole again at the end.

use super::plan::{Fault, Step, Who};
use crate::bench::{Bench, poll};
use crate::history::clients::Stop;
use crate::kube::SOON;
use anyhow::{Context, Result};
use std::time::Duration;

/// How long a flapping cable is out, and in.
const FLAP: Duration = Duration::from_millis(700);

/// Does to the bench what the plan says and tells each thing as it is done. Ends early when `stop` rings.
///
/// # Errors
/// When the bench cannot do it, or the flock is not whole again afterwards.
pub fn carry_out(bench: &Bench, plan: &[Step], stop: &Stop, tell: &dyn Fn(&str)) -> Result<()> {
    let nemesis = Nemesis { bench, stop, tell };
    let done = plan.iter().try_for_each(|step| nemesis.step(step));
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
}

impl Nemesis<'_> {
    fn all(&self) -> Vec<usize> {
        (1..=self.bench.desktops().len()).collect()
    }

    fn step(&self, step: &Step) -> Result<()> {
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

    fn inflict(&self, fault: &Fault, order: &[usize]) -> Result<()> {
        let one = |who: &Who| match who {
            Who::Leader => order[0],
            Who::Other(number) => order[number + 1],
        };
        let some = |who: &[Who]| who.iter().map(one).collect::<Vec<_>>();
        let leader = format!("(d{} leads)", order[0]);
        let bench = self.bench;
        match fault {
            Fault::Kill(who) => {
                (self.tell)(&format!("kill the daemons of {:?} {leader}", some(who)));
                bench.each_of(&some(who), |desktop| end(desktop.kill_daemon(), desktop))
            }
            Fault::KillAll => {
                (self.tell)("kill all daemons");
                bench.each(|desktop| end(desktop.kill_daemon(), desktop))
            }
            Fault::Crash(who) => {
                (self.tell)(&format!("crash {:?} {leader}", some(who)));
                bench.each_of(&some(who), crate::bench::Desktop::crash)
            }
            Fault::PowerCut(who) => {
                (self.tell)(&format!("cut the power of {:?} {leader}", some(who)));
                bench.each_of(&some(who), crate::bench::Desktop::power_cut)
            }
            Fault::Leave(who) => {
                (self.tell)(&format!("d{} leaves {leader}", one(who)));
                end(bench.desktop(one(who)).stop_daemon(), bench.desktop(one(who)))
            }
            Fault::Cut(groups) => {
                let groups: Vec<Vec<usize>> = groups.iter().map(|group| some(group)).collect();
                (self.tell)(&format!("cut into {groups:?} {leader}"));
                bench.cut(&groups.iter().map(Vec::as_slice).collect::<Vec<_>>())
            }
            Fault::OneWay(from, to) => {
                (self.tell)(&format!("nothing from {:?} reaches {:?} {leader}", some(from), some(to)));
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
                (self.tell)(&format!("the cable of d{flapping} goes out and in {times} times {leader}"));
                for _ in 0..*times {
                    bench.cut(&[&rest, &[flapping]])?;
                    self.stop.wait(FLAP);
                    bench.heal()?;
                    self.stop.wait(FLAP);
                }
                Ok(())
            }
        }
    }

    /// Every cable in, every desktop on, every daemon running.
    fn repair(&self) -> Result<()> {
        self.bench.heal()?;
        (self.tell)("repair all");
        self.bench.each(|desktop| {
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

/// A daemon that is gone already (its part changed between asking and acting) is as it should be.
fn end(ended: Result<()>, desktop: &crate::bench::Desktop) -> Result<()> {
    match ended {
        Err(_) if desktop.daemon().pid().is_none() => Ok(()),
        other => other.with_context(|| format!("ending the daemon of {}", desktop.name())),
    }
}
