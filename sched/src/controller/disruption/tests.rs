use super::*;
use crate::controller::harness::World;
use k8s_openapi::api::apps::v1::Deployment;
use serde_json::json;

fn deployment(world: &mut World, replicas: i32) -> Key {
    let template = json!({"metadata": {"labels": {"app": "web"}}, "spec": {"containers": [
        {"name": "main", "image": "web:1"}
    ]}});
    let spec =
        json!({"replicas": replicas, "selector": {"matchLabels": {"app": "web"}}, "template": template});
    world.create::<Deployment>("default", "web", json!({"metadata": {}, "spec": spec}))
}

fn budget(world: &mut World, bound: &str, value: Value) -> Key {
    let spec = json!({bound: value, "selector": {"matchLabels": {"app": "web"}}});
    world.create::<PodDisruptionBudget>("default", "web", json!({"metadata": {}, "spec": spec}))
}

#[test]
fn what_may_go_is_what_is_more_than_needed() {
    for (bound, value, desired, allowed) in [
        ("minAvailable", json!(3), 3, 1),
        ("minAvailable", json!("50%"), 2, 2),
        ("maxUnavailable", json!(1), 3, 1),
        ("maxUnavailable", json!("30%"), 2, 2),
        ("minAvailable", json!(4), 4, 0),
    ] {
        let mut world = World::with_nodes(1, 2);
        deployment(&mut world, 4);
        let key = budget(&mut world, bound, value.clone());
        world.run();
        let status = &world.value(&key)["status"];
        assert_eq!(
            (&status["expectedPods"], &status["currentHealthy"]),
            (&json!(4), &json!(4)),
            "{bound} {value}"
        );
        assert_eq!(
            (&status["desiredHealthy"], &status["disruptionsAllowed"]),
            (&json!(desired), &json!(allowed)),
            "{bound} {value}"
        );
        let condition = &status["conditions"][0];
        assert_eq!(condition["status"], if allowed > 0 { "True" } else { "False" });
    }
}

#[test]
fn it_follows_pods_and_their_number() {
    let mut world = World::with_nodes(2, 2);
    let web = deployment(&mut world, 3);
    let key = budget(&mut world, "maxUnavailable", json!(1));
    world.run();
    assert_eq!(world.value(&key)["status"]["disruptionsAllowed"], 1);
    world.edit(&web, |value| value["spec"]["replicas"] = json!(5));
    world.run();
    assert_eq!(world.value(&key)["status"]["expectedPods"], 5);
    let pod = world.pods()[0].0.clone();
    world.delete(&pod);
    let mut lowest = 1;
    world.settle(&mut |_| crate::controller::harness::Act::Serve, &mut |world| {
        lowest = lowest.min(world.value(&key)["status"]["disruptionsAllowed"].as_i64().unwrap());
    });
    assert_eq!((lowest, &world.value(&key)["status"]["disruptionsAllowed"]), (0, &json!(1)));
}

#[test]
fn an_eviction_takes_one_and_the_next_is_told_why_not() {
    let mut world = World::with_nodes(3, 2);
    deployment(&mut world, 3);
    let key = budget(&mut world, "minAvailable", json!(2));
    let pod = |world: &World, at: usize| world.pods()[at].1.clone();
    world.run();
    let write = evict(&world.store, &pod(&world, 0)).unwrap().unwrap();
    world.txn(write.into());
    let spent = Blocked::Spent { budget: "web".into(), needed: 2, healthy: 3 };
    assert_eq!(evict(&world.store, &pod(&world, 1)), Err(spent.clone()));
    assert_eq!(spent.to_string(), "The disruption budget web needs 2 healthy pods and has 3 currently");
    world.edit(&key, |value| value["spec"]["minAvailable"] = json!(1));
    assert_eq!(evict(&world.store, &pod(&world, 1)), Err(Blocked::NotCounted("web".into())));
    world.run();
    assert!(evict(&world.store, &pod(&world, 1)).unwrap().is_some());
    let all = json!({"metadata": {}, "spec": {"maxUnavailable": 1, "selector": {}}});
    world.create::<PodDisruptionBudget>("default", "all", all);
    assert_eq!(evict(&world.store, &pod(&world, 1)), Err(Blocked::Several));
    world.delete(&key);
    let mut unready = pod(&world, 1);
    unready.status.as_mut().unwrap().conditions = None;
    world.run();
    assert_eq!(evict(&world.store, &unready), Ok(None), "it does not serve, and enough others do");
}

#[test]
fn without_a_bound_nothing_may_go() {
    let mut world = World::with_nodes(4, 1);
    deployment(&mut world, 2);
    let key = budget(&mut world, "unhealthyPodEvictionPolicy", json!("AlwaysAllow"));
    world.run();
    let status = &world.value(&key)["status"];
    assert_eq!((&status["expectedPods"], &status["disruptionsAllowed"]), (&json!(0), &json!(0)));
}

#[test]
fn only_news_that_count_are_counted() {
    let mut world = World::with_nodes(5, 1);
    deployment(&mut world, 1);
    let key = budget(&mut world, "minAvailable", json!(1));
    world.run();
    let (pod, seen) = (world.pods()[0].0.clone(), world.store.revision());
    let concerned = |world: &World| {
        let changes = world.store.changes_after(seen).unwrap();
        let last = changes.last().unwrap();
        DisruptionController.concerned(&world.store, last)
    };
    world.edit(&pod, |value| value["status"]["podIP"] = json!("10.0.0.9"));
    assert_eq!(concerned(&world), []);
    world.edit(&pod, |value| value["status"]["conditions"] = json!([]));
    assert_eq!(concerned(&world), [key]);
}
