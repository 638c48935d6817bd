//! The task that runs gossip: it gives chitchat its streams, reads its state into the roll, and publishes what this
//! node says of itself.
//!
//! Owns chitchat and every task that serves it. Decides nothing about members: the roll does.

use std::collections::{BTreeMap, BTreeSet};
use std::future;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use chitchat::ChitchatHandle;
use libp2p::PeerId;
use rand::seq::IteratorRandom as _;
use tokio::sync::{Mutex, mpsc, oneshot, watch};
use tokio::task::{AbortHandle, JoinSet};
use tokio::time::{MissedTickBehavior, interval, sleep_until, timeout};

use super::engine::TIDIES_EVERY;
use super::facts::{self, ADDRESSES, GROUP, GroupFacts, IMAGES, MOST_ADDRESSES, NODE, NodeFacts};
use super::link::{self, Arrival, Net, Outboxes};
use super::rhythm::{Rhythm, rhythm};
use super::roll::{Look, Roll};
use super::{Members, MembershipConfig, MembershipError, engine, place};
use crate::transport::{Acceptor, Refused, Transport};

/// Streams that wait to be read: one a peer is usual, and a burst of them comes when a cable is put back.
const ACCEPTING: usize = 64;
/// How often it is checked whether chitchat has to be started again.
const CHECK: Duration = Duration::from_secs(1);
/// Of the time since the last look this many looks' worth counts for who is alive. A later look is this node's own
/// lateness.
const LATENESS: u32 = 2;
/// A goodbye has been heard when this many messages that can carry it have left.
const FAREWELLS: u64 = 4;
/// How long a goodbye may take.
const FAREWELL_DEADLINE: Duration = Duration::from_secs(1);
/// How long chitchat may take to end.
const END_DEADLINE: Duration = Duration::from_secs(2);
/// Least time between two new starts of chitchat: two nodes with one key would otherwise outbid each other for ever.
const RESTART_PAUSE: Duration = Duration::from_secs(10);

/// What this node says of itself.
#[derive(Clone, Debug, Default)]
pub(super) struct Own {
    pub(super) node: Option<NodeFacts>,
    pub(super) group: Option<GroupFacts>,
    pub(super) images: Option<Vec<String>>,
}

#[derive(Debug)]
pub(super) enum Command {
    Leave(oneshot::Sender<()>),
    Shutdown(oneshot::Sender<()>),
}

type Ended = Pin<Box<dyn Future<Output = anyhow::Result<()>> + Send>>;

struct Shell {
    transport: Transport,
    config: MembershipConfig,
    generation: u64,
    own: watch::Receiver<Own>,
    listening: watch::Receiver<Vec<SocketAddr>>,
    net: Net,
    chitchat: ChitchatHandle,
    /// When chitchat was started again for the last time.
    restarted: Option<Instant>,
    roll: Roll,
    rhythm: Rhythm,
    connected: BTreeSet<PeerId>,
    /// Peers that were removed for good.
    refused: watch::Receiver<Refused>,
    outboxes: watch::Sender<Outboxes>,
    arrivals: mpsc::Sender<Arrival>,
    told: watch::Sender<u64>,
    tasks: JoinSet<()>,
    writers: BTreeMap<PeerId, AbortHandle>,
    readers: BTreeMap<PeerId, AbortHandle>,
    members: watch::Sender<Members>,
}

pub(super) async fn start(
    transport: Transport,
    generation: u64,
    config: MembershipConfig,
    own: watch::Receiver<Own>,
    requests: mpsc::Receiver<Command>,
) -> Result<watch::Receiver<Members>, MembershipError> {
    let acceptor = transport.accept(link::PROTOCOL, ACCEPTING)?;
    let (outboxes, outboxes_seen) = watch::channel(Outboxes::default());
    let (arrivals, arrived) = mpsc::channel(link::INBOUND);
    let net = Net { outboxes: outboxes_seen, arrivals: Arc::new(Mutex::new(arrived)) };
    let chitchat = engine::spawn(transport.local(), generation, config.dead_kept, TIDIES_EVERY, &net)
        .await
        .map_err(|error| MembershipError::Gossip { reason: error.to_string() })?;
    let (members, seen) = watch::channel(Members::default());
    let mut shell = Shell {
        listening: transport.listening(),
        refused: transport.refused(),
        transport,
        rhythm: rhythm(config.interval, config.patience, 1),
        config,
        generation,
        own,
        net,
        chitchat,
        restarted: None,
        roll: Roll::default(),
        connected: BTreeSet::new(),
        outboxes,
        arrivals,
        told: watch::channel(0).0,
        tasks: JoinSet::new(),
        writers: BTreeMap::new(),
        readers: BTreeMap::new(),
        members,
    };
    shell.publish().await;
    shell.call_roll().await;
    tokio::spawn(shell.run(acceptor, requests));
    Ok(seen)
}

impl Shell {
    async fn run(mut self, mut acceptor: Acceptor, mut requests: mpsc::Receiver<Command>) {
        let mut connected = self.transport.connected();
        connected.mark_changed();
        let mut check = interval(CHECK);
        check.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let now = tokio::time::Instant::now();
        let (mut spoke, mut round, mut look) = (now, now, now);
        let mut ended: Ended = Box::pin(self.chitchat.termination_watcher());
        // A transport in memory has no addresses that could change.
        let mut addresses_change = true;
        let mut broken = false;
        let done = loop {
            tokio::select! {
                changed = connected.changed() => {
                    if changed.is_err() {
                        break None;
                    }
                    let peers = connected.borrow_and_update().keys().copied().collect();
                    self.on_connected(peers);
                    self.call_roll().await;
                }
                next = acceptor.next() => match next {
                    None => break None,
                    Some((peer, stream)) => {
                        let reader = self.tasks.spawn(link::read(stream, place::of(&peer), self.arrivals.clone()));
                        // One stream a peer: a newer one means that the older is lost.
                        if let Some(older) = self.readers.insert(peer, reader) {
                            older.abort();
                        }
                    }
                },
                changed = self.own.changed() => {
                    if changed.is_err() {
                        break None;
                    }
                    self.publish().await;
                    self.call_roll().await;
                    // News does not wait for the next round, unless the last one was a moment ago.
                    round = round.min(spoke + self.rhythm.turn / 2);
                }
                changed = self.listening.changed(), if addresses_change => {
                    addresses_change = changed.is_ok();
                    self.publish().await;
                }
                request = requests.recv() => match request {
                    None => break None,
                    Some(Command::Shutdown(done)) => break Some(done),
                    Some(Command::Leave(done)) => {
                        self.say_goodbye().await;
                        let _ = done.send(());
                    }
                },
                _ = &mut ended => {
                    // chitchat asserts what it believes of its peers' messages; one that it did not expect ends it.
                    // It starts again with the next check, so that such a peer cannot keep this task busy.
                    tracing::warn!("gossip ended, starting it again");
                    ended = Box::pin(future::pending());
                    broken = true;
                }
                Ok(()) = self.refused.changed() => self.call_roll().await,
                () = sleep_until(round) => {
                    self.speak();
                    spoke = tokio::time::Instant::now();
                    round = spoke + self.rhythm.turn;
                }
                () = sleep_until(look) => {
                    self.call_roll().await;
                    look = tokio::time::Instant::now() + self.rhythm.look;
                }
                _ = check.tick() => {
                    if broken || self.is_outdated() {
                        self.restart().await;
                        broken = false;
                        ended = Box::pin(self.chitchat.termination_watcher());
                    }
                }
                Some(_) = self.tasks.join_next(), if !self.tasks.is_empty() => {}
            }
        };
        acceptor.close().await;
        self.tasks.shutdown().await;
        if timeout(END_DEADLINE, self.chitchat.shutdown()).await.is_err() {
            tracing::warn!("gossip did not end in time");
        }
        drop(self.members);
        if let Some(done) = done {
            let _ = done.send(());
        }
    }

    /// Opens and closes queues so that there is one for each connected peer, and greets the new ones.
    fn on_connected(&mut self, peers: BTreeSet<PeerId>) {
        let gone: Vec<PeerId> = self.connected.difference(&peers).copied().collect();
        let new: Vec<PeerId> = peers.difference(&self.connected).copied().collect();
        self.connected = peers;
        let mut boxes = (**self.outboxes.borrow()).clone();
        for peer in gone {
            boxes.remove(&place::of(&peer));
            for task in [self.writers.remove(&peer), self.readers.remove(&peer)].into_iter().flatten() {
                task.abort();
            }
        }
        for peer in &new {
            let (outbox, writer) = link::outbox(self.transport.clone(), *peer, self.told.clone());
            boxes.insert(place::of(peer), outbox);
            self.writers.insert(*peer, self.tasks.spawn(writer));
        }
        self.outboxes.send_replace(Arc::new(boxes));
        for peer in &new {
            self.greet(peer);
        }
    }

    /// A round: some of those that are connected, the unknown and the seemingly dead like all others.
    fn speak(&self) {
        for peer in self.connected.iter().choose_multiple(&mut rand::rng(), self.rhythm.at_once) {
            self.greet(peer);
        }
    }

    fn greet(&self, peer: &PeerId) {
        if self.chitchat.gossip(place::of(peer)).is_err() {
            tracing::trace!(%peer, "gossip has ended and cannot greet");
        }
    }

    /// Writes what this node says of itself into gossip. What has not changed costs nothing.
    async fn publish(&mut self) {
        let own = self.own.borrow_and_update().clone();
        let listening = self.listening.borrow_and_update().clone();
        let on_network = listening.iter().any(|address| !address.ip().is_loopback());
        let addresses: Vec<SocketAddr> = listening
            .into_iter()
            .filter(|address| !on_network || !address.ip().is_loopback())
            .take(MOST_ADDRESSES)
            .collect();
        let values = [
            (NODE, own.node.as_ref().map(facts::encode)),
            (GROUP, own.group.as_ref().map(facts::encode)),
            (IMAGES, own.images.as_deref().map(facts::encode_images)),
            (ADDRESSES, (!addresses.is_empty()).then(|| facts::encode(&addresses))),
        ];
        self.chitchat
            .with_chitchat(|chitchat| {
                for (key, value) in &values {
                    match value {
                        Some(Some(value)) => chitchat.self_node_state().set(key, value),
                        Some(None) => {
                            tracing::warn!(key, "too long to gossip, the others keep what they knew")
                        }
                        None => {}
                    }
                }
            })
            .await;
    }

    /// Makes the roll anew and tells whoever watches it, and the transport new addresses.
    async fn call_roll(&mut self) {
        let local = self.transport.local();
        let refused = self.refused.borrow_and_update().clone();
        let look = Look {
            now: Instant::now(),
            step: self.rhythm.look * LATENESS,
            patience: self.rhythm.patience,
            local,
            connected: &self.connected,
            refused: &refused,
        };
        let roll = &mut self.roll;
        let (update, told_of) = self
            .chitchat
            .with_chitchat(|chitchat| {
                (roll.update(engine::sightings(chitchat), &look), chitchat.node_states().len())
            })
            .await;
        self.rhythm = rhythm(self.config.interval, self.config.patience, told_of);
        for (peer, alive) in update.turned.iter().filter(|(peer, _)| *peer != local) {
            match alive {
                true => tracing::info!(%peer, "a member is alive"),
                false => tracing::info!(%peer, "a member is not heard of any more"),
            }
        }
        if update.changed {
            self.members.send_replace(Arc::new(self.roll.members()));
        }
        for (peer, addresses) in update.addresses {
            for address in addresses.into_iter().filter(|_| peer != local) {
                self.transport.add_address(peer, address).await;
            }
        }
    }

    /// Whether gossip knows a newer run of this very node: the clock went back, or another node has its key.
    fn is_outdated(&self) -> bool {
        let known = self.roll.generation(&self.transport.local()).unwrap_or_default();
        let rested = self.restarted.is_none_or(|at| at.elapsed() >= RESTART_PAUSE);
        known > self.generation && known < u64::MAX && rested
    }

    async fn restart(&mut self) {
        let known = self.roll.generation(&self.transport.local()).filter(|known| *known < u64::MAX);
        let newest = known.unwrap_or_default().max(self.generation);
        if newest > self.generation {
            tracing::warn!(
                "a later run of this node is known: the clock went back, or its data directory was copied to \
                 another desktop (then remove the node key there)"
            );
        }
        self.generation = newest.saturating_add(1);
        self.restarted = Some(Instant::now());
        // The old one must let go of the arrivals before the new one takes them.
        self.chitchat.abort();
        let (local, kept) = (self.transport.local(), self.config.dead_kept);
        match engine::spawn(local, self.generation, kept, TIDIES_EVERY, &self.net).await {
            Ok(chitchat) => self.chitchat = chitchat,
            Err(error) => tracing::warn!(%error, "gossip could not be started"),
        }
        self.publish().await;
        for peer in &self.connected {
            self.greet(peer);
        }
    }

    async fn say_goodbye(&mut self) {
        self.publish().await;
        self.call_roll().await;
        let mut told = self.told.subscribe();
        let enough = *told.borrow() + FAREWELLS.min(2 * self.connected.len() as u64);
        for peer in &self.connected {
            self.greet(peer);
        }
        // Too late is no error: the others find out by themselves.
        let _ = timeout(FAREWELL_DEADLINE, told.wait_for(|count| *count >= enough)).await;
    }
}
