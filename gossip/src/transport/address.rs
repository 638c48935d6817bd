//! Addresses as people write them, as libp2p writes them, and which of them are worth dialling.
//!
//! Pure. Inside the transport an address is a `SocketAddr`; multiaddresses exist only at the border to libp2p and
//! in what is remembered on disk.

use std::fmt;
use std::net::{IpAddr, SocketAddr};

use libp2p::multiaddr::Protocol;
use libp2p::{Multiaddr, PeerId};

/// The port that nodes listen on, and that `--peer` means when it names none.
pub const DEFAULT_PORT: u16 = 7474;
/// The longest address that is looked at: a DNS name has at most 253 characters (RFC 1035), a peer id 64.
const LONGEST_CHARS: usize = 512;

/// What `--peer` names: a host or IP address, its port, and the node expected there, if the user said.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Target {
    pub(super) host: String,
    pub(super) port: u16,
    pub(super) peer: Option<PeerId>,
}

/// Why a peer address was not understood.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{text}` is not a peer address ({reason}): use host, host:port, [v6]:port or /ip4/.../tcp/...")]
pub struct AddressError {
    pub(super) text: String,
    pub(super) reason: &'static str,
}

/// Whether loopback addresses lead anywhere: only for nodes that listen on loopback alone (several on one machine).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Reach {
    Loopback,
    Network,
}

impl Target {
    /// Reads `host`, `host:port`, `v4`, `v4:port`, `v6`, `[v6]`, `[v6]:port` or a multiaddress with an IP address
    /// or DNS name, a TCP port and perhaps a peer id.
    ///
    /// # Errors
    /// Quotes the text (shortened) and says what is missing.
    pub fn parse(text: &str) -> Result<Self, AddressError> {
        let text = text.trim();
        let refuse = |reason| AddressError {
            text: text.chars().take(80).filter(|c| !c.is_control()).collect(),
            reason,
        };
        if text.is_empty() || text.len() > LONGEST_CHARS {
            return Err(refuse("empty or too long"));
        }
        if text.starts_with('/') {
            return Self::from_multiaddr(text).map_err(refuse);
        }
        if let Ok(ip) = text.trim_start_matches('[').trim_end_matches(']').parse::<IpAddr>() {
            return Ok(Self { host: ip.to_string(), port: DEFAULT_PORT, peer: None });
        }
        if let Ok(address) = text.parse::<SocketAddr>() {
            return match address.port() {
                0 => Err(refuse("port 0")),
                port => Ok(Self { host: address.ip().to_string(), port, peer: None }),
            };
        }
        let (host, port) = match text.rsplit_once(':') {
            None => (text, DEFAULT_PORT),
            Some((host, port)) => match port.parse() {
                Ok(0) | Err(_) => return Err(refuse("no such port")),
                Ok(port) => (host, port),
            },
        };
        let label = |label: &str| {
            !label.is_empty() && label.chars().all(|c| c.is_alphanumeric() || c == '-' || c == '_')
        };
        if !host.trim_end_matches('.').split('.').all(label) {
            return Err(refuse("no host name"));
        }
        Ok(Self { host: host.to_owned(), port, peer: None })
    }

    fn from_multiaddr(text: &str) -> Result<Self, &'static str> {
        let address: Multiaddr = text.parse().map_err(|_| "no multiaddress")?;
        let (mut host, mut port, mut peer) = (None, None, None);
        for part in &address {
            match part {
                Protocol::Ip4(ip) => host = Some(ip.to_string()),
                Protocol::Ip6(ip) => host = Some(ip.to_string()),
                Protocol::Dns(name) | Protocol::Dns4(name) | Protocol::Dns6(name) => {
                    host = Some(name.into_owned())
                }
                Protocol::Tcp(number) => port = Some(number),
                Protocol::P2p(id) => peer = Some(id),
                _ => return Err("only TCP is spoken"),
            }
        }
        match (host, port) {
            (Some(host), Some(port)) if port != 0 => Ok(Self { host, port, peer }),
            _ => Err("it needs an address and a TCP port"),
        }
    }

    /// The address, when it needs no name service.
    pub(super) fn literal(&self) -> Option<SocketAddr> {
        self.host.parse().ok().map(|ip: IpAddr| SocketAddr::new(ip, self.port))
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.host.contains(':') {
            write!(f, "[{}]:{}", self.host, self.port)
        } else {
            write!(f, "{}:{}", self.host, self.port)
        }
    }
}

pub(super) fn to_multiaddr(address: SocketAddr) -> Multiaddr {
    Multiaddr::empty().with(address.ip().into()).with(Protocol::Tcp(address.port()))
}

/// The IP address and TCP port that a multiaddress begins with.
pub(super) fn to_socket(address: &Multiaddr) -> Option<SocketAddr> {
    let mut parts = address.iter();
    let ip = match parts.next()? {
        Protocol::Ip4(ip) => IpAddr::V4(ip),
        Protocol::Ip6(ip) => IpAddr::V6(ip),
        _ => return None,
    };
    match parts.next()? {
        Protocol::Tcp(port) => Some(SocketAddr::new(ip, port)),
        _ => None,
    }
}

/// How a peer's address is remembered: with the peer's id, so that nobody else is mistaken for it.
pub(super) fn remembered(peer: &PeerId, address: SocketAddr) -> String {
    to_multiaddr(address).with(Protocol::P2p(*peer)).to_string()
}

/// Whether an address that others told us can be dialled at all.
pub(super) fn dialable(address: SocketAddr, reach: Reach) -> bool {
    let ip = address.ip();
    let scoped = match ip {
        // Link-local IPv6 needs a scope id, which is not part of what peers announce.
        IpAddr::V6(ip) => ip.is_unicast_link_local(),
        IpAddr::V4(ip) => ip.is_broadcast(),
    };
    address.port() != 0
        && !ip.is_unspecified()
        && !ip.is_multicast()
        && !scoped
        && (reach == Reach::Loopback || !ip.is_loopback())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_user_may_write_for_a_peer() {
        let peer = PeerId::random();
        let table = [
            ("lab-3", "lab-3", DEFAULT_PORT, None),
            ("lab-3.example.org:99", "lab-3.example.org", 99, None),
            (" 10.0.0.7 ", "10.0.0.7", DEFAULT_PORT, None),
            ("10.0.0.7:1234", "10.0.0.7", 1234, None),
            ("fd00::7", "fd00::7", DEFAULT_PORT, None),
            ("[fd00::7]", "fd00::7", DEFAULT_PORT, None),
            ("[fd00::7]:1234", "fd00::7", 1234, None),
            ("/ip4/10.0.0.7/tcp/1234", "10.0.0.7", 1234, None),
            ("/dns/lab-3/tcp/1234", "lab-3", 1234, None),
            (&format!("/ip4/10.0.0.7/tcp/1234/p2p/{peer}"), "10.0.0.7", 1234, Some(peer)),
        ];
        for (text, host, port, peer) in table {
            assert_eq!(Target::parse(text), Ok(Target { host: host.to_owned(), port, peer }), "{text}");
        }
    }

    #[test]
    fn what_leads_nowhere_is_refused_with_a_reason() {
        for text in [
            "",
            "lab:0",
            "lab:x",
            "lab:70000",
            "10.0.0.7:0",
            "a b",
            "/ip4/10.0.0.7",
            "/ip4/10.0.0.7/udp/1",
            "lab/3",
        ] {
            let error = Target::parse(text).unwrap_err();
            assert!(error.to_string().contains(text), "{error}");
        }
    }

    #[test]
    fn only_addresses_that_lead_to_another_desktop_are_dialled() {
        let dialable = |text: &str, reach| dialable(text.parse().unwrap(), reach);
        for text in ["10.0.0.7:1", "[fd00::7]:1"] {
            assert!(dialable(text, Reach::Network), "{text}");
        }
        for text in ["0.0.0.0:1", "10.0.0.7:0", "[fe80::1]:1", "224.0.0.1:1", "127.0.0.1:1", "[::1]:1"] {
            assert!(!dialable(text, Reach::Network), "{text}");
        }
        assert!(dialable("127.0.0.1:1", Reach::Loopback));
    }

    #[test]
    fn a_remembered_address_reads_back() {
        let (peer, address) = (PeerId::random(), "[fd00::7]:1234".parse().unwrap());
        let target = Target::parse(&remembered(&peer, address)).unwrap();
        assert_eq!((target.peer, target.literal()), (Some(peer), Some(address)));
        assert_eq!(to_socket(&to_multiaddr(address)), Some(address));
    }
}
