//! A Job: how far it is, and what it runs.

use super::super::logs::selector_of;
use super::super::table::text;
use super::age::{since, span};
use super::page::Page;
use super::pod::{controlled_by, template};
use super::workload::count;
use k8s_openapi::jiff::Timestamp;
use serde_json::Value;

pub fn describe(page: &mut Page, job: &Value, now: Timestamp) {
    let (spec, status) = (&job["spec"], &job["status"]);
    page.metadata(job);
    page.pair(0, "Selector", selector_of(job).unwrap_or_else(|| "<none>".to_owned()));
    controlled_by(page, job);
    page.some(0, "Parallelism", &spec["parallelism"]);
    page.pair(
        0,
        "Completions",
        match text(&spec["completions"]) {
            any if any.is_empty() => "<any>".to_owned(),
            completions => completions,
        },
    );
    page.some(0, "Completion Mode", &spec["completionMode"]);
    page.some(0, "Backoff Limit", &spec["backoffLimit"]);
    page.some(0, "Suspended", &spec["suspend"]);
    for (key, field) in
        [("Active Deadline", "activeDeadlineSeconds"), ("Kept After End", "ttlSecondsAfterFinished")]
    {
        if let Some(seconds) = spec[field].as_i64() {
            page.pair(0, key, span(seconds));
        }
    }
    page.some(0, "Started", &status["startTime"]);
    page.some(0, "Completed", &status["completionTime"]);
    if let Some(took) = duration(status, now) {
        page.pair(0, "Duration", took);
    }
    page.pair(
        0,
        "Pods Statuses",
        format!(
            "{} Active ({} Ready) / {} Succeeded / {} Failed",
            count(&status["active"]),
            count(&status["ready"]),
            count(&status["succeeded"]),
            count(&status["failed"]),
        ),
    );
    page.some(0, "Completed Indexes", &status["completedIndexes"]);
    page.some(0, "Failed Indexes", &status["failedIndexes"]);
    template(page, &spec["template"]);
    page.conditions(&status["conditions"]);
}

/// How long it took, or has taken until now.
fn duration(status: &Value, now: Timestamp) -> Option<String> {
    let started = &status["startTime"];
    started.as_str()?;
    let end = status["completionTime"].as_str().and_then(|end| end.parse().ok());
    Some(since(started, end.unwrap_or(now)))
}
