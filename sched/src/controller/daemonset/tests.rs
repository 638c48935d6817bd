use super::*;
use crate::controller::harness::{Act, World};
use crate::state::Write;
use proptest::prelude::*;
use serde_json::{Value, json};

fn manifest() -> Value {
    json!({
        "metadata": {},
        "spec": {
            "selector": {"matchLabels": {"app": "probe"}},
            "template": {
                "metadata": {"labels": {"app": "probe"}},
                "spec": {"containers": [{"name": "main", "image": "probe:1"}]}
            },
            "updateStrategy": {"type": "RollingUpdate", "rollingUpdate": {"maxUnavailable": 1, "maxSurge": 0}}
        }
    })
}

fn with(pointer: &str, value: Value) -> Value {
    let mut manifest = manifest();
    let (parent, field) = pointer.rsplit_once('/').unwrap();
    manifest.pointer_mut(parent).unwrap()[field] = value;
    manifest
}

/// Nodes and images of the pods that are not on their way out, in order.
fn places(world: &World) -> Vec<(String, String)> {
    let pods = world.pods().into_iter().filter(|(_, pod)| pods::is_active(pod));
    let mut places: Vec<_> = pods
        .map(|(_, pod)| {
            let spec = pod.spec.as_ref().unwrap();
            (pods::node_of(&pod).unwrap_or("-").to_owned(), spec.containers[0].image.clone().unwrap())
        })
        .collect();
    places.sort();
    places
}

fn nodes(world: &World) -> Vec<String> {
    places(world).into_iter().map(|(node, _)| node).collect()
}

fn set_image(world: &mut World, key: &Key, image: &str) {
    world.edit(key, |value| value["spec"]["template"]["spec"]["containers"][0]["image"] = json!(image));
}

fn node_key(name: &str) -> Key {
    Key::of::<Node>("", name)
}

#[test]
fn every_desktop_has_one_also_one_that_joins_later() {
    let mut world = World::with_nodes(1, 3);
    let key = world.create::<DaemonSet>("default", "probe", manifest());
    world.run();
    assert_eq!(nodes(&world), ["desk-0", "desk-1", "desk-2"]);
    let status = &world.value(&key)["status"];
    for field in ["desiredNumberScheduled", "currentNumberScheduled", "numberReady", "updatedNumberScheduled"]
    {
        assert_eq!(status[field], 3, "{field}");
    }
    assert_eq!((&status["numberAvailable"], &status["numberMisscheduled"]), (&json!(3), &json!(0)));
    world.join("desk-3");
    world.run();
    assert_eq!(nodes(&world).len(), 4);
    let left = world.reports.get_mut("desk-0").unwrap();
    left.leaving = true;
    world.reconcile_nodes();
    world.run();
    assert_eq!(nodes(&world), ["desk-1", "desk-2", "desk-3"], "none is made for a desktop that leaves");
    assert_eq!(world.value(&key)["status"]["desiredNumberScheduled"], 3);
    world.delete(&key);
    world.run();
    assert!(world.pods().is_empty(), "its pods go with it");
}

#[test]
fn labels_and_taints_choose_the_nodes() {
    let mut world = World::with_nodes(2, 3);
    let key = world.create::<DaemonSet>(
        "default",
        "probe",
        with("/spec/template/spec/nodeSelector", json!({"disk": "fast"})),
    );
    world.edit(&node_key("desk-1"), |node| node["metadata"]["labels"]["disk"] = json!("fast"));
    world.edit(&node_key("desk-2"), |node| node["metadata"]["labels"]["disk"] = json!("fast"));
    world.run();
    assert_eq!(nodes(&world), ["desk-1", "desk-2"]);
    let taint = |effect: &str| json!([{"key": "lab", "effect": effect}]);
    world.edit(&node_key("desk-1"), |node| node["spec"]["taints"] = taint("NoSchedule"));
    world.run();
    assert_eq!(nodes(&world), ["desk-1", "desk-2"], "what runs stays");
    assert_eq!(world.value(&key)["status"]["numberMisscheduled"], 1);
    world.edit(&node_key("desk-1"), |node| node["spec"]["taints"] = taint("NoExecute"));
    world.run();
    assert_eq!(nodes(&world), ["desk-2"]);
    world.edit(&node_key("desk-2"), |node| node["spec"]["unschedulable"] = json!(true));
    let pod = world.pods()[0].0.clone();
    world.delete(&pod);
    world.run();
    assert_eq!(nodes(&world), ["desk-2"], "a cordon is for others");
}

#[test]
fn a_roll_out_leaves_all_but_one_serving() {
    let mut world = World::with_nodes(3, 4);
    let key = world.create::<DaemonSet>("default", "probe", manifest());
    world.run();
    set_image(&mut world, &key, "probe:2");
    world.settle(&mut |_| Act::Serve, &mut |world| {
        let serving =
            world.pods().iter().filter(|(_, pod)| pods::is_active(pod) && pods::is_ready(pod)).count();
        assert!(serving >= 3, "one at a time");
    });
    assert!(places(&world).iter().all(|(_, image)| image == "probe:2") && nodes(&world).len() == 4);
    assert_eq!(world.value(&key)["status"]["updatedNumberScheduled"], 4);
    let revisions = world.store.list_as::<ControllerRevision>(None);
    assert_eq!(revisions.len(), 2);
    let undone = revisions.iter().find(|one| one.revision == 1).unwrap().data.clone().unwrap().0;
    world.edit(&key, |value| {
        value["spec"]["template"] = undone["spec"]["template"].clone();
        value["spec"]["template"].as_object_mut().unwrap().remove("$patch");
    });
    world.run();
    assert!(places(&world).iter().all(|(_, image)| image == "probe:1"));
    let newest = world.store.list_as::<ControllerRevision>(None).iter().map(|one| one.revision).max();
    assert_eq!(newest, Some(3), "the first template is the newest again");
    assert_eq!(world.store.list_as::<ControllerRevision>(None).len(), 2);
}

#[test]
fn with_surge_the_new_one_serves_before_the_old_one_goes() {
    let mut world = World::with_nodes(4, 3);
    let rolling = json!({"maxUnavailable": 0, "maxSurge": 2});
    let key =
        world.create::<DaemonSet>("default", "probe", with("/spec/updateStrategy/rollingUpdate", rolling));
    world.run();
    set_image(&mut world, &key, "probe:2");
    let mut most = 0;
    world.settle(&mut |_| Act::Serve, &mut |world| {
        let ready = world.pods().into_iter().filter(|(_, pod)| pods::is_active(pod) && pods::is_ready(pod));
        let served: BTreeSet<String> =
            ready.filter_map(|(_, pod)| pods::node_of(&pod).map(str::to_owned)).collect();
        assert_eq!(served.len(), 3, "no desktop is without");
        most = most.max(nodes(world).len());
    });
    assert_eq!(places(&world), ["desk-0", "desk-1", "desk-2"].map(|node| (node.into(), "probe:2".into())));
    assert!((4..=5).contains(&most), "two more at most, not {most}");
}

#[test]
fn on_delete_replaces_nothing_by_itself() {
    let mut world = World::with_nodes(5, 2);
    let key = world.create::<DaemonSet>(
        "default",
        "probe",
        with("/spec/updateStrategy", json!({"type": "OnDelete"})),
    );
    world.run();
    set_image(&mut world, &key, "probe:2");
    world.run();
    assert!(places(&world).iter().all(|(_, image)| image == "probe:1"));
    let pod = world.pods()[0].0.clone();
    world.delete(&pod);
    world.run();
    assert_eq!(places(&world).iter().filter(|(_, image)| image == "probe:2").count(), 1);
    assert_eq!(world.value(&key)["status"]["updatedNumberScheduled"], 1);
}

#[test]
fn a_desktop_that_is_off_holds_nothing_up_and_keeps_its_pod() {
    let mut world = World::with_nodes(6, 3);
    let key = world.create::<DaemonSet>("default", "probe", manifest());
    world.run();
    let uid_on = |world: &World, node: &str| {
        let pods = world.pods();
        let (_, pod) = pods.iter().find(|(_, pod)| pods::node_of(pod) == Some(node)).unwrap();
        pod.metadata.uid.clone()
    };
    let before = uid_on(&world, "desk-0");
    world.kill_node("desk-0");
    world.run();
    assert_eq!(uid_on(&world, "desk-0"), before);
    assert_eq!(world.value(&key)["status"]["desiredNumberScheduled"], 2);
    world.revive_node("desk-0");
    world.run();
    assert_eq!((uid_on(&world, "desk-0"), nodes(&world).len()), (before, 3), "it goes on where it was");
    world.kill_node("desk-0");
    world.run();
    set_image(&mut world, &key, "probe:2");
    world.run();
    let status = &world.value(&key)["status"];
    assert_eq!((&status["updatedNumberScheduled"], &status["numberAvailable"]), (&json!(2), &json!(2)));
    world.revive_node("desk-0");
    world.run();
    assert!(places(&world).iter().all(|(_, image)| image == "probe:2"), "it is replaced when it is back");
}

#[test]
fn one_that_failed_is_made_again_but_not_without_a_pause() {
    let mut world = World::with_nodes(7, 1);
    world.create::<DaemonSet>("default", "probe", manifest());
    world.run();
    let key = world.pods()[0].0.clone();
    let uid = world.value(&key)["metadata"]["uid"].as_str().unwrap().to_owned();
    let status = json!({"phase": "Failed"});
    world.txn(Write::Status { key: key.clone(), uid, status, seen: None }.into());
    world.run();
    assert!(world.store.get(&key).is_some(), "it was made this very second");
    world.advance(FAILED_WAIT.as_secs() as i64);
    world.run();
    assert!(world.store.get(&key).is_none() && nodes(&world) == ["desk-0"]);
    assert_eq!(world.said("FailedDaemonPod").len(), 1);
}

#[test]
fn what_is_forbidden_holds_up_no_other_node() {
    let mut world = World::with_nodes(8, 2);
    world.create::<DaemonSet>("default", "probe", manifest());
    world.run();
    let quota = json!({"metadata": {}, "spec": {"hard": {"pods": "2"}}});
    world.create::<k8s_openapi::api::core::v1::ResourceQuota>("default", "two", quota);
    world.join("a-desk");
    world.run();
    assert_eq!(nodes(&world), ["desk-0", "desk-1"]);
    assert!(!world.said("FailedCreate").is_empty());
    let taint = json!([{"key": "broken", "effect": "NoExecute"}]);
    world.edit(&node_key("desk-1"), |value| value["spec"]["taints"] = taint);
    world.run();
    world.advance(10);
    world.run();
    assert_eq!(nodes(&world), ["a-desk", "desk-0"], "the one that may not stay went, and made room");
}

#[test]
fn what_has_ended_but_is_held_has_a_successor() {
    let mut world = World::with_nodes(9, 1);
    world.create::<DaemonSet>("default", "probe", manifest());
    world.run();
    let key = world.pods()[0].0.clone();
    world.edit(&key, |value| value["metadata"]["finalizers"] = json!(["example.com/hold"]));
    let uid = world.value(&key)["metadata"]["uid"].as_str().unwrap().to_owned();
    let status = json!({"phase": "Failed"});
    world.txn(Write::Status { key: key.clone(), uid, status, seen: None }.into());
    world.delete(&key);
    world.run();
    assert!(world.store.get(&key).is_some(), "its finalizer holds it");
    assert_eq!(nodes(&world), ["desk-0"]);
}

#[test]
fn a_node_without_a_daemon_is_no_surge() {
    let mut world = World::with_nodes(10, 2);
    let rolling = json!({"maxUnavailable": 0, "maxSurge": 1});
    let key =
        world.create::<DaemonSet>("default", "probe", with("/spec/updateStrategy/rollingUpdate", rolling));
    world.run();
    let (stopping, _) =
        world.pods().into_iter().find(|(_, pod)| pods::node_of(pod) == Some("desk-0")).unwrap();
    world.delete(&stopping);
    set_image(&mut world, &key, "probe:2");
    // No agent does anything: the pod takes its time to stop.
    while world.reconcile_one() {}
    let new = world.pods().into_iter().filter(|(_, pod)| pods::node_of(pod).is_none());
    let aims: Vec<String> = new.filter_map(|(_, pod)| birth::target(&pod).map(str::to_owned)).collect();
    assert_eq!(aims, ["desk-1"]);
}

#[test]
fn one_of_the_future_is_replaced_at_once() {
    let mut world = World::with_nodes(11, 1);
    world.create::<DaemonSet>("default", "probe", manifest());
    world.run();
    world.advance(-3600);
    let key = world.pods()[0].0.clone();
    let uid = world.value(&key)["metadata"]["uid"].as_str().unwrap().to_owned();
    let status = json!({"phase": "Failed"});
    world.txn(Write::Status { key: key.clone(), uid, status, seen: None }.into());
    world.run();
    assert!(world.store.get(&key).is_none(), "the clock was set back an hour: that is no reason to wait one");
    assert_eq!(nodes(&world), ["desk-0"]);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]

    /// Whatever happens: in the end each desktop that is there has one, of the newest template, and it serves.
    #[test]
    fn all_have_one_in_the_end(
        seed in any::<u64>(), surge in any::<bool>(), events in prop::collection::vec(0..6_usize, 1..12)
    ) {
        let mut world = World::with_nodes(seed, 3);
        let rolling = json!({"maxUnavailable": u8::from(!surge), "maxSurge": u8::from(surge)});
        let key = world
            .create::<DaemonSet>("default", "probe", with("/spec/updateStrategy/rollingUpdate", rolling));
        for event in events {
            for _ in 0..15 {
                world.step(&mut |_| Act::Serve);
            }
            match event {
                0 => set_image(&mut world, &key, "probe:2"),
                1 => set_image(&mut world, &key, "probe:3"),
                2 => world.kill_node("desk-0"),
                3 => world.revive_node("desk-0"),
                4 => world.join("desk-9"),
                _ => if let Some((key, _)) = world.pods().pop() { world.delete(&key) },
            }
            world.reconcile_nodes();
        }
        world.revive_node("desk-0");
        world.reconcile_nodes();
        world.run();
        let image = world.value(&key)["spec"]["template"]["spec"]["containers"][0]["image"].clone();
        let expected: Vec<(String, String)> = world
            .reports.keys().map(|node| (node.clone(), image.as_str().unwrap().to_owned())).collect();
        prop_assert_eq!(places(&world), expected);
        prop_assert_eq!(world.value(&key)["status"]["numberAvailable"].as_u64(), Some(world.reports.len() as u64));
    }
}
