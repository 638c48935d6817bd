//! Metadata, which all kinds have in common.

use super::{Problems, label_value, qualified_name, subdomain};
use crate::api::kinds::Kind;
use crate::api::value::{flag, items, pairs, text};
use serde_json::Value;
use std::collections::BTreeSet;

/// All annotations of an object together, in bytes.
const ANNOTATION_BYTES: usize = 256 * 1024;

/// Checks the metadata of an object that is to be stored.
pub fn check(kind: &Kind, object: &Value, problems: &mut Problems) {
    let name = text(object, "/metadata/name");
    if name.is_empty() {
        problems.required("metadata.name", "name or generateName is required");
    } else {
        problems.form("metadata.name", name, |name| kind.check_name(name));
    }
    labels("metadata.labels", object, "/metadata/labels", problems);
    annotations("metadata.annotations", object, "/metadata/annotations", problems);
    for (i, finalizer) in items(object, "/metadata/finalizers").iter().enumerate() {
        let finalizer = finalizer.as_str().unwrap_or_default();
        problems.form(&format!("metadata.finalizers[{i}]"), finalizer, qualified_name);
    }
    owners(object, problems);
}

pub(super) fn labels(field: &str, object: &Value, pointer: &str, problems: &mut Problems) {
    for (key, value) in pairs(object, pointer) {
        problems.form(field, key, qualified_name);
        problems.form(field, value, label_value);
    }
}

pub(super) fn annotations(field: &str, object: &Value, pointer: &str, problems: &mut Problems) {
    let mut bytes = 0;
    for (key, value) in pairs(object, pointer) {
        problems.form(field, &key.to_lowercase(), qualified_name);
        bytes += key.len() + value.len();
    }
    if bytes > ANNOTATION_BYTES {
        problems.add(
            "FieldValueTooLong",
            field,
            format!("Too long: may not be more than {ANNOTATION_BYTES} bytes"),
        );
    }
}

fn owners(object: &Value, problems: &mut Problems) {
    let mut controllers = 0;
    for (i, owner) in items(object, "/metadata/ownerReferences").iter().enumerate() {
        let field = format!("metadata.ownerReferences[{i}]");
        for part in ["apiVersion", "kind", "name", "uid"] {
            if text(owner, &format!("/{part}")).is_empty() {
                problems.required(&format!("{field}.{part}"), "must not be empty");
            }
        }
        controllers += usize::from(flag(owner, "/controller"));
    }
    if controllers > 1 {
        let owners = object.pointer("/metadata/ownerReferences").unwrap_or(&Value::Null);
        problems.invalid(
            "metadata.ownerReferences",
            owners,
            "Only one reference can have Controller set to true",
        );
    }
}

/// Checks what an update may not change in metadata.
pub fn check_update(new: &Value, old: &Value, problems: &mut Problems) {
    if old.pointer("/metadata/deletionTimestamp").is_some() {
        let before: BTreeSet<_> =
            items(old, "/metadata/finalizers").iter().filter_map(Value::as_str).collect();
        let added = items(new, "/metadata/finalizers")
            .iter()
            .filter_map(Value::as_str)
            .find(|finalizer| !before.contains(finalizer));
        if let Some(added) = added {
            let why = format!(
                "no new finalizers can be added if the object is being deleted, found new: {added:?}"
            );
            problems.forbidden("metadata.finalizers", &why);
        }
    }
}

/// The prefix of generated names.
pub fn check_generate_name(kind: &Kind, prefix: &str, problems: &mut Problems) {
    // The prefix may end in a dash, as what follows is a letter or digit.
    problems.form("metadata.generateName", &format!("{}x", prefix), |name| kind.check_name(name));
}

/// A label selector (`matchLabels`, `matchExpressions`).
pub(super) fn label_selector(field: &str, selector: &Value, problems: &mut Problems) {
    labels(&format!("{field}.matchLabels"), selector, "/matchLabels", problems);
    for (i, expression) in items(selector, "/matchExpressions").iter().enumerate() {
        let field = format!("{field}.matchExpressions[{i}]");
        problems.form(&format!("{field}.key"), text(expression, "/key"), qualified_name);
        let (operator, values) = (text(expression, "/operator"), items(expression, "/values"));
        match operator {
            "In" | "NotIn" if values.is_empty() => problems
                .required(&format!("{field}.values"), "must be specified when `operator` is 'In' or 'NotIn'"),
            "Exists" | "DoesNotExist" if !values.is_empty() => problems.forbidden(
                &format!("{field}.values"),
                "may not be specified when `operator` is 'Exists' or 'DoesNotExist'",
            ),
            "In" | "NotIn" | "Exists" | "DoesNotExist" => {}
            other => {
                problems.invalid(&format!("{field}.operator"), &other.into(), "not a valid selector operator")
            }
        }
    }
}

/// Whether a label selector selects these labels.
pub(super) fn selects(selector: &Value, labels: &Value) -> bool {
    let label = |key: &str| labels.get(key).and_then(Value::as_str);
    pairs(selector, "/matchLabels").all(|(key, value)| label(key) == Some(value))
        && items(selector, "/matchExpressions").iter().all(|expression| {
            let value = label(text(expression, "/key"));
            let listed = || items(expression, "/values").iter().any(|wanted| wanted.as_str() == value);
            match text(expression, "/operator") {
                "In" => value.is_some() && listed(),
                "NotIn" => value.is_none() || !listed(),
                "Exists" => value.is_some(),
                _ => value.is_none(),
            }
        })
}

/// The namespace of a namespaced object.
pub fn check_namespace(namespace: &str, problems: &mut Problems) {
    problems.form("metadata.namespace", namespace, super::label);
}

/// The name of a subdomain-shaped reference, such as a service account's.
pub(super) fn reference(field: &str, name: &str, problems: &mut Problems) {
    if !name.is_empty() {
        problems.form(field, name, subdomain);
    }
}
