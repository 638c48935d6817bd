//! The Job of one scheduled time, with what the API fills in for a Job that a client makes.

use super::super::loaded::Loaded;
use super::super::names::Origin;
use super::super::owners;
use crate::state::Store;
use k8s_openapi::api::batch::v1::{CronJob, Job, JobSpec, JobStatus, JobTemplateSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{LabelSelector, ObjectMeta, Time};
use k8s_openapi::jiff::Timestamp;

const SCHEDULED: &str = "batch.kubernetes.io/cronjob-scheduled-timestamp";
const CONTROLLER_UID: &str = "batch.kubernetes.io/controller-uid";
const DEFAULT_BACKOFF_LIMIT: i32 = 6;

/// The name of the Job of a time: the same however often it is asked for.
pub(super) fn name(owner: &str, at: Timestamp) -> String {
    format!("{owner}-{}", at.as_second().div_euclid(60))
}

pub(super) fn job(
    store: &Store,
    owner: &Loaded<CronJob>,
    template: &JobTemplateSpec,
    at: Timestamp,
    told: String,
    now: &Time,
) -> Job {
    let name = name(&owner.key.name, at);
    let origin =
        Origin { owner_uid: owner.object.uid(), purpose: "job", ordinal: 0, revision: store.revision() };
    let uid = origin.uid();
    let metadata = template.metadata.clone().unwrap_or_default();
    let mut annotations = metadata.annotations.unwrap_or_default();
    annotations.insert(SCHEDULED.into(), told);
    let mut spec = template.spec.clone().unwrap_or_default();
    fill(&mut spec, &name, &uid);
    Job {
        metadata: ObjectMeta {
            name: Some(name),
            namespace: Some(owner.key.namespace.clone()),
            uid: Some(uid),
            creation_timestamp: Some(now.clone()),
            generation: Some(1),
            labels: metadata.labels,
            annotations: Some(annotations),
            owner_references: Some(vec![owners::controller_reference(&**owner)]),
            ..ObjectMeta::default()
        },
        spec: Some(spec),
        status: Some(JobStatus::default()),
    }
}

fn fill(spec: &mut JobSpec, name: &str, uid: &str) {
    if spec.completions.is_none() && spec.parallelism.is_none() {
        spec.completions = Some(1);
    }
    spec.parallelism.get_or_insert(1);
    let each = spec.backoff_limit_per_index.is_some();
    spec.backoff_limit.get_or_insert(if each { i32::MAX } else { DEFAULT_BACKOFF_LIMIT });
    spec.completion_mode.get_or_insert_with(|| "NonIndexed".into());
    spec.suspend.get_or_insert(false);
    let replacement = if spec.pod_failure_policy.is_some() { "Failed" } else { "TerminatingOrFailed" };
    spec.pod_replacement_policy.get_or_insert_with(|| replacement.into());
    let labels = spec.template.metadata.get_or_insert_default().labels.get_or_insert_default();
    for (label, value) in [
        (CONTROLLER_UID, uid),
        ("controller-uid", uid),
        ("batch.kubernetes.io/job-name", name),
        ("job-name", name),
    ] {
        labels.insert(label.into(), value.to_owned());
    }
    spec.selector = Some(LabelSelector {
        match_labels: Some([(CONTROLLER_UID.to_owned(), uid.to_owned())].into()),
        match_expressions: None,
    });
}
