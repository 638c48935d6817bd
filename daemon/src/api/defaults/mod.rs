//! Fields that a client left out, filled as Kubernetes 1.32 fills them.
//!
//! Every function may be run again on its own result and changes nothing then: updates are defaulted too.

pub mod access;
pub mod extensions;
pub mod network;
mod pod;
pub mod policy;
pub mod storage;

use super::value::{as_map, child, default_to, items_mut, pairs, remove, set, text};
use base64::Engine;
use serde_json::{Value, json};

pub fn pod(pod: &mut Value) {
    let spec = child(pod, "spec");
    default_to(spec, "enableServiceLinks", true);
    pod::spec(spec);
}

/// The label that lets selectors name a namespace.
pub fn namespace(namespace: &mut Value) {
    let name = text(namespace, "/metadata/name").to_owned();
    set(child(child(namespace, "metadata"), "labels"), "kubernetes.io/metadata.name", name);
    default_to(child(namespace, "status"), "phase", "Active");
}

/// `stringData` is a way to write `data`, and is never read back.
pub fn secret(secret: &mut Value) {
    default_to(secret, "type", "Opaque");
    let Some(plain) = remove(secret, "stringData") else { return };
    let encode = |text: &str| base64::engine::general_purpose::STANDARD.encode(text);
    for (key, value) in pairs(&plain, "") {
        set(child(secret, "data"), key, encode(value));
    }
}

pub fn service(service: &mut Value) {
    let spec = child(service, "spec");
    default_to(spec, "type", "ClusterIP");
    default_to(spec, "sessionAffinity", "None");
    default_to(spec, "internalTrafficPolicy", "Cluster");
    families(spec);
    for port in items_mut(spec, "ports") {
        default_to(port, "protocol", "TCP");
        let number = port.get("port").cloned().unwrap_or_default();
        let target = as_map(port).entry("targetPort").or_insert(Value::Null);
        if target.is_null() || *target == json!(0) || *target == json!("") {
            *target = number;
        }
    }
}

/// The addresses that a service has are all of one family here; a name for something outside has none.
fn families(spec: &mut Value) {
    if text(spec, "/type") == "ExternalName" {
        for field in ["ipFamilies", "ipFamilyPolicy"] {
            remove(spec, field);
        }
        return;
    }
    default_to(spec, "ipFamilyPolicy", "SingleStack");
    if spec.get("ipFamilies").and_then(Value::as_array).is_none_or(Vec::is_empty) {
        set(spec, "ipFamilies", json!(["IPv4"]));
    }
}

pub fn deployment(deployment: &mut Value) {
    let spec = child(deployment, "spec");
    default_to(spec, "replicas", 1);
    default_to(spec, "revisionHistoryLimit", 10);
    default_to(spec, "progressDeadlineSeconds", 600);
    let strategy = child(spec, "strategy");
    default_to(strategy, "type", "RollingUpdate");
    if text(strategy, "/type") == "RollingUpdate" {
        let rolling = child(strategy, "rollingUpdate");
        default_to(rolling, "maxSurge", "25%");
        default_to(rolling, "maxUnavailable", "25%");
    }
    template(spec);
}

pub fn replica_set(set: &mut Value) {
    let spec = child(set, "spec");
    default_to(spec, "replicas", 1);
    template(spec);
}

pub fn stateful_set(set: &mut Value) {
    let spec = child(set, "spec");
    default_to(spec, "replicas", 1);
    default_to(spec, "revisionHistoryLimit", 10);
    default_to(spec, "podManagementPolicy", "OrderedReady");
    let strategy = child(spec, "updateStrategy");
    default_to(strategy, "type", "RollingUpdate");
    if text(strategy, "/type") == "RollingUpdate" {
        default_to(child(strategy, "rollingUpdate"), "partition", 0);
    }
    let retention = child(spec, "persistentVolumeClaimRetentionPolicy");
    default_to(retention, "whenDeleted", "Retain");
    default_to(retention, "whenScaled", "Retain");
    template(spec);
}

/// Labels and selector are the template's where they were left out.
pub fn replication_controller(controller: &mut Value) {
    let labels = controller.pointer("/spec/template/metadata/labels").cloned();
    let labels = labels.filter(|labels| labels.as_object().is_some_and(|labels| !labels.is_empty()));
    let is_empty =
        |given: Option<&Value>| given.and_then(Value::as_object).is_none_or(|given| given.is_empty());
    if let Some(labels) = labels {
        if is_empty(controller.pointer("/spec/selector")) {
            set(child(controller, "spec"), "selector", labels.clone());
        }
        if is_empty(controller.pointer("/metadata/labels")) {
            set(child(controller, "metadata"), "labels", labels);
        }
    }
    let spec = child(controller, "spec");
    default_to(spec, "replicas", 1);
    if spec.get("template").is_some_and(Value::is_object) {
        template(spec);
    }
}

pub fn pod_template(object: &mut Value) {
    template(object);
}

pub fn autoscaler(scaler: &mut Value) {
    let spec = child(scaler, "spec");
    default_to(spec, "minReplicas", 1);
    if spec.get("metrics").and_then(Value::as_array).is_none_or(Vec::is_empty) {
        let target = json!({"type": "Utilization", "averageUtilization": 80});
        set(spec, "metrics", json!([{"type": "Resource", "resource": {"name": "cpu", "target": target}}]));
    }
}

pub fn daemon_set(set: &mut Value) {
    let spec = child(set, "spec");
    default_to(spec, "revisionHistoryLimit", 10);
    let strategy = child(spec, "updateStrategy");
    default_to(strategy, "type", "RollingUpdate");
    if text(strategy, "/type") == "RollingUpdate" {
        let rolling = child(strategy, "rollingUpdate");
        default_to(rolling, "maxUnavailable", 1);
        default_to(rolling, "maxSurge", 0);
    }
    template(spec);
}

pub fn job(job: &mut Value) {
    job_spec(child(job, "spec"));
    job_selector(job);
}

pub fn cron_job(cron_job: &mut Value) {
    let spec = child(cron_job, "spec");
    default_to(spec, "concurrencyPolicy", "Allow");
    default_to(spec, "suspend", false);
    default_to(spec, "successfulJobsHistoryLimit", 3);
    default_to(spec, "failedJobsHistoryLimit", 1);
    template(child(child(spec, "jobTemplate"), "spec"));
}

fn job_spec(spec: &mut Value) {
    // With neither, one pod is to succeed once; with parallelism alone, any success ends a work queue.
    if spec.get("completions").is_none_or(Value::is_null)
        && spec.get("parallelism").is_none_or(Value::is_null)
    {
        set(spec, "completions", 1);
    }
    default_to(spec, "parallelism", 1);
    if spec.get("backoffLimitPerIndex").is_none_or(Value::is_null) {
        default_to(spec, "backoffLimit", 6);
    } else {
        default_to(spec, "backoffLimit", i32::MAX);
    }
    default_to(spec, "completionMode", "NonIndexed");
    default_to(spec, "suspend", false);
    let failure_policy = spec.get_mut("podFailurePolicy").filter(|policy| !policy.is_null());
    let by_failure_policy = failure_policy.is_some();
    for rule in failure_policy.map(|policy| items_mut(policy, "rules")).unwrap_or_default() {
        items_mut(rule, "onPodConditions").iter_mut().for_each(|one| default_to(one, "status", "True"));
    }
    let replacement = if by_failure_policy { "Failed" } else { "TerminatingOrFailed" };
    default_to(spec, "podReplacementPolicy", replacement);
    default_to(spec, "manualSelector", false);
    if spec.get("manualSelector") == Some(&Value::Bool(false)) {
        remove(spec, "manualSelector");
    }
    template(spec);
}

/// A Job without `manualSelector` selects its pods by its own uid, so that it never adopts another's.
fn job_selector(job: &mut Value) {
    if job.pointer("/spec/manualSelector") == Some(&Value::Bool(true)) {
        return;
    }
    let (name, uid) = (text(job, "/metadata/name").to_owned(), text(job, "/metadata/uid").to_owned());
    let spec = child(job, "spec");
    let labels = child(child(child(spec, "template"), "metadata"), "labels");
    for (key, value) in [
        ("batch.kubernetes.io/controller-uid", &uid),
        ("controller-uid", &uid),
        ("batch.kubernetes.io/job-name", &name),
        ("job-name", &name),
    ] {
        set(labels, key, value.as_str());
    }
    if spec.get("selector").is_none_or(|selector| selector.is_null() || *selector == json!({})) {
        set(spec, "selector", json!({"matchLabels": {"batch.kubernetes.io/controller-uid": uid}}));
    }
}

fn template(spec: &mut Value) {
    pod::spec(child(child(spec, "template"), "spec"));
}

#[cfg(test)]
mod tests;
