//! What nodes say of themselves, and how it is written into gossip.
//!
//! Pure. Every fact is one key with a JSON value. Nodes of different versions meet: what is missing takes its
//! default, what is unknown is ignored. Values are bounded on both sides, since chitchat never gets past a value
//! that does not fit into a message.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

pub(super) const PEER: &str = "peer";
pub(super) const NODE: &str = "node";
pub(super) const GROUP: &str = "group";
pub(super) const IMAGES: &str = "images";
pub(super) const ADDRESSES: &str = "addresses";

/// The longest value of any key, in bytes. chitchat's answer to an answer carries no digest, so that a value of this
/// length arrives also in a flock whose digest takes most of a message of 65,507 bytes.
pub(super) const LONGEST_VALUE: usize = 12 * 1024;
/// Addresses that a node tells of itself and that are believed of another one.
pub(super) const MOST_ADDRESSES: usize = 16;

/// What a node says of itself. Changes seldom: usage does not belong here.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct NodeFacts {
    /// The host name.
    pub name: String,
    /// Of gaggle.
    pub version: String,
    /// As Kubernetes' node labels.
    pub labels: BTreeMap<String, String>,
    /// Where its services can be reached.
    pub addresses: Vec<IpAddr>,
    pub api_port: u16,
    /// When it started, in milliseconds since 1970 by its own clock.
    pub started_ms: u64,
    /// What pods may use, in thousandths of a core.
    pub cpu_millis: u64,
    /// What pods may use.
    pub memory_bytes: u64,
    /// How many pods it takes.
    pub pods: u32,
    /// The version of its Docker engine; empty without one.
    pub engine: String,
    /// Why it is not ready; empty when it is.
    pub problem: String,
    pub ready: bool,
    /// It is going, and wants no more work.
    pub leaving: bool,
    pub kernel: String,
    pub os_image: String,
    pub arch: String,
    /// It runs on its battery. None where it has none, or an older version does not say.
    pub on_battery: Option<bool>,
    /// Its owner is using it. None where that cannot be told.
    pub owner_active: Option<bool>,
}

/// What a node is in its group.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Role {
    Leader,
    Voter,
    Follower,
    /// It follows no group, or one that a newer version knows more of.
    #[default]
    #[serde(other)]
    None,
}

/// What a node says of the group that it follows.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct GroupFacts {
    pub group: String,
    /// Grows when a group is founded anew.
    pub epoch: u64,
    pub term: u64,
    /// The newest revision that the node has.
    pub revision: u64,
    /// The term in which that revision was ordered; `term` is the group's present one.
    pub revision_term: u64,
    pub role: Role,
    /// The peer id of the leader that it follows.
    pub leader: Option<String>,
    /// Nodes on the roster.
    pub members: u32,
    /// Whether the leader hears from a majority.
    pub quorum: bool,
    /// The group counts it among the voters, and it has lost its log: it cannot vote before it was voted out.
    pub lost: bool,
    /// Whether more than half of its roster is here, as this node sees it, of whichever group they say that they are.
    #[serde(default)]
    pub could_act: bool,
}

/// A fact as a value; None when it is too long, which only its owner can put right.
pub(super) fn encode(fact: &impl Serialize) -> Option<String> {
    serde_json::to_string(fact).ok().filter(|value| value.len() <= LONGEST_VALUE)
}

/// The first images of a list that fit into a value.
pub(super) fn encode_images(images: &[String]) -> Option<String> {
    let mut room = LONGEST_VALUE - 2;
    let fitting = images.iter().take_while(|image| {
        // Quotes and comma; characters that need an escape are no part of an image's name, and are cut below.
        let cost = image.len() + 3;
        let fits = cost <= room;
        room = room.saturating_sub(cost);
        fits
    });
    encode(&fitting.collect::<Vec<_>>())
}

/// Reads what another node wrote; None when it makes no sense.
pub(super) fn decode<T: DeserializeOwned>(value: &str) -> Option<T> {
    if value.len() > LONGEST_VALUE {
        return None;
    }
    serde_json::from_str(value).ok()
}

/// Reads the addresses that another node listens on.
pub(super) fn decode_addresses(value: &str) -> Vec<SocketAddr> {
    let mut addresses: Vec<SocketAddr> = decode(value).unwrap_or_default();
    addresses.truncate(MOST_ADDRESSES);
    addresses
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn older_and_newer_nodes_understand_each_other() {
        let newer = r#"{"name":"lab-1","api_port":6443,"ready":true,"colour":"grey","engine":"28.1"}"#;
        let read: NodeFacts = decode(newer).unwrap();
        assert_eq!((read.name.as_str(), read.api_port, read.ready, read.pods), ("lab-1", 6443, true, 0));
        let group: GroupFacts = decode(r#"{"group":"g","role":"Archivist","term":3}"#).unwrap();
        assert_eq!((group.role, group.term, group.leader), (Role::None, 3, None));
    }

    #[test]
    fn a_long_list_of_images_is_cut_and_not_lost() {
        let images: Vec<String> =
            (0..1000).map(|n| format!("registry.example.org/project/image:{n:05}")).collect();
        let back: Vec<String> = decode(&encode_images(&images).unwrap()).unwrap();
        assert!(back.len() > 200 && images.starts_with(&back), "{}", back.len());
    }

    #[test]
    fn what_is_too_long_is_neither_sent_nor_believed() {
        let facts = NodeFacts { problem: "x".repeat(LONGEST_VALUE), ..NodeFacts::default() };
        assert_eq!(encode(&facts), None);
        assert_eq!(decode::<NodeFacts>(&serde_json::to_string(&facts).unwrap()), None);
    }

    proptest! {
        #[test]
        fn nothing_that_a_peer_writes_breaks_the_reader(value in ".{0,200}") {
            let _ = decode::<NodeFacts>(&value);
            let _ = decode::<GroupFacts>(&value);
            prop_assert!(decode_addresses(&value).len() <= MOST_ADDRESSES);
        }
    }
}
