//! Whether this desktop is likely to stay: whether it runs on its battery, and whether its owner is using it.
//!
//! Owns the reading of what the system tells of both; what follows from it is the electorate's concern. It asks a few
//! small files every ten seconds and nothing else: no input device is opened, and nobody's keys are seen.

mod activity;
mod battery;

use activity::Activity;
use std::path::PathBuf;
use std::time::{Duration, Instant, SystemTime};
use tokio::sync::watch;
use tokio::time::MissedTickBehavior;

/// How often it is looked.
const LOOK_EVERY: Duration = Duration::from_secs(10);

/// What is known. `None`: there is no such thing here, or the system does not tell.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct OwnerState {
    pub on_battery: Option<bool>,
    pub active: Option<bool>,
}

/// Where the system tells it.
#[derive(Clone, Debug)]
pub struct Sources {
    /// One directory a battery or power supply.
    pub power: PathBuf,
    /// Where terminals are.
    pub devices: PathBuf,
    /// The control groups.
    pub groups: PathBuf,
}

impl Default for Sources {
    fn default() -> Self {
        Self {
            power: "/sys/class/power_supply".into(),
            devices: "/dev".into(),
            groups: "/sys/fs/cgroup".into(),
        }
    }
}

/// Looks for ever, and tells what it sees; the first look is made before this returns.
pub fn watch(sources: Sources) -> watch::Receiver<OwnerState> {
    let mut activity = Activity::default();
    let mut look = move || OwnerState {
        on_battery: battery::on_battery(&sources.power),
        active: activity.look(&sources.devices, &sources.groups, Instant::now(), SystemTime::now()),
    };
    let (told, seen) = watch::channel(look());
    tokio::spawn(async move {
        let mut tick = tokio::time::interval(LOOK_EVERY);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                () = told.closed() => return,
                _ = tick.tick() => {}
            }
            let state = look();
            told.send_if_modified(|now| std::mem::replace(now, state) != state);
        }
    });
    seen
}
