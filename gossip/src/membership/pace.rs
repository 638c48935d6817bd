//! How much this node may say.
//!
//! chitchat speaks to three others at a fixed interval, and what it says grows with the cluster (about 105 bytes a
//! node), so traffic would grow with the square of it. A budget of bytes keeps it constant: up to about thirty
//! nodes it is never felt, beyond that greetings are left out, which makes the interval longer. Answers are not
//! counted: they follow others' greetings. Pure.

use std::time::Instant;

/// Bytes of greetings in a second. With the answers and what others begin, a node sends about twice that.
const BYTES_PER_SECOND: f64 = 64.0 * 1024.0;
/// What may be saved up: one second's worth, which is also the largest message.
const MOST_SAVED: f64 = BYTES_PER_SECOND;

/// A budget of bytes.
#[derive(Debug)]
pub(super) struct Pace {
    saved: f64,
    at: Instant,
}

impl Pace {
    pub(super) fn new(now: Instant) -> Self {
        Self { saved: MOST_SAVED, at: now }
    }

    /// Whether a greeting of this many bytes may be sent now; if so, it is paid for.
    pub(super) fn allows(&mut self, bytes: usize, now: Instant) -> bool {
        let earned = now.saturating_duration_since(self.at).as_secs_f64() * BYTES_PER_SECOND;
        self.saved = (self.saved + earned).min(MOST_SAVED);
        self.at = self.at.max(now);
        let cost = bytes as f64;
        let allowed = cost <= self.saved;
        if allowed {
            self.saved -= cost;
        }
        allowed
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    /// Greetings that pass in ten seconds of chitchat's habit: three every 200 ms.
    fn passed(nodes: usize) -> usize {
        let start = Instant::now();
        let mut pace = Pace::new(start);
        let at = |tick: u32| start + Duration::from_millis(200) * tick;
        (0..50).map(|tick| (0..3).filter(|_| pace.allows(nodes * 105, at(tick))).count()).sum()
    }

    #[test]
    fn a_lab_never_feels_the_budget_and_a_campus_stays_within_it() {
        assert_eq!(passed(30), 150);
        for nodes in [100, 300, 600] {
            let bytes = passed(nodes) * nodes * 105;
            assert!((300_000..=800_000).contains(&bytes), "{nodes}: {bytes}");
        }
    }
}
