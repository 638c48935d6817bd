//! A node's documents in memory, by the same rules as [`Intent`](super::Intent) has, without its threads and its disk: for
//! simulations. Pure.
//!
//! What a document says depends on the changes in it alone, so replicas share the documents that they hold alike.

use super::document::{Conflict, DocumentError};
use super::frame::{Frame, FrameError};
use super::schema::Schema;
use super::state::{self, PrepareError, Standing, State, Wanted};
use super::{Beyond, Change, DocKey, Heads, Noted, mark};
use serde_json::Value;
use std::collections::BTreeMap;
use std::sync::Arc;

/// What a node holds for one key.
pub type Held = Arc<State>;

#[derive(Clone, Debug, thiserror::Error)]
pub enum ApplyError {
    #[error("a change is not in a form that this node reads")]
    Frame(#[from] FrameError),
    #[error("a change is refused")]
    Refused(#[from] DocumentError),
}

#[derive(Clone, Debug, Default)]
pub struct Replica {
    documents: BTreeMap<DocKey, Held>,
}

impl Replica {
    pub fn get(&self, key: &str) -> Option<&Held> {
        self.documents.get(key)
    }

    pub fn set(&mut self, key: DocKey, held: Held) {
        self.documents.insert(key, held);
    }

    /// Everything that is known, deleted objects too, by key.
    pub fn iter(&self) -> impl Iterator<Item = (&DocKey, &Held)> {
        self.documents.iter()
    }
}

/// As [`Intent::prepare_on`](super::Intent::prepare_on), [`Intent::prepare_edit`](super::Intent::prepare_edit) and
/// [`Intent::prepare_made`](super::Intent::prepare_made).
///
/// # Errors
/// When the change cannot be made.
pub fn prepare(
    held: Option<&Held>,
    author: &str,
    wanted: &Wanted,
    noted: Option<&Noted>,
    schema: &dyn Schema,
    now_ms: u64,
) -> Result<Change, PrepareError> {
    state::change(held.map(|held| &**held), author, wanted, noted, schema, now_ms)
}

/// What a key holds after a change; `None` if that is what it held before.
///
/// # Errors
/// When the change is not one that a node makes.
pub fn apply(
    held: Option<&Held>,
    change: &[u8],
    schema: &dyn Schema,
    now_ms: u64,
) -> Result<Option<Held>, ApplyError> {
    let frame = Frame::decode(change)?;
    Ok(state::apply(held.map(|held| &**held), &frame, schema, now_ms)?.map(Arc::new))
}

/// What brings a node that holds `theirs` closer to `held`; `None` if it lacks nothing.
pub fn since(held: &Held, theirs: Option<&Held>, budget: usize) -> Option<Vec<u8>> {
    let (incarnation, heads) = theirs.map_or((0, Heads::new()), |held| (held.incarnation(), held.heads()));
    state::since(held, incarnation, &heads, budget).map(|(frame, _)| frame)
}

pub fn value(held: &Held, schema: &dyn Schema) -> Option<Value> {
    held.value(schema)
}

/// As they leave the documents. While its first change has not come, there are none.
pub fn heads(held: &Held) -> Option<Heads> {
    match &**held {
        State::Document(document) if document.is_empty() => None,
        state => Some(state.marked_heads()),
    }
}

/// As [`Intent::beyond`](super::Intent::beyond).
pub fn beyond(held: Option<&Held>, known: &Heads) -> Option<Beyond> {
    let (incarnation, known) = mark::unmarked(known);
    state::beyond(held.map(|held| &**held), incarnation, &known)
}

/// As [`Intent::changes_beyond`](super::Intent::changes_beyond).
pub fn changes_beyond(held: &Held, known: &Heads, budget: usize) -> Option<Vec<u8>> {
    let (incarnation, known) = mark::unmarked(known);
    let incarnation = incarnation.unwrap_or_else(|| held.incarnation());
    state::since(held, incarnation, &known, budget).map(|(frame, _)| frame)
}

pub fn conflicts(held: &Held, since: &Heads) -> Vec<Conflict> {
    match &**held {
        State::Document(document) => document.conflicts(&mark::unmarked(since).1),
        State::Buried { .. } => Vec::new(),
    }
}

/// Whether the key's document is gone for good, and a burial takes its place.
pub fn is_buried(held: Option<&Held>) -> bool {
    held.is_some_and(|held| matches!(**held, State::Buried { .. }))
}

/// Whether the key's object was deleted, and not made anew.
pub fn is_deleted(held: Option<&Held>) -> bool {
    held.is_some_and(|held| matches!(held.standing(), Standing::Deleted { .. } | Standing::Buried { .. }))
}

/// The key's document without changes that wait for others: then its incarnation and heads say what is in it.
pub fn is_whole(held: &Held) -> bool {
    match &**held {
        State::Document(document) => document.pending().next().is_none(),
        State::Buried { .. } => true,
    }
}

pub fn incarnation(held: &Held) -> u32 {
    held.incarnation()
}
