use super::*;
use crate::controller::harness::{Act, World};
use proptest::prelude::*;
use serde_json::{Value, json};
use std::collections::BTreeMap;

fn manifest(spec: Value) -> Value {
    let mut spec = spec;
    spec["template"] = json!({
        "metadata": {},
        "spec": {"restartPolicy": "Never", "containers": [{"name": "main", "image": "busybox"}]}
    });
    json!({"metadata": {}, "spec": spec})
}

fn indexed(completions: i32, parallelism: i32) -> Value {
    json!({"completionMode": "Indexed", "completions": completions, "parallelism": parallelism})
}

fn run(world: &mut World, mut act: impl FnMut(&Pod) -> Act) {
    world.settle(&mut act, &mut |_| ());
}

fn ended<'a>(world: &'a World, key: &Key) -> Option<(&'a str, &'a str)> {
    let conditions = world.value(key)["status"]["conditions"].as_array()?;
    let last = conditions.iter().find(|one| one["type"] == "Complete" || one["type"] == "Failed")?;
    Some((last["type"].as_str()?, last["reason"].as_str()?))
}

#[test]
fn an_indexed_job_completes() {
    let mut world = World::with_nodes(1, 3);
    let key = world.create::<Job>("default", "sum", manifest(indexed(5, 2)));
    world.settle(&mut |_| Act::Succeed, &mut |world| {
        assert!(world.pods().iter().filter(|(_, pod)| pods::is_active(pod)).count() <= 2);
    });
    let status = &world.value(&key)["status"];
    assert_eq!(status["completedIndexes"], "0-4");
    assert_eq!(status["succeeded"], 5);
    assert_eq!(status["active"], 0);
    assert_eq!(ended(&world, &key), Some(("Complete", "CompletionsReached")));
    let (_, pod) = &world.pods()[0];
    let index = pod.metadata.annotations.as_ref().unwrap()[birth::INDEX].clone();
    assert_eq!(pod.spec.as_ref().unwrap().hostname, Some(format!("sum-{index}")));
    assert!(pod.metadata.finalizers.as_ref().is_none_or(Vec::is_empty), "a counted pod is held no longer");
    assert_eq!(world.said("Completed"), ["Job completed"]);
}

#[test]
fn a_job_gives_up_at_its_backoff_limit_and_waits_longer_each_time() {
    let mut world = World::with_nodes(2, 3);
    let key = world.create::<Job>("default", "bad", manifest(json!({"backoffLimit": 2})));
    for (wait, failed) in [(0, 1), (9, 1), (1, 2), (19, 2), (1, 3)] {
        world.advance(wait);
        run(&mut world, |_| Act::Fail(1));
        assert_eq!(world.value(&key)["status"]["failed"], failed, "after {wait} s more");
    }
    assert_eq!(ended(&world, &key), Some(("Failed", "BackoffLimitExceeded")));
}

#[test]
fn a_deadline_ends_a_job_and_its_pods() {
    let mut world = World::with_nodes(3, 3);
    let key = world.create::<Job>("default", "slow", manifest(json!({"activeDeadlineSeconds": 30})));
    run(&mut world, |_| Act::Serve);
    assert_eq!(ended(&world, &key), None);
    world.advance(31);
    run(&mut world, |_| Act::Serve);
    assert_eq!(ended(&world, &key), Some(("Failed", "DeadlineExceeded")));
    assert!(world.pods().iter().all(|(_, pod)| pods::is_finished(pod)));
}

#[test]
fn a_finished_job_goes_after_its_time_to_live_with_its_pods() {
    let mut world = World::with_nodes(4, 3);
    let key = world.create::<Job>("default", "brief", manifest(json!({"ttlSecondsAfterFinished": 60})));
    run(&mut world, |_| Act::Succeed);
    world.advance(59);
    run(&mut world, |_| Act::Succeed);
    assert!(world.store.get(&key).is_some());
    world.advance(1);
    run(&mut world, |_| Act::Succeed);
    assert!(world.store.get(&key).is_none());
    assert!(world.pods().is_empty());
}

#[test]
fn a_suspended_job_runs_nothing_and_resumes() {
    let mut world = World::with_nodes(5, 3);
    let mut spec = indexed(4, 2);
    spec["suspend"] = json!(true);
    let key = world.create::<Job>("default", "later", manifest(spec));
    run(&mut world, |_| Act::Serve);
    assert!(world.pods().is_empty());
    world.edit(&key, |value| value["spec"]["suspend"] = json!(false));
    run(&mut world, |_| Act::Serve);
    assert_eq!(world.pods().len(), 2);
    world.edit(&key, |value| value["spec"]["suspend"] = json!(true));
    run(&mut world, |_| Act::Serve);
    assert!(world.pods().iter().all(|(_, pod)| !pods::is_active(pod)));
    world.edit(&key, |value| value["spec"]["suspend"] = json!(false));
    run(&mut world, |_| Act::Succeed);
    assert_eq!(ended(&world, &key), Some(("Complete", "CompletionsReached")));
}

#[test]
fn a_failure_policy_decides_by_exit_code() {
    let rule = |action: &str, code: i32| json!({"action": action, "onExitCodes": {"operator": "In", "values": [code]}});
    let policy = json!({"rules": [rule("Ignore", 3), rule("FailJob", 42)]});
    let mut world = World::with_nodes(6, 3);
    let spec = json!({"backoffLimit": 0, "podFailurePolicy": policy});
    let ignored = world.create::<Job>("default", "ignored", manifest(spec.clone()));
    let mut tries = 0;
    run(&mut world, |pod| {
        tries += i32::from(pods::phase(pod) == "Running");
        if tries < 4 { Act::Fail(3) } else { Act::Succeed }
    });
    assert_eq!(ended(&world, &ignored), Some(("Complete", "CompletionsReached")));
    let failing = world.create::<Job>("default", "failing", manifest(spec));
    run(&mut world, |_| Act::Fail(42));
    assert_eq!(ended(&world, &failing), Some(("Failed", "PodFailurePolicy")));
}

#[test]
fn an_index_that_fails_too_often_does_not_stop_the_others() {
    let mut world = World::with_nodes(7, 3);
    let mut spec = indexed(4, 4);
    spec["backoffLimitPerIndex"] = json!(1);
    let key = world.create::<Job>("default", "some", manifest(spec));
    for _ in 0..4 {
        run(&mut world, |pod| {
            let index = &pod.metadata.annotations.as_ref().unwrap()[birth::INDEX];
            if index == "2" { Act::Fail(1) } else { Act::Succeed }
        });
        world.advance(60);
    }
    let status = &world.value(&key)["status"];
    assert_eq!((&status["completedIndexes"], &status["failedIndexes"]), (&json!("0,1,3"), &json!("2")));
    assert_eq!(status["failed"], 2);
    assert_eq!(ended(&world, &key), Some(("Failed", "FailedIndexes")));
}

#[test]
fn a_lost_node_costs_no_attempt() {
    let mut world = World::with_nodes(8, 3);
    let mut spec = indexed(6, 6);
    spec["backoffLimit"] = json!(0);
    let key = world.create::<Job>("default", "skim", manifest(spec));
    run(&mut world, |_| Act::Serve);
    world.kill_node("desk-1");
    run(&mut world, |_| Act::Serve);
    assert_eq!(world.value(&key)["status"]["active"], 6);
    run(&mut world, |_| Act::Succeed);
    assert_eq!(ended(&world, &key), Some(("Complete", "CompletionsReached")));
    assert_eq!(world.value(&key)["status"]["failed"], 0);
}

#[test]
fn pods_of_a_deleted_job_are_not_held() {
    let mut world = World::with_nodes(9, 3);
    let key = world.create::<Job>("default", "gone", manifest(indexed(3, 3)));
    run(&mut world, |_| Act::Serve);
    world.delete(&key);
    run(&mut world, |_| Act::Serve);
    assert!(world.pods().is_empty(), "{:?}", world.pods());
}

#[test]
fn a_job_that_may_not_have_its_pods_waits() {
    let mut world = World::with_nodes(21, 1);
    let quota = json!({"metadata": {}, "spec": {"hard": {"pods": "0"}}});
    world.create::<k8s_openapi::api::core::v1::ResourceQuota>("default", "none", quota);
    let key =
        world.create::<Job>("default", "sum", manifest(json!({"completions": 900, "parallelism": 900})));
    run(&mut world, |_| Act::Succeed);
    assert_eq!((world.pods().len(), &world.value(&key)["status"]["active"]), (0, &json!(0)));
    let said = world.said("FailedCreate").len();
    assert!((1..5).contains(&said), "{said}: it is not asked again without a pause");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(60))]

    /// Failing pods, dying and returning nodes, deleted pods: each index is counted once and then left alone.
    #[test]
    fn every_index_finishes_exactly_once(seed: u64, completions in 1..9_i32, parallelism in 1..5_i32) {
        let mut world = World::with_nodes(seed, 3);
        let mut spec = indexed(completions, parallelism);
        spec["backoffLimit"] = json!(1000);
        let key = world.create::<Job>("default", "skim", manifest(spec));
        let mut done = indexes::Indexes::default();
        let mut made: BTreeMap<i32, String> = BTreeMap::new();
        for step in 0..4000 {
            let chaos = step < 400;
            let mut luck = world.dice.clone();
            let quiet = !world.step(&mut |_| match luck.roll(4) {
                0 if chaos => Act::Fail(1),
                1 | 2 if chaos => Act::Serve,
                _ => Act::Succeed,
            });
            let text = world.value(&key)["status"]["completedIndexes"].as_str().unwrap_or_default();
            let now = indexes::Indexes::parse(text, completions);
            prop_assert!(now.contains_all(&done), "{now} forgets some of {done}");
            for (pod_key, pod) in world.pods() {
                let Some(loaded) = Loaded::<Pod>::get(&world.store, &pod_key) else { continue };
                let Some(index) = birth::index_of(&loaded) else { continue };
                let uid = pod.metadata.uid.clone().unwrap_or_default();
                if pods::is_active(&pod) && !done.contains(index) {
                    made.insert(index, uid);
                } else if pods::is_active(&pod) && pods::phase(&pod) == "Pending" {
                    prop_assert_eq!(made.get(&index), Some(&uid), "finished index {} runs again", index);
                }
            }
            done = now;
            if chaos {
                match world.dice.roll(40) {
                    0 => world.kill_node("desk-0"),
                    1 => world.revive_node("desk-0"),
                    2 => world.kill_node("desk-1"),
                    3 => world.revive_node("desk-1"),
                    4 => if let Some((pod, _)) = world.pods().first() { world.delete(pod) },
                    5..8 => world.advance(30),
                    _ => {}
                }
            } else if quiet {
                world.advance(400);
                if ended(&world, &key).is_some() {
                    break;
                }
            }
        }
        let status = &world.value(&key)["status"];
        prop_assert_eq!(ended(&world, &key), Some(("Complete", "CompletionsReached")), "{}", status);
        prop_assert_eq!(&status["succeeded"], completions);
    }

    /// Without indexes, too: what succeeded is counted once, whatever happens to pods.
    #[test]
    fn successes_are_counted_once(seed: u64, completions in 1..6_i32) {
        let mut world = World::with_nodes(seed, 2);
        let spec = json!({"completions": completions, "parallelism": 3});
        let key = world.create::<Job>("default", "count", manifest(spec));
        let mut succeeded: BTreeMap<String, ()> = BTreeMap::new();
        for step in 0..3000 {
            if !world.step(&mut |_| Act::Succeed) {
                break;
            }
            for (_, pod) in world.pods() {
                if pods::phase(&pod) == "Succeeded" {
                    succeeded.insert(pod.metadata.uid.clone().unwrap_or_default(), ());
                }
            }
            if step < 200 && world.dice.roll(10) == 0 && let Some((pod, _)) = world.pods().first() {
                world.delete(pod);
            }
            let counted = world.value(&key)["status"]["succeeded"].as_u64().unwrap_or(0) as usize;
            prop_assert!(counted <= succeeded.len(), "{counted} counted of {}", succeeded.len());
        }
        prop_assert_eq!(ended(&world, &key), Some(("Complete", "CompletionsReached")));
        prop_assert_eq!(&world.value(&key)["status"]["succeeded"], completions);
    }
}

#[test]
fn two_plans_of_the_same_state_make_pods_once() {
    let mut world = World::with_nodes(10, 1);
    let key = world.create::<Job>("default", "once", manifest(indexed(4, 4)));
    let plan = JobController.reconcile(&world.store, &key, &world.now);
    for txn in plan.writes.iter().chain(&plan.writes) {
        world.txn(txn.clone());
    }
    assert_eq!(world.pods().len(), 4);
    let later = JobController.reconcile(&world.store, &key, &world.now);
    assert!(later.writes.is_empty(), "{later:?}");
}
