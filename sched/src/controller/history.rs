//! The templates that an owner's pods were made from, each kept as a ControllerRevision: `kubectl rollout history` lists
//! them, and `kubectl rollout undo` brings one back.

use super::deletion::{self, Grace};
use super::loaded::{Loaded, set, to_json};
use super::names::{Origin, template_hash};
use super::owners;
use crate::state::{Key, Store, Write, resource_of};
use k8s_openapi::Metadata;
use k8s_openapi::api::apps::v1::{ControllerRevision, DaemonSet, StatefulSet};
use k8s_openapi::api::core::v1::PodTemplateSpec;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, Time};
use k8s_openapi::apimachinery::pkg::runtime::RawExtension;
use serde_json::{Value, json};

/// The label that tells which template a pod was made from.
pub const REVISION: &str = "controller-revision-hash";

/// An annotation that says something about the owner alone and is not kept with its templates.
const LAST_APPLIED: &str = "kubectl.kubernetes.io/last-applied-configuration";
const DEFAULT_LIMIT: i32 = 10;
/// Names tried for a new revision in one reconciliation, when others hold the first ones.
const COLLISION_LIMIT: i32 = 16;

/// A kind that keeps its templates.
pub trait Historic: Metadata<Ty = ObjectMeta> {
    /// The label of a revision that tells the hash of its template.
    const HASH: &'static str;
}

impl Historic for DaemonSet {
    const HASH: &'static str = REVISION;
}

impl Historic for StatefulSet {
    const HASH: &'static str = "controller.kubernetes.io/hash";
}

/// An owner's history, with its template as it is now as the newest part.
pub struct History {
    /// The name of the revision of the template as it is now.
    pub update: String,
    pub collisions: i32,
    /// What makes the history so, beside `birth`.
    pub writes: Vec<Write>,
    /// The revision of the template as it is now, if it is to be made.
    pub birth: Option<ControllerRevision>,
    /// Oldest first.
    known: Vec<Loaded<ControllerRevision>>,
}

impl History {
    pub fn of<O: Historic>(
        store: &Store,
        owner: &Loaded<O>,
        template: &PodTemplateSpec,
        collisions: Option<i32>,
        now: &Time,
    ) -> Self {
        let mut known: Vec<Loaded<ControllerRevision>> = store
            .owned_by(owner.object.uid())
            .filter(|key| key.resource == resource_of::<ControllerRevision>())
            .filter_map(|key| Loaded::get(store, key))
            .collect();
        known.sort_by_key(|revision| (revision.revision, revision.key.clone()));
        let mut collisions = collisions.unwrap_or(0);
        let data = data_of(template);
        let (mut writes, mut birth) = (Vec::new(), None);
        let newest = known.last().map_or(0, |revision| revision.revision);
        let same = known.iter().find(|revision| revision.data.as_ref().is_some_and(|held| held.0 == data));
        let update = match same {
            Some(same) => {
                // A template that comes back is the newest again: that is all that a rollback is.
                if same.revision != newest {
                    writes.push(same.edit(|value| set(value, &["revision"], json!(newest + 1))));
                }
                same.key.name.clone()
            }
            None => {
                let name = free_name(store, &owner.key, template, &mut collisions);
                if !owner.object.is_terminating() {
                    birth = Some(new(store, owner, template, &name, data, newest + 1, now));
                }
                name
            }
        };
        Self { update, collisions, writes, birth, known }
    }

    /// The template that a revision holds; `None` if its history was deleted.
    pub fn template(&self, name: &str) -> Option<PodTemplateSpec> {
        let revision = self.known.iter().find(|revision| revision.key.name == name)?;
        template_of(&revision.data.as_ref()?.0)
    }

    /// What deletes the oldest templates beyond `revisionHistoryLimit` that are in no use.
    pub fn forget(&self, limit: Option<i32>, now: &Time, is_live: impl Fn(&str) -> bool) -> Vec<Write> {
        let limit = usize::try_from(limit.unwrap_or(DEFAULT_LIMIT)).unwrap_or(0);
        let idle: Vec<_> =
            self.known.iter().filter(|one| one.key.name != self.update && !is_live(&one.key.name)).collect();
        let surplus = idle.len().saturating_sub(limit);
        let delete = |one: &Loaded<ControllerRevision>| {
            deletion::delete(&one.key, &one.object, Grace::AsSpecified, now)
        };
        idle.into_iter().take(surplus).filter_map(delete).collect()
    }
}

/// What a revision holds: a patch of its owner, as kubectl expects it.
fn data_of(template: &PodTemplateSpec) -> Value {
    let mut template = to_json(template);
    set(&mut template, &["$patch"], json!("replace"));
    json!({"spec": {"template": template}})
}

fn template_of(data: &Value) -> Option<PodTemplateSpec> {
    serde_json::from_value(data.pointer("/spec/template")?.clone()).ok()
}

fn free_name(store: &Store, owner: &Key, template: &PodTemplateSpec, collisions: &mut i32) -> String {
    let name = |collisions| format!("{}-{}", owner.name, template_hash(template, collisions));
    for _ in 0..COLLISION_LIMIT {
        let key = Key::of::<ControllerRevision>(owner.namespace.clone(), name(*collisions));
        if store.get(&key).is_none() {
            break;
        }
        *collisions = collisions.saturating_add(1);
    }
    name(*collisions)
}

fn new<O: Historic>(
    store: &Store,
    owner: &Loaded<O>,
    template: &PodTemplateSpec,
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
    let mut labels =
        template.metadata.as_ref().and_then(|metadata| metadata.labels.clone()).unwrap_or_default();
    if let Some(hash) = hash_in(&owner.key.name, name) {
        labels.insert(O::HASH.into(), hash.to_owned());
    }
    let annotations = owner.metadata().annotations.clone().map(|mut annotations| {
        annotations.remove(LAST_APPLIED);
        annotations
    });
    ControllerRevision {
        metadata: ObjectMeta {
            name: Some(name.to_owned()),
            namespace: Some(owner.key.namespace.clone()),
            uid: Some(origin.uid()),
            creation_timestamp: Some(now.clone()),
            labels: Some(labels),
            annotations: annotations.filter(|annotations| !annotations.is_empty()),
            owner_references: Some(vec![owners::controller_reference(&**owner)]),
            ..ObjectMeta::default()
        },
        data: Some(RawExtension(data)),
        revision,
    }
}

/// The hash in the name of an owner's revision.
pub fn hash_in<'a>(owner: &str, revision: &'a str) -> Option<&'a str> {
    revision.strip_prefix(owner)?.strip_prefix('-')
}
