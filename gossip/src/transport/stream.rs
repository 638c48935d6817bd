//! A byte stream between two nodes, and how one is handed over so that both ends know it arrived.
//!
//! libp2p drops inbound streams when they come in a burst and nobody is waiting, and the opener only sees them
//! close. So the accepting side sends one byte when a stream has a place in its queue; the opener waits for that
//! byte, and tries again without it. Must never know which transport carries the stream.

use std::fmt;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use futures::StreamExt as _;
use futures::stream::{BoxStream, FuturesUnordered};
use libp2p::PeerId;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadBuf};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio::time::timeout;

/// The byte that says: this stream is in the queue.
const ACCEPTED: u8 = 0xA7;
/// How long one acknowledgement may take to write or to arrive. Longer than a busy desktop needs.
pub(super) const ACKNOWLEDGE_DEADLINE: Duration = Duration::from_secs(2);

/// What a stream is made of.
trait Duplex: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Duplex for T {}

/// A byte stream to a peer whose identity is proven. Ends with an error when the connection does.
pub struct Stream(Box<dyn Duplex>);

impl Stream {
    pub(super) fn new(inner: impl AsyncRead + AsyncWrite + Send + Unpin + 'static) -> Self {
        Self(Box::new(inner))
    }

    /// The opener's side of the handover.
    pub(super) async fn acknowledged(&mut self) -> io::Result<()> {
        match timeout(ACKNOWLEDGE_DEADLINE, self.read_u8()).await {
            Ok(Ok(ACCEPTED)) => Ok(()),
            Ok(Ok(_)) => Err(io::Error::new(io::ErrorKind::InvalidData, "no acknowledgement")),
            Ok(Err(error)) => Err(error),
            Err(_) => Err(io::ErrorKind::TimedOut.into()),
        }
    }

    async fn acknowledge(&mut self) -> io::Result<()> {
        let write = async {
            self.write_u8(ACCEPTED).await?;
            self.flush().await
        };
        timeout(ACKNOWLEDGE_DEADLINE, write).await.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))
    }
}

impl fmt::Debug for Stream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Stream")
    }
}

impl AsyncRead for Stream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_read(cx, buf)
    }
}

impl AsyncWrite for Stream {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(cx)
    }
}

/// Streams that peers open for one protocol. Dropping it takes the protocol back soon after.
#[derive(Debug)]
pub struct Acceptor {
    queue: mpsc::Receiver<(PeerId, Stream)>,
    pump: JoinHandle<()>,
}

impl Acceptor {
    /// Starts to take streams from `inbound`, at most `capacity` waiting to be taken; beyond that openers are told
    /// to try again, by their stream being dropped.
    pub(super) fn start(inbound: BoxStream<'static, (PeerId, Stream)>, capacity: usize) -> Self {
        let (sender, queue) = mpsc::channel(capacity.max(1));
        let pump = tokio::spawn(pump(inbound, sender));
        Self { queue, pump }
    }

    /// The next stream, acknowledged. None when the transport is shut down. Cancel-safe.
    pub async fn next(&mut self) -> Option<(PeerId, Stream)> {
        self.queue.recv().await
    }

    /// Takes the protocol back; when this returns it can be accepted anew.
    pub async fn close(mut self) {
        self.pump.abort();
        let _ = (&mut self.pump).await;
    }
}

impl Drop for Acceptor {
    fn drop(&mut self) {
        self.pump.abort();
    }
}

/// Takes streams as fast as they come, because the layer below drops what is not taken. A place in the queue is
/// reserved before the acknowledgement, so that an acknowledged stream is never dropped.
async fn pump(mut inbound: BoxStream<'static, (PeerId, Stream)>, queue: mpsc::Sender<(PeerId, Stream)>) {
    let mut handovers = FuturesUnordered::new();
    loop {
        tokio::select! {
            next = inbound.next() => match next {
                None => break,
                Some((peer, mut stream)) => match queue.clone().try_reserve_owned() {
                    Ok(place) => handovers.push(async move {
                        match stream.acknowledge().await {
                            Ok(()) => { place.send((peer, stream)); }
                            Err(error) => tracing::debug!(%peer, %error, "an inbound stream ended before it began"),
                        }
                    }),
                    Err(_) => tracing::debug!(%peer, "no room for an inbound stream"),
                },
            },
            Some(()) = handovers.next(), if !handovers.is_empty() => {}
            () = queue.closed() => break,
        }
    }
    while handovers.next().await.is_some() {}
}

/// Writes one frame: a length (four bytes, big-endian) and that many bytes.
///
/// # Errors
/// When the stream fails, or the frame is longer than four bytes can say.
pub async fn write_frame(stream: &mut (impl AsyncWrite + Unpin), frame: &[u8]) -> io::Result<()> {
    let length = u32::try_from(frame.len()).map_err(|_| io::Error::from(io::ErrorKind::InvalidInput))?;
    // One write, so that a small frame is one packet.
    let mut bytes = Vec::with_capacity(frame.len() + 4);
    bytes.extend_from_slice(&length.to_be_bytes());
    bytes.extend_from_slice(frame);
    stream.write_all(&bytes).await?;
    stream.flush().await
}

/// Reads one frame of at most `most` bytes; None at the end of the stream.
///
/// # Errors
/// `InvalidData` for a longer frame, before anything is allocated for it.
pub async fn read_frame(stream: &mut (impl AsyncRead + Unpin), most: usize) -> io::Result<Option<Vec<u8>>> {
    let mut length = [0u8; 4];
    match stream.read_exact(&mut length).await {
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(None),
        other => other?,
    };
    let length = usize::try_from(u32::from_be_bytes(length)).unwrap_or(usize::MAX);
    if length > most {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "a frame is too long"));
    }
    let mut frame = vec![0; length];
    stream.read_exact(&mut frame).await?;
    Ok(Some(frame))
}
