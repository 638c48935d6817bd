//! Volumes, claims and classes: of storage, and of runtimes.

use super::{Column, age, column, name, name_column, wide};
use crate::api::value::{flag, items, text};
use k8s_openapi::jiff::Timestamp;
use serde_json::Value;

const DEFAULT_CLASS: &str = "storageclass.kubernetes.io/is-default-class";

pub const VOLUME: &[Column] = &[
    name_column(),
    column("Capacity"),
    column("Access Modes"),
    column("Reclaim Policy"),
    column("Status"),
    column("Claim"),
    column("StorageClass"),
    column("VolumeAttributesClass"),
    column("Reason"),
    column("Age"),
    wide("VolumeMode"),
];

pub fn volume(object: &Value, now: Timestamp) -> Vec<Value> {
    let claim = match text(object, "/spec/claimRef/name") {
        "" => String::new(),
        name => format!("{}/{name}", text(object, "/spec/claimRef/namespace")),
    };
    vec![
        name(object),
        text(object, "/spec/capacity/storage").into(),
        modes(object, "/spec/accessModes").into(),
        text(object, "/spec/persistentVolumeReclaimPolicy").into(),
        status(object),
        claim.into(),
        text(object, "/spec/storageClassName").into(),
        or_unset(text(object, "/spec/volumeAttributesClassName")),
        text(object, "/status/reason").into(),
        age(object, now),
        or_unset(text(object, "/spec/volumeMode")),
    ]
}

pub const CLAIM: &[Column] = &[
    name_column(),
    column("Status"),
    column("Volume"),
    column("Capacity"),
    column("Access Modes"),
    column("StorageClass"),
    column("VolumeAttributesClass"),
    column("Age"),
    wide("VolumeMode"),
];

pub fn claim(object: &Value, now: Timestamp) -> Vec<Value> {
    // What was asked for is not what there is: that is told once there is a volume.
    let bound = !text(object, "/spec/volumeName").is_empty();
    let (capacity, access) = match bound {
        true => (text(object, "/status/capacity/storage"), modes(object, "/status/accessModes")),
        false => ("", String::new()),
    };
    vec![
        name(object),
        status(object),
        text(object, "/spec/volumeName").into(),
        capacity.into(),
        access.into(),
        text(object, "/spec/storageClassName").into(),
        or_unset(text(object, "/spec/volumeAttributesClassName")),
        age(object, now),
        or_unset(text(object, "/spec/volumeMode")),
    ]
}

pub const CLASS: &[Column] = &[
    name_column(),
    column("Provisioner"),
    column("ReclaimPolicy"),
    column("VolumeBindingMode"),
    Column { name: "AllowVolumeExpansion", kind: "boolean", format: "", shown: super::Shown::Always },
    column("Age"),
];

pub fn class(object: &Value, now: Timestamp) -> Vec<Value> {
    let annotations = object.pointer("/metadata/annotations");
    let is_default = annotations.and_then(|all| all.get(DEFAULT_CLASS)).is_some_and(|value| value == "true");
    let named = match is_default {
        true => format!("{} (default)", text(object, "/metadata/name")).into(),
        false => name(object),
    };
    vec![
        named,
        text(object, "/provisioner").into(),
        text(object, "/reclaimPolicy").into(),
        text(object, "/volumeBindingMode").into(),
        flag(object, "/allowVolumeExpansion").into(),
        age(object, now),
    ]
}

pub const RUNTIME_CLASS: &[Column] = &[name_column(), column("Handler"), column("Age")];

pub fn runtime_class(object: &Value, now: Timestamp) -> Vec<Value> {
    vec![name(object), text(object, "/handler").into(), age(object, now)]
}

fn status(object: &Value) -> Value {
    match crate::api::value::is_set(object, "/metadata/deletionTimestamp") {
        true => "Terminating".into(),
        false => text(object, "/status/phase").into(),
    }
}

/// `RWO,ROX`, in a fixed order.
fn modes(object: &Value, pointer: &str) -> String {
    let given = items(object, pointer);
    let short = [
        ("ReadWriteOnce", "RWO"),
        ("ReadOnlyMany", "ROX"),
        ("ReadWriteMany", "RWX"),
        ("ReadWriteOncePod", "RWOP"),
    ];
    let there = short.iter().filter(|(mode, _)| given.iter().any(|one| one == mode));
    there.map(|(_, short)| *short).collect::<Vec<_>>().join(",")
}

fn or_unset(text: &str) -> Value {
    if text.is_empty() { "<unset>".into() } else { text.into() }
}
