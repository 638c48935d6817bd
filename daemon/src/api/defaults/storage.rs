//! Volumes, claims and their classes.

use crate::api::value::{as_map, child, default_to};
use serde_json::{Value, json};

pub fn volume(volume: &mut Value) {
    let spec = child(volume, "spec");
    default_to(spec, "persistentVolumeReclaimPolicy", "Retain");
    default_to(spec, "volumeMode", "Filesystem");
    if let Some(path) = spec.get_mut("hostPath").filter(|path| path.is_object()) {
        as_map(path).entry("type").or_insert_with(|| json!(""));
    }
}

pub fn claim(claim: &mut Value) {
    default_to(child(claim, "spec"), "volumeMode", "Filesystem");
}

pub fn class(class: &mut Value) {
    default_to(class, "reclaimPolicy", "Delete");
    default_to(class, "volumeBindingMode", "Immediate");
}
