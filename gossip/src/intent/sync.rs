//! Anti-entropy: nodes that can reach each other come to hold the same documents. Each change is spread as it is
//! kept, at best effort; what got lost is found by comparing hashes, at intervals and with every new connection.

use super::compare::compare;
use super::wire::{BUDGET_BYTES, Question, encode};
use super::{DocKey, Heads, Intent, IntentError};
use futures::StreamExt;
use serde_bytes::ByteBuf;
use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::mpsc;
use tokio::time::{MissedTickBehavior, timeout};

/// How long one call may take: 4 MiB over a poor wireless link.
pub const CALL_DEADLINE: Duration = Duration::from_secs(15);
/// How long one comparison may take. What remains is for the next one: a peer cannot keep us for ever.
const COMPARISON_DEADLINE: Duration = Duration::from_secs(60);
/// How many peers are compared with in a round, in turns: what one learns it tells others in their rounds.
const PEERS_PER_ROUND: usize = 16;
/// How many peers a change is sent to at the same time.
const SPREAD_CONCURRENCY: usize = 8;
/// How many kept changes wait to be spread. More are left to the comparisons.
const SPREAD_QUEUE: usize = 1024;
/// How other nodes are reached.
#[async_trait::async_trait]
pub trait Peers: Send + Sync + 'static {
    /// The peers that can be called now.
    fn connected(&self) -> Vec<String>;

    /// Returns when the connected peers are others than when it was last called, or may be. Cancel-safe.
    async fn changed(&self);

    /// Sends a request to the peer and returns its answer, which is what [`Intent::answer`] makes there. Both have
    /// up to [`MAX_MESSAGE_BYTES`](super::MAX_MESSAGE_BYTES).
    async fn call(&self, peer: &str, request: Vec<u8>) -> Result<Vec<u8>, String>;
}

/// Keeps changes that no quorum can order now.
#[derive(Clone)]
pub struct Keeper {
    intent: Intent,
    spread: mpsc::Sender<(DocKey, Vec<u8>)>,
}

impl Keeper {
    /// Stores a change (on disk when this returns) and has it sent to all connected peers.
    pub async fn keep(&self, key: &str, change: &[u8]) -> Result<Heads, IntentError> {
        let heads = self.intent.apply(key, change).await?;
        if self.spread.try_send((key.to_owned(), change.to_vec())).is_err() {
            tracing::debug!(key, "a change is left to anti-entropy");
        }
        Ok(heads)
    }
}

/// The loop that keeps this node's documents and the others' alike.
pub struct Syncer<P> {
    intent: Intent,
    peers: Arc<P>,
    interval: Duration,
    spread: mpsc::Receiver<(DocKey, Vec<u8>)>,
}

impl<P: Peers> Syncer<P> {
    pub fn new(intent: Intent, peers: Arc<P>, interval: Duration) -> (Keeper, Self) {
        let (sender, spread) = mpsc::channel(SPREAD_QUEUE);
        let keeper = Keeper { intent: intent.clone(), spread: sender };
        (keeper, Self { intent, peers, interval, spread })
    }

    /// Runs until it is dropped.
    pub async fn run(self) {
        let Self { intent, peers, interval, spread } = self;
        tokio::join!(spread_all(&*peers, spread), compare_all(&intent, &*peers, interval));
    }
}

/// Sends each kept change to every connected peer.
async fn spread_all(peers: &impl Peers, mut changes: mpsc::Receiver<(DocKey, Vec<u8>)>) {
    let mut next = None;
    loop {
        let first = match next.take() {
            Some(change) => Some(change),
            None => changes.recv().await,
        };
        let Some((key, frame)) = first else { return };
        let mut bytes = frame.len();
        let mut frames = vec![(key, ByteBuf::from(frame))];
        while next.is_none()
            && let Ok((key, frame)) = changes.try_recv()
        {
            bytes += key.len() + frame.len();
            if bytes > BUDGET_BYTES {
                next = Some((key, frame));
            } else {
                frames.push((key, ByteBuf::from(frame)));
            }
        }
        let Ok(request) = encode(&Question::Push { frames }) else { continue };
        let connected = futures::stream::iter(peers.connected());
        let sent = connected.for_each_concurrent(SPREAD_CONCURRENCY, |peer| {
            let request = request.clone();
            async move {
                if let Ok(Err(error)) = timeout(CALL_DEADLINE, peers.call(&peer, request)).await {
                    tracing::debug!(%peer, %error, "a change was not spread");
                }
            }
        });
        sent.await;
    }
}

async fn compare_all(intent: &Intent, peers: &impl Peers, interval: Duration) {
    let mut ticks = tokio::time::interval(interval);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut known = BTreeSet::new();
    let mut turn = 0;
    loop {
        let everyone = tokio::select! {
            _ = ticks.tick() => true,
            () = peers.changed() => false,
        };
        let mut connected = peers.connected();
        connected.sort_unstable();
        let mut chosen: Vec<String> =
            connected.iter().filter(|peer| !known.contains(*peer)).cloned().collect();
        if everyone && !connected.is_empty() {
            let count = connected.len().min(PEERS_PER_ROUND);
            let round = (turn..turn + count).map(|index| &connected[index % connected.len()]);
            chosen.extend(round.filter(|peer| known.contains(*peer)).cloned());
            turn = (turn + count) % connected.len();
        }
        known = connected.into_iter().collect();
        for peer in chosen {
            match timeout(COMPARISON_DEADLINE, compare(intent, peers, &peer)).await {
                Ok(Ok(())) => {}
                Ok(Err(error)) => tracing::debug!(%peer, %error, "comparing documents ended early"),
                Err(_) => tracing::info!(%peer, "comparing documents goes on in the next round"),
            }
        }
    }
}

#[cfg(test)]
mod tests;
