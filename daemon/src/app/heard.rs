//! When this desktop was last heard by a leader that acts, for the agent's identities.

use crate::boottime::boottime_ms;
use crate::flock::FlockStatus;
use std::time::Duration;
use tokio::sync::watch;
use tokio::time::MissedTickBehavior;

/// How often the moment is told while the flock is heard.
const TELL_EVERY: Duration = Duration::from_millis(250);

/// The moment ([`boottime_ms`]) at which the group last had a leader with a quorum, as far as this desktop knows.
pub fn heard(status: watch::Receiver<FlockStatus>) -> watch::Receiver<u64> {
    let (sender, receiver) = watch::channel(0);
    tokio::spawn(async move {
        let mut ticks = tokio::time::interval(TELL_EVERY);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        while status.has_changed().is_ok() && !sender.is_closed() {
            ticks.tick().await;
            if is_heard(&status.borrow()) {
                sender.send_replace(boottime_ms());
            }
        }
    });
    receiver
}

/// The one place that says what being heard means.
fn is_heard(status: &FlockStatus) -> bool {
    status.current && status.quorum
}
