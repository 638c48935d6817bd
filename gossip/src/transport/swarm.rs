//! How the libp2p swarm is put together: its behaviours, limits and keys.
//!
//! Decides nothing while it runs: that is the shell's (`shell`).

use std::net::SocketAddr;
use std::num::NonZeroU8;
use std::sync::Arc;
use std::time::{Duration, Instant};

use libp2p::connection_limits::{self, ConnectionLimits};
use libp2p::identity::Keypair;
use libp2p::pnet::PreSharedKey;
use libp2p::swarm::behaviour::toggle::Toggle;
use libp2p::swarm::{self, NetworkBehaviour, Swarm};
use libp2p::{PeerId, identify, mdns, ping};
use tokio::sync::{mpsc, oneshot, watch};

use super::address::{self, Reach, Target};
use super::book::Book;
use super::handle::{Backend, Transport};
use super::notice;
use super::shell::{Refusing, Shell, Watches};
use super::wanted::Wanted;
use super::wire;
use super::{OpenError, Refused, TransportConfig, TransportError};
use crate::identity::{ClusterKey, NodeKey};

/// Requests that wait for the shell. It answers each in microseconds; senders wait when it is full.
const COMMANDS: usize = 256;
/// Refusals that wait for the shell; more of them at once say nothing new.
const REFUSALS: usize = 32;
/// Discovery asks this often, so that desktops find each other again soon after a cable was out. libp2p's default
/// is five minutes.
const MDNS_INTERVAL: Duration = Duration::from_secs(2);
/// How long an announcement is believed. A desktop that is gone is forgotten after it, and then seen anew.
const MDNS_TTL: Duration = Duration::from_secs(10);
/// Both ends ping this often; the silence watch needs a few of them in its time.
const PING_INTERVAL: Duration = Duration::from_secs(1);
/// When a ping counts as failed. The silence watch ends connections, so this only feeds libp2p's log.
const PING_TIMEOUT: Duration = Duration::from_secs(4);
/// Connections are kept whether or not streams are open: a cluster is a full mesh, and dialling costs more.
const IDLE: Duration = Duration::from_secs(365 * 24 * 3600);
/// Handshakes with unknown others at a time. Anyone on the network can hold one for the handshake's deadline.
const MOST_PENDING_INBOUND: u32 = 256;
/// Established connections; four times the peers that are kept leave room for duplicates.
const MOST_ESTABLISHED: u32 = 4096;
/// Connections to one peer: both sides dial at once, and a restarted peer's old ones take seconds to die.
const MOST_PER_PEER: u32 = 8;
/// Streams of one connection whose protocol is not yet agreed; the rest are dropped, and opened anew.
const MOST_NEGOTIATING: usize = 512;
/// Addresses of one peer tried at a time: all that are kept.
const DIAL_CONCURRENCY: u8 = 8;

/// What the shell is asked to do.
pub(super) enum Command {
    Connect { peer: PeerId, reply: oneshot::Sender<Result<(), OpenError>> },
    Learn { peer: PeerId, address: SocketAddr },
    Want(Target),
    Shutdown(oneshot::Sender<()>),
}

#[derive(NetworkBehaviour)]
pub(super) struct Behaviour {
    limits: connection_limits::Behaviour,
    ping: ping::Behaviour,
    identify: identify::Behaviour,
    mdns: Toggle<mdns::tokio::Behaviour>,
    streams: libp2p_stream::Behaviour,
}

pub(super) fn start(
    config: TransportConfig,
    cluster: &ClusterKey,
    node: &NodeKey,
) -> Result<Transport, TransportError> {
    if config.listen.is_empty() {
        return Err(TransportError::NowhereToListen);
    }
    let local = node.peer_id();
    let now = Instant::now();
    let mut wanted = Wanted::default();
    for peer in &config.peers {
        if !wanted.add(Target::parse(peer)?, now) {
            tracing::warn!(peer, "too many peers were named, this one is left out");
        }
    }
    let mut book = Book::new(local);
    for text in &config.remembered {
        match Target::parse(text).ok().and_then(|target| Some((target.peer?, target.literal()?))) {
            Some((peer, address)) => book.learn(peer, address, now),
            None => tracing::warn!("a remembered address makes no sense and is skipped"),
        }
    }

    let (noticed, refusals) = mpsc::channel(REFUSALS);
    let key = PreSharedKey::new(cluster.derive("transport pre-shared key"));
    let transport = wire::build(node.keypair(), key, noticed)
        .map_err(|error| TransportError::Key { reason: error.to_string() })?;
    let streams = libp2p_stream::Behaviour::new();
    let control = streams.new_control();
    let behaviour = Behaviour {
        limits: connection_limits::Behaviour::new(limits()),
        ping: ping::Behaviour::new(
            ping::Config::new().with_interval(PING_INTERVAL).with_timeout(PING_TIMEOUT),
        ),
        identify: identify::Behaviour::new(identification(node.keypair())),
        mdns: discovery(config.mdns, local).into(),
        streams,
    };
    let mut swarm = Swarm::new(transport, behaviour, local, swarm_config());
    for address in &config.listen {
        listen(&mut swarm, *address)
            .map_err(|source| TransportError::Listen { address: *address, source })?;
    }

    let (commands, requests) = mpsc::channel(COMMANDS);
    let (listening_sender, listening) = watch::channel(Vec::new());
    let (connected_sender, connected) = watch::channel(Arc::default());
    let (known_sender, known) = watch::channel(Arc::default());
    let (refusal_sender, refusals_seen) = watch::channel(None);
    let (refused, refused_seen) = watch::channel(Refused::default());
    let (evicted_sender, evicted) = watch::channel(None);
    // Nobody else takes this protocol: the behaviour is new.
    if let Ok(incoming) = control.clone().accept(notice::PROTOCOL) {
        tokio::spawn(notice::listen(incoming, evicted_sender));
    }
    let watches = Watches {
        listening: listening_sender,
        connected: connected_sender,
        known: known_sender,
        refusals: refusal_sender,
    };
    let loopback = config.listen.iter().all(|address| address.ip().is_loopback());
    let reach = if loopback { Reach::Loopback } else { Reach::Network };
    let refusing = Refusing { peers: refused_seen, control: control.clone() };
    let shell = Shell::new(swarm, book, wanted, reach, watches, refusing);
    tokio::spawn(shell.run(requests, refusals));
    let backend = Backend::Swarm { commands, control };
    Ok(Transport { local, backend, listening, connected, known, refusals: refusals_seen, refused, evicted })
}

/// Starts one listener.
pub(super) fn listen(swarm: &mut Swarm<Behaviour>, address: SocketAddr) -> Result<(), std::io::Error> {
    use libp2p::TransportError as Refused;
    match swarm.listen_on(address::to_multiaddr(address)) {
        Ok(_) => Ok(()),
        Err(Refused::Other(error)) => Err(error),
        Err(error) => Err(std::io::Error::other(error)),
    }
}

fn limits() -> ConnectionLimits {
    ConnectionLimits::default()
        .with_max_pending_incoming(Some(MOST_PENDING_INBOUND))
        .with_max_established(Some(MOST_ESTABLISHED))
        .with_max_established_per_peer(Some(MOST_PER_PEER))
}

fn identification(keypair: &Keypair) -> identify::Config {
    identify::Config::new("/gaggle/1".to_owned(), keypair.public())
        .with_agent_version(concat!("gaggle/", env!("CARGO_PKG_VERSION")).to_owned())
        .with_push_listen_addr_updates(true)
        .with_cache_size(0)
}

/// Discovery is a convenience: a desktop whose multicast does not work still has `--peer` and its memory.
fn discovery(wanted: bool, local: PeerId) -> Option<mdns::tokio::Behaviour> {
    if !wanted {
        return None;
    }
    let config = mdns::Config { ttl: MDNS_TTL, query_interval: MDNS_INTERVAL, enable_ipv6: false };
    mdns::tokio::Behaviour::new(config, local)
        .inspect_err(|error| tracing::warn!(%error, "peers cannot be found by mDNS, name one with --peer"))
        .ok()
}

fn swarm_config() -> swarm::Config {
    let config = swarm::Config::with_tokio_executor()
        .with_idle_connection_timeout(IDLE)
        .with_max_negotiating_inbound_streams(MOST_NEGOTIATING);
    match NonZeroU8::new(DIAL_CONCURRENCY) {
        Some(factor) => config.with_dial_concurrency_factor(factor),
        None => config,
    }
}
