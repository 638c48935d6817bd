//! The store itself: objects by key, their indexes, and the recent history that watches read.

use super::ordered::Ordered;
use super::{
    Adopted, Applied, ByKey, Expect, Gaps, Heads, Key, Object, Place, Refused, Resource, Revision, Seen, Txn,
    TxnId, Write, resource_of,
};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::collections::{BTreeSet, HashMap, VecDeque};
use std::ops::Bound;
use std::sync::Arc;

/// How many changes are kept for watches. A watch that asks for older ones is told `Expired` and lists again.
pub const HISTORY_LIMIT: usize = 8192;

/// One committed change: what the key held before and holds now.
#[derive(Clone, Debug)]
pub struct Change {
    pub revision: Revision,
    pub key: Key,
    /// `None` if the object was removed.
    pub object: Option<Arc<Object>>,
    /// What was there before, for selectors that an object can fall out of. Not sent to followers, who have it.
    pub previous: Option<Arc<Object>>,
    /// The intent change that came with it, for the documents that every node keeps.
    pub intent: Option<Adopted>,
}

/// History no longer reaches back to the revision that was asked for, or it is of another group.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the oldest change still known is {oldest}")]
pub struct Expired {
    pub oldest: Revision,
}

/// Everything in a store but its history.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Snapshot {
    pub revision: Revision,
    pub objects: Vec<(Key, Revision, Value)>,
    pub adopted: Vec<(Key, Heads)>,
    /// Transactions that were ordered lately, oldest first.
    pub ordered: Vec<(TxnId, Revision)>,
    #[serde(default)]
    pub term: u64,
    #[serde(default)]
    pub gaps: Gaps,
}

/// Which group's order a store holds, and the how-manieth founding of that group.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Lineage {
    pub group: String,
    pub epoch: u64,
}

/// The right to change a store, until somebody else claims it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Claim(u64);

/// A consistent copy of a store that shares its content, to be encoded without holding a lock.
#[derive(Clone, Debug)]
pub struct Frozen {
    pub revision: Revision,
    pub objects: ByKey<Arc<Object>>,
    pub adopted: ByKey<Arc<Heads>>,
    pub ordered: Vec<(TxnId, Revision)>,
    pub term: u64,
    pub gaps: Gaps,
}

/// Objects by key, with indexes by owner and by node.
#[derive(Debug, Default)]
pub struct Store {
    revision: Revision,
    /// Raft's term of the last entry, within the lineage's epoch.
    term: u64,
    /// Whose order this is; `None` until a group is founded or followed. Not part of a snapshot.
    lineage: Option<Lineage>,
    /// See [`Store::generation`].
    generation: u64,
    /// The newest claim, and whether it is this node's own voter that writes.
    claim: u64,
    owned: bool,
    /// Changes at or before this revision are no longer in `history`.
    compacted: Revision,
    objects: ByKey<Arc<Object>>,
    by_owner: HashMap<String, BTreeSet<Key>>,
    /// Objects without an owner, so that finding those up for adoption is no scan.
    ownerless: ByKey<()>,
    by_node: HashMap<String, BTreeSet<Key>>,
    adopted: ByKey<Arc<Heads>>,
    /// See [`Store::gone_but_adopted`].
    gone: BTreeSet<Key>,
    /// Known to those who vote: what is followed says nothing of it.
    ordered: Ordered,
    gaps: Gaps,
    history: VecDeque<Arc<Change>>,
}

/// What a key held.
struct Before {
    key: Key,
    object: Option<Arc<Object>>,
    heads: Option<Arc<Heads>>,
}

impl Store {
    /// An empty store whose first write gets the revision after `revision`.
    pub fn starting_at(revision: Revision) -> Self {
        Self { revision, compacted: revision, ..Self::default() }
    }

    pub fn from_snapshot(snapshot: Snapshot) -> Self {
        let mut store = Self::starting_at(snapshot.revision);
        for (key, revision, value) in snapshot.objects {
            store.set(&key, Some(Arc::new(Object::new(revision, value))));
        }
        store.adopt(snapshot.adopted.into_iter().map(|(key, heads)| (key, Arc::new(heads))).collect());
        store.ordered = snapshot.ordered.into_iter().collect();
        store.term = snapshot.term;
        store.gaps = snapshot.gaps;
        store
    }

    /// As [`Store::from_snapshot`], of what is in memory already: the objects are shared.
    pub fn from_frozen(frozen: Frozen) -> Self {
        let mut store = Self::starting_at(frozen.revision);
        for (place, object) in frozen.objects.iter() {
            store.set(&place.key(), Some(object.clone()));
        }
        store.adopt(frozen.adopted);
        store.ordered = frozen.ordered.into_iter().collect();
        store.term = frozen.term;
        store.gaps = frozen.gaps;
        store
    }

    pub fn snapshot(&self) -> Snapshot {
        let objects = self.objects.iter();
        let adopted = self.adopted.iter();
        Snapshot {
            revision: self.revision,
            objects: objects
                .map(|(place, object)| (place.key(), object.revision(), object.value().clone()))
                .collect(),
            adopted: adopted.map(|(place, heads)| (place.key(), Heads::clone(heads))).collect(),
            ordered: self.ordered.list(),
            term: self.term,
            gaps: self.gaps.clone(),
        }
    }

    /// What [`Store::snapshot`] holds, without copying anything of any object.
    pub fn freeze(&self) -> Frozen {
        Frozen {
            revision: self.revision,
            objects: self.objects.clone(),
            adopted: self.adopted.clone(),
            ordered: self.ordered.list(),
            term: self.term,
            gaps: self.gaps.clone(),
        }
    }

    pub fn revision(&self) -> Revision {
        self.revision
    }

    pub fn lineage(&self) -> Option<&Lineage> {
        self.lineage.as_ref()
    }

    /// Whether this is a revision of those who were left behind when the group was founded anew: what was shown of it is
    /// not part of this store.
    pub fn has_lost(&self, revision: Revision) -> bool {
        self.gaps.contain(revision)
    }

    /// Raft's term of the last entry: of two copies of one lineage, the one of the later term has seen more.
    pub fn term(&self) -> u64 {
        self.term
    }

    /// For whoever applies what a group has ordered, together with the change.
    pub fn set_term(&mut self, term: u64) {
        self.term = term;
    }

    /// Grows when the content was replaced by another lineage's, or by an older state of the same one: a revision
    /// (or a watch) from before means nothing any more, even where the numbers overlap.
    pub fn generation(&self) -> u64 {
        self.generation
    }

    /// Takes the right to write for as long as this node votes: a follower that has not noticed yet must not apply
    /// a change a second time.
    pub fn own(&mut self) {
        self.claim += 1;
        self.owned = true;
    }

    /// Gives the right back, when this node's group stops.
    pub fn disown(&mut self) {
        self.claim += 1;
        self.owned = false;
    }

    /// Whether this node's own voter writes.
    pub fn is_owned(&self) -> bool {
        self.owned
    }

    /// Takes the right to write from another follower; `None` while this node votes.
    pub fn claim(&mut self) -> Option<Claim> {
        if self.owned {
            return None;
        }
        self.claim += 1;
        Some(Claim(self.claim))
    }

    pub fn is_claimed_by(&self, claim: Claim) -> bool {
        self.claim == claim.0
    }

    /// Puts another store's content in place of this one's. Watches that cannot go on are told `Expired`.
    pub fn replace(&mut self, with: Store, lineage: Lineage) {
        let other_group = self.lineage.as_ref().is_some_and(|old| old.group != lineage.group);
        let back = with.revision < self.revision;
        let generation = self.generation + u64::from(other_group || back);
        let lineage = Some(lineage);
        *self = Self { lineage, generation, claim: self.claim, owned: self.owned, ..with };
    }

    /// Keeps the content and begins a new order with it, at the start of the lineage's epoch or later. The founding
    /// takes a revision of its own, so that nothing older of the lineage has the same one.
    pub fn found(&mut self, lineage: Lineage) {
        let other_group = self.lineage.as_ref().is_some_and(|old| old.group != lineage.group);
        self.generation += u64::from(other_group);
        let before = self.revision;
        self.revision = before.max(Revision::first_of(lineage.epoch)).next();
        self.gaps.note(before, self.revision);
        self.compacted = self.revision;
        self.term = 0;
        self.history.clear();
        self.lineage = Some(lineage);
    }

    pub fn get(&self, key: &Key) -> Option<&Arc<Object>> {
        self.objects.get(key)
    }

    /// An object as its Kubernetes type; `namespace` is empty for cluster-scoped kinds.
    pub fn get_as<T>(&self, namespace: &str, name: &str) -> Option<Arc<T>>
    where
        T: k8s_openapi::Resource + DeserializeOwned + Send + Sync + 'static,
    {
        self.get(&Key::of::<T>(namespace, name))?.typed()
    }

    /// The objects of a resource, in one namespace or in all, in order of namespace and name.
    pub fn list<'a>(
        &'a self,
        resource: &Resource,
        namespace: Option<&'a str>,
    ) -> impl Iterator<Item = (Key, &'a Arc<Object>)> + use<'a> {
        self.objects.of(resource, namespace).map(|(place, object)| (place.key(), object))
    }

    pub fn list_as<T>(&self, namespace: Option<&str>) -> Vec<Arc<T>>
    where
        T: k8s_openapi::Resource + DeserializeOwned + Send + Sync + 'static,
    {
        self.list(&resource_of::<T>(), namespace).filter_map(|(_, object)| object.typed()).collect()
    }

    /// Every resource that has objects.
    pub fn resources(&self) -> impl Iterator<Item = &Resource> {
        self.objects.resources()
    }

    /// Keys of the objects that name `uid` as an owner.
    pub fn owned_by(&self, uid: &str) -> impl Iterator<Item = &Key> {
        self.by_owner.get(uid).into_iter().flatten()
    }

    /// Keys of the objects of a resource and namespace that name no owner at all, in order of name.
    pub fn ownerless<'a>(
        &'a self,
        resource: &Resource,
        namespace: &'a str,
    ) -> impl Iterator<Item = Key> + use<'a> {
        self.ownerless.of(resource, Some(namespace)).map(|(place, ())| place.key())
    }

    /// Keys of the objects (pods) whose `spec.nodeName` is `node`.
    pub fn on_node(&self, node: &str) -> impl Iterator<Item = &Key> {
        self.by_node.get(node).into_iter().flatten()
    }

    /// The heads of the intent document that the object was last adopted from; also of deleted objects.
    pub fn adopted(&self, key: &Key) -> Option<&Heads> {
        self.adopted.get(key).map(|heads| &**heads)
    }

    /// Where a reader stands that has seen everything so far.
    pub fn seen(&self) -> Seen {
        Seen { generation: self.generation, revision: self.revision }
    }

    /// The changes after what was seen, oldest first, or `Expired` when history no longer reaches back to it, or the
    /// content was replaced since.
    ///
    /// # Errors
    /// The reader has to begin anew.
    pub fn changes_since(&self, seen: Seen) -> Result<Vec<Arc<Change>>, Expired> {
        match self.generation == seen.generation {
            true => self.changes_after(seen.revision),
            false => Err(Expired { oldest: self.revision }),
        }
    }

    pub fn changes_after(&self, revision: Revision) -> Result<Vec<Arc<Change>>, Expired> {
        if revision < self.compacted || revision > self.revision {
            return Err(Expired { oldest: self.compacted });
        }
        let start = self.history.partition_point(|change| change.revision <= revision);
        Ok(self.history.range(start..).cloned().collect())
    }

    /// Applies a transaction: all of it, or, when an expectation does not hold, nothing. One that was applied before,
    /// by its id, is answered as it was then.
    pub fn apply(&mut self, txn: &Txn) -> Result<Applied, Refused> {
        if let Some(revision) = txn.id.and_then(|id| self.ordered.get(id)) {
            return Ok(Applied { revision });
        }
        // Later writes of a transaction see earlier ones, so a refusal half-way must undo what came before.
        let (first, mark) = (self.revision, self.history.len());
        let mut undo = Vec::new();
        for (number, write) in txn.writes.iter().enumerate() {
            // Nothing comes after the last one that could be refused, and one that is refused has changed nothing.
            if number + 1 < txn.writes.len() {
                undo.push(self.before(write.key()));
            }
            if let Err(refused) = self.write(write) {
                undo.into_iter().rev().for_each(|before| self.undo(before));
                self.history.truncate(mark);
                self.revision = first;
                return Err(refused);
            }
        }
        self.trim();
        if let Some(id) = txn.id {
            self.ordered.insert(id, self.revision);
        }
        Ok(Applied { revision: self.revision })
    }

    fn before(&self, key: &Key) -> Before {
        Before { key: key.clone(), object: self.get(key).cloned(), heads: self.adopted.get(key).cloned() }
    }

    fn undo(&mut self, before: Before) {
        self.set(&before.key, before.object);
        match before.heads {
            Some(heads) => self.adopted.insert(&before.key, heads),
            None => self.adopted.remove(&before.key),
        };
        self.index_gone(&before.key);
    }

    /// Takes over which transactions were ordered from a store with the same content: every voter must know the same ones,
    /// and a view that only followed knows none.
    pub fn learn_ordered(&mut self, from: Store) {
        self.ordered = from.ordered;
    }

    /// Applies a change that the group has committed: the follower's way in.
    pub fn follow(&mut self, revision: Revision, key: &Key, value: Option<Value>, intent: Option<Adopted>) {
        self.revision = revision;
        let object = value.map(|value| Arc::new(Object::new(revision, value)));
        self.commit(key, object, intent);
        self.trim();
    }

    /// As [`Store::follow`], of a change that another store in this process has made: its object is shared.
    pub fn follow_shared(&mut self, change: &Change) {
        self.revision = change.revision;
        self.commit(&change.key, change.object.clone(), change.intent.clone());
        self.trim();
    }

    fn write(&mut self, write: &Write) -> Result<(), Refused> {
        let key = write.key();
        let current = self.get(key).cloned();
        match write {
            Write::Put { value, expect, intent, .. } => {
                check(key, current.as_deref(), expect)?;
                self.check_base(key, current.as_deref(), intent.as_ref())?;
                self.revision = self.revision.next();
                let object = Object::new(self.revision, value.clone());
                self.commit(key, Some(Arc::new(object)), intent.clone());
            }
            Write::Status { uid, status, seen, .. } => {
                let Some(current) = current.filter(|object| object.uid() == uid) else { return Ok(()) };
                if current.value().get("status").unwrap_or(&Value::Null) == status {
                    return Ok(());
                }
                if let Some(seen) = seen {
                    check(key, Some(&current), &Expect::Revision(*seen))?;
                }
                let mut value = current.value().clone();
                if let Some(fields) = value.as_object_mut() {
                    fields.insert("status".into(), status.clone());
                }
                self.revision = self.revision.next();
                self.commit(key, Some(Arc::new(Object::new(self.revision, value))), None);
            }
            Write::Delete { expect, intent, .. } => {
                if current.is_none() && (*expect != Expect::Absent || intent.is_none()) {
                    return Err(Refused::NotFound(key.clone()));
                }
                check(key, current.as_deref(), expect)?;
                self.check_base(key, current.as_deref(), intent.as_ref())?;
                self.revision = self.revision.next();
                self.commit(key, None, intent.clone());
            }
        }
        Ok(())
    }

    /// A change of a document is taken only on top of what was adopted last.
    fn check_base(
        &self,
        key: &Key,
        current: Option<&Object>,
        intent: Option<&Adopted>,
    ) -> Result<(), Refused> {
        let Some(base) = intent.and_then(|intent| intent.base.as_ref()) else { return Ok(()) };
        match self.adopted(key) {
            Some(adopted) if adopted != base && !adopted.is_empty() => {
                let current = current.map_or(self.revision, Object::revision);
                Err(Refused::Conflict { key: key.clone(), current })
            }
            _ => Ok(()),
        }
    }

    /// Objects that something was adopted for, and that are gone, in order of their keys; those after that key.
    pub fn gone_but_adopted(&self, after: Option<&Key>) -> impl Iterator<Item = &Key> {
        let after = after.map_or(Bound::Unbounded, Bound::Excluded);
        self.gone.range::<Key, _>((after, Bound::Unbounded))
    }

    /// Takes over what was adopted for the objects that are there, and for others.
    fn adopt(&mut self, adopted: ByKey<Arc<Heads>>) {
        self.adopted = adopted;
        let keys = self.adopted.iter().filter(|(place, heads)| is_gone(&self.objects, *place, heads));
        self.gone = keys.map(|(place, _)| place.key()).collect();
    }

    /// Keeps [`Store::gone_but_adopted`] true for a key whose object, or what was adopted for it, may have changed.
    fn index_gone(&mut self, key: &Key) {
        match self.adopted.get(key).is_some_and(|heads| is_gone(&self.objects, key, heads)) {
            true => self.gone.insert(key.clone()),
            false => self.gone.remove(key),
        };
    }

    fn commit(&mut self, key: &Key, object: Option<Arc<Object>>, intent: Option<Adopted>) {
        match &intent {
            Some(intent) if intent.heads.is_empty() && object.is_none() => drop(self.adopted.remove(key)),
            Some(intent) => drop(self.adopted.insert(key, Arc::new(intent.heads.clone()))),
            None => {}
        }
        let previous = self.set(key, object.clone());
        self.index_gone(key);
        let change = Change { revision: self.revision, key: key.clone(), object, previous, intent };
        self.history.push_back(Arc::new(change));
    }

    /// Puts `object` under `key`, keeps the indexes true, and returns what was there.
    fn set(&mut self, key: &Key, object: Option<Arc<Object>>) -> Option<Arc<Object>> {
        let previous = match &object {
            Some(object) => self.objects.insert(key, object.clone()),
            None => self.objects.remove(key),
        };
        if let Some(previous) = &previous {
            for owner in previous.owner_uids() {
                unindex(&mut self.by_owner, owner, key);
            }
            if let Some(node) = node_of(previous) {
                unindex(&mut self.by_node, node, key);
            }
        }
        let mut owned = false;
        if let Some(object) = &object {
            for owner in object.owner_uids() {
                owned = true;
                self.by_owner.entry(owner.to_owned()).or_default().insert(key.clone());
            }
            if let Some(node) = node_of(object) {
                self.by_node.entry(node.to_owned()).or_default().insert(key.clone());
            }
        }
        match object.is_some() && !owned {
            true => self.ownerless.insert(key, ()),
            false => self.ownerless.remove(key),
        };
        previous
    }

    fn trim(&mut self) {
        while self.history.len() > HISTORY_LIMIT {
            if let Some(change) = self.history.pop_front() {
                self.compacted = change.revision;
            }
        }
    }
}

/// Whether there is no object where something was adopted for one.
fn is_gone<'a>(objects: &ByKey<Arc<Object>>, place: impl Into<Place<'a>>, adopted: &Heads) -> bool {
    !adopted.is_empty() && objects.get(place).is_none()
}

fn node_of(object: &Object) -> Option<&str> {
    object.value().pointer("/spec/nodeName")?.as_str()
}

fn unindex(index: &mut HashMap<String, BTreeSet<Key>>, at: &str, key: &Key) {
    if let Some(keys) = index.get_mut(at) {
        keys.remove(key);
        if keys.is_empty() {
            index.remove(at);
        }
    }
}

fn check(key: &Key, current: Option<&Object>, expect: &Expect) -> Result<(), Refused> {
    match (expect, current) {
        (Expect::Any, _) | (Expect::Absent, None) | (Expect::Present, Some(_)) => Ok(()),
        (Expect::Absent, Some(_)) => Err(Refused::AlreadyExists(key.clone())),
        (Expect::Present | Expect::Revision(_) | Expect::Uid(_), None) => Err(Refused::NotFound(key.clone())),
        (Expect::Revision(wanted), Some(object)) if object.revision() == *wanted => Ok(()),
        (Expect::Uid(wanted), Some(object)) if object.uid() == wanted => Ok(()),
        (_, Some(object)) => Err(Refused::Conflict { key: key.clone(), current: object.revision() }),
    }
}
