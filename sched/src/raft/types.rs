//! The names under which the group's parts know each other: ids, log payload, the type set given to openraft.

use crate::state::{Applied, Refused, Txn};
use openraft::{LogId, Membership, SnapshotMeta, StorageError, StoredMembership, Vote};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use std::collections::BTreeSet;
use std::fmt;
use std::io::Cursor;
use std::str::FromStr;
use std::sync::Arc;

/// A voter's number, derived from its peer id so that nobody hands numbers out.
pub(super) type NodeId = u64;

/// What membership keeps of a voter: its peer id, by which the network finds it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct RaftPeer {
    pub peer: String,
}

/// The first eight bytes of the peer id's SHA-256. With a flock of thousands two are equal with a chance of less
/// than one in 10^12.
pub(super) fn node_id(peer: &str) -> NodeId {
    let digest = Sha256::digest(peer.as_bytes());
    digest.iter().take(8).fold(0, |id, byte| id << 8 | u64::from(*byte))
}

/// One log entry: the transactions that were waiting while the one before it was flushed. Shared, because the
/// log's cache, replication and the state machine each hold it.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(super) struct Batch {
    pub txns: Arc<Vec<Txn>>,
}

/// What became of each transaction of a batch, in order.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(super) struct Outcome(pub Vec<Result<Applied, Refused>>);

openraft::declare_raft_types!(
    pub(super) Types:
        D = Batch,
        R = Outcome,
        NodeId = NodeId,
        Node = RaftPeer,
        Entry = openraft::Entry<Types>,
        SnapshotData = Cursor<Vec<u8>>,
);

pub(super) type Raft = openraft::Raft<Types>;
pub(super) type Entry = openraft::Entry<Types>;
pub(super) type Id = LogId<NodeId>;
pub(super) type Ballot = Vote<NodeId>;
pub(super) type Members = Membership<NodeId, RaftPeer>;
pub(super) type StoredMembers = StoredMembership<NodeId, RaftPeer>;
pub(super) type Meta = SnapshotMeta<NodeId, RaftPeer>;
pub(super) type Failure = StorageError<NodeId>;

/// The peers that vote, in both halves of a joint configuration.
pub(super) fn voters(members: &Members) -> BTreeSet<String> {
    let ids: BTreeSet<NodeId> = members.voter_ids().collect();
    members.nodes().filter(|(id, _)| ids.contains(id)).map(|(_, node)| node.peer.clone()).collect()
}

/// Whether the membership names a peer, as voter or learner.
pub(super) fn names(members: &Members, peer: &str) -> bool {
    members.get_node(&node_id(peer)).is_some_and(|node| node.peer == peer)
}

/// A group's name for life: 16 hex digits, drawn at random by whoever founds it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct GroupId(String);

/// A string that is not a group id.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a group id is 16 hex digits")]
pub struct BadGroupId;

impl GroupId {
    /// From eight random bytes.
    pub fn from_random(bytes: [u8; 8]) -> Self {
        Self(bytes.iter().map(|byte| format!("{byte:02x}")).collect())
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for GroupId {
    type Err = BadGroupId;

    fn from_str(s: &str) -> Result<Self, BadGroupId> {
        let is_digit = |b: u8| b.is_ascii_digit() || (b'a'..=b'f').contains(&b);
        if s.len() == 16 && s.bytes().all(is_digit) { Ok(Self(s.to_owned())) } else { Err(BadGroupId) }
    }
}

impl TryFrom<String> for GroupId {
    type Error = BadGroupId;

    fn try_from(s: String) -> Result<Self, BadGroupId> {
        s.parse()
    }
}

impl From<GroupId> for String {
    fn from(id: GroupId) -> Self {
        id.0
    }
}

impl fmt::Display for GroupId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}
