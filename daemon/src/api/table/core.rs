//! The kinds of the core group but pods, and leases.

use super::{Column, age, column, labels, name, name_column, number, or_none, or_unknown, since, wide};
use crate::api::value::{flag, int, is_set, items, pairs, text};
use k8s_openapi::jiff::Timestamp;
use serde_json::Value;

pub const CONFIG_MAP: &[Column] = &[name_column(), number("Data"), column("Age")];

pub fn config_map(object: &Value, now: Timestamp) -> Vec<Value> {
    let count = pairs(object, "/data").count() + pairs(object, "/binaryData").count();
    vec![name(object), count.into(), age(object, now)]
}

pub const SECRET: &[Column] = &[name_column(), column("Type"), number("Data"), column("Age")];

pub fn secret(object: &Value, now: Timestamp) -> Vec<Value> {
    vec![name(object), text(object, "/type").into(), pairs(object, "/data").count().into(), age(object, now)]
}

pub const SERVICE_ACCOUNT: &[Column] = &[name_column(), number("Secrets"), column("Age")];

pub fn service_account(object: &Value, now: Timestamp) -> Vec<Value> {
    vec![name(object), items(object, "/secrets").len().into(), age(object, now)]
}

pub const NAMESPACE: &[Column] = &[name_column(), column("Status"), column("Age")];

pub fn namespace(object: &Value, now: Timestamp) -> Vec<Value> {
    vec![name(object), text(object, "/status/phase").into(), age(object, now)]
}

pub const LEASE: &[Column] = &[name_column(), column("Holder"), column("Age")];

pub fn lease(object: &Value, now: Timestamp) -> Vec<Value> {
    vec![name(object), text(object, "/spec/holderIdentity").into(), age(object, now)]
}

pub const NODE: &[Column] = &[
    name_column(),
    column("Status"),
    column("Roles"),
    column("Age"),
    column("Version"),
    wide("Internal-IP"),
    wide("External-IP"),
    wide("OS-Image"),
    wide("Kernel-Version"),
    wide("Container-Runtime"),
];

pub fn node(object: &Value, now: Timestamp) -> Vec<Value> {
    let ready = items(object, "/status/conditions").iter().find(|c| text(c, "/type") == "Ready");
    let mut status = match ready.map(|condition| text(condition, "/status")) {
        Some("True") => "Ready",
        Some(_) => "NotReady",
        None => "Unknown",
    }
    .to_owned();
    if flag(object, "/spec/unschedulable") {
        status.push_str(",SchedulingDisabled");
    }
    let roles: Vec<&str> = pairs(object, "/metadata/labels")
        .filter_map(|(key, value)| match key.strip_prefix("node-role.kubernetes.io/") {
            Some(role) => (!role.is_empty()).then_some(role),
            None => (key == "kubernetes.io/role" && !value.is_empty()).then_some(value),
        })
        .collect();
    let address = |kind: &str| {
        let found = items(object, "/status/addresses").iter().find(|a| text(a, "/type") == kind);
        or_none(found.map(|address| text(address, "/address")).unwrap_or_default())
    };
    let info = |field: &str| text(object, &format!("/status/nodeInfo/{field}"));
    vec![
        name(object),
        status.into(),
        or_none(&roles.join(",")),
        age(object, now),
        info("kubeletVersion").into(),
        address("InternalIP"),
        address("ExternalIP"),
        or_unknown(info("osImage")),
        or_unknown(info("kernelVersion")),
        or_unknown(info("containerRuntimeVersion")),
    ]
}

pub const EVENT: &[Column] = &[
    column("Last Seen"),
    column("Type"),
    column("Reason"),
    column("Object"),
    wide("Subobject"),
    wide("Source"),
    column("Message"),
    wide("First Seen"),
    wide("Count"),
    Column { name: "Name", kind: "string", format: "name", shown: super::Shown::Wide },
];

pub fn event(object: &Value, now: Timestamp) -> Vec<Value> {
    let first = if is_set(object, "/firstTimestamp") { "/firstTimestamp" } else { "/eventTime" };
    let last = if is_set(object, "/series/lastObservedTime") {
        "/series/lastObservedTime"
    } else if is_set(object, "/lastTimestamp") {
        "/lastTimestamp"
    } else {
        first
    };
    let count = int(object, "/series/count").or(int(object, "/count")).unwrap_or(1).max(1);
    let source = match text(object, "/source/component") {
        "" => text(object, "/reportingComponent"),
        component => component,
    };
    let host = match text(object, "/source/host") {
        "" => text(object, "/reportingInstance"),
        host => host,
    };
    let source = if host.is_empty() { source.to_owned() } else { format!("{source}, {host}") };
    let about = format!(
        "{}/{}",
        text(object, "/involvedObject/kind").to_lowercase(),
        text(object, "/involvedObject/name")
    );
    vec![
        since(object, last, now).into(),
        text(object, "/type").into(),
        text(object, "/reason").into(),
        about.into(),
        text(object, "/involvedObject/fieldPath").into(),
        source.into(),
        text(object, "/message").trim().into(),
        since(object, first, now).into(),
        count.to_string().into(),
        name(object),
    ]
}

pub const SERVICE: &[Column] = &[
    name_column(),
    column("Type"),
    column("Cluster-IP"),
    column("External-IP"),
    column("Port(s)"),
    column("Age"),
    wide("Selector"),
];

pub fn service(object: &Value, now: Timestamp) -> Vec<Value> {
    let kind = text(object, "/spec/type");
    let balanced: Vec<&str> = items(object, "/status/loadBalancer/ingress")
        .iter()
        .map(|ingress| match text(ingress, "/ip") {
            "" => text(ingress, "/hostname"),
            ip => ip,
        })
        .collect();
    let mut external: Vec<&str> =
        items(object, "/spec/externalIPs").iter().filter_map(Value::as_str).collect();
    external.extend(balanced);
    let external = match (kind, external.is_empty()) {
        ("ExternalName", _) => text(object, "/spec/externalName").into(),
        ("LoadBalancer", true) => "<pending>".into(),
        _ => or_none(&external.join(",")),
    };
    let ports: Vec<String> = items(object, "/spec/ports")
        .iter()
        .map(|port| {
            let (number, protocol) = (int(port, "/port").unwrap_or(0), text(port, "/protocol"));
            match int(port, "/nodePort").filter(|node_port| *node_port > 0) {
                Some(node_port) => format!("{number}:{node_port}/{protocol}"),
                None => format!("{number}/{protocol}"),
            }
        })
        .collect();
    vec![
        name(object),
        kind.into(),
        or_none(text(object, "/spec/clusterIP")),
        external,
        or_none(&ports.join(",")),
        age(object, now),
        labels(object, "/spec/selector").into(),
    ]
}
