//! Raft's frames over the transport.

use super::rpc::{Rpc, serve};
use super::{PROPOSE, RAFT, propose};
use gaggle_gossip::PeerId;
use gaggle_gossip::transport::{AcceptError, Transport};
use gaggle_sched::raft::{Group, MAX_FRAME_BYTES, Network};
use gaggle_sched::state::View;
use std::str::FromStr;
use std::time::Duration;
use tokio::sync::{mpsc, oneshot, watch};

/// The largest Raft frame is the group's own.
const FRAME_LIMIT: usize = MAX_FRAME_BYTES;
/// An upper bound; Raft's own time-outs are shorter.
const DEADLINE: Duration = Duration::from_secs(10);

/// Somebody of the group sends Raft frames to this node, which has no part in the electorate yet.
pub(super) struct Invitation {
    pub from: PeerId,
    pub answer: oneshot::Sender<Option<Group>>,
}

/// The asking side.
pub(super) struct RaftNetwork {
    rpc: Rpc,
}

impl RaftNetwork {
    pub fn new(transport: Transport) -> Self {
        Self { rpc: Rpc::new(transport, RAFT, FRAME_LIMIT) }
    }
}

#[async_trait::async_trait]
impl Network for RaftNetwork {
    async fn call(&self, to: &str, frame: Vec<u8>) -> Result<Vec<u8>, String> {
        let peer = PeerId::from_str(to).map_err(|_| format!("{to} is not a peer id"))?;
        self.rpc.call(peer, frame, DEADLINE).await.map_err(|error| error.to_string())
    }
}

/// Serves Raft and proposals until the transport ends.
pub(super) async fn serve_group(
    transport: Transport,
    view: View,
    group: watch::Receiver<Option<Group>>,
    invitations: mpsc::Sender<Invitation>,
) -> Result<(), AcceptError> {
    let raft = transport.accept(RAFT, 64)?;
    let proposals = transport.accept(PROPOSE, 256)?;
    let of_raft = {
        let group = group.clone();
        serve(raft, FRAME_LIMIT, move |from, frame| {
            let (group, invitations) = (group.borrow().clone(), invitations.clone());
            async move {
                let group = match group {
                    Some(group) => Some(group),
                    None => invited(from, &invitations).await,
                };
                match group {
                    Some(group) => group.receive(&from.to_string(), &frame).await,
                    None => Vec::new(),
                }
            }
        })
    };
    let of_proposals = serve(proposals, propose::REQUEST_LIMIT, move |from, request| {
        let (group, view) = (group.borrow().clone(), view.clone());
        async move { propose::answer(from, &request, group, &view).await }
    });
    tokio::join!(of_raft, of_proposals);
    Ok(())
}

async fn invited(from: PeerId, invitations: &mpsc::Sender<Invitation>) -> Option<Group> {
    let (answer, answered) = oneshot::channel();
    invitations.send(Invitation { from, answer }).await.ok()?;
    answered.await.ok()?
}
