//! `gaggle guard`: the process that a daemon starts beside itself; nobody types it.

use super::Place;
use crate::guard::{self, GuardConfig};
use anyhow::Context;

/// Ends pods of which at most one may run when the daemon cannot; started by gaggle itself
#[derive(clap::Args, Debug)]
pub struct GuardArgs {
    /// Where Docker listens
    #[arg(long, value_name = "URL")]
    docker_host: String,
    /// Whose containers
    #[arg(long, value_name = "ID")]
    cluster: String,
    /// Of which node
    #[arg(long, value_name = "NAME")]
    node: String,
}

pub fn run(place: Place, args: GuardArgs) -> anyhow::Result<()> {
    let data_dir = place.data_dir.context("a guard needs --data-dir")?;
    let GuardArgs { docker_host, cluster, node } = args;
    guard::run(&GuardConfig { data_dir, docker_host, cluster, node })
}
