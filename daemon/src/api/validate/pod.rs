//! Pods, and the pod templates of workloads.

use super::{Problems, metadata, names, quantity, volume};
use crate::api::value::{flag, int, is_set, items, text};
use serde_json::Value;
use std::collections::BTreeSet;

pub fn pod(object: &Value, problems: &mut Problems) {
    spec("spec", object.get("spec").unwrap_or(&Value::Null), problems);
    let policy = text(object, "/spec/restartPolicy");
    problems.one_of("spec.restartPolicy", policy, &["Always", "Never", "OnFailure"]);
}

/// A specification at `at`; the restart policy is the workload's concern.
pub(super) fn spec(at: &str, spec: &Value, problems: &mut Problems) {
    let volumes = volume::check(&format!("{at}.volumes"), spec, problems);
    let containers = items(spec, "/containers");
    if containers.is_empty() {
        problems.required(&format!("{at}.containers"), "");
    }
    let mut seen = BTreeSet::new();
    for list in ["initContainers", "containers"] {
        for (i, one) in items(spec, &format!("/{list}")).iter().enumerate() {
            let field = format!("{at}.{list}[{i}]");
            let name = text(one, "/name");
            if !name.is_empty() && !seen.insert(name) {
                problems.duplicate(&format!("{field}.name"), name);
            }
            container(&field, one, &volumes, problems);
        }
    }
    if at != "spec" && !items(spec, "/ephemeralContainers").is_empty() {
        let why = "ephemeral containers not allowed in pod template";
        problems.forbidden(&format!("{at}.ephemeralContainers"), why);
    }
    for (i, one) in items(spec, "/ephemeralContainers").iter().enumerate() {
        let field = format!("{at}.ephemeralContainers[{i}]");
        let (name, target) = (text(one, "/name"), text(one, "/targetContainerName"));
        if !name.is_empty() && !seen.insert(name) {
            problems.duplicate(&format!("{field}.name"), name);
        }
        let has_target = ["/initContainers", "/containers"]
            .iter()
            .any(|list| items(spec, list).iter().any(|container| text(container, "/name") == target));
        if !target.is_empty() && !has_target {
            problems.unknown(&format!("{field}.targetContainerName"), target);
        }
        ephemeral_container(&field, one, &volumes, problems);
    }
    let dns = text(spec, "/dnsPolicy");
    problems.one_of(
        &format!("{at}.dnsPolicy"),
        dns,
        &["ClusterFirst", "ClusterFirstWithHostNet", "Default", "None"],
    );
    let grace = spec.get("terminationGracePeriodSeconds");
    problems.not_negative(&format!("{at}.terminationGracePeriodSeconds"), grace);
    if let Some(deadline) = int(spec, "/activeDeadlineSeconds").filter(|seconds| *seconds < 1) {
        let why = "must be between 1 and 2147483647, inclusive";
        problems.invalid(&format!("{at}.activeDeadlineSeconds"), &deadline.into(), why);
    }
    metadata::labels(&format!("{at}.nodeSelector"), spec, "/nodeSelector", problems);
    metadata::reference(&format!("{at}.nodeName"), text(spec, "/nodeName"), problems);
    metadata::reference(&format!("{at}.serviceAccountName"), text(spec, "/serviceAccountName"), problems);
    for host in ["hostname", "subdomain"] {
        if is_set(spec, &format!("/{host}")) && !text(spec, &format!("/{host}")).is_empty() {
            problems.form(&format!("{at}.{host}"), text(spec, &format!("/{host}")), names::label);
        }
    }
    tolerations(&format!("{at}.tolerations"), spec, problems);
}

fn container(field: &str, one: &Value, volumes: &BTreeSet<&str>, problems: &mut Problems) {
    match text(one, "/name") {
        "" => problems.required(&format!("{field}.name"), ""),
        name => problems.form(&format!("{field}.name"), name, names::label),
    }
    match text(one, "/image") {
        "" => problems.required(&format!("{field}.image"), ""),
        image if image.trim() != image => problems.invalid(
            &format!("{field}.image"),
            &image.into(),
            "must not have leading or trailing whitespace",
        ),
        _ => {}
    }
    let policy = text(one, "/imagePullPolicy");
    problems.one_of(&format!("{field}.imagePullPolicy"), policy, &["Always", "IfNotPresent", "Never"]);
    let message = text(one, "/terminationMessagePolicy");
    let policies = ["FallbackToLogsOnError", "File"];
    problems.one_of(&format!("{field}.terminationMessagePolicy"), message, &policies);
    ports(field, one, problems);
    env(field, one, problems);
    resources(&format!("{field}.resources"), one, problems);
    let mut mounted = BTreeSet::new();
    for (i, mount) in items(one, "/volumeMounts").iter().enumerate() {
        let field = format!("{field}.volumeMounts[{i}]");
        match text(mount, "/name") {
            "" => problems.required(&format!("{field}.name"), ""),
            name if !volumes.contains(name) => problems.unknown(&format!("{field}.name"), name),
            _ => {}
        }
        match text(mount, "/mountPath") {
            "" => problems.required(&format!("{field}.mountPath"), ""),
            path if !mounted.insert(path) => {
                problems.invalid(&format!("{field}.mountPath"), &path.into(), "must be unique");
            }
            _ => {}
        }
        let inside = text(mount, "/subPath");
        if inside.starts_with('/') {
            problems.invalid(&format!("{field}.subPath"), &inside.into(), "must be a relative path");
        } else if inside.split('/').any(|part| part == "..") {
            problems.invalid(&format!("{field}.subPath"), &inside.into(), "must not contain '..'");
        }
    }
    for probe in ["livenessProbe", "readinessProbe", "startupProbe"] {
        if let Some(probe_) = one.get(probe).filter(|probe| !probe.is_null()) {
            check_probe(&format!("{field}.{probe}"), probe, probe_, problems);
        }
    }
}

/// What a container that is added to a running pod cannot have: the pod's place and its network were chosen without it, and
/// it is never started again.
const NOT_EPHEMERAL: &[&str] = &[
    "lifecycle",
    "livenessProbe",
    "ports",
    "readinessProbe",
    "resizePolicy",
    "resources",
    "restartPolicy",
    "startupProbe",
];

fn ephemeral_container(field: &str, one: &Value, volumes: &BTreeSet<&str>, problems: &mut Problems) {
    const WHY: &str = "cannot be set for an Ephemeral Container";
    container(field, one, volumes, problems);
    for forbidden in NOT_EPHEMERAL {
        if one.get(*forbidden).is_some_and(|value| !is_empty(value)) {
            problems.forbidden(&format!("{field}.{forbidden}"), WHY);
        }
    }
    for (i, mount) in items(one, "/volumeMounts").iter().enumerate() {
        for part in ["subPath", "subPathExpr"] {
            if !text(mount, &format!("/{part}")).is_empty() {
                problems.forbidden(&format!("{field}.volumeMounts[{i}].{part}"), WHY);
            }
        }
    }
}

fn is_empty(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::String(text) => text.is_empty(),
        Value::Array(items) => items.is_empty(),
        Value::Object(fields) => fields.is_empty(),
        Value::Bool(_) | Value::Number(_) => false,
    }
}

fn check_probe(field: &str, which: &str, probe: &Value, problems: &mut Problems) {
    let handlers = ["exec", "httpGet", "tcpSocket", "grpc"];
    let set = handlers.iter().filter(|handler| is_set(probe, &format!("/{handler}"))).count();
    match set {
        0 => problems.required(field, "must specify a handler type"),
        1 => {}
        _ => problems.forbidden(field, "may not specify more than 1 handler type"),
    }
    if is_set(probe, "/exec") && items(probe, "/exec/command").is_empty() {
        problems.required(&format!("{field}.exec.command"), "");
    }
    for handler in ["httpGet", "tcpSocket", "grpc"] {
        if let Some(port) = int(probe, &format!("/{handler}/port")) {
            port_number(&format!("{field}.{handler}.port"), port, problems);
        }
    }
    for number in ["initialDelaySeconds", "timeoutSeconds", "periodSeconds", "failureThreshold"] {
        problems.not_negative(&format!("{field}.{number}"), probe.get(number));
    }
    let successes = probe.get("successThreshold").unwrap_or(&Value::Null);
    if which != "readinessProbe" && successes.as_i64().is_some_and(|number| number != 1) {
        problems.invalid(&format!("{field}.successThreshold"), successes, "must be 1");
    }
}

/// A port that must be there.
pub(super) fn port_number(field: &str, number: i64, problems: &mut Problems) {
    if !(1..=65535).contains(&number) {
        problems.invalid(field, &number.into(), "must be between 1 and 65535, inclusive");
    }
}

fn ports(field: &str, container: &Value, problems: &mut Problems) {
    let mut names_seen = BTreeSet::new();
    for (i, port) in items(container, "/ports").iter().enumerate() {
        let field = format!("{field}.ports[{i}]");
        let name = text(port, "/name");
        if !name.is_empty() {
            if name.len() > 15 {
                problems.invalid(
                    &format!("{field}.name"),
                    &name.into(),
                    "must be no more than 15 characters",
                );
            } else {
                problems.form(&format!("{field}.name"), name, names::label);
            }
            if !names_seen.insert(name) {
                problems.duplicate(&format!("{field}.name"), name);
            }
        }
        match int(port, "/containerPort").unwrap_or(0) {
            0 => problems.required(&format!("{field}.containerPort"), ""),
            number => port_number(&format!("{field}.containerPort"), number, problems),
        }
        if let Some(number) = int(port, "/hostPort").filter(|number| *number != 0) {
            port_number(&format!("{field}.hostPort"), number, problems);
        }
        let protocol = text(port, "/protocol");
        problems.one_of(&format!("{field}.protocol"), protocol, &["SCTP", "TCP", "UDP"]);
    }
}

fn env(field: &str, container: &Value, problems: &mut Problems) {
    for (i, variable) in items(container, "/env").iter().enumerate() {
        let field = format!("{field}.env[{i}]");
        match text(variable, "/name") {
            "" => problems.required(&format!("{field}.name"), ""),
            name => problems.form(&format!("{field}.name"), name, names::env_name),
        }
        let Some(source) = variable.get("valueFrom").and_then(Value::as_object) else { continue };
        let field = format!("{field}.valueFrom");
        if !text(variable, "/value").is_empty() {
            problems.invalid(&field, &"".into(), "may not be specified when `value` is not empty");
        }
        if source.values().filter(|source| !source.is_null()).count() != 1 {
            let why =
                "must specify one of: `fieldRef`, `resourceFieldRef`, `configMapKeyRef` or `secretKeyRef`";
            problems.invalid(&field, &"".into(), why);
        }
        for (reference, part) in
            [("configMapKeyRef", "key"), ("secretKeyRef", "key"), ("fieldRef", "fieldPath")]
        {
            let wanted = source.get(reference).is_some_and(|reference| !reference.is_null());
            if wanted && text(variable, &format!("/valueFrom/{reference}/{part}")).is_empty() {
                problems.required(&format!("{field}.{reference}.{part}"), "");
            }
        }
    }
}

fn resources(field: &str, container: &Value, problems: &mut Problems) {
    let amounts = |of: &str| container.pointer(&format!("/resources/{of}")).and_then(Value::as_object);
    for (resource, limit) in amounts("limits").into_iter().flatten() {
        quantity::check(problems, &format!("{field}.limits[{resource}]"), limit);
    }
    for (resource, request) in amounts("requests").into_iter().flatten() {
        let field = format!("{field}.requests");
        let Some(amount) = quantity::check(problems, &format!("{field}[{resource}]"), request) else {
            continue;
        };
        let limit = amounts("limits").and_then(|limits| limits.get(resource)?.as_str());
        let limit = limit.and_then(|text| Some((text, quantity::milli(text)?)));
        if let Some((limit, _)) = limit.filter(|(_, most)| amount > *most) {
            let why = format!("must be less than or equal to {resource} limit of {limit}");
            problems.invalid(&field, request, &why);
        }
    }
}

fn tolerations(field: &str, spec: &Value, problems: &mut Problems) {
    for (i, toleration) in items(spec, "/tolerations").iter().enumerate() {
        let field = format!("{field}[{i}]");
        let (key, operator) = (text(toleration, "/key"), text(toleration, "/operator"));
        if !key.is_empty() {
            problems.form(&format!("{field}.key"), key, names::qualified_name);
        } else if operator != "Exists" {
            let why =
                "operator must be Exists when `key` is empty, which means \"match all values and all keys\"";
            problems.invalid(&format!("{field}.operator"), &operator.into(), why);
        }
        problems.one_of(&format!("{field}.operator"), operator, &["", "Equal", "Exists"]);
        let effects = ["", "NoExecute", "NoSchedule", "PreferNoSchedule"];
        problems.one_of(&format!("{field}.effect"), text(toleration, "/effect"), &effects);
    }
}

/// Ephemeral containers are added to a pod that is there.
pub fn create(object: &Value, problems: &mut Problems) {
    if !items(object, "/spec/ephemeralContainers").is_empty() {
        problems.forbidden("spec.ephemeralContainers", "cannot be set on create");
    }
}

/// An ephemeral container stays as it was made, for as long as its pod.
pub fn ephemeral_update(new: &Value, old: &Value, problems: &mut Problems) {
    const FIELD: &str = "spec.ephemeralContainers";
    for before in items(old, "/spec/ephemeralContainers") {
        let name = text(before, "/name");
        let now = items(new, "/spec/ephemeralContainers").iter().find(|one| text(one, "/name") == name);
        match now {
            None => {
                problems.forbidden(
                    FIELD,
                    &format!("existing ephemeral containers {name:?} may not be removed\n"),
                );
            }
            Some(now) if now != before => {
                problems.forbidden(
                    FIELD,
                    &format!("existing ephemeral containers {name:?} may not be changed\n"),
                );
            }
            Some(_) => {}
        }
    }
}

/// A pod runs what it was made with: only images, deadlines and added tolerations may change.
pub fn update(new: &Value, old: &Value, problems: &mut Problems) {
    let fixed = |pod: &Value| {
        let mut spec = pod.get("spec").cloned().unwrap_or_default();
        for list in ["containers", "initContainers"] {
            for container in crate::api::value::items_mut(&mut spec, list) {
                crate::api::value::remove(container, "image");
                // Follows the image's tag where it was not given.
                crate::api::value::remove(container, "imagePullPolicy");
            }
        }
        for field in ["activeDeadlineSeconds", "tolerations", "terminationGracePeriodSeconds"] {
            crate::api::value::remove(&mut spec, field);
        }
        spec
    };
    let kept = |pod: &Value, toleration: &Value| items(pod, "/spec/tolerations").contains(toleration);
    let tolerated = items(old, "/spec/tolerations").iter().all(|toleration| kept(new, toleration));
    if fixed(new) != fixed(old)
        || !tolerated
        || flag(new, "/spec/hostNetwork") != flag(old, "/spec/hostNetwork")
    {
        problems.forbidden(
            "spec",
            "pod updates may not change fields other than `spec.containers[*].image`,\
             `spec.initContainers[*].image`,`spec.activeDeadlineSeconds`,`spec.tolerations` (only additions to \
             existing tolerations),`spec.terminationGracePeriodSeconds` (allow it to be set to 1 if it was \
             previously negative)",
        );
    }
}
