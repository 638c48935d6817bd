//! The task that owns the swarm: it dials what the book and the wishes say is due, and tells the world who is
//! connected.
//!
//! The only place that acts on swarm events. Must never decide by itself when to dial: the book and the wishes do.

use std::collections::{BTreeMap, HashMap};
use std::future;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures::StreamExt as _;
use libp2p::core::ConnectedPoint;
use libp2p::swarm::dial_opts::{DialOpts, PeerCondition};
use libp2p::swarm::{ConnectionId, DialError, Swarm, SwarmEvent};
use libp2p::{PeerId, identify, mdns};
use libp2p_stream::Control;
use rand::Rng as _;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::JoinSet;
use tokio::time::timeout;

use super::address::{self, Reach, Target};
use super::book::Book;
use super::connections::{Connections, Remaining};
use super::notice::Notices;
use super::swarm::{self, Behaviour, BehaviourEvent, Command};
use super::wanted::{Wanted, WishId};
use super::{ConnectedPeers, OpenError, Refusal, Refused, wire};

/// Dials at a time, so that a large book does not flood the network after a power cut.
const MOST_DIALS: usize = 64;
/// Callers that wait for a connection to one peer; beyond it they are told to come back.
const MOST_WAITING: usize = 1024;
/// Addresses taken from one announcement of a peer.
const MOST_ANNOUNCED: usize = 16;
/// How long the name service may take; wishes are asked again anyway.
const LOOKUP_DEADLINE: Duration = Duration::from_secs(5);
/// The pause before a listener that broke is started again.
const RELISTEN_PAUSE: Duration = Duration::from_secs(5);

/// What the world is told.
pub(super) struct Watches {
    pub(super) listening: watch::Sender<Vec<SocketAddr>>,
    pub(super) connected: watch::Sender<ConnectedPeers>,
    pub(super) known: watch::Sender<Arc<Vec<String>>>,
    pub(super) refusals: watch::Sender<Option<Refusal>>,
}

/// Whom to refuse, and what to tell them by.
pub(super) struct Refusing {
    pub(super) peers: watch::Receiver<Refused>,
    pub(super) control: Control,
}

/// Why a dial was made.
enum Dial {
    Peer(PeerId),
    Wish(WishId),
}

type Waiting = oneshot::Sender<Result<(), OpenError>>;

pub(super) struct Shell {
    swarm: Swarm<Behaviour>,
    book: Book,
    wanted: Wanted,
    reach: Reach,
    watches: Watches,
    /// Dials in flight, by the connection that they may become.
    dials: HashMap<ConnectionId, Dial>,
    lookups: JoinSet<(WishId, Option<PeerId>, Vec<SocketAddr>)>,
    connections: Connections,
    waiting: BTreeMap<PeerId, Vec<Waiting>>,
    refusing: Refusing,
    notices: Notices,
    /// Listeners that broke, and when to try them again.
    broken: Vec<(SocketAddr, Instant)>,
    remembered_revision: u64,
}

impl Shell {
    pub(super) fn new(
        swarm: Swarm<Behaviour>,
        book: Book,
        wanted: Wanted,
        reach: Reach,
        watches: Watches,
        refusing: Refusing,
    ) -> Self {
        Self {
            swarm,
            book,
            wanted,
            reach,
            watches,
            dials: HashMap::new(),
            lookups: JoinSet::new(),
            connections: Connections::default(),
            waiting: BTreeMap::new(),
            refusing,
            notices: Notices::default(),
            broken: Vec::new(),
            remembered_revision: 0,
        }
    }

    /// Runs until it is told to shut down or the last handle is gone.
    pub(super) async fn run(
        mut self,
        mut requests: mpsc::Receiver<Command>,
        mut refusals: mpsc::Receiver<Refusal>,
    ) {
        let done = loop {
            self.dial_due();
            self.tell_known();
            let due = self.next_due();
            tokio::select! {
                event = self.swarm.select_next_some() => {
                    // A refusal is sent before the connection fails, and decides how long to wait for the next dial.
                    while let Ok(refusal) = refusals.try_recv() {
                        self.on_refusal(refusal);
                    }
                    self.on_event(event);
                }
                request = requests.recv() => match request {
                    None => break None,
                    Some(Command::Shutdown(done)) => break Some(done),
                    Some(Command::Connect { peer, reply }) => self.on_connect(peer, reply),
                    Some(Command::Learn { peer, address }) => self.learn(peer, [address]),
                    Some(Command::Want(target)) => {
                        if !self.wanted.add(target, Instant::now()) {
                            tracing::warn!("too many peers were named, the newest is left out");
                        }
                    }
                },
                Some(refusal) = refusals.recv() => self.on_refusal(refusal),
                Some(found) = self.lookups.join_next(), if !self.lookups.is_empty() => {
                    if let Ok((wish, peer, addresses)) = found {
                        self.on_found(wish, peer, &addresses);
                    }
                }
                Ok(()) = self.refusing.peers.changed() => self.on_refused_changed(),
                Some(told) = self.notices.next(), if !self.notices.is_empty() => {
                    // An error means that it is gone already.
                    let _ = self.swarm.disconnect_peer_id(told);
                }
                () = sleep_until(due) => {}
            }
        };
        // Dropping the swarm closes every socket: peers see the connections end at once.
        drop(self);
        if let Some(done) = done {
            let _ = done.send(());
        }
    }

    fn next_due(&self) -> Option<Instant> {
        // With all places taken the end of a dial is what wakes the loop.
        let free = self.dials.len() + self.lookups.len() < MOST_DIALS;
        let dials = free.then(|| self.book.next_due().into_iter().chain(self.wanted.next_due())).into_iter();
        dials.flatten().chain(self.broken.iter().map(|(_, at)| *at)).min()
    }

    fn dial_due(&mut self) {
        let now = Instant::now();
        let free = |shell: &Self| MOST_DIALS.saturating_sub(shell.dials.len() + shell.lookups.len());
        let own = self.watches.listening.borrow().clone();
        for (peer, addresses) in self.book.take_due(now, free(self), &own) {
            self.dial_peer(peer, &addresses);
        }
        for due in self.wanted.take_due(now, free(self)) {
            match due.last {
                Some(peer) if self.connections.has(&peer) => self.wanted.reached(due.id, peer),
                _ => {
                    self.lookups.spawn(async move { (due.id, due.target.peer, look_up(&due.target).await) });
                }
            }
        }
        let retry: Vec<SocketAddr> =
            self.broken.extract_if(.., |(_, at)| *at <= now).map(|(address, _)| address).collect();
        for address in retry {
            if let Err(error) = swarm::listen(&mut self.swarm, address) {
                tracing::warn!(%address, %error, "cannot listen, trying again");
                self.broken.push((address, now + RELISTEN_PAUSE));
            }
        }
    }

    fn dial_peer(&mut self, peer: PeerId, addresses: &[SocketAddr]) {
        let options = DialOpts::peer_id(peer)
            .condition(PeerCondition::Disconnected)
            .addresses(addresses.iter().copied().map(address::to_multiaddr).collect())
            .allocate_new_port()
            .build();
        let id = options.connection_id();
        match self.swarm.dial(options) {
            Ok(()) => {
                self.dials.insert(id, Dial::Peer(peer));
            }
            Err(error) => self.peer_failed(peer, &error.to_string()),
        }
    }

    fn on_found(&mut self, wish: WishId, peer: Option<PeerId>, found: &[SocketAddr]) {
        let Some(address) = self.wanted.choose(wish, found) else {
            self.wanted.failed(wish, Instant::now(), jitter());
            return;
        };
        let options = match peer {
            Some(peer) => DialOpts::peer_id(peer)
                .condition(PeerCondition::Always)
                .addresses(vec![address::to_multiaddr(address)])
                .allocate_new_port()
                .build(),
            None => DialOpts::unknown_peer_id()
                .address(address::to_multiaddr(address))
                .allocate_new_port()
                .build(),
        };
        let id = options.connection_id();
        match self.swarm.dial(options) {
            Ok(()) => {
                self.dials.insert(id, Dial::Wish(wish));
            }
            Err(error) => {
                tracing::debug!(%address, %error, "cannot dial a named peer");
                self.wanted.failed(wish, Instant::now(), jitter());
            }
        }
    }

    fn on_event(&mut self, event: SwarmEvent<BehaviourEvent>) {
        match event {
            SwarmEvent::ConnectionEstablished { peer_id, connection_id, endpoint, .. } => {
                self.on_established(peer_id, connection_id, &endpoint);
            }
            SwarmEvent::ConnectionClosed { peer_id, connection_id, cause, .. } => {
                tracing::debug!(peer = %peer_id, ?cause, "a connection ended");
                self.on_closed(peer_id, connection_id);
            }
            SwarmEvent::OutgoingConnectionError { connection_id, peer_id, error } => {
                self.on_dial_error(connection_id, peer_id, &error);
            }
            SwarmEvent::NewListenAddr { .. } | SwarmEvent::ExpiredListenAddr { .. } => self.tell_listening(),
            SwarmEvent::ListenerClosed { addresses, reason, .. } => {
                tracing::warn!(?reason, "a listener ended, starting it again");
                let at = Instant::now() + RELISTEN_PAUSE;
                self.broken
                    .extend(addresses.iter().filter_map(address::to_socket).map(|address| (address, at)));
                self.tell_listening();
            }
            SwarmEvent::Behaviour(BehaviourEvent::Mdns(mdns::Event::Discovered(found))) => {
                let now = Instant::now();
                for (peer, address) in found {
                    if let Some(address) = self.usable(&address) {
                        self.book.sighted(peer, address, now);
                    }
                }
            }
            SwarmEvent::Behaviour(BehaviourEvent::Identify(identify::Event::Received {
                peer_id,
                info,
                ..
            })) => {
                let announced: Vec<SocketAddr> =
                    info.listen_addrs.iter().take(MOST_ANNOUNCED).filter_map(address::to_socket).collect();
                self.learn(peer_id, announced);
            }
            SwarmEvent::IncomingConnectionError { send_back_addr, error, .. } => {
                tracing::debug!(address = %send_back_addr, %error, "an inbound connection failed");
            }
            _ => {}
        }
    }

    fn on_established(&mut self, peer: PeerId, id: ConnectionId, endpoint: &ConnectedPoint) {
        let now = Instant::now();
        let remote = wire::remote(endpoint);
        let dialled = remote.filter(|_| endpoint.is_dialer());
        if let Some(Dial::Wish(wish)) = self.dials.remove(&id) {
            self.wanted.reached(wish, peer);
        }
        if self.refusing.peers.borrow().contains(&peer) {
            self.turn_away(peer);
            return;
        }
        if let Some(remote) = remote {
            self.connections.add(peer, id, remote, now);
        }
        self.book.connected(peer, dialled, now);
        for waiting in self.waiting.remove(&peer).unwrap_or_default() {
            let _ = waiting.send(Ok(()));
        }
        self.tell_connected();
    }

    fn on_refused_changed(&mut self) {
        let refused = self.refusing.peers.borrow_and_update().clone();
        self.book.evict((*refused).clone());
        for peer in refused.iter() {
            for waiting in self.waiting.remove(peer).unwrap_or_default() {
                let _ = waiting.send(Err(OpenError::Refused { peer: *peer }));
            }
            if self.connections.remove_all(peer) {
                self.turn_away(*peer);
            }
        }
        self.tell_connected();
    }

    /// Tells a refused peer that it is, and then closes its connections, which nobody else sees.
    fn turn_away(&mut self, peer: PeerId) {
        tracing::debug!(%peer, "refusing an evicted peer");
        if !self.notices.tell(peer, self.refusing.control.clone()) {
            let _ = self.swarm.disconnect_peer_id(peer);
        }
    }

    fn on_closed(&mut self, peer: PeerId, id: ConnectionId) {
        let remaining = self.connections.remove(&peer, id);
        if remaining == Remaining::Unchanged {
            // Of a refused peer. Its address may be somebody's else by now, so a wish for it goes on.
            self.wanted.disconnected(&peer, Instant::now(), jitter());
        }
        if remaining == Remaining::None {
            let (now, jitter) = (Instant::now(), jitter());
            self.book.disconnected(&peer, now, jitter);
            self.wanted.disconnected(&peer, now, jitter);
        }
        self.tell_connected();
    }

    fn on_dial_error(&mut self, id: ConnectionId, peer: Option<PeerId>, error: &DialError) {
        tracing::debug!(?peer, %error, "a dial failed");
        let dial = self.dials.remove(&id);
        if let (DialError::WrongPeerId { address, .. } | DialError::LocalPeerId { address }, Some(peer)) =
            (error, peer)
            && let Some(address) = address::to_socket(address)
        {
            self.book.forget(&peer, address);
        }
        match dial {
            Some(Dial::Wish(wish)) if matches!(error, DialError::LocalPeerId { .. }) => {
                self.wanted.is_ourselves(wish)
            }
            Some(Dial::Wish(wish)) => self.wanted.failed(wish, Instant::now(), jitter()),
            Some(Dial::Peer(peer)) => self.peer_failed(peer, &reason(error)),
            // Dialled by the stream behaviour, in the moment that a connection broke.
            None => {}
        }
    }

    fn peer_failed(&mut self, peer: PeerId, why: &str) {
        if self.connections.has(&peer) {
            return;
        }
        self.book.failed(&peer, Instant::now(), jitter());
        for waiting in self.waiting.remove(&peer).unwrap_or_default() {
            let _ = waiting.send(Err(OpenError::Unreachable { peer, why: why.to_owned() }));
        }
    }

    fn on_refusal(&mut self, refusal: Refusal) {
        self.book.refused(refusal.address, Instant::now());
        self.watches.refusals.send_modify(|told| {
            // A stranger that keeps knocking must not fill the log.
            let repeated = told.as_ref().is_some_and(|last| last.repeats(&refusal));
            if !repeated {
                tracing::warn!(address = %refusal.address, direction = ?refusal.direction, "a peer holds another phrase");
            }
            *told = Some(refusal);
        });
    }

    fn on_connect(&mut self, peer: PeerId, reply: Waiting) {
        // Who asked may be gone by now.
        self.waiting.retain(|_, waiting| {
            waiting.retain(|waiting| !waiting.is_closed());
            !waiting.is_empty()
        });
        if self.connections.has(&peer) {
            let _ = reply.send(Ok(()));
            return;
        }
        let now = Instant::now();
        let refuse = if !self.book.knows(&peer) {
            Some(OpenError::Unknown { peer })
        } else if self.waiting.get(&peer).map_or(0, Vec::len) >= MOST_WAITING {
            Some(OpenError::Unreachable { peer, why: "too many callers wait for it".to_owned() })
        } else if !self.book.is_dialling(&peer) && self.book.just_failed(&peer, now) {
            Some(OpenError::Unreachable { peer, why: "it could not be dialled a moment ago".to_owned() })
        } else {
            None
        };
        if let Some(error) = refuse {
            let _ = reply.send(Err(error));
            return;
        }
        self.waiting.entry(peer).or_default().push(reply);
        if !self.book.is_dialling(&peer) {
            let own = self.watches.listening.borrow().clone();
            match self.book.dial(&peer, now, &own) {
                Some(addresses) => self.dial_peer(peer, &addresses),
                None => self.peer_failed(peer, "all its known addresses are this node's"),
            }
        }
    }

    fn learn(&mut self, peer: PeerId, addresses: impl IntoIterator<Item = SocketAddr>) {
        let now = Instant::now();
        for address in addresses {
            if address::dialable(address, self.reach) {
                self.book.learn(peer, address, now);
            }
        }
    }

    fn usable(&self, address: &libp2p::Multiaddr) -> Option<SocketAddr> {
        address::to_socket(address).filter(|address| address::dialable(*address, self.reach))
    }

    fn tell_connected(&self) {
        let peers = self.connections.peers();
        self.watches.connected.send_if_modified(|told| {
            let changed = **told != peers;
            if changed {
                *told = Arc::new(peers);
            }
            changed
        });
    }

    fn tell_listening(&mut self) {
        let mut addresses: Vec<SocketAddr> = self.swarm.listeners().filter_map(address::to_socket).collect();
        addresses.sort_unstable();
        addresses.dedup();
        let changed = *self.watches.listening.borrow() != addresses;
        if changed {
            self.wanted.own_addresses_changed(Instant::now());
            self.watches.listening.send_replace(addresses);
        }
    }

    fn tell_known(&mut self) {
        if self.book.revision() == self.remembered_revision {
            return;
        }
        self.remembered_revision = self.book.revision();
        let known = self.book.worth_remembering();
        self.watches.known.send_if_modified(|told| {
            let changed = **told != known;
            if changed {
                *told = Arc::new(known);
            }
            changed
        });
    }
}

fn jitter() -> f64 {
    rand::rng().random()
}

/// The essence of libp2p's error, for a user: the reason at the last address tried.
fn reason(error: &DialError) -> String {
    match error {
        DialError::Transport(tried) => tried
            .last()
            .and_then(|(address, error)| Some(format!("{}: {error}", address::to_socket(address)?)))
            .unwrap_or_else(|| "no address answered".to_owned()),
        DialError::WrongPeerId { .. } => "another node has its address".to_owned(),
        other => other.to_string(),
    }
}

async fn look_up(target: &Target) -> Vec<SocketAddr> {
    if let Some(address) = target.literal() {
        return vec![address];
    }
    let lookup = tokio::net::lookup_host((target.host.as_str(), target.port));
    match timeout(LOOKUP_DEADLINE, lookup).await {
        Ok(Ok(found)) => found.take(MOST_ANNOUNCED).collect(),
        Ok(Err(error)) => {
            tracing::debug!(%target, %error, "a named peer has no address");
            Vec::new()
        }
        Err(_) => Vec::new(),
    }
}

async fn sleep_until(due: Option<Instant>) {
    match due {
        Some(due) => tokio::time::sleep_until(due.into()).await,
        None => future::pending().await,
    }
}
