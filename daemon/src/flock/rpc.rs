//! Requests and answers between daemons, over streams that are kept and used again.

use crate::wire::{other_version, read_bytes, write_bytes};
use gaggle_gossip::PeerId;
use gaggle_gossip::transport::{Acceptor, Stream, Transport};
use std::collections::HashMap;
use std::future::Future;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::task::JoinHandle;

/// Idle streams kept for each peer; more are closed after use.
const IDLE_PER_PEER: usize = 4;
/// Calls to one peer that go on although nobody waits for them any more; further ones are ended.
const ABANDONED_PER_PEER: usize = 16;
/// Streams served at once for one protocol; a further one waits to be accepted.
const SERVED: usize = 256;

#[derive(Debug, thiserror::Error)]
pub enum RpcError {
    /// The request never left: it is safe to try elsewhere.
    #[error("cannot reach {peer}: {why}")]
    NotSent { peer: PeerId, why: String },
    /// The request may have been carried out.
    #[error("no answer from {peer}: {why}")]
    NoAnswer { peer: PeerId, why: String },
}

/// The asking side of one protocol. Cheap to clone.
#[derive(Clone)]
pub struct Rpc {
    transport: Transport,
    protocol: &'static str,
    limit: usize,
    peers: Arc<Mutex<HashMap<PeerId, Peer>>>,
}

/// What is kept for one peer.
struct Peer {
    idle: Vec<Stream>,
    abandoned: Arc<Semaphore>,
}

impl Default for Peer {
    fn default() -> Self {
        Self { idle: Vec::new(), abandoned: Arc::new(Semaphore::new(ABANDONED_PER_PEER)) }
    }
}

impl Rpc {
    /// `limit`: the largest answer taken, in bytes.
    pub fn new(transport: Transport, protocol: &'static str, limit: usize) -> Self {
        Self { transport, protocol, limit, peers: Arc::default() }
    }

    /// Sends a request and waits for its answer.
    ///
    /// A call that is dropped goes on until it is answered or `deadline` is over, so that its stream is there for the
    /// next one: on a network where an answer takes longer than a caller's patience, each call would otherwise have to
    /// open a new stream, which takes longer still. What was not sent by then is not sent any more.
    pub async fn call(
        &self,
        peer: PeerId,
        request: Vec<u8>,
        deadline: Duration,
    ) -> Result<Vec<u8>, RpcError> {
        let given_up = Arc::new(GivenUp::default());
        let exchange = self.clone().exchange(peer, request, Arc::clone(&given_up));
        let task = tokio::spawn(async move {
            match tokio::time::timeout(deadline, exchange).await {
                Ok(result) => result,
                Err(_) => {
                    let why = format!("nothing within {} ms", deadline.as_millis());
                    Err(RpcError::NoAnswer { peer, why })
                }
            }
        });
        let mut waiting = Waiting { rpc: self, peer, task, given_up };
        let ended = (&mut waiting.task).await;
        ended.unwrap_or_else(|error| Err(RpcError::NoAnswer { peer, why: error.to_string() }))
    }

    async fn exchange(
        self,
        peer: PeerId,
        request: Vec<u8>,
        given_up: Arc<GivenUp>,
    ) -> Result<Vec<u8>, RpcError> {
        // A kept stream may have died unnoticed; then the request has not been read, but that cannot be
        // known, so a kept stream that fails is reported as unanswered and only writing is tried again.
        let mut stream = None;
        while let Some(mut kept) = self.take(peer) {
            if write_bytes(&mut kept, &request).await.is_ok() {
                stream = Some(kept);
                break;
            }
        }
        let mut stream = match stream {
            Some(stream) => stream,
            None => {
                let unsent = |why: String| RpcError::NotSent { peer, why };
                let mut stream = self
                    .transport
                    .open(peer, self.protocol)
                    .await
                    .map_err(|error| unsent(error.to_string()))?;
                if given_up.is_so() {
                    self.keep(peer, stream);
                    return Err(unsent("nobody waits for the answer any more".to_owned()));
                }
                write_bytes(&mut stream, &request).await.map_err(|error| unsent(error.to_string()))?;
                stream
            }
        };
        let answer = read_bytes(&mut stream, self.limit)
            .await
            .map_err(|error| RpcError::NoAnswer { peer, why: error.to_string() })?;
        self.keep(peer, stream);
        Ok(answer)
    }

    fn with_peer<T>(&self, peer: PeerId, change: impl FnOnce(&mut Peer) -> T) -> T {
        change(self.peers.lock().unwrap_or_else(PoisonError::into_inner).entry(peer).or_default())
    }

    fn take(&self, peer: PeerId) -> Option<Stream> {
        self.with_peer(peer, |peer| peer.idle.pop())
    }

    fn keep(&self, peer: PeerId, stream: Stream) {
        self.with_peer(peer, |peer| {
            if peer.idle.len() < IDLE_PER_PEER {
                peer.idle.push(stream);
            }
        });
    }

    /// Drops the kept streams of peers that are no longer connected.
    pub fn forget_all_but(&self, connected: impl Fn(&PeerId) -> bool) {
        self.peers.lock().unwrap_or_else(PoisonError::into_inner).retain(|peer, _| connected(peer));
    }
}

/// Whether a call's caller waits no more; then it holds one of the peer's places for such calls until it ends.
#[derive(Default)]
struct GivenUp {
    so: AtomicBool,
    place: Mutex<Option<OwnedSemaphorePermit>>,
}

impl GivenUp {
    fn is_so(&self) -> bool {
        self.so.load(Ordering::Relaxed)
    }
}

/// A caller that waits.
struct Waiting<'a> {
    rpc: &'a Rpc,
    peer: PeerId,
    task: JoinHandle<Result<Vec<u8>, RpcError>>,
    given_up: Arc<GivenUp>,
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        if self.task.is_finished() {
            return;
        }
        let places = self.rpc.with_peer(self.peer, |peer| Arc::clone(&peer.abandoned));
        match places.try_acquire_owned() {
            Ok(place) => {
                *self.given_up.place.lock().unwrap_or_else(PoisonError::into_inner) = Some(place);
                self.given_up.so.store(true, Ordering::Relaxed);
            }
            Err(_) => self.task.abort(),
        }
    }
}

/// Answers requests of one protocol until the transport ends. `limit`: the largest request taken, in bytes.
pub async fn serve<H, F>(mut acceptor: Acceptor, limit: usize, handler: H)
where
    H: Fn(PeerId, Vec<u8>) -> F + Clone + Send + Sync + 'static,
    F: Future<Output = Vec<u8>> + Send,
{
    let places = Arc::new(Semaphore::new(SERVED));
    // The last peer whose version was complained of: it asks again every few seconds.
    let warned = Arc::new(Mutex::new(None));
    loop {
        let Ok(place) = places.clone().acquire_owned().await else { return };
        let Some((peer, mut stream)) = acceptor.next().await else { return };
        let (handler, warned) = (handler.clone(), warned.clone());
        tokio::spawn(async move {
            let _place = place;
            loop {
                let request = match read_bytes(&mut stream, limit).await {
                    Ok(request) => request,
                    Err(error) => {
                        if other_version(&error).is_some() {
                            let told = warned.lock().unwrap_or_else(PoisonError::into_inner).replace(peer);
                            match told == Some(peer) {
                                true => tracing::debug!(%peer, %error, "a request is refused again"),
                                false => tracing::warn!(%peer, %error, "a request is refused"),
                            }
                            // An answer of our version, so that the asker can say it on its side too.
                            let _ = write_bytes(&mut stream, &[]).await;
                        }
                        return;
                    }
                };
                let answer = handler(peer, request).await;
                if let Err(error) = write_bytes(&mut stream, &answer).await {
                    tracing::debug!(%peer, %error, "an answer was not delivered");
                    return;
                }
            }
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use gaggle_gossip::transport::MemoryHub;
    use std::sync::atomic::AtomicUsize;
    use tokio::sync::Notify;

    const PROTOCOL: &str = "/gaggle/test/1";
    const PATIENCE: Duration = Duration::from_secs(20);

    /// Answers arrive long after their callers have given up: the streams that were opened are there for the next call.
    #[tokio::test]
    async fn a_call_that_is_given_up_leaves_its_stream_to_the_next_one() {
        let hub = MemoryHub::default();
        let (here, there) = (PeerId::random(), PeerId::random());
        let rpc = Rpc::new(hub.transport(here), PROTOCOL, 64);
        let far = hub.transport(there);
        let mut acceptor = far.accept(PROTOCOL, 4).unwrap();
        let (opened, go) = (Arc::new(AtomicUsize::new(0)), Arc::new(Notify::new()));
        let (counted, gate) = (opened.clone(), go.clone());
        let serving = tokio::spawn(async move {
            while let Some((_, mut stream)) = acceptor.next().await {
                counted.fetch_add(1, Ordering::SeqCst);
                let gate = gate.clone();
                tokio::spawn(async move {
                    while let Ok(request) = read_bytes(&mut stream, 64).await {
                        gate.notified().await;
                        write_bytes(&mut stream, &request).await.unwrap();
                    }
                });
            }
        });
        let impatient = rpc.call(there, b"first".to_vec(), PATIENCE);
        tokio::time::timeout(Duration::from_millis(100), impatient).await.expect_err("nobody answers yet");
        go.notify_one();
        let kept = async {
            while rpc.with_peer(there, |peer| peer.idle.is_empty()) {
                tokio::task::yield_now().await;
            }
        };
        tokio::time::timeout(PATIENCE, kept).await.expect("the stream of the first call is kept");
        go.notify_one();
        assert_eq!(
            rpc.call(there, b"second".to_vec(), PATIENCE).await.unwrap(),
            b"second",
            "and not the first answer"
        );
        assert_eq!(opened.load(Ordering::SeqCst), 1);
        serving.abort();
    }
}
