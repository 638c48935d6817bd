use super::*;
use crate::controller::harness::{Act, World};
use k8s_openapi::api::core::v1::Pod;
use proptest::prelude::*;
use serde_json::json;

fn manifest(replicas: i32, strategy: Value) -> Value {
    json!({
        "metadata": {},
        "spec": {
            "replicas": replicas,
            "strategy": strategy,
            "selector": {"matchLabels": {"app": "web"}},
            "template": {
                "metadata": {"labels": {"app": "web"}},
                "spec": {"containers": [{"name": "main", "image": "web:1"}]}
            }
        }
    })
}

fn rolling(surge: Value, unavailable: Value) -> Value {
    json!({"type": "RollingUpdate", "rollingUpdate": {"maxSurge": surge, "maxUnavailable": unavailable}})
}

fn set_image(world: &mut World, key: &Key, image: &str) {
    world.edit(key, |value| value["spec"]["template"]["spec"]["containers"][0]["image"] = json!(image));
}

fn images(world: &World) -> Vec<String> {
    let image = |pod: &Pod| pod.spec.as_ref().unwrap().containers[0].image.clone().unwrap();
    world.pods().iter().map(|(_, pod)| image(pod)).collect()
}

fn condition<'a>(world: &'a World, key: &Key, type_: &str) -> (&'a str, &'a str) {
    let conditions = world.value(key)["status"]["conditions"].as_array().unwrap();
    let found = conditions.iter().find(|condition| condition["type"] == type_).unwrap();
    (found["status"].as_str().unwrap(), found["reason"].as_str().unwrap())
}

#[test]
fn a_deployment_comes_up_and_says_so() {
    let mut world = World::with_nodes(1, 3);
    let key = world.create::<Deployment>("default", "web", manifest(3, json!(null)));
    world.run();
    let status = &world.value(&key)["status"];
    for field in ["replicas", "updatedReplicas", "readyReplicas", "availableReplicas"] {
        assert_eq!(status[field], 3, "{field}");
    }
    assert_eq!(status["unavailableReplicas"], 0);
    assert_eq!(status["observedGeneration"], 1);
    assert_eq!(condition(&world, &key, "Available"), ("True", "MinimumReplicasAvailable"));
    assert_eq!(condition(&world, &key, "Progressing"), ("True", "NewReplicaSetAvailable"));
    assert_eq!(world.value(&key)["metadata"]["annotations"]["deployment.kubernetes.io/revision"], "1");
    assert_eq!(world.said("ScalingReplicaSet").len(), 1);
}

#[test]
fn a_rollback_takes_the_old_replica_set_and_a_new_revision() {
    let mut world = World::with_nodes(2, 3);
    let key = world.create::<Deployment>("default", "web", manifest(2, json!(null)));
    world.run();
    set_image(&mut world, &key, "web:2");
    world.run();
    assert_eq!(images(&world), ["web:2", "web:2"]);
    set_image(&mut world, &key, "web:1");
    world.run();
    assert_eq!(images(&world), ["web:1", "web:1"]);
    assert_eq!(world.value(&key)["metadata"]["annotations"]["deployment.kubernetes.io/revision"], "3");
    assert_eq!(world.store.list_as::<ReplicaSet>(None).len(), 2);
}

#[test]
fn history_is_bounded() {
    let mut world = World::with_nodes(3, 3);
    let mut wanted = manifest(1, json!(null));
    wanted["spec"]["revisionHistoryLimit"] = json!(2);
    let key = world.create::<Deployment>("default", "web", wanted);
    for number in 0..6 {
        set_image(&mut world, &key, &format!("web:{number}"));
        world.run();
    }
    assert_eq!(world.store.list_as::<ReplicaSet>(None).len(), 3, "the current one and two to go back to");
}

#[test]
fn recreate_never_mixes_revisions() {
    let mut world = World::with_nodes(4, 3);
    let key = world.create::<Deployment>("default", "web", manifest(3, json!({"type": "Recreate"})));
    world.run();
    set_image(&mut world, &key, "web:2");
    world.settle(&mut |_| Act::Serve, &mut |world| {
        let mut images = images(world);
        images.sort();
        images.dedup();
        assert!(images.len() <= 1, "{images:?} at once");
    });
    assert_eq!(images(&world).len(), 3);
}

#[test]
fn a_paused_deployment_scales_but_does_not_roll() {
    let mut world = World::with_nodes(5, 3);
    let key = world.create::<Deployment>("default", "web", manifest(2, json!(null)));
    world.run();
    world.edit(&key, |value| value["spec"]["paused"] = json!(true));
    set_image(&mut world, &key, "web:2");
    world.edit(&key, |value| value["spec"]["replicas"] = json!(4));
    world.run();
    assert_eq!(images(&world), ["web:1"; 4]);
    assert_eq!(condition(&world, &key, "Progressing"), ("Unknown", "DeploymentPaused"));
    world.edit(&key, |value| value["spec"]["paused"] = json!(false));
    world.run();
    assert_eq!(images(&world), ["web:2"; 4]);
}

#[test]
fn a_rollout_that_hangs_says_so_after_its_deadline() {
    let mut world = World::with_nodes(6, 3);
    let mut wanted = manifest(2, json!(null));
    wanted["spec"]["progressDeadlineSeconds"] = json!(60);
    wanted["spec"]["template"]["spec"]["nodeSelector"] = json!({"gpu": "yes"});
    let key = world.create::<Deployment>("default", "web", wanted);
    world.run();
    assert_eq!(condition(&world, &key, "Available"), ("False", "MinimumReplicasUnavailable"));
    world.advance(61);
    world.run();
    assert_eq!(condition(&world, &key, "Progressing"), ("False", "ProgressDeadlineExceeded"));
}

#[test]
fn a_broken_revision_does_not_block_the_one_that_mends_it() {
    let mut world = World::with_nodes(7, 3);
    let key = world.create::<Deployment>("default", "web", manifest(4, json!(null)));
    world.run();
    world.edit(&key, |value| value["spec"]["template"]["spec"]["nodeSelector"] = json!({"gpu": "yes"}));
    world.run();
    assert!(world.pods().iter().any(|(_, pod)| pods::node_of(pod).is_none()));
    world.edit(&key, |value| value["spec"]["template"]["spec"]["nodeSelector"] = json!(null));
    set_image(&mut world, &key, "web:3");
    world.run();
    assert_eq!(images(&world), ["web:3"; 4]);
}

#[test]
fn a_change_of_size_in_the_middle_of_a_rollout_is_shared_out() {
    let mut world = World::with_nodes(8, 3);
    let key = world.create::<Deployment>("default", "web", manifest(10, rolling(json!(3), json!(2))));
    world.run();
    // The new revision cannot run, so the rollout stands still with both sizes above zero.
    world.edit(&key, |value| value["spec"]["template"]["spec"]["nodeSelector"] = json!({"gpu": "yes"}));
    world.run();
    world.edit(&key, |value| value["spec"]["replicas"] = json!(15));
    world.run();
    let mut sizes: Vec<i32> = world
        .store
        .list_as::<ReplicaSet>(None)
        .iter()
        .map(|set| set.spec.as_ref().unwrap().replicas.unwrap())
        .collect();
    sizes.sort_unstable();
    // The example of Kubernetes' documentation: 8 and 5 become 11 and 7.
    assert_eq!(sizes, [7, 11]);
}

#[test]
fn it_says_what_its_namespace_forbids() {
    let mut world = World::with_nodes(41, 1);
    let hard = json!({"pods": "1", "count/replicasets.apps": "1"});
    let quota = json!({"metadata": {}, "spec": {"hard": hard}});
    world.create::<k8s_openapi::api::core::v1::ResourceQuota>("default", "few", quota);
    let key = world.create::<Deployment>("default", "web", manifest(2, rolling(json!(1), json!(0))));
    world.run();
    assert_eq!(world.pods().len(), 1);
    assert_eq!(condition(&world, &key, "ReplicaFailure"), ("True", "FailedCreate"));
    set_image(&mut world, &key, "web:2");
    world.run();
    assert_eq!(condition(&world, &key, "Progressing"), ("False", "ReplicaSetCreateError"));
    let said = world.said("ReplicaSetCreateError")[0];
    assert!(said.contains("replicasets.apps \"web-") && said.contains("exceeded quota: few"), "{said}");
    assert_eq!(images(&world), ["web:1"]);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(40))]

    /// However the steps interleave, a rollout serves with enough pods and never has too many.
    #[test]
    fn a_rollout_keeps_its_bounds(
        seed: u64, replicas in 1..7_i32, surge in 0..3_i32, unavailable in 0..3_i32, images in 1..4_usize
    ) {
        let unavailable = if surge == 0 { unavailable.max(1) } else { unavailable };
        let mut world = World::with_nodes(seed, 3);
        let strategy = rolling(json!(surge), json!(unavailable));
        let key = world.create::<Deployment>("default", "web", manifest(replicas, strategy));
        world.run();
        for number in 0..images {
            set_image(&mut world, &key, &format!("web:{}", number + 2));
            let steps = world.dice.roll(60);
            // Sometimes the next change comes in the middle of the rollout.
            for step in 0.. {
                let last = number + 1 == images;
                if (!last && step == steps) || !world.step(&mut |_| Act::Serve) {
                    break;
                }
                let pods = world.pods();
                let active: Vec<_> = pods.iter().filter(|(_, pod)| pods::is_active(pod)).collect();
                let serving = active.iter().filter(|(_, pod)| pods::is_ready(pod)).count() as i32;
                prop_assert!(serving >= replicas - unavailable, "{serving} of {replicas} serve");
                prop_assert!(active.len() as i32 <= replicas + surge, "{} pods", active.len());
                prop_assert!(step < 20_000);
            }
        }
        let wanted = format!("web:{}", images + 1);
        let found = super::tests::images(&world);
        prop_assert_eq!(found.len() as i32, replicas);
        prop_assert!(found.iter().all(|image| *image == wanted));
    }
}
