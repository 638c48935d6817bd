//! Volumes, claims and classes: of storage, and of runtimes.

use super::{Problems, metadata, names, quantity};
use crate::api::value::{is_set, items, text};
use serde_json::Value;

const ACCESS: [&str; 4] = ["ReadOnlyMany", "ReadWriteMany", "ReadWriteOnce", "ReadWriteOncePod"];
/// Fields of a volume's spec that are not where it is kept.
const NO_SOURCE: [&str; 9] = [
    "accessModes",
    "capacity",
    "claimRef",
    "mountOptions",
    "nodeAffinity",
    "persistentVolumeReclaimPolicy",
    "storageClassName",
    "volumeAttributesClassName",
    "volumeMode",
];

pub fn volume(object: &Value, problems: &mut Problems) {
    access("spec.accessModes", object, problems);
    match object.pointer("/spec/capacity/storage") {
        None => problems.required("spec.capacity", ""),
        Some(amount) => {
            quantity::check(problems, "spec.capacity[storage]", amount);
        }
    }
    let spec = object.get("spec").and_then(Value::as_object);
    let sources = spec
        .into_iter()
        .flatten()
        .filter(|(field, value)| !value.is_null() && !NO_SOURCE.contains(&field.as_str()));
    match sources.count() {
        0 => problems.required("spec", "must specify a volume type"),
        1 => {}
        _ => problems.forbidden("spec", "may not specify more than 1 volume type"),
    }
    let policy = text(object, "/spec/persistentVolumeReclaimPolicy");
    problems.one_of("spec.persistentVolumeReclaimPolicy", policy, &["Delete", "Recycle", "Retain"]);
    metadata::reference("spec.storageClassName", text(object, "/spec/storageClassName"), problems);
}

pub fn claim(object: &Value, problems: &mut Problems) {
    access("spec.accessModes", object, problems);
    match object.pointer("/spec/resources/requests/storage") {
        None => problems.required("spec.resources[storage]", ""),
        Some(amount) => {
            let field = "spec.resources[storage]";
            if quantity::check(problems, field, amount) == Some(0) {
                problems.invalid(field, amount, "must be greater than zero");
            }
        }
    }
    problems.one_of("spec.volumeMode", text(object, "/spec/volumeMode"), &["Block", "Filesystem"]);
    metadata::reference("spec.storageClassName", text(object, "/spec/storageClassName"), problems);
}

/// Of a claim only its size may change.
pub fn claim_update(new: &Value, old: &Value, problems: &mut Problems) {
    let fixed = |claim: &Value| {
        let mut spec = claim.get("spec").cloned().unwrap_or_default();
        for field in ["resources", "volumeName", "volumeAttributesClassName"] {
            crate::api::value::remove(&mut spec, field);
        }
        spec
    };
    if fixed(new) != fixed(old) {
        let why = "spec is immutable after creation except resources.requests and volumeAttributesClassName for bound \
                   claims";
        problems.forbidden("spec", why);
    }
}

fn access(field: &str, object: &Value, problems: &mut Problems) {
    let modes = items(object, "/spec/accessModes");
    if modes.is_empty() {
        problems.required(field, "at least 1 access mode is required");
    }
    for mode in modes.iter().filter_map(Value::as_str) {
        problems.one_of(field, mode, &ACCESS);
    }
}

pub fn class(object: &Value, problems: &mut Problems) {
    if text(object, "/provisioner").is_empty() {
        problems.required("provisioner", "");
    }
    problems.one_of("reclaimPolicy", text(object, "/reclaimPolicy"), &["Delete", "Retain"]);
    let mode = text(object, "/volumeBindingMode");
    problems.one_of("volumeBindingMode", mode, &["Immediate", "WaitForFirstConsumer"]);
}

pub fn class_update(new: &Value, old: &Value, problems: &mut Problems) {
    for field in ["provisioner", "parameters", "reclaimPolicy", "volumeBindingMode"] {
        if new.get(field) != old.get(field) {
            problems.forbidden(field, &format!("updates to {field} are forbidden."));
        }
    }
}

pub fn runtime_class(object: &Value, problems: &mut Problems) {
    match text(object, "/handler") {
        "" => problems.required("handler", ""),
        handler => problems.form("handler", handler, names::label),
    }
    if is_set(object, "/scheduling/nodeSelector") {
        metadata::labels("scheduling.nodeSelector", object, "/scheduling/nodeSelector", problems);
    }
}

pub fn runtime_class_update(new: &Value, old: &Value, problems: &mut Problems) {
    problems.same("handler", new.get("handler"), old.get("handler"));
}
