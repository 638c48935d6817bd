//! How objects go: at once, after a grace period, or when the last finalizer lets go.
//!
//! The API, the controllers and the agent all delete through here, so that an object is removed by one rule.

use super::instant;
use super::loaded::{edit_object, set, set_list, to_json};
use crate::state::{Expect, Key, Object, Resource, Write};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use serde_json::{Value, json};

const PODS: Resource = Resource::fixed("pods");
const NAMESPACES: Resource = Resource::fixed("namespaces");
/// Kubernetes' default for `terminationGracePeriodSeconds`.
const DEFAULT_GRACE_SECONDS: i64 = 30;

/// The finalizer of an owner that waits until its dependents are gone.
pub const FOREGROUND: &str = "foregroundDeletion";
/// The finalizer of an owner whose dependents are to stay.
pub const ORPHAN: &str = "orphan";

/// How long a pod may take to stop.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Grace {
    /// As the pod says itself (30 s if it does not).
    AsSpecified,
    /// As the client asked; 0 removes the object without asking the agent.
    Seconds(i64),
}

/// The write that begins (or, where nothing holds the object, completes) a deletion; `None` if it is under way
/// already and there is nothing to hasten.
///
/// - A pod that is bound and not finished is only marked: its node's agent stops the containers, and then
///   removes the object with what [`finish`] says.
/// - An object with finalizers is only marked: it goes with the last of them ([`without_finalizer`]).
pub fn delete(key: &Key, object: &Object, grace: Grace, now: &Time) -> Option<Write> {
    delete_holding(key, object, None, grace, now)
}

/// As [`delete`], with a finalizer added first: [`FOREGROUND`] or [`ORPHAN`].
pub fn delete_with(key: &Key, object: &Object, finalizer: &str, grace: Grace, now: &Time) -> Option<Write> {
    delete_holding(key, object, Some(finalizer), grace, now)
}

fn delete_holding(
    key: &Key,
    object: &Object,
    finalizer: Option<&str>,
    grace: Grace,
    now: &Time,
) -> Option<Write> {
    let finalizer = finalizer.filter(|name| !has_finalizer(object, name));
    let seconds = grace_seconds(key, object, grace);
    let held = finalizer.is_some() || is_held(key, object);
    if !held && seconds == 0 {
        let expect = Expect::Uid(object.uid().to_owned());
        return Some(Write::Delete { key: key.clone(), expect, intent: None });
    }
    let marked = object.is_terminating();
    let before = metadata(object, "deletionGracePeriodSeconds").as_i64();
    let sooner = before.is_some_and(|before| seconds < before);
    if marked && !sooner && finalizer.is_none() {
        return None;
    }
    Some(edit_object(key, object, |value| {
        if let Some(finalizer) = finalizer {
            let mut finalizers = finalizers(object).map(str::to_owned).collect::<Vec<_>>();
            finalizers.push(finalizer.to_owned());
            set(value, &["metadata", "finalizers"], json!(finalizers));
        }
        if !marked || sooner {
            let deadline = to_json(&instant::after(now, seconds));
            set(value, &["metadata", "deletionTimestamp"], deadline);
            set(value, &["metadata", "deletionGracePeriodSeconds"], json!(seconds));
        }
        if key.resource == NAMESPACES {
            set(value, &["status", "phase"], json!("Terminating"));
        }
    }))
}

/// What the agent writes when the containers of a terminating pod are gone: the object goes, or, while a
/// finalizer holds it, is left in a final phase for whoever holds it to see.
pub fn finish(key: &Key, object: &Object) -> Option<Write> {
    if !is_held(key, object) {
        let expect = Expect::Uid(object.uid().to_owned());
        return Some(Write::Delete { key: key.clone(), expect, intent: None });
    }
    if is_finished(object) {
        return None;
    }
    let mut status = object.value().get("status").cloned().unwrap_or_else(|| json!({}));
    set(&mut status, &["phase"], json!("Failed"));
    let (uid, seen) = (object.uid().to_owned(), Some(object.revision()));
    Some(Write::Status { key: key.clone(), uid, status, seen })
}

/// Takes a finalizer off; the object goes with it if nothing else holds it. `None` if it has no such finalizer.
pub fn without_finalizer(key: &Key, object: &Object, finalizer: &str) -> Option<Write> {
    if !has_finalizer(object, finalizer) {
        return None;
    }
    let rest: Vec<&str> = finalizers(object).filter(|name| *name != finalizer).collect();
    let waits_for_agent = key.resource == PODS && is_bound(object) && !is_finished(object);
    if rest.is_empty() && object.is_terminating() && !waits_for_agent && !holds_namespace(key, object) {
        let expect = Expect::Revision(object.revision());
        return Some(Write::Delete { key: key.clone(), expect, intent: None });
    }
    Some(edit_object(key, object, |value| set_list(value, &["metadata", "finalizers"], &rest)))
}

/// Whether a terminating object may be removed now: no finalizer holds it, and no agent has to stop it first.
pub fn removable(key: &Key, object: &Object) -> bool {
    let waits_for_agent = key.resource == PODS && is_bound(object) && !is_finished(object);
    object.is_terminating() && !is_held(key, object) && !waits_for_agent
}

pub fn has_finalizer(object: &Object, finalizer: &str) -> bool {
    finalizers(object).any(|name| name == finalizer)
}

pub fn finalizers(object: &Object) -> impl Iterator<Item = &str> {
    metadata(object, "finalizers").as_array().into_iter().flatten().filter_map(Value::as_str)
}

fn is_held(key: &Key, object: &Object) -> bool {
    finalizers(object).next().is_some() || holds_namespace(key, object)
}

/// A namespace has finalizers of its own kind, in its spec.
fn holds_namespace(key: &Key, object: &Object) -> bool {
    key.resource == NAMESPACES
        && object
            .value()
            .pointer("/spec/finalizers")
            .and_then(Value::as_array)
            .is_some_and(|names| !names.is_empty())
}

fn grace_seconds(key: &Key, object: &Object, grace: Grace) -> i64 {
    // Nobody has to stop what runs nowhere. (A finished pod's containers are swept up by its agent.)
    if key.resource != PODS || !is_bound(object) || is_finished(object) {
        return 0;
    }
    let specified = || object.value().pointer("/spec/terminationGracePeriodSeconds").and_then(Value::as_i64);
    match grace {
        Grace::Seconds(seconds) => seconds.max(0),
        // A pod's own 0 means "kill at once", and its agent must still do it: only a client may force.
        Grace::AsSpecified => specified().unwrap_or(DEFAULT_GRACE_SECONDS).max(1),
    }
}

fn is_bound(object: &Object) -> bool {
    object.value().pointer("/spec/nodeName").and_then(Value::as_str).is_some_and(|node| !node.is_empty())
}

fn is_finished(object: &Object) -> bool {
    let phase = object.value().pointer("/status/phase").and_then(Value::as_str);
    matches!(phase, Some("Succeeded" | "Failed"))
}

fn metadata<'a>(object: &'a Object, field: &str) -> &'a Value {
    object.value().get("metadata").and_then(|metadata| metadata.get(field)).unwrap_or(&Value::Null)
}
