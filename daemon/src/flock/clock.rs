//! The clock of promises.

use nix::time::{ClockId, clock_gettime};

/// Milliseconds since this machine was started, the time in which it slept included. Nobody sets this clock, and it
/// does not stand still while a lid is closed: a lease that is old is old.
pub(super) fn boottime_ms() -> u64 {
    let now = clock_gettime(ClockId::CLOCK_BOOTTIME).expect("every Linux since 2.6.39 has this clock");
    let (seconds, nanos) = (now.tv_sec(), now.tv_nsec());
    u64::try_from(seconds).unwrap_or_default() * 1_000 + u64::try_from(nanos).unwrap_or_default() / 1_000_000
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_goes_forward_with_the_machine() {
        let uptime = std::fs::read_to_string("/proc/uptime").unwrap();
        let seconds: f64 = uptime.split_whitespace().next().unwrap().parse().unwrap();
        let now = boottime_ms();
        assert!(
            now as f64 / 1_000.0 - seconds < 5.0 && now as f64 / 1_000.0 + 0.1 >= seconds,
            "{now}, {seconds}"
        );
        assert!(boottime_ms() >= now);
    }
}
