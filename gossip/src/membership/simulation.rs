//! A flock in virtual time: the real chitchat states and the real rules (rhythm, pace, detector), over a network that
//! only takes time.
//!
//! Each node is a chitchat without rounds of its own, to which the simulation hands one message at a time. Every node is
//! connected to every other one, as on a local network; a node that crashes loses its connections at once, one whose
//! cable is cut after the transport's silence. What this does not model is the work of the processors and the
//! transport's own pings.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, BinaryHeap};
use std::fmt;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::Context as _;
use async_trait::async_trait;
use chitchat::{ChitchatHandle, ChitchatMessage, Serializable as _};
use libp2p::PeerId;
use rand::rngs::StdRng;
use rand::seq::index;
use rand::{Rng as _, SeedableRng as _};
use tokio::sync::mpsc;

use super::detector::{Beat, Detector};
use super::facts::{self, GROUP, GroupFacts, NODE, NodeFacts};
use super::frame::LARGEST;
use super::pace::Pace;
use super::rhythm::{Rhythm, rhythm};
use super::{MembershipConfig, engine, place};

/// How long a message takes on the local network, both bounds, in microseconds.
const DELAY_MICROS: (u64, u64) = (200, 5_000);
/// After this the transport ends a connection on which nothing is heard.
const SILENCE: Duration = Duration::from_secs(5);
/// Everything must have happened by then; rather than to wait for ever, the simulation fails.
const GIVES_UP: Duration = Duration::from_secs(600);
/// What is watched for false deaths and bytes when the flock is at rest, in intervals.
const AT_REST: u32 = 12;

/// What a run came to. Times are from the event to the moment that a node knows of it.
#[derive(Clone, Debug)]
pub struct Report {
    pub nodes: usize,
    pub interval: Duration,
    /// From the start of all nodes at once until everybody takes everybody for alive and knows their facts.
    pub start: Duration,
    /// Until others know a changed fact: the median, and all.
    pub change: (Duration, Duration),
    /// Until others take a crashed node for dead.
    pub crash: (Duration, Duration),
    /// Until others take a node whose cable is cut for dead.
    pub cut: (Duration, Duration),
    /// What a node sends at rest, in bytes a second: the mean, and the node that sends most.
    pub bytes: (u64, u64),
    /// How often a living node was taken for dead.
    pub false_deaths: usize,
}

impl Report {
    pub const HEADER: &str = "\
 nodes interval     start fact: median     all crash: med.     all  cut: med.     all KiB/s:    max false deaths";
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let s = |time: Duration| format!("{:.2} s", time.as_secs_f64());
        let two = |times: (Duration, Duration)| format!("{:>10} {:>8}", s(times.0), s(times.1));
        let kib = |bytes: u64| bytes as f64 / 1024.0;
        write!(
            f,
            "{:>6} {:>8} {:>9} {} {} {} {:>6.1} {:>6.1} {:>12}",
            self.nodes,
            s(self.interval),
            s(self.start),
            two(self.change),
            two(self.crash),
            two(self.cut),
            kib(self.bytes.0),
            kib(self.bytes.1),
            self.false_deaths,
        )
    }
}

/// Starts a flock of at least three, lets it rest, changes a fact, and kills some of its nodes in both ways.
///
/// # Errors
/// When there are fewer nodes, and when something never happens, which is the failure of a rule.
pub async fn simulate(nodes: usize, seed: u64) -> anyhow::Result<Report> {
    anyhow::ensure!(nodes >= 3, "{nodes} nodes are no flock: simulate three or more");
    let mut flock = Flock::start(nodes, seed).await?;
    let all: BTreeSet<usize> = (0..nodes).collect();
    flock
        .run_until("everybody to know everybody", |flock| {
            flock.nodes.iter().all(|node| node.alive.len() == nodes && node.complete)
        })
        .await?;
    let (start, interval) = (flock.now, flock.nodes[0].rhythm.interval);

    flock.false_deaths = 0;
    let (rest_from, sent_before) = (flock.now, flock.sent());
    flock.run_for(interval * AT_REST).await?;
    let seconds = (flock.now - rest_from).as_secs_f64();
    let rates: Vec<u64> = flock
        .sent()
        .iter()
        .zip(&sent_before)
        .map(|(now, then)| ((now - then) as f64 / seconds) as u64)
        .collect();
    let mean = rates.iter().sum::<u64>() / nodes as u64;
    let bytes = (mean, rates.iter().copied().max().unwrap_or_default());

    let changed = flock.now;
    flock.change_fact(0).await;
    flock
        .run_until("a fact to be known to all", |flock| flock.nodes.iter().all(|node| node.news.is_some()))
        .await?;
    let change =
        median_and_max(flock.nodes.iter().filter_map(|node| node.news).map(|at| at - changed).collect());

    let some = (nodes / 50).max(1);
    let crash = flock.kill(&all, 0..some, Death::Crash).await?;
    let cut = flock.kill(&all, some..2 * some, Death::Cut).await?;
    Ok(Report { nodes, interval, start, change, crash, cut, bytes, false_deaths: flock.false_deaths })
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Death {
    /// The process ends, and the kernel closes its connections.
    Crash,
    /// Nothing comes any more, and nobody says why.
    Cut,
}

enum Event {
    Round(usize),
    Look(usize),
    Deliver { from: usize, to: usize, message: ChitchatMessage },
}

struct Node {
    peer: PeerId,
    chitchat: ChitchatHandle,
    wire: Wire,
    detector: Detector,
    pace: Pace,
    rhythm: Rhythm,
    died: Option<(Duration, Death)>,
    /// Whom it takes for alive, itself included.
    alive: BTreeSet<usize>,
    /// Whether it knows the facts of all.
    complete: bool,
    /// When it learnt of the changed fact.
    news: Option<Duration>,
    sent: u64,
}

struct Flock {
    nodes: Vec<Node>,
    by_name: BTreeMap<String, usize>,
    by_address: BTreeMap<SocketAddr, usize>,
    config: MembershipConfig,
    epoch: Instant,
    now: Duration,
    events: BinaryHeap<Reverse<(Duration, u64)>>,
    /// The events by their order of making, since they cannot be compared.
    waiting: BTreeMap<u64, Event>,
    made: u64,
    rng: StdRng,
    false_deaths: usize,
}

impl Flock {
    async fn start(count: usize, seed: u64) -> anyhow::Result<Self> {
        let config = MembershipConfig::lan();
        let epoch = Instant::now();
        let mut flock = Self {
            nodes: Vec::new(),
            by_name: BTreeMap::new(),
            by_address: BTreeMap::new(),
            config,
            epoch,
            now: Duration::ZERO,
            events: BinaryHeap::new(),
            waiting: BTreeMap::new(),
            made: 0,
            rng: StdRng::seed_from_u64(seed),
            false_deaths: 0,
        };
        for index in 0..count {
            let peer = PeerId::random();
            let (net, wire) = wire();
            // Virtual time: chitchat must not begin anything by its own clock.
            let never = Duration::from_secs(24 * 3600);
            let chitchat = engine::spawn(peer, 1, flock.config.dead_kept, never, &net).await?;
            let id = place::chitchat_id(&peer, 1);
            flock.by_name.insert(id.node_id.to_string(), index);
            flock.by_address.insert(id.gossip_advertise_addr, index);
            chitchat
                .with_chitchat(|chitchat| {
                    let own = chitchat.self_node_state();
                    for (key, value) in facts_of(index) {
                        own.set(key, value);
                    }
                })
                .await;
            let rhythm = rhythm(flock.config.interval, flock.config.patience, 1);
            let mut node = Node {
                peer,
                chitchat,
                wire,
                detector: Detector::default(),
                pace: Pace::new(epoch),
                rhythm,
                died: None,
                alive: BTreeSet::from([index]),
                complete: false,
                news: None,
                sent: 0,
            };
            node.wire.settle().await?;
            flock.nodes.push(node);
            // Switched on at once, give or take an interval.
            let (round, look) = (flock.spread(rhythm.interval), flock.spread(rhythm.look));
            flock.after(round, Event::Round(index));
            flock.after(look, Event::Look(index));
        }
        Ok(flock)
    }

    fn spread(&mut self, within: Duration) -> Duration {
        within.mul_f64(self.rng.random())
    }

    fn after(&mut self, delay: Duration, event: Event) {
        self.made += 1;
        self.events.push(Reverse((self.now + delay, self.made)));
        self.waiting.insert(self.made, event);
    }

    async fn run_for(&mut self, time: Duration) -> anyhow::Result<()> {
        let end = self.now + time;
        self.run(|flock| flock.now >= end).await
    }

    async fn run_until(&mut self, what: &str, done: impl Fn(&Self) -> bool) -> anyhow::Result<()> {
        let give_up = self.now + GIVES_UP;
        // Asking is dear in a large flock.
        let ask_every = Duration::from_millis(50);
        let mut ask = self.now;
        let mut happened = false;
        self.run(|flock| {
            if flock.now >= ask {
                ask = flock.now + ask_every;
                happened = done(flock);
            }
            happened || flock.now >= give_up
        })
        .await?;
        anyhow::ensure!(happened, "waited {} s for {what}", GIVES_UP.as_secs());
        Ok(())
    }

    async fn run(&mut self, mut enough: impl FnMut(&Self) -> bool) -> anyhow::Result<()> {
        while !enough(self) {
            let Reverse((at, number)) = self.events.pop().context("nothing happens any more")?;
            let event = self.waiting.remove(&number).context("an event without its matter")?;
            self.now = at;
            match event {
                Event::Round(index) => self.round(index).await?,
                Event::Look(index) => self.look(index).await,
                Event::Deliver { from, to, message } => self.deliver(from, to, message).await?,
            }
        }
        Ok(())
    }

    async fn round(&mut self, index: usize) -> anyhow::Result<()> {
        if self.nodes[index].died.is_some() {
            return Ok(());
        }
        let Rhythm { turn, at_once, .. } = self.nodes[index].rhythm;
        let connected: Vec<usize> =
            (0..self.nodes.len()).filter(|other| *other != index && self.connected(*other)).collect();
        for pick in index::sample(&mut self.rng, connected.len(), at_once.min(connected.len())) {
            let to = place::of(&self.nodes[connected[pick]].peer);
            let node = &mut self.nodes[index];
            node.wire.settled();
            node.chitchat.gossip(to)?;
            node.wire.settle().await?;
            self.collect(index);
        }
        self.after(turn, Event::Round(index));
        Ok(())
    }

    async fn deliver(&mut self, from: usize, to: usize, message: ChitchatMessage) -> anyhow::Result<()> {
        if self.nodes[to].died.is_some() {
            return Ok(());
        }
        let from = place::of(&self.nodes[from].peer);
        self.nodes[to].wire.hand_in(from, message).await?;
        self.collect(to);
        Ok(())
    }

    /// Puts on the network what a node has just said.
    fn collect(&mut self, index: usize) {
        let now = self.epoch + self.now;
        for (address, message) in self.nodes[index].wire.said() {
            let Some(to) = self.by_address.get(&address).copied() else { continue };
            let (node, bytes) = (&mut self.nodes[index], message.serialized_len());
            let greeting = matches!(message, ChitchatMessage::Syn { .. });
            if bytes > LARGEST || greeting && !node.pace.allows(bytes, now) {
                continue;
            }
            node.sent += bytes as u64;
            let delay = Duration::from_micros(self.rng.random_range(DELAY_MICROS.0..DELAY_MICROS.1));
            self.after(delay, Event::Deliver { from: index, to, message });
        }
    }

    fn connected(&self, other: usize) -> bool {
        match self.nodes[other].died {
            None => true,
            Some((_, Death::Crash)) => false,
            Some((at, Death::Cut)) => self.now < at + SILENCE,
        }
    }

    async fn look(&mut self, index: usize) {
        if self.nodes[index].died.is_some() {
            return;
        }
        let others: Vec<bool> = (0..self.nodes.len()).map(|other| self.connected(other)).collect();
        let peers: Vec<PeerId> = self.nodes.iter().map(|node| node.peer).collect();
        let (now, by_name) = (self.epoch + self.now, &self.by_name);
        let node = &mut self.nodes[index];
        let (detector, rhythm_now) = (&mut node.detector, node.rhythm);
        let (mut alive, mut known, mut complete, mut news) = (BTreeSet::from([index]), 0, 0, false);
        node.chitchat
            .with_chitchat(|chitchat| {
                detector.look(now, rhythm_now.look * 2);
                for (id, state) in chitchat.node_states() {
                    known += 1;
                    let Some(other) = by_name.get(&*id.node_id).copied() else { continue };
                    complete += usize::from(state.get(NODE).is_some() && state.get(GROUP).is_some());
                    news |= other == 0 && state.get(NODE).is_some_and(|facts| facts.contains("changed"));
                    let heartbeat = u64::from(state.heartbeat());
                    let (peer, connected) = (peers[other], others[other]);
                    let beat = Beat { peer, generation: 1, heartbeat, connected };
                    if other != index && detector.judge(beat, rhythm_now.patience) {
                        alive.insert(other);
                    }
                }
            })
            .await;
        node.rhythm = rhythm(self.config.interval, self.config.patience, known);
        node.complete = complete == peers.len();
        if news && node.news.is_none() {
            node.news = Some(self.now);
        }
        let before = std::mem::replace(&mut node.alive, alive);
        let look = node.rhythm.look;
        let died = |other: &usize| self.nodes[*other].died.is_some();
        let lost = before.difference(&self.nodes[index].alive).filter(|other| !died(other)).count();
        self.false_deaths += lost;
        self.after(look, Event::Look(index));
    }

    async fn change_fact(&mut self, index: usize) {
        let facts = NodeFacts { problem: "changed".to_owned(), ..node_facts(index) };
        let value = facts::encode(&facts).unwrap_or_default();
        self.nodes[index]
            .chitchat
            .with_chitchat(|chitchat| chitchat.self_node_state().set(NODE, &value))
            .await;
    }

    /// Kills those nodes at once, and returns when the others have seen it: the median, and all.
    async fn kill(
        &mut self,
        all: &BTreeSet<usize>,
        victims: std::ops::Range<usize>,
        death: Death,
    ) -> anyhow::Result<(Duration, Duration)> {
        let at = self.now;
        for victim in victims.clone() {
            self.nodes[victim].died = Some((at, death));
        }
        let survivors: Vec<usize> =
            all.iter().copied().filter(|index| self.nodes[*index].died.is_none()).collect();
        let mut seen: BTreeMap<(usize, usize), Duration> = BTreeMap::new();
        while seen.len() < survivors.len() * victims.len() {
            anyhow::ensure!(self.now < at + GIVES_UP, "the dead are never seen to be dead");
            self.run_for(Duration::from_millis(50)).await?;
            for survivor in &survivors {
                for victim in victims.clone().filter(|victim| !self.nodes[*survivor].alive.contains(victim)) {
                    seen.entry((*survivor, victim)).or_insert(self.now - at);
                }
            }
        }
        Ok(median_and_max(seen.into_values().collect()))
    }

    fn sent(&self) -> Vec<u64> {
        self.nodes.iter().map(|node| node.sent).collect()
    }
}

fn node_facts(index: usize) -> NodeFacts {
    NodeFacts {
        name: format!("desktop-{index:04}"),
        version: "0.1.0".to_owned(),
        addresses: vec![[10, 0, (index / 250) as u8, (index % 250) as u8].into()],
        api_port: 6443,
        started_ms: 1_700_000_000_000,
        cpu_millis: 8_000,
        memory_bytes: 32 << 30,
        pods: 110,
        engine: "28.1.0".to_owned(),
        ready: true,
        kernel: "6.1.0-31-amd64".to_owned(),
        os_image: "Debian GNU/Linux 12 (bookworm)".to_owned(),
        arch: "x86_64".to_owned(),
        ..NodeFacts::default()
    }
}

fn facts_of(index: usize) -> Vec<(&'static str, String)> {
    let group = GroupFacts { group: "0123456789abcdef".to_owned(), epoch: 1, ..GroupFacts::default() };
    let both = [(NODE, facts::encode(&node_facts(index))), (GROUP, facts::encode(&group))];
    both.into_iter().filter_map(|(key, value)| Some((key, value?))).collect()
}

fn median_and_max(mut times: Vec<Duration>) -> (Duration, Duration) {
    times.sort_unstable();
    let at = |index: usize| times.get(index).copied().unwrap_or_default();
    (at(times.len() / 2), at(times.len().saturating_sub(1)))
}

type Said = Arc<Mutex<Vec<(SocketAddr, ChitchatMessage)>>>;

/// The simulation's end of a node's socket.
struct Wire {
    arrivals: mpsc::Sender<(SocketAddr, ChitchatMessage)>,
    /// A token for each time that the node begins to wait.
    waits: mpsc::Receiver<()>,
    said: Said,
}

impl Wire {
    async fn hand_in(&mut self, from: SocketAddr, message: ChitchatMessage) -> anyhow::Result<()> {
        self.settled();
        self.arrivals.send((from, message)).await.context("a node is gone")?;
        self.settle().await
    }

    /// Forgets that the node waited before.
    fn settled(&mut self) {
        while self.waits.try_recv().is_ok() {}
    }

    /// Returns when the node has done what it had to do, and waits.
    async fn settle(&mut self) -> anyhow::Result<()> {
        self.waits.recv().await.context("a node ended")
    }

    fn said(&self) -> Vec<(SocketAddr, ChitchatMessage)> {
        std::mem::take(&mut self.said.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

struct Socket {
    arrivals: mpsc::Receiver<(SocketAddr, ChitchatMessage)>,
    waits: mpsc::Sender<()>,
    said: Said,
}

/// Hands one socket out.
struct Net(Mutex<Option<Socket>>);

fn wire() -> (Net, Wire) {
    let ((arrivals, arrived), (waits, waited)) = (mpsc::channel(1), mpsc::channel(4));
    let said = Said::default();
    let socket = Socket { arrivals: arrived, waits, said: said.clone() };
    (Net(Mutex::new(Some(socket))), Wire { arrivals, waits: waited, said })
}

#[async_trait]
impl chitchat::transport::Transport for Net {
    async fn open(&self, _listen: SocketAddr) -> anyhow::Result<Box<dyn chitchat::transport::Socket>> {
        let socket = self.0.lock().unwrap_or_else(PoisonError::into_inner).take();
        Ok(Box::new(socket.context("the socket is taken already")?))
    }
}

#[async_trait]
impl chitchat::transport::Socket for Socket {
    async fn send(&mut self, to: SocketAddr, message: ChitchatMessage) -> anyhow::Result<()> {
        self.said.lock().unwrap_or_else(PoisonError::into_inner).push((to, message));
        Ok(())
    }

    async fn recv(&mut self) -> anyhow::Result<(SocketAddr, ChitchatMessage)> {
        // Full means that a token is there.
        let _ = self.waits.try_send(());
        self.arrivals.recv().await.context("the simulation has ended")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn flocks_of_some_sizes_hear_of_deaths_and_changes_in_time_and_never_of_deaths_that_were_none() {
        for (nodes, seed) in [(3, 1), (9, 2), (40, 3)] {
            let report = simulate(nodes, seed).await.unwrap();
            let told = format!("{}\n{report}", Report::HEADER);
            let within = |times: (Duration, Duration), median: u64, all: u64| {
                times.0 <= Duration::from_millis(median) && times.1 <= Duration::from_millis(all)
            };
            assert_eq!(report.false_deaths, 0, "{told}");
            assert!(report.start <= Duration::from_secs(2), "{told}");
            assert!(within(report.change, 600, 1_200), "{told}");
            assert!(within(report.crash, 1_600, 2_500), "{told}");
            assert!(within(report.cut, 2_800, 3_500), "{told}");
            assert!(report.bytes.1 <= 160 * 1024, "{told}");
        }
    }
}
