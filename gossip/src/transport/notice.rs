//! What a peer that was removed for good is told before its connection is closed: that it was.
//!
//! Its key still passes the handshake, since it holds the phrase. It gets this one stream and no other, so that a desktop that was
//! switched off when it was evicted can say why nobody answers it.

use std::collections::BTreeSet;
use std::time::Duration;

use futures::io::{AsyncReadExt as _, AsyncWriteExt as _};
use futures::{AsyncRead, AsyncWrite};
use libp2p::{PeerId, StreamProtocol};
use libp2p_stream::{Control, IncomingStreams};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::timeout;

/// The protocol that the notice comes on.
pub(super) const PROTOCOL: StreamProtocol = StreamProtocol::new("/gaggle/evicted/1");
/// What it says. A later version may say more.
const TEXT: &[u8] = b"evicted";
/// How long a notice may take, on either side. Then the connection ends without one.
const DEADLINE: Duration = Duration::from_secs(2);
/// Notices under way; a further peer's connection ends without one, and it hears at its next try.
const MOST_NOTICES: usize = 16;

/// The notices that are under way, one a peer.
#[derive(Default)]
pub(super) struct Notices {
    to: BTreeSet<PeerId>,
    tasks: JoinSet<PeerId>,
}

impl Notices {
    /// Begins to tell a peer. False when there is no room: its connection is to be closed at once.
    pub(super) fn tell(&mut self, peer: PeerId, control: Control) -> bool {
        if self.to.contains(&peer) {
            return true;
        }
        if self.to.len() >= MOST_NOTICES {
            return false;
        }
        self.to.insert(peer);
        self.tasks.spawn(async move {
            if timeout(DEADLINE, send(control, peer)).await.is_err() {
                tracing::debug!(%peer, "an evicted peer could not be told so");
            }
            peer
        });
        true
    }

    pub(super) fn is_empty(&self) -> bool {
        self.tasks.is_empty()
    }

    /// The next peer that was told, or could not be: its connections are to be closed.
    pub(super) async fn next(&mut self) -> Option<PeerId> {
        // A task that panicked leaves its peer marked, whose next connection then waits for nothing: closed at once.
        let peer = self.tasks.join_next().await?.ok()?;
        self.to.remove(&peer);
        Some(peer)
    }
}

async fn send(mut control: Control, peer: PeerId) {
    let Ok(stream) = control.open_stream(peer, PROTOCOL).await else { return };
    if let Err(error) = hand_over(stream).await {
        tracing::debug!(%peer, %error, "an evicted peer did not read that it is");
    }
}

/// Writes the text and waits until the other side has closed the stream, that is, has read it.
async fn hand_over(mut stream: impl AsyncRead + AsyncWrite + Unpin) -> std::io::Result<()> {
    stream.write_all(TEXT).await?;
    stream.close().await?;
    let mut rest = [0u8; 1];
    stream.read(&mut rest).await.map(drop)
}

/// Takes notices until the transport ends, and says who sent the newest.
pub(super) async fn listen(mut incoming: IncomingStreams, told: watch::Sender<Option<PeerId>>) {
    use futures::StreamExt as _;
    loop {
        tokio::select! {
            () = told.closed() => return,
            next = incoming.next() => {
                let Some((peer, mut stream)) = next else { return };
                let mut text = [0u8; TEXT.len()];
                let read = timeout(DEADLINE, stream.read_exact(&mut text)).await;
                if matches!(read, Ok(Ok(()))) && text == *TEXT {
                    told.send_replace(Some(peer));
                }
            }
        }
    }
}
