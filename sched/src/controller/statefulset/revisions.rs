//! A StatefulSet's templates: pods below the partition are made again from the old one.

use super::super::history::{History, REVISION};
use super::super::loaded::Loaded;
use crate::state::{Store, Write};
use k8s_openapi::api::apps::v1::{ControllerRevision, StatefulSet, StatefulSetSpec};
use k8s_openapi::api::core::v1::{Pod, PodTemplateSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use std::collections::BTreeSet;

/// The names of the templates that a set's pods are made from.
pub(super) struct Revisions {
    /// What pods were made from before the roll-out that is under way; the same as `update` if none is.
    pub current: String,
    /// Of the template as it is now.
    pub update: String,
    pub collisions: i32,
    /// The template of `current`, if it is another one.
    old: Option<PodTemplateSpec>,
    /// What makes the history so, beside `birth`.
    pub writes: Vec<Write>,
    /// The revision of the template as it is now, if it is to be made.
    pub birth: Option<ControllerRevision>,
}

impl Revisions {
    pub fn of(store: &Store, owner: &Loaded<StatefulSet>, spec: &StatefulSetSpec, now: &Time) -> Self {
        let status = owner.status.as_ref();
        let collisions = status.and_then(|status| status.collision_count);
        let mut history = History::of(store, owner, &spec.template, collisions, now);
        let before =
            status.and_then(|status| status.current_revision.clone()).filter(|name| !name.is_empty());
        let current = before.unwrap_or_else(|| history.update.clone());
        let old = (current != history.update).then(|| history.template(&current)).flatten();
        let owned = store.owned_by(owner.object.uid()).filter_map(|key| store.get(key));
        let used: BTreeSet<&str> = owned.filter_map(|object| object.label(REVISION)).collect();
        let is_live = |name: &str| name == current || used.contains(name);
        let forgotten = history.forget(spec.revision_history_limit, now, is_live);
        let mut writes = std::mem::take(&mut history.writes);
        writes.extend(forgotten);
        let History { update, collisions, birth, .. } = history;
        Self { current, update, collisions, old, writes, birth }
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
