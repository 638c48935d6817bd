//! chitchat's socket: a stream to each connected peer, a stream from each, and bounded queues between.
//!
//! chitchat awaits `send` within its loop, so sending never waits: what finds its queue full is dropped, as UDP
//! would. Must never know what the messages say.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use async_trait::async_trait;
use chitchat::{ChitchatMessage, Serializable};
use libp2p::PeerId;
use tokio::sync::{Mutex, mpsc, watch};
use tokio::time::timeout;

use super::frame::{self, Frame, LARGEST};
use super::pace::Pace;
use crate::transport::{Stream, Transport, read_frame, write_frame};

/// The protocol that gossip runs on.
pub(super) const PROTOCOL: &str = "/gaggle/gossip/1";
/// Messages that wait for one peer: a few rounds. Older news is no news.
const OUTBOUND: usize = 16;
/// Messages that wait for chitchat from all peers.
pub(super) const INBOUND: usize = 256;
/// How long one message may take to leave. A peer that reads slower is as good as dead.
const WRITE_DEADLINE: Duration = Duration::from_secs(2);
/// The pause before a stream that broke is opened again while its connection stands.
const REOPEN_PAUSE: Duration = Duration::from_millis(500);

/// What arrived: from whom, and what.
pub(super) type Arrival = (SocketAddr, ChitchatMessage);
/// Where to put what is for a peer, by its made-up address.
pub(super) type Outboxes = Arc<BTreeMap<SocketAddr, mpsc::Sender<Frame>>>;

/// Hands chitchat its socket. The receiving end is shared, so that a chitchat that died can be followed by another.
pub(super) struct Net {
    pub(super) outboxes: watch::Receiver<Outboxes>,
    pub(super) arrivals: Arc<Mutex<mpsc::Receiver<Arrival>>>,
}

struct Socket {
    outboxes: watch::Receiver<Outboxes>,
    arrivals: Arc<Mutex<mpsc::Receiver<Arrival>>>,
    pace: Pace,
}

#[async_trait]
impl chitchat::transport::Transport for Net {
    async fn open(&self, _listen: SocketAddr) -> anyhow::Result<Box<dyn chitchat::transport::Socket>> {
        let (outboxes, arrivals) = (self.outboxes.clone(), self.arrivals.clone());
        Ok(Box::new(Socket { outboxes, arrivals, pace: Pace::new(Instant::now()) }))
    }
}

#[async_trait]
impl chitchat::transport::Socket for Socket {
    async fn send(&mut self, to: SocketAddr, message: ChitchatMessage) -> anyhow::Result<()> {
        let Some(outbox) = self.outboxes.borrow().get(&to).cloned() else { return Ok(()) };
        let greeting = matches!(message, ChitchatMessage::Syn { .. });
        if greeting && !self.pace.allows(message.serialized_len(), Instant::now()) {
            return Ok(());
        }
        match frame::encode(&message) {
            // Full: the peer is slow, and hears the next one.
            Some(frame) => drop(outbox.try_send(frame)),
            None => tracing::warn!("a gossip message is too large to send: are there too many nodes?"),
        }
        Ok(())
    }

    async fn recv(&mut self) -> anyhow::Result<Arrival> {
        match self.arrivals.lock().await.recv().await {
            Some(arrival) => Ok(arrival),
            None => Err(anyhow::Error::msg("membership has ended")),
        }
    }
}

/// A queue to a peer and its writer, to be spawned.
pub(super) fn outbox(
    transport: Transport,
    peer: PeerId,
    told: watch::Sender<u64>,
) -> (mpsc::Sender<Frame>, impl Future<Output = ()>) {
    let (sender, queue) = mpsc::channel(OUTBOUND);
    (sender, write(transport, peer, queue, told))
}

/// Sends what is queued for a peer until the queue ends. Counts in `told` what may have carried news.
async fn write(
    transport: Transport,
    peer: PeerId,
    mut queue: mpsc::Receiver<Frame>,
    told: watch::Sender<u64>,
) {
    loop {
        match transport.open(peer, PROTOCOL).await {
            Ok(mut stream) => loop {
                let Some(frame) = queue.recv().await else { return };
                match timeout(WRITE_DEADLINE, write_frame(&mut stream, &frame.bytes)).await {
                    Ok(Ok(())) if frame.tells => told.send_modify(|count| *count += 1),
                    Ok(Ok(())) => {}
                    Ok(Err(_)) | Err(_) => break,
                }
            },
            Err(error) => tracing::debug!(%peer, %error, "no stream for gossip"),
        }
        tokio::time::sleep(REOPEN_PAUSE).await;
    }
}

/// Hands on what a peer sends until its stream ends. Waits while chitchat is behind: the peer's queue then fills.
pub(super) async fn read(mut stream: Stream, from: SocketAddr, arrivals: mpsc::Sender<Arrival>) {
    while let Ok(Some(bytes)) = read_frame(&mut stream, LARGEST).await {
        match frame::decode(&bytes) {
            Some(message) => {
                if arrivals.send((from, message)).await.is_err() {
                    return;
                }
            }
            None => tracing::trace!(%from, "a gossip message makes no sense"),
        }
    }
}
