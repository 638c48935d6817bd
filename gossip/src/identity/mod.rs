//! What a node is and what it belongs to: the phrase that a cluster shares, the keys that derive from it, and the
//! key that is this node's own.
//!
//! Owns secrets at rest and in memory. Must never know sockets, peers' addresses or what the derived keys are for:
//! whoever needs a key names its purpose to [`ClusterKey::derive`].

mod cluster_key;
mod node_key;
mod phrase;

pub use cluster_key::{ClusterKey, StretchError};
pub use node_key::{IdentityError, NodeKey};
pub use phrase::{Phrase, PhraseError, Strength};
