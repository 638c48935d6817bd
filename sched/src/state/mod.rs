//! The versioned object store: keys, revisions, transactions, watch events.
//!
//! Pure and deterministic: the same transactions in the same order give the same store on every node. It knows
//! objects as JSON with Kubernetes metadata, and nothing of what any kind means.

mod by_key;
mod gaps;
mod key;
mod object;
mod ordered;
mod store;
mod txn;
mod view;

pub use by_key::{ByKey, Place};
pub use gaps::Gaps;
pub use key::{Key, Resource, resource_of};
pub use object::Object;
pub use store::{Change, Claim, Expired, Frozen, HISTORY_LIMIT, Lineage, Snapshot, Store};
pub use txn::{Adopted, Applied, Expect, Heads, Propose, Refused, Txn, TxnId, Unavailable, Write};
pub use view::{Seen, View};

use serde::{Deserialize, Serialize};

/// The number of the last committed write. It grows by one with every object written, in one order for the
/// whole group. The upper 24 bits are the group's epoch, so that a group founded anew never goes back.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Revision(pub u64);

impl Revision {
    const COUNTER_BITS: u32 = 40;

    /// The revision before the first write of an epoch.
    pub fn first_of(epoch: u64) -> Self {
        Self(epoch << Self::COUNTER_BITS)
    }

    /// The epoch that it was ordered in, or an earlier one of a group that went on above another one's revisions.
    pub fn epoch(self) -> u64 {
        self.0 >> Self::COUNTER_BITS
    }

    pub fn next(self) -> Self {
        Self(self.0 + 1)
    }
}

impl std::fmt::Display for Revision {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.fmt(f)
    }
}

impl std::str::FromStr for Revision {
    type Err = std::num::ParseIntError;

    fn from_str(s: &str) -> Result<Self, Self::Err> {
        s.parse().map(Self)
    }
}

#[cfg(test)]
mod tests;
