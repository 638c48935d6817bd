//! The address that chitchat knows a peer by.
//!
//! chitchat speaks to socket addresses; we speak to peer ids, whose real addresses change. So every peer has a
//! made-up one that follows from its id (in the range for private use, RFC 4193), and an id that is gossiped with
//! any other address is a lie. Pure.

use std::net::{Ipv6Addr, SocketAddr};

use chitchat::ChitchatId;
use libp2p::PeerId;
use sha2::{Digest as _, Sha256};

/// A port, since chitchat's addresses have one.
const PORT: u16 = 1;

/// The made-up address of a peer: `fd` and 120 bits of a hash.
pub(super) fn of(peer: &PeerId) -> SocketAddr {
    let hash = Sha256::digest(peer.to_bytes());
    let mut octets = [0u8; 16];
    octets[0] = 0xfd;
    octets[1..].copy_from_slice(&hash[..15]);
    SocketAddr::from((Ipv6Addr::from(octets), PORT))
}

/// How chitchat names a peer.
pub(super) fn chitchat_id(peer: &PeerId, generation: u64) -> ChitchatId {
    ChitchatId::new(peer.to_base58(), generation, of(peer))
}

/// The peer that chitchat names, if the name is consistent.
pub(super) fn peer(id: &ChitchatId) -> Option<PeerId> {
    id.node_id.parse().ok().filter(|peer| of(peer) == id.gossip_advertise_addr)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_with_another_ones_address_is_not_believed() {
        let (one, other) = (PeerId::random(), PeerId::random());
        assert_eq!(peer(&chitchat_id(&one, 7)), Some(one));
        assert_eq!(peer(&ChitchatId::new(one.to_base58(), 7, of(&other))), None);
        assert_eq!(peer(&ChitchatId::new("goose", 7, of(&one))), None);
    }
}
