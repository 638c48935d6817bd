//! The clock that goes on while the machine sleeps: what promises between desktops are measured on.

use nix::time::{ClockId, clock_gettime};

/// Milliseconds since the machine was switched on, sleep included. Never set by anybody, the same for every process.
pub fn boottime_ms() -> u64 {
    // It fails only for a clock that the kernel does not have, and every kernel that runs Docker has this one.
    let now = clock_gettime(ClockId::CLOCK_BOOTTIME).map(std::time::Duration::from).unwrap_or_default();
    u64::try_from(now.as_millis()).unwrap_or(u64::MAX)
}
