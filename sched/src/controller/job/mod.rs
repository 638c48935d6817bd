//! Jobs: pods that run to completion, each completion counted exactly once.
//!
//! How nothing is counted twice or forgotten: a Job's pod carries a finalizer, so a finished pod stays until it
//! is counted. Counting it, taking its finalizer off and making its successor is *one* transaction that expects
//! the Job's revision. Kubernetes needs `status.uncountedTerminatedPods` between those steps because its writes
//! are single; here they happen together or not at all, so that field stays empty. An index that is in
//! `status.completedIndexes` never runs again, whatever becomes of its pods.

mod birth;
mod failure;
mod finish;
mod indexes;
mod sync;
mod tally;

use super::deletion::{self, Grace};
use super::instant::{remaining, seconds};
use super::loaded::Loaded;
use super::owners::{self, claim, controller_of};
use super::{Controller, Plan, pods};
use crate::state::{Change, Key, Resource, Store, resource_of};
use k8s_openapi::api::batch::v1::{Job, JobCondition, JobSpec, JobStatus};
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{LabelSelector, Time};
use std::borrow::Cow;

const NAME: &str = "job-controller";
const PODS: Resource = Resource::fixed("pods");
/// What `spec.managedBy` says of Jobs that are this controller's.
const MANAGED_BY: &str = "kubernetes.io/job-controller";

pub struct JobController;

impl Controller for JobController {
    fn name(&self) -> &'static str {
        NAME
    }

    fn concerned(&self, store: &Store, change: &Change) -> Vec<Key> {
        if change.key.resource == PODS {
            return owners::concerned::<Job>(store, change, selector_of);
        }
        if change.key.resource == resource_of::<Job>() { vec![change.key.clone()] } else { Vec::new() }
    }

    fn all(&self, store: &Store) -> Vec<Key> {
        let jobs = store.list(&resource_of::<Job>(), None).map(|(key, _)| key);
        // Also Jobs that are gone and whose pods are still held for counting.
        let held = store.list(&PODS, None).filter(|(_, pod)| deletion::has_finalizer(pod, birth::TRACKING));
        let owners = held.filter_map(|(key, pod)| owners::controller_key::<Job>(&key, pod));
        let mut keys: Vec<Key> = jobs.chain(owners).collect();
        keys.sort();
        keys.dedup();
        keys
    }

    fn reconcile(&self, store: &Store, key: &Key, now: &Time) -> Plan {
        let mut plan = release_strays(store, key);
        let Some(job) = Loaded::<Job>::get(store, key) else { return plan };
        let Some(spec) = job.spec.clone() else { return plan };
        if spec.managed_by.as_deref().is_some_and(|manager| manager != MANAGED_BY) {
            return plan;
        }
        let claimed = claim::<Job, Pod>(store, &job, selector_of(&job).as_deref());
        claimed.writes.into_iter().for_each(|write| plan.write(write));
        plan.merge(if pods::is_going(&job) {
            release(&claimed.dependents)
        } else if is_finished(job.status.as_ref()) {
            after_the_end(&job, &spec, &claimed.dependents, now)
        } else {
            sync::Sync::new(store, job, spec, claimed.dependents, now).run()
        });
        plan
    }
}

fn selector_of(job: &Job) -> Option<Cow<'_, LabelSelector>> {
    job.spec.as_ref()?.selector.as_ref().map(Cow::Borrowed)
}

fn condition<'a>(status: Option<&'a JobStatus>, type_: &str) -> Option<&'a JobCondition> {
    let conditions = status?.conditions.iter().flatten();
    conditions.into_iter().find(|condition| condition.type_ == type_ && condition.status == "True")
}

fn is_finished(status: Option<&JobStatus>) -> bool {
    condition(status, "Complete").or_else(|| condition(status, "Failed")).is_some()
}

/// Lets go of pods whose Job is gone, or is another one of the same name: nobody will count them.
fn release_strays(store: &Store, key: &Key) -> Plan {
    let mut plan = Plan::default();
    let job = store.get(key);
    if job.is_some_and(|job| !job.is_terminating()) {
        return plan;
    }
    for (pod, object) in store.list(&PODS, Some(&key.namespace)) {
        if !deletion::has_finalizer(object, birth::TRACKING) {
            continue;
        }
        let Some(typed) = object.typed::<Pod>() else { continue };
        let stray = controller_of(&typed.metadata).is_some_and(|owner| {
            owner.kind == "Job" && owner.name == key.name && job.is_none_or(|job| job.uid() != owner.uid)
        });
        if stray {
            plan.writes.extend(deletion::without_finalizer(&pod, object, birth::TRACKING).map(Into::into));
        }
    }
    plan
}

fn release(pods: &[Loaded<Pod>]) -> Plan {
    let mut plan = Plan::default();
    for pod in pods {
        plan.writes
            .extend(deletion::without_finalizer(&pod.key, &pod.object, birth::TRACKING).map(Into::into));
    }
    plan
}

/// A finished Job holds nothing any more, and goes after its time to live.
fn after_the_end(job: &Loaded<Job>, spec: &JobSpec, dependents: &[Loaded<Pod>], now: &Time) -> Plan {
    let mut plan = Plan::default();
    for pod in dependents {
        let tracked = deletion::has_finalizer(&pod.object, birth::TRACKING);
        if pods::is_finished(pod) || (tracked && pods::is_terminating(pod)) {
            plan.writes
                .extend(deletion::without_finalizer(&pod.key, &pod.object, birth::TRACKING).map(Into::into));
        } else {
            plan.writes
                .extend(deletion::delete(&pod.key, &pod.object, Grace::AsSpecified, now).map(Into::into));
        }
    }
    if let Some(ttl) = spec.ttl_seconds_after_finished {
        let status = job.status.as_ref();
        let end = condition(status, "Complete").or_else(|| condition(status, "Failed"));
        let since = end.and_then(|end| end.last_transition_time.clone());
        match since.and_then(|since| remaining(now, &since, seconds(ttl.into()))) {
            Some(wait) => plan.requeue(wait),
            None => {
                let write = deletion::delete(&job.key, &job.object, Grace::AsSpecified, now);
                plan.writes.extend(write.map(Into::into));
            }
        }
    }
    plan
}

#[cfg(test)]
mod tests;
