//! How voters reach each other: a trait that the daemon fills in, and openraft's side of it.

// openraft's error types are what its trait asks for; a call to a peer is rare enough to move one.
#![allow(clippy::result_large_err)]

use super::log::Flushed;
use super::status::Pulse;
use super::types::{GroupId, NodeId, RaftPeer, Types};
use super::wire::{self, Reply, Request};
use openraft::error::{InstallSnapshotError, NetworkError, RPCError, RaftError, RemoteError, Unreachable};
use openraft::network::{Backoff, RPCOption, RaftNetwork, RaftNetworkFactory};
use openraft::raft::{
    AppendEntriesRequest, AppendEntriesResponse, InstallSnapshotRequest, InstallSnapshotResponse,
    VoteRequest, VoteResponse,
};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::time::Instant;

/// How long replication leaves a peer alone that could not be reached: short, since a desktop that came back
/// should catch up before anyone notices, and a failed dial is cheap.
const UNREACHABLE_PAUSE: Duration = Duration::from_millis(150);

/// Carries a frame to a peer and its answer back. The bytes mean something to [`super::Group::receive`] alone.
///
/// A call may be dropped before it ends (its time is up): that must not disturb other calls.
#[async_trait::async_trait]
pub trait Network: Send + Sync + 'static {
    /// # Errors
    /// In words, when the peer cannot be reached or does not answer.
    async fn call(&self, to: &str, frame: Vec<u8>) -> Result<Vec<u8>, String>;
}

#[derive(Debug, thiserror::Error)]
#[error("{0}")]
struct CallFailed(String);

/// A group's way to its peers.
#[derive(Clone)]
pub(super) struct Links {
    pub network: Arc<dyn Network>,
    pub group: GroupId,
    pub epoch: u64,
    /// Whether this node, as a leader, hears a quorum.
    pub pulse: Arc<Pulse>,
    /// How far this node's log is on its disk.
    pub flushed: Arc<Flushed>,
    /// Until then this node asks nobody for anything; see [`super::Group::resign`].
    pub resigned_until: Arc<Mutex<Option<Instant>>>,
}

impl Links {
    pub fn resign(&self, pause: Duration) {
        *self.resigned_until.lock().unwrap_or_else(PoisonError::into_inner) = Some(Instant::now() + pause);
    }

    fn has_resigned(&self) -> bool {
        let until = *self.resigned_until.lock().unwrap_or_else(PoisonError::into_inner);
        until.is_some_and(|until| Instant::now() < until)
    }

    pub async fn ask(&self, peer: &str, request: Request) -> Result<Reply, String> {
        if self.has_resigned() {
            return Err("this node has resigned for a moment".into());
        }
        let frame = wire::encode(&self.group, self.epoch, request).map_err(|error| error.to_string())?;
        let reply = self.network.call(peer, frame).await?;
        match wire::decode(&self.group, self.epoch, &reply).map_err(|error| error.to_string())? {
            Reply::Refused(why) => Err(why),
            reply => Ok(reply),
        }
    }
}

impl RaftNetworkFactory<Types> for Links {
    type Network = Link;

    async fn new_client(&mut self, target: NodeId, node: &RaftPeer) -> Link {
        Link { links: self.clone(), target, peer: node.peer.clone() }
    }
}

/// The way to one peer.
pub(super) struct Link {
    links: Links,
    target: NodeId,
    peer: String,
}

type CallError<E> = RPCError<NodeId, RaftPeer, RaftError<NodeId, E>>;

impl Link {
    fn counted(&self) -> bool {
        self.links.pulse.counts(self.target)
    }

    async fn ask<E: std::error::Error>(&self, request: Request) -> Result<Reply, CallError<E>> {
        let reply = self.links.ask(&self.peer, request).await;
        reply.map_err(|error| RPCError::Unreachable(Unreachable::new(&CallFailed(error))))
    }

    fn remote<T, E: std::error::Error>(
        &self,
        result: Result<T, RaftError<NodeId, E>>,
    ) -> Result<T, CallError<E>> {
        result.map_err(|error| RPCError::RemoteError(RemoteError::new(self.target, error)))
    }
}

fn confused<E: std::error::Error>() -> CallError<E> {
    RPCError::Network(NetworkError::new(&CallFailed("the answer is to another question".into())))
}

impl RaftNetwork<Types> for Link {
    async fn append_entries(
        &mut self,
        rpc: AppendEntriesRequest<Types>,
        _option: RPCOption,
    ) -> Result<AppendEntriesResponse<NodeId>, CallError<openraft::error::Infallible>> {
        // What is said to be committed, others apply.
        if let Some(committed) = rpc.leader_commit {
            let on_disk = self.links.flushed.up_to(committed.index).await;
            on_disk.map_err(|error| RPCError::Unreachable(Unreachable::new(&error)))?;
        }
        let (quorum, counted) = (self.links.pulse.leads_with_quorum(), self.counted());
        match self.ask(Request::Append { rpc, quorum, counted }).await? {
            Reply::Append(result) => {
                if !matches!(result, Err(_) | Ok(AppendEntriesResponse::HigherVote(_))) {
                    self.links.pulse.answered(self.target);
                }
                self.remote(result)
            }
            _ => Err(confused()),
        }
    }

    async fn install_snapshot(
        &mut self,
        rpc: InstallSnapshotRequest<Types>,
        _option: RPCOption,
    ) -> Result<InstallSnapshotResponse<NodeId>, CallError<InstallSnapshotError>> {
        match self.ask(Request::Snapshot { part: rpc.into(), counted: self.counted() }).await? {
            Reply::Snapshot(result) => self.remote(result),
            _ => Err(confused()),
        }
    }

    async fn vote(
        &mut self,
        rpc: VoteRequest<NodeId>,
        _option: RPCOption,
    ) -> Result<VoteResponse<NodeId>, CallError<openraft::error::Infallible>> {
        match self.ask(Request::Vote(rpc)).await? {
            Reply::Vote(result) => self.remote(result),
            _ => Err(confused()),
        }
    }

    fn backoff(&self) -> Backoff {
        Backoff::new(std::iter::repeat(UNREACHABLE_PAUSE))
    }
}
