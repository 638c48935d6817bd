//! Logs of a pod on any desktop, from any desktop.

use super::pods::Peer;
use super::{LOGS, SERVED, request, rest, serve};
use crate::agent::Agent;
use crate::pods::{ByteStream, LogOptions, PodRef, StreamError};
use crate::wire::write_frame;
use futures::StreamExt;
use gaggle_gossip::transport::{Stream, Transport};
use std::time::Duration;
use tokio::io::AsyncWriteExt;

/// How long the other desktop may take to find the log.
const HEAD_WITHIN: Duration = Duration::from_secs(10);

type Request = (PodRef, LogOptions);
type Head = Result<(), StreamError>;

/// The log of a pod on another desktop.
pub async fn ask(peer: &Peer<'_>, pod: &PodRef, options: &LogOptions) -> Result<ByteStream, StreamError> {
    let stream = peer.ask(LOGS, &(pod, options), HEAD_WITHIN).await?;
    Ok(rest(stream))
}

/// Serves the logs of this desktop's pods until the transport ends.
pub async fn serve_logs(transport: Transport, agent: Agent) {
    serve(transport, LOGS, SERVED, |stream| serve_one(stream, agent.clone())).await;
}

async fn serve_one(mut stream: Stream, agent: Agent) -> std::io::Result<()> {
    let (pod, options): Request = request(&mut stream).await?;
    let mut bytes = match agent.logs(&pod, &options).await {
        Ok(bytes) => {
            write_frame(&mut stream, &Head::Ok(())).await?;
            bytes
        }
        Err(error) => return write_frame(&mut stream, &Head::Err(error)).await,
    };
    let (mut reading, mut writing) = tokio::io::split(stream);
    // A reader that hangs up is noticed also while the container says nothing.
    let mut nothing = [0u8; 1];
    let gone = tokio::io::AsyncReadExt::read(&mut reading, &mut nothing);
    let sending = async {
        while let Some(chunk) = bytes.next().await {
            writing.write_all(&chunk?).await?;
            writing.flush().await?;
        }
        writing.shutdown().await
    };
    tokio::select! {
        result = sending => result,
        _ = gone => Ok(()),
    }
}
