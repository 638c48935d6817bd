//! A Job's pods: the labels, the index, and the finalizer that keeps a pod until it is counted.

use super::super::loaded::Loaded;
use super::super::pods;
use crate::state::Store;
use k8s_openapi::api::batch::v1::{Job, JobSpec};
use k8s_openapi::api::core::v1::{Container, EnvVar, EnvVarSource, ObjectFieldSelector, Pod};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

pub(super) const TRACKING: &str = "batch.kubernetes.io/job-tracking";
pub(super) const INDEX: &str = "batch.kubernetes.io/job-completion-index";
pub(super) const INDEX_FAILURES: &str = "batch.kubernetes.io/job-index-failure-count";
const INDEX_VARIABLE: &str = "JOB_COMPLETION_INDEX";
const JOB_NAME: [&str; 2] = ["job-name", "batch.kubernetes.io/job-name"];
const CONTROLLER_UID: [&str; 2] = ["controller-uid", "batch.kubernetes.io/controller-uid"];
/// A host name is a DNS label.
const HOSTNAME_LIMIT: usize = 63;

/// Which index a new pod is for, and how often that has failed.
#[derive(Clone, Copy, Debug)]
pub(super) struct Place {
    pub index: i32,
    pub failures: u32,
}

pub(super) fn pod(
    store: &Store,
    job: &Loaded<Job>,
    spec: &JobSpec,
    place: Option<Place>,
    ordinal: u64,
    now: &Time,
) -> Pod {
    let name = &job.key.name;
    let base = place.map_or_else(|| name.clone(), |place| format!("{name}-{}", place.index));
    let mut pod = pods::from_template(store, job, &spec.template, &base, ordinal, now);
    let labels = pod.metadata.labels.get_or_insert_default();
    for label in JOB_NAME {
        labels.insert(label.into(), name.clone());
    }
    for label in CONTROLLER_UID {
        labels.insert(label.into(), job.object.uid().to_owned());
    }
    pod.metadata.finalizers.get_or_insert_default().push(TRACKING.into());
    if let Some(place) = place {
        put_index(&mut pod, place, &base, spec.backoff_limit_per_index.is_some());
    }
    pod
}

fn put_index(pod: &mut Pod, place: Place, base: &str, counts_failures: bool) {
    let index = place.index.to_string();
    pod.metadata.labels.get_or_insert_default().insert(INDEX.into(), index.clone());
    let annotations = pod.metadata.annotations.get_or_insert_default();
    annotations.insert(INDEX.into(), index);
    if counts_failures {
        annotations.insert(INDEX_FAILURES.into(), place.failures.to_string());
    }
    let spec = pod.spec.get_or_insert_default();
    if base.len() <= HOSTNAME_LIMIT {
        spec.hostname = Some(base.to_owned());
    }
    let containers = spec.containers.iter_mut().chain(spec.init_containers.iter_mut().flatten());
    containers.for_each(put_variable);
}

fn put_variable(container: &mut Container) {
    let env = container.env.get_or_insert_default();
    if env.iter().any(|variable| variable.name == INDEX_VARIABLE) {
        return;
    }
    let field = ObjectFieldSelector {
        api_version: Some("v1".into()),
        field_path: format!("metadata.annotations['{INDEX}']"),
    };
    env.push(EnvVar {
        name: INDEX_VARIABLE.into(),
        value: None,
        value_from: Some(EnvVarSource { field_ref: Some(field), ..EnvVarSource::default() }),
    });
}

/// The index that a pod is for.
pub(super) fn index_of(pod: &Loaded<Pod>) -> Option<i32> {
    pod.object.annotation(INDEX)?.parse().ok().filter(|index| *index >= 0)
}

/// How often its index had failed before this pod.
pub(super) fn failures_before(pod: &Loaded<Pod>) -> u32 {
    pod.object.annotation(INDEX_FAILURES).and_then(|count| count.parse().ok()).unwrap_or(0)
}
