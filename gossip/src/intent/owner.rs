//! The one thread that owns the file and the unpacked documents. Requests that are there together are one commit
//! and one fsync; their answers go out after it.

use super::cache::Cache;
use super::document::{Conflict, DocumentError};
use super::frame::Frame;
use super::guard::caught;
use super::index::Index;
use super::schema::Schema;
use super::state::{self, Ageing, State, Wanted};
use super::store::{Store, StoreError, Summary, encode};
use super::{Beyond, Change, DocKey, Heads, IntentError, Noted, Want, lock};
use serde_json::Value;
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use tokio::sync::{mpsc, oneshot, watch};

/// How many frames go into one commit: enough that fsync no longer counts, few enough that the first waits briefly.
pub const BATCH_FRAMES: usize = 1024;
/// The same in bytes, which bounds what a batch holds in memory.
const BATCH_BYTES: usize = 16 * 1024 * 1024;
/// The most keys of a node, dead ones too: ten times what a large lab has. A peer cannot fill the disk with names.
pub const MAX_DOCUMENTS: usize = 200_000;
/// The longest key: a resource, a namespace and a name of 253 bytes each.
pub const MAX_KEY_BYTES: usize = 1024;
/// A document whose history has grown to this is noted, and one of more than [`HISTORY_RATIO`] times its object
/// from [`HISTORY_SMALL_BYTES`] on: someone writes what belongs into status.
const HISTORY_BYTES: usize = 1024 * 1024;
const HISTORY_RATIO: usize = 8;
const HISTORY_SMALL_BYTES: usize = 64 * 1024;

pub enum Request {
    Prepare {
        key: DocKey,
        wanted: Wanted,
        noted: Option<Noted>,
        now_ms: u64,
        answer: oneshot::Sender<Result<Change, IntentError>>,
    },
    Apply {
        frames: Vec<(DocKey, Vec<u8>)>,
        now_ms: u64,
        answer: oneshot::Sender<Vec<Result<Heads, IntentError>>>,
    },
    Value {
        key: DocKey,
        answer: oneshot::Sender<Result<Option<Value>, IntentError>>,
    },
    Covers {
        key: DocKey,
        /// Of which the heads are, as far as that is known.
        incarnation: Option<u32>,
        heads: Heads,
        /// The document's heads, if it holds all of these or was begun anew since.
        answer: oneshot::Sender<Result<Option<Beyond>, IntentError>>,
    },
    Conflicts {
        key: DocKey,
        since: Heads,
        answer: oneshot::Sender<Result<Vec<Conflict>, IntentError>>,
    },
    Since {
        wants: Vec<Want>,
        budget: usize,
        answer: oneshot::Sender<Result<Sent, IntentError>>,
    },
    Age {
        now_ms: u64,
        answer: oneshot::Sender<Result<usize, IntentError>>,
    },
}

/// What others lack, as far as it fits.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Sent {
    /// A key, the frame, and whether nothing is missing after it.
    pub frames: Vec<(DocKey, Vec<u8>, bool)>,
    /// How many of the wants were looked at.
    pub answered: usize,
}

/// Answers that wait for the commit.
enum Waiting {
    Applied(oneshot::Sender<Vec<Result<Heads, IntentError>>>, Vec<Result<Heads, IntentError>>),
    Aged(oneshot::Sender<Result<usize, IntentError>>, usize),
}

#[derive(Default)]
struct Batch {
    /// What the commit will hold; `None` is to be forgotten.
    dirty: BTreeMap<DocKey, Option<State>>,
    waiting: Vec<Waiting>,
    frames: usize,
    bytes: usize,
}

pub struct Owner {
    pub store: Store,
    pub index: Arc<Mutex<Index>>,
    pub schema: Arc<dyn Schema>,
    pub actor: String,
    pub changed: watch::Sender<u64>,
}

impl Owner {
    /// Serves requests until the last sender is gone.
    pub fn run(self, mut requests: mpsc::Receiver<Request>) {
        let mut cache = Cache::default();
        while let Some(first) = requests.blocking_recv() {
            let mut batch = Batch::default();
            let mut next = Some(first);
            while let Some(request) = next {
                // Of a request that fails like this the asker hears that its answer is gone.
                if caught(|| self.serve(request, &mut cache, &mut batch)).is_none() {
                    tracing::error!("a request to the documents failed in an unforeseen way");
                }
                let full = batch.frames >= BATCH_FRAMES || batch.bytes >= BATCH_BYTES;
                next = if full { None } else { requests.try_recv().ok() };
            }
            self.commit(batch, &mut cache);
        }
    }

    fn serve(&self, request: Request, cache: &mut Cache, batch: &mut Batch) {
        // An asker that is gone does not want its answer, hence the ignored results of `send`.
        match request {
            Request::Prepare { key, wanted, noted, now_ms, answer } => {
                let _ = answer.send(self.prepare(&key, &wanted, noted.as_ref(), now_ms, cache, batch));
            }
            Request::Apply { frames, now_ms, answer } => {
                let results = frames.into_iter().map(|(key, frame)| {
                    batch.frames += 1;
                    batch.bytes += frame.len();
                    self.apply(key, &frame, now_ms, cache, batch)
                });
                let results = results.collect();
                batch.waiting.push(Waiting::Applied(answer, results));
            }
            Request::Value { key, answer } => {
                let state = self.state(&key, cache, batch);
                let value = state.map(|state| state.and_then(|state| state.value(&*self.schema)));
                let _ = answer.send(value.map_err(IntentError::from));
            }
            Request::Covers { key, incarnation, heads, answer } => {
                let state = self.state(&key, cache, batch);
                let beyond = state.map(|state| state::beyond(state, incarnation, &heads));
                let _ = answer.send(beyond.map_err(IntentError::from));
            }
            Request::Conflicts { key, since, answer } => {
                let conflicts = self.state(&key, cache, batch).map(|state| match state {
                    Some(State::Document(document)) => document.conflicts(&since),
                    Some(State::Buried { .. }) | None => Vec::new(),
                });
                let _ = answer.send(conflicts.map_err(IntentError::from));
            }
            Request::Since { wants, budget, answer } => {
                let _ = answer.send(self.since(&wants, budget, cache, batch));
            }
            Request::Age { now_ms, answer } => {
                let count = self.age(now_ms, batch);
                batch.waiting.push(Waiting::Aged(answer, count));
            }
        }
    }

    fn state<'a>(
        &self,
        key: &str,
        cache: &'a mut Cache,
        batch: &'a Batch,
    ) -> Result<Option<&'a State>, StoreError> {
        if let Some(state) = batch.dirty.get(key) {
            return Ok(state.as_ref());
        }
        if lock(&self.index).get(key).is_none() {
            return Ok(None);
        }
        if cache.get(key).is_none()
            && let Some(state) = self.store.read(key)?
        {
            cache.put(key.to_owned(), state);
        }
        Ok(cache.get(key))
    }

    fn prepare(
        &self,
        key: &DocKey,
        wanted: &Wanted,
        noted: Option<&Noted>,
        now_ms: u64,
        cache: &mut Cache,
        batch: &Batch,
    ) -> Result<Change, IntentError> {
        check_key(key)?;
        let state = self.state(key, cache, batch)?;
        // Where there is no room for another document, this one never comes, and the object goes without: it is how room is made.
        let ends = matches!(wanted, Wanted::Whole(None));
        let noted = noted.filter(|_| !(ends && state.is_none() && lock(&self.index).len() >= MAX_DOCUMENTS));
        let change = state::change(state, &self.actor, wanted, noted, &*self.schema, now_ms);
        change.map_err(|source| IntentError::Prepare { key: key.clone(), source })
    }

    fn apply(
        &self,
        key: DocKey,
        frame: &[u8],
        now_ms: u64,
        cache: &mut Cache,
        batch: &mut Batch,
    ) -> Result<Heads, IntentError> {
        check_key(&key)?;
        let frame = Frame::decode(frame).map_err(|source| IntentError::Frame { key: key.clone(), source })?;
        let state = self.state(&key, cache, batch)?;
        if state.is_none() && lock(&self.index).len() + batch.dirty.len() >= MAX_DOCUMENTS {
            return Err(IntentError::TooMany { key });
        }
        let refused = |source: DocumentError| IntentError::Refused { key: key.clone(), source };
        match state::apply(state, &frame, &*self.schema, now_ms).map_err(refused)? {
            None => Ok(state.map(State::marked_heads).unwrap_or_default()),
            Some(next) => {
                let heads = next.marked_heads();
                batch.dirty.insert(key, Some(next));
                Ok(heads)
            }
        }
    }

    fn since(
        &self,
        wants: &[Want],
        budget: usize,
        cache: &mut Cache,
        batch: &Batch,
    ) -> Result<Sent, IntentError> {
        let mut sent = Sent::default();
        let mut bytes = 0;
        for want in wants {
            if let Some(state) = self.state(&want.key, cache, batch)?
                && let Some((frame, complete)) = state::since(state, want.incarnation, &want.heads, budget)
            {
                if bytes + frame.len() > budget && !sent.frames.is_empty() {
                    break;
                }
                bytes += frame.len() + want.key.len();
                sent.frames.push((want.key.clone(), frame, complete));
            }
            sent.answered += 1;
        }
        Ok(sent)
    }

    /// Buries and forgets what has been dead for long; how many.
    fn age(&self, now_ms: u64, batch: &mut Batch) -> usize {
        let index = lock(&self.index);
        let due = index.iter().filter_map(|(key, summary)| {
            let next = match state::ageing(summary.standing, now_ms) {
                Ageing::Stays => return None,
                Ageing::Bury { at_ms } => Some(State::Buried { incarnation: summary.incarnation, at_ms }),
                Ageing::Forget => None,
            };
            (!batch.dirty.contains_key(key)).then(|| (key.clone(), next))
        });
        // The rest goes with the next call: a batch is bounded.
        let due: Vec<_> = due.take(BATCH_FRAMES).collect();
        let count = due.len();
        batch.dirty.extend(due);
        count
    }

    fn commit(&self, mut batch: Batch, cache: &mut Cache) {
        let waiting = std::mem::take(&mut batch.waiting);
        let committed = match batch.dirty.is_empty() {
            true => Ok(()),
            false => caught(|| self.write(batch.dirty, cache)).unwrap_or(Err(IntentError::Stopped)),
        };
        if let Err(error) = &committed {
            // With its causes: they say what the disk said.
            tracing::error!(
                error = error as &(dyn std::error::Error + 'static),
                "documents could not be written"
            );
        }
        for waiting in waiting {
            match waiting {
                Waiting::Applied(answer, results) => {
                    let results = results.into_iter().map(|result| committed.clone().and(result));
                    let _ = answer.send(results.collect());
                }
                Waiting::Aged(answer, count) => {
                    let _ = answer.send(committed.clone().map(|()| count));
                }
            }
        }
    }

    fn write(&self, dirty: BTreeMap<DocKey, Option<State>>, cache: &mut Cache) -> Result<(), IntentError> {
        let mut records = Vec::with_capacity(dirty.len());
        for (key, state) in dirty {
            let summary = state.as_ref().map(|state| self.summary(&key, state));
            let record = match (&state, &summary) {
                (Some(state), Some(summary)) => {
                    Some(encode(state, summary).map_err(|_| IntentError::Stopped)?)
                }
                _ => None,
            };
            records.push((key, state, summary, record));
        }
        self.store.write(records.iter_mut().map(|(key, _, _, record)| (&*key, record.take())))?;
        let mut index = lock(&self.index);
        for (key, state, summary, _) in records {
            index.set(key.clone(), summary);
            match state {
                Some(state) => cache.put(key, state),
                None => cache.remove(&key),
            }
        }
        drop(index);
        self.changed.send_modify(|count| *count += 1);
        Ok(())
    }

    fn summary(&self, key: &str, state: &State) -> Summary {
        let saved_bytes = match state {
            State::Document(document) => document.saved().len(),
            State::Buried { .. } => 0,
        };
        let before = lock(&self.index).get(key).map_or(0, |before| before.saved_bytes);
        if saved_bytes > HISTORY_SMALL_BYTES
            && saved_bytes / HISTORY_SMALL_BYTES > before / HISTORY_SMALL_BYTES
        {
            let object_bytes = state.value(&*self.schema).map_or(0, |object| object.to_string().len());
            if saved_bytes > HISTORY_BYTES || saved_bytes > HISTORY_RATIO * object_bytes {
                tracing::warn!(
                    key,
                    saved_bytes,
                    object_bytes,
                    "a document's history is large: what keeps changing it?"
                );
            }
        }
        let standing = state.standing();
        Summary { incarnation: state.incarnation(), heads: state.heads(), standing, saved_bytes }
    }
}

fn check_key(key: &str) -> Result<(), IntentError> {
    if key.is_empty() || key.len() > MAX_KEY_BYTES {
        return Err(IntentError::Key { bytes: key.len() });
    }
    Ok(())
}
