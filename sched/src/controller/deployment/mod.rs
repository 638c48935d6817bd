//! Deployments: ReplicaSets, one per template, scaled so that a rollout never serves with too few or too many.
//!
//! One reconciliation is one transaction that expects the Deployment's revision: a ReplicaSet is made or scaled
//! together with the counts and conditions that belong to it.

mod conditions;
mod revisions;
mod rollout;
mod scaling;
mod strategy;

use super::loaded::{Loaded, set, to_json};
use super::owners::{self, claim};
use super::{Controller, Note, Plan, pods};
use crate::state::{Change, Key, Resource, Store, Write, resource_of};
use k8s_openapi::api::apps::v1::{Deployment, DeploymentSpec, DeploymentStatus, ReplicaSet};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{LabelSelector, Time};
use serde_json::Value;
use std::borrow::Cow;
use std::collections::BTreeMap;

const NAME: &str = "deployment-controller";
const PODS: Resource = Resource::fixed("pods");

pub struct DeploymentController;

impl Controller for DeploymentController {
    fn name(&self) -> &'static str {
        NAME
    }

    fn concerned(&self, store: &Store, change: &Change) -> Vec<Key> {
        if change.key.resource == resource_of::<Deployment>() {
            return vec![change.key.clone()];
        }
        if change.key.resource == resource_of::<ReplicaSet>() {
            return owners::concerned::<Deployment>(store, change, selector_of);
        }
        // `Recreate` waits for the last old pod to go: nothing else tells it that it has.
        if change.key.resource == PODS
            && change.object.is_none()
            && let Some(previous) = &change.previous
            && let Some(set) = owners::controller_key::<ReplicaSet>(&change.key, previous)
            && let Some(object) = store.get(&set)
        {
            return owners::controller_key::<Deployment>(&set, object).into_iter().collect();
        }
        Vec::new()
    }

    fn all(&self, store: &Store) -> Vec<Key> {
        store.list(&resource_of::<Deployment>(), None).map(|(key, _)| key).collect()
    }

    fn reconcile(&self, store: &Store, key: &Key, now: &Time) -> Plan {
        let Some(deployment) = Loaded::<Deployment>::get(store, key) else { return Plan::default() };
        let Some(spec) = deployment.spec.clone() else { return Plan::default() };
        let claimed = claim::<Deployment, ReplicaSet>(store, &deployment, Some(&spec.selector));
        let mut plan = Plan::default();
        claimed.writes.into_iter().for_each(|write| plan.write(write));
        let work = Work::new(store, deployment, spec, claimed.dependents, now);
        plan.merge(work.run());
        plan
    }
}

fn selector_of(deployment: &Deployment) -> Option<Cow<'_, LabelSelector>> {
    Some(Cow::Borrowed(&deployment.spec.as_ref()?.selector))
}

/// One ReplicaSet in the course of a reconciliation: as it was read, and what is to become of it.
struct Set {
    loaded: Loaded<ReplicaSet>,
    /// `spec.replicas` as it will be.
    replicas: i32,
    annotations: BTreeMap<String, String>,
    min_ready_seconds: Option<i32>,
}

impl Set {
    fn new(loaded: Loaded<ReplicaSet>) -> Self {
        let spec = loaded.spec.as_ref();
        Self {
            replicas: spec.and_then(|spec| spec.replicas).unwrap_or(1),
            min_ready_seconds: spec.and_then(|spec| spec.min_ready_seconds),
            annotations: loaded.metadata.annotations.clone().unwrap_or_default(),
            loaded,
        }
    }

    fn name(&self) -> &str {
        &self.loaded.key.name
    }

    /// Pods that the ReplicaSet has and that serve, by its own count.
    fn available(&self) -> i32 {
        self.loaded.status.as_ref().and_then(|status| status.available_replicas).unwrap_or(0)
    }

    fn ready(&self) -> i32 {
        self.loaded.status.as_ref().and_then(|status| status.ready_replicas).unwrap_or(0)
    }

    fn existing(&self) -> i32 {
        self.loaded.status.as_ref().map_or(0, |status| status.replicas)
    }

    /// The write that makes it so, if anything is different.
    fn changed(&self) -> Option<Write> {
        let before = Set::new(self.loaded.clone());
        let spec_changed =
            before.replicas != self.replicas || before.min_ready_seconds != self.min_ready_seconds;
        (spec_changed || before.annotations != self.annotations).then(|| {
            self.loaded.edit(|value| {
                set(value, &["metadata", "annotations"], to_json(&self.annotations));
                if spec_changed {
                    set(value, &["spec", "replicas"], self.replicas.into());
                    if let Some(seconds) = self.min_ready_seconds {
                        set(value, &["spec", "minReadySeconds"], seconds.into());
                    }
                    super::loaded::bump_generation(value);
                }
            })
        })
    }
}

/// A reconciliation of one Deployment.
struct Work<'a> {
    store: &'a Store,
    now: &'a Time,
    deployment: Loaded<Deployment>,
    spec: DeploymentSpec,
    /// Oldest first.
    sets: Vec<Set>,
    /// Which of `sets` has the Deployment's template.
    newest: Option<usize>,
    annotations: BTreeMap<String, String>,
    status: DeploymentStatus,
    /// A ReplicaSet to make, and the deletions of history.
    writes: Vec<Write>,
    plan: Plan,
}

impl<'a> Work<'a> {
    fn new(
        store: &'a Store,
        deployment: Loaded<Deployment>,
        spec: DeploymentSpec,
        mut sets: Vec<Loaded<ReplicaSet>>,
        now: &'a Time,
    ) -> Self {
        sets.sort_by_cached_key(|set| (set.metadata.creation_timestamp.clone(), set.key.name.clone()));
        let template = revisions::without_hash(&spec.template);
        let newest = sets.iter().position(|set| revisions::template_of(set).as_ref() == Some(&template));
        Self {
            annotations: deployment.metadata.annotations.clone().unwrap_or_default(),
            status: deployment.status.clone().unwrap_or_default(),
            sets: sets.into_iter().map(Set::new).collect(),
            plan: Plan::default(),
            writes: Vec::new(),
            store,
            now,
            deployment,
            spec,
            newest,
        }
    }

    fn run(mut self) -> Plan {
        if pods::is_going(&self.deployment) {
            self.count();
            return self.finish();
        }
        let paused = self.spec.paused == Some(true);
        self.note_pause(paused);
        if paused || self.is_scaling_event() {
            self.adopt_newest();
            self.scale();
            if paused {
                self.clean_up_history();
            }
            self.count();
            return self.finish();
        }
        match self.strategy() {
            strategy::Strategy::Recreate => self.recreate(),
            strategy::Strategy::RollingUpdate { surge, unavailable } => self.roll(surge, unavailable),
        }
        if self.is_complete() {
            self.clean_up_history();
        }
        self.count();
        self.note_progress();
        self.finish()
    }

    fn desired(&self) -> i32 {
        self.spec.replicas.unwrap_or(1)
    }

    fn old(&self) -> impl DoubleEndedIterator<Item = usize> + use<> {
        let newest = self.newest;
        (0..self.sets.len()).filter(move |index| Some(*index) != newest)
    }

    /// Pods that all ReplicaSets together are asked for.
    fn total(&self) -> i32 {
        self.sets.iter().map(|set| set.replicas).sum()
    }

    /// Scales a ReplicaSet and says so; `true` if that changes anything.
    fn scale_to(&mut self, index: usize, replicas: i32) -> bool {
        let set = &mut self.sets[index];
        let (before, desired) = (set.replicas, self.spec.replicas.unwrap_or(1));
        let limit = desired + strategy::surge_of(&self.spec);
        revisions::annotate_size(&mut set.annotations, desired, limit);
        if before == replicas {
            return false;
        }
        set.replicas = replicas;
        let direction = if replicas > before { "up" } else { "down" };
        let message = format!("Scaled {direction} replica set {} from {before} to {replicas}", set.name());
        self.plan.events.push(Note::normal(&self.deployment.key, NAME, "ScalingReplicaSet", message));
        true
    }

    fn finish(mut self) -> Plan {
        let before = self.deployment.metadata.annotations.clone().unwrap_or_default();
        let mut writes: Vec<Write> = self.sets.iter().filter_map(Set::changed).collect();
        writes.append(&mut self.writes);
        let differs = self.deployment.status.as_ref() != Some(&self.status) || before != self.annotations;
        if differs || !writes.is_empty() {
            let (annotations, status) = (to_json(&self.annotations), to_json(&self.status));
            let edit = |value: &mut Value| {
                set(value, &["metadata", "annotations"], annotations);
                set(value, &["status"], status);
            };
            writes.insert(0, self.deployment.edit(edit));
            self.plan.transaction(writes);
        }
        self.plan
    }
}

#[cfg(test)]
mod tests;
