//! The handle that everybody holds: what can be asked of a transport, whichever kind it is.
//!
//! Opening and accepting happen in the caller's task; only dialling goes through the task that owns the swarm.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt as _;
use libp2p::{PeerId, StreamProtocol};
use libp2p_stream::{Control, OpenStreamError};
use rand::Rng as _;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::{Instant, timeout, timeout_at};
use tokio_util::compat::FuturesAsyncReadCompatExt as _;

use super::address::Target;
use super::memory::MemoryNode;
use super::stream::{ACKNOWLEDGE_DEADLINE, Acceptor, Stream};
use super::swarm::{self, Command};
use super::{
    AcceptError, ConnectedPeers, DialError, OpenError, Refusal, Refused, TransportConfig, TransportError,
};
use crate::identity::{ClusterKey, NodeKey};

/// All of [`Transport::open`], dialling included. Whoever waits for a stream has a caller waiting too.
const OPEN_DEADLINE: Duration = Duration::from_secs(5);
/// The pause before the first repetition of a stream that was not acknowledged; it doubles up to the longest.
const FIRST_PAUSE: Duration = Duration::from_millis(5);
const LONGEST_PAUSE: Duration = Duration::from_millis(200);

/// A node's connections to the others. Cheap to clone; all clones are the same transport, which ends with
/// [`Transport::shutdown`] or when the last clone is dropped.
#[derive(Clone)]
pub struct Transport {
    pub(super) local: PeerId,
    pub(super) backend: Backend,
    pub(super) listening: watch::Receiver<Vec<SocketAddr>>,
    pub(super) connected: watch::Receiver<ConnectedPeers>,
    pub(super) known: watch::Receiver<Arc<Vec<String>>>,
    pub(super) refusals: watch::Receiver<Option<Refusal>>,
    pub(super) refused: watch::Sender<Refused>,
    pub(super) evicted: watch::Receiver<Option<PeerId>>,
}

/// What carries the streams.
#[derive(Clone)]
pub(super) enum Backend {
    Swarm { commands: mpsc::Sender<Command>, control: Control },
    Memory(MemoryNode),
}

/// What one attempt to open a stream came to.
pub(super) enum Attempt {
    Opened(Stream),
    Unsupported,
    /// Worth another try: the connection broke or the other side was busy.
    Lost(String),
}

impl Transport {
    /// Starts to listen and to look for peers. Must be called within a tokio runtime.
    ///
    /// # Errors
    /// Names the address that cannot be listened on or the peer that makes no sense.
    pub fn start(
        config: TransportConfig,
        cluster: &ClusterKey,
        node: NodeKey,
    ) -> Result<Self, TransportError> {
        swarm::start(config, cluster, &node)
    }

    /// This node.
    #[must_use]
    pub fn local(&self) -> PeerId {
        self.local
    }

    /// The concrete addresses that this node listens on at present, sorted. Empty for a moment after the start.
    #[must_use]
    pub fn listening(&self) -> watch::Receiver<Vec<SocketAddr>> {
        self.listening.clone()
    }

    /// The peers that a connection stands to. A peer whose power was cut goes within about five seconds.
    #[must_use]
    pub fn connected(&self) -> watch::Receiver<ConnectedPeers> {
        self.connected.clone()
    }

    /// Addresses of peers that were connected once, with their ids: to be stored, and given back as
    /// [`TransportConfig::remembered`]. Bounded.
    #[must_use]
    pub fn known(&self) -> watch::Receiver<Arc<Vec<String>>> {
        self.known.clone()
    }

    /// The newest connection that was refused for a reason that a user should hear: another phrase.
    #[must_use]
    pub fn refusals(&self) -> watch::Receiver<Option<Refusal>> {
        self.refusals.clone()
    }

    /// From now on these peers, and no others, are refused: their connections are closed, they get no stream and send
    /// none, and nobody dials them. They are told why.
    pub fn refuse(&self, peers: BTreeSet<PeerId>) {
        let peers = Arc::new(peers);
        let changed = self.refused.send_if_modified(|now| {
            *now != peers && {
                *now = peers.clone();
                true
            }
        });
        if let (true, Backend::Memory(node)) = (changed, &self.backend) {
            node.refuse_peers(peers);
        }
    }

    /// Whom this node refuses.
    #[must_use]
    pub fn refused(&self) -> watch::Receiver<Refused> {
        self.refused.subscribe()
    }

    /// The last peer that said that this node was removed from its cluster for good.
    #[must_use]
    pub fn evicted(&self) -> watch::Receiver<Option<PeerId>> {
        self.evicted.clone()
    }

    /// Opens a stream to `peer`, dialling it first where needed. Returns when the other side has taken the stream
    /// into its queue.
    ///
    /// # Errors
    /// Within five seconds. [`OpenError::Unknown`], [`OpenError::Refused`] and [`OpenError::Unsupported`] come at once.
    pub async fn open(&self, peer: PeerId, protocol: &'static str) -> Result<Stream, OpenError> {
        if self.refused.borrow().contains(&peer) {
            return Err(OpenError::Refused { peer });
        }
        let deadline = Instant::now() + OPEN_DEADLINE;
        let mut pause = FIRST_PAUSE;
        let mut why = None;
        let retry = async {
            loop {
                self.connect(peer).await?;
                match self.attempt(peer, protocol).await {
                    Attempt::Opened(mut stream) => match stream.acknowledged().await {
                        Ok(()) => return Ok(stream),
                        Err(error) => {
                            tracing::trace!(%peer, protocol, %error, "a stream was not acknowledged")
                        }
                    },
                    Attempt::Unsupported => return Err(OpenError::Unsupported { peer, protocol }),
                    Attempt::Lost(reason) => why = Some(reason),
                }
                // Callers that were dropped together must not come back together.
                let spread = rand::rng().random_range(0.5..1.5);
                tokio::time::sleep(pause.mul_f64(spread)).await;
                pause = (pause * 2).min(LONGEST_PAUSE);
            }
        };
        match timeout_at(deadline, retry).await {
            Ok(opened) => opened,
            Err(_) => Err(match why {
                Some(why) => OpenError::Unreachable { peer, why },
                None => OpenError::Deadline { peer, protocol },
            }),
        }
    }

    /// Takes streams that peers open for `protocol`, at most `capacity` of them waiting.
    ///
    /// # Errors
    /// When somebody takes them already.
    pub fn accept(&self, protocol: &'static str, capacity: usize) -> Result<Acceptor, AcceptError> {
        let inbound = match &self.backend {
            Backend::Swarm { control, commands } => {
                if commands.is_closed() {
                    return Err(AcceptError::Closed);
                }
                let name = StreamProtocol::try_from_owned(protocol.to_owned())
                    .map_err(|_| AcceptError::Name { protocol })?;
                let streams = control.clone().accept(name).map_err(|_| AcceptError::Taken { protocol })?;
                streams.map(|(peer, stream)| (peer, Stream::new(stream.compat()))).boxed()
            }
            Backend::Memory(node) => node.accept(protocol)?,
        };
        // The layer below keeps its end open after a shutdown.
        let mut connected = self.connected.clone();
        let ended = async move { while connected.changed().await.is_ok() {} };
        let refused = self.refused();
        let admitted = inbound.filter(move |(peer, _)| std::future::ready(!refused.borrow().contains(peer)));
        Ok(Acceptor::start(admitted.take_until(ended).boxed(), capacity))
    }

    /// Notes where a peer can be reached, as other members tell it. A new address is tried at once.
    pub async fn add_address(&self, peer: PeerId, address: SocketAddr) {
        if let Backend::Swarm { commands, .. } = &self.backend {
            // Closed means shut down, and then nobody wants the address.
            let _ = commands.send(Command::Learn { peer, address }).await;
        }
    }

    /// Takes up an address as if it had been given at the start: dialled until it answers, and again when lost.
    ///
    /// # Errors
    /// When the address makes no sense.
    pub async fn dial(&self, address: &str) -> Result<(), DialError> {
        let target = Target::parse(address)?;
        match &self.backend {
            Backend::Swarm { commands, .. } => {
                commands.send(Command::Want(target)).await.map_err(|_| DialError::Closed)
            }
            Backend::Memory(_) => Ok(()),
        }
    }

    /// Closes all connections and listeners; returns when they are gone.
    pub async fn shutdown(&self) {
        match &self.backend {
            Backend::Swarm { commands, .. } => {
                let (done, ended) = oneshot::channel();
                if commands.send(Command::Shutdown(done)).await.is_ok() {
                    let _ = ended.await;
                }
            }
            Backend::Memory(node) => node.shutdown(),
        }
    }

    /// Returns when a connection stands.
    async fn connect(&self, peer: PeerId) -> Result<(), OpenError> {
        if self.connected.borrow().contains_key(&peer) {
            return Ok(());
        }
        match &self.backend {
            Backend::Swarm { commands, .. } => {
                let (reply, answer) = oneshot::channel();
                commands.send(Command::Connect { peer, reply }).await.map_err(|_| OpenError::Closed)?;
                answer.await.unwrap_or(Err(OpenError::Closed))
            }
            Backend::Memory(node) => node.refuse(peer),
        }
    }

    async fn attempt(&self, peer: PeerId, protocol: &'static str) -> Attempt {
        let mut control = match &self.backend {
            Backend::Swarm { control, .. } => control.clone(),
            Backend::Memory(node) => return node.open(peer, protocol),
        };
        let Ok(name) = StreamProtocol::try_from_owned(protocol.to_owned()) else {
            return Attempt::Unsupported;
        };
        // Negotiation on a connection that just died would take as long as everything else together.
        match timeout(ACKNOWLEDGE_DEADLINE, control.open_stream(peer, name)).await {
            Ok(Ok(stream)) => Attempt::Opened(Stream::new(stream.compat())),
            Ok(Err(OpenStreamError::UnsupportedProtocol(_))) => Attempt::Unsupported,
            Ok(Err(error)) => Attempt::Lost(error.to_string()),
            Err(_) => Attempt::Lost("no answer".to_owned()),
        }
    }
}

impl std::fmt::Debug for Transport {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Transport({})", self.local)
    }
}
