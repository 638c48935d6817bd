//! The streams of pods, here or on the desktop that they are bound to.

use super::{HEAD_LIMIT, logs, peer_of, streams};
use crate::agent::Agent;
use crate::pods::{
    ByteStream, Connection, LogOptions, PodRef, PodStreams, Process, ProcessOptions, StreamError,
};
use crate::wire::{read_frame, write_frame};
use gaggle_gossip::PeerId;
use gaggle_gossip::membership::Membership;
use gaggle_gossip::transport::{Stream, Transport};
use serde::Serialize;
use std::time::Duration;

/// Pods and desktops, wherever they are.
pub struct FlockPods {
    pub node: String,
    pub agent: Agent,
    pub transport: Transport,
    pub membership: Membership,
}

/// Another desktop.
pub struct Peer<'a> {
    pub name: &'a str,
    pub id: PeerId,
    pub transport: &'a Transport,
}

impl FlockPods {
    pub fn peer<'a>(&'a self, node: &'a str) -> Result<Peer<'a>, StreamError> {
        let id = peer_of(&self.membership.members().borrow(), node)
            .ok_or_else(|| StreamError::Unavailable(format!("the desktop {node} is not there")))?;
        Ok(Peer { name: node, id, transport: &self.transport })
    }
}

impl Peer<'_> {
    /// Opens a stream, says what is wanted, and returns it when the desktop has agreed, within `patience`.
    pub async fn ask(
        &self,
        protocol: &'static str,
        request: &(impl Serialize + Sync),
        patience: Duration,
    ) -> Result<Stream, StreamError> {
        let asked = async {
            let mut stream = self.transport.open(self.id, protocol).await.map_err(std::io::Error::other)?;
            write_frame(&mut stream, request).await?;
            let head: Result<(), StreamError> = read_frame(&mut stream, HEAD_LIMIT).await?;
            Ok::<_, std::io::Error>(head.map(|()| stream))
        };
        let why = match tokio::time::timeout(patience, asked).await {
            Ok(Ok(answer)) => return answer,
            Ok(Err(error)) => error.to_string(),
            Err(_) => format!("no answer within {} s", patience.as_secs()),
        };
        Err(StreamError::Unavailable(format!("the desktop {} cannot be reached: {why}", self.name)))
    }
}

#[async_trait::async_trait]
impl PodStreams for FlockPods {
    async fn logs(&self, pod: &PodRef, options: &LogOptions) -> Result<ByteStream, StreamError> {
        if pod.node == self.node {
            return self.agent.logs(pod, options).await;
        }
        logs::ask(&self.peer(&pod.node)?, pod, options).await
    }

    async fn process(&self, pod: &PodRef, options: &ProcessOptions) -> Result<Process, StreamError> {
        if pod.node == self.node {
            return self.agent.process(pod, options).await;
        }
        streams::process(&self.peer(&pod.node)?, pod, options).await
    }

    async fn port(&self, pod: &PodRef, port: u16) -> Result<Box<dyn Connection>, StreamError> {
        if pod.node == self.node {
            return Ok(Box::new(self.agent.port(pod, port).await?));
        }
        Ok(Box::new(streams::port(&self.peer(&pod.node)?, pod, port).await?))
    }
}
