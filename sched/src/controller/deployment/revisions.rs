//! A Deployment's history: which ReplicaSet is which revision, making a new one, forgetting old ones.

use super::super::birth::{FORBIDDEN_WAIT, charged};
use super::super::deletion::{self, Grace};
use super::super::loaded::Loaded;
use super::super::names::{Origin, POD_TEMPLATE_HASH, template_hash};
use super::super::{Note, owners};
use super::conditions::CREATE_ERROR;
use super::{NAME, Set, Work, strategy};
use crate::state::Key;
use k8s_openapi::api::apps::v1::{ReplicaSet, ReplicaSetSpec};
use k8s_openapi::api::core::v1::PodTemplateSpec;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{LabelSelector, ObjectMeta};
use std::collections::BTreeMap;

const REVISION: &str = "deployment.kubernetes.io/revision";
const REVISION_HISTORY: &str = "deployment.kubernetes.io/revision-history";
pub(super) const DESIRED: &str = "deployment.kubernetes.io/desired-replicas";
const LIMIT: &str = "deployment.kubernetes.io/max-replicas";
/// Annotations of a Deployment that say something about it alone and are not passed on.
const OWN: [&str; 6] = [
    REVISION,
    REVISION_HISTORY,
    DESIRED,
    LIMIT,
    "kubectl.kubernetes.io/last-applied-configuration",
    "deprecated.deployment.rollback.to",
];
const DEFAULT_HISTORY_LIMIT: i32 = 10;
/// Names tried for a new ReplicaSet in one reconciliation, when others hold the first ones.
const COLLISION_LIMIT: usize = 16;
/// Characters of `revision-history`, which would otherwise grow with every rollback.
const HISTORY_LENGTH_LIMIT: usize = 2000;

/// The template as the user wrote it.
pub(super) fn without_hash(template: &PodTemplateSpec) -> PodTemplateSpec {
    let mut template = template.clone();
    if let Some(labels) = template.metadata.as_mut().and_then(|metadata| metadata.labels.as_mut()) {
        labels.remove(POD_TEMPLATE_HASH);
    }
    template
}

pub(super) fn template_of(set: &ReplicaSet) -> Option<PodTemplateSpec> {
    set.spec.as_ref()?.template.as_ref().map(without_hash)
}

pub(super) fn annotate_size(annotations: &mut BTreeMap<String, String>, desired: i32, limit: i32) {
    annotations.insert(DESIRED.into(), desired.to_string());
    annotations.insert(LIMIT.into(), limit.to_string());
}

fn revision_of(annotations: &BTreeMap<String, String>) -> i64 {
    annotations.get(REVISION).and_then(|revision| revision.parse().ok()).unwrap_or(0)
}

impl Work<'_> {
    /// Makes the ReplicaSet of the current template, if there is one, the newest revision. (That is all that a
    /// rollback is: the template is an old one again.)
    pub(super) fn adopt_newest(&mut self) {
        let Some(newest) = self.newest else { return };
        let highest = self.old().map(|index| revision_of(&self.sets[index].annotations)).max().unwrap_or(0);
        let min_ready_seconds = self.spec.min_ready_seconds;
        let passed_on = self.passed_on();
        let set = &mut self.sets[newest];
        let before = revision_of(&set.annotations);
        set.annotations.extend(passed_on);
        let revision = before.max(highest + 1);
        if before < revision {
            if before > 0 {
                let history = set.annotations.get(REVISION_HISTORY).cloned().unwrap_or_default();
                let mut history: Vec<String> =
                    history.split(',').filter(|part| !part.is_empty()).map(str::to_owned).collect();
                history.push(before.to_string());
                while history.join(",").len() > HISTORY_LENGTH_LIMIT {
                    history.remove(0);
                }
                set.annotations.insert(REVISION_HISTORY.into(), history.join(","));
            }
            set.annotations.insert(REVISION.into(), revision.to_string());
        }
        set.min_ready_seconds = min_ready_seconds.or(set.min_ready_seconds);
        let name = set.name().to_owned();
        self.annotations.insert(REVISION.into(), revision.to_string());
        self.note_found(&name);
    }

    /// As [`Self::adopt_newest`], making the ReplicaSet if there is none. It starts with `replicas`.
    pub(super) fn ensure_newest(&mut self, replicas: i32) {
        if self.newest.is_some() {
            self.adopt_newest();
            return;
        }
        let Some((hash, name)) = self.free_name() else {
            let message = "every name for a new ReplicaSet is taken by another object";
            let note = Note::warning(&self.deployment.key, NAME, CREATE_ERROR, message);
            self.plan.events.push(note);
            return;
        };
        let highest = self.sets.iter().map(|set| revision_of(&set.annotations)).max().unwrap_or(0);
        let revision = (highest + 1).to_string();
        let set = self.new_set(&hash, &name, replicas, &revision);
        match charged(self.store, &set) {
            Ok(writes) => self.writes.extend(writes),
            Err(why) => {
                let message = format!("Failed to create new replica set \"{name}\": {why}");
                self.note_refused(&message);
                self.plan.events.push(Note::warning(&self.deployment.key, NAME, CREATE_ERROR, message));
                return self.plan.requeue(FORBIDDEN_WAIT);
            }
        }
        self.annotations.insert(REVISION.into(), revision);
        let message = format!("Scaled up replica set {name} from 0 to {replicas}");
        self.plan.events.push(Note::normal(&self.deployment.key, NAME, "ScalingReplicaSet", message));
        self.note_created(&name);
    }

    fn new_set(&self, hash: &str, name: &str, replicas: i32, revision: &str) -> ReplicaSet {
        let mut template = self.spec.template.clone();
        let labels = template.metadata.get_or_insert_default().labels.get_or_insert_default();
        labels.insert(POD_TEMPLATE_HASH.into(), hash.into());
        let labels = labels.clone();
        let mut selector: LabelSelector = self.spec.selector.clone();
        selector.match_labels.get_or_insert_default().insert(POD_TEMPLATE_HASH.into(), hash.into());
        let mut annotations = self.passed_on();
        annotations.insert(REVISION.into(), revision.into());
        annotate_size(&mut annotations, self.desired(), self.desired() + strategy::surge_of(&self.spec));
        let origin = Origin {
            owner_uid: self.deployment.object.uid(),
            purpose: "replicaset",
            ordinal: 0,
            revision: self.store.revision(),
        };
        ReplicaSet {
            metadata: ObjectMeta {
                name: Some(name.to_owned()),
                namespace: Some(self.deployment.key.namespace.clone()),
                uid: Some(origin.uid()),
                creation_timestamp: Some(self.now.clone()),
                generation: Some(1),
                labels: Some(labels),
                annotations: Some(annotations),
                owner_references: Some(vec![owners::controller_reference(&*self.deployment)]),
                ..ObjectMeta::default()
            },
            spec: Some(ReplicaSetSpec {
                replicas: Some(replicas),
                min_ready_seconds: self.spec.min_ready_seconds,
                selector,
                template: Some(template),
            }),
            status: None,
        }
    }

    /// A hash whose name nobody has, counting collisions as Kubernetes does.
    fn free_name(&mut self) -> Option<(String, String)> {
        for _ in 0..COLLISION_LIMIT {
            let hash = template_hash(&self.spec.template, self.status.collision_count.unwrap_or(0));
            let name = format!("{}-{hash}", self.deployment.key.name);
            let key = Key::of::<ReplicaSet>(self.deployment.key.namespace.clone(), name.clone());
            if self.store.get(&key).is_none() {
                return Some((hash, name));
            }
            *self.status.collision_count.get_or_insert(0) += 1;
        }
        None
    }

    fn passed_on(&self) -> BTreeMap<String, String> {
        let annotations = self.deployment.metadata.annotations.iter().flatten();
        let others = annotations.filter(|(name, _)| !OWN.contains(&name.as_str()));
        others.map(|(name, value)| (name.clone(), value.clone())).collect()
    }

    /// Deletes the oldest revisions beyond `revisionHistoryLimit` that have no pods any more.
    pub(super) fn clean_up_history(&mut self) {
        let limit = self.spec.revision_history_limit.unwrap_or(DEFAULT_HISTORY_LIMIT);
        let mut idle: Vec<usize> = self.old().filter(|index| is_idle(&self.sets[*index])).collect();
        let surplus = self.old().count().saturating_sub(usize::try_from(limit).unwrap_or(0));
        idle.sort_by_key(|index| revision_of(&self.sets[*index].annotations));
        for index in idle.into_iter().take(surplus) {
            let Loaded { key, object, .. } = &self.sets[index].loaded;
            self.writes.extend(deletion::delete(key, object, Grace::AsSpecified, self.now));
        }
    }
}

fn is_idle(set: &Set) -> bool {
    let status = set.loaded.status.as_ref();
    set.replicas == 0
        && set.existing() == 0
        && status.and_then(|status| status.observed_generation) >= set.loaded.metadata.generation
        && !set.loaded.object.is_terminating()
        && set.changed().is_none()
}
