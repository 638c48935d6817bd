//! How long the dead count as dead while others are coming back.
//!
//! Where several desktops vanish and one of them is there again, it was the switch, the DHCP server or the fuse: the
//! others are on their way, and to make their pods anew would only restart what runs there.

use std::time::Duration;

/// After each desktop that comes back, those that are still away get this much more time.
const RETURNING: Duration = Duration::from_secs(4);
/// And in all no more than this: one that comes and goes must not keep the dead alive.
const RETURNING_MOST: Duration = Duration::from_secs(20);

/// For how long a desktop counts as dead that died this long ago, with those that became alive so long ago.
pub fn dead_for(died_ago: Duration, arrivals_ago: impl IntoIterator<Item = Duration>) -> Duration {
    let since_death = arrivals_ago.into_iter().filter(|arrived_ago| *arrived_ago < died_ago);
    match since_death.min() {
        None => died_ago,
        Some(last) => last.saturating_sub(RETURNING).max(died_ago.saturating_sub(RETURNING_MOST)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn dead(died_ago_ms: u64, arrivals_ago_ms: &[u64]) -> u64 {
        let ago = arrivals_ago_ms.iter().map(|ms| Duration::from_millis(*ms));
        dead_for(Duration::from_millis(died_ago_ms), ago).as_millis() as u64
    }

    #[test]
    fn a_death_alone_counts_at_once() {
        assert_eq!(dead(1_500, &[]), 1_500);
        assert_eq!(dead(1_500, &[60_000, 90_000]), 1_500, "those were there before");
    }

    #[test]
    fn who_comes_back_gives_the_others_time_but_not_for_ever() {
        assert_eq!(dead(5_000, &[100, 90_000]), 0);
        assert_eq!(dead(10_000, &[5_100, 90_000]), 1_100, "nobody else came");
        assert_eq!(dead(10_000, &[5_100, 300]), 0, "another one did");
        assert_eq!(dead(60_000, &[50]), 40_000, "one that flaps");
    }
}
