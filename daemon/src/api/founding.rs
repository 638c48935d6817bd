//! What every cluster begins with: the namespaces that manifests and clients take for granted.

use super::delete::LASTING;
use gaggle_sched::state::{Expect, Key, Resource, Txn, Write};
use k8s_openapi::jiff::Timestamp;
use serde_json::json;
use sha2::{Digest, Sha256};

/// One transaction for each lasting namespace; refused where it exists. For a leader to propose when it begins.
pub fn lasting_namespaces(now: Timestamp) -> Vec<Txn> {
    LASTING
        .iter()
        .map(|name| {
            let key = Key::new(Resource::fixed("namespaces"), "", *name);
            let value = json!({
                "apiVersion": "v1", "kind": "Namespace",
                "metadata": {
                    "name": name, "uid": uid(name, now), "creationTimestamp": now.to_string(),
                    "labels": {"kubernetes.io/metadata.name": name},
                },
                "spec": {"finalizers": ["kubernetes"]},
                "status": {"phase": "Active"},
            });
            Txn::from(Write::Put { key, value, expect: Expect::Absent, intent: None })
        })
        .collect()
}

/// Derived, so that the same founding gives the same objects.
fn uid(name: &str, now: Timestamp) -> String {
    let digest = Sha256::digest(format!("{name}/{now}"));
    let hex: String = digest.iter().take(16).map(|byte| format!("{byte:02x}")).collect();
    format!("{}-{}-8{}-8{}-{}", &hex[..8], &hex[8..12], &hex[13..16], &hex[17..20], &hex[20..])
}
