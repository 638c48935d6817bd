//! How much this node may say.
//!
//! The rhythm keeps greetings within a budget of bytes (`rhythm`); this sees to it, whatever else asks for them:
//! greetings of new connections, and a burst of them when a switch comes back. What is over the budget is left out,
//! as a datagram would be lost. Answers are not counted: they follow others' greetings, so a node sends about twice
//! its budget in all. Pure.

use std::time::Instant;

/// Bytes of greetings in a second. With the answers to others' a node sends about twice that.
pub(super) const BYTES_PER_SECOND: f64 = 64.0 * 1024.0;
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

    #[test]
    fn a_burst_passes_and_more_of_it_waits_for_its_second() {
        let start = Instant::now();
        let mut pace = Pace::new(start);
        let passed = |pace: &mut Pace, at| (0..100).filter(|_| pace.allows(8 * 1024, at)).count();
        assert_eq!(passed(&mut pace, start), 8);
        assert_eq!(passed(&mut pace, start), 0);
        assert_eq!(passed(&mut pace, start + Duration::from_millis(500)), 4);
        assert_eq!(
            passed(&mut pace, start + Duration::from_secs(60)),
            8,
            "no more than a second is saved up"
        );
    }
}
