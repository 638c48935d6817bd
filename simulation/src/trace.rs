//! What happened last, for people. Costs nothing while it is off: a run that failed is run again with it.

use super::clock::Micros;
use std::collections::VecDeque;

/// Lines that are kept.
const LINES: usize = 400;

#[derive(Clone, Debug, Default)]
pub struct Trace {
    on: bool,
    lines: VecDeque<String>,
}

impl Trace {
    pub fn new(on: bool) -> Self {
        Self { on, lines: VecDeque::new() }
    }

    pub fn note(&mut self, now: Micros, who: &str, what: impl FnOnce() -> String) {
        if !self.on {
            return;
        }
        if self.lines.len() == LINES {
            self.lines.pop_front();
        }
        let (seconds, micros) = (now / 1_000_000, now % 1_000_000);
        self.lines.push_back(format!("{seconds:4}.{micros:06} {who:>3} {}", what()));
    }

    pub fn last(&self, count: usize) -> impl Iterator<Item = &String> {
        self.lines.iter().skip(self.lines.len().saturating_sub(count))
    }
}
