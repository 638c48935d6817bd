//! The asking side of anti-entropy: one comparison with one peer.
//!
//! It is one question of 32 bytes where nothing differs. Otherwise the buckets that differ are listed, what the
//! other side has more is pulled, and what it lacks is pushed.

use super::index::{BUCKETS, Hash};
use super::sync::{CALL_DEADLINE, Peers};
use super::wire::{Answer, BUDGET_BYTES, Question, WireError, decode, encode};
use super::{DocKey, Heads, Intent, IntentError, Want};
use serde_bytes::ByteBuf;
use std::collections::{BTreeMap, VecDeque};
use tokio::time::timeout;

/// The most wants of one question, and the most heads in them.
pub const WANTS: usize = 512;
const WANTED_HEADS: usize = 8192;
/// How many calls of one comparison may get lost before the rest is left to the next: one bad moment must not cost
/// the whole round, and a peer that is gone not a call for each bucket.
const LOST_CALLS: usize = 8;

/// Why a comparison with a peer ended early.
#[derive(Debug, thiserror::Error)]
pub enum CompareError {
    #[error("the peer cannot be reached: {0}")]
    Call(String),
    #[error("the peer does not answer in time")]
    Slow,
    #[error("the peer refuses: {0}")]
    Refused(String),
    #[error("the peer's answer does not fit the question")]
    Unexpected,
    #[error("a message cannot be used")]
    Wire(#[from] WireError),
    #[error(transparent)]
    Intent(#[from] IntentError),
}

async fn call(peers: &impl Peers, peer: &str, question: &Question) -> Result<Answer, CompareError> {
    let request = encode(question)?;
    let answer = timeout(CALL_DEADLINE, peers.call(peer, request)).await.map_err(|_| CompareError::Slow)?;
    match decode(&answer.map_err(CompareError::Call)?)? {
        Answer::Refused(why) => Err(CompareError::Refused(why)),
        answer => Ok(answer),
    }
}

/// Compares with the peer, pulls what this node lacks and pushes what the peer lacks.
pub async fn compare(intent: &Intent, peers: &impl Peers, peer: &str) -> Result<(), CompareError> {
    let (root, ours) = {
        let mut index = intent.index();
        (index.root(), index.hashes())
    };
    let theirs: Vec<Hash> = match call(peers, peer, &Question::Compare { root }).await? {
        Answer::Same => return Ok(()),
        Answer::Differs(hashes) if hashes.len() == BUCKETS => hashes,
        _ => return Err(CompareError::Unexpected),
    };
    let mut lost = 0;
    for bucket in (0..=u8::MAX).filter(|bucket| ours[usize::from(*bucket)] != theirs[usize::from(*bucket)]) {
        match compare_bucket(intent, peers, peer, bucket).await {
            Err(CompareError::Call(_)) if lost < LOST_CALLS => lost += 1,
            outcome => outcome?,
        }
    }
    Ok(())
}

/// Goes through what the peer has in a bucket, page by page.
async fn compare_bucket(
    intent: &Intent,
    peers: &impl Peers,
    peer: &str,
    bucket: u8,
) -> Result<(), CompareError> {
    let mut after: Option<DocKey> = None;
    loop {
        let question = Question::Bucket { bucket, after: after.clone() };
        let Answer::Entries { entries, more } = call(peers, peer, &question).await? else {
            return Err(CompareError::Unexpected);
        };
        let last = entries.last().map(|(key, ..)| key.clone());
        // Our own keys of the same stretch, to see which of them the peer lacks.
        let ours: Vec<Want> = {
            let index = intent.index();
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
            return Err(CompareError::Unexpected);
        }
        after = last;
    }
}

fn want(key: &str, incarnation: u32, heads: &Heads) -> Want {
    Want { key: key.to_owned(), incarnation, heads: heads.clone() }
}

/// What this node has of a key now.
fn held(intent: &Intent, key: &str) -> Want {
    match intent.index().get(key) {
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
) -> Result<(), CompareError> {
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
) -> Result<(), CompareError> {
    while !wants.is_empty() {
        let mut heads = 0;
        let asked = wants.iter().take(WANTS).take_while(|want| {
            heads += want.heads.len();
            heads <= WANTED_HEADS || heads == want.heads.len()
        });
        let asked: Vec<Want> = asked.cloned().collect();
        let asked_count = asked.len();
        let answer = call(peers, peer, &Question::Pull { wants: asked }).await?;
        let Answer::Frames { frames, answered } = answer else { return Err(CompareError::Unexpected) };
        let answered = answered as usize;
        if answered == 0 || answered > asked_count || frames.len() > answered {
            return Err(CompareError::Unexpected);
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
) -> Result<(), CompareError> {
    while !lacks.is_empty() {
        let part: Vec<Want> = lacks.iter().take(WANTS).cloned().collect();
        let sent = intent.since(part, BUDGET_BYTES).await?;
        if sent.answered == 0 {
            return Err(CompareError::Unexpected);
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
            _ => return Err(CompareError::Unexpected),
        }
    }
    Ok(())
}
