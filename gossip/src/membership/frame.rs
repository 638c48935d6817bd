//! chitchat's messages as frames on a stream, one each.
//!
//! Pure. What does not fit or make sense is dropped, as a datagram would be.

use chitchat::{ChitchatMessage, Deserializable, Serializable};

/// The largest message: what chitchat itself allows for a UDP datagram.
pub(super) const LARGEST: usize = 65_507;

/// A message ready to be sent.
#[derive(Debug)]
pub(super) struct Frame {
    pub(super) bytes: Vec<u8>,
    /// Whether it can carry news, rather than only ask for it.
    pub(super) tells: bool,
}

pub(super) fn encode(message: &ChitchatMessage) -> Option<Frame> {
    let bytes = message.serialize_to_vec();
    let tells = matches!(message, ChitchatMessage::SynAck { .. } | ChitchatMessage::Ack { .. });
    (bytes.len() <= LARGEST).then_some(Frame { bytes, tells })
}

pub(super) fn decode(bytes: &[u8]) -> Option<ChitchatMessage> {
    ChitchatMessage::deserialize(&mut &bytes[..]).ok()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_message_comes_back() {
        let frame = encode(&ChitchatMessage::BadCluster).unwrap();
        assert_eq!(decode(&frame.bytes), Some(ChitchatMessage::BadCluster));
        assert!(!frame.tells);
    }

    proptest! {
        #[test]
        fn noise_is_dropped(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            let _ = decode(&bytes);
        }
    }
}
