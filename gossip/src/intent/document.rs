//! One automerge document: what it says, the change that would make it say something else, and merging. Pure: no
//! clock, no randomness, no storage.
//!
//! Every change has an actor of its own, derived from who makes it, what it is made on and what it says. A change
//! is prepared and may then never be committed; with one actor per node the next one would take the same sequence
//! number, and documents that got one of the two could never take the other. The same reason makes a change that
//! is prepared twice the same change.

mod merging;

use super::beginning;
use super::frame::MAX_CHANGE_BYTES;
use super::guard::caught;
use super::leaf::{leaf, scalar, value_leaf};
use super::schema::Schema;
use super::tree::{Leaf, Leaves, ROOT, TreeError, UID, field_of, flatten, leaf_value, unflatten};
use super::{Heads, vet};
use automerge::transaction::{CommitOptions, Transactable};
use automerge::{ActorId, Automerge, Change, ChangeHash, ROOT as MAP, ReadDoc, ScalarValue};
use serde_json::Value;
use sha2::{Digest, Sha256};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::OnceLock;

/// The largest object, as JSON. (etcd takes 1.5 MiB in a request; a ConfigMap may hold 1 MiB.)
pub const MAX_JSON_BYTES: usize = 3 * 1024 * 1024;
/// How many changes may wait for others that they depend on, and their bytes. Anti-entropy delivers in order, so
/// that only broadcasts that overtook each other wait.
pub const MAX_PENDING: usize = 64;
pub const MAX_PENDING_BYTES: usize = 2 * MAX_CHANGE_BYTES;

/// When the object was deleted, in milliseconds since 1970. Not a path of the tree, so no field can be it.
const DELETED_AT: &str = "!deleted-at";
/// Before the digest of the uid of an object that has ended under this document's name, in this incarnation or an earlier one:
/// by deletion, or by becoming part of another. Whoever holds a copy of any other object of the name holds one that nobody
/// here knew of.
const ENDED: &str = "!ended/";
/// Stands for objects that are not listed, since there were too many.
const ENDED_OTHERS: &str = "!ended/others";
/// The most objects of one name that are listed, of some twenty bytes each.
pub const MAX_ENDED: usize = 256;

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DocumentError {
    #[error(transparent)]
    Tree(#[from] TreeError),
    #[error("the object is of {0} bytes as JSON, more than {MAX_JSON_BYTES}")]
    ObjectTooLarge(usize),
    #[error("the change is of {0} bytes, more than {MAX_CHANGE_BYTES}: shorten the names of its fields")]
    ChangeTooLarge(usize),
    #[error("the document has been changed too often: delete the object and create it anew")]
    WornOut,
    #[error(transparent)]
    Refused(#[from] vet::Refused),
    #[error("automerge refuses it: {0}")]
    Automerge(String),
    #[error("{MAX_PENDING} changes wait for others already: fetch the missing ones first")]
    TooManyPending,
    #[error("the stored document cannot be read")]
    Unreadable,
}

/// What a document should say.
#[derive(Clone, Copy, Debug)]
pub enum Target<'a> {
    Object(&'a Value),
    /// What tells `after` from `before` is done to whatever else the document says.
    Edit {
        before: &'a Value,
        after: &'a Value,
    },
    /// An object whose maker did not see this one joins it, so that a deletion which knew of this one alone leaves all of the
    /// other there.
    Joined(&'a Value),
    Deleted {
        at_ms: u64,
    },
}

/// A change that was computed and not stored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Prepared {
    /// `None` if the document says so already.
    pub change: Option<Vec<u8>>,
    pub heads: Heads,
}

/// A field that was set differently by sides that did not know of each other.
#[derive(Clone, Debug, PartialEq)]
pub struct Conflict {
    /// As in `spec.template.spec.containers[web].image`.
    pub field: String,
    pub kept: Value,
    pub lost: Vec<Value>,
}

/// One incarnation of one object.
#[derive(Clone, Debug)]
pub struct Document {
    incarnation: u32,
    /// Sorted.
    heads: Heads,
    /// Unpacked from `saved` when something asks for more than what a beginning says by itself.
    doc: OnceLock<Automerge>,
    /// What `doc` is read back from: a document as automerge saves it, and the changes since.
    saved: Vec<u8>,
    /// How much of `saved` was written as a whole.
    whole_bytes: usize,
    /// Changes that wait for others. Not automerge's own queue, which has no bound.
    pending: BTreeMap<ChangeHash, Change>,
    /// What the first change is to say of the objects that have ended before.
    ended_before: BTreeSet<String>,
}

impl Document {
    pub fn new(incarnation: u32) -> Self {
        Self {
            incarnation,
            heads: Heads::new(),
            doc: OnceLock::new(),
            saved: Vec::new(),
            whole_bytes: 0,
            pending: BTreeMap::new(),
            ended_before: BTreeSet::new(),
        }
    }

    /// An empty document of the incarnation after this one, which knows what has ended.
    pub fn next(&self) -> Result<Self, DocumentError> {
        let next = Self::new(self.incarnation.checked_add(1).ok_or(DocumentError::WornOut)?);
        Ok(Self { ended_before: self.ended().collect(), ..next })
    }

    /// A document as [`saved`](Self::saved), with its pending changes.
    pub fn load(incarnation: u32, saved: &[u8], pending: &[impl AsRef<[u8]>]) -> Result<Self, DocumentError> {
        let (heads, doc) = match beginning::read(saved) {
            Some(first) => (vec![first.hash().0], OnceLock::new()),
            None => {
                let doc = caught(|| Automerge::load(saved)).and_then(Result::ok);
                let doc = doc.ok_or(DocumentError::Unreadable)?;
                (heads_of(&doc), doc.into())
            }
        };
        let pending = pending.iter().map(|bytes| {
            let change = vet::change(bytes.as_ref())?;
            Ok((change.hash(), change))
        });
        let pending = pending.collect::<Result<_, vet::Refused>>()?;
        let (saved, whole_bytes) = (saved.to_vec(), merging::whole_bytes(saved));
        Ok(Self { incarnation, heads, doc, saved, whole_bytes, pending, ended_before: BTreeSet::new() })
    }

    /// What [`load`](Self::load) takes.
    pub fn saved(&self) -> &[u8] {
        &self.saved
    }

    pub fn pending(&self) -> impl Iterator<Item = &[u8]> {
        self.pending.values().map(Change::raw_bytes)
    }

    pub fn incarnation(&self) -> u32 {
        self.incarnation
    }

    /// The hashes of the newest changes, sorted.
    pub fn heads(&self) -> Heads {
        self.heads.clone()
    }

    fn doc(&self) -> &Automerge {
        self.doc.get_or_init(|| {
            if self.saved.is_empty() {
                return Automerge::new();
            }
            caught(|| Automerge::load(&self.saved)).and_then(Result::ok).unwrap_or_else(|| {
                // `beginning` sees to it that this cannot be.
                tracing::error!(bytes = self.saved.len(), "the beginning of a document cannot be unpacked");
                Automerge::new()
            })
        })
    }

    /// Whether all there is is its first change, and nothing has asked for more than that it is there.
    fn is_packed(&self) -> bool {
        self.doc.get().is_none() && !self.saved.is_empty()
    }

    /// Whether every one of these changes is in the document.
    pub fn covers(&self, heads: &[[u8; 32]]) -> bool {
        heads.iter().all(|head| self.has(&ChangeHash(*head)))
    }

    fn has(&self, hash: &ChangeHash) -> bool {
        self.heads.contains(&hash.0)
            // Where nothing is unpacked there is one change at most.
            || self.doc.get().is_some_and(|doc| doc.get_change_meta_by_hash(hash).is_some())
    }

    /// The object, `None` if it is deleted or its first change has not come yet.
    pub fn value(&self, schema: &dyn Schema) -> Option<Value> {
        unflatten(&self.leaves(), schema)
    }

    /// Whether there is a [`value`](Self::value).
    pub fn has_object(&self) -> bool {
        if self.is_packed() {
            return true;
        }
        let root = self.doc().get(MAP, ROOT).ok().flatten();
        root.is_some_and(|(value, _)| value_leaf(&value).is_some())
    }

    /// When the object was deleted, `None` if it was not, or a side that did not know of the deletion made it too.
    pub fn deleted_at_ms(&self) -> Option<u64> {
        if self.is_packed() {
            return None;
        }
        let at = |key| self.doc().get(MAP, key).ok().flatten();
        if at(ROOT).is_some() {
            return None;
        }
        let (value, _) = at(DELETED_AT)?;
        value
            .as_scalar()
            .and_then(automerge::ScalarValue::as_i64)
            .map(|at_ms| u64::try_from(at_ms).unwrap_or(0))
    }

    fn ended(&self) -> impl Iterator<Item = String> {
        self.doc().keys(MAP).filter(|key| key.starts_with(ENDED))
    }

    /// Whether an object of this name is none of those that have ended here, as far as the document knows them all. An older
    /// version lists none, and neither does who began an incarnation without a copy of the one before.
    pub fn is_stranger(&self, uid: &str) -> bool {
        let (mut known, ended) = (false, ended_key(uid));
        for key in self.ended() {
            if key == ended || key == ENDED_OTHERS {
                return false;
            }
            known = true;
        }
        known
    }

    /// The uids of the object, several if sides that did not know of each other made it.
    fn uids(&self) -> impl Iterator<Item = String> {
        let all = match self.is_empty() {
            true => Vec::new(),
            false => self.doc().get_all(MAP, UID).unwrap_or_default(),
        };
        all.into_iter().filter_map(|(value, _)| Some(value.as_scalar()?.as_str()?.to_owned()))
    }

    /// The object, once for each side that made it without knowing of the others; first as [`value`](Self::value) has it.
    /// Only objects with a uid can be told from others.
    pub fn objects(&self, schema: &dyn Schema) -> Vec<Value> {
        const UID_IN_OBJECT: &str = "/metadata/uid";
        let Some(object) = self.value(schema) else { return Vec::new() };
        let own = object.pointer(UID_IN_OBJECT).and_then(Value::as_str).map(str::to_owned);
        let others: BTreeSet<String> = self.uids().filter(|uid| Some(uid) != own.as_ref()).collect();
        let with_uid = |uid: String| {
            let mut object = object.clone();
            if let Some(place) = object.pointer_mut(UID_IN_OBJECT) {
                *place = uid.into();
            }
            object
        };
        own.into_iter().chain(others).map(with_uid).collect()
    }

    /// The fields that sides which did not know of each other set differently, beyond what was so at `since` already.
    /// What the document says is `kept`; it is the same on every node that holds the same changes.
    pub fn conflicts(&self, since: &[[u8; 32]]) -> Vec<Conflict> {
        let since: Vec<ChangeHash> = since.iter().map(|head| ChangeHash(*head)).collect();
        let known = |path: &str| {
            let before = if since.is_empty() || !since.iter().all(|head| self.has(head)) {
                Vec::new()
            } else {
                self.doc().get_all_at(MAP, path, &since).unwrap_or_default()
            };
            before.into_iter().map(|(value, _)| value.into_owned()).collect::<Vec<_>>()
        };
        let mut conflicts = Vec::new();
        for path in self.doc().keys(MAP) {
            let all = self.doc().get_all(MAP, path.as_str()).unwrap_or_default();
            if all.len() < 2 {
                continue;
            }
            let all: Vec<_> = all.into_iter().map(|(value, _)| value.into_owned()).collect();
            let before = known(&path);
            if before.len() == all.len() && all.iter().all(|value| before.contains(value)) {
                continue;
            }
            let Some(Ok((kept, _))) = self.doc().get(MAP, path.as_str()).transpose() else { continue };
            let kept = kept.into_owned();
            let json = |value: &automerge::Value<'_>| value_leaf(value).and_then(leaf_value);
            let Some(field) = field_of(&path) else { continue };
            let mut lost: Vec<Value> = all.iter().filter(|value| **value != kept).filter_map(json).collect();
            lost.dedup();
            if let (Some(kept), false) = (json(&kept), lost.is_empty()) {
                conflicts.push(Conflict { field, kept, lost });
            }
        }
        conflicts
    }

    /// Whether it says anything: false while all it has is changes that wait.
    pub fn is_empty(&self) -> bool {
        self.heads.is_empty()
    }

    fn leaves(&self) -> Leaves {
        if self.is_empty() {
            return Leaves::new();
        }
        let items = self.doc().map_range(MAP, ..);
        items.filter_map(|item| Some((item.key.into_owned(), leaf(item.value)?))).collect()
    }

    /// The change that brings the document to `target`, made by `author`.
    pub fn prepare(
        &self,
        author: &str,
        target: Target<'_>,
        schema: &dyn Schema,
    ) -> Result<Prepared, DocumentError> {
        let current = self.leaves();
        let fits = |object: &Value| match object.to_string().len() {
            length if length > MAX_JSON_BYTES => Err(DocumentError::ObjectTooLarge(length)),
            _ => Ok(()),
        };
        let joins = matches!(target, Target::Joined(_));
        let mut untouched = Leaves::new();
        let (wanted, deleted_at) = match target {
            Target::Object(object) => {
                fits(object)?;
                (flatten(object, &current, schema)?, None)
            }
            Target::Edit { before, after } => {
                fits(after)?;
                let (before, after) = (flatten(before, &current, schema)?, flatten(after, &current, schema)?);
                let same = |path: &String, leaf: &Leaf| after.get(path) == Some(leaf);
                // What the edit leaves as it was, and what it never knew of, stays as the document has it.
                untouched.extend(current.clone().into_iter().filter(|(path, _)| {
                    before.get(path).map_or(!after.contains_key(path), |leaf| same(path, leaf))
                }));
                let edited = after.into_iter().filter(|(path, leaf)| before.get(path) != Some(leaf));
                (edited.collect(), None)
            }
            Target::Joined(object) => {
                fits(object)?;
                let joining = flatten(object, &current, schema)?;
                untouched.extend(current.clone().into_iter().filter(|(path, _)| !joining.contains_key(path)));
                (joining, None)
            }
            Target::Deleted { at_ms } => (Leaves::new(), Some(i64::try_from(at_ms).unwrap_or(i64::MAX))),
        };
        // Keys that are not understood (of a newer version, say) go as well: the document is to say this and no more.
        let present: BTreeSet<String> = match self.is_empty() {
            true => BTreeSet::new(),
            false => self.doc().keys(MAP).collect(),
        };
        let gone: Vec<&String> =
            present.iter().filter(|key| !wanted.contains_key(*key) && !key.starts_with('!')).collect();
        let gone: Vec<&String> = gone.into_iter().filter(|key| !untouched.contains_key(*key)).collect();
        let put: Vec<(&String, &Leaf)> =
            wanted.iter().filter(|(path, leaf)| joins || current.get(*path) != Some(leaf)).collect();
        let stamp = deleted_at.filter(|_| !present.contains(DELETED_AT) || present.contains(ROOT));
        let ended = self.ending(&gone, &put, &present);
        if gone.is_empty() && put.is_empty() && stamp.is_none() && ended.is_empty() {
            return Ok(Prepared { change: None, heads: self.heads() });
        }

        let actor = self.actor(author, &gone, &put, stamp, &ended);
        let said = stamp.map(|at_ms| (DELETED_AT.to_owned(), ScalarValue::Int(at_ms)));
        let said = said.into_iter().chain(ended.into_iter().map(|key| (key, true.into())));
        let (change, heads) = if self.is_empty() {
            let put = put.into_iter().map(|(path, leaf)| (path.clone(), scalar(leaf)));
            let change = caught(|| beginning::of(actor, put.chain(said)));
            let change = change.ok_or(automerge_error(automerge::AutomergeError::Fail))?;
            let heads = vec![change.hash().0];
            (change, heads)
        } else {
            let mut doc = self.doc().clone();
            doc.set_actor(actor);
            let made = caught(|| {
                let mut transaction = doc.transaction();
                for path in gone {
                    transaction.delete(MAP, path.as_str())?;
                }
                for (path, leaf) in put {
                    // What is there already automerge would not put again.
                    if current.get(path) == Some(leaf) {
                        transaction.delete(MAP, path.as_str())?;
                    }
                    transaction.put(MAP, path.as_str(), scalar(leaf))?;
                }
                for (key, value) in said {
                    transaction.put(MAP, key, value)?;
                }
                transaction.commit_with(CommitOptions::default().with_time(0));
                Ok(())
            });
            made.unwrap_or(Err(automerge::AutomergeError::Fail)).map_err(automerge_error)?;
            (doc.get_last_local_change().ok_or(DocumentError::WornOut)?, heads_of(&doc))
        };
        if change.raw_bytes().len() > MAX_CHANGE_BYTES {
            return Err(DocumentError::ChangeTooLarge(change.raw_bytes().len()));
        }
        // Whoever receives it will judge it: better refused here, where somebody can be told.
        vet::limits(change.raw_bytes())?;
        Ok(Prepared { change: Some(change.raw_bytes().to_vec()), heads })
    }

    /// What a change has to say of objects that end by it, or have ended before.
    fn ending(
        &self,
        gone: &[&String],
        put: &[(&String, &Leaf)],
        present: &BTreeSet<String>,
    ) -> BTreeSet<String> {
        let new = put.iter().find(|(path, _)| *path == UID).map(|(_, leaf)| *leaf);
        let ends = new.is_some() || gone.iter().any(|path| *path == UID);
        let stays = |uid: &String| matches!(new, Some(Leaf::Text(new)) if new == uid);
        let ending = self.uids().filter(|uid| ends && !stays(uid)).map(|uid| ended_key(&uid));
        let all = ending.chain(self.ended_before.iter().cloned());
        let unsaid: BTreeSet<String> = all.filter(|key| !present.contains(key)).collect();
        if unsaid.is_empty() || present.contains(ENDED_OTHERS) {
            return BTreeSet::new();
        }
        let said = present.iter().filter(|key| key.starts_with(ENDED)).count();
        if unsaid.contains(ENDED_OTHERS) || said + unsaid.len() > MAX_ENDED {
            return [ENDED_OTHERS.to_owned()].into();
        }
        unsaid
    }

    fn actor(
        &self,
        author: &str,
        gone: &[&String],
        put: &[(&String, &Leaf)],
        stamp: Option<i64>,
        ended: &BTreeSet<String>,
    ) -> ActorId {
        let mut content = Sha256::new();
        content.update(self.incarnation.to_be_bytes());
        for head in self.heads() {
            content.update(head);
        }
        content.update(format!("{gone:?}{put:?}{stamp:?}"));
        if !ended.is_empty() {
            content.update(format!("{ended:?}"));
        }
        let author = Sha256::digest(author);
        let mut actor = [0; 16];
        actor[..6].copy_from_slice(&author[..6]);
        actor[6..].copy_from_slice(&content.finalize()[..10]);
        ActorId::from(actor)
    }

    /// The changes that a side with these heads lacks, in an order that it can apply, until `budget` bytes are
    /// reached (at least one); and whether these are all.
    pub fn since(&self, heads: &[[u8; 32]], budget: usize) -> (Vec<Vec<u8>>, bool) {
        if self.is_packed() {
            let lacks = !self.heads.iter().all(|head| heads.contains(head));
            return (lacks.then(|| self.saved.clone()).into_iter().collect(), true);
        }
        let known: Vec<ChangeHash> = heads.iter().map(|head| ChangeHash(*head)).collect();
        let known: Vec<ChangeHash> = known.into_iter().filter(|head| self.has(head)).collect();
        let mut changes = Vec::new();
        let mut bytes = 0;
        for change in self.doc().get_changes(&known) {
            let raw = change.raw_bytes();
            if !changes.is_empty()
                && (bytes + raw.len() > budget || changes.len() == super::frame::MAX_CHANGES)
            {
                return (changes, false);
            }
            bytes += raw.len() + 4;
            changes.push(raw.to_vec());
        }
        (changes, true)
    }
}

fn heads_of(doc: &Automerge) -> Heads {
    doc.get_heads().into_iter().map(|head| head.0).collect()
}

fn ended_key(uid: &str) -> String {
    let digest = Sha256::digest(uid);
    let digest = digest.iter().take(8).map(|byte| format!("{byte:02x}"));
    format!("{ENDED}{}", digest.collect::<String>())
}

fn automerge_error(error: automerge::AutomergeError) -> DocumentError {
    DocumentError::Automerge(error.to_string())
}
