//! LimitRanges, ResourceQuotas, PodDisruptionBudgets and PriorityClasses.

use super::{Column, age, column, name, name_column, number};
use crate::api::value::{flag, int, pairs, text};
use k8s_openapi::jiff::Timestamp;
use serde_json::Value;

pub const LIMIT_RANGE: &[Column] = &[name_column(), column("Created At")];

pub fn limit_range(object: &Value, _: Timestamp) -> Vec<Value> {
    vec![name(object), text(object, "/metadata/creationTimestamp").into()]
}

pub const RESOURCE_QUOTA: &[Column] = &[name_column(), column("Request"), column("Limit"), column("Age")];

pub fn resource_quota(object: &Value, now: Timestamp) -> Vec<Value> {
    let (mut requests, mut limits) = (Vec::new(), Vec::new());
    for (resource, hard) in pairs(object, "/status/hard") {
        let used =
            object.pointer("/status/used").and_then(|used| used.get(resource)?.as_str()).unwrap_or("0");
        let line = format!("{resource}: {used}/{hard}");
        if resource.starts_with("limits.") { limits.push(line) } else { requests.push(line) }
    }
    requests.sort();
    limits.sort();
    vec![name(object), requests.join(", ").into(), limits.join(", ").into(), age(object, now)]
}

pub const DISRUPTION_BUDGET: &[Column] = &[
    name_column(),
    column("Min Available"),
    column("Max Unavailable"),
    number("Allowed Disruptions"),
    column("Age"),
];

pub fn disruption_budget(object: &Value, now: Timestamp) -> Vec<Value> {
    let bound = |field: &str| match object.pointer(&format!("/spec/{field}")) {
        Some(Value::String(percent)) => percent.as_str().into(),
        Some(Value::Number(count)) => count.to_string().into(),
        _ => Value::from("N/A"),
    };
    vec![
        name(object),
        bound("minAvailable"),
        bound("maxUnavailable"),
        int(object, "/status/disruptionsAllowed").unwrap_or(0).into(),
        age(object, now),
    ]
}

pub const PRIORITY_CLASS: &[Column] = &[
    name_column(),
    number("Value"),
    Column { name: "Global-Default", kind: "boolean", format: "", shown: super::Shown::Always },
    column("Age"),
    column("PreemptionPolicy"),
];

pub fn priority_class(object: &Value, now: Timestamp) -> Vec<Value> {
    vec![
        name(object),
        int(object, "/value").unwrap_or(0).into(),
        flag(object, "/globalDefault").into(),
        age(object, now),
        text(object, "/preemptionPolicy").into(),
    ]
}
