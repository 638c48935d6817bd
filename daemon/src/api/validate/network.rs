//! Ingresses, network policies and endpoints.

use super::{Problems, metadata, names};
use crate::api::value::{is_set, items, text};
use serde_json::Value;

pub fn ingress(object: &Value, problems: &mut Problems) {
    let rules = items(object, "/spec/rules");
    let default = object.pointer("/spec/defaultBackend").filter(|backend| !backend.is_null());
    if rules.is_empty() && default.is_none() {
        let spec = object.get("spec").unwrap_or(&Value::Null);
        problems.invalid("spec", spec, "either `defaultBackend` or `rules` must be specified");
    }
    if let Some(default) = default {
        backend("spec.defaultBackend", default, problems);
    }
    for (i, rule) in rules.iter().enumerate() {
        let at = format!("spec.rules[{i}]");
        let host = text(rule, "/host");
        if !host.is_empty() {
            problems.form(&format!("{at}.host"), host.strip_prefix("*.").unwrap_or(host), names::subdomain);
        }
        if is_set(rule, "/http") && items(rule, "/http/paths").is_empty() {
            problems.required(&format!("{at}.http.paths"), "");
        }
        for (j, path) in items(rule, "/http/paths").iter().enumerate() {
            let at = format!("{at}.http.paths[{j}]");
            match text(path, "/pathType") {
                "" => problems.required(&format!("{at}.pathType"), "pathType must be specified"),
                kind => {
                    let kinds = ["Exact", "ImplementationSpecific", "Prefix"];
                    problems.one_of(&format!("{at}.pathType"), kind, &kinds);
                }
            }
            let given = text(path, "/path");
            let free = text(path, "/pathType") == "ImplementationSpecific" && given.is_empty();
            if !free && !given.starts_with('/') {
                problems.invalid(&format!("{at}.path"), &given.into(), "must be an absolute path");
            }
            backend(&format!("{at}.backend"), path.get("backend").unwrap_or(&Value::Null), problems);
        }
    }
    metadata::reference("spec.ingressClassName", text(object, "/spec/ingressClassName"), problems);
}

fn backend(at: &str, backend: &Value, problems: &mut Problems) {
    match (is_set(backend, "/service"), is_set(backend, "/resource")) {
        (true, true) => {
            problems.invalid(at, &"".into(), "cannot set both resource and service backends");
        }
        (false, false) => problems.required(at, "resource or service backend is required"),
        (false, true) => {}
        (true, false) => {
            match text(backend, "/service/name") {
                "" => problems.required(&format!("{at}.service.name"), ""),
                name => problems.form(&format!("{at}.service.name"), name, names::label_1035),
            }
            let number = is_set(backend, "/service/port/number");
            if !number && text(backend, "/service/port/name").is_empty() {
                problems.required(&format!("{at}.service.port"), "port name or number is required");
            }
        }
    }
}

pub fn ingress_class(object: &Value, problems: &mut Problems) {
    if text(object, "/spec/controller").is_empty() {
        problems.required("spec.controller", "");
    }
}

pub fn policy(object: &Value, problems: &mut Problems) {
    let empty = Value::Object(serde_json::Map::new());
    let selector = object.pointer("/spec/podSelector").unwrap_or(&empty);
    metadata::label_selector("spec.podSelector", selector, problems);
    for (i, kind) in items(object, "/spec/policyTypes").iter().enumerate() {
        let kind = kind.as_str().unwrap_or_default();
        problems.one_of(&format!("spec.policyTypes[{i}]"), kind, &["Ingress", "Egress"]);
    }
    for (list, peers) in [("ingress", "from"), ("egress", "to")] {
        for (i, rule) in items(object, &format!("/spec/{list}")).iter().enumerate() {
            for (j, peer) in items(rule, &format!("/{peers}")).iter().enumerate() {
                let at = format!("spec.{list}[{i}].{peers}[{j}]");
                let set = ["podSelector", "namespaceSelector", "ipBlock"];
                let set = set.iter().filter(|field| is_set(peer, &format!("/{field}"))).count();
                match (set, is_set(peer, "/ipBlock")) {
                    (0, _) => problems.required(&at, "must specify a peer"),
                    (2.., true) => {
                        problems.forbidden(&at, "may not specify both ipBlock and another peer");
                    }
                    _ => {}
                }
            }
        }
    }
}

pub fn slice(object: &Value, problems: &mut Problems) {
    match text(object, "/addressType") {
        "" => problems.required("addressType", ""),
        kind => problems.one_of("addressType", kind, &["FQDN", "IPv4", "IPv6"]),
    }
    for (i, endpoint) in items(object, "/endpoints").iter().enumerate() {
        if items(endpoint, "/addresses").is_empty() {
            problems.required(&format!("endpoints[{i}].addresses"), "must contain at least 1 address");
        }
    }
}

pub fn slice_update(new: &Value, old: &Value, problems: &mut Problems) {
    problems.same("addressType", new.get("addressType"), old.get("addressType"));
}
