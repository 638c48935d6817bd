//! Definitions of kinds (CustomResourceDefinitions): whose names are accepted, and the objects of a kind that goes
//! (<https://kubernetes.io/docs/tasks/extend-kubernetes/custom-resources/custom-resource-definitions/>).
//!
//! What a definition says of its objects is the API's to know; here it is names, conditions and an end.

use super::deletion::{self, Grace};
use super::loaded::to_json;
use super::{Controller, Plan};
use crate::state::{Change, Key, Object, Resource, Store, Write};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::time::Duration;

const NAME: &str = "definition-controller";
const DEFINITIONS: Resource = Resource::fixed("customresourcedefinitions.apiextensions.k8s.io");
/// The finalizer that holds a definition until its objects are gone.
pub const CLEANUP: &str = "customresourcecleanup.apiextensions.k8s.io";
/// Objects deleted per plan.
const BURST: usize = 500;
/// Rules in the Common Expression Language, which nobody here evaluates.
pub const RULES: &str = "x-kubernetes-validations";
/// The condition of a definition with rules that nobody evaluates.
const RULES_EVALUATED: &str = "ValidationRulesEvaluated";

/// The definition of a resource, if people defined it: it is called as its objects' resource is.
pub fn definition_of(resource: &Resource) -> Key {
    Key::new(DEFINITIONS, "", resource.as_str())
}

pub struct DefinitionController;

impl Controller for DefinitionController {
    fn name(&self) -> &'static str {
        NAME
    }

    fn concerned(&self, store: &Store, change: &Change) -> Vec<Key> {
        if change.key.resource != DEFINITIONS {
            // It may wait for this one to go.
            let definition = definition_of(&change.key.resource);
            let waits =
                change.object.is_none() && store.get(&definition).is_some_and(|one| one.is_terminating());
            return if waits { vec![definition] } else { Vec::new() };
        }
        // Names that one gives back may be what another one of the group waits for.
        let either = change.object.as_ref().or(change.previous.as_ref());
        let group = either.map(|object| group_of(object).to_owned()).unwrap_or_default();
        let mut keys: Vec<Key> = store
            .list(&DEFINITIONS, None)
            .filter(|(_, other)| group_of(other) == group)
            .map(|(key, _)| key)
            .collect();
        if !keys.contains(&change.key) {
            keys.push(change.key.clone());
        }
        keys
    }

    fn all(&self, store: &Store) -> Vec<Key> {
        store.list(&DEFINITIONS, None).map(|(key, _)| key).collect()
    }

    fn reconcile(&self, store: &Store, key: &Key, now: &Time) -> Plan {
        match store.get(key) {
            Some(object) if object.is_terminating() => empty(store, key, object, now),
            Some(object) => judge(store, key, object, now),
            None => Plan::default(),
        }
    }
}

fn group_of(object: &Object) -> &str {
    object.value().pointer("/spec/group").and_then(Value::as_str).unwrap_or_default()
}

/// Accepts the names that nobody else has, and says so.
fn judge(store: &Store, key: &Key, object: &Object, now: &Time) -> Plan {
    let mut plan = Plan::default();
    let mut status = Status::of(object, now);
    let taken = names_of_others(store, key, object);
    let wished = &object.value()["spec"]["names"];
    let (accepted, conflict) = accept(wished, &status.value["acceptedNames"], &taken);
    status.value["acceptedNames"] = accepted;
    match &conflict {
        None => status.set("NamesAccepted", "True", "NoConflicts", "no conflicts found"),
        Some((reason, message)) => status.set("NamesAccepted", "False", reason, message),
    }
    // Who was established stays so: its objects are there.
    if !status.is_true("Established") {
        match conflict {
            None => {
                let message = "the initial names have been accepted";
                status.set("Established", "True", "InitialNamesAccepted", message);
            }
            Some(_) => status.set("Established", "False", "NotAccepted", "not all names are accepted"),
        }
    }
    match has_rules(&object.value()["spec"]) {
        true => {
            let message =
                format!("{RULES} are kept, but not evaluated: objects that break them are accepted");
            status.set(RULES_EVALUATED, "False", "NotSupported", &message);
        }
        false => status.drop(RULES_EVALUATED),
    }
    status.note_storage(object.value());
    status.write(&mut plan, key, object);
    plan
}

/// Names by what they name.
#[derive(Default)]
struct Taken {
    resources: BTreeSet<String>,
    kinds: BTreeSet<String>,
}

impl Taken {
    fn add(&mut self, names: &Value) {
        let text = |field: &str| names[field].as_str().filter(|name| !name.is_empty()).map(str::to_owned);
        self.resources.extend(["plural", "singular"].into_iter().filter_map(text));
        self.resources.extend(short_names(names).map(str::to_owned));
        self.kinds.extend(["kind", "listKind"].into_iter().filter_map(text));
    }
}

fn short_names(names: &Value) -> impl Iterator<Item = &str> {
    names["shortNames"].as_array().into_iter().flatten().filter_map(Value::as_str)
}

/// What the other definitions of the group have, and what those that came first and were not judged yet wish for: two that
/// are judged at the same time must not both be given a name.
fn names_of_others(store: &Store, key: &Key, object: &Object) -> Taken {
    let mut taken = Taken::default();
    let age = |key: &Key, object: &Object| {
        let made = object.value().pointer("/metadata/creationTimestamp").and_then(Value::as_str);
        (made.unwrap_or_default().to_owned(), key.name.clone())
    };
    let own = age(key, object);
    for (other, definition) in store.list(&DEFINITIONS, None) {
        if other == *key || group_of(definition) != group_of(object) {
            continue;
        }
        let status = Status { value: status_of(definition), now: Value::Null };
        let is_judged = status.condition("NamesAccepted").is_some();
        if is_judged {
            taken.add(&status.value["acceptedNames"]);
        } else if age(&other, definition) < own {
            taken.add(&definition.value()["spec"]["names"]);
        }
    }
    taken
}

/// The names to go by, and the conflict, if there is one: what cannot be had stays as it was.
fn accept(wished: &Value, before: &Value, taken: &Taken) -> (Value, Option<(&'static str, String)>) {
    let mut accepted = json!({});
    let mut conflict = None;
    let in_use = |name: &str| format!("{name:?} is already in use");
    for (field, taken, reason) in [
        ("plural", &taken.resources, "PluralConflict"),
        ("singular", &taken.resources, "SingularConflict"),
        ("kind", &taken.kinds, "KindConflict"),
        ("listKind", &taken.kinds, "ListKindConflict"),
    ] {
        let name = wished[field].as_str().unwrap_or_default();
        if taken.contains(name) {
            conflict = Some((reason, in_use(name)));
            // A plural and a kind are never left out, even where there are none.
            let required = ["plural", "kind"].contains(&field);
            let kept = before[field].as_str().map(str::to_owned).or_else(|| required.then(String::new));
            if let Some(kept) = kept {
                accepted[field] = kept.into();
            }
        } else if !name.is_empty() {
            accepted[field] = name.into();
        }
    }
    let clashing: Vec<String> =
        short_names(wished).filter(|name| taken.resources.contains(*name)).map(in_use).collect();
    let short = if clashing.is_empty() { &wished["shortNames"] } else { &before["shortNames"] };
    for (field, value) in [("shortNames", short), ("categories", &wished["categories"])] {
        if value.as_array().is_some_and(|all| !all.is_empty()) {
            accepted[field] = value.clone();
        }
    }
    if !clashing.is_empty() {
        conflict = Some(("ShortNamesConflict", clashing.join(", ")));
    }
    (accepted, conflict)
}

/// Whether any part of a schema has rules.
pub fn has_rules(schema: &Value) -> bool {
    match schema {
        Value::Object(fields) => fields.iter().any(|(name, value)| {
            let is_rule = name == RULES && value.as_array().is_some_and(|all| !all.is_empty());
            is_rule || has_rules(value)
        }),
        Value::Array(all) => all.iter().any(has_rules),
        _ => false,
    }
}

/// Whether a group is gaggle's own: the roster and the like stand in the same store, and are nobody's to define or delete.
pub fn is_own_group(group: &str) -> bool {
    const OWN: &str = "gaggle.dev";
    group == OWN || group.strip_suffix(OWN).is_some_and(|rest| rest.ends_with('.'))
}

/// Deletes the objects of a definition that goes, and then lets go of it.
fn empty(store: &Store, key: &Key, object: &Object, now: &Time) -> Plan {
    let mut plan = Plan::default();
    if !deletion::has_finalizer(object, CLEANUP) {
        return plan;
    }
    let (plural, group) = key.name.split_once('.').unwrap_or((&key.name, ""));
    let resource = Resource::new(group, plural);
    let mut left = store.list(&resource, None).peekable();
    if left.peek().is_none() || is_own_group(group) {
        plan.writes.extend(deletion::without_finalizer(key, object, CLEANUP).map(Into::into));
        return plan;
    }
    let mut status = Status::of(object, now);
    let message = "CustomResource deletion is in progress";
    status.set("Terminating", "True", "InstanceDeletionInProgress", message);
    status.write(&mut plan, key, object);
    for (inner, object) in left {
        if plan.writes.len() >= BURST {
            plan.requeue(Duration::ZERO);
            break;
        }
        plan.writes.extend(deletion::delete(&inner, object, Grace::AsSpecified, now).map(Into::into));
    }
    plan
}

fn status_of(object: &Object) -> Value {
    match object.value().get("status") {
        Some(status @ Value::Object(_)) => status.clone(),
        _ => json!({}),
    }
}

/// A definition's status as it should be.
struct Status {
    value: Value,
    now: Value,
}

impl Status {
    fn of(object: &Object, now: &Time) -> Self {
        Self { value: status_of(object), now: to_json(now) }
    }

    fn condition(&self, kind: &str) -> Option<&Value> {
        self.value["conditions"].as_array()?.iter().find(|condition| condition["type"] == kind)
    }

    fn is_true(&self, kind: &str) -> bool {
        self.condition(kind).is_some_and(|condition| condition["status"] == "True")
    }

    fn set(&mut self, kind: &str, status: &str, reason: &str, message: &str) {
        let since = match self.condition(kind) {
            Some(before) if before["status"] == status => before["lastTransitionTime"].clone(),
            _ => self.now.clone(),
        };
        let condition = json!({"type": kind, "status": status, "reason": reason, "message": message,
            "lastTransitionTime": since});
        let conditions = match self.value["conditions"].as_array_mut() {
            Some(conditions) => conditions,
            None => {
                self.value["conditions"] = json!([condition]);
                return;
            }
        };
        match conditions.iter_mut().find(|condition| condition["type"] == kind) {
            Some(before) => *before = condition,
            None => conditions.push(condition),
        }
    }

    fn drop(&mut self, kind: &str) {
        if let Some(conditions) = self.value["conditions"].as_array_mut() {
            conditions.retain(|condition| condition["type"] != kind);
        }
    }

    /// Objects may be stored in every version that ever was the one to store in.
    fn note_storage(&mut self, definition: &Value) {
        let versions = definition["spec"]["versions"].as_array().into_iter().flatten();
        let storage = versions
            .filter(|version| version["storage"] == true)
            .find_map(|version| version["name"].as_str());
        let Some(storage) = storage else { return };
        let mut stored = self.value["storedVersions"].as_array().cloned().unwrap_or_default();
        if !stored.iter().any(|version| version == storage) {
            stored.push(storage.into());
        }
        self.value["storedVersions"] = stored.into();
    }

    fn write(self, plan: &mut Plan, key: &Key, object: &Object) {
        if object.value().get("status") == Some(&self.value) {
            return;
        }
        let (uid, seen) = (object.uid().to_owned(), Some(object.revision()));
        plan.write(Write::Status { key: key.clone(), uid, status: self.value, seen });
    }
}

#[cfg(test)]
mod tests;
