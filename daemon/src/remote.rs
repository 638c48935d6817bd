//! What desktops give each other besides state: streams of their pods, images, and what they take.

mod images;
mod logs;
mod pods;
mod streams;
mod usage;

pub use images::{FlockImages, serve_images};
pub use logs::serve_logs;
pub use pods::FlockPods;
pub use streams::serve_streams;
pub use usage::serve_usage;

use crate::pods::ByteStream;
use crate::wire::read_frame;
use futures::StreamExt;
use gaggle_gossip::PeerId;
use gaggle_gossip::membership::Member;
use gaggle_gossip::transport::{Stream, Transport};
use serde::de::DeserializeOwned;
use std::io;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::Semaphore;
use tokio_util::io::ReaderStream;

const LOGS: &str = "/gaggle/logs/1";
const IMAGES: &str = "/gaggle/images/1";
const STREAMS: &str = "/gaggle/streams/1";
const USAGE: &str = "/gaggle/usage/1";

/// The largest request or answer head on any of them.
const HEAD_LIMIT: usize = 64 << 10;
/// How long who opened a stream may take to say what for.
const REQUEST_WITHIN: Duration = Duration::from_secs(10);
/// Streams of one protocol that wait to be accepted, and those served at once where a protocol has no limit of its own.
const SERVED: usize = 64;

/// Gives each stream that other desktops open to `one`, at most `at_once` of them, until the transport ends. A further one
/// waits to be accepted.
async fn serve<F>(transport: Transport, protocol: &'static str, at_once: usize, one: impl Fn(Stream) -> F)
where
    F: Future<Output = io::Result<()>> + Send + 'static,
{
    let mut acceptor = match transport.accept(protocol, SERVED) {
        Ok(acceptor) => acceptor,
        Err(error) => return tracing::error!(protocol, %error, "other desktops cannot be served"),
    };
    let places = Arc::new(Semaphore::new(at_once));
    loop {
        let Ok(place) = places.clone().acquire_owned().await else { return };
        let Some((peer, stream)) = acceptor.next().await else { return };
        let served = one(stream);
        tokio::spawn(async move {
            let _place = place;
            if let Err(error) = served.await {
                tracing::debug!(protocol, %peer, %error, "a stream ended early");
            }
        });
    }
}

/// What a stream was opened for.
async fn request<T: DeserializeOwned>(stream: &mut Stream) -> io::Result<T> {
    let request = tokio::time::timeout(REQUEST_WITHIN, read_frame(stream, HEAD_LIMIT)).await;
    request.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))
}

/// The rest of a stream as bytes.
fn rest(stream: Stream) -> ByteStream {
    ReaderStream::with_capacity(stream, 64 << 10).map(|chunk| chunk.map(|bytes| bytes.to_vec())).boxed()
}

/// The peer of the member with this node name.
fn peer_of(members: &[Member], name: &str) -> Option<PeerId> {
    let named = |member: &&Member| member.node.as_ref().is_some_and(|node| node.name == name);
    members.iter().filter(named).max_by_key(|member| member.alive).map(|member| member.peer)
}
