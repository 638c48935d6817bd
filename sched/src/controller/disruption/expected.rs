//! How many pods there should be, by those who keep them.

use super::super::loaded::Loaded;
use super::super::owners::controller_of;
use crate::state::{Key, Resource, Store};
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use serde_json::Value;
use std::collections::BTreeMap;

/// The sum of what the pods' controllers want, each counted once; pods that nobody keeps do not count.
pub(super) fn of(store: &Store, pods: &[Loaded<Pod>]) -> i32 {
    let mut by_controller: BTreeMap<String, i64> = BTreeMap::new();
    for pod in pods {
        let Some(owner) = controller_of(&pod.metadata) else { continue };
        if !by_controller.contains_key(&owner.uid) {
            let (uid, replicas) = scale(store, &pod.key.namespace, owner);
            by_controller.insert(owner.uid.clone(), 0);
            by_controller.insert(uid, replicas);
        }
    }
    i32::try_from(by_controller.into_values().sum::<i64>()).unwrap_or(i32::MAX)
}

/// Whose number counts, and the number: a Deployment's goes before its ReplicaSets'.
fn scale(store: &Store, namespace: &str, owner: &OwnerReference) -> (String, i64) {
    let (plural, group) = match owner.kind.as_str() {
        "ReplicaSet" => ("replicasets", "apps"),
        "StatefulSet" => ("statefulsets", "apps"),
        "Deployment" => ("deployments", "apps"),
        "ReplicationController" => ("replicationcontrollers", ""),
        _ => return (owner.uid.clone(), 0),
    };
    let key = Key::new(Resource::new(group, plural), namespace, owner.name.clone());
    let Some(object) = store.get(&key).filter(|object| object.uid() == owner.uid) else {
        return (owner.uid.clone(), 0);
    };
    let owners = object.value().pointer("/metadata/ownerReferences").cloned().unwrap_or_default();
    let owners: Vec<OwnerReference> = serde_json::from_value(owners).unwrap_or_default();
    match owners.iter().find(|above| above.controller == Some(true) && above.kind == "Deployment") {
        Some(above) if owner.kind == "ReplicaSet" => scale(store, namespace, above),
        _ => {
            let replicas = object.value().pointer("/spec/replicas").and_then(Value::as_i64).unwrap_or(1);
            (owner.uid.clone(), replicas)
        }
    }
}
