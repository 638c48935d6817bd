use super::*;
use crate::controller::harness::World;
use serde_json::{Value, json};

fn node(world: &World, name: &str) -> Value {
    world.value(&Key::new(NODES, "", name)).clone()
}

fn taints(node: &Value) -> Vec<(String, String)> {
    let taints = node["spec"]["taints"].as_array().cloned().unwrap_or_default();
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    taints.iter().map(|taint| (text(&taint["key"]), text(&taint["effect"]))).collect()
}

fn ready(node: &Value) -> &str {
    let conditions = node["status"]["conditions"].as_array().unwrap();
    conditions.iter().find(|one| one["type"] == "Ready").unwrap()["status"].as_str().unwrap()
}

fn pod(world: &mut World, name: &str, spec: Value) -> Key {
    let mut spec = spec;
    spec["containers"] = json!([{"name": "main", "image": "web"}]);
    world.create::<Pod>("default", name, json!({"metadata": {}, "spec": spec}))
}

#[test]
fn a_report_becomes_a_node_and_silence_writes_nothing() {
    let mut world = World::with_nodes(1, 1);
    let desk = node(&world, "desk-0");
    assert_eq!(desk["status"]["capacity"], json!({"cpu": "16", "memory": "67108864Ki", "pods": "110"}));
    assert_eq!(desk["metadata"]["labels"]["kubernetes.io/hostname"], "desk-0");
    assert_eq!(desk["metadata"]["annotations"][PEER], "peer-desk-0");
    assert_eq!(ready(&desk), "True");
    let before = world.store.revision();
    world.advance(60);
    world.reconcile_nodes();
    assert_eq!(world.store.revision(), before, "a heartbeat is no news");
}

#[test]
fn what_users_set_on_a_node_stays() {
    let mut world = World::with_nodes(2, 1);
    let key = Key::new(NODES, "", "desk-0");
    world.reports.get_mut("desk-0").unwrap().labels.insert("room".into(), "b12".into());
    world.reconcile_nodes();
    world.edit(&key, |value| {
        value["metadata"]["labels"]["disk"] = json!("ssd");
        value["metadata"]["labels"]["kubernetes.io/arch"] = json!("mine");
        value["spec"]["taints"] = json!([{"key": "gpu", "effect": "NoSchedule"}]);
        value["spec"]["unschedulable"] = json!(true);
    });
    world.reports.get_mut("desk-0").unwrap().labels.clear();
    world.reconcile_nodes();
    let desk = node(&world, "desk-0");
    let labels = &desk["metadata"]["labels"];
    assert_eq!((&labels["disk"], &labels["kubernetes.io/arch"]), (&json!("ssd"), &json!("mine")));
    assert!(labels.get("room").is_none(), "a label that the desktop no longer reports goes");
    let names: Vec<String> = taints(&desk).into_iter().map(|(key, _)| key).collect();
    assert_eq!(names, ["gpu", "node.kubernetes.io/unschedulable"]);
}

#[test]
fn a_dead_desktop_is_tainted_and_heals() {
    let mut world = World::with_nodes(3, 2);
    world.kill_node("desk-0");
    world.run();
    let desk = node(&world, "desk-0");
    assert_eq!(ready(&desk), "Unknown");
    assert_eq!(taints(&desk).len(), 2);
    assert!(taints(&desk).iter().all(|(key, _)| key == object::UNREACHABLE));
    world.revive_node("desk-0");
    world.run();
    let desk = node(&world, "desk-0");
    assert_eq!((ready(&desk), taints(&desk).len()), ("True", 0));
    assert_eq!(world.said("NodeNotReady").len(), 1);
    assert_eq!(world.said("NodeReady").len(), 1);
}

#[test]
fn a_bare_pod_of_a_dead_desktop_fails_and_says_why() {
    let mut world = World::with_nodes(4, 1);
    let key = pod(&mut world, "bare", json!({}));
    world.run();
    world.kill_node("desk-0");
    world.run();
    let status = &world.value(&key)["status"];
    assert_eq!((&status["phase"], &status["reason"]), (&json!("Failed"), &json!("NodeLost")));
    assert_eq!(world.said("NodeLost").len(), 1);
}

#[test]
fn a_stated_toleration_is_honoured() {
    let tolerate = |seconds: Value| {
        json!({"tolerations": [{
            "key": object::UNREACHABLE, "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": seconds
        }]})
    };
    let mut world = World::with_nodes(5, 1);
    let short = pod(&mut world, "short", tolerate(json!(60)));
    let ever = pod(&mut world, "ever", tolerate(json!(null)));
    world.run();
    world.kill_node("desk-0");
    world.run();
    assert_eq!(world.value(&short)["status"]["phase"], "Running");
    world.reports.get_mut("desk-0").unwrap().since = Duration::from_secs(61);
    world.reconcile_nodes();
    assert_eq!(world.value(&short)["status"]["phase"], "Failed");
    assert_eq!(world.value(&ever)["status"]["phase"], "Running");
}

#[test]
fn a_pod_bound_to_a_desktop_as_it_died_is_found() {
    let mut world = World::with_nodes(6, 1);
    world.kill_node("desk-0");
    world.run();
    let key = pod(&mut world, "late", json!({"nodeName": "desk-0"}));
    world.advance(3);
    world.run();
    assert_eq!(world.value(&key)["status"]["phase"], "Failed");
}

#[test]
fn a_desktop_that_left_is_taken_off_the_list() {
    let mut world = World::with_nodes(7, 2);
    let report = world.reports.get_mut("desk-0").unwrap();
    (report.alive, report.leaving) = (false, true);
    world.reconcile_nodes();
    assert!(world.store.get(&Key::new(NODES, "", "desk-0")).is_none());
    let report = world.reports.get_mut("desk-1").unwrap();
    (report.alive, report.since) = (false, Duration::from_secs(25 * 3600));
    world.reconcile_nodes();
    assert!(world.store.get(&Key::new(NODES, "", "desk-1")).is_none(), "after a day");
}

#[test]
fn a_desktop_that_leaves_stays_on_the_list_until_its_last_pod_has_ended() {
    let mut world = World::with_nodes(9, 1);
    let key = pod(&mut world, "last", json!({"nodeName": "desk-0"}));
    world.run();
    world.reports.get_mut("desk-0").unwrap().leaving = true;
    world.reconcile_nodes();
    assert!(world.store.get(&key).unwrap().is_terminating(), "its pods are asked to end");
    assert!(world.store.get(&Key::new(NODES, "", "desk-0")).is_some(), "a pod still runs");
    world.run();
    assert!(world.store.get(&key).is_none());
    world.reconcile_nodes();
    assert!(world.store.get(&Key::new(NODES, "", "desk-0")).is_none());
}

#[test]
fn a_name_belongs_to_whoever_has_it() {
    let mut world = World::with_nodes(8, 1);
    let mut twin = world.reports["desk-0"].clone();
    twin.peer = "another".into();
    twin.since = Duration::from_secs(1000);
    world.reports.insert("twin".into(), twin);
    world.reconcile_nodes();
    assert_eq!(node(&world, "desk-0")["metadata"]["annotations"][PEER], "peer-desk-0");
    assert_eq!(world.said("NodeNameTaken").len(), 1);
    world.kill_node("desk-0");
    world.reconcile_nodes();
    assert_eq!(node(&world, "desk-0")["metadata"]["annotations"][PEER], "another");
}

#[test]
fn a_hostile_name_makes_no_node() {
    let mut world = World::new(9);
    for name in ["", "../etc", "UPPER", "-x", "x-", &"a".repeat(300), "white space"] {
        world.join(name);
    }
    world.reconcile_nodes();
    assert_eq!(world.store.list(&NODES, None).count(), 0);
}

#[test]
fn pods_of_no_node_are_collected_after_a_while() {
    let mut world = World::with_nodes(10, 1);
    let key = pod(&mut world, "lost", json!({"nodeName": "nowhere"}));
    world.reconcile_nodes();
    assert!(world.value(&key)["status"].get("phase").is_none());
    world.advance(41);
    world.reconcile_nodes();
    assert_eq!(world.value(&key)["status"]["reason"], "NodeLost");
}

#[test]
fn a_desktop_that_membership_never_heard_of_is_dead() {
    let mut world = World::with_nodes(11, 2);
    let key = pod(&mut world, "bare", json!({"nodeSelector": {"kubernetes.io/hostname": "desk-0"}}));
    world.run();
    world.reports.remove("desk-0");
    world.reconcile_nodes();
    assert_eq!(ready(&node(&world, "desk-0")), "Unknown");
    world.advance(3);
    world.reconcile_nodes();
    assert_eq!(world.value(&key)["status"]["phase"], "Failed");
}
