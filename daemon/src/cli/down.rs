//! `gaggle down`: this desktop leaves properly, so that the others need not wonder.

use super::Place;
use super::connection::{Connection, RequestError};
use super::failure::AlreadyReported;
use super::follow::lines;
use crate::control::LEAVE_FAILED;
use axum::http::Method;
use futures::StreamExt;
use std::io::Write;

/// Leave the cluster and stop the daemon on this desktop
///
/// Its pods move to other desktops. Leaving properly (also by Ctrl-C, SIGTERM or shutting down) takes the
/// desktop off the roster, so that the rest go on deciding without it.
#[derive(clap::Args, Debug)]
#[command(verbatim_doc_comment)]
pub struct DownArgs {}

pub async fn run(place: &Place, _args: DownArgs) -> anyhow::Result<()> {
    let connection = Connection::open(place).await?;
    let leaving = connection.stream(Method::POST, "/gaggle/v1/leave", "text/plain").await;
    let mut progress = match leaving {
        Ok(pieces) => lines(pieces),
        Err(RequestError::Unreachable { .. }) => {
            writeln!(std::io::stdout(), "no daemon runs on this desktop: nothing to do")?;
            return Ok(());
        }
        Err(error) => return Err(error.into()),
    };
    let mut failed = false;
    while let Some(line) = progress.next().await {
        // The daemon's end is the end of the stream, however abrupt.
        let Ok(line) = line else { break };
        match line.strip_prefix(LEAVE_FAILED) {
            Some(_) => {
                failed = true;
                eprintln!("{line}");
            }
            None => writeln!(std::io::stdout(), "{line}")?,
        }
    }
    if failed { Err(AlreadyReported.into()) } else { Ok(()) }
}
