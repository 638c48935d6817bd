use super::*;
use crate::controller::harness::{Act, World};
use k8s_openapi::api::core::v1::ResourceQuota;
use serde_json::json;

fn manifest(replicas: i32) -> serde_json::Value {
    json!({
        "metadata": {},
        "spec": {
            "replicas": replicas,
            "selector": {"matchLabels": {"app": "web"}},
            "template": {
                "metadata": {"labels": {"app": "web"}},
                "spec": {"containers": [{"name": "main", "image": "web:1"}]}
            }
        }
    })
}

#[test]
fn pods_are_made_owned_and_counted() {
    let mut world = World::with_nodes(1, 2);
    let key = world.create::<ReplicaSet>("default", "web", manifest(3));
    world.run();
    assert_eq!(world.value(&key)["status"]["readyReplicas"], 3);
    assert_eq!(world.value(&key)["status"]["fullyLabeledReplicas"], 3);
    for (key, pod) in world.pods() {
        let owner = owners::controller_of(&pod.metadata).unwrap();
        assert_eq!((owner.kind.as_str(), owner.block_owner_deletion), ("ReplicaSet", Some(true)));
        assert!(key.name.starts_with("web-"), "{key}");
    }
    assert_eq!(world.said("SuccessfulCreate").len(), 3);
}

#[test]
fn orphans_that_match_are_adopted_and_strangers_let_go() {
    let mut world = World::with_nodes(2, 2);
    let spec = json!({"containers": [{"name": "main", "image": "web:1"}]});
    let orphan = json!({"metadata": {"labels": {"app": "web"}}, "spec": spec});
    let orphan = world.create::<Pod>("default", "orphan", orphan);
    world.run();
    world.create::<ReplicaSet>("default", "web", manifest(2));
    world.run();
    assert_eq!(world.pods().len(), 2, "the orphan counts");
    assert!(world.store.get(&orphan).unwrap().owner_uids().next().is_some());
    world.edit(&orphan, |value| value["metadata"]["labels"]["app"] = json!("debug"));
    world.run();
    assert_eq!(world.pods().len(), 3, "the released pod stays and is replaced");
    assert!(world.store.get(&orphan).unwrap().owner_uids().next().is_none());
}

#[test]
fn pods_that_do_not_serve_go_first() {
    let mut world = World::with_nodes(3, 2);
    let key = world.create::<ReplicaSet>("default", "web", manifest(2));
    world.run();
    let serving: Vec<Key> = world.pods().into_iter().map(|(key, _)| key).collect();
    world.edit(&key, |value| {
        value["spec"]["template"]["spec"]["nodeSelector"] = json!({"gpu": "yes"});
        value["spec"]["replicas"] = json!(4);
    });
    world.run();
    world.edit(&key, |value| value["spec"]["replicas"] = json!(2));
    world.run();
    assert_eq!(world.pods().into_iter().map(|(key, _)| key).collect::<Vec<_>>(), serving);
}

#[test]
fn many_pods_come_in_bounded_plans() {
    let mut world = World::new(4);
    world.create::<ReplicaSet>("default", "web", manifest(1201));
    world.settle(&mut |_| Act::Serve, &mut |_| ());
    assert_eq!(world.pods().len(), 1201);
}

#[test]
fn a_lost_pod_is_made_again_elsewhere() {
    let mut world = World::with_nodes(5, 2);
    let key = world.create::<ReplicaSet>("default", "web", manifest(4));
    world.run();
    world.kill_node("desk-0");
    world.run();
    assert_eq!(world.value(&key)["status"]["availableReplicas"], 4);
    assert!(world.pods().iter().all(|(_, pod)| pods::node_of(pod) == Some("desk-1")));
}

#[test]
fn what_is_forbidden_is_told_in_the_status_and_asked_for_now_and_then() {
    let mut world = World::with_nodes(6, 1);
    let quota = json!({"metadata": {}, "spec": {"hard": {"pods": "2"}}});
    let quota = world.create::<ResourceQuota>("default", "few", quota);
    let key = world.create::<ReplicaSet>("default", "web", manifest(1201));
    world.run();
    assert_eq!(world.pods().len(), 2);
    let conditions = &world.value(&key)["status"]["conditions"];
    let (kind, reason) = (&conditions[0]["type"], &conditions[0]["reason"]);
    assert_eq!((kind, reason), (&json!("ReplicaFailure"), &json!("FailedCreate")));
    assert!(conditions[0]["message"].as_str().unwrap().contains("exceeded quota: few"), "{conditions}");
    world.edit(&quota, |value| value["spec"]["hard"]["pods"] = json!("3"));
    world.edit(&key, |value| value["spec"]["replicas"] = json!(3));
    world.run();
    world.advance(10);
    world.run();
    assert_eq!(world.pods().len(), 3);
    assert_eq!(world.value(&key)["status"]["conditions"], json!([]));
}
