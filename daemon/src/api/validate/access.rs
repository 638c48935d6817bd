//! Roles and their bindings.

use super::Problems;
use crate::api::value::{is_set, items, text};
use serde_json::Value;

pub fn role(object: &Value, problems: &mut Problems) {
    rules(object, problems);
    for (i, rule) in items(object, "/rules").iter().enumerate() {
        if !items(rule, "/nonResourceURLs").is_empty() {
            let why = "namespaced rules cannot apply to non-resource URLs";
            let given = rule.get("nonResourceURLs").unwrap_or(&Value::Null);
            problems.invalid(&format!("rules[{i}].nonResourceURLs"), given, why);
        }
    }
}

pub fn cluster_role(object: &Value, problems: &mut Problems) {
    rules(object, problems);
    let selectors = items(object, "/aggregationRule/clusterRoleSelectors");
    if is_set(object, "/aggregationRule") && selectors.is_empty() {
        let why = "at least one clusterRoleSelector required if aggregationRule is non-nil";
        problems.required("aggregationRule.clusterRoleSelectors", why);
    }
}

fn rules(object: &Value, problems: &mut Problems) {
    for (i, rule) in items(object, "/rules").iter().enumerate() {
        let at = format!("rules[{i}]");
        let is_empty = |field: &str| items(rule, &format!("/{field}")).is_empty();
        if is_empty("verbs") {
            problems.required(&format!("{at}.verbs"), "verbs must contain at least one value");
        }
        if !is_empty("nonResourceURLs") {
            let of_resources = ["apiGroups", "resources", "resourceNames"];
            if of_resources.iter().any(|field| !is_empty(field)) {
                let given = rule.get("nonResourceURLs").unwrap_or(&Value::Null);
                let why = "rules cannot apply to both regular resources and non-resource URLs";
                problems.invalid(&format!("{at}.nonResourceURLs"), given, why);
            }
            continue;
        }
        if is_empty("apiGroups") {
            problems
                .required(&format!("{at}.apiGroups"), "resource rules must supply at least one api group");
        }
        if is_empty("resources") {
            problems.required(&format!("{at}.resources"), "resource rules must supply at least one resource");
        }
    }
}

pub fn binding(object: &Value, problems: &mut Problems) {
    bound(object, &["Role", "ClusterRole"], problems);
}

pub fn cluster_binding(object: &Value, problems: &mut Problems) {
    bound(object, &["ClusterRole"], problems);
}

fn bound(object: &Value, kinds: &[&str], problems: &mut Problems) {
    problems.one_of("roleRef.apiGroup", text(object, "/roleRef/apiGroup"), &["rbac.authorization.k8s.io"]);
    problems.one_of("roleRef.kind", text(object, "/roleRef/kind"), kinds);
    match text(object, "/roleRef/name") {
        "" => problems.required("roleRef.name", ""),
        name => problems.form("roleRef.name", name, super::path_segment),
    }
    for (i, subject) in items(object, "/subjects").iter().enumerate() {
        let at = format!("subjects[{i}]");
        let kind = text(subject, "/kind");
        problems.one_of(&format!("{at}.kind"), kind, &["ServiceAccount", "User", "Group"]);
        if text(subject, "/name").is_empty() {
            problems.required(&format!("{at}.name"), "");
        }
        let group = match kind {
            "ServiceAccount" => Some(""),
            "User" | "Group" => Some("rbac.authorization.k8s.io"),
            _ => None,
        };
        if let Some(group) = group {
            problems.one_of(&format!("{at}.apiGroup"), text(subject, "/apiGroup"), &[group]);
        }
        if kind == "ServiceAccount" && text(subject, "/namespace").is_empty() {
            problems.required(&format!("{at}.namespace"), "");
        }
    }
}

/// Whoever may bind a role could otherwise be given another one.
pub fn binding_update(new: &Value, old: &Value, problems: &mut Problems) {
    if new.get("roleRef") != old.get("roleRef") {
        let given = new.get("roleRef").unwrap_or(&Value::Null);
        problems.invalid("roleRef", given, "cannot change roleRef");
    }
}
