//! What desktops give each other besides state: streams of their pods, and images.

mod images;
mod logs;
mod pods;
mod streams;

pub use images::{FlockImages, serve_images};
pub use logs::serve_logs;
pub use pods::FlockPods;
pub use streams::serve_streams;

use crate::pods::ByteStream;
use crate::wire::read_frame;
use futures::StreamExt;
use gaggle_gossip::PeerId;
use gaggle_gossip::membership::Member;
use gaggle_gossip::transport::Stream;
use serde::de::DeserializeOwned;
use std::io;
use std::time::Duration;
use tokio_util::io::ReaderStream;

const LOGS: &str = "/gaggle/logs/1";
const IMAGES: &str = "/gaggle/images/1";
const STREAMS: &str = "/gaggle/streams/1";

/// The largest request or answer head on either protocol.
const HEAD_LIMIT: usize = 64 << 10;
/// How long who opened a stream may take to say what for.
const REQUEST_WITHIN: Duration = Duration::from_secs(10);
/// Streams of one protocol served at once; a further one waits to be accepted.
const SERVED: usize = 64;

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
