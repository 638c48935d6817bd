//! Identities: pods of which at most one runs in the whole flock, partitions included.
//!
//! Two clocks guard one. A desktop that no acting leader has heard for [`IDENTITY_HOLD`] kills its pods of this kind,
//! whatever else it knows; and the leader gives such a pod of a silent desktop up only [`IDENTITY_FREED_AFTER`] after
//! it last heard that desktop, or began to act itself. What lies between the two is the time that killing may take
//! and the clocks may differ in speed. A pod's object is the identity: the name is free when the object is gone, so
//! nothing else may remove it before.

use super::owners::controller_of;
use k8s_openapi::api::core::v1::Pod;
use serde_json::Value;
use std::time::Duration;

/// How long a desktop that no acting leader hears goes on running identities.
pub const IDENTITY_HOLD: Duration = Duration::from_secs(8);
/// How long the leader waits before it takes for certain that a silent desktop has stopped its identities.
pub const IDENTITY_FREED_AFTER: Duration = Duration::from_secs(12);
/// The annotation by which any pod asks to be an identity (`"true"`).
pub const AT_MOST_ONCE: &str = "gaggle.dev/at-most-once";
/// The condition of an identity whose desktop is silent and may still run it.
pub const HELD: &str = "gaggle.dev/IdentityHeld";

const STATEFUL_SET: &str = "StatefulSet";

/// Whether at most one of the pod may run.
pub fn is_single(pod: &Pod) -> bool {
    let asked = pod.metadata.annotations.as_ref().and_then(|annotations| annotations.get(AT_MOST_ONCE));
    controller_of(&pod.metadata).is_some_and(|owner| owner.kind == STATEFUL_SET)
        || asked.is_some_and(|asked| asked == "true")
}

/// As [`is_single`], of a pod's JSON.
pub fn is_single_object(pod: &Value) -> bool {
    let owners = pod.pointer("/metadata/ownerReferences").and_then(Value::as_array);
    let owned = owners
        .into_iter()
        .flatten()
        .any(|owner| owner["controller"] == true && owner["kind"] == STATEFUL_SET);
    let annotations = pod.pointer("/metadata/annotations");
    owned || annotations.and_then(|annotations| annotations.get(AT_MOST_ONCE)?.as_str()) == Some("true")
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_desktop_stops_an_identity_before_it_is_given_up() {
        // A clock that is a tenth slow, and two seconds for the engine to kill.
        assert!(IDENTITY_HOLD.mul_f64(1.1) + Duration::from_secs(2) < IDENTITY_FREED_AFTER);
    }

    #[test]
    fn identities_are_those_of_stateful_sets_and_those_that_ask() {
        let owner = |kind: &str| json!([{"kind": kind, "name": "x", "uid": "u", "apiVersion": "apps/v1", "controller": true}]);
        for (metadata, single) in [
            (json!({}), false),
            (json!({"ownerReferences": owner("ReplicaSet")}), false),
            (json!({"ownerReferences": owner("StatefulSet")}), true),
            (json!({"annotations": {AT_MOST_ONCE: "true"}}), true),
            (json!({"annotations": {AT_MOST_ONCE: "false"}}), false),
        ] {
            let value = json!({"metadata": metadata});
            assert_eq!(is_single_object(&value), single, "{value}");
            assert_eq!(is_single(&serde_json::from_value(value).unwrap()), single);
        }
    }
}
