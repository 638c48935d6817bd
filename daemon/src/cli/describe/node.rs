//! A node: the desktop, what it offers, and what runs on it.

use super::super::table::text;
use super::age::since;
use super::page::Page;
use k8s_openapi::jiff::Timestamp;
use serde_json::Value;

pub fn describe(page: &mut Page, node: &Value, pods: &[Value], now: Timestamp) {
    let (spec, status) = (&node["spec"], &node["status"]);
    page.metadata(node);
    page.some(0, "Created", &node["metadata"]["creationTimestamp"]);
    let taints = spec["taints"].as_array().into_iter().flatten();
    page.lines(
        0,
        "Taints",
        taints.map(|taint| {
            let value = match text(&taint["value"]) {
                value if value.is_empty() => String::new(),
                value => format!("={value}"),
            };
            format!("{}{value}:{}", text(&taint["key"]), text(&taint["effect"]))
        }),
    );
    page.pair(0, "Unschedulable", if spec["unschedulable"] == true { "true" } else { "false" });
    page.conditions(&status["conditions"]);
    page.head(0, "Addresses");
    for address in status["addresses"].as_array().into_iter().flatten() {
        page.pair(1, &text(&address["type"]), text(&address["address"]));
    }
    for (title, field) in
        [("Capacity", "capacity"), ("Allocatable", "allocatable"), ("System Info", "nodeInfo")]
    {
        page.head(0, title);
        for (key, value) in status[field].as_object().into_iter().flatten() {
            page.some(1, key, value);
        }
    }
    running(page, pods, now);
}

fn running(page: &mut Page, pods: &[Value], now: Timestamp) {
    let ended = |pod: &&Value| matches!(pod["status"]["phase"].as_str(), Some("Succeeded" | "Failed"));
    let pods: Vec<&Value> = pods.iter().filter(|pod| !ended(pod)).collect();
    page.pair(0, "Pods", format!("{} not ended", pods.len()));
    if pods.is_empty() {
        return;
    }
    let header = ["Namespace", "Name", "CPU Requests", "Memory Requests", "Age"];
    let mut rows = vec![header.map(str::to_owned).to_vec()];
    rows.extend(pods.into_iter().map(|pod| {
        vec![
            text(&pod["metadata"]["namespace"]),
            text(&pod["metadata"]["name"]),
            requests(pod, "cpu"),
            requests(pod, "memory"),
            since(&pod["metadata"]["creationTimestamp"], now),
        ]
    }));
    page.table(1, rows);
}

/// What a pod's containers ask for, as they wrote it.
fn requests(pod: &Value, resource: &str) -> String {
    let asked: Vec<String> = pod["spec"]["containers"]
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(|container| Some(text(container["resources"]["requests"].get(resource)?)))
        .collect();
    if asked.is_empty() { "0".to_owned() } else { asked.join(" + ") }
}
