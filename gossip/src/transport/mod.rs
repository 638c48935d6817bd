//! Byte streams between the nodes of a cluster: finding them, staying connected to them, and keeping others out.
//!
//! Owns sockets, the address book and the connections; one task owns the libp2p swarm (`swarm`), everybody else
//! holds a [`Transport`], which is a handle. Without the cluster's phrase a peer gets no byte past the pre-shared
//! key. Must never know what the streams carry.
//!
//! [`MemoryHub`] makes transports of the same type that need no network, for tests of what runs on top.

mod address;
mod book;
mod connections;
mod handle;
mod memory;
mod notice;
mod shell;
mod silence;
mod stream;
mod swarm;
mod wanted;
mod wire;

#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use libp2p::PeerId;

pub use address::{AddressError, DEFAULT_PORT, Target};
pub use handle::Transport;
pub use memory::MemoryHub;
pub use stream::{Acceptor, Stream, read_frame, write_frame};

/// Refusals of one machine within this time are logged once.
const REPEATED_WITHIN: Duration = Duration::from_secs(60);

/// What a transport is told at its start.
#[derive(Clone, Debug, Default)]
pub struct TransportConfig {
    /// Where to listen. `0.0.0.0` means every address that the desktop has or will have; port 0 any free port.
    pub listen: Vec<SocketAddr>,
    /// Peers that the user named (`--peer`): a host, `host:port` or a multiaddress each. Dialled for ever.
    pub peers: Vec<String>,
    /// What [`Transport::known`] said before the last stop. Unreadable entries are skipped.
    pub remembered: Vec<String>,
    /// Whether to find peers on the local network by multicast DNS.
    pub mdns: bool,
}

/// A peer that a connection stands to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Connected {
    /// The peer's end of each connection, sorted. An inbound one shows a port that nobody listens on.
    pub addresses: Vec<SocketAddr>,
    /// When the first of the connections that still stand was made.
    pub since: Instant,
}

/// The peers that a connection stands to, by their ids.
pub type ConnectedPeers = Arc<BTreeMap<PeerId, Connected>>;

/// Peers that were removed from the cluster for good, by their ids.
pub type Refused = Arc<BTreeSet<PeerId>>;

/// Who turned to whom.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    /// This node dialled.
    Outbound,
    /// The other one dialled.
    Inbound,
}

/// A connection that was refused for a reason that a user should hear.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// The other end.
    pub address: SocketAddr,
    pub direction: Direction,
    pub at: SystemTime,
    /// A sentence for the user; also what `Display` shows.
    pub why: String,
}

impl Refusal {
    fn other_phrase(address: SocketAddr, direction: Direction) -> Self {
        let why = match direction {
            Direction::Outbound => format!("{address} speaks another phrase, or is no gaggle node"),
            Direction::Inbound => format!("{address} tried to join with another phrase"),
        };
        Self { address, direction, at: SystemTime::now(), why }
    }

    /// Whether `newer` says the same again about the same machine, within a minute.
    fn repeats(&self, newer: &Self) -> bool {
        let soon = newer.at.duration_since(self.at).is_ok_and(|passed| passed < REPEATED_WITHIN);
        soon && self.address.ip() == newer.address.ip() && self.direction == newer.direction
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.why)
    }
}

/// Why a transport did not start.
#[derive(Debug, thiserror::Error)]
pub enum TransportError {
    #[error("no address to listen on was given")]
    NowhereToListen,
    #[error("cannot listen on {address}: is it this desktop's, and is no other gaggle running?")]
    Listen { address: SocketAddr, source: io::Error },
    #[error("a peer was given that cannot be dialled")]
    Peer(#[from] AddressError),
    #[error("the node key cannot be used for encryption: {reason}")]
    Key { reason: String },
}

/// Why no stream was opened.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum OpenError {
    #[error("{peer} is not connected and no address of it is known")]
    Unknown { peer: PeerId },
    #[error("{peer} cannot be reached ({why})")]
    Unreachable { peer: PeerId, why: String },
    #[error("{peer} does not speak {protocol}: does it run an older version, or is it still starting?")]
    Unsupported { peer: PeerId, protocol: &'static str },
    #[error("{peer} did not take a stream for {protocol} in time")]
    Deadline { peer: PeerId, protocol: &'static str },
    #[error("{peer} was evicted from the cluster")]
    Refused { peer: PeerId },
    #[error("the transport is shut down")]
    Closed,
}

/// Why a protocol cannot be accepted.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AcceptError {
    #[error("{protocol} is accepted already")]
    Taken { protocol: &'static str },
    #[error("`{protocol}` is no protocol name: it must begin with /")]
    Name { protocol: &'static str },
    #[error("the transport is shut down")]
    Closed,
}

/// Why an address was not taken up.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DialError {
    #[error("cannot dial")]
    Address(#[from] AddressError),
    #[error("the transport is shut down")]
    Closed,
}
