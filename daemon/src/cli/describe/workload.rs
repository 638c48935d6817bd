//! Deployments and ReplicaSets: how many pods there should be, how many there are, and from which template.

use super::super::logs::selector_of;
use super::super::table::text;
use super::page::Page;
use super::pod::{controlled_by, template};
use serde_json::Value;

pub fn describe_deployment(page: &mut Page, deployment: &Value, replica_sets: &[Value]) {
    let (spec, status) = (&deployment["spec"], &deployment["status"]);
    page.metadata(deployment);
    page.some(0, "Created", &deployment["metadata"]["creationTimestamp"]);
    page.pair(0, "Selector", selector_of(deployment).unwrap_or_else(|| "<none>".to_owned()));
    page.pair(
        0,
        "Replicas",
        format!(
            "{} desired | {} updated | {} total | {} available | {} unavailable",
            count(&spec["replicas"]),
            count(&status["updatedReplicas"]),
            count(&status["replicas"]),
            count(&status["availableReplicas"]),
            count(&status["unavailableReplicas"]),
        ),
    );
    page.some(0, "Strategy", &spec["strategy"]["type"]);
    let rolling = &spec["strategy"]["rollingUpdate"];
    if rolling.is_object() {
        let limits = format!(
            "{} max unavailable, {} max surge",
            text(&rolling["maxUnavailable"]),
            text(&rolling["maxSurge"])
        );
        page.pair(0, "Rolling Update", limits);
    }
    if spec["paused"] == true {
        page.pair(0, "Paused", "yes: changes of the template roll out when it is resumed");
    }
    template(page, &spec["template"]);
    page.conditions(&status["conditions"]);
    replica_set_lines(page, deployment, replica_sets);
}

/// The newest revision, and the older ones that still have pods.
fn replica_set_lines(page: &mut Page, deployment: &Value, replica_sets: &[Value]) {
    const REVISION: &str = "deployment.kubernetes.io/revision";
    let current = text(&deployment["metadata"]["annotations"][REVISION]);
    let line = |set: &Value| {
        let (made, wanted) = (count(&set["status"]["replicas"]), count(&set["spec"]["replicas"]));
        format!("{} ({made}/{wanted} pods made)", text(&set["metadata"]["name"]))
    };
    let (new, old): (Vec<&Value>, Vec<&Value>) = replica_sets
        .iter()
        .partition(|set| !current.is_empty() && text(&set["metadata"]["annotations"][REVISION]) == current);
    let alive = |set: &&&Value| count(&set["status"]["replicas"]) > 0 || count(&set["spec"]["replicas"]) > 0;
    page.lines(0, "New ReplicaSet", new.iter().map(|set| line(set)));
    page.lines(0, "Old ReplicaSets", old.iter().filter(alive).map(|set| line(set)));
}

pub fn describe_replica_set(page: &mut Page, set: &Value, pods: &[Value]) {
    page.metadata(set);
    page.pair(0, "Selector", selector_of(set).unwrap_or_else(|| "<none>".to_owned()));
    controlled_by(page, set);
    let (current, desired) = (count(&set["status"]["replicas"]), count(&set["spec"]["replicas"]));
    page.pair(0, "Replicas", format!("{current} current / {desired} desired"));
    let in_phase = |phase: &str| pods.iter().filter(|pod| pod["status"]["phase"] == phase).count();
    page.pair(
        0,
        "Pods Status",
        format!(
            "{} Running / {} Waiting / {} Succeeded / {} Failed",
            in_phase("Running"),
            in_phase("Pending"),
            in_phase("Succeeded"),
            in_phase("Failed"),
        ),
    );
    template(page, &set["spec"]["template"]);
    page.conditions(&set["status"]["conditions"]);
}

pub fn count(value: &Value) -> i64 {
    value.as_i64().unwrap_or(0)
}
