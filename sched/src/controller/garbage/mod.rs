//! Garbage: what is owned by nothing that lives, and what an owner's deletion does to its dependents
//! (<https://kubernetes.io/docs/concepts/architecture/garbage-collection/>).

pub(super) mod finished;

use super::deletion::{self, FOREGROUND, Grace, ORPHAN};
use super::loaded::{edit_object, set_list};
use super::{Controller, Plan};
use crate::state::{Change, Key, Object, Store, Write};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use serde_json::Value;
use std::sync::Arc;
use std::time::Duration;

const NAME: &str = "garbage-collector";
/// Dependents dealt with per plan: the rest follows when these are gone.
const BURST: usize = 500;

pub struct GarbageCollector;

impl Controller for GarbageCollector {
    fn name(&self) -> &'static str {
        NAME
    }

    fn concerned(&self, store: &Store, change: &Change) -> Vec<Key> {
        let mut keys = Vec::new();
        if change.object.as_deref().is_some_and(is_interesting) {
            keys.push(change.key.clone());
        }
        let Some(previous) = &change.previous else { return keys };
        if change.object.is_none() {
            keys.extend(store.owned_by(previous.uid()).cloned());
        }
        // Owners that may wait for this one to go, or to let go of them.
        let now: Vec<&str> = change.object.iter().flat_map(|object| object.owner_uids()).collect();
        let lost =
            owners(previous).filter(|owner| !owner["uid"].as_str().is_some_and(|uid| now.contains(&uid)));
        keys.extend(lost.filter_map(|owner| find(store, &change.key, owner)).map(|(key, _)| key));
        keys
    }

    fn all(&self, store: &Store) -> Vec<Key> {
        let resources: Vec<_> = store.resources().cloned().collect();
        let objects = resources.iter().flat_map(|resource| store.list(resource, None));
        objects.filter(|(_, object)| is_interesting(object)).map(|(key, _)| key).collect()
    }

    fn reconcile(&self, store: &Store, key: &Key, now: &Time) -> Plan {
        let Some(object) = store.get(key) else { return Plan::default() };
        if object.is_terminating() && deletion::has_finalizer(object, ORPHAN) {
            return orphan_dependents(store, key, object);
        }
        if object.is_terminating() && deletion::has_finalizer(object, FOREGROUND) {
            return delete_dependents(store, key, object, now);
        }
        collect(store, key, object, now)
    }
}

fn is_interesting(object: &Object) -> bool {
    let waits = || deletion::has_finalizer(object, ORPHAN) || deletion::has_finalizer(object, FOREGROUND);
    owners(object).next().is_some() || (object.is_terminating() && waits())
}

fn owners(object: &Object) -> impl Iterator<Item = &Value> {
    object.value().pointer("/metadata/ownerReferences").and_then(Value::as_array).into_iter().flatten()
}

/// The owner that a reference names, if it lives. The resource is not in the reference, only the kind; the uid
/// decides, so every resource is asked for that name, and no table of plurals can be wrong.
fn find<'a>(store: &'a Store, dependent: &Key, owner: &Value) -> Option<(Key, &'a Arc<Object>)> {
    let (name, uid) = (owner["name"].as_str()?, owner["uid"].as_str()?);
    let namespaces = [dependent.namespace.as_str(), ""];
    store.resources().find_map(|resource| {
        namespaces.iter().find_map(|namespace| {
            let key = Key::new(resource.clone(), *namespace, name);
            store.get(&key).filter(|object| object.uid() == uid).map(|object| (key, object))
        })
    })
}

/// An object with owners: goes when the last of them is gone, and forgets those that are.
fn collect(store: &Store, key: &Key, object: &Object, now: &Time) -> Plan {
    let mut plan = Plan::default();
    let count = owners(object).count();
    // Owned by nobody is nobody's garbage.
    if object.is_terminating() || count == 0 {
        return plan;
    }
    let (mut living, mut waiting) = (Vec::new(), 0);
    for owner in owners(object) {
        match find(store, key, owner) {
            Some((_, found)) if found.is_terminating() && deletion::has_finalizer(found, FOREGROUND) => {
                waiting += 1
            }
            Some(_) => living.push(owner),
            None => {}
        }
    }
    if living.is_empty() {
        // Its owner waits for it, so it in turn waits for what it owns.
        let has_dependents = store.owned_by(object.uid()).next().is_some();
        let write = if waiting > 0 && has_dependents {
            deletion::delete_with(key, object, FOREGROUND, Grace::AsSpecified, now)
        } else {
            deletion::delete(key, object, Grace::AsSpecified, now)
        };
        write.into_iter().for_each(|write| plan.write(write));
    } else if living.len() < count {
        plan.write(edit_object(key, object, |value| {
            set_list(value, &["metadata", "ownerReferences"], &living)
        }));
    }
    plan
}

/// Propagation policy Orphan: the dependents stay, without their owner.
fn orphan_dependents(store: &Store, key: &Key, object: &Object) -> Plan {
    let mut plan = Plan::default();
    let uid = object.uid();
    let mut writes: Vec<Write> = Vec::new();
    for dependent in store.owned_by(uid).take(BURST) {
        let Some(held) = store.get(dependent) else { continue };
        let rest: Vec<&Value> = owners(held).filter(|owner| owner["uid"] != uid).collect();
        writes.push(edit_object(dependent, held, |value| {
            set_list(value, &["metadata", "ownerReferences"], &rest)
        }));
    }
    writes.into_iter().for_each(|write| plan.write(write));
    // The owner goes only when no dependent names it any more: otherwise they would be collected after it.
    if store.owned_by(uid).next().is_none() {
        deletion::without_finalizer(key, object, ORPHAN).into_iter().for_each(|write| plan.write(write));
    }
    plan
}

/// Propagation policy Foreground: first the dependents that block it, then the owner.
fn delete_dependents(store: &Store, key: &Key, object: &Object, now: &Time) -> Plan {
    let mut plan = Plan::default();
    let uid = object.uid();
    let blocking = |held: &Object| {
        owners(held).any(|owner| owner["uid"] == uid && owner["blockOwnerDeletion"].as_bool() == Some(true))
    };
    let mut waiting = false;
    for dependent in store.owned_by(uid) {
        let Some(held) = store.get(dependent) else { continue };
        if blocking(held) {
            waiting = true;
            if plan.writes.len() < BURST {
                plan.merge(collect(store, dependent, held, now));
            }
        }
    }
    if waiting {
        if plan.writes.len() >= BURST {
            plan.requeue(Duration::ZERO);
        }
    } else {
        deletion::without_finalizer(key, object, FOREGROUND).into_iter().for_each(|write| plan.write(write));
    }
    plan
}

#[cfg(test)]
mod tests;
