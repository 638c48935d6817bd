//! The one thread that changes documents. Requests that are there together are one commit and one fsync; their answers go
//! out after it, and nobody sees anything of them before.

use super::document::DocumentError;
use super::frame::Frame;
use super::guard::caught;
use super::held::Held;
use super::schema::Schema;
use super::state::{self, Ageing, State};
use super::store::{StoreError, Summary};
use super::{DocKey, Heads, IntentError};
use std::collections::BTreeMap;
use std::sync::Arc;
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
    Apply {
        frames: Vec<(DocKey, Vec<u8>)>,
        now_ms: u64,
        answer: oneshot::Sender<Vec<Result<Heads, IntentError>>>,
    },
    Age {
        now_ms: u64,
        answer: oneshot::Sender<Result<usize, IntentError>>,
    },
}

/// Answers that wait for the commit.
enum Waiting {
    Applied(oneshot::Sender<Vec<Result<Heads, IntentError>>>, Vec<Result<Heads, IntentError>>),
    Aged(oneshot::Sender<Result<usize, IntentError>>, usize),
}

#[derive(Default)]
struct Batch {
    /// What the commit will hold; `None` is to be forgotten.
    dirty: BTreeMap<DocKey, Option<Arc<State>>>,
    waiting: Vec<Waiting>,
    frames: usize,
    bytes: usize,
}

pub struct Writer {
    pub held: Arc<Held>,
    pub schema: Arc<dyn Schema>,
    pub changed: watch::Sender<u64>,
}

impl Writer {
    /// Serves requests until the last sender is gone.
    pub fn run(self, mut requests: mpsc::Receiver<Request>) {
        while let Some(first) = requests.blocking_recv() {
            let mut batch = Batch::default();
            let mut next = Some(first);
            while let Some(request) = next {
                // Of a request that fails like this the asker hears that its answer is gone.
                if caught(|| self.serve(request, &mut batch)).is_none() {
                    tracing::error!("a request to the documents failed in an unforeseen way");
                }
                let full = batch.frames >= BATCH_FRAMES || batch.bytes >= BATCH_BYTES;
                next = if full { None } else { requests.try_recv().ok() };
            }
            self.commit(batch);
        }
    }

    fn serve(&self, request: Request, batch: &mut Batch) {
        match request {
            Request::Apply { frames, now_ms, answer } => {
                let results = frames.into_iter().map(|(key, frame)| {
                    batch.frames += 1;
                    batch.bytes += frame.len();
                    self.apply(key, &frame, now_ms, batch)
                });
                let results = results.collect();
                batch.waiting.push(Waiting::Applied(answer, results));
            }
            Request::Age { now_ms, answer } => {
                let count = self.age(now_ms, batch);
                batch.waiting.push(Waiting::Aged(answer, count));
            }
        }
    }

    fn state(&self, key: &str, batch: &Batch) -> Result<Option<Arc<State>>, StoreError> {
        match batch.dirty.get(key) {
            Some(state) => Ok(state.clone()),
            None => self.held.state(key),
        }
    }

    fn apply(&self, key: DocKey, frame: &[u8], now_ms: u64, batch: &mut Batch) -> Result<Heads, IntentError> {
        check_key(&key)?;
        let frame = Frame::decode(frame).map_err(|source| IntentError::Frame { key: key.clone(), source })?;
        let state = self.state(&key, batch)?;
        if state.is_none() && self.held.index().len() + batch.dirty.len() >= MAX_DOCUMENTS {
            return Err(IntentError::TooMany { key });
        }
        let refused = |source: DocumentError| IntentError::Refused { key: key.clone(), source };
        match state::apply(state.as_deref(), &frame, &*self.schema, now_ms).map_err(refused)? {
            None => Ok(state.map(|state| state.marked_heads()).unwrap_or_default()),
            Some(next) => {
                let heads = next.marked_heads();
                batch.dirty.insert(key, Some(Arc::new(next)));
                Ok(heads)
            }
        }
    }

    /// Buries and forgets what has been dead for long; how many.
    fn age(&self, now_ms: u64, batch: &mut Batch) -> usize {
        let index = self.held.index();
        let due = index.iter().filter_map(|(key, summary)| {
            let next = match state::ageing(summary.standing, now_ms) {
                Ageing::Stays => return None,
                Ageing::Bury { at_ms } => {
                    Some(Arc::new(State::Buried { incarnation: summary.incarnation, at_ms }))
                }
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

    fn commit(&self, mut batch: Batch) {
        let waiting = std::mem::take(&mut batch.waiting);
        let committed = match batch.dirty.is_empty() {
            true => Ok(()),
            false => caught(|| self.write(batch.dirty)).unwrap_or(Err(IntentError::Stopped)),
        };
        if let Err(error) = &committed {
            // With its causes: they say what the disk said.
            tracing::error!(
                error = error as &(dyn std::error::Error + 'static),
                "documents could not be written"
            );
        }
        // An asker that is gone does not want its answer.
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

    fn write(&self, dirty: BTreeMap<DocKey, Option<Arc<State>>>) -> Result<(), IntentError> {
        let dirty = dirty.into_iter().map(|(key, state)| {
            let next = state.map(|state| {
                let summary = self.summary(&key, &state);
                (state, summary)
            });
            (key, next)
        });
        self.held.write(dirty.collect())?;
        self.changed.send_modify(|count| *count += 1);
        Ok(())
    }

    fn summary(&self, key: &str, state: &State) -> Summary {
        let saved_bytes = match state {
            State::Document(document) => document.saved().len(),
            State::Buried { .. } => 0,
        };
        let before = self.held.index().get(key).map_or(0, |before| before.saved_bytes);
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

pub fn check_key(key: &str) -> Result<(), IntentError> {
    if key.is_empty() || key.len() > MAX_KEY_BYTES {
        return Err(IntentError::Key { bytes: key.len() });
    }
    Ok(())
}
