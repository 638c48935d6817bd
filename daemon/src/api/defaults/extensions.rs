//! CustomResourceDefinitions.

use crate::api::value::{as_map, child, default_to, is_set, items, set, text};
use gaggle_sched::controller::definition::CLEANUP;
use serde_json::{Value, json};

pub fn definition(definition: &mut Value) {
    // It is held until its objects are gone, whoever deletes it, and however it was edited meanwhile.
    if !is_set(definition, "/metadata/deletionTimestamp") {
        let metadata = child(definition, "metadata");
        let mut finalizers = items(metadata, "/finalizers").to_vec();
        if !finalizers.iter().any(|finalizer| finalizer == CLEANUP) {
            finalizers.push(CLEANUP.into());
            set(metadata, "finalizers", finalizers);
        }
    }
    let spec = child(definition, "spec");
    let kind = text(spec, "/names/kind").to_owned();
    if !kind.is_empty() {
        let names = child(spec, "names");
        default_to(names, "singular", kind.to_lowercase());
        default_to(names, "listKind", format!("{kind}List"));
    }
    if as_map(spec).get("conversion").is_none_or(Value::is_null) {
        set(spec, "conversion", json!({"strategy": "None"}));
    }
}
