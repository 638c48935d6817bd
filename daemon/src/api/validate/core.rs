//! ConfigMaps, Secrets, Services and Nodes.

use super::{Problems, names};
use crate::api::value::{flag, int, is_set, items, pairs, text};
use base64::Engine;
use serde_json::Value;
use std::collections::BTreeSet;

/// What one ConfigMap or Secret may hold, in bytes.
const DATA_BYTES: usize = 1024 * 1024;

pub fn config_map(object: &Value, problems: &mut Problems) {
    data(object, "binaryData", problems);
    for (key, _) in pairs(object, "/binaryData") {
        if object.pointer("/data").and_then(|data| data.get(key)).is_some() {
            problems.invalid(&format!("data[{key}]"), &key.into(), "duplicate of key present in binaryData");
        }
    }
    data(object, "data", problems);
}

pub fn secret(object: &Value, problems: &mut Problems) {
    data(object, "data", problems);
    for (key, value) in pairs(object, "/data") {
        if base64::engine::general_purpose::STANDARD.decode(value).is_err() {
            // The value is a secret: it is not repeated.
            problems.invalid(&format!("data[{key}]"), &"<redacted>".into(), "illegal base64 data");
        }
    }
    of_type(object, problems);
}

/// What a Secret of a known type must hold: kubernetes.io/docs/concepts/configuration/secret/#secret-types.
fn of_type(object: &Value, problems: &mut Problems) {
    let value = |key: &str| object.get("data").and_then(|data| data.get(key)).and_then(Value::as_str);
    let mut required = |keys: &[&str]| {
        for key in keys.iter().filter(|key| value(key).is_none()) {
            problems.required(&format!("data[{key}]"), "");
        }
    };
    match text(object, "/type") {
        "kubernetes.io/basic-auth" if value("username").is_none() && value("password").is_none() => {
            required(&["username", "password"]);
        }
        "kubernetes.io/ssh-auth" if value("ssh-privatekey").is_none_or(str::is_empty) => {
            problems.required("data[ssh-privatekey]", "");
        }
        "kubernetes.io/tls" => required(&["tls.crt", "tls.key"]),
        "kubernetes.io/dockercfg" => registries(value(".dockercfg"), ".dockercfg", problems),
        "kubernetes.io/dockerconfigjson" => {
            registries(value(".dockerconfigjson"), ".dockerconfigjson", problems);
        }
        "kubernetes.io/service-account-token" => {
            let account = "kubernetes.io/service-account.name";
            let of = object.pointer("/metadata/annotations").and_then(|all| all.get(account));
            if of.and_then(Value::as_str).is_none_or(str::is_empty) {
                problems.required(&format!("metadata.annotations[{account}]"), "");
            }
        }
        _ => {}
    }
}

/// Registries and their keys: a JSON object.
fn registries(value: Option<&str>, key: &str, problems: &mut Problems) {
    let field = format!("data[{key}]");
    let Some(value) = value else {
        problems.required(&field, "");
        return;
    };
    // What is no base64 has been told of.
    let Ok(bytes) = base64::engine::general_purpose::STANDARD.decode(value) else { return };
    if let Err(error) = serde_json::from_slice::<serde_json::Map<String, Value>>(&bytes) {
        // Where it goes wrong, and nothing of what stands there.
        let why = format!("no JSON object: line {}, column {}", error.line(), error.column());
        problems.invalid(&field, &"<secret contents redacted>".into(), &why);
    }
}

fn data(object: &Value, list: &str, problems: &mut Problems) {
    let mut bytes = 0;
    for (key, value) in pairs(object, &format!("/{list}")) {
        problems.form(&format!("{list}[{key}]"), key, names::data_key);
        bytes += key.len() + value.len();
    }
    if bytes > DATA_BYTES * 4 / 3 {
        problems.add(
            "FieldValueTooLong",
            "data",
            format!("Too long: may not be more than {DATA_BYTES} bytes"),
        );
    }
}

/// What was declared immutable stays so, and as it is.
pub fn immutable_data(new: &Value, old: &Value, problems: &mut Problems) {
    if flag(old, "/immutable") {
        if !flag(new, "/immutable") {
            problems.forbidden("immutable", "field is immutable when `immutable` is set");
        }
        for field in ["data", "binaryData"] {
            if new.get(field) != old.get(field) {
                problems.forbidden(field, "field is immutable when `immutable` is set");
            }
        }
    }
    if new.get("type") != old.get("type") {
        problems.same("type", new.get("type"), old.get("type"));
    }
}

pub fn service(object: &Value, problems: &mut Problems) {
    let kind = text(object, "/spec/type");
    problems.one_of("spec.type", kind, &["ClusterIP", "ExternalName", "LoadBalancer", "NodePort"]);
    let ports = items(object, "/spec/ports");
    let headless = text(object, "/spec/clusterIP") == "None";
    if ports.is_empty() && kind != "ExternalName" && !headless {
        problems.required("spec.ports", "");
    }
    if kind == "ExternalName" && text(object, "/spec/externalName").is_empty() {
        problems.required("spec.externalName", "");
    }
    super::metadata::labels("spec.selector", object, "/spec/selector", problems);
    families(object, problems);
    problems.one_of("spec.sessionAffinity", text(object, "/spec/sessionAffinity"), &["ClientIP", "None"]);
    let (mut seen_names, mut seen) = (BTreeSet::new(), BTreeSet::new());
    for (i, port) in ports.iter().enumerate() {
        let field = format!("spec.ports[{i}]");
        let name = text(port, "/name");
        if name.is_empty() && ports.len() > 1 {
            problems.required(&format!("{field}.name"), "");
        } else if !name.is_empty() {
            problems.form(&format!("{field}.name"), name, names::label);
            if !seen_names.insert(name) {
                problems.duplicate(&format!("{field}.name"), name);
            }
        }
        let number = int(port, "/port").unwrap_or(0);
        super::pod::port_number(&format!("{field}.port"), number, problems);
        if let Some(target) = int(port, "/targetPort") {
            super::pod::port_number(&format!("{field}.targetPort"), target, problems);
        }
        let protocol = text(port, "/protocol");
        problems.one_of(&format!("{field}.protocol"), protocol, &["SCTP", "TCP", "UDP"]);
        if !seen.insert((protocol, number)) {
            problems.duplicate(&field, &format!("{protocol}/{number}"));
        }
    }
}

/// Addresses are of one family here: kubernetes.io/docs/concepts/services-networking/dual-stack says what a cluster
/// without the other one refuses.
fn families(object: &Value, problems: &mut Problems) {
    let policy = text(object, "/spec/ipFamilyPolicy");
    match policy {
        "" => {}
        "RequireDualStack" => {
            let why = "this cluster is not configured for dual-stack services";
            problems.invalid("spec.ipFamilyPolicy", &policy.into(), why);
        }
        policy => {
            let policies = ["PreferDualStack", "RequireDualStack", "SingleStack"];
            problems.one_of("spec.ipFamilyPolicy", policy, &policies);
        }
    }
    for (i, family) in items(object, "/spec/ipFamilies").iter().enumerate() {
        let field = format!("spec.ipFamilies[{i}]");
        match family.as_str().unwrap_or_default() {
            "IPv4" if i > 0 => problems.duplicate(&field, "IPv4"),
            "IPv4" => {}
            "IPv6" => problems.invalid(&field, family, "not configured on this cluster"),
            other => problems.unsupported(&field, other, &["IPv4", "IPv6"]),
        }
    }
}

pub fn node(object: &Value, problems: &mut Problems) {
    let mut seen = BTreeSet::new();
    for (i, taint) in items(object, "/spec/taints").iter().enumerate() {
        let field = format!("spec.taints[{i}]");
        let (key, effect) = (text(taint, "/key"), text(taint, "/effect"));
        problems.form(&format!("{field}.key"), key, names::qualified_name);
        problems.form(&format!("{field}.value"), text(taint, "/value"), names::label_value);
        let effects = ["NoExecute", "NoSchedule", "PreferNoSchedule"];
        problems.one_of(&format!("{field}.effect"), effect, &effects);
        if !seen.insert((key, effect)) {
            problems.duplicate(&field, &format!("{key}:{effect}"));
        }
    }
    if is_set(object, "/spec/podCIDR") && text(object, "/spec/podCIDR").is_empty() {
        problems.required("spec.podCIDR", "");
    }
}
