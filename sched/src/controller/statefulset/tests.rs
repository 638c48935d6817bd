use super::*;
use crate::controller::harness::{Act, World};
use crate::controller::identity::IDENTITY_FREED_AFTER;
use proptest::prelude::*;
use serde_json::{Value, json};
use std::collections::BTreeSet;

fn manifest(replicas: i32) -> Value {
    json!({
        "metadata": {},
        "spec": {
            "replicas": replicas,
            "serviceName": "db",
            "selector": {"matchLabels": {"app": "db"}},
            "template": {
                "metadata": {"labels": {"app": "db"}},
                "spec": {"containers": [{"name": "main", "image": "db:1"}]}
            }
        }
    })
}

fn names(world: &World) -> Vec<String> {
    world.pods().into_iter().map(|(key, _)| key.name).collect()
}

fn images(world: &World) -> Vec<String> {
    let image = |pod: &Pod| pod.spec.as_ref().unwrap().containers[0].image.clone().unwrap();
    world.pods().iter().map(|(_, pod)| image(pod)).collect()
}

fn set_image(world: &mut World, key: &Key, image: &str) {
    world.edit(key, |value| value["spec"]["template"]["spec"]["containers"][0]["image"] = json!(image));
}

#[test]
fn pods_have_their_own_names_and_come_one_after_the_other() {
    let mut world = World::with_nodes(1, 2);
    let key = world.create::<StatefulSet>("default", "db", manifest(3));
    let mut most = 0;
    world.settle(&mut |_| Act::Serve, &mut |world| {
        let waiting = world.pods().iter().filter(|(_, pod)| !pods::is_ready(pod)).count();
        assert!(waiting <= 1, "the next is made when the one before is ready");
        most = most.max(world.pods().len());
    });
    assert_eq!((names(&world), most), (vec!["db-0".into(), "db-1".into(), "db-2".into()], 3));
    let (_, pod) = &world.pods()[1];
    let spec = pod.spec.as_ref().unwrap();
    assert_eq!((spec.hostname.as_deref(), spec.subdomain.as_deref()), (Some("db-1"), Some("db")));
    assert_eq!(pod.metadata.labels.as_ref().unwrap()[member::POD_NAME], "db-1");
    let status = &world.value(&key)["status"];
    assert_eq!((&status["readyReplicas"], &status["updatedReplicas"]), (&json!(3), &json!(3)));
    assert_eq!(status["currentRevision"], status["updateRevision"]);
}

#[test]
fn a_smaller_set_loses_the_last_ones_one_at_a_time() {
    let mut world = World::with_nodes(2, 2);
    let key = world.create::<StatefulSet>("default", "db", manifest(4));
    world.run();
    world.edit(&key, |value| value["spec"]["replicas"] = json!(1));
    world.settle(&mut |_| Act::Serve, &mut |world| {
        let going = world.pods().iter().filter(|(_, pod)| pods::is_terminating(pod)).count();
        assert!(going <= 1);
        let left = names(world);
        assert_eq!(left, (0..left.len()).map(|number| format!("db-{number}")).collect::<Vec<_>>());
    });
    assert_eq!(names(&world), ["db-0"]);
}

#[test]
fn parallel_pods_do_not_wait_for_each_other() {
    let mut world = World::with_nodes(3, 2);
    let mut parallel = manifest(5);
    parallel["spec"]["podManagementPolicy"] = json!("Parallel");
    world.create::<StatefulSet>("default", "db", parallel);
    let mut most = 0;
    world.settle(&mut |_| Act::Serve, &mut |world| {
        most = most.max(world.pods().iter().filter(|(_, pod)| !pods::is_ready(pod)).count());
    });
    assert_eq!((names(&world).len(), most), (5, 5));
}

#[test]
fn a_roll_out_goes_from_the_last_to_the_first_and_stops_at_the_partition() {
    let mut world = World::with_nodes(4, 2);
    let mut partitioned = manifest(3);
    partitioned["spec"]["updateStrategy"] =
        json!({"type": "RollingUpdate", "rollingUpdate": {"partition": 1}});
    let key = world.create::<StatefulSet>("default", "db", partitioned);
    world.run();
    set_image(&mut world, &key, "db:2");
    world.settle(&mut |_| Act::Serve, &mut |world| {
        let ready =
            world.pods().iter().filter(|(_, pod)| pods::is_active(pod) && pods::is_ready(pod)).count();
        assert!(ready >= 2, "one at a time");
        let new: Vec<bool> = images(world).iter().map(|image| image == "db:2").collect();
        assert!(new.is_sorted(), "from the last: {new:?}");
    });
    assert_eq!(images(&world), ["db:1", "db:2", "db:2"]);
    // One below the partition comes back as what it was.
    world.delete(&Key::of::<Pod>("default", "db-0"));
    world.run();
    assert_eq!(images(&world), ["db:1", "db:2", "db:2"]);
    world.edit(&key, |value| value["spec"]["updateStrategy"]["rollingUpdate"]["partition"] = json!(0));
    world.run();
    assert_eq!(images(&world), ["db:2", "db:2", "db:2"]);
    let status = &world.value(&key)["status"];
    assert_eq!(status["currentRevision"], status["updateRevision"]);
    let revisions = world.store.list_as::<ControllerRevision>(None);
    assert_eq!(revisions.len(), 2);
    // Back to the first: no third revision, and it is the newest.
    set_image(&mut world, &key, "db:1");
    world.run();
    assert_eq!(images(&world), ["db:1", "db:1", "db:1"]);
    let revisions = world.store.list_as::<ControllerRevision>(None);
    assert_eq!(revisions.iter().map(|one| one.revision).collect::<BTreeSet<_>>().len(), 2);
}

#[test]
fn on_delete_replaces_nothing_by_itself() {
    let mut world = World::with_nodes(5, 2);
    let mut by_hand = manifest(2);
    by_hand["spec"]["updateStrategy"] = json!({"type": "OnDelete"});
    let key = world.create::<StatefulSet>("default", "db", by_hand);
    world.run();
    set_image(&mut world, &key, "db:2");
    world.run();
    assert_eq!(images(&world), ["db:1", "db:1"]);
    world.delete(&Key::of::<Pod>("default", "db-0"));
    world.run();
    assert_eq!(images(&world), ["db:2", "db:1"]);
}

#[test]
fn old_templates_are_forgotten() {
    let mut world = World::with_nodes(6, 1);
    let mut short = manifest(1);
    short["spec"]["revisionHistoryLimit"] = json!(2);
    let key = world.create::<StatefulSet>("default", "db", short);
    for version in 1..8 {
        set_image(&mut world, &key, &format!("db:{version}"));
        world.run();
    }
    assert_eq!(world.store.list_as::<ControllerRevision>(None).len(), 3, "two and the newest");
}

#[test]
fn an_orphan_is_adopted_only_under_a_name_of_the_set() {
    let mut world = World::with_nodes(7, 1);
    let orphan = json!({"metadata": {"labels": {"app": "db"}}, "spec": {"containers": [{"name": "main"}]}});
    let stranger = world.create::<Pod>("default", "elsewhere", orphan.clone());
    let own = world.create::<Pod>("default", "db-1", orphan);
    world.create::<StatefulSet>("default", "db", manifest(2));
    world.run();
    assert!(world.store.get(&stranger).unwrap().owner_uids().next().is_none());
    assert!(world.store.get(&own).unwrap().owner_uids().next().is_some());
    assert_eq!(names(&world), ["db-0", "db-1", "elsewhere"]);
}

#[test]
fn a_silent_desktops_pod_is_made_again_only_when_it_has_surely_stopped() {
    let mut world = World::with_nodes(8, 2);
    let key = world.create::<StatefulSet>("default", "db", manifest(2));
    world.run();
    let pod = Key::of::<Pod>("default", "db-0");
    let node = world.value(&pod)["spec"]["nodeName"].as_str().unwrap().to_owned();
    let uid = world.store.get(&pod).unwrap().uid().to_owned();
    world.kill_node(&node);
    for (silent, acting, freed) in [(2, 100, false), (11, 100, false), (500, 11, false), (12, 12, true)] {
        world.reports.get_mut(&node).unwrap().since = Duration::from_secs(silent);
        world.config.acting_for = Duration::from_secs(acting);
        world.reconcile_nodes();
        world.run();
        let same = world.store.get(&pod).is_some_and(|object| object.uid() == uid);
        assert_eq!(same, !freed, "silent for {silent} s, acting for {acting} s");
    }
    assert_eq!(IDENTITY_FREED_AFTER, Duration::from_secs(12));
    assert_ne!(world.value(&pod)["spec"]["nodeName"], json!(node));
    assert_eq!(world.value(&key)["status"]["readyReplicas"], 2);
    assert_eq!(world.said("IdentityHeld").len(), 1, "told once: {:?}", world.said("IdentityHeld"));
}

#[test]
fn a_desktop_that_comes_back_in_time_keeps_its_identity() {
    let mut world = World::with_nodes(9, 2);
    world.create::<StatefulSet>("default", "db", manifest(1));
    world.run();
    let pod = Key::of::<Pod>("default", "db-0");
    let (uid, node) =
        (world.value(&pod)["metadata"]["uid"].clone(), world.value(&pod)["spec"]["nodeName"].clone());
    let node = node.as_str().unwrap();
    world.config.acting_for = Duration::from_secs(60);
    world.kill_node(node);
    world.reconcile_nodes();
    world.run();
    let held = |world: &World| world.value(&pod)["status"]["conditions"].to_string().contains("IdentityHeld");
    assert!(held(&world));
    world.revive_node(node);
    world.reconcile_nodes();
    world.run();
    assert!(!held(&world));
    assert_eq!(world.value(&pod)["metadata"]["uid"], uid);
}

#[test]
fn in_parallel_what_is_forbidden_is_asked_for_once() {
    let mut world = World::with_nodes(31, 1);
    let quota = json!({"metadata": {}, "spec": {"hard": {"pods": "1"}}});
    world.create::<k8s_openapi::api::core::v1::ResourceQuota>("default", "one", quota);
    let mut manifest = manifest(5);
    manifest["spec"]["podManagementPolicy"] = json!("Parallel");
    manifest["metadata"]["annotations"] = json!({"kubernetes.io/change-cause": "first"});
    world.create::<StatefulSet>("default", "db", manifest);
    world.step(&mut |_| Act::Serve);
    world.run();
    assert_eq!(names(&world), ["db-0"]);
    let reconciled = world.said("FailedCreate").len();
    assert!(reconciled < 8, "{reconciled}: one refusal for each look, not one for each pod");
    let revision = &world.store.list_as::<ControllerRevision>(None)[0];
    let labels = revision.metadata.labels.as_ref().unwrap();
    assert!(revision.metadata.name.as_ref().unwrap().ends_with(&labels["controller.kubernetes.io/hash"]));
    assert_eq!(revision.metadata.annotations.as_ref().unwrap()["kubernetes.io/change-cause"], "first");
}

#[test]
fn without_room_for_its_history_nothing_is_made() {
    let mut world = World::with_nodes(32, 1);
    let hard = json!({"count/controllerrevisions.apps": "0"});
    let quota = json!({"metadata": {}, "spec": {"hard": hard}});
    world.create::<k8s_openapi::api::core::v1::ResourceQuota>("default", "none", quota);
    world.create::<StatefulSet>("default", "db", manifest(1));
    world.run();
    assert!(names(&world).is_empty());
    let said = world.said("FailedCreate")[0];
    assert!(said.starts_with("Error creating: controllerrevisions.apps \"db-"), "{said}");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    /// Whatever happens: no number twice, and no gap that stays.
    #[test]
    fn numbers_are_whole_in_the_end(seed in any::<u64>(), events in prop::collection::vec(0..6_usize, 1..12)) {
        let mut world = World::with_nodes(seed, 3);
        world.config.acting_for = Duration::from_secs(60);
        let key = world.create::<StatefulSet>("default", "db", manifest(3));
        for event in events {
            for _ in 0..20 {
                world.step(&mut |_| Act::Serve);
            }
            match event {
                0 => world.edit(&key, |value| value["spec"]["replicas"] = json!(5)),
                1 => world.edit(&key, |value| value["spec"]["replicas"] = json!(2)),
                2 => set_image(&mut world, &key, "db:2"),
                3 => world.kill_node("desk-0"),
                4 => world.revive_node("desk-0"),
                _ => if let Some((key, _)) = world.pods().pop() { world.delete(&key) },
            }
            world.reconcile_nodes();
        }
        if let Some(report) = world.reports.get_mut("desk-0").filter(|report| !report.alive) {
            report.since = IDENTITY_FREED_AFTER;
        }
        world.reconcile_nodes();
        world.run();
        let wanted = world.value(&key)["spec"]["replicas"].as_u64().unwrap();
        prop_assert_eq!(names(&world), (0..wanted).map(|number| format!("db-{number}")).collect::<Vec<_>>());
        prop_assert_eq!(world.value(&key)["status"]["readyReplicas"].as_u64(), Some(wanted));
        prop_assert_eq!(world.value(&key)["status"]["updatedReplicas"].as_u64(), Some(wanted));
    }
}
