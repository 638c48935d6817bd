//! The address book: which peers are known, where, and when each is to be dialled next.
//!
//! Pure: time and jitter are arguments. Must never dial, and never know libp2p.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use libp2p::PeerId;

use super::address;

/// Peers that are kept. Beyond a cluster of this size gossip needs another shape anyway.
const MOST_PEERS: usize = 1024;
/// Addresses kept for one peer: a desktop has a cable, a radio, a few bridges, and the addresses it had yesterday.
const MOST_ADDRESSES: usize = 8;
/// The first pause after a connection is lost or a dial fails: a restarted node is back in about this time.
const SHORTEST_PAUSE: Duration = Duration::from_millis(200);
/// The longest pause: what a user waits at most for a machine that comes back without mDNS.
const LONGEST_PAUSE: Duration = Duration::from_secs(5);
/// The pause after a peer turned out to hold another phrase: its cluster is not ours, and dialling it fills both logs.
const REFUSED_PAUSE: Duration = Duration::from_secs(60);
/// Failures in a row after which a peer that was never reached is forgotten. Whoever names it again brings it back.
const FAILURES_TO_FORGET: u32 = 12;

/// The pause before dial number `failures + 1`: doubles from the shortest to the longest, of which `jitter` (0 to 1)
/// takes up to half away, so that a lab that is switched on at once does not dial in step.
pub(super) fn pause(failures: u32, jitter: f64) -> Duration {
    let doubled = SHORTEST_PAUSE.saturating_mul(1 << failures.min(10));
    doubled.min(LONGEST_PAUSE).mul_f64(1.0 - jitter.clamp(0.0, 1.0) / 2.0)
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    Waiting { due: Instant },
    Dialling,
    Connected,
}

#[derive(Debug)]
struct Entry {
    /// The most recently heard or confirmed last, so that the oldest makes room.
    addresses: Vec<SocketAddr>,
    phase: Phase,
    failures: u32,
    failed_at: Option<Instant>,
    refused_until: Option<Instant>,
    /// Was connected at least once, so it is a member and not just an announcement.
    proven: bool,
}

/// What is known about where peers are.
#[derive(Debug)]
pub(super) struct Book {
    local: PeerId,
    peers: BTreeMap<PeerId, Entry>,
    /// Never dialled and not remembered: they were removed for good.
    evicted: BTreeSet<PeerId>,
    /// Grows with every change of what is worth remembering.
    revision: u64,
}

impl Book {
    pub(super) fn new(local: PeerId) -> Self {
        Self { local, peers: BTreeMap::new(), evicted: BTreeSet::new(), revision: 0 }
    }

    pub(super) fn revision(&self) -> u64 {
        self.revision
    }

    pub(super) fn knows(&self, peer: &PeerId) -> bool {
        self.peers.get(peer).is_some_and(|entry| !entry.addresses.is_empty())
    }

    /// From now on these peers are strangers, whoever speaks of them.
    pub(super) fn evict(&mut self, evicted: BTreeSet<PeerId>) {
        self.peers.retain(|peer, _| !evicted.contains(peer));
        self.evicted = evicted;
        self.revision += 1;
    }

    /// Notes an address that a member or the disk named. A new one is tried at once.
    pub(super) fn learn(&mut self, peer: PeerId, address: SocketAddr, now: Instant) {
        if peer == self.local || !self.admit(peer, now) {
            return;
        }
        let Some(entry) = self.peers.get_mut(&peer) else { return };
        if entry.addresses.contains(&address) {
            return;
        }
        if entry.addresses.len() >= MOST_ADDRESSES {
            entry.addresses.remove(0);
        }
        entry.addresses.push(address);
        entry.due_now(now);
        if entry.proven {
            self.revision += 1;
        }
    }

    /// mDNS sees the peer at this moment: no reason to wait any longer.
    pub(super) fn sighted(&mut self, peer: PeerId, address: SocketAddr, now: Instant) {
        self.learn(peer, address, now);
        if let Some(entry) = self.peers.get_mut(&peer) {
            entry.due_now(now);
        }
    }

    /// A connection stands; `dialled` is the address that led to it, when this side dialled.
    pub(super) fn connected(&mut self, peer: PeerId, dialled: Option<SocketAddr>, now: Instant) {
        if peer == self.local || !self.admit(peer, now) {
            return;
        }
        let Some(entry) = self.peers.get_mut(&peer) else { return };
        if !entry.proven || dialled.is_some_and(|address| entry.addresses.last() != Some(&address)) {
            self.revision += 1;
        }
        entry.proven = true;
        entry.phase = Phase::Connected;
        entry.failures = 0;
        entry.failed_at = None;
        entry.refused_until = None;
        if let Some(address) = dialled {
            entry.addresses.retain(|known| *known != address);
            if entry.addresses.len() >= MOST_ADDRESSES {
                entry.addresses.remove(0);
            }
            entry.addresses.push(address);
        }
    }

    /// The last connection to the peer is gone.
    pub(super) fn disconnected(&mut self, peer: &PeerId, now: Instant, jitter: f64) {
        if let Some(entry) = self.peers.get_mut(peer) {
            entry.phase = Phase::Waiting { due: now + pause(0, jitter) };
        }
    }

    /// A dial to the peer failed. A connection that stands (the peer dialled us meanwhile) is not touched.
    pub(super) fn failed(&mut self, peer: &PeerId, now: Instant, jitter: f64) {
        let Some(entry) = self.peers.get_mut(peer) else { return };
        if entry.phase == Phase::Connected {
            return;
        }
        entry.failures = entry.failures.saturating_add(1);
        entry.failed_at = Some(now);
        entry.phase = Phase::Waiting { due: now + pause(entry.failures, jitter) };
        if entry.addresses.is_empty() || (!entry.proven && entry.failures >= FAILURES_TO_FORGET) {
            self.peers.remove(peer);
            self.revision += 1;
        }
    }

    /// Whoever answers at this address holds another phrase.
    pub(super) fn refused(&mut self, address: SocketAddr, now: Instant) {
        for entry in self.peers.values_mut().filter(|entry| entry.addresses.contains(&address)) {
            entry.refused_until = Some(now + REFUSED_PAUSE);
        }
    }

    /// Somebody else lives at this address now.
    pub(super) fn forget(&mut self, peer: &PeerId, address: SocketAddr) {
        if let Some(entry) = self.peers.get_mut(peer) {
            entry.addresses.retain(|known| *known != address);
            self.revision += 1;
        }
    }

    /// Takes the peers whose time has come, at most `limit`, each with the addresses to try. Addresses in `own` are
    /// left out: a bridge has the same address on every desktop, and dialling it would reach ourselves.
    pub(super) fn take_due(
        &mut self,
        now: Instant,
        limit: usize,
        own: &[SocketAddr],
    ) -> Vec<(PeerId, Vec<SocketAddr>)> {
        let due: Vec<PeerId> = self
            .peers
            .iter()
            .filter(|(_, entry)| entry.due().is_some_and(|due| due <= now))
            .map(|(peer, _)| *peer)
            .take(limit)
            .collect();
        due.into_iter()
            .filter_map(|peer| self.dial(&peer, now, own).map(|addresses| (peer, addresses)))
            .collect()
    }

    /// Marks the peer as being dialled and gives its addresses, the most promising first. None when there is nothing
    /// to dial; the peer then waits for its longest pause.
    pub(super) fn dial(
        &mut self,
        peer: &PeerId,
        now: Instant,
        own: &[SocketAddr],
    ) -> Option<Vec<SocketAddr>> {
        let entry = self.peers.get_mut(peer)?;
        let addresses: Vec<SocketAddr> =
            entry.addresses.iter().rev().copied().filter(|address| !own.contains(address)).collect();
        if addresses.is_empty() {
            entry.phase = Phase::Waiting { due: now + LONGEST_PAUSE };
            return None;
        }
        entry.phase = Phase::Dialling;
        Some(addresses)
    }

    /// Whether the peer is being dialled already.
    pub(super) fn is_dialling(&self, peer: &PeerId) -> bool {
        self.peers.get(peer).is_some_and(|entry| entry.phase == Phase::Dialling)
    }

    /// Whether the last dial failed so recently that another one would tell nothing new.
    pub(super) fn just_failed(&self, peer: &PeerId, now: Instant) -> bool {
        let recently = |at: Instant| now.saturating_duration_since(at) < SHORTEST_PAUSE;
        self.peers.get(peer).and_then(|entry| entry.failed_at).is_some_and(recently)
    }

    /// When [`Book::take_due`] has something next.
    pub(super) fn next_due(&self) -> Option<Instant> {
        self.peers.values().filter_map(Entry::due).min()
    }

    /// The addresses of peers that were connected once, for the next start.
    pub(super) fn worth_remembering(&self) -> Vec<String> {
        self.peers
            .iter()
            .filter(|(_, entry)| entry.proven)
            .flat_map(|(peer, entry)| entry.addresses.iter().map(|known| address::remembered(peer, *known)))
            .collect()
    }

    /// Makes sure that the peer has an entry, at the cost of an unproven one when the book is full.
    fn admit(&mut self, peer: PeerId, now: Instant) -> bool {
        if self.peers.contains_key(&peer) {
            return true;
        }
        if self.evicted.contains(&peer) {
            return false;
        }
        if self.peers.len() >= MOST_PEERS {
            // Announcements are free for anybody on the network: they never push a member out.
            let victim = self
                .peers
                .iter()
                .filter(|(_, entry)| !entry.proven && entry.phase != Phase::Connected)
                .max_by_key(|(_, entry)| entry.failures)
                .map(|(peer, _)| *peer);
            match victim {
                Some(victim) => self.peers.remove(&victim),
                None => return false,
            };
        }
        let entry = Entry {
            addresses: Vec::new(),
            phase: Phase::Waiting { due: now },
            failures: 0,
            failed_at: None,
            refused_until: None,
            proven: false,
        };
        self.peers.insert(peer, entry);
        true
    }
}

impl Entry {
    fn due(&self) -> Option<Instant> {
        match self.phase {
            Phase::Waiting { .. } if self.addresses.is_empty() => None,
            Phase::Waiting { due } => Some(self.refused_until.map_or(due, |until| due.max(until))),
            Phase::Dialling | Phase::Connected => None,
        }
    }

    fn due_now(&mut self, now: Instant) {
        if let Phase::Waiting { due } = &mut self.phase {
            *due = (*due).min(now);
            self.failures = 0;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(last: u8) -> SocketAddr {
        SocketAddr::from(([10, 0, 0, last], 7474))
    }

    fn after(start: Instant, millis: u64) -> Instant {
        start + Duration::from_millis(millis)
    }

    #[test]
    fn pauses_double_to_a_limit_and_jitter_only_shortens() {
        assert_eq!(pause(0, 0.0), SHORTEST_PAUSE);
        assert_eq!(pause(1, 0.0), SHORTEST_PAUSE * 2);
        for failures in 0..100 {
            for jitter in [0.0, 0.3, 1.0, 7.0] {
                assert!((SHORTEST_PAUSE / 2..=LONGEST_PAUSE).contains(&pause(failures, jitter)));
            }
        }
    }

    #[test]
    fn a_learned_peer_is_dialled_once_at_once_and_again_after_a_pause() {
        let (now, peer) = (Instant::now(), PeerId::random());
        let mut book = Book::new(PeerId::random());
        book.learn(peer, address(1), now);
        assert_eq!(book.take_due(now, 9, &[]), vec![(peer, vec![address(1)])]);
        assert!(book.take_due(now, 9, &[]).is_empty(), "it is being dialled");
        book.failed(&peer, now, 0.0);
        assert!(book.just_failed(&peer, after(now, 100)));
        assert!(book.take_due(after(now, 399), 9, &[]).is_empty());
        assert_eq!(book.next_due(), Some(after(now, 400)));
        assert_eq!(book.take_due(after(now, 400), 9, &[]).len(), 1);
    }

    #[test]
    fn a_sighting_ends_the_pause_but_not_for_a_stranger_with_another_phrase() {
        let (now, peer) = (Instant::now(), PeerId::random());
        let mut book = Book::new(PeerId::random());
        book.sighted(peer, address(1), now);
        book.take_due(now, 9, &[]);
        book.failed(&peer, now, 0.0);
        book.sighted(peer, address(1), after(now, 1));
        assert_eq!(book.take_due(after(now, 1), 9, &[]).len(), 1);
        book.refused(address(1), now);
        book.failed(&peer, now, 0.0);
        book.sighted(peer, address(1), after(now, 2));
        assert!(book.take_due(after(now, 50_000), 9, &[]).is_empty());
        assert_eq!(book.take_due(after(now, 60_001), 9, &[]).len(), 1);
    }

    #[test]
    fn a_lost_peer_is_dialled_again_at_the_address_that_worked_last() {
        let (now, peer) = (Instant::now(), PeerId::random());
        let mut book = Book::new(PeerId::random());
        for last in 1..=20 {
            book.learn(peer, address(last), now);
        }
        book.connected(peer, Some(address(1)), now);
        assert!(book.take_due(after(now, 60_000), 9, &[]).is_empty());
        book.disconnected(&peer, now, 0.0);
        let due = book.take_due(after(now, 200), 9, &[address(20)]);
        assert_eq!(due[0].1[0], address(1));
        assert_eq!(due[0].1.len(), MOST_ADDRESSES - 1, "bounded, and without our own");
    }

    #[test]
    fn only_proven_peers_are_remembered_and_announcements_cannot_push_them_out() {
        let (now, member) = (Instant::now(), PeerId::random());
        let mut book = Book::new(PeerId::random());
        book.connected(member, Some(address(1)), now);
        for _ in 0..2 * MOST_PEERS {
            book.sighted(PeerId::random(), address(2), now);
        }
        assert_eq!(book.peers.len(), MOST_PEERS);
        assert_eq!(book.worth_remembering(), vec![address::remembered(&member, address(1))]);
    }

    #[test]
    fn who_was_never_reached_is_forgotten_and_who_was_is_not() {
        let (now, never, once) = (Instant::now(), PeerId::random(), PeerId::random());
        let mut book = Book::new(PeerId::random());
        book.learn(never, address(1), now);
        book.connected(once, Some(address(2)), now);
        book.disconnected(&once, now, 0.0);
        for _ in 0..100 {
            book.failed(&never, now, 0.5);
            book.failed(&once, now, 0.5);
        }
        assert!(!book.knows(&never));
        assert!(book.knows(&once));
    }

    #[test]
    fn nobody_dials_themselves() {
        let (now, local) = (Instant::now(), PeerId::random());
        let mut book = Book::new(local);
        book.learn(local, address(1), now);
        assert_eq!(book.next_due(), None);
    }
}
