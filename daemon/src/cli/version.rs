//! `gaggle version`: this program's, and the daemon's where one answers.

use super::Place;
use super::connection::{Connection, JSON};
use std::io::Write;

/// Show the versions of this program and of the daemon
#[derive(clap::Args, Debug)]
pub struct VersionArgs {
    /// Of this program only, without asking the daemon
    #[arg(long)]
    client: bool,
}

pub async fn run(place: &Place, args: VersionArgs) -> anyhow::Result<()> {
    let mut out = std::io::stdout();
    writeln!(out, "gaggle {}", env!("CARGO_PKG_VERSION"))?;
    if args.client {
        return Ok(());
    }
    let server = Connection::open(place).await?.get("/version", JSON).await?;
    writeln!(out, "Kubernetes API {}", server["gitVersion"].as_str().unwrap_or("of an unknown version"))?;
    Ok(())
}
