//! Writes that rest on more than their object: on a quota or a budget of which others take at the same time.
//!
//! Each such write expects the revision that it was computed from, so that of many at a time one goes through and the
//! others are computed anew. That is no fault of theirs, and they wait for their turn.

use std::time::Duration;
use tokio::time::{Instant, sleep};

/// How long a write waits for its turn: a drain evicts all the pods of a desktop at once.
const TURN: Duration = Duration::from_secs(10);
/// Between two tries, so that the view has what the others wrote; drawn, so that they do not come back together.
const PAUSE_MS: std::ops::Range<u64> = 10..60;

pub struct Patience {
    until: Instant,
}

impl Patience {
    pub fn new() -> Self {
        Self { until: Instant::now() + TURN }
    }

    /// Whether a write is to be computed anew of which only what is written together with it was refused. Comes back after
    /// a moment.
    pub async fn is_left(&self) -> bool {
        if Instant::now() >= self.until {
            return false;
        }
        sleep(Duration::from_millis(rand::random_range(PAUSE_MS))).await;
        true
    }
}
