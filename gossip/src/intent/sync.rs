//! Anti-entropy: nodes that can reach each other come to hold the same documents. Each change is spread as it is
//! kept, at best effort; what got lost is found by comparing hashes, at intervals and with every new connection.
//!
//! A comparison is one question of 32 bytes where nothing differs. Otherwise the buckets that differ are listed,
//! what the other side has more is pulled, and what it lacks is pushed.

use super::index::{BUCKETS, Hash};
use super::wire::{Answer, BUDGET_BYTES, Question, decode, encode};
use super::{DocKey, Heads, Intent, IntentError, Want, lock};
use futures::StreamExt;
use serde_bytes::ByteBuf;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::mpsc;
use tokio::time::{MissedTickBehavior, timeout};

/// How long one call may take: 4 MiB over a poor wireless link.
const CALL_DEADLINE: Duration = Duration::from_secs(15);
/// How long one comparison may take. What remains is for the next one: a peer cannot keep us for ever.
const COMPARISON_DEADLINE: Duration = Duration::from_secs(60);
/// How many peers are compared with in a round, in turns: what one learns it tells others in their rounds.
const PEERS_PER_ROUND: usize = 16;
/// How many peers a change is sent to at the same time.
const SPREAD_CONCURRENCY: usize = 8;
/// How many kept changes wait to be spread. More are left to the comparisons.
const SPREAD_QUEUE: usize = 1024;
/// The most wants of one question, and the most heads in them.
const WANTS: usize = 512;
const WANTED_HEADS: usize = 8192;

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

/// Why a comparison with a peer ended early.
#[derive(Debug, thiserror::Error)]
enum SyncError {
    #[error("the peer cannot be reached: {0}")]
    Call(String),
    #[error("the peer does not answer in time")]
    Slow,
    #[error("the peer refuses: {0}")]
    Refused(String),
    #[error("the peer's answer does not fit the question")]
    Unexpected,
    #[error("a message cannot be used")]
    Wire(#[from] super::wire::WireError),
    #[error(transparent)]
    Intent(#[from] IntentError),
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

async fn call(peers: &impl Peers, peer: &str, question: &Question) -> Result<Answer, SyncError> {
    let request = encode(question)?;
    let answer = timeout(CALL_DEADLINE, peers.call(peer, request)).await.map_err(|_| SyncError::Slow)?;
    match decode(&answer.map_err(SyncError::Call)?)? {
        Answer::Refused(why) => Err(SyncError::Refused(why)),
        answer => Ok(answer),
    }
}

async fn compare(intent: &Intent, peers: &impl Peers, peer: &str) -> Result<(), SyncError> {
    let (root, ours) = {
        let mut index = lock(&intent.0.index);
        (index.root(), index.hashes())
    };
    let theirs: Vec<Hash> = match call(peers, peer, &Question::Compare { root }).await? {
        Answer::Same => return Ok(()),
        Answer::Differs(hashes) if hashes.len() == BUCKETS => hashes,
        _ => return Err(SyncError::Unexpected),
    };
    for bucket in (0..=u8::MAX).filter(|bucket| ours[usize::from(*bucket)] != theirs[usize::from(*bucket)]) {
        compare_bucket(intent, peers, peer, bucket).await?;
    }
    Ok(())
}

/// Goes through what the peer has in a bucket, page by page.
async fn compare_bucket(
    intent: &Intent,
    peers: &impl Peers,
    peer: &str,
    bucket: u8,
) -> Result<(), SyncError> {
    let mut after: Option<DocKey> = None;
    loop {
        let question = Question::Bucket { bucket, after: after.clone() };
        let Answer::Entries { entries, more } = call(peers, peer, &question).await? else {
            return Err(SyncError::Unexpected);
        };
        let last = entries.last().map(|(key, ..)| key.clone());
        // Our own keys of the same stretch, to see which of them the peer lacks.
        let ours: Vec<Want> = {
            let index = lock(&intent.0.index);
            let page = index.page(bucket, after.as_deref());
            let page = page.take_while(|(key, ..)| !more || last.as_ref().is_some_and(|last| *key <= last));
            page.map(|(key, incarnation, heads)| want(key, incarnation, heads)).collect()
        };
        let theirs: BTreeMap<DocKey, (u32, Heads)> =
            entries.into_iter().map(|(key, incarnation, heads)| (key, (incarnation, heads))).collect();
        exchange(intent, peers, peer, ours, theirs).await?;
        if !more {
            return Ok(());
        }
        if last.is_none() || last <= after {
            return Err(SyncError::Unexpected);
        }
        after = last;
    }
}

fn want(key: &str, incarnation: u32, heads: &Heads) -> Want {
    Want { key: key.to_owned(), incarnation, heads: heads.clone() }
}

/// What this node has of a key now.
fn held(intent: &Intent, key: &str) -> Want {
    match lock(&intent.0.index).get(key) {
        Some(summary) => want(key, summary.incarnation, &summary.heads),
        None => Want { key: key.to_owned(), incarnation: 0, heads: Heads::new() },
    }
}

/// Pulls what the peer has more of these keys, and then pushes what it lacks.
async fn exchange(
    intent: &Intent,
    peers: &impl Peers,
    peer: &str,
    ours: Vec<Want>,
    mut theirs: BTreeMap<DocKey, (u32, Heads)>,
) -> Result<(), SyncError> {
    for want in &ours {
        match theirs.get(&want.key) {
            Some((incarnation, heads)) if (*incarnation, heads) == (want.incarnation, &want.heads) => {
                theirs.remove(&want.key);
            }
            Some(_) => {}
            None => {
                theirs.insert(want.key.clone(), (0, Heads::new()));
            }
        }
    }
    let pulls = theirs.iter().map(|(key, (incarnation, _))| (held(intent, key), *incarnation));
    let pulls = pulls.filter(|(ours, theirs)| *theirs >= ours.incarnation && *theirs > 0);
    pull(intent, peers, peer, pulls.map(|(ours, _)| ours).collect()).await?;
    let lacks = theirs.into_iter().map(|(key, (incarnation, heads))| Want { key, incarnation, heads });
    let lacks = lacks.filter(|theirs| {
        let ours = held(intent, &theirs.key);
        ours.incarnation > 0 && (ours.incarnation, &ours.heads) != (theirs.incarnation, &theirs.heads)
    });
    push(intent, peers, peer, lacks.collect()).await
}

async fn pull(
    intent: &Intent,
    peers: &impl Peers,
    peer: &str,
    mut wants: VecDeque<Want>,
) -> Result<(), SyncError> {
    while !wants.is_empty() {
        let mut heads = 0;
        let asked = wants.iter().take(WANTS).take_while(|want| {
            heads += want.heads.len();
            heads <= WANTED_HEADS || heads == want.heads.len()
        });
        let asked: Vec<Want> = asked.cloned().collect();
        let asked_count = asked.len();
        let answer = call(peers, peer, &Question::Pull { wants: asked }).await?;
        let Answer::Frames { frames, answered } = answer else { return Err(SyncError::Unexpected) };
        let answered = answered as usize;
        if answered == 0 || answered > asked_count || frames.len() > answered {
            return Err(SyncError::Unexpected);
        }
        let done: BTreeMap<DocKey, Want> =
            wants.drain(..answered).map(|want| (want.key.clone(), want)).collect();
        // Only what was asked for: an answer is no way around the bounds of a question.
        let frames = frames.into_iter().filter(|(key, ..)| done.contains_key(key));
        let (frames, partial): (Vec<_>, Vec<_>) =
            frames.map(|(key, frame, all)| ((key.clone(), frame.into_vec()), (!all).then_some(key))).unzip();
        for error in intent.apply_many(frames).await?.into_iter().filter_map(Result::err) {
            tracing::warn!(%peer, %error, "a change from a peer is not taken");
        }
        for key in partial.into_iter().flatten() {
            let now = held(intent, &key);
            if done.get(&key) != Some(&now) {
                wants.push_back(now);
            }
        }
    }
    Ok(())
}

async fn push(
    intent: &Intent,
    peers: &impl Peers,
    peer: &str,
    mut lacks: Vec<Want>,
) -> Result<(), SyncError> {
    while !lacks.is_empty() {
        let part: Vec<Want> = lacks.iter().take(WANTS).cloned().collect();
        let sent = intent.since(part, BUDGET_BYTES).await?;
        if sent.answered == 0 {
            return Err(SyncError::Unexpected);
        }
        lacks.drain(..sent.answered);
        let frames: Vec<_> =
            sent.frames.into_iter().map(|(key, frame, _)| (key, ByteBuf::from(frame))).collect();
        if frames.is_empty() {
            continue;
        }
        match call(peers, peer, &Question::Push { frames }).await? {
            Answer::Taken { refused: 0 } => {}
            Answer::Taken { refused } => tracing::warn!(%peer, refused, "a peer does not take our changes"),
            _ => return Err(SyncError::Unexpected),
        }
    }
    Ok(())
}

/// Serves a peer's question.
pub async fn answer(intent: &Intent, request: &[u8]) -> Vec<u8> {
    let answer = match decode(request) {
        Ok(question) => serve(intent, question).await,
        Err(error) => Answer::Refused(error.to_string()),
    };
    encode(&answer).or_else(|error| encode(&Answer::Refused(error.to_string()))).unwrap_or_default()
}

async fn serve(intent: &Intent, question: Question) -> Answer {
    match question {
        Question::Compare { root } => {
            let mut index = lock(&intent.0.index);
            if index.root() == root { Answer::Same } else { Answer::Differs(index.hashes()) }
        }
        Question::Bucket { bucket, after } => {
            let index = lock(&intent.0.index);
            let mut page = index.page(bucket, after.as_deref());
            let mut entries = Vec::new();
            let mut bytes = 0;
            for (key, incarnation, heads) in page.by_ref() {
                // A byte of a hash takes up to two in MessagePack.
                bytes += key.len() + 16 + heads.len() * 66;
                entries.push((key.clone(), incarnation, heads.clone()));
                if bytes > BUDGET_BYTES {
                    break;
                }
            }
            let more = page.next().is_some();
            Answer::Entries { entries, more }
        }
        Question::Pull { wants } if wants.len() > WANTS => Answer::Refused("too many wants".to_owned()),
        Question::Pull { wants } => match intent.since(wants, BUDGET_BYTES).await {
            Ok(sent) => Answer::Frames {
                frames: sent.frames.into_iter().map(|(key, frame, all)| (key, frame.into(), all)).collect(),
                answered: u32::try_from(sent.answered).unwrap_or(u32::MAX),
            },
            Err(error) => Answer::Refused(error.to_string()),
        },
        Question::Push { frames } => {
            let frames = frames.into_iter().map(|(key, frame)| (key, frame.into_vec())).collect();
            match intent.apply_many(frames).await {
                Ok(results) => {
                    let refused = results.iter().filter_map(|result| result.as_ref().err());
                    let refused = refused.inspect(|error| {
                        tracing::warn!(%error, "a change that a peer sent is not taken");
                    });
                    Answer::Taken { refused: u32::try_from(refused.count()).unwrap_or(u32::MAX) }
                }
                Err(error) => Answer::Refused(error.to_string()),
            }
        }
    }
}

#[cfg(test)]
mod tests;
