//! Pods, whose STATUS column tells the most important of many states.

use super::{Column, age, column, duration, name, name_column, or_none, wide};
use crate::api::value::{int, is_set, items, text};
use k8s_openapi::jiff::Timestamp;
use serde_json::Value;

pub const COLUMNS: &[Column] = &[
    name_column(),
    column("Ready"),
    column("Status"),
    column("Restarts"),
    column("Age"),
    wide("IP"),
    wide("Node"),
    wide("Nominated Node"),
    wide("Readiness Gates"),
];

pub fn cells(pod: &Value, now: Timestamp) -> Vec<Value> {
    let summary = summarize(pod);
    let restarts = match summary.last_restart {
        Some(last) if summary.restarts > 0 => {
            format!("{} ({} ago)", summary.restarts, duration::human(now.as_second() - last.as_second()))
        }
        _ => summary.restarts.to_string(),
    };
    let gates = items(pod, "/spec/readinessGates");
    let gates = if gates.is_empty() {
        "<none>".to_owned()
    } else {
        let met = gates.iter().filter(|gate| condition(pod, text(gate, "/conditionType")) == "True").count();
        format!("{met}/{}", gates.len())
    };
    vec![
        name(pod),
        format!("{}/{}", summary.ready, summary.containers).into(),
        summary.status.into(),
        restarts.into(),
        age(pod, now),
        or_none(text(pod, "/status/podIP")),
        or_none(text(pod, "/spec/nodeName")),
        or_none(text(pod, "/status/nominatedNodeName")),
        gates.into(),
    ]
}

struct Summary {
    status: String,
    ready: usize,
    containers: usize,
    restarts: i64,
    last_restart: Option<Timestamp>,
}

fn condition<'a>(pod: &'a Value, kind: &str) -> &'a str {
    let found = items(pod, "/status/conditions").iter().find(|condition| text(condition, "/type") == kind);
    found.map(|condition| text(condition, "/status")).unwrap_or_default()
}

fn summarize(pod: &Value) -> Summary {
    let reason = text(pod, "/status/reason");
    let phase = text(pod, "/status/phase");
    let mut summary = Summary {
        status: if reason.is_empty() { phase } else { reason }.to_owned(),
        ready: 0,
        containers: items(pod, "/spec/containers").len(),
        restarts: 0,
        last_restart: None,
    };
    let gated = items(pod, "/status/conditions").iter().any(|condition| {
        text(condition, "/type") == "PodScheduled" && text(condition, "/reason") == "SchedulingGated"
    });
    if gated {
        summary.status = "SchedulingGated".into();
    }
    let initializing = init_containers(pod, &mut summary);
    if !initializing || condition(pod, "Initialized") == "True" {
        containers(pod, &mut summary);
    }
    if is_set(pod, "/metadata/deletionTimestamp") {
        if reason == "NodeLost" {
            summary.status = "Unknown".into();
        } else if !matches!(phase, "Succeeded" | "Failed") {
            summary.status = "Terminating".into();
        }
    }
    summary
}

fn is_sidecar(pod: &Value, name: &str) -> bool {
    let named = |container: &&Value| text(container, "/name") == name;
    let container = items(pod, "/spec/initContainers").iter().find(named);
    container.is_some_and(|container| text(container, "/restartPolicy") == "Always")
}

/// Counts restarts of init containers and finds out whether one of them is still to finish.
fn init_containers(pod: &Value, summary: &mut Summary) -> bool {
    let total = items(pod, "/spec/initContainers").len();
    let sidecars = items(pod, "/spec/initContainers")
        .iter()
        .filter(|container| text(container, "/restartPolicy") == "Always")
        .count();
    summary.containers += sidecars;
    for (i, status) in items(pod, "/status/initContainerStatuses").iter().enumerate() {
        summary.restarts += int(status, "/restartCount").unwrap_or(0);
        note_restart(status, summary);
        let sidecar = is_sidecar(pod, text(status, "/name"));
        let exit = int(status, "/state/terminated/exitCode");
        if sidecar && status.get("ready") == Some(&Value::Bool(true)) {
            summary.ready += 1;
        }
        if exit == Some(0) || (sidecar && status.get("started") == Some(&Value::Bool(true))) {
            continue;
        }
        let waiting = text(status, "/state/waiting/reason");
        summary.status = if is_set(status, "/state/terminated") {
            format!("Init:{}", terminated(status))
        } else if !waiting.is_empty() && waiting != "PodInitializing" {
            format!("Init:{waiting}")
        } else {
            format!("Init:{i}/{total}")
        };
        return true;
    }
    false
}

fn terminated(status: &Value) -> String {
    let reason = text(status, "/state/terminated/reason");
    let signal = int(status, "/state/terminated/signal").unwrap_or(0);
    match (reason, signal) {
        ("", 0) => format!("ExitCode:{}", int(status, "/state/terminated/exitCode").unwrap_or(0)),
        ("", signal) => format!("Signal:{signal}"),
        (reason, _) => reason.to_owned(),
    }
}

fn containers(pod: &Value, summary: &mut Summary) {
    let mut running = false;
    let mut init_restarts = summary.restarts;
    // Restarts of finished init containers are history once the pod's own containers run.
    for status in items(pod, "/status/initContainerStatuses") {
        if !is_sidecar(pod, text(status, "/name")) {
            init_restarts -= int(status, "/restartCount").unwrap_or(0);
        }
    }
    summary.restarts = init_restarts;
    // The first container's state wins: they are looked through from the last.
    for status in items(pod, "/status/containerStatuses").iter().rev() {
        summary.restarts += int(status, "/restartCount").unwrap_or(0);
        note_restart(status, summary);
        let waiting = text(status, "/state/waiting/reason");
        if !waiting.is_empty() {
            summary.status = waiting.to_owned();
        } else if is_set(status, "/state/terminated") {
            summary.status = terminated(status);
        } else if is_set(status, "/state/running") && status.get("ready") == Some(&Value::Bool(true)) {
            running = true;
            summary.ready += 1;
        }
    }
    // One container has ended well, another goes on.
    if summary.status == "Completed" && running {
        let ready = condition(pod, "Ready") == "True";
        summary.status = if ready { "Running" } else { "NotReady" }.into();
    }
}

fn note_restart(status: &Value, summary: &mut Summary) {
    if let Ok(finished) = text(status, "/lastState/terminated/finishedAt").parse::<Timestamp>() {
        summary.last_restart = summary.last_restart.max(Some(finished));
    }
}
