//! What a node holds for one key: a document of the newest incarnation, or the note that it is buried. Pure; the
//! rules by which two nodes always come to hold the same:
//!
//! 1. The higher incarnation wins. Deleting ends an incarnation, creating anew begins the next with an empty
//!    document, so that late changes of the old one reach nothing. A document says which objects have ended under its
//!    name; whoever gives up a copy of one that is not among them, made by a desktop that had heard of none of the others,
//!    makes it anew in the higher incarnation.
//! 2. Within an incarnation documents merge. A deletion takes every field away that its maker knew of; a concurrent
//!    edit does not bring the object back (delete wins), while an object that another side created at the same time
//!    without knowing of this one is not what was deleted, and stays.
//! 3. A burial wins over the document of its incarnation. It takes the place of a document [`BURY_AFTER_MS`] after
//!    the deletion, to free the history. It has to stay longer than any desktop is away with a copy of the object.

use super::document::{Document, DocumentError, Prepared, Target};
use super::frame::{Body, Frame};
use super::schema::Schema;
use super::{Beyond, Change, Heads, Noted, mark, vet};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

/// How long the document of a deleted object is kept, so that edits that were made without knowing of the deletion
/// still merge with it.
pub const BURY_AFTER_MS: u64 = 24 * 60 * 60 * 1000;
/// How long a burial counts: longer than a desktop stays switched off over the holidays. A desktop that comes back
/// later brings its copy of the object back to life.
pub const BURIAL_COUNTS_MS: u64 = 60 * 24 * 60 * 60 * 1000;
/// How much longer a burial is kept than it counts, so that nodes whose clocks differ agree that it no longer does
/// before the first of them forgets it.
pub const BURIAL_KEPT_MS: u64 = BURIAL_COUNTS_MS + 60 * 60 * 1000;

/// Whose changes those are by which an object that nobody knew joins a later incarnation.
const STRANGER: &str = "stranger";

#[derive(Clone, Debug)]
pub enum State {
    Document(Box<Document>),
    /// Gone for good, and deleted at `at_ms`.
    Buried {
        incarnation: u32,
        at_ms: u64,
    },
}

/// What is known of a key without its document.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Standing {
    Live,
    /// Its first change has not come yet.
    Partial,
    Deleted {
        at_ms: u64,
    },
    Buried {
        at_ms: u64,
    },
}

/// Why a change could not be prepared.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PrepareError {
    #[error("this node does not hold its document yet")]
    Missing,
    #[error(
        "its document has not come to this desktop yet: edit it again in a moment, or through another desktop"
    )]
    Behind,
    #[error(transparent)]
    Document(#[from] DocumentError),
}

impl State {
    pub fn incarnation(&self) -> u32 {
        match self {
            Self::Document(document) => document.incarnation(),
            Self::Buried { incarnation, .. } => *incarnation,
        }
    }

    /// A burial has none.
    pub fn heads(&self) -> Heads {
        match self {
            Self::Document(document) => document.heads(),
            Self::Buried { .. } => Heads::new(),
        }
    }

    /// The heads as they leave the documents.
    pub fn marked_heads(&self) -> Heads {
        mark::marked(self.incarnation(), self.heads())
    }

    pub fn value(&self, schema: &dyn Schema) -> Option<Value> {
        match self {
            Self::Document(document) => document.value(schema),
            Self::Buried { .. } => None,
        }
    }

    /// Whether it speaks of an object that nobody deleted.
    pub fn is_live(&self) -> bool {
        matches!(self, Self::Document(document) if !document.is_empty() && document.deleted_at_ms().is_none())
    }

    /// What is known of the key without the document.
    pub fn standing(&self) -> Standing {
        match self {
            Self::Buried { at_ms, .. } => Standing::Buried { at_ms: *at_ms },
            Self::Document(document) => match document.deleted_at_ms() {
                Some(at_ms) => Standing::Deleted { at_ms },
                None if document.has_object() => Standing::Live,
                None => Standing::Partial,
            },
        }
    }
}

/// The change that does to `state` what tells `after` from `before`, and the heads afterwards. What was deleted stays
/// so: a deletion wins over edits.
pub fn prepare_edit(
    state: Option<&State>,
    author: &str,
    before: &Value,
    after: &Value,
    schema: &dyn Schema,
    now_ms: u64,
) -> Result<(Vec<u8>, Heads), PrepareError> {
    let Some(State::Document(document)) = state.filter(|state| !state.heads().is_empty()) else {
        return prepare(state, author, Some(after), schema, now_ms);
    };
    prepare_in(document, author, Target::Edit { before, after }, schema)
}

/// The change that brings a document to `target`, and the heads afterwards, as they leave the documents.
fn prepare_in(
    document: &Document,
    author: &str,
    target: Target<'_>,
    schema: &dyn Schema,
) -> Result<(Vec<u8>, Heads), PrepareError> {
    let Prepared { change, heads } = document.prepare(author, target, schema)?;
    let incarnation = document.incarnation();
    let body = Body::Changes(change.iter().map(Vec::as_slice).collect());
    Ok((Frame { incarnation, body }.encode(), mark::marked(incarnation, heads)))
}

/// What stands for the document of an object that was deleted, where this node's copy has not got as far as that: to make
/// the object anew is to begin the incarnation after it. On its own copy a node would begin one that others have ended long
/// ago.
///
/// A copy of the same incarnation is over as well, if it lacks that end, or says nothing since: a controller has deleted the
/// object, and nobody has wished for anything after that.
pub fn ended(state: Option<&State>, noted: &Noted, now_ms: u64) -> Option<State> {
    let (incarnation, heads) = mark::unmarked(&noted.heads);
    let incarnation = incarnation?;
    let over = match state {
        Some(State::Document(document)) if document.incarnation() == incarnation => {
            document.deleted_at_ms().is_none() && (!document.covers(&heads) || document.heads() == heads)
        }
        state => state.map_or(0, State::incarnation) < incarnation,
    };
    (noted.gone && over).then_some(State::Buried { incarnation, at_ms: now_ms })
}

/// Whether this node's copy is of an earlier incarnation than the object that is shown, or has not got its first change yet:
/// an edit of it would say nothing of the object, and what it says would be another object that a deletion of this one leaves
/// there.
fn is_behind(state: Option<&State>, noted: &Noted) -> bool {
    let Some(incarnation) = mark::unmarked(&noted.heads).0.filter(|_| !noted.gone) else { return false };
    let held = state.map_or(0, State::incarnation);
    let begun = !matches!(state, Some(State::Document(document)) if document.is_empty());
    held < incarnation || (held == incarnation && !begun)
}

/// The change that brings `state` to `object` (`None`: deleted), and the heads afterwards.
pub fn prepare(
    state: Option<&State>,
    author: &str,
    object: Option<&Value>,
    schema: &dyn Schema,
    now_ms: u64,
) -> Result<(Vec<u8>, Heads), PrepareError> {
    let fresh;
    let (document, target) = match (state, object) {
        (None, None) => return Err(PrepareError::Missing),
        (Some(State::Buried { incarnation, at_ms }), None) => {
            let frame = Frame { incarnation: *incarnation, body: Body::Burial { at_ms: *at_ms } };
            return Ok((frame.encode(), Heads::new()));
        }
        (Some(State::Document(document)), None) if document.is_empty() => return Err(PrepareError::Missing),
        (Some(State::Document(document)), None) => (document, Target::Deleted { at_ms: now_ms }),
        (Some(State::Document(document)), Some(object)) if document.deleted_at_ms().is_none() => {
            (document, Target::Object(object))
        }
        (Some(State::Document(ended)), Some(object)) => {
            fresh = Box::new(ended.next()?);
            (&fresh, Target::Object(object))
        }
        (ended, Some(object)) => {
            let last = ended.map_or(0, State::incarnation);
            let next = last.checked_add(1).ok_or(DocumentError::WornOut)?;
            fresh = Box::new(Document::new(next));
            (&fresh, Target::Object(object))
        }
    };
    prepare_in(document, author, target, schema)
}

/// What is to become of an object.
#[derive(Clone, Debug)]
pub enum Wanted {
    /// It is to be so and not otherwise, or gone.
    Whole(Option<Value>),
    /// What tells `after` from `before` is to be done to it.
    Edit { before: Value, after: Value },
    /// It is to be made. One of the name that is there already, which its maker cannot see, becomes this one and keeps what
    /// else it says: nobody's wish is taken back for another's. It may wait for its order, or have been ordered where this
    /// node does not hear of it, and be deleted there: that deletion is not of what is made here.
    Made(Value),
}

/// What of an object takes no longer to be made a change of than its request has taken to be read: fields and characters.
const LIGHT: (usize, usize) = (256, 16 * 1024);

impl Wanted {
    /// Whether a change for it is made in no time, where there is no document yet.
    pub fn is_light(&self) -> bool {
        let mut left = LIGHT;
        match self {
            Self::Whole(None) => true,
            Self::Whole(Some(object)) | Self::Made(object) => is_light(object, &mut left),
            Self::Edit { before, after } => is_light(before, &mut left) && is_light(after, &mut left),
        }
    }
}

/// Whether a value has no more than what is left, which is taken from that.
fn is_light(value: &Value, left: &mut (usize, usize)) -> bool {
    let mut take = |characters: usize| {
        let rest = left.0.checked_sub(1).zip(left.1.checked_sub(characters));
        rest.map(|rest| *left = rest).is_some()
    };
    match value {
        Value::String(text) => take(text.len()),
        Value::Array(items) => take(0) && items.iter().all(|item| is_light(item, left)),
        Value::Object(fields) => {
            take(0)
                && fields.iter().all(|(name, field)| {
                    let characters = left.1.checked_sub(name.len());
                    characters.map(|characters| left.1 = characters).is_some() && is_light(field, left)
                })
        }
        Value::Null | Value::Bool(_) | Value::Number(_) => take(0),
    }
}

/// What an object is known by.
fn identity_of(object: &Value) -> Value {
    let metadata = object.get("metadata").and_then(Value::as_object).into_iter().flatten();
    let identity = metadata.filter(|(name, _)| ["uid", "creationTimestamp"].contains(&name.as_str()));
    json!({"metadata": identity.map(|(name, value)| (name.clone(), value.clone())).collect::<Map<_, _>>()})
}

/// The change that does to `state` what is wanted, and what it builds on. `noted`: from what the object was last adopted.
pub fn change(
    state: Option<&State>,
    author: &str,
    wanted: &Wanted,
    noted: Option<&Noted>,
    schema: &dyn Schema,
    now_ms: u64,
) -> Result<Change, PrepareError> {
    let noted = noted.filter(|noted| !noted.heads.is_empty());
    // What is to be gone needs no new beginning.
    let made = noted.filter(|_| !matches!(wanted, Wanted::Whole(None)));
    let ended = made.and_then(|noted| ended(state, noted, now_ms));
    let whole = |object| prepare(ended.as_ref().or(state), author, object, schema, now_ms);
    let edit = |before: &Value, after| prepare_edit(state, author, before, after, schema, now_ms);
    let is_live = state.is_some_and(State::is_live);
    let behind = || noted.is_some_and(|noted| is_behind(state, noted));
    let (bytes, heads) = match wanted {
        // What is not there cannot be ended, and would bring the object back when it comes.
        Wanted::Whole(None) | Wanted::Edit { .. } if behind() => Err(PrepareError::Behind),
        Wanted::Whole(object) => whole(object.as_ref()),
        Wanted::Edit { before, after } => edit(before, after),
        Wanted::Made(object) => match state {
            Some(State::Document(there)) if ended.is_none() && is_live => {
                prepare_in(there, author, Target::Joined(object), schema)
            }
            _ => whole(Some(object)),
        },
    }?;
    let base = match (state, noted) {
        (_, Some(noted)) if ended.is_some() => Some(noted.heads.clone()),
        (Some(State::Document(document)), _) => Some(mark::marked(document.incarnation(), document.heads())),
        (None, Some(noted)) if !noted.gone => Some(Heads::new()),
        (Some(State::Buried { .. }) | None, _) => None,
    };
    Ok(Change { bytes, heads, base })
}

/// What a key holds after a frame; `None` if that is what it held before.
pub fn apply(
    state: Option<&State>,
    frame: &Frame<'_>,
    schema: &dyn Schema,
    now_ms: u64,
) -> Result<Option<State>, DocumentError> {
    // A burial that no longer counts is as if forgotten, on every node at about the same time.
    let state = state.filter(|state| match state {
        State::Buried { at_ms, .. } => counts(*at_ms, now_ms),
        State::Document(_) => true,
    });
    let held = state.map_or(0, State::incarnation);
    if frame.incarnation < held {
        return Ok(None);
    }
    let changes = match &frame.body {
        Body::Burial { at_ms } => {
            let known = matches!(state, Some(State::Buried { .. }) if frame.incarnation == held);
            let buried = State::Buried { incarnation: frame.incarnation, at_ms: *at_ms };
            return Ok((!known && counts(*at_ms, now_ms)).then_some(buried));
        }
        Body::Changes(changes) => {
            changes.iter().map(|bytes| vet::change(bytes)).collect::<Result<Vec<_>, _>>()?
        }
    };
    let mut document = match state {
        Some(State::Document(document)) if frame.incarnation == held => document.clone(),
        Some(State::Buried { .. }) if frame.incarnation == held => return Ok(None),
        _ => Box::new(Document::new(frame.incarnation)),
    };
    if !document.apply(changes)? {
        return Ok(None);
    }
    let given_up = match state {
        Some(State::Document(given_up)) if frame.incarnation > held => given_up.objects(schema),
        _ => Vec::new(),
    };
    if !given_up.is_empty() && document.is_empty() {
        // What it would take the place of is not known before its first change has come. Anti-entropy brings the whole.
        return Ok(None);
    }
    let stranger = given_up.iter().find(|object| uid_of(object).is_some_and(|uid| document.is_stranger(uid)));
    Ok(Some(State::Document(match stranger {
        Some(object) => with(document, object, schema),
        None => document,
    })))
}

fn uid_of(object: &Value) -> Option<&str> {
    object.pointer("/metadata/uid").and_then(Value::as_str)
}

/// A document of a later incarnation with the object that a node gives up for it, of which nobody knew who had a part in the
/// later one: one that was made on a desktop that had not heard of any of the others. It is made anew, or becomes part of the
/// object that is there.
///
/// All nodes that give up the same for the same make the same change of it.
fn with(document: Box<Document>, object: &Value, schema: &dyn Schema) -> Box<Document> {
    let uid = uid_of(object);
    let joined = || {
        let mut joined = document.clone();
        let identity = identity_of(object);
        let target = match document.value(schema) {
            None => {
                *joined = document.next()?;
                Target::Object(object)
            }
            // Another node has made it anew already.
            Some(there) if uid_of(&there) == uid => Target::Edit { before: &identity, after: object },
            Some(_) => Target::Joined(object),
        };
        let prepared = joined.prepare(STRANGER, target, schema)?;
        let change =
            prepared.change.iter().map(|change| vet::change(change)).collect::<Result<Vec<_>, _>>()?;
        joined.apply(change)?;
        Ok::<_, DocumentError>(joined)
    };
    joined().unwrap_or_else(|error| {
        tracing::warn!(uid = uid.unwrap_or_default(), %error, "an object that was made without a quorum does not fit into the document of its name");
        document.clone()
    })
}

fn counts(at_ms: u64, now_ms: u64) -> bool {
    now_ms < at_ms.saturating_add(BURIAL_COUNTS_MS)
}

/// What time does to a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ageing {
    Stays,
    Bury { at_ms: u64 },
    Forget,
}

pub fn ageing(standing: Standing, now_ms: u64) -> Ageing {
    match standing {
        Standing::Deleted { at_ms } if now_ms >= at_ms.saturating_add(BURY_AFTER_MS) => {
            Ageing::Bury { at_ms }
        }
        Standing::Buried { at_ms } if now_ms >= at_ms.saturating_add(BURIAL_KEPT_MS) => Ageing::Forget,
        _ => Ageing::Stays,
    }
}

/// What a key holds, if it holds these heads (of that incarnation, as far as it is known) or was begun anew since. A
/// burial has forgotten them, and holds all.
pub fn beyond(state: Option<&State>, incarnation: Option<u32>, heads: &[[u8; 32]]) -> Option<Beyond> {
    let Some(state) = state else {
        return heads.is_empty().then(|| Beyond { heads: Heads::new(), anew: false });
    };
    let anew = match incarnation {
        Some(of) if of > state.incarnation() => return None,
        Some(of) => of < state.incarnation(),
        None => false,
    };
    match state {
        State::Document(document) if document.is_empty() || !(anew || document.covers(heads)) => None,
        State::Document(_) => Some(Beyond { heads: state.marked_heads(), anew }),
        State::Buried { .. } => Some(Beyond { heads: Heads::new(), anew }),
    }
}

/// The frame that brings a peer closer to `state`, which has `heads` of `incarnation` (0: nothing); and whether
/// nothing is missing afterwards. `None` if the peer lacks nothing.
pub fn since(state: &State, incarnation: u32, heads: &[[u8; 32]], budget: usize) -> Option<(Vec<u8>, bool)> {
    if incarnation > state.incarnation() {
        return None;
    }
    let document = match state {
        State::Buried { incarnation, at_ms } => {
            let frame = Frame { incarnation: *incarnation, body: Body::Burial { at_ms: *at_ms } };
            return Some((frame.encode(), true));
        }
        State::Document(document) => document,
    };
    let known = if incarnation == document.incarnation() { heads } else { &[] };
    let (changes, complete) = document.since(known, budget);
    let body = Body::Changes(changes.iter().map(Vec::as_slice).collect());
    let frame = Frame { incarnation: document.incarnation(), body }.encode();
    (!changes.is_empty()).then_some((frame, complete))
}
