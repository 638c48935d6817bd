//! Who is alive, and what every node says of itself: chitchat's gossip over the transport's streams.
//!
//! Owns the gossip protocol, the typed facts and the roll of members. Must never know what the facts are used for,
//! and never opens a socket: it has the transport's streams.
//!
//! Facts are told on by everybody, so **any member can forge another's facts**. Everyone here holds the phrase and
//! with it the same power, so that is no loss; but what must be true (who may vote, what a node runs) has to be
//! confirmed with the node itself over a stream, whose other end is proven.
//!
//! `alive` and `connected` are different: a member is alive when its heartbeat arrives, by whichever way; it is
//! connected when this node has a connection to it.

mod detector;
mod engine;
mod facts;
mod frame;
mod link;
mod pace;
mod place;
mod rhythm;
mod roll;
mod shell;

#[cfg(any(test, feature = "simulation"))]
pub mod simulation;
#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::time::{Duration, Instant};

use libp2p::PeerId;
use tokio::sync::{mpsc, oneshot, watch};

pub use facts::{GroupFacts, NodeFacts, Role};

use crate::transport::{AcceptError, Transport};
use shell::{Command, Own};

/// Requests that wait for the task; there are only two kinds, and both end it.
const COMMANDS: usize = 4;

/// How fast members hear of each other.
#[derive(Clone, Debug)]
pub struct MembershipConfig {
    /// How often this node speaks to three others, in a small flock. In a large one it speaks less often.
    pub interval: Duration,
    /// Silence after which a connected node is dead, in a small flock. One that is not connected is dead after
    /// half of it, one that is known to be slow after at most four times as much.
    pub patience: Duration,
    /// How long the dead stay on the roll. For the second half of it they are not told on any more.
    pub dead_kept: Duration,
}

impl MembershipConfig {
    /// For desktops on a local network: three nodes agree on a change in about half a second, on a death in one to two
    /// and a half, and a desktop that is left with a few hundredths of a processor stays alive.
    #[must_use]
    pub fn lan() -> Self {
        Self {
            interval: Duration::from_millis(200),
            patience: Duration::from_secs(2),
            dead_kept: Duration::from_secs(3600),
        }
    }

    /// For several nodes in one process.
    #[must_use]
    pub fn local() -> Self {
        Self {
            interval: Duration::from_millis(50),
            patience: Duration::from_secs(1),
            dead_kept: Duration::from_secs(600),
        }
    }
}

/// One node as this one sees it.
#[derive(Clone, Debug, PartialEq)]
pub struct Member {
    pub peer: PeerId,
    /// Grows with each start of the node; only the newest is shown.
    pub generation: u64,
    /// Its heartbeat arrives, by whichever way. Oneself is always alive.
    pub alive: bool,
    /// This node has a connection to it. Oneself is always connected.
    pub connected: bool,
    /// What it says of itself; None until it did.
    pub node: Option<NodeFacts>,
    /// What it says of the group that it follows.
    pub group: Option<GroupFacts>,
    /// The images that its engine holds; perhaps not all.
    pub images: Arc<Vec<String>>,
    /// Since when `alive` has its value, by this node's clock.
    pub since: Instant,
}

/// The members by their ids, oneself included.
pub type Members = Arc<Vec<Member>>;

/// Why membership did not start.
#[derive(Debug, thiserror::Error)]
pub enum MembershipError {
    #[error("gossip cannot be accepted")]
    Accept(#[from] AcceptError),
    #[error("gossip did not start: {reason}")]
    Gossip { reason: String },
}

/// A handle on this node's membership. Cheap to clone; it ends with [`Membership::shutdown`] or when the last
/// clone is dropped.
#[derive(Clone, Debug)]
pub struct Membership {
    commands: mpsc::Sender<Command>,
    own: watch::Sender<Own>,
    members: watch::Receiver<Members>,
}

impl Membership {
    /// Starts to gossip. `generation` must be greater than at every earlier start of this node: the time in
    /// milliseconds will do. (Should the clock have gone back, the node notices its own past and goes beyond it.)
    ///
    /// # Errors
    /// When the transport is shut down or carries a membership already.
    pub async fn start(
        transport: Transport,
        generation: u64,
        config: MembershipConfig,
    ) -> Result<Self, MembershipError> {
        let (commands, requests) = mpsc::channel(COMMANDS);
        let (own, own_facts) = watch::channel(Own::default());
        let members = shell::start(transport, generation, config, own_facts, requests).await?;
        Ok(Self { commands, own, members })
    }

    /// Everybody, sorted by peer id. Changes when something about somebody does, heartbeats excepted.
    #[must_use]
    pub fn members(&self) -> watch::Receiver<Members> {
        self.members.clone()
    }

    /// Tells the others about this node. Only the newest facts count.
    pub fn publish_node(&self, facts: NodeFacts) {
        self.own.send_modify(|own| own.node = Some(facts));
    }

    /// Tells the others which group this node follows, and how far.
    pub fn publish_group(&self, facts: GroupFacts) {
        self.own.send_modify(|own| own.group = Some(facts));
    }

    /// Tells the others which images this node's engine holds, the most useful first: the list is cut when it is
    /// too long to gossip.
    pub fn publish_images(&self, images: Vec<String>) {
        self.own.send_modify(|own| own.images = Some(images));
    }

    /// Tells the others that this node is leaving, and returns when a few of them have been told, or after a
    /// second.
    pub async fn leave(&self) {
        self.own.send_modify(|own| {
            if let Some(node) = &mut own.node {
                node.leaving = true;
                node.ready = false;
            }
        });
        let (done, told) = oneshot::channel();
        if self.commands.send(Command::Leave(done)).await.is_ok() {
            let _ = told.await;
        }
    }

    /// Stops gossiping; returns when nothing of it is left.
    pub async fn shutdown(&self) {
        let (done, ended) = oneshot::channel();
        if self.commands.send(Command::Shutdown(done)).await.is_ok() {
            let _ = ended.await;
        }
    }
}
