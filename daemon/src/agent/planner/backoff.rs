//! How long to wait before trying again. (Kubernetes, "Container restart policy": 10 s, doubling up to 5 min,
//! forgotten after 10 min of running well.)

use k8s_openapi::jiff::Timestamp;
use std::time::Duration;

pub const FIRST_DELAY: Duration = Duration::from_secs(10);
pub const LONGEST_DELAY: Duration = Duration::from_secs(300);
pub const CRASH_RESET: Duration = Duration::from_secs(600);

/// The wait after the `failures`-th failure in a row, from 1.
pub fn delay(failures: u32) -> Duration {
    let doublings = failures.saturating_sub(1).min(16);
    FIRST_DELAY.saturating_mul(1 << doublings).min(LONGEST_DELAY)
}

pub fn after(time: Timestamp, delay: Duration) -> Timestamp {
    time.checked_add(delay).unwrap_or(Timestamp::MAX)
}
