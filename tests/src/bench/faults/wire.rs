//! Long wires: what is sent arrives, but late.

use super::super::Bench;
use super::super::outcome::Running;
use anyhow::Result;
use std::process::Stdio;
use std::time::Duration;

const SCRIPT: &str = include_str!("wire.py");
/// Laying or taking up a few wires takes a fraction of a second.
const WORK: Duration = Duration::from_secs(20);

/// Long wires between all desktops; dropping it takes them up.
#[derive(Debug)]
pub struct LongWires(Option<Running>);

impl Bench {
    /// Lets every frame from one desktop to another travel for this long before it arrives.
    ///
    /// # Errors
    /// When the wires cannot be laid; those that were are taken up again.
    pub fn lengthen_wires(&self, one_way: Duration) -> Result<LongWires> {
        // Half of the way is each desktop's own wire.
        let half_ms = one_way.as_secs_f64() * 500.0;
        let indexes: Vec<String> =
            self.desktops().iter().map(|desktop| desktop.index().to_string()).collect();
        let mut command = self.visitor(&format!("exec python3 -c \"$0\" {half_ms} {}", indexes.join(" ")))?;
        command.arg(SCRIPT).stdin(Stdio::piped());
        let running = Running::start(command)?;
        running.wait_for("laid", WORK)?;
        Ok(LongWires(Some(running)))
    }
}

impl Drop for LongWires {
    fn drop(&mut self) {
        let Some(mut running) = self.0.take() else { return };
        running.end_input();
        match running.wait(WORK) {
            Ok(Some(outcome)) if outcome.success() => {}
            other => eprintln!("long wires were not taken up: {other:?}"),
        }
    }
}
