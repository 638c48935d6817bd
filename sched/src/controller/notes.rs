//! Notes become core/v1 Events, as `kubectl describe` shows them: the same thing again counts up instead of
//! adding one, and nothing may flood the state.

use super::events::{EVENT_TTL, EVENTS};
use super::instant::elapsed;
use super::loaded::{create, edit_object, set, to_json};
use super::names::Origin;
use super::{Note, NoteKind};
use crate::state::{Key, Resource, Revision, Store, Txn};
use k8s_openapi::api::core::v1::{Event, EventSource, ObjectReference};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, Time};
use serde_json::json;
use std::collections::BTreeMap;
use std::time::Duration;

/// Different events per object and reason: enough for a ReplicaSet that scales, and for something that spins
/// it is the end.
const PLACES: u64 = 32;
/// Notes taken from one batch.
const BATCH_LIMIT: usize = 1024;
/// A repeated event is counted at most this often: what repeats faster is told less exactly, not more often.
const REPEAT_INTERVAL: Duration = Duration::from_secs(1);
/// Bytes of a message (Kubernetes' own bound).
const MESSAGE_LIMIT: usize = 1024;
/// Bytes of an object's name within its events' names, which may have 253.
const NAME_LIMIT: usize = 220;
/// The namespace of events about objects that have none.
const CLUSTER_NAMESPACE: &str = "default";

/// The transactions that store `notes`; each on its own, because an event that is refused is no loss. To be
/// called when the writes of the notes' plan are committed: an event names the uid of what it is about.
pub fn record(store: &Store, notes: &[Note], now: &Time, node: &str) -> Vec<Txn> {
    let mut batch: BTreeMap<Key, (&Note, i32)> = BTreeMap::new();
    for note in notes.iter().take(BATCH_LIMIT) {
        let key = event_key(store, &batch, note, now);
        let entry = batch.entry(key).or_insert((note, 0));
        *entry = (note, entry.1 + 1);
    }
    batch.into_iter().filter_map(|(key, (note, count))| write(store, key, note, count, now, node)).collect()
}

/// Every object has a fixed number of places for events of one reason, and the names of events are those
/// places: the same message finds its own again, a new one takes a free place, and when all are taken the
/// message of one is replaced and counted on. So nothing has to be remembered to bound what is written.
fn event_key(store: &Store, batch: &BTreeMap<Key, (&Note, i32)>, note: &Note, now: &Time) -> Key {
    let uid = store.get(&note.about).map(|object| object.uid().to_owned()).unwrap_or_default();
    let owner_uid = &format!("{uid} {}", note.about);
    let purpose = &[note.source, &note.reason].join("\n");
    let namespace = if note.about.namespace.is_empty() { CLUSTER_NAMESPACE } else { &note.about.namespace };
    let place = |ordinal: u64| {
        // Not of a revision: the names must come out the same later.
        let digest = Origin { owner_uid, purpose, ordinal, revision: Revision(0) }.uid().replace('-', "");
        Key::new(EVENTS, namespace, format!("{}.{}", clip(&note.about.name, NAME_LIMIT), &digest[..16]))
    };
    let usable = |key: &Key| {
        if let Some((other, _)) = batch.get(key) {
            return other.message == note.message;
        }
        let Some(event) = store.get(key).and_then(|object| object.typed::<Event>()) else { return true };
        let expired = event.last_timestamp.as_ref().is_none_or(|last| elapsed(now, last) >= EVENT_TTL);
        expired || event.message.as_deref() == Some(clip(&note.message, MESSAGE_LIMIT))
    };
    (0..PLACES).map(place).find(usable).unwrap_or_else(|| {
        let sum =
            note.message.bytes().fold(0_u64, |sum, byte| sum.wrapping_mul(31).wrapping_add(byte.into()));
        place(sum % PLACES)
    })
}

fn write(store: &Store, key: Key, note: &Note, count: i32, now: &Time, node: &str) -> Option<Txn> {
    if let Some(object) = store.get(&key)
        && let Some(event) = object.typed::<Event>()
    {
        let last = event.last_timestamp.clone().unwrap_or_else(|| now.clone());
        let age = elapsed(now, &last);
        if age < REPEAT_INTERVAL {
            return None;
        }
        let old = age >= EVENT_TTL;
        let total = if old { count } else { event.count.unwrap_or(1).saturating_add(count) };
        let write = edit_object(&key, object, |value| {
            set(value, &["count"], json!(total));
            set(value, &["message"], json!(clip(&note.message, MESSAGE_LIMIT)));
            set(value, &["lastTimestamp"], to_json(now));
            if old {
                set(value, &["firstTimestamp"], to_json(now));
            }
        });
        return Some(write.into());
    }
    let revision = store.revision();
    let uid = Origin { owner_uid: &key.name, purpose: &key.namespace, ordinal: 0, revision }.uid();
    let event = Event {
        metadata: ObjectMeta {
            name: Some(key.name),
            namespace: Some(key.namespace),
            uid: Some(uid),
            creation_timestamp: Some(now.clone()),
            ..ObjectMeta::default()
        },
        involved_object: reference(store, &note.about),
        reason: Some(note.reason.clone()),
        message: Some(clip(&note.message, MESSAGE_LIMIT).to_owned()),
        type_: Some(match note.kind {
            NoteKind::Normal => "Normal".into(),
            NoteKind::Warning => "Warning".into(),
        }),
        count: Some(count),
        first_timestamp: Some(now.clone()),
        last_timestamp: Some(now.clone()),
        source: Some(EventSource { component: Some(note.source.into()), host: Some(node.into()) }),
        reporting_component: Some(note.source.into()),
        reporting_instance: Some(node.into()),
        ..Event::default()
    };
    Some(create(&event).into())
}

fn reference(store: &Store, about: &Key) -> ObjectReference {
    let object = store.get(about);
    let text = |field: &str| object.and_then(|object| Some(object.value().get(field)?.as_str()?.to_owned()));
    let (kind, api_version) = kind_of(&about.resource);
    // kubectl looks for events of a node by its name in place of the uid.
    let node = about.resource == Resource::fixed("nodes");
    let uid = object.map(|object| object.uid().to_owned());
    ObjectReference {
        kind: text("kind").or(kind.map(Into::into)),
        api_version: text("apiVersion").or(api_version.map(Into::into)),
        name: Some(about.name.clone()),
        namespace: Some(about.namespace.clone()).filter(|namespace| !namespace.is_empty()),
        uid: if node { Some(about.name.clone()) } else { uid },
        resource_version: object.map(|object| object.revision().to_string()),
        field_path: None,
    }
}

/// Kinds that notes are written about, for objects that are gone already.
fn kind_of(resource: &Resource) -> (Option<&'static str>, Option<&'static str>) {
    match resource.as_str() {
        "pods" => (Some("Pod"), Some("v1")),
        "replicationcontrollers" => (Some("ReplicationController"), Some("v1")),
        "nodes" => (Some("Node"), Some("v1")),
        "namespaces" => (Some("Namespace"), Some("v1")),
        "replicasets.apps" => (Some("ReplicaSet"), Some("apps/v1")),
        "deployments.apps" => (Some("Deployment"), Some("apps/v1")),
        "statefulsets.apps" => (Some("StatefulSet"), Some("apps/v1")),
        "daemonsets.apps" => (Some("DaemonSet"), Some("apps/v1")),
        "cronjobs.batch" => (Some("CronJob"), Some("batch/v1")),
        "jobs.batch" => (Some("Job"), Some("batch/v1")),
        _ => (None, None),
    }
}

fn clip(text: &str, limit: usize) -> &str {
    let mut end = text.len().min(limit);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    &text[..end]
}

#[cfg(test)]
mod tests;
