//! The connections that stand, peer by peer. Two nodes that dial each other at once have two, and keep both.
//!
//! Pure: time is an argument.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Instant;

use libp2p::PeerId;
use libp2p::swarm::ConnectionId;

use super::Connected;

/// Which connections stand, to whom, and since when. Bounded by the swarm's connection limits.
#[derive(Debug, Default)]
pub(super) struct Connections(BTreeMap<PeerId, BTreeMap<ConnectionId, (SocketAddr, Instant)>>);

/// What is left of a peer's connections after one ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Remaining {
    Some,
    None,
    /// The connection was not known.
    Unchanged,
}

impl Connections {
    pub(super) fn has(&self, peer: &PeerId) -> bool {
        self.0.contains_key(peer)
    }

    pub(super) fn add(&mut self, peer: PeerId, id: ConnectionId, remote: SocketAddr, now: Instant) {
        self.0.entry(peer).or_default().insert(id, (remote, now));
    }

    pub(super) fn remove(&mut self, peer: &PeerId, id: ConnectionId) -> Remaining {
        let Some(connections) = self.0.get_mut(peer) else { return Remaining::Unchanged };
        if connections.remove(&id).is_none() {
            return Remaining::Unchanged;
        }
        if connections.is_empty() {
            self.0.remove(peer);
            return Remaining::None;
        }
        Remaining::Some
    }

    /// Forgets all connections to a peer; whether there were any.
    pub(super) fn remove_all(&mut self, peer: &PeerId) -> bool {
        self.0.remove(peer).is_some()
    }

    /// What the world is told.
    pub(super) fn peers(&self) -> BTreeMap<PeerId, Connected> {
        let told = |connections: &BTreeMap<ConnectionId, (SocketAddr, Instant)>| {
            let mut addresses: Vec<SocketAddr> = connections.values().map(|(address, _)| *address).collect();
            addresses.sort_unstable();
            let since = connections.values().map(|(_, since)| *since).min()?;
            Some(Connected { addresses, since })
        };
        self.0.iter().filter_map(|(peer, connections)| Some((*peer, told(connections)?))).collect()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_peer_is_connected_until_its_last_connection_ends() {
        let (peer, now, mut connections) = (PeerId::random(), Instant::now(), Connections::default());
        let [one, two] = [ConnectionId::new_unchecked(1), ConnectionId::new_unchecked(2)];
        let [high, low] = [SocketAddr::from(([10, 0, 0, 2], 1)), SocketAddr::from(([10, 0, 0, 1], 1))];
        connections.add(peer, one, high, now);
        connections.add(peer, two, low, now + Duration::from_secs(1));
        assert_eq!(connections.peers()[&peer], Connected { addresses: vec![low, high], since: now });
        assert_eq!(connections.remove(&peer, one), Remaining::Some);
        assert_eq!(connections.remove(&peer, one), Remaining::Unchanged);
        assert!(connections.has(&peer));
        assert_eq!(connections.remove(&peer, two), Remaining::None);
        assert!(!connections.has(&peer) && connections.peers().is_empty());
    }
}
