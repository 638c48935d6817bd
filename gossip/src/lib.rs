//! Who is here, and what everyone should hold a copy of.
//!
//! The only crate that knows libp2p, chitchat and automerge. It knows nothing of scheduling, Docker or HTTP:
//! others see peers, byte streams, typed facts and documents.

mod formats;
pub mod identity;
pub mod intent;
pub mod membership;
pub mod transport;

pub use formats::{BadFormats, Formats};
pub use libp2p::PeerId;
