//! The name and the address that chitchat knows a peer by.
//!
//! chitchat speaks to socket addresses; we speak to peer ids, whose real addresses change. So every peer has a
//! made-up address that follows from its id, and an id that is gossiped with any other one is a lie. Pure.
//!
//! Both are short, because every greeting names every member, and chitchat's largest message must hold a thousand
//! of them: sixteen characters of the peer id (93 bits, too many to be searched for) and an address of the old kind,
//! six bytes. The whole peer id is one of the facts that a node tells of itself.

use std::net::{Ipv4Addr, SocketAddr};

use chitchat::ChitchatId;
use libp2p::PeerId;
use sha2::{Digest as _, Sha256};

/// The characters of a peer id that gossip calls it by: its last, which differ. Ids of one kind begin alike.
const NAME_LENGTH: usize = 16;
/// The bytes that one member takes in a greeting: name, run, address, heartbeat and two versions.
pub(super) const DIGEST_BYTES: usize = 2 + NAME_LENGTH + 8 + 7 + 24;

/// The made-up address of a peer: six bytes of a hash. It is never dialled.
pub(super) fn of(peer: &PeerId) -> SocketAddr {
    let hash = Sha256::digest(peer.to_bytes());
    let [a, b, c, d, high, low, ..] = <[u8; 32]>::from(hash);
    SocketAddr::from((Ipv4Addr::new(a, b, c, d), u16::from_be_bytes([high, low])))
}

/// How chitchat names a peer.
pub(super) fn chitchat_id(peer: &PeerId, generation: u64) -> ChitchatId {
    let text = peer.to_base58();
    let name = text.get(text.len().saturating_sub(NAME_LENGTH)..).unwrap_or_default();
    ChitchatId::new(name.to_owned(), generation, of(peer))
}

/// The peer that chitchat names, if what the node says of itself is consistent with the name.
pub(super) fn peer(id: &ChitchatId, told: &str) -> Option<PeerId> {
    told.parse().ok().filter(|peer| chitchat_id(peer, id.generation_id) == *id)
}

#[cfg(test)]
mod tests {
    use chitchat::Serializable as _;

    use super::*;

    #[test]
    fn a_name_that_is_another_ones_is_not_believed() {
        let (one, other) = (PeerId::random(), PeerId::random());
        let id = chitchat_id(&one, 7);
        assert_eq!(peer(&id, &one.to_base58()), Some(one));
        assert_eq!(peer(&id, &other.to_base58()), None);
        assert_eq!(peer(&id, "goose"), None);
        let moved = ChitchatId::new(id.node_id.to_string(), 7, of(&other));
        assert_eq!(peer(&moved, &one.to_base58()), None);
    }

    #[test]
    fn a_member_takes_as_little_room_as_is_reckoned_with() {
        let id = chitchat_id(&PeerId::random(), u64::MAX);
        assert_eq!(id.serialized_len() + 24, DIGEST_BYTES);
    }
}
