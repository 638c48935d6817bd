//! The transport's twin without a network: nodes of one process, joined by pipes.
//!
//! For tests of what runs on top, in any crate. Every node sees every other one until a link is cut, and a cut
//! breaks the streams that run over it, as pulling a cable does.

use std::collections::{BTreeMap, BTreeSet};
use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};
use std::time::Instant;

use futures::StreamExt as _;
use futures::stream::BoxStream;
use libp2p::PeerId;
use tokio::io::{AsyncRead, AsyncWrite, DuplexStream, ReadBuf};
use tokio::sync::{mpsc, watch};
use tokio_util::sync::{CancellationToken, WaitForCancellationFutureOwned};

use super::handle::{Attempt, Backend, Transport};
use super::stream::Stream;
use super::{AcceptError, Connected, ConnectedPeers, OpenError, Refused};

/// Bytes that a pipe holds before its writer waits.
const PIPE_BYTES: usize = 64 * 1024;
/// Streams that wait for an acceptor; beyond it they are dropped, as libp2p does.
const INBOUND: usize = 16;

/// A network of nodes in one process.
#[derive(Clone, Default)]
pub struct MemoryHub(Arc<Mutex<Network>>);

#[derive(Default)]
struct Network {
    nodes: BTreeMap<PeerId, Node>,
    /// Links that are cut, the lower id first.
    cuts: BTreeSet<(PeerId, PeerId)>,
    /// What breaks the streams of each link in use, the lower id first.
    links: BTreeMap<(PeerId, PeerId), CancellationToken>,
}

struct Node {
    connected: watch::Sender<ConnectedPeers>,
    acceptors: BTreeMap<&'static str, mpsc::Sender<(PeerId, Stream)>>,
    refused: Refused,
    evicted: watch::Sender<Option<PeerId>>,
    /// Tells a node from the one that had its id before.
    incarnation: CancellationToken,
}

/// One node's place in the network.
#[derive(Clone)]
pub(super) struct MemoryNode {
    hub: MemoryHub,
    local: PeerId,
    incarnation: CancellationToken,
}

impl MemoryHub {
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a node. One that has the same id is shut down first, as if the machine had restarted.
    #[must_use]
    pub fn transport(&self, local: PeerId) -> Transport {
        let mut network = self.lock();
        network.remove(local);
        let (sender, connected) = watch::channel(ConnectedPeers::default());
        let incarnation = CancellationToken::new();
        let (evicted_sender, evicted) = watch::channel(None);
        let node = Node {
            connected: sender,
            acceptors: BTreeMap::new(),
            refused: Refused::default(),
            evicted: evicted_sender,
            incarnation: incarnation.clone(),
        };
        network.nodes.insert(local, node);
        network.tell();
        let backend = Backend::Memory(MemoryNode { hub: self.clone(), local, incarnation });
        Transport {
            local,
            backend,
            connected,
            listening: watch::channel(Vec::new()).1,
            known: watch::channel(Arc::default()).1,
            refusals: watch::channel(None).1,
            refused: watch::Sender::new(Refused::default()),
            evicted,
        }
    }

    /// Cuts the link between two nodes; their streams break.
    pub fn cut(&self, a: PeerId, b: PeerId) {
        let mut network = self.lock();
        network.cuts.insert(link(a, b));
        network.break_link(a, b);
        network.tell();
    }

    /// Joins two nodes again.
    pub fn heal(&self, a: PeerId, b: PeerId) {
        let mut network = self.lock();
        network.cuts.remove(&link(a, b));
        network.tell();
    }

    fn lock(&self) -> MutexGuard<'_, Network> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Network {
    fn joined(&self, a: PeerId, b: PeerId) -> bool {
        a != b
            && self.nodes.contains_key(&a)
            && self.nodes.contains_key(&b)
            && !self.cuts.contains(&link(a, b))
            && !self.refuses(a, b)
            && !self.refuses(b, a)
    }

    fn refuses(&self, one: PeerId, other: PeerId) -> bool {
        self.nodes.get(&one).is_some_and(|node| node.refused.contains(&other))
    }

    fn break_link(&mut self, a: PeerId, b: PeerId) {
        if let Some(token) = self.links.remove(&link(a, b)) {
            token.cancel();
        }
    }

    fn remove(&mut self, local: PeerId) {
        if let Some(node) = self.nodes.remove(&local) {
            node.incarnation.cancel();
            let others: Vec<PeerId> = self.nodes.keys().copied().collect();
            for other in others {
                self.break_link(local, other);
            }
        }
    }

    /// Tells every node whom it is joined to now.
    fn tell(&self) {
        for (local, node) in &self.nodes {
            let others = self.nodes.keys().filter(|other| self.joined(*local, **other));
            node.connected.send_if_modified(|told| {
                let now = Instant::now();
                let fresh = || Connected { addresses: Vec::new(), since: now };
                let peers: BTreeMap<PeerId, Connected> =
                    others.map(|other| (*other, told.get(other).cloned().unwrap_or_else(fresh))).collect();
                let changed = **told != peers;
                if changed {
                    *told = Arc::new(peers);
                }
                changed
            });
            let refuser = self
                .nodes
                .keys()
                .find(|other| !self.cuts.contains(&link(**other, *local)) && self.refuses(**other, *local));
            if let Some(refuser) = refuser {
                node.evicted.send_replace(Some(*refuser));
            }
        }
    }
}

impl MemoryNode {
    /// These peers are joined to this node no more, and are told so.
    pub(super) fn refuse_peers(&self, peers: Refused) {
        let mut network = self.hub.lock();
        if self.incarnation.is_cancelled() {
            return;
        }
        for peer in peers.iter() {
            network.break_link(self.local, *peer);
        }
        if let Some(node) = network.nodes.get_mut(&self.local) {
            node.refused = peers;
        }
        network.tell();
    }

    /// Why there is no connection, if there is none.
    pub(super) fn refuse(&self, peer: PeerId) -> Result<(), OpenError> {
        let network = self.hub.lock();
        if self.incarnation.is_cancelled() {
            Err(OpenError::Closed)
        } else if network.joined(self.local, peer) {
            Ok(())
        } else if network.nodes.contains_key(&peer) {
            Err(OpenError::Unreachable { peer, why: "the link is cut".to_owned() })
        } else {
            Err(OpenError::Unknown { peer })
        }
    }

    pub(super) fn open(&self, peer: PeerId, protocol: &'static str) -> Attempt {
        let mut network = self.hub.lock();
        if self.incarnation.is_cancelled() || !network.joined(self.local, peer) {
            return Attempt::Lost("the link is cut".to_owned());
        }
        let token = network.links.entry(link(self.local, peer)).or_default().clone();
        let acceptor = network.nodes.get(&peer).and_then(|node| node.acceptors.get(protocol));
        let Some(acceptor) = acceptor.filter(|acceptor| !acceptor.is_closed()) else {
            return Attempt::Unsupported;
        };
        let (near, far) = tokio::io::duplex(PIPE_BYTES);
        // When it is full the far end is dropped here, and the opener finds no acknowledgement.
        let _ = acceptor.try_send((self.local, Stream::new(Pipe::new(far, token.clone()))));
        Attempt::Opened(Stream::new(Pipe::new(near, token)))
    }

    pub(super) fn accept(
        &self,
        protocol: &'static str,
    ) -> Result<BoxStream<'static, (PeerId, Stream)>, AcceptError> {
        if !protocol.starts_with('/') {
            return Err(AcceptError::Name { protocol });
        }
        let mut network = self.hub.lock();
        if self.incarnation.is_cancelled() {
            return Err(AcceptError::Closed);
        }
        let Some(node) = network.nodes.get_mut(&self.local) else { return Err(AcceptError::Closed) };
        if node.acceptors.get(protocol).is_some_and(|acceptor| !acceptor.is_closed()) {
            return Err(AcceptError::Taken { protocol });
        }
        let (sender, receiver) = mpsc::channel(INBOUND);
        node.acceptors.insert(protocol, sender);
        let next = |mut receiver: mpsc::Receiver<_>| async move {
            receiver.recv().await.map(|next| (next, receiver))
        };
        Ok(futures::stream::unfold(receiver, next).boxed())
    }

    pub(super) fn shutdown(&self) {
        let mut network = self.hub.lock();
        if !self.incarnation.is_cancelled() {
            network.remove(self.local);
            network.tell();
        }
    }
}

fn link(a: PeerId, b: PeerId) -> (PeerId, PeerId) {
    if a < b { (a, b) } else { (b, a) }
}

/// One end of a pipe that breaks with its link.
struct Pipe {
    inner: DuplexStream,
    /// One for each direction: the halves of a split stream are polled by different tasks.
    read_broken: Pin<Box<WaitForCancellationFutureOwned>>,
    write_broken: Pin<Box<WaitForCancellationFutureOwned>>,
}

impl Pipe {
    fn new(inner: DuplexStream, link: CancellationToken) -> Self {
        let read_broken = Box::pin(link.clone().cancelled_owned());
        Self { inner, read_broken, write_broken: Box::pin(link.cancelled_owned()) }
    }
}

fn check(broken: &mut Pin<Box<WaitForCancellationFutureOwned>>, cx: &mut Context<'_>) -> io::Result<()> {
    match broken.as_mut().poll(cx) {
        Poll::Ready(()) => Err(io::ErrorKind::ConnectionReset.into()),
        Poll::Pending => Ok(()),
    }
}

impl AsyncRead for Pipe {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        check(&mut self.read_broken, cx)?;
        Pin::new(&mut self.inner).poll_read(cx, buf)
    }
}

impl AsyncWrite for Pipe {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        check(&mut self.write_broken, cx)?;
        Pin::new(&mut self.inner).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        check(&mut self.write_broken, cx)?;
        Pin::new(&mut self.inner).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_shutdown(cx)
    }
}
