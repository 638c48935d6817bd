//! Addresses as people write them: with a port or without.

use super::OptionError;
use std::fmt;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::str::FromStr;

/// Where desktops talk to each other.
pub const DEFAULT_PEER_PORT: u16 = 7474;
/// Where the Kubernetes API listens, as everywhere.
pub const DEFAULT_API_PORT: u16 = 6443;

/// `IP:PORT`, `IP`, `PORT` or `:PORT`, for desktop-to-desktop traffic.
pub fn parse_listen(text: &str) -> Result<SocketAddr, OptionError> {
    listen_address(text, DEFAULT_PEER_PORT)
}

/// The same for the Kubernetes API.
pub fn parse_api_listen(text: &str) -> Result<SocketAddr, OptionError> {
    listen_address(text, DEFAULT_API_PORT)
}

fn listen_address(text: &str, default_port: u16) -> Result<SocketAddr, OptionError> {
    let everywhere = IpAddr::V4(Ipv4Addr::UNSPECIFIED);
    if let Ok(address) = text.parse::<SocketAddr>() {
        return Ok(address);
    }
    let bare = text.strip_prefix('[').and_then(|t| t.strip_suffix(']')).unwrap_or(text);
    if let Ok(ip) = bare.parse::<IpAddr>() {
        return Ok(SocketAddr::new(ip, default_port));
    }
    match text.strip_prefix(':').unwrap_or(text).parse::<u16>() {
        Ok(port) => Ok(SocketAddr::new(everywhere, port)),
        Err(_) => Err(OptionError::Listen(text.to_owned())),
    }
}

/// Another desktop, by address or host name; looked up each time it is dialled, because DHCP may move it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PeerAddress {
    /// An IP address without brackets, or a host name.
    pub host: String,
    pub port: u16,
}

impl FromStr for PeerAddress {
    type Err = OptionError;

    fn from_str(text: &str) -> Result<Self, OptionError> {
        let refused = || OptionError::Peer(text.to_owned());
        if let Ok(address) = text.parse::<SocketAddr>() {
            return Ok(Self { host: address.ip().to_string(), port: address.port() }).and_then(non_zero);
        }
        let bare = text.strip_prefix('[').and_then(|t| t.strip_suffix(']')).unwrap_or(text);
        if let Ok(ip) = bare.parse::<IpAddr>() {
            return Ok(Self { host: ip.to_string(), port: DEFAULT_PEER_PORT });
        }
        let (host, port) = match text.rsplit_once(':') {
            Some((host, port)) => (host, port.parse().map_err(|_| refused())?),
            None => (text, DEFAULT_PEER_PORT),
        };
        // "10.0.0.999" is a mistyped address rather than a host name.
        let numeric = host.rsplit('.').next().is_some_and(|last| last.bytes().all(|b| b.is_ascii_digit()));
        if numeric || !is_host_name(host) {
            return Err(refused());
        }
        non_zero(Self { host: host.to_owned(), port })
    }
}

fn non_zero(peer: PeerAddress) -> Result<PeerAddress, OptionError> {
    if peer.port == 0 { Err(OptionError::Peer(peer.to_string())) } else { Ok(peer) }
}

/// Host names as RFC 1123 has them, in either case; `_` too, because networks have such names.
fn is_host_name(text: &str) -> bool {
    let inner = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_');
    text.len() <= 253
        && text.split('.').all(|label| !label.is_empty() && label.len() <= 63 && label.bytes().all(inner))
}

impl fmt::Display for PeerAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.host.contains(':') {
            write!(f, "[{}]:{}", self.host, self.port)
        } else {
            write!(f, "{}:{}", self.host, self.port)
        }
    }
}
