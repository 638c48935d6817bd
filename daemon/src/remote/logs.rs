//! Logs of a pod on any desktop, from any desktop.

use super::pods::Peer;
use super::{LOGS, SERVED, request, rest};
use crate::agent::Agent;
use crate::pods::{ByteStream, LogOptions, PodRef, StreamError};
use crate::wire::write_frame;
use futures::StreamExt;
use gaggle_gossip::transport::{Stream, Transport};
use std::sync::Arc;
use std::time::Duration;
use tokio::io::AsyncWriteExt;
use tokio::sync::Semaphore;

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
    let mut acceptor = match transport.accept(LOGS, SERVED) {
        Ok(acceptor) => acceptor,
        Err(error) => return tracing::error!(%error, "logs cannot be served to other desktops"),
    };
    let places = Arc::new(Semaphore::new(SERVED));
    loop {
        let Ok(place) = places.clone().acquire_owned().await else { return };
        let Some((peer, stream)) = acceptor.next().await else { return };
        let agent = agent.clone();
        tokio::spawn(async move {
            let _place = place;
            if let Err(error) = serve_one(stream, &agent).await {
                tracing::debug!(%peer, %error, "a log stream ended early");
            }
        });
    }
}

async fn serve_one(mut stream: Stream, agent: &Agent) -> std::io::Result<()> {
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
