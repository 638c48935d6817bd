//! Intent: what people asked for, as one automerge document per object, on every node.
//!
//! [`Intent`] is the handle: it prepares changes, applies them durably, and says what the documents say. Raft, when
//! there is a quorum, orders the very same changes; the documents do not know of it. [`Syncer`] keeps nodes alike,
//! through [`Peers`]; nothing here knows how peers are reached.
//!
//! Deletion and creation, and who wins: see the `state` module. How objects become documents: see `tree`.

mod beginning;
mod cache;
mod compare;
mod document;
mod frame;
mod guard;
mod held;
mod index;
mod leaf;
mod mark;
mod order;
mod reader;
pub mod replica;
mod schema;
mod serve;
mod state;
mod store;
mod sync;
mod tree;
mod vet;
mod wire;
mod writer;

#[cfg(test)]
mod samples;
#[cfg(test)]
mod tests;

pub use document::{Conflict, DocumentError, MAX_JSON_BYTES};
pub use frame::{FrameError, MAX_FRAME_BYTES};
pub use schema::{KeyField, KubernetesLists, Schema};
pub use state::{PrepareError, Wanted};
pub use store::StoreError;
pub use sync::{Keeper, Peers, Syncer};
pub use wire::MAX_MESSAGE_BYTES;

use held::Held;
use index::Index;
use reader::{Job, Reader, Sent};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use state::Standing;
use std::path::{Path, PathBuf};
use std::sync::{Arc, MutexGuard};
use std::thread::JoinHandle;
use std::time::{SystemTime, UNIX_EPOCH};
use store::Summary;
use tokio::sync::{mpsc, oneshot, watch};
use writer::{BATCH_FRAMES, MAX_DOCUMENTS, MAX_KEY_BYTES, Request, Writer};

/// A key as the caller spells it: `deployments.apps/default/web`.
pub type DocKey = String;

/// The hashes of a document's newest changes, sorted. Empty for a document that is gone for good. Where [`Intent`] gives
/// them out, there is a mark of their incarnation among them.
pub type Heads = Vec<[u8; 32]>;

/// What waits for the writer's thread, and for the reader's; askers beyond wait in turn.
const WAITING_REQUESTS: usize = 256;

/// A prepared change: how it travels, and the document's heads once it is applied where it was prepared.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    pub bytes: Vec<u8>,
    pub heads: Heads,
    /// The document's heads before it; `None` where there is nothing (any more) that it could contradict.
    pub base: Option<Heads>,
}

/// From what an object was last adopted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Noted {
    pub heads: Heads,
    /// There is no such object now.
    pub gone: bool,
}

/// A document that holds what was asked for, and perhaps more.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Beyond {
    pub heads: Heads,
    /// What was asked for is of an earlier incarnation: somebody deleted the object since, and made it anew.
    pub anew: bool,
}

/// What a node has of a document: the question that another answers with what is missing.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Want {
    pub key: DocKey,
    /// 0: nothing.
    pub incarnation: u32,
    pub heads: Heads,
}

impl IntentError {
    /// Whether the disk refuses: it may have room again later.
    pub fn is_disk(&self) -> bool {
        let of_disk = |error: &StoreError| matches!(error, StoreError::Disk { .. } | StoreError::Open { .. });
        matches!(self, Self::Store(error) if of_disk(error))
    }
}

#[derive(Clone, Debug, thiserror::Error)]
pub enum IntentError {
    /// The file cannot be used: where and what to do is in the source's message.
    #[error("the documents on disk cannot be used")]
    Store(#[source] Arc<StoreError>),
    #[error("a thread of the documents cannot be started")]
    Thread(#[source] Arc<std::io::Error>),
    #[error("a change of {key} cannot be made")]
    Prepare { key: DocKey, source: PrepareError },
    #[error("a change of {key} is not in a form that this node reads")]
    Frame { key: DocKey, source: FrameError },
    #[error("a change of {key} is refused")]
    Refused { key: DocKey, source: DocumentError },
    #[error("{key} would be one document more than {MAX_DOCUMENTS}: delete objects that are not needed")]
    TooMany { key: DocKey },
    #[error("a key has from 1 to {MAX_KEY_BYTES} bytes, this one has {bytes}")]
    Key { bytes: usize },
    #[error("the documents are closed, or failed in an unforeseen way that the log tells of")]
    Stopped,
}

impl From<StoreError> for IntentError {
    fn from(error: StoreError) -> Self {
        Self::Store(Arc::new(error))
    }
}

/// A handle to this node's documents. The file is closed when the last one is dropped, which waits for the commit
/// that is under way.
#[derive(Clone)]
pub struct Intent(Arc<Inner>);

struct Inner {
    /// `None` only while being dropped.
    channels: Option<Channels>,
    threads: Vec<JoinHandle<()>>,
    reader: Arc<Reader>,
    changed: watch::Receiver<u64>,
}

struct Channels {
    requests: mpsc::Sender<Request>,
    jobs: mpsc::Sender<Job>,
}

impl Drop for Inner {
    fn drop(&mut self) {
        self.channels = None;
        for thread in self.threads.drain(..) {
            // It catches its panics; one that got through has been printed.
            let _ = thread.join();
        }
    }
}

impl Intent {
    /// Opens or begins the documents in the file at `path`. `actor` is this node's peer id: a part of who made a
    /// change. Blocks while it checks the whole file.
    ///
    /// # Errors
    /// A damaged file is [`StoreError::Corrupt`] in [`IntentError::Store`].
    pub fn open(path: &Path, actor: &str, schema: impl Schema) -> Result<Self, IntentError> {
        let (store, summaries) = store::Store::open(path)?;
        let (held, schema) = (Arc::new(Held::new(store, summaries)), Arc::new(schema));
        let (requests, waiting_requests) = mpsc::channel(WAITING_REQUESTS);
        let (jobs, waiting_jobs) = mpsc::channel(WAITING_REQUESTS);
        let (changed_sender, changed) = watch::channel(0);
        let writer = Writer { held: held.clone(), schema: schema.clone(), changed: changed_sender };
        let reader = Arc::new(Reader { held, schema, actor: actor.to_owned() });
        let mut inner = Inner {
            channels: Some(Channels { requests, jobs }),
            threads: Vec::new(),
            reader: reader.clone(),
            changed,
        };
        let mut start = |name: &str, run: Box<dyn FnOnce() + Send>| {
            let thread = std::thread::Builder::new().name(name.to_owned()).spawn(run);
            inner.threads.push(thread.map_err(|error| IntentError::Thread(Arc::new(error)))?);
            Ok::<_, IntentError>(())
        };
        start("intent-writer", Box::new(move || writer.run(waiting_requests)))?;
        start("intent-reader", Box::new(move || reader.run(waiting_jobs)))?;
        Ok(Self(Arc::new(inner)))
    }

    /// [`open`](Self::open), and a damaged file goes aside for a person to look at: then the documents begin anew, and
    /// the second value says where it is. What no other node holds is lost.
    ///
    /// # Errors
    /// When the disk refuses it.
    pub fn open_or_begin_anew(
        path: &Path,
        actor: &str,
        schema: impl Schema + Clone,
    ) -> Result<(Self, Option<PathBuf>), IntentError> {
        match Self::open(path, actor, schema.clone()) {
            Err(IntentError::Store(error)) if matches!(*error, StoreError::Corrupt { .. }) => {
                let aside = store::Store::set_aside(path)?;
                Ok((Self::open(path, actor, schema)?, Some(aside)))
            }
            opened => Ok((opened?, None)),
        }
    }

    /// The change that brings the key's document to `object` (`None`: deleted), from what this node holds now.
    /// Nothing is stored; a change that is never applied does no harm.
    ///
    /// It builds on this node's copy alone: where the object has been adopted by a quorum, ask [`covers`] first
    /// whether the copy is that far, or the change undoes in the document what it does not know of.
    ///
    /// [`covers`]: Self::covers
    ///
    /// # Errors
    /// [`PrepareError::Missing`] if an object is to be deleted that this node does not hold.
    pub async fn prepare(&self, key: &str, object: Option<&Value>) -> Result<Change, IntentError> {
        self.prepare_on(key, object, None).await
    }

    /// The same for an object that was last adopted from `noted`. A copy that is not that far is of no use for a change:
    /// an object that is made anew begins the incarnation after that one, and any other change names a base on which
    /// nothing was adopted.
    ///
    /// # Errors
    /// As [`prepare`](Self::prepare).
    pub async fn prepare_on(
        &self,
        key: &str,
        object: Option<&Value>,
        noted: Option<&Noted>,
    ) -> Result<Change, IntentError> {
        self.change(key, Wanted::Whole(object.cloned()), noted).await
    }

    /// The change that makes the object where nobody can order it. One that waits for its order already stays, and gets what
    /// this one says.
    ///
    /// # Errors
    /// When the change cannot be made.
    pub async fn prepare_made(
        &self,
        key: &str,
        object: &Value,
        noted: Option<&Noted>,
    ) -> Result<Change, IntentError> {
        self.change(key, Wanted::Made(object.clone()), noted).await
    }

    /// The change that does to the key's document what tells `after` from `before`: for an edit of an object that is
    /// not shown as its document has it, since edits before this one wait for somebody to order them. With
    /// [`prepare`](Self::prepare) it would take those back.
    pub async fn prepare_edit(
        &self,
        key: &str,
        before: &Value,
        after: &Value,
        noted: Option<&Noted>,
    ) -> Result<Change, IntentError> {
        self.change(key, Wanted::Edit { before: before.clone(), after: after.clone() }, noted).await
    }

    async fn change(&self, key: &str, wanted: Wanted, noted: Option<&Noted>) -> Result<Change, IntentError> {
        let (noted, light) = (noted.cloned(), wanted.is_light());
        let prepare =
            move |reader: &Reader, key: &str| reader.prepare(key, &wanted, noted.as_ref(), now_ms());
        match light {
            true => self.read(key, prepare).await?,
            false => {
                let key = key.to_owned();
                self.ask_reader(move |reader| prepare(reader, &key)).await?
            }
        }
    }

    /// Merges a change into the key's document; on disk when this returns. In any order, any number of times.
    pub async fn apply(&self, key: &str, change: &[u8]) -> Result<Heads, IntentError> {
        let frames = vec![(key.to_owned(), change.to_vec())];
        self.apply_many(frames).await?.pop().unwrap_or(Err(IntentError::Stopped))
    }

    /// Merges many changes with few fsyncs. An outcome for each, in order: one bad change does not hold up others.
    pub async fn apply_many(
        &self,
        frames: Vec<(DocKey, Vec<u8>)>,
    ) -> Result<Vec<Result<Heads, IntentError>>, IntentError> {
        let mut results = Vec::with_capacity(frames.len());
        let mut frames = frames.into_iter();
        loop {
            let part: Vec<_> = frames.by_ref().take(BATCH_FRAMES).collect();
            if part.is_empty() {
                return Ok(results);
            }
            let request = |answer| Request::Apply { frames: part, now_ms: now_ms(), answer };
            results.extend(self.ask(request).await?);
        }
    }

    /// What the key's document says; `None` if it is deleted or not here.
    pub async fn value(&self, key: &str) -> Result<Option<Value>, IntentError> {
        self.read(key, Reader::value).await?
    }

    /// The fields of the key's document that people who did not know of each other set differently, beyond what was so
    /// at the heads `since`.
    pub async fn conflicts(&self, key: &str, since: &Heads) -> Result<Vec<Conflict>, IntentError> {
        let (_, since) = mark::unmarked(since);
        self.read(key, move |reader, key| reader.conflicts(key, &since)).await?
    }

    /// Whether the key's document is gone for good, and a burial takes its place.
    pub fn is_buried(&self, key: &str) -> bool {
        let index = self.index();
        let standing = index.get(key).map(|summary| summary.standing);
        matches!(standing, Some(Standing::Buried { .. }))
    }

    /// Whether this node's copy holds all changes up to `heads`; a burial has forgotten them, and covers all.
    pub async fn covers(&self, key: &str, heads: &Heads) -> Result<bool, IntentError> {
        if self.heads(key).is_some_and(|held| held == *heads) {
            return Ok(true);
        }
        Ok(self.beyond(key, heads).await?.is_some())
    }

    /// The heads of this node's copy, if it holds all changes up to `heads` or was begun anew since: both looked at in
    /// the same moment, which [`covers`](Self::covers) and then [`heads`](Self::heads) are not. The latter may be of
    /// before.
    pub async fn beyond(&self, key: &str, heads: &Heads) -> Result<Option<Beyond>, IntentError> {
        let (incarnation, heads) = mark::unmarked(heads);
        self.read(key, move |reader, key| reader.beyond(key, incarnation, &heads)).await?
    }

    /// The change that brings a copy with `heads` up to this node's, or as far as about `budget` bytes reach; `None` if
    /// it lacks nothing.
    ///
    /// # Errors
    /// When the disk refuses it.
    pub async fn changes_beyond(
        &self,
        key: &str,
        heads: &Heads,
        budget: usize,
    ) -> Result<Option<Vec<u8>>, IntentError> {
        let (incarnation, heads) = mark::unmarked(heads);
        let held = self.index().get(key).map_or(0, |summary| summary.incarnation);
        let want = Want { key: key.to_owned(), incarnation: incarnation.unwrap_or(held), heads };
        Ok(self.since(vec![want], budget).await?.frames.pop().map(|(_, frame, _)| frame))
    }

    /// `None` if this node knows nothing of the key.
    pub fn heads(&self, key: &str) -> Option<Heads> {
        let index = self.index();
        index.get(key).filter(|summary| index::is_known(summary)).map(Summary::marked_heads)
    }

    /// Whether the key's object was deleted, and not created anew.
    pub fn is_deleted(&self, key: &str) -> bool {
        let index = self.index();
        let standing = index.get(key).map(|summary| summary.standing);
        matches!(standing, Some(Standing::Deleted { .. } | Standing::Buried { .. }))
    }

    /// The keys that have an object, sorted.
    pub fn keys(&self) -> Vec<DocKey> {
        let index = self.index();
        let live = index.iter().filter(|(_, summary)| summary.standing == Standing::Live);
        let mut keys: Vec<DocKey> = live.map(|(key, _)| key.clone()).collect();
        keys.sort_unstable();
        keys
    }

    /// Key, incarnation and heads of everything that is known, deleted objects too; sorted by key.
    pub fn digest(&self) -> Vec<(DocKey, u32, Heads)> {
        let index = self.index();
        let known = index.iter().filter(|(_, summary)| index::is_known(summary));
        let mut digest: Vec<_> =
            known.map(|(key, summary)| (key.clone(), summary.incarnation, summary.marked_heads())).collect();
        digest.sort_unstable();
        digest
    }

    /// Key and heads of what changed since `mark` and is known, deleted objects too, and the mark for the next call; all that
    /// is known where there is no mark, or it is too old. A key may come twice.
    pub fn digest_since(&self, mark: Option<u64>) -> (Vec<(DocKey, Heads)>, u64) {
        let index = self.index();
        let digest = |(key, summary): (&DocKey, &Summary)| {
            index::is_known(summary).then(|| (key.clone(), summary.marked_heads()))
        };
        let digest = match mark.and_then(|mark| index.changed_since(mark)) {
            Some(keys) => keys.filter_map(|key| digest((key, index.get(key)?))).collect(),
            None => index.iter().filter_map(digest).collect(),
        };
        (digest, index.changes())
    }

    /// Rings when any document changed.
    pub fn changed(&self) -> watch::Receiver<u64> {
        self.0.changed.clone()
    }

    /// Frees what has been deleted for long. Call it every hour or so; how many documents it concerned.
    pub async fn compact(&self, now_ms: u64) -> Result<usize, IntentError> {
        let mut total = 0;
        loop {
            let count = self.ask(|answer| Request::Age { now_ms, answer }).await??;
            total += count;
            if count < BATCH_FRAMES {
                return Ok(total);
            }
        }
    }

    /// The answer to another node's request (see [`Syncer`]). Hostile bytes get a refusal.
    pub async fn answer(&self, request: &[u8]) -> Vec<u8> {
        serve::answer(self, request).await
    }

    fn index(&self) -> MutexGuard<'_, Index> {
        self.0.reader.held.index()
    }

    async fn since(&self, wants: Vec<Want>, budget: usize) -> Result<Sent, IntentError> {
        self.ask_reader(move |reader| reader.since(&wants, budget)).await?
    }

    /// Reads the key's document, for something that takes no time once it is unpacked. Where there is none, at once.
    async fn read<T: Send + 'static>(
        &self,
        key: &str,
        read: impl FnOnce(&Reader, &str) -> T + Send + 'static,
    ) -> Result<T, IntentError> {
        let known = self.index().get(key).is_some();
        match known {
            true => {
                let key = key.to_owned();
                self.ask_reader(move |reader| read(reader, &key)).await
            }
            false => self.0.reader.answer(|reader| read(reader, key)).ok_or(IntentError::Stopped),
        }
    }

    async fn ask_reader<T: Send + 'static>(
        &self,
        read: impl FnOnce(&Reader) -> T + Send + 'static,
    ) -> Result<T, IntentError> {
        let (answer, answered) = oneshot::channel();
        // An asker that is gone does not want its answer.
        let job: Job = Box::new(move |reader| _ = answer.send(read(reader)));
        self.channels()?.jobs.send(job).await.map_err(|_| IntentError::Stopped)?;
        answered.await.map_err(|_| IntentError::Stopped)
    }

    async fn ask<T>(&self, request: impl FnOnce(oneshot::Sender<T>) -> Request) -> Result<T, IntentError> {
        let (answer, answered) = oneshot::channel();
        self.channels()?.requests.send(request(answer)).await.map_err(|_| IntentError::Stopped)?;
        answered.await.map_err(|_| IntentError::Stopped)
    }

    fn channels(&self) -> Result<&Channels, IntentError> {
        self.0.channels.as_ref().ok_or(IntentError::Stopped)
    }
}

fn now_ms() -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(now.as_millis()).unwrap_or(u64::MAX)
}
