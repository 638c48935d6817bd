//! What can be asked of the store, and what it answers.

use super::{Key, Revision};
use serde::{Deserialize, Serialize};
use serde_json::Value;

/// Heads of an intent document: the hashes of its newest changes, sorted.
pub type Heads = Vec<[u8; 32]>;

/// Writes that are applied all together or not at all.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Txn {
    /// Given by whoever may have to send it again because the answer was lost: it then happens once at most.
    pub id: Option<TxnId>,
    pub writes: Vec<Write>,
}

/// Two random numbers: what tells a transaction from all others.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct TxnId(pub u64, pub u64);

impl From<Write> for Txn {
    fn from(write: Write) -> Self {
        vec![write].into()
    }
}

impl From<Vec<Write>> for Txn {
    fn from(writes: Vec<Write>) -> Self {
        Self { id: None, writes }
    }
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Write {
    /// Create or replace an object. `metadata.resourceVersion` in `value` is ignored: the store sets it.
    Put { key: Key, value: Value, expect: Expect, intent: Option<Adopted> },
    /// Replace the `status` of the object with this uid and touch nothing else. A status equal to the stored
    /// one, or of an object that is gone, changes nothing and is not an error. `seen`: refused as a conflict
    /// if the object has moved on from there, so that what others wrote into the status is not lost.
    Status { key: Key, uid: String, status: Value, seen: Option<Revision> },
    /// Remove an object for good (finalizers and grace periods are the API's concern). With [`Expect::Absent`] it is gone
    /// already, and what changes is only what was adopted: its document's end, or, without heads, that it is forgotten.
    Delete { key: Key, expect: Expect, intent: Option<Adopted> },
}

impl Write {
    pub fn key(&self) -> &Key {
        match self {
            Self::Put { key, .. } | Self::Status { key, .. } | Self::Delete { key, .. } => key,
        }
    }
}

/// What must be true of the object now for a write to happen.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Expect {
    Any,
    Absent,
    Present,
    Revision(Revision),
    Uid(String),
}

/// The intent change that a write adopts: the document's raw change and its heads afterwards.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Adopted {
    #[serde(with = "serde_bytes")]
    pub change: Vec<u8>,
    pub heads: Heads,
    /// What the change was prepared on. Where the object was last adopted from something else, the change would undo
    /// what its maker does not know of, and is refused as a conflict. `None`: whatever there is.
    #[serde(default)]
    pub base: Option<Heads>,
}

/// A transaction that was applied.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Applied {
    /// The store's revision after it (unchanged if nothing was different).
    pub revision: Revision,
}

/// A transaction that was refused; nothing was changed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
pub enum Refused {
    #[error("{0} already exists")]
    AlreadyExists(Key),
    #[error("{0} not found")]
    NotFound(Key),
    #[error("{key} is at revision {current}, not at the one that the change was made for")]
    Conflict { key: Key, current: Revision },
}

impl Refused {
    pub fn key(&self) -> &Key {
        match self {
            Self::AlreadyExists(key) | Self::NotFound(key) | Self::Conflict { key, .. } => key,
        }
    }
}

/// No group could take the write now: it may be tried again, or kept as intent.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
pub enum Unavailable {
    #[error("there is no quorum: {0}")]
    NoQuorum(String),
    /// The answer was lost: the write may or may not have been ordered.
    #[error("the leader did not answer: {0}")]
    Unknown(String),
    /// More is waiting than the leader takes on.
    #[error("the leader has too much to do ({0} transactions waiting)")]
    Busy(usize),
}

/// Whoever can bring a transaction into the group's order: the leader's own queue, or the way to it.
#[async_trait::async_trait]
pub trait Propose: Send + Sync + 'static {
    /// Returns once the transaction is committed and fsynced by a quorum, or refused, and the caller's own view
    /// has reached it.
    async fn propose(&self, txn: Txn) -> Result<Result<Applied, Refused>, Unavailable>;
}
