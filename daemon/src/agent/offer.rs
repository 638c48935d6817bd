//! Pods of a group that yielded: what runs here is offered to the group that this desktop follows now, so that it goes
//! on where it matches what that group wants, instead of being replaced. Pure.
//!
//! An offer is the Pod object itself, under its old uid, put where the new group has none of that name; from then on
//! its controller counts it, and deletes what is too much as gently as ever. An identity is never offered: the group
//! that goes on may run it already.

use super::identity::Owner;
use gaggle_sched::controller::identity::is_single;
use gaggle_sched::controller::{DELETION_COST, says_ready};
use gaggle_sched::state::{Expect, Key, Object, Store, Write};
use k8s_openapi::api::apps::v1::ReplicaSet;
use k8s_openapi::api::core::v1::{Node, Pod, PodStatus};
use serde_json::{Value, json};
use std::time::Duration;

/// How long an owner may take to appear in the new group: documents merge within a few seconds of a connection.
pub const OWNER_APPEARS_WITHIN: Duration = Duration::from_secs(20);
/// What a ReplicaSet's pods carry of their template.
const TEMPLATE_HASH: &str = "pod-template-hash";

/// What becomes of a pod that the new group does not know.
#[derive(Clone, Debug, PartialEq)]
pub enum Offer {
    /// It is proposed as it is.
    Make(Box<Write>),
    /// Nobody there wants it yet; somebody may soon.
    Wait,
    /// It ends.
    Never,
}

/// What to do with a pod that ran here for another group; `last` is its object as that group had it, `status` what is known of
/// it here, which its group may not have been there to be told.
pub fn offer(store: &Store, last: &Object, status: Option<&PodStatus>, owner: &Owner) -> Offer {
    let Some(pod) = last.typed::<Pod>() else { return Offer::Never };
    let phase = pod.status.as_ref().and_then(|status| status.phase.as_deref());
    if is_single(&pod) || last.is_terminating() || matches!(phase, Some("Succeeded" | "Failed")) {
        return Offer::Never;
    }
    // Whoever gives this desktop no place does not take its pods.
    if store.get(&Key::of::<Node>("", owner.node.clone())).is_none_or(|node| node.is_terminating()) {
        return Offer::Wait;
    }
    let (namespace, name) =
        (pod.metadata.namespace.clone().unwrap_or_default(), pod.metadata.name.clone().unwrap_or_default());
    let key = Key::of::<Pod>(namespace.clone(), name);
    let mut value = last.value().clone();
    let owners = pod.metadata.owner_references.as_deref().unwrap_or_default();
    match owners {
        [] => {}
        [only] if only.kind == "ReplicaSet" && only.controller == Some(true) => {
            let set = Key::of::<ReplicaSet>(namespace, only.name.clone());
            let Some(found) = store.get(&set) else { return Offer::Wait };
            if !wants(found, last) {
                return Offer::Never;
            }
            value["metadata"]["ownerReferences"][0]["uid"] = json!(found.uid());
            if last.annotation(DELETION_COST).is_none() {
                let ready = status.or(pod.status.as_ref()).is_some_and(says_ready);
                value["metadata"]["annotations"][DELETION_COST] = json!(cost(ready));
            }
        }
        // What a Job has counted, and who else may own a pod, only their own group knows.
        _ => return Offer::Never,
    }
    let expect = match store.get(&key) {
        // It was known there, and deleted.
        None if store.adopted(&key).is_some() => return Offer::Never,
        None => Expect::Absent,
        // Its document came first: nobody has bound it yet, so it is bound to where it runs.
        Some(same) if same.uid() == last.uid() && !is_bound(same) && !same.is_terminating() => {
            Expect::Revision(same.revision())
        }
        Some(_) => return Offer::Never,
    };
    Offer::Make(Box::new(Write::Put { key, value, expect, intent: None }))
}

/// What deleting an offered pod costs, beside the replicas that the new group has made already: those go, however many of
/// these a desktop runs. But two groups hear of each other's objects before one yields, and what it made of them in its last
/// moments ran nowhere yet: that goes before pods that the other group runs since long.
fn cost(ready: bool) -> &'static str {
    if ready { "1" } else { "-1" }
}

/// Whether a ReplicaSet of the new group makes just such pods, and any at all.
fn wants(set: &Object, pod: &Object) -> bool {
    let replicas = set.value().pointer("/spec/replicas").and_then(Value::as_i64).unwrap_or(1);
    let selector = set.value().pointer("/spec/selector/matchLabels").and_then(Value::as_object);
    let matches = selector.is_some_and(|labels| {
        !labels.is_empty() && labels.iter().all(|(name, value)| pod.label(name) == value.as_str())
    });
    // Without the hash two templates look alike.
    let hashed = pod.label(TEMPLATE_HASH).is_some() && pod.label(TEMPLATE_HASH) == set.label(TEMPLATE_HASH);
    replicas > 0 && matches && hashed && !set.is_terminating()
}

fn is_bound(pod: &Object) -> bool {
    pod.value().pointer("/spec/nodeName").and_then(Value::as_str).is_some_and(|node| !node.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn store(objects: &[(Key, Value)]) -> Store {
        let mut store = Store::default();
        for (key, value) in objects {
            let (key, value) = (key.clone(), value.clone());
            store.apply(&Write::Put { key, value, expect: Expect::Absent, intent: None }.into()).unwrap();
        }
        store
    }

    fn set(hash: &str, replicas: i64) -> (Key, Value) {
        let labels = json!({"app": "web", TEMPLATE_HASH: hash});
        let value = json!({"metadata": {"uid": "new", "labels": labels},
            "spec": {"replicas": replicas, "selector": {"matchLabels": labels}}});
        (Key::of::<ReplicaSet>("default", "web-1"), value)
    }

    fn node() -> (Key, Value) {
        (Key::of::<Node>("", "ada"), json!({"metadata": {"uid": "n"}}))
    }

    fn pod() -> Value {
        json!({
            "metadata": {"name": "web-1-x", "namespace": "default", "uid": "u",
                "labels": {"app": "web", TEMPLATE_HASH: "1"},
                "ownerReferences": [{"apiVersion": "apps/v1", "kind": "ReplicaSet", "name": "web-1", "uid": "old",
                    "controller": true}]},
            "spec": {"nodeName": "ada", "containers": []},
            "status": {"phase": "Running", "conditions": [{"type": "Ready", "status": "True"}]}})
    }

    fn offered(others: &[(Key, Value)], pod: Value) -> Offer {
        let key = Key::of::<Pod>("default", "web-1-x");
        let last = store(&[(key.clone(), pod)]).get(&key).unwrap().clone();
        offer(&store(others), &last, None, &Owner { cluster: "lab".into(), node: "ada".into() })
    }

    fn with(pointer: &str, value: Value) -> Value {
        let mut pod = pod();
        let (parent, field) = pointer.rsplit_once('/').unwrap();
        pod.pointer_mut(parent).unwrap()[field] = value;
        pod
    }

    #[test]
    fn a_pod_goes_to_the_replica_set_of_the_same_name_and_template() {
        let Offer::Make(write) = offered(&[node(), set("1", 2)], pod()) else { panic!("it is wanted") };
        let Write::Put { value, expect, .. } = *write else { panic!("{write:?}") };
        assert_eq!(expect, Expect::Absent);
        assert_eq!((&value["metadata"]["uid"], &value["spec"]["nodeName"]), (&json!("u"), &json!("ada")));
        assert_eq!(value["metadata"]["ownerReferences"][0]["uid"], "new");
        assert_eq!(
            value["metadata"]["annotations"][DELETION_COST], "1",
            "those that were made here go first"
        );
        let priced = with("/metadata/annotations", json!({DELETION_COST: "-3"}));
        let Offer::Make(write) = offered(&[node(), set("1", 2)], priced) else { panic!("it is wanted") };
        let Write::Put { value, .. } = *write else { panic!("{write:?}") };
        assert_eq!(value["metadata"]["annotations"][DELETION_COST], "-3", "people's word counts");
        let new = with("/status/conditions", json!([{"type": "Ready", "status": "False"}]));
        let Offer::Make(write) = offered(&[node(), set("1", 2)], new) else { panic!("it is wanted") };
        let Write::Put { value, .. } = *write else { panic!("{write:?}") };
        assert_eq!(
            value["metadata"]["annotations"][DELETION_COST], "-1",
            "it had not come up before its group yielded"
        );
    }

    #[test]
    fn what_nobody_wants_ends_and_what_somebody_may_want_waits() {
        assert_eq!(offered(&[node()], pod()), Offer::Wait, "its owner is still on the way");
        assert_eq!(offered(&[set("1", 2)], pod()), Offer::Wait, "the desktop is not on the list yet");
        assert_eq!(offered(&[node(), set("2", 2)], pod()), Offer::Never, "another template");
        assert_eq!(offered(&[node(), set("1", 0)], pod()), Offer::Never, "none are wanted");
        let all = [node(), set("1", 2)];
        for (pointer, value) in [
            ("/status/phase", json!("Succeeded")),
            ("/metadata/deletionTimestamp", json!("2026-01-01T00:00:00Z")),
            ("/metadata/annotations", json!({"gaggle.dev/at-most-once": "true"})),
            ("/metadata/ownerReferences/0/kind", json!("Job")),
        ] {
            assert_eq!(offered(&all, with(pointer, value)), Offer::Never, "{pointer}");
        }
    }

    #[test]
    fn a_pod_without_an_owner_stays_where_it_runs_unless_it_was_bound_elsewhere() {
        let alone = with("/metadata/ownerReferences", json!([]));
        let in_store = |uid: &str, spec: Value| {
            (Key::of::<Pod>("default", "web-1-x"), json!({"metadata": {"uid": uid}, "spec": spec}))
        };
        assert!(matches!(offered(&[node()], alone.clone()), Offer::Make(_)));
        let unbound = offered(&[node(), in_store("u", json!({}))], alone.clone());
        let Offer::Make(write) = unbound else { panic!("{unbound:?}") };
        assert!(matches!(*write, Write::Put { expect: Expect::Revision(_), .. }), "{write:?}");
        for taken in [in_store("u", json!({"nodeName": "bob"})), in_store("another", json!({}))] {
            assert_eq!(offered(&[node(), taken], alone.clone()), Offer::Never);
        }
    }
}
