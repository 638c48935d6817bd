//! What desktops take of processors and memory, from any desktop.

use super::pods::FlockPods;
use super::{USAGE, request, serve};
use crate::agent::Agent;
use crate::pods::StreamError;
use crate::usage::{Measured, Usages};
use crate::wire::{read_frame, write_frame};
use gaggle_gossip::transport::{Stream, Transport};
use std::time::Duration;

/// A first measurement takes a second.
const ANSWER_WITHIN: Duration = Duration::from_secs(5);
/// The largest answer: some 300 bytes for each of the containers that are told of.
const ANSWER_LIMIT: usize = 4 << 20;
/// Desktops that ask at once.
const SERVED: usize = 16;

#[async_trait::async_trait]
impl Usages for FlockPods {
    async fn measured(&self, node: &str) -> Result<Measured, StreamError> {
        if node == self.node {
            return self.agent.usage().await;
        }
        let peer = self.peer(node)?;
        let mut stream = peer.ask(USAGE, &(), ANSWER_WITHIN).await?;
        read_frame(&mut stream, ANSWER_LIMIT).await.map_err(|error| {
            StreamError::Unavailable(format!("the desktop {node} does not say what it takes: {error}"))
        })
    }
}

/// Tells other desktops what this one takes, until the transport ends.
pub async fn serve_usage(transport: Transport, agent: Agent) {
    serve(transport, USAGE, SERVED, |stream| serve_one(stream, agent.clone())).await;
}

async fn serve_one(mut stream: Stream, agent: Agent) -> std::io::Result<()> {
    let () = request(&mut stream).await?;
    match agent.usage().await {
        Ok(measured) => {
            write_frame(&mut stream, &Ok::<_, StreamError>(())).await?;
            write_frame(&mut stream, &measured).await
        }
        Err(error) => write_frame(&mut stream, &Err::<(), _>(error)).await,
    }
}
