//! Deployments, ReplicaSets, StatefulSets, DaemonSets, Jobs and CronJobs.

use super::{Column, age, column, duration, labels, name, name_column, number, selector, since, wide};
use crate::api::value::{flag, int, is_set, items, text};
use k8s_openapi::jiff::Timestamp;
use serde_json::Value;

pub const DEPLOYMENT: &[Column] = &[
    name_column(),
    column("Ready"),
    number("Up-to-date"),
    number("Available"),
    column("Age"),
    wide("Containers"),
    wide("Images"),
    wide("Selector"),
];

pub fn deployment(object: &Value, now: Timestamp) -> Vec<Value> {
    let count = |field: &str| int(object, &format!("/status/{field}")).unwrap_or(0);
    let wanted = int(object, "/spec/replicas").unwrap_or(0);
    let mut cells = vec![
        name(object),
        format!("{}/{wanted}", count("readyReplicas")).into(),
        count("updatedReplicas").into(),
        count("availableReplicas").into(),
        age(object, now),
    ];
    cells.extend(template(object, "/spec/template/spec"));
    cells.push(selector(object, "/spec/selector").into());
    cells
}

pub const REPLICA_SET: &[Column] = &[
    name_column(),
    number("Desired"),
    number("Current"),
    number("Ready"),
    column("Age"),
    wide("Containers"),
    wide("Images"),
    wide("Selector"),
];

pub fn replica_set(object: &Value, now: Timestamp) -> Vec<Value> {
    let mut cells = vec![
        name(object),
        int(object, "/spec/replicas").unwrap_or(0).into(),
        int(object, "/status/replicas").unwrap_or(0).into(),
        int(object, "/status/readyReplicas").unwrap_or(0).into(),
        age(object, now),
    ];
    cells.extend(template(object, "/spec/template/spec"));
    cells.push(selector(object, "/spec/selector").into());
    cells
}

/// A ReplicationController's columns are a ReplicaSet's.
pub fn replication_controller(object: &Value, now: Timestamp) -> Vec<Value> {
    let mut cells = replica_set(object, now);
    if let Some(selected) = cells.last_mut() {
        *selected = labels(object, "/spec/selector").into();
    }
    cells
}

pub const POD_TEMPLATE: &[Column] =
    &[name_column(), column("Containers"), column("Images"), column("Pod Labels")];

pub fn pod_template(object: &Value, _: Timestamp) -> Vec<Value> {
    let [names, images] = template(object, "/template/spec");
    vec![name(object), names, images, labels(object, "/template/metadata/labels").into()]
}

pub const AUTOSCALER: &[Column] = &[
    name_column(),
    column("Reference"),
    column("Targets"),
    column("MinPods"),
    column("MaxPods"),
    number("Replicas"),
    column("Age"),
];

pub fn autoscaler(object: &Value, now: Timestamp) -> Vec<Value> {
    let about = |field: &str| text(object, &format!("/spec/scaleTargetRef/{field}")).to_owned();
    let count = |pointer: &str| int(object, pointer).map(|count| count.to_string());
    // What was measured is not there; what it would be held against is.
    let targets: Vec<String> = items(object, "/spec/metrics")
        .iter()
        .map(|metric| {
            let named = text(metric, "/resource/name");
            match (
                int(metric, "/resource/target/averageUtilization"),
                text(metric, "/resource/target/averageValue"),
            ) {
                (Some(percent), _) => format!("{named}: <unknown>/{percent}%"),
                (None, "") => "<unknown>".to_owned(),
                (None, amount) => format!("{named}: <unknown>/{amount}"),
            }
        })
        .collect();
    vec![
        name(object),
        format!("{}/{}", about("kind"), about("name")).into(),
        super::or_none(&targets.join(", ")),
        count("/spec/minReplicas").unwrap_or_else(|| "<unset>".into()).into(),
        count("/spec/maxReplicas").unwrap_or_default().into(),
        int(object, "/status/currentReplicas").unwrap_or(0).into(),
        age(object, now),
    ]
}

pub const STATEFUL_SET: &[Column] =
    &[name_column(), column("Ready"), column("Age"), wide("Containers"), wide("Images")];

pub fn stateful_set(object: &Value, now: Timestamp) -> Vec<Value> {
    let ready = int(object, "/status/readyReplicas").unwrap_or(0);
    let wanted = int(object, "/spec/replicas").unwrap_or(0);
    let mut cells = vec![name(object), format!("{ready}/{wanted}").into(), age(object, now)];
    cells.extend(template(object, "/spec/template/spec"));
    cells
}

pub const DAEMON_SET: &[Column] = &[
    name_column(),
    number("Desired"),
    number("Current"),
    number("Ready"),
    number("Up-to-date"),
    number("Available"),
    column("Node Selector"),
    column("Age"),
    wide("Containers"),
    wide("Images"),
    wide("Selector"),
];

pub fn daemon_set(object: &Value, now: Timestamp) -> Vec<Value> {
    let count = |field: &str| Value::from(int(object, &format!("/status/{field}")).unwrap_or(0));
    let mut cells = vec![
        name(object),
        count("desiredNumberScheduled"),
        count("currentNumberScheduled"),
        count("numberReady"),
        count("updatedNumberScheduled"),
        count("numberAvailable"),
        labels(object, "/spec/template/spec/nodeSelector").into(),
        age(object, now),
    ];
    cells.extend(template(object, "/spec/template/spec"));
    cells.push(selector(object, "/spec/selector").into());
    cells
}

pub const CONTROLLER_REVISION: &[Column] =
    &[name_column(), column("Controller"), number("Revision"), column("Age")];

pub fn controller_revision(object: &Value, now: Timestamp) -> Vec<Value> {
    let owners = items(object, "/metadata/ownerReferences");
    let controller = owners.iter().find(|owner| flag(owner, "/controller")).map(|owner| {
        let group = text(owner, "/apiVersion").split_once('/').map_or("", |(group, _)| group);
        let dot = if group.is_empty() { "" } else { "." };
        format!("{}{dot}{group}/{}", text(owner, "/kind").to_lowercase(), text(owner, "/name"))
    });
    vec![
        name(object),
        super::or_none(&controller.unwrap_or_default()),
        int(object, "/revision").unwrap_or(0).into(),
        age(object, now),
    ]
}

pub const JOB: &[Column] = &[
    name_column(),
    column("Status"),
    column("Completions"),
    column("Duration"),
    column("Age"),
    wide("Containers"),
    wide("Images"),
    wide("Selector"),
];

pub fn job(object: &Value, now: Timestamp) -> Vec<Value> {
    let succeeded = int(object, "/status/succeeded").unwrap_or(0);
    let parallelism = int(object, "/spec/parallelism").unwrap_or(0);
    let completions = match int(object, "/spec/completions") {
        Some(wanted) => format!("{succeeded}/{wanted}"),
        None if parallelism > 1 => format!("{succeeded}/1 of {parallelism}"),
        None => format!("{succeeded}/1"),
    };
    let took = match (text(object, "/status/startTime").parse::<Timestamp>(), finished(object)) {
        (Err(_), _) => String::new(),
        (Ok(start), finished) => duration::human(finished.unwrap_or(now).as_second() - start.as_second()),
    };
    let mut cells =
        vec![name(object), job_status(object).into(), completions.into(), took.into(), age(object, now)];
    cells.extend(template(object, "/spec/template/spec"));
    cells.push(selector(object, "/spec/selector").into());
    cells
}

fn is_true(object: &Value, condition: &str) -> bool {
    let conditions = items(object, "/status/conditions");
    conditions.iter().any(|c| text(c, "/type") == condition && text(c, "/status") == "True")
}

fn job_status(object: &Value) -> &'static str {
    if is_true(object, "Complete") {
        "Complete"
    } else if is_true(object, "Failed") {
        "Failed"
    } else if is_set(object, "/metadata/deletionTimestamp") {
        "Terminating"
    } else if is_true(object, "Suspended") {
        "Suspended"
    } else if is_true(object, "FailureTarget") {
        "FailureTarget"
    } else if is_true(object, "SuccessCriteriaMet") {
        "SuccessCriteriaMet"
    } else {
        "Running"
    }
}

fn finished(object: &Value) -> Option<Timestamp> {
    if let Ok(time) = text(object, "/status/completionTime").parse() {
        return Some(time);
    }
    let failed = items(object, "/status/conditions").iter().find(|c| text(c, "/type") == "Failed")?;
    text(failed, "/lastTransitionTime").parse().ok()
}

pub const CRON_JOB: &[Column] = &[
    name_column(),
    column("Schedule"),
    column("Timezone"),
    column("Suspend"),
    number("Active"),
    column("Last Schedule"),
    column("Age"),
    wide("Containers"),
    wide("Images"),
    wide("Selector"),
];

pub fn cron_job(object: &Value, now: Timestamp) -> Vec<Value> {
    let zone = text(object, "/spec/timeZone");
    let last = match text(object, "/status/lastScheduleTime") {
        "" => "<none>".to_owned(),
        _ => since(object, "/status/lastScheduleTime", now),
    };
    let suspended = if flag(object, "/spec/suspend") { "True" } else { "False" };
    let mut cells = vec![
        name(object),
        text(object, "/spec/schedule").into(),
        super::or_none(zone),
        suspended.into(),
        items(object, "/status/active").len().into(),
        last.into(),
        age(object, now),
    ];
    cells.extend(template(object, "/spec/jobTemplate/spec/template/spec"));
    cells.push(labels(object, "/spec/jobTemplate/spec/selector/matchLabels").into());
    cells
}

/// Names and images of a template's containers.
fn template(object: &Value, pointer: &str) -> [Value; 2] {
    let containers = items(object, &format!("{pointer}/containers"));
    let joined = |field: &str| {
        let all: Vec<&str> = containers.iter().map(|container| text(container, field)).collect();
        Value::from(all.join(","))
    };
    [joined("/name"), joined("/image")]
}
