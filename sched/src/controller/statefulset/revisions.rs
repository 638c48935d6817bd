//! A StatefulSet's templates, each kept as a ControllerRevision: pods below the partition are made again from the old
//! one, and `kubectl rollout undo` brings one back.

use super::super::deletion::{self, Grace};
use super::super::loaded::{Loaded, create, set};
use super::super::names::{Origin, template_hash};
use super::super::owners;
use super::member::REVISION;
use crate::state::{Key, Store, Write, resource_of};
use k8s_openapi::api::apps::v1::{ControllerRevision, StatefulSet, StatefulSetSpec};
use k8s_openapi::api::core::v1::{Pod, PodTemplateSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, Time};
use k8s_openapi::apimachinery::pkg::runtime::RawExtension;
use serde_json::{Value, json};

const DEFAULT_HISTORY_LIMIT: i32 = 10;
/// Names tried for a new revision in one reconciliation, when others hold the first ones.
const COLLISION_LIMIT: i32 = 16;

/// The names of the templates that a set's pods are made from.
pub(super) struct Revisions {
    /// What pods were made from before the roll-out that is under way; the same as `update` if none is.
    pub current: String,
    /// Of the template as it is now.
    pub update: String,
    pub collisions: i32,
    /// The template of `current`, if it is another one.
    old: Option<PodTemplateSpec>,
    /// What makes the history so.
    pub writes: Vec<Write>,
}

impl Revisions {
    pub fn of(store: &Store, owner: &Loaded<StatefulSet>, spec: &StatefulSetSpec, now: &Time) -> Self {
        let mut known: Vec<Loaded<ControllerRevision>> = store
            .owned_by(owner.object.uid())
            .filter(|key| key.resource == resource_of::<ControllerRevision>())
            .filter_map(|key| Loaded::get(store, key))
            .collect();
        known.sort_by_key(|revision| (revision.revision, revision.key.clone()));
        let status = owner.status.as_ref();
        let mut collisions = status.and_then(|status| status.collision_count).unwrap_or(0);
        let data = data_of(&spec.template);
        let mut writes = Vec::new();
        let newest = known.last().map_or(0, |revision| revision.revision);
        let update =
            match known.iter().find(|revision| revision.data.as_ref().is_some_and(|held| held.0 == data)) {
                Some(same) => {
                    // A template that comes back is the newest again: that is all that a rollback is.
                    if same.revision != newest {
                        writes.push(same.edit(|value| set(value, &["revision"], json!(newest + 1))));
                    }
                    same.key.name.clone()
                }
                None => {
                    let name = free_name(store, owner, &spec.template, &mut collisions);
                    if !owner.object.is_terminating() {
                        writes.push(create(&new(store, owner, spec, &name, data, newest + 1, now)));
                    }
                    name
                }
            };
        let before =
            status.and_then(|status| status.current_revision.clone()).filter(|name| !name.is_empty());
        let current = before.unwrap_or_else(|| update.clone());
        let old = known.iter().find(|revision| revision.key.name == current && current != update);
        let old = old.and_then(|revision| template_of(&revision.data.as_ref()?.0));
        writes.extend(forget(store, owner, spec, &known, [&current, &update], now));
        Self { current, update, collisions, old, writes }
    }

    /// The name and the template that pods below the partition are made from.
    pub fn current_template(&self, newest: &PodTemplateSpec) -> (String, PodTemplateSpec) {
        match &self.old {
            Some(template) => (self.current.clone(), template.clone()),
            // Its history was deleted: there is only one template left.
            None => (self.update.clone(), newest.clone()),
        }
    }

    pub fn is_update(&self, pod: &Loaded<Pod>) -> bool {
        pod.object.label(REVISION) == Some(&self.update)
    }

    pub fn is_current(&self, pod: &Loaded<Pod>) -> bool {
        pod.object.label(REVISION) == Some(&self.current)
    }
}

/// What a revision holds: a patch of the StatefulSet, as kubectl expects it.
fn data_of(template: &PodTemplateSpec) -> Value {
    let mut template = super::super::loaded::to_json(template);
    set(&mut template, &["$patch"], json!("replace"));
    json!({"spec": {"template": template}})
}

fn template_of(data: &Value) -> Option<PodTemplateSpec> {
    serde_json::from_value(data.pointer("/spec/template")?.clone()).ok()
}

fn free_name(
    store: &Store,
    owner: &Loaded<StatefulSet>,
    template: &PodTemplateSpec,
    collisions: &mut i32,
) -> String {
    let name = |collisions| format!("{}-{}", owner.key.name, template_hash(template, collisions));
    for _ in 0..COLLISION_LIMIT {
        let key = Key::of::<ControllerRevision>(owner.key.namespace.clone(), name(*collisions));
        if store.get(&key).is_none() {
            break;
        }
        *collisions = collisions.saturating_add(1);
    }
    name(*collisions)
}

fn new(
    store: &Store,
    owner: &Loaded<StatefulSet>,
    spec: &StatefulSetSpec,
    name: &str,
    data: Value,
    revision: i64,
    now: &Time,
) -> ControllerRevision {
    let origin = Origin {
        owner_uid: owner.object.uid(),
        purpose: "controllerrevision",
        ordinal: 0,
        revision: store.revision(),
    };
    let labels = spec.template.metadata.as_ref().and_then(|metadata| metadata.labels.clone());
    ControllerRevision {
        metadata: ObjectMeta {
            name: Some(name.to_owned()),
            namespace: Some(owner.key.namespace.clone()),
            uid: Some(origin.uid()),
            creation_timestamp: Some(now.clone()),
            labels,
            owner_references: Some(vec![owners::controller_reference(&**owner)]),
            ..ObjectMeta::default()
        },
        data: Some(RawExtension(data)),
        revision,
    }
}

/// Deletes the oldest templates beyond `revisionHistoryLimit` that no pod is of.
fn forget(
    store: &Store,
    owner: &Loaded<StatefulSet>,
    spec: &StatefulSetSpec,
    known: &[Loaded<ControllerRevision>],
    live: [&String; 2],
    now: &Time,
) -> Vec<Write> {
    let limit = usize::try_from(spec.revision_history_limit.unwrap_or(DEFAULT_HISTORY_LIMIT)).unwrap_or(0);
    let used = |name: &String| {
        store
            .owned_by(owner.object.uid())
            .filter_map(|key| store.get(key))
            .any(|object| object.label(REVISION) == Some(name))
    };
    let idle: Vec<_> = known
        .iter()
        .filter(|revision| !live.contains(&&revision.key.name) && !used(&revision.key.name))
        .collect();
    let surplus = idle.len().saturating_sub(limit);
    let deletions = idle.into_iter().take(surplus);
    deletions.filter_map(|one| deletion::delete(&one.key, &one.object, Grace::AsSpecified, now)).collect()
}
