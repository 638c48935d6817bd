use super::*;
use crate::controller::harness::{Act, World};
use k8s_openapi::api::core::v1::{Pod, ResourceQuota};
use serde_json::{Value, json};

/// The harness begins at 22:13:20, so that a minute begins after 40 s.
const TO_THE_MINUTE: i64 = 40;

fn manifest(schedule: &str, more: Value) -> Value {
    let mut manifest = json!({
        "metadata": {},
        "spec": {
            "schedule": schedule,
            "jobTemplate": {"metadata": {"labels": {"of": "tick"}}, "spec": {"template": {"spec": {
                "restartPolicy": "Never", "containers": [{"name": "main", "image": "tick:1"}]
            }}}}
        }
    });
    for (field, value) in more.as_object().unwrap() {
        manifest["spec"][field] = value.clone();
    }
    manifest
}

fn jobs(world: &World) -> Vec<Key> {
    world.store.list(&JOBS, None).map(|(key, _)| key).collect()
}

fn run(world: &mut World, act: Act) {
    world.settle(&mut |_: &Pod| act, &mut |_| ());
}

#[test]
fn each_minute_has_its_job_and_the_old_ones_go() {
    let mut world = World::with_nodes(1, 2);
    let key = world.create::<CronJob>(
        "default",
        "tick",
        manifest("* * * * *", json!({"timeZone": "Europe/Berlin"})),
    );
    run(&mut world, Act::Succeed);
    assert!(jobs(&world).is_empty(), "the minute has begun already");
    world.advance(TO_THE_MINUTE);
    run(&mut world, Act::Succeed);
    assert_eq!(jobs(&world).len(), 1);
    let job = world.value(&jobs(&world)[0]).clone();
    assert_eq!(job["metadata"]["name"], format!("tick-{}", (1_700_000_000 + TO_THE_MINUTE) / 60));
    assert_eq!(job["metadata"]["labels"], json!({"of": "tick"}));
    let told = &job["metadata"]["annotations"]["batch.kubernetes.io/cronjob-scheduled-timestamp"];
    assert_eq!(told, "2023-11-14T23:14:00+01:00");
    assert_eq!((&job["spec"]["completions"], &job["spec"]["backoffLimit"]), (&json!(1), &json!(6)));
    assert_eq!(job["status"]["succeeded"], 1);
    let status = world.value(&key)["status"].clone();
    assert_eq!(status["lastScheduleTime"], "2023-11-14T22:14:00Z");
    assert_eq!(status["lastSuccessfulTime"], job["status"]["completionTime"]);
    assert!(status["active"].is_null());
    for _ in 0..5 {
        world.advance(60);
        run(&mut world, Act::Succeed);
    }
    assert_eq!(jobs(&world).len(), 3, "three are kept");
    assert_eq!((world.said("SuccessfulCreate").len(), world.said("SawCompletedJob").len()), (12, 6));
    world.delete(&key);
    run(&mut world, Act::Succeed);
    assert!(jobs(&world).is_empty() && world.pods().is_empty());
}

#[test]
fn what_still_runs_is_let_be_waited_for_or_replaced() {
    for (policy, expected) in [("Allow", 3), ("Forbid", 1), ("Replace", 1)] {
        let mut world = World::with_nodes(2, 2);
        let manifest = manifest("* * * * *", json!({"concurrencyPolicy": policy}));
        let key = world.create::<CronJob>("default", "tick", manifest);
        run(&mut world, Act::Serve);
        world.advance(TO_THE_MINUTE);
        run(&mut world, Act::Serve);
        let first = jobs(&world)[0].clone();
        for _ in 0..2 {
            world.advance(60);
            run(&mut world, Act::Serve);
        }
        assert_eq!(jobs(&world).len(), expected, "{policy}");
        let active = world.value(&key)["status"]["active"].as_array().unwrap().len();
        assert_eq!(active, expected, "{policy}");
        assert_eq!(world.store.get(&first).is_some(), policy != "Replace", "{policy}");
    }
}

#[test]
fn nothing_starts_while_suspended_or_when_it_is_too_late() {
    let mut world = World::with_nodes(3, 1);
    let manifest = manifest("* * * * *", json!({"suspend": true, "startingDeadlineSeconds": 20}));
    let key = world.create::<CronJob>("default", "tick", manifest);
    run(&mut world, Act::Succeed);
    world.advance(TO_THE_MINUTE + 25);
    run(&mut world, Act::Succeed);
    assert!(jobs(&world).is_empty());
    world.edit(&key, |value| value["spec"]["suspend"] = json!(false));
    run(&mut world, Act::Succeed);
    assert!(jobs(&world).is_empty(), "25 s are more than 20");
    assert_eq!(world.said("MissSchedule").len(), 1);
    world.advance(36);
    run(&mut world, Act::Succeed);
    assert_eq!(jobs(&world).len(), 1, "the next one is in time");
}

#[test]
fn times_that_nobody_saw_count_once() {
    let mut world = World::with_nodes(4, 1);
    world.create::<CronJob>("default", "tick", manifest("* * * * *", json!({})));
    run(&mut world, Act::Succeed);
    world.advance(3 * 3600);
    run(&mut world, Act::Succeed);
    assert_eq!(jobs(&world).len(), 1);
    assert_eq!(world.said("TooManyMissedTimes").len(), 1);
}

#[test]
fn failures_are_kept_apart_and_a_job_made_by_hand_is_known() {
    let mut world = World::with_nodes(5, 1);
    let mut manifest = manifest("0 0 1 1 *", json!({}));
    manifest["spec"]["jobTemplate"]["spec"]["backoffLimit"] = json!(0);
    let key = world.create::<CronJob>("default", "tick", manifest);
    let uid = world.value(&key)["metadata"]["uid"].clone();
    for name in ["by-hand-1", "by-hand-2"] {
        let owner = json!([{"apiVersion": "batch/v1", "kind": "CronJob", "name": "tick", "uid": uid, "controller": true}]);
        let job = json!({
            "metadata": {"ownerReferences": owner, "annotations": {INSTANTIATE: "manual"}},
            "spec": {"completions": 1, "parallelism": 1, "backoffLimit": 0,
                "selector": {"matchLabels": {"made": name}},
                "template": {"metadata": {"labels": {"made": name}},
                    "spec": {"restartPolicy": "Never", "containers": [{"name": "main", "image": "tick:1"}]}}}
        });
        world.create::<Job>("default", name, job);
        run(&mut world, Act::Fail(1));
        world.advance(5);
    }
    assert_eq!(jobs(&world).len(), 1, "one failed Job is kept");
    assert!(world.said("UnexpectedJob").is_empty());
}

#[test]
fn a_clock_that_is_set_back_holds_nothing_up() {
    let mut world = World::with_nodes(6, 1);
    let key = world.create::<CronJob>("default", "tick", manifest("* * * * *", json!({})));
    world.advance(TO_THE_MINUTE);
    run(&mut world, Act::Succeed);
    assert_eq!(jobs(&world).len(), 1);
    world.advance(-24 * 3600);
    world.edit(&key, |_| ());
    run(&mut world, Act::Succeed);
    world.advance(60);
    run(&mut world, Act::Succeed);
    assert_eq!(jobs(&world).len(), 2, "the next minute has its Job");
    assert_eq!(world.value(&key)["status"]["lastScheduleTime"], "2023-11-13T22:15:00Z");
}

#[test]
fn a_job_that_the_status_forgot_is_put_back() {
    let mut world = World::with_nodes(7, 1);
    let key = world.create::<CronJob>("default", "tick", manifest("* * * * *", json!({})));
    run(&mut world, Act::Serve);
    world.advance(TO_THE_MINUTE);
    run(&mut world, Act::Serve);
    let known = world.value(&key)["status"].clone();
    world.edit(&key, |value| value["status"] = json!({}));
    run(&mut world, Act::Serve);
    assert_eq!(world.value(&key)["status"], known);
    assert_eq!(jobs(&world).len(), 1);
}

#[test]
fn a_job_that_is_forbidden_is_made_when_there_is_room() {
    let mut world = World::with_nodes(8, 1);
    let quota = json!({"metadata": {}, "spec": {"hard": {"count/jobs.batch": "0"}}});
    let quota = world.create::<ResourceQuota>("default", "none", quota);
    let key = world.create::<CronJob>("default", "tick", manifest("* * * * *", json!({})));
    run(&mut world, Act::Serve);
    world.advance(TO_THE_MINUTE);
    run(&mut world, Act::Serve);
    assert!(jobs(&world).is_empty() && world.value(&key)["status"]["lastScheduleTime"].is_null());
    let said = world.said("FailedCreate")[0];
    assert!(said.starts_with("Error creating job: jobs.batch \"tick-"), "{said}");
    world.edit(&quota, |value| value["spec"]["hard"]["count/jobs.batch"] = json!("1"));
    world.advance(10);
    run(&mut world, Act::Serve);
    assert_eq!(jobs(&world).len(), 1);
    assert_eq!(world.value(&quota)["status"]["used"]["count/jobs.batch"], "1");
}
