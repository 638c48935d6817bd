//! Defaults of a pod's specification, wherever it stands.

use crate::api::value::{as_map, child, default_to, items_mut, set, text};
use serde_json::{Value, json};

/// File modes of mounted ConfigMaps and Secrets: 0644.
const MODE: i32 = 0o644;

pub(super) fn spec(spec: &mut Value) {
    default_to(spec, "restartPolicy", "Always");
    default_to(spec, "dnsPolicy", "ClusterFirst");
    default_to(spec, "terminationGracePeriodSeconds", 30);
    default_to(spec, "schedulerName", "default-scheduler");
    child(spec, "securityContext");
    let host_network = spec.get("hostNetwork") == Some(&Value::Bool(true));
    for list in ["initContainers", "containers"] {
        for container in items_mut(spec, list) {
            container_(container, host_network);
        }
    }
    for container in items_mut(spec, "ephemeralContainers") {
        // Without ports, probes or requests, of which it has none.
        container_basics(container);
    }
    for volume in items_mut(spec, "volumes") {
        volume_(volume);
    }
}

fn container_basics(container: &mut Value) {
    let policy = pull_policy(text(container, "/image"));
    default_to(container, "imagePullPolicy", policy);
    default_to(container, "terminationMessagePath", "/dev/termination-log");
    default_to(container, "terminationMessagePolicy", "File");
    for env in items_mut(container, "env") {
        if let Some(field) = env.pointer_mut("/valueFrom/fieldRef") {
            default_to(field, "apiVersion", "v1");
        }
    }
}

fn container_(container: &mut Value, host_network: bool) {
    container_basics(container);
    for port in items_mut(container, "ports") {
        default_to(port, "protocol", "TCP");
        if host_network {
            let number = port.get("containerPort").cloned().unwrap_or_default();
            default_to(port, "hostPort", number);
        }
    }
    requests_from_limits(child(container, "resources"));
    for probe in ["livenessProbe", "readinessProbe", "startupProbe"] {
        if let Some(probe) = container.get_mut(probe).filter(|probe| probe.is_object()) {
            probe_(probe);
        }
    }
    for hook in ["/lifecycle/postStart/httpGet", "/lifecycle/preStop/httpGet"] {
        if let Some(get) = container.pointer_mut(hook) {
            http_get(get);
        }
    }
}

/// What is limited and has no request of its own requests its limit.
fn requests_from_limits(resources: &mut Value) {
    let Some(limits) = resources.get("limits").and_then(Value::as_object).cloned() else { return };
    if limits.is_empty() {
        return;
    }
    let requests = as_map(child(resources, "requests"));
    for (resource, limit) in limits {
        requests.entry(resource).or_insert(limit);
    }
}

fn probe_(probe: &mut Value) {
    for (field, default) in
        [("timeoutSeconds", 1), ("periodSeconds", 10), ("successThreshold", 1), ("failureThreshold", 3)]
    {
        // Zero is what a Go client sends for a field that nobody set.
        if probe.get(field).and_then(Value::as_i64).unwrap_or(0) == 0 {
            set(probe, field, default);
        }
    }
    if let Some(get) = probe.get_mut("httpGet").filter(|get| get.is_object()) {
        http_get(get);
    }
    if let Some(grpc) = probe.get_mut("grpc").filter(|grpc| grpc.is_object()) {
        as_map(grpc).entry("service").or_insert_with(|| json!(""));
    }
}

fn http_get(get: &mut Value) {
    default_to(get, "path", "/");
    default_to(get, "scheme", "HTTP");
}

fn volume_(volume: &mut Value) {
    if as_map(volume).iter().all(|(field, value)| field == "name" || value.is_null()) {
        set(volume, "emptyDir", json!({}));
    }
    for source in ["secret", "configMap", "projected", "downwardAPI"] {
        if let Some(source) = volume.get_mut(source).filter(|source| source.is_object()) {
            default_to(source, "defaultMode", MODE);
        }
    }
    if let Some(path) = volume.get_mut("hostPath").filter(|path| path.is_object()) {
        as_map(path).entry("type").or_insert_with(|| json!(""));
    }
    if let Some(downward) = volume.get_mut("downwardAPI") {
        field_refs(downward);
    }
    if let Some(projected) = volume.get_mut("projected") {
        for source in items_mut(projected, "sources") {
            if let Some(downward) = source.get_mut("downwardAPI") {
                field_refs(downward);
            }
            if let Some(token) = source.get_mut("serviceAccountToken").filter(|token| token.is_object()) {
                default_to(token, "expirationSeconds", 3600);
            }
        }
    }
}

fn field_refs(downward: &mut Value) {
    for item in items_mut(downward, "items") {
        if let Some(field) = item.get_mut("fieldRef").filter(|field| field.is_object()) {
            default_to(field, "apiVersion", "v1");
        }
    }
}

/// An image that names no tag, or `latest`, may be another one tomorrow.
fn pull_policy(image: &str) -> &'static str {
    let last = image.rsplit('/').next().unwrap_or_default();
    let changing = !image.contains('@') && last.rsplit_once(':').is_none_or(|(_, tag)| tag == "latest");
    if changing { "Always" } else { "IfNotPresent" }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pull_policy_follows_the_tag() {
        for (image, policy) in [
            ("busybox", "Always"),
            ("busybox:latest", "Always"),
            ("busybox:1.36", "IfNotPresent"),
            ("registry:5000/busybox", "Always"),
            ("registry:5000/busybox:1", "IfNotPresent"),
            ("busybox@sha256:00", "IfNotPresent"),
        ] {
            assert_eq!(pull_policy(image), policy, "{image}");
        }
    }
}
