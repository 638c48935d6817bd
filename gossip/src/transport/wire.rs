//! The layers between a TCP connection and a peer: silence watch, pre-shared key, phrase check, Noise, Yamux.
//!
//! Owns what is on the wire before a peer is known. Must never know peers' addresses or when to dial.
//!
//! libp2p's pre-shared key is only a cipher: with a wrong one both sides read noise, and what happens next depends
//! on that noise (a decoding error, or both waiting until a deadline). So each side first sends a known mark
//! through the cipher. Who reads anything else knows that the other side holds another phrase, and both sides say
//! so to their users. It gives away nothing: what follows begins with a fixed text as well.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use futures::io::{AsyncReadExt, AsyncWriteExt};
use libp2p::core::muxing::StreamMuxerBox;
use libp2p::core::transport::{Boxed, Transport as _};
use libp2p::core::upgrade::Version;
use libp2p::core::{ConnectedPoint, Endpoint};
use libp2p::identity::Keypair;
use libp2p::pnet::{PnetConfig, PnetOutput, PreSharedKey};
use libp2p::{PeerId, noise, tcp, yamux};
use tokio::sync::mpsc;

use super::address;
use super::silence::Watched;
use super::{Direction, Refusal};

/// What each side says first, encrypted with the pre-shared key.
const MARK: &[u8; 16] = b"gaggle/phrase/1\n";
/// From the first packet to a usable connection. Loaded desktops take a second for their cryptography.
const HANDSHAKE_DEADLINE: Duration = Duration::from_secs(6);
/// Silence after which a connection is dead. Both ends ping each second: four pings lost in a row on a network
/// that TCP still gets through is no network to run a cluster on.
const LONGEST_SILENCE: Duration = Duration::from_secs(5);
/// Streams on one connection. Yamux's default of 512 is too few for a node that proxies many requests.
const MOST_STREAMS: usize = 4096;

type Socket = Watched<tcp::tokio::TcpStream>;

/// The transport under the swarm. Peers with another phrase are reported to `refusals` before the connection fails.
pub(super) fn build(
    keypair: &Keypair,
    key: PreSharedKey,
    refusals: mpsc::Sender<Refusal>,
) -> Result<Boxed<(PeerId, StreamMuxerBox)>, noise::Error> {
    let mut streams = yamux::Config::default();
    streams.set_max_num_streams(MOST_STREAMS);
    Ok(tcp::tokio::Transport::new(tcp::Config::default().nodelay(true))
        .and_then(move |socket, point| admit(Watched::new(socket, LONGEST_SILENCE), point, key, refusals))
        .upgrade(Version::V1Lazy)
        .authenticate(noise::Config::new(keypair)?)
        .multiplex(streams)
        .timeout(HANDSHAKE_DEADLINE)
        .boxed())
}

async fn admit(
    socket: Socket,
    point: ConnectedPoint,
    key: PreSharedKey,
    refusals: mpsc::Sender<Refusal>,
) -> io::Result<PnetOutput<Socket>> {
    let mut private = PnetConfig::new(key).handshake(socket).await.map_err(io::Error::other)?;
    private.write_all(MARK).await?;
    private.flush().await?;
    let mut heard = [0u8; MARK.len()];
    private.read_exact(&mut heard).await?;
    if &heard == MARK {
        return Ok(private);
    }
    if let Some(address) = address::to_socket(point.get_remote_address()) {
        let direction = match point.to_endpoint() {
            Endpoint::Dialer => Direction::Outbound,
            Endpoint::Listener => Direction::Inbound,
        };
        // Full means that enough of them are told already.
        let _ = refusals.try_send(Refusal::other_phrase(address, direction));
    }
    Err(io::Error::new(io::ErrorKind::PermissionDenied, "the other side holds another phrase"))
}

/// The address that is at the other end of an endpoint.
pub(super) fn remote(point: &ConnectedPoint) -> Option<SocketAddr> {
    address::to_socket(point.get_remote_address())
}
