//! Waiting for something that only shows when one looks.

use anyhow::{Result, anyhow};
use std::time::{Duration, Instant};

/// How often one looks. The commands behind a look take longer than this.
const PAUSE: Duration = Duration::from_millis(50);

/// Looks until `done` says `Ok(Some(_))`. An error is no end: it is what the last look saw, and is told if the time
/// runs out.
pub fn poll<T>(deadline: Duration, what: &str, mut done: impl FnMut() -> Result<Option<T>>) -> Result<T> {
    let end = Instant::now() + deadline;
    loop {
        let last = match done() {
            Ok(Some(value)) => return Ok(value),
            Ok(None) => None,
            Err(error) => Some(error),
        };
        if Instant::now() > end {
            let message = format!("gave up after {deadline:?} waiting for {what}");
            return Err(last.map_or_else(|| anyhow!("{message}"), |error| anyhow!("{message}: {error:#}")));
        }
        std::thread::sleep(PAUSE);
    }
}
