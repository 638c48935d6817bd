//! Deployments, ReplicaSets, StatefulSets, DaemonSets, Jobs and CronJobs.

use super::{Problems, metadata, pod};
use crate::api::value::{flag, int, is_set, items, text};
use gaggle_sched::controller::schedule::{self, Schedule};
use serde_json::Value;

/// Completions that an Indexed Job may have: more than that and its status no longer fits an object.
const INDEXED_COMPLETIONS: i64 = 100_000;
/// A CronJob's name leaves room for the time that is appended to its Jobs' names.
const CRON_JOB_NAME: usize = 52;

pub fn deployment(object: &Value, problems: &mut Problems) {
    replicated(object, problems);
    for field in ["minReadySeconds", "revisionHistoryLimit", "progressDeadlineSeconds"] {
        problems.not_negative(&format!("spec.{field}"), object.pointer(&format!("/spec/{field}")));
    }
    let deadline = int(object, "/spec/progressDeadlineSeconds");
    if let Some(deadline) = deadline.filter(|d| *d <= int(object, "/spec/minReadySeconds").unwrap_or(0)) {
        let why = "must be greater than minReadySeconds";
        problems.invalid("spec.progressDeadlineSeconds", &deadline.into(), why);
    }
    let strategy = text(object, "/spec/strategy/type");
    problems.one_of("spec.strategy.type", strategy, &["Recreate", "RollingUpdate"]);
    let at = "spec.strategy.rollingUpdate";
    if strategy == "Recreate" && is_set(object, "/spec/strategy/rollingUpdate") {
        problems.forbidden(at, "may not be specified when strategy `type` is 'Recreate'");
    }
    if strategy == "RollingUpdate" {
        let rolling = object.pointer("/spec/strategy/rollingUpdate").unwrap_or(&Value::Null);
        let surge = bound(at, rolling, "maxSurge", problems);
        let unavailable = bound(at, rolling, "maxUnavailable", problems);
        if surge == Some(0) && unavailable == Some(0) {
            let why = "may not be 0 when `maxSurge` is 0";
            problems.invalid(&format!("{at}.maxUnavailable"), &0.into(), why);
        }
    }
}

pub fn replica_set(object: &Value, problems: &mut Problems) {
    replicated(object, problems);
    problems.not_negative("spec.minReadySeconds", object.pointer("/spec/minReadySeconds"));
}

/// A pod's name is the set's, a dash and a number, and also its host name.
const STATEFUL_SET_NAME: usize = 52;

pub fn stateful_set(object: &Value, problems: &mut Problems) {
    let name = text(object, "/metadata/name");
    if name.len() > STATEFUL_SET_NAME {
        let why = format!("must be no more than {STATEFUL_SET_NAME} characters");
        problems.invalid("metadata.name", &name.into(), &why);
    }
    replicated(object, problems);
    for field in ["minReadySeconds", "revisionHistoryLimit", "ordinals/start"] {
        let named = format!("spec.{}", field.replace('/', "."));
        problems.not_negative(&named, object.pointer(&format!("/spec/{field}")));
    }
    let policy = text(object, "/spec/podManagementPolicy");
    problems.one_of("spec.podManagementPolicy", policy, &["OrderedReady", "Parallel"]);
    let strategy = text(object, "/spec/updateStrategy/type");
    problems.one_of("spec.updateStrategy.type", strategy, &["OnDelete", "RollingUpdate"]);
    let at = "spec.updateStrategy.rollingUpdate";
    if strategy == "OnDelete" && is_set(object, "/spec/updateStrategy/rollingUpdate") {
        problems.forbidden(at, "only allowed for updateStrategy 'RollingUpdate'");
    }
    let rolling = object.pointer("/spec/updateStrategy/rollingUpdate").unwrap_or(&Value::Null);
    problems.not_negative(&format!("{at}.partition"), rolling.get("partition"));
    if rolling.get("maxUnavailable").is_some_and(|value| *value != 1) {
        problems.forbidden(&format!("{at}.maxUnavailable"), "pods are replaced one at a time: leave it out");
    }
    for field in ["whenDeleted", "whenScaled"] {
        let policy = text(object, &format!("/spec/persistentVolumeClaimRetentionPolicy/{field}"));
        let named = format!("spec.persistentVolumeClaimRetentionPolicy.{field}");
        problems.one_of(&named, policy, &["Delete", "Retain"]);
    }
    if !items(object, "/spec/volumeClaimTemplates").is_empty() {
        let why = "this cluster has no volumes that follow a pod from desktop to desktop: use a hostPath of shared \
                   storage or an emptyDir in the template instead";
        problems.forbidden("spec.volumeClaimTemplates", why);
    }
}

/// Of a running set only what its pods can follow may change.
pub fn stateful_set_update(new: &Value, old: &Value, problems: &mut Problems) {
    for field in ["selector", "serviceName", "podManagementPolicy", "volumeClaimTemplates"] {
        let pointer = format!("/spec/{field}");
        problems.same(&format!("spec.{field}"), new.pointer(&pointer), old.pointer(&pointer));
    }
}

pub fn daemon_set(object: &Value, problems: &mut Problems) {
    workload("DaemonSet", object, problems);
    for field in ["minReadySeconds", "revisionHistoryLimit"] {
        problems.not_negative(&format!("spec.{field}"), object.pointer(&format!("/spec/{field}")));
    }
    let strategy = text(object, "/spec/updateStrategy/type");
    problems.one_of("spec.updateStrategy.type", strategy, &["RollingUpdate", "OnDelete"]);
    if strategy != "RollingUpdate" {
        return;
    }
    let at = "spec.updateStrategy.rollingUpdate";
    let rolling = object.pointer("/spec/updateStrategy/rollingUpdate").unwrap_or(&Value::Null);
    let unavailable = bound(at, rolling, "maxUnavailable", problems);
    let surge = bound(at, rolling, "maxSurge", problems);
    for name in ["maxUnavailable", "maxSurge"] {
        let given = rolling.get(name).unwrap_or(&Value::Null);
        if given.is_string() && int_or_percent(given).is_some_and(|percent| percent > 100) {
            problems.invalid(&format!("{at}.{name}"), given, "must not be greater than 100%");
        }
    }
    match (unavailable, surge) {
        (Some(0), Some(0)) => {
            problems.required(&format!("{at}.maxUnavailable"), "cannot be 0 when maxSurge is 0");
        }
        (Some(unavailable), Some(surge)) if unavailable > 0 && surge > 0 => {
            let given = rolling.get("maxSurge").unwrap_or(&Value::Null);
            problems.invalid(
                &format!("{at}.maxSurge"),
                given,
                "may not be set when maxUnavailable is non-zero",
            );
        }
        _ => {}
    }
}

pub fn replication_controller(object: &Value, problems: &mut Problems) {
    for field in ["replicas", "minReadySeconds"] {
        problems.not_negative(&format!("spec.{field}"), object.pointer(&format!("/spec/{field}")));
    }
    let empty = Value::Null;
    let selector = object.pointer("/spec/selector").unwrap_or(&empty);
    let labels = object.pointer("/spec/template/metadata/labels").unwrap_or(&empty);
    let chosen = selector.as_object().is_some_and(|selector| !selector.is_empty());
    if !chosen {
        problems.required("spec.selector", "");
    }
    metadata::labels("spec.selector", object, "/spec/selector", problems);
    if !is_set(object, "/spec/template") {
        problems.required("spec.template", "");
        return;
    }
    if chosen && !metadata::selects(&serde_json::json!({"matchLabels": selector}), labels) {
        let why = "`selector` does not match template `labels`";
        problems.invalid("spec.template.metadata.labels", labels, why);
    }
    template("spec.template", object, "/spec/template", problems);
    let policy = text(object, "/spec/template/spec/restartPolicy");
    problems.one_of("spec.template.spec.restartPolicy", policy, &["Always"]);
    if is_set(object, "/spec/template/spec/activeDeadlineSeconds") {
        let why = "activeDeadlineSeconds in ReplicationController is not Supported";
        problems.forbidden("spec.template.spec.activeDeadlineSeconds", why);
    }
}

pub fn pod_template(object: &Value, problems: &mut Problems) {
    template("template", object, "/template", problems);
}

pub fn autoscaler(object: &Value, problems: &mut Problems) {
    let (least, most) = (int(object, "/spec/minReplicas"), int(object, "/spec/maxReplicas").unwrap_or(0));
    if let Some(least) = least.filter(|least| *least < 1) {
        problems.invalid("spec.minReplicas", &least.into(), "must be greater than or equal to 1");
    }
    if most < 1 {
        problems.invalid("spec.maxReplicas", &most.into(), "must be greater than 0");
    }
    if least.is_some_and(|least| most < least) {
        problems.invalid("spec.maxReplicas", &most.into(), "must be greater than or equal to `minReplicas`");
    }
    for field in ["kind", "name"] {
        if text(object, &format!("/spec/scaleTargetRef/{field}")).is_empty() {
            problems.required(&format!("spec.scaleTargetRef.{field}"), "");
        }
    }
}

pub fn controller_revision(object: &Value, problems: &mut Problems) {
    problems.not_negative("revision", object.pointer("/revision"));
    if object.get("data").is_none_or(Value::is_null) {
        problems.required("data", "it is the state that the revision keeps");
    }
}

/// A revision is history: only its place in the order may change.
pub fn controller_revision_update(new: &Value, old: &Value, problems: &mut Problems) {
    problems.same("data", new.get("data"), old.get("data"));
}

/// A bound given as a number or as a percentage; `None` where it is neither, which is told.
pub(super) fn bound(at: &str, parent: &Value, name: &str, problems: &mut Problems) -> Option<u64> {
    let field = format!("{at}.{name}");
    let value = parent.get(name).filter(|value| !value.is_null())?;
    let amount = int_or_percent(value);
    if amount.is_none() && value.is_string() {
        let why = "a valid percent string must be a numeric string followed by an ending '%' (e.g. '1%',  or '93%', \
                   regex used for validation is '[0-9]+%')";
        problems.invalid(&field, value, why);
    } else if amount.is_none() {
        problems.invalid(&field, value, "must be greater than or equal to 0");
    }
    amount
}

/// The number of an int-or-percentage; `None` where it is neither.
fn int_or_percent(value: &Value) -> Option<u64> {
    match value {
        Value::String(text) => text.strip_suffix('%')?.parse().ok(),
        value => value.as_u64(),
    }
}

fn replicated(object: &Value, problems: &mut Problems) {
    problems.not_negative("spec.replicas", object.pointer("/spec/replicas"));
    workload("ReplicaSet", object, problems);
}

/// A selector, and the template of pods that are to run for ever.
fn workload(kind: &str, object: &Value, problems: &mut Problems) {
    let empty = Value::Null;
    let selector = object.pointer("/spec/selector").unwrap_or(&empty);
    let labels = object.pointer("/spec/template/metadata/labels").unwrap_or(&empty);
    if selector.as_object().is_none_or(serde_json::Map::is_empty) {
        problems.required("spec.selector", "");
    } else if pairs_or_expressions(selector) == 0 {
        let why = "empty selector is invalid";
        problems.invalid("spec.selector", selector, why);
    } else {
        metadata::label_selector("spec.selector", selector, problems);
        if !metadata::selects(selector, labels) {
            let why = "`selector` does not match template `labels`";
            problems.invalid("spec.template.metadata.labels", labels, why);
        }
    }
    template("spec.template", object, "/spec/template", problems);
    let policy = text(object, "/spec/template/spec/restartPolicy");
    problems.one_of("spec.template.spec.restartPolicy", policy, &["Always"]);
    if is_set(object, "/spec/template/spec/activeDeadlineSeconds") {
        let field = "spec.template.spec.activeDeadlineSeconds";
        problems.forbidden(field, &format!("activeDeadlineSeconds in {kind} is not Supported"));
    }
}

fn pairs_or_expressions(selector: &Value) -> usize {
    let labels = selector.get("matchLabels").and_then(Value::as_object).map_or(0, serde_json::Map::len);
    labels + items(selector, "/matchExpressions").len()
}

fn template(field: &str, object: &Value, pointer: &str, problems: &mut Problems) {
    let labels = format!("{pointer}/metadata/labels");
    metadata::labels(&format!("{field}.metadata.labels"), object, &labels, problems);
    let annotations = format!("{pointer}/metadata/annotations");
    metadata::annotations(&format!("{field}.metadata.annotations"), object, &annotations, problems);
    let spec = object.pointer(&format!("{pointer}/spec")).unwrap_or(&Value::Null);
    pod::spec(&format!("{field}.spec"), spec, problems);
}

pub fn immutable_selector(new: &Value, old: &Value, problems: &mut Problems) {
    problems.same("spec.selector", new.pointer("/spec/selector"), old.pointer("/spec/selector"));
}

pub fn job(object: &Value, problems: &mut Problems) {
    job_spec("spec", object, "/spec", problems);
    let empty = Value::Null;
    let selector = object.pointer("/spec/selector").unwrap_or(&empty);
    let labels = object.pointer("/spec/template/metadata/labels").unwrap_or(&empty);
    if selector.is_null() {
        problems.required("spec.selector", "");
    } else {
        metadata::label_selector("spec.selector", selector, problems);
        if !metadata::selects(selector, labels) {
            let why = "`selector` does not match template `labels`";
            problems.invalid("spec.template.metadata.labels", labels, why);
        }
    }
}

fn job_spec(at: &str, object: &Value, pointer: &str, problems: &mut Problems) {
    let spec = object.pointer(pointer).unwrap_or(&Value::Null);
    for field in [
        "parallelism",
        "completions",
        "backoffLimit",
        "backoffLimitPerIndex",
        "maxFailedIndexes",
        "activeDeadlineSeconds",
        "ttlSecondsAfterFinished",
    ] {
        problems.not_negative(&format!("{at}.{field}"), spec.get(field));
    }
    let mode = text(spec, "/completionMode");
    // A CronJob's template is completed when its Jobs are made.
    if !mode.is_empty() {
        problems.one_of(&format!("{at}.completionMode"), mode, &["Indexed", "NonIndexed"]);
    }
    if mode == "Indexed" {
        match int(spec, "/completions") {
            None => problems.required(&format!("{at}.completions"), "when completion mode is Indexed"),
            Some(count) if count > INDEXED_COMPLETIONS => {
                let why = format!(
                    "must be less than or equal to {INDEXED_COMPLETIONS} when completion mode is Indexed"
                );
                problems.invalid(&format!("{at}.completions"), &count.into(), &why);
            }
            Some(_) => {}
        }
    } else if is_set(spec, "/backoffLimitPerIndex") {
        let limit = spec.get("backoffLimitPerIndex").unwrap_or(&Value::Null);
        let why = "requires indexed completion mode";
        problems.invalid(&format!("{at}.backoffLimitPerIndex"), limit, why);
    }
    let replacement = text(spec, "/podReplacementPolicy");
    if !replacement.is_empty() {
        let policies = ["Failed", "TerminatingOrFailed"];
        problems.one_of(&format!("{at}.podReplacementPolicy"), replacement, &policies);
    }
    template(&format!("{at}.template"), object, &format!("{pointer}/template"), problems);
    let policy = text(spec, "/template/spec/restartPolicy");
    problems.one_of(&format!("{at}.template.spec.restartPolicy"), policy, &["OnFailure", "Never"]);
}

/// A Job's pods are all alike: its template and selector stay. An Indexed one may be widened or narrowed together with
/// its parallelism ("elastic"); a suspended one may still change where its pods go.
pub fn job_update(new: &Value, old: &Value, problems: &mut Problems) {
    let elastic = text(new, "/spec/completionMode") == "Indexed"
        && new.pointer("/spec/completions") == new.pointer("/spec/parallelism");
    if !elastic {
        problems.same("spec.completions", new.pointer("/spec/completions"), old.pointer("/spec/completions"));
    }
    for field in ["selector", "completionMode", "podFailurePolicy", "backoffLimitPerIndex"] {
        let pointer = format!("/spec/{field}");
        problems.same(&format!("spec.{field}"), new.pointer(&pointer), old.pointer(&pointer));
    }
    let suspended = flag(old, "/spec/suspend") && int(old, "/status/active").unwrap_or(0) == 0;
    let template = |job: &Value| {
        let mut template = job.pointer("/spec/template").cloned().unwrap_or_default();
        if suspended {
            for (parent, field) in [
                ("/spec", "nodeSelector"),
                ("/spec", "tolerations"),
                ("/spec", "affinity"),
                ("/spec", "schedulingGates"),
                ("/metadata", "labels"),
                ("/metadata", "annotations"),
            ] {
                if let Some(parent) = template.pointer_mut(parent) {
                    crate::api::value::remove(parent, field);
                }
            }
        }
        template
    };
    let (new, old) = (template(new), template(old));
    problems.same("spec.template", Some(&new), Some(&old));
}

pub fn cron_job(object: &Value, problems: &mut Problems) {
    let name = text(object, "/metadata/name");
    if name.len() > CRON_JOB_NAME {
        let why = format!("must be no more than {CRON_JOB_NAME} characters");
        problems.invalid("metadata.name", &name.into(), &why);
    }
    let text_of_schedule = text(object, "/spec/schedule");
    if text_of_schedule.is_empty() {
        problems.required("spec.schedule", "");
    } else if text_of_schedule.contains("TZ") {
        let why = "cannot use TZ or CRON_TZ in schedule, use timeZone field instead";
        problems.invalid("spec.schedule", &text_of_schedule.into(), why);
    } else if let Err(why) = Schedule::parse(text_of_schedule, None) {
        problems.invalid("spec.schedule", &text_of_schedule.into(), &why);
    }
    if is_set(object, "/spec/timeZone") {
        let zone = text(object, "/spec/timeZone");
        let known = match zone {
            "" => Err("timeZone must be nil or non-empty string".to_owned()),
            zone => schedule::zone(zone).map(drop),
        };
        problems.form("spec.timeZone", zone, |_| known.clone());
    }
    for field in ["startingDeadlineSeconds", "successfulJobsHistoryLimit", "failedJobsHistoryLimit"] {
        problems.not_negative(&format!("spec.{field}"), object.pointer(&format!("/spec/{field}")));
    }
    let policy = text(object, "/spec/concurrencyPolicy");
    problems.one_of("spec.concurrencyPolicy", policy, &["Allow", "Forbid", "Replace"]);
    let at = "spec.jobTemplate.spec";
    if let Some(selector) = object.pointer("/spec/jobTemplate/spec/selector").filter(|given| !given.is_null())
    {
        problems.invalid(&format!("{at}.selector"), selector, "`selector` will be auto-generated");
    }
    if flag(object, "/spec/jobTemplate/spec/manualSelector") {
        problems.unsupported(&format!("{at}.manualSelector"), "true", &["nil", "false"]);
    }
    job_spec(at, object, "/spec/jobTemplate/spec", problems);
}
