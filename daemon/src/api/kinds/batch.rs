//! The kinds of the group `batch`.

use super::{Entry, Keeping, Scope, Subresource, decode_as};
use crate::api::schema::describe;
use crate::api::value::set;
use crate::api::{defaults, table, validate};
use k8s_openapi::api::batch::v1::{CronJob, Job};
use serde_json::{Value, json};

pub(super) static KINDS: &[Entry] = &[
    Entry {
        group: "batch",
        version: "v1",
        kind: "Job",
        plural: "jobs",
        singular: "job",
        short_names: &[],
        categories: &["all"],
        scope: Scope::Namespaced,
        keeping: Keeping::Intent,
        subresources: &[Subresource::Status],
        fields: &["status.successful"],
        columns: table::workload::JOB,
        cells: table::workload::job,
        begin: |job: &mut Value| set(job, "status", json!({})),
        default: defaults::job,
        validate: validate::workload::job,
        validate_update: validate::workload::job_update,
        name: validate::subdomain,
        schema: describe::<Job>,
        decode: decode_as::<Job>,
    },
    Entry {
        group: "batch",
        version: "v1",
        kind: "CronJob",
        plural: "cronjobs",
        singular: "cronjob",
        short_names: &["cj"],
        categories: &["all"],
        scope: Scope::Namespaced,
        keeping: Keeping::Intent,
        subresources: &[Subresource::Status],
        fields: &[],
        columns: table::workload::CRON_JOB,
        cells: table::workload::cron_job,
        begin: |cron_job: &mut Value| set(cron_job, "status", json!({})),
        default: defaults::cron_job,
        validate: validate::workload::cron_job,
        validate_update: super::any_update,
        name: validate::subdomain,
        schema: describe::<CronJob>,
        decode: decode_as::<CronJob>,
    },
];
