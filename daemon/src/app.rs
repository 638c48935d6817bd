//! The daemon itself: wires the parts and runs them.

use crate::options::UpOptions;

/// Runs the daemon until it has left.
pub async fn run(options: UpOptions) -> anyhow::Result<()> {
    anyhow::bail!("the daemon {} is not wired yet", options.name)
}
