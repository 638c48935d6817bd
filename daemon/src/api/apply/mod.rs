//! Server-side apply: who manages which field, and what becomes of an object when somebody applies.
//!
//! Pure. Owns `managedFields` and the rules of kubernetes.io/docs/reference/using-api/server-side-apply; it must
//! never know of a request, a store or a clock.
//!
//! Managers live with the object in the ordered state alone. They are not intent: they say who wrote what, which each
//! side of a cut would answer differently for one and the same object, and they change with every write, which a
//! document's history would keep for ever. What an object that is made anew from its document loses is only that:
//! the next one to apply finds fields that nobody manages. Controllers and agents write no managers either; a status
//! is nobody's.

mod fields;
mod managers;
mod typed;

pub use managers::{Author, Manager, Operation, read, wished, write};
pub use typed::Malformed;

use super::definition::kinds_of;
use super::schema::{self, Node};
use super::value::text;
use fields::{Fields, Step};
use serde_json::{Value, json};
use typed::{Difference, compare, fields_of, merge, remove, with_named};

/// The manager of what an object held before anybody's applying to it was noted.
const BEFORE_FIRST_APPLY: &str = "before-first-apply";
/// The manager whose earlier, client-side applying is known from the object's annotation.
const KUBECTL: &str = "kubectl";
/// The manager of edits that were kept without a quorum: documents do not say whose they are.
const ADOPTION: &str = "gaggle-adoption";
const LAST_APPLIED: &str = "kubectl.kubernetes.io/last-applied-configuration";
/// What all annotations of an object may take together: a note of what was applied that is too long for it is left
/// out.
const ANNOTATIONS_BYTES: usize = 256 * 1024;

/// What no manager has: it names the object, or the server sets it.
const NOBODYS: &[&[&str]] = &[
    &["apiVersion"],
    &["kind"],
    &["metadata", "name"],
    &["metadata", "namespace"],
    &["metadata", "creationTimestamp"],
    &["metadata", "deletionTimestamp"],
    &["metadata", "deletionGracePeriodSeconds"],
    &["metadata", "selfLink"],
    &["metadata", "uid"],
    &["metadata", "generation"],
    &["metadata", "managedFields"],
    &["metadata", "resourceVersion"],
];

/// Conflicts that are listed one by one: an object may have tens of thousands of fields.
pub const CONFLICTS_SHOWN: usize = 300;

/// A field that somebody else manages, and that the one who applies wants otherwise.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Conflict {
    /// The manager, as it is shown.
    pub with: String,
    pub field: String,
}

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ApplyError {
    #[error("{0}")]
    Malformed(#[from] Malformed),
    #[error("{}", message(.0))]
    Conflicts(Vec<Conflict>),
}

/// In kubectl's words.
fn message(conflicts: &[Conflict]) -> String {
    if let [Conflict { with, field }] = conflicts {
        return format!("Apply failed with 1 conflict: conflict with {with}: {field}");
    }
    let mut message = format!("Apply failed with {} conflicts:", conflicts.len());
    let mut last = "";
    for Conflict { with, field } in conflicts.iter().take(CONFLICTS_SHOWN) {
        if with != last {
            let before = if last.is_empty() { " " } else { "\n" };
            message.push_str(&format!("{before}conflicts with {with}:"));
            last = with;
        }
        message.push_str(&format!("\n- {field}"));
    }
    if conflicts.len() > CONFLICTS_SHOWN {
        message.push_str(&format!("\nand {} more", conflicts.len() - CONFLICTS_SHOWN));
    }
    message
}

/// A write by one author.
pub struct Writing<'a> {
    pub author: &'a Author,
    /// The object's type.
    pub of: Option<Node<'a>>,
    /// As `managedFields` writes it.
    pub now: &'a str,
}

impl Writing<'_> {
    /// The managers after an update: what the author changed is its own, and of nobody else.
    ///
    /// # Errors
    /// An object whose lists cannot be taken apart.
    pub fn updated(
        &self,
        before: &Value,
        after: &Value,
        managers: Vec<Manager>,
    ) -> Result<Vec<Manager>, Malformed> {
        let difference = compare(before, after, self.of)?;
        let (set, gone) = (difference.set().without(&self.nobodys()), &difference.removed);
        let mut managers: Vec<Manager> = managers
            .into_iter()
            .map(|manager| match self.is_comparable(&manager) && !self.author.is(&manager.author) {
                true => Manager { fields: manager.fields.difference(&set).difference(gone), ..manager },
                false => manager,
            })
            .collect();
        let own =
            managers.iter().find(|manager| self.author.is(&manager.author)).map(|own| own.fields.clone());
        let fields = own.unwrap_or_default().difference(gone).union(&set);
        let change = if set.is_empty() { Change::None } else { Change::Values };
        self.note(&mut managers, fields, change);
        Ok(managers)
    }

    /// The object after `config` was applied to it, and its managers.
    ///
    /// # Errors
    /// Conflicts, unless they are to be decided by `force`.
    pub fn applied(
        &self,
        live: &Value,
        config: &Value,
        managers: Vec<Manager>,
        force: Force,
    ) -> Result<(Value, Vec<Manager>), ApplyError> {
        let managers = match managers.is_empty() && live.is_object() {
            true => self.before_first_apply(live)?,
            false => managers,
        };
        let (object, managers) =
            match self.applied_unless(live, config, managers.clone(), force, &Fields::default()) {
                Err(ApplyError::Conflicts(_)) if self.author.name == KUBECTL => {
                    let allowed = self.applied_client_side(live)?;
                    self.applied_unless(live, config, managers, force, &allowed)?
                }
                result => result?,
            };
        Ok((self.with_last_applied(object, config), managers))
    }

    /// Everything that an object held is somebody's.
    fn before_first_apply(&self, live: &Value) -> Result<Vec<Manager>, Malformed> {
        let author = Author {
            name: BEFORE_FIRST_APPLY.into(),
            operation: Operation::Update,
            subresource: String::new(),
            ..self.author.clone()
        };
        Writing { author: &author, of: self.of, now: self.now }.made(live)
    }

    /// The managers of a new object.
    ///
    /// # Errors
    /// An object whose lists cannot be taken apart.
    pub fn made(&self, object: &Value) -> Result<Vec<Manager>, Malformed> {
        // Every object has these, so that to write one is not to manage it as a whole.
        let nothing = json!({"metadata": {}, "spec": {}, "status": {}});
        self.updated(&nothing, object, Vec::new())
    }

    fn applied_unless(
        &self,
        live: &Value,
        config: &Value,
        mut managers: Vec<Manager>,
        force: Force,
        allowed: &Fields,
    ) -> Result<(Value, Vec<Manager>), ApplyError> {
        let (merged, wished) = (merge(live, config, self.of)?, fields_of(config, self.of)?);
        let (own, others): (Vec<&Manager>, Vec<&Manager>) =
            managers.iter().partition(|manager| self.author.is(&manager.author));
        let last = own.first().map(|own| own.fields.clone()).unwrap_or_default();
        let managed = others.iter().fold(wished.clone(), |all, manager| all.union(&manager.fields));
        let object = self.pruned(merged, &last, &managed)?;
        let difference = compare(live, &object, self.of)?;
        let change = if difference == Difference::default() { Change::None } else { Change::Values };
        self.note(&mut managers, wished.without(&self.nobodys()), change);
        let set = difference.set();
        let others = |manager: &&mut Manager| self.is_comparable(manager) && !self.author.is(&manager.author);
        let mut conflicts = Vec::new();
        for manager in managers.iter_mut().filter(others) {
            let lost = manager.fields.intersection(&set);
            if force == Force::No {
                let with = manager.author.shown();
                let fields = lost.difference(allowed).paths();
                conflicts.extend(fields.into_iter().map(|field| Conflict { with: with.clone(), field }));
            }
            manager.fields = manager.fields.difference(&lost).difference(&difference.removed);
        }
        if !conflicts.is_empty() {
            conflicts.sort_by(|a, b| a.with.cmp(&b.with));
            return Err(ApplyError::Conflicts(conflicts));
        }
        Ok((object, managers))
    }

    /// The object without what the author applied last time, not this time, and nobody else manages.
    fn pruned(&self, merged: Value, last: &Fields, managed: &Fields) -> Result<Value, Malformed> {
        if last.is_empty() {
            return Ok(merged);
        }
        let named = |fields: &Fields| with_named(fields, self.of);
        let fields_without = |gone: &Fields| -> Result<Fields, Malformed> {
            Ok(named(&fields_of(&remove(&merged, gone, self.of), self.of)?))
        };
        let (all, last) = (named(&fields_of(&merged, self.of)?), named(last));
        // What is in a list or map that goes would go with it, though somebody manages it.
        let gone = all.difference(&fields_without(&last)?.union(&named(managed)));
        // And what nobody ever managed, or only an updater set, is not the author's to take.
        let gone = all.difference(&fields_without(&gone)?).intersection(&last);
        Ok(remove(&merged, &gone, self.of))
    }

    /// What kubectl applied client-side, and is still so.
    fn applied_client_side(&self, live: &Value) -> Result<Fields, Malformed> {
        let Some(last) = last_applied(live).and_then(|text| serde_json::from_str::<Value>(text).ok()) else {
            return Ok(Fields::default());
        };
        if last.get("apiVersion") != live.get("apiVersion") {
            return Ok(Fields::default());
        }
        let difference = compare(&last, live, self.of)?;
        let fields = fields_of(&last, self.of)?;
        Ok(fields
            .difference(&difference.modified)
            .difference(&difference.added)
            .difference(&difference.removed))
    }

    /// Whoever applies client-side afterwards finds what was applied here.
    fn with_last_applied(&self, mut object: Value, config: &Value) -> Value {
        if self.author.name != KUBECTL || last_applied(&object).is_none() {
            return object;
        }
        let mut plain = config.clone();
        if let Some(annotations) = plain.pointer_mut("/metadata/annotations").and_then(Value::as_object_mut) {
            annotations.remove(LAST_APPLIED);
        }
        let note = format!("{plain}\n");
        if let Some(annotations) = object.pointer_mut("/metadata/annotations").and_then(Value::as_object_mut)
        {
            annotations.insert(LAST_APPLIED.into(), note.into());
            let sizes = annotations.iter().map(|(key, value)| key.len() + value.as_str().map_or(0, str::len));
            if sizes.sum::<usize>() > ANNOTATIONS_BYTES {
                annotations.remove(LAST_APPLIED);
            }
        }
        object
    }

    /// Sets what the author manages; the time is when it last changed that, or what it holds.
    fn note(&self, managers: &mut Vec<Manager>, fields: Fields, change: Change) {
        match managers.iter_mut().find(|manager| self.author.is(&manager.author)) {
            Some(own) if own.fields == fields && change == Change::None => {}
            Some(own) => {
                own.fields = fields;
                own.time = self.now.to_owned();
                own.author = self.author.clone();
            }
            None => managers.push(Manager { author: self.author.clone(), time: self.now.to_owned(), fields }),
        }
    }

    /// What this write cannot make its author's; a status is written apart.
    fn nobodys(&self) -> Fields {
        let status: &[&[&str]] = if self.author.subresource == "status" { &[] } else { &[&["status"]] };
        let mut fields = Fields::default();
        for path in NOBODYS.iter().chain(status) {
            let path: Vec<Step> = path.iter().map(|name| Step::field(name)).collect();
            fields.insert(&path);
        }
        fields
    }

    /// The fields of another version may have other names.
    fn is_comparable(&self, manager: &Manager) -> bool {
        manager.author.api_version == self.author.api_version
    }
}

/// Notes that an object was changed by whoever edited its document where nobody ordered writes: what they set is theirs
/// then, so that who applies afterwards is told of it. `definition` is that of the kind, where people defined it.
pub fn note_adoption(before: &Value, object: &mut Value, definition: Option<&Value>, now: &str) {
    let mut managers = read(before);
    if managers.is_empty() {
        return write(object, managers);
    }
    let api_version = text(object, "/apiVersion").to_owned();
    let (group, version) = api_version.split_once('/').unwrap_or(("", &api_version));
    let kind = text(object, "/kind").to_owned();
    let defined = definition.map(kinds_of).unwrap_or_default();
    let defined = defined.iter().find(|one| one.kind == kind && one.api_version() == api_version);
    let of = schema::of(group, version, &kind).or_else(|| defined?.node());
    let author = Author {
        name: ADOPTION.into(),
        operation: Operation::Update,
        subresource: String::new(),
        api_version: api_version.clone(),
    };
    let writing = Writing { author: &author, of, now };
    if let Ok(updated) = writing.updated(before, object, managers.clone()) {
        managers = updated;
    }
    write(object, managers);
}

/// Whether a write makes fields hold something else.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Change {
    None,
    Values,
}

/// Whether whoever applies takes fields from others.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Force {
    Yes,
    No,
}

fn last_applied(object: &Value) -> Option<&str> {
    object.get("metadata")?.get("annotations")?.get(LAST_APPLIED)?.as_str()
}

#[cfg(test)]
mod tests;
