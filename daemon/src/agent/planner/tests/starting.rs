//! Sandboxes, init containers, images and what they wait for.

use super::*;

#[test]
fn a_pod_comes_up_and_says_so() {
    let mut world = World::new(containers(&["a", "b"], "Always"));
    let first = world.step();
    assert!(matches!(first.actions[..], [Action::StartSandbox { .. }]), "{:?}", first.actions);
    assert_eq!(first.status.phase.as_deref(), Some("Pending"));
    assert_eq!(waiting(&first.status, "a"), "ContainerCreating");
    let status = world.rest();
    assert_eq!(status.phase.as_deref(), Some("Running"));
    assert_eq!(status.pod_ip.as_deref(), Some("172.17.0.9"));
    assert_eq!(status.host_ip.as_deref(), Some("10.0.0.1"));
    assert_eq!(status.qos_class.as_deref(), Some("BestEffort"));
    for type_ in ["PodScheduled", "PodReadyToStartContainers", "Initialized", "ContainersReady", "Ready"] {
        assert_eq!(condition(&status, type_), "True", "{type_}");
    }
    assert!(container(&status, "a").ready && container(&status, "a").started == Some(true));
}

#[test]
fn init_containers_go_first_and_in_order() {
    let mut spec = containers(&["main"], "Never");
    spec["initContainers"] = json!([
        {"name": "one", "image": "app:1"},
        {"name": "side", "image": "app:1", "restartPolicy": "Always"},
        {"name": "two", "image": "app:1"},
    ]);
    let mut world = World::new(spec);
    let status = world.rest();
    assert_eq!(waiting(&status, "main"), "PodInitializing");
    assert_eq!(status.phase.as_deref(), Some("Pending"));
    assert_eq!(condition(&status, "Initialized"), "False");
    world.exit("one", 0);
    world.rest();
    world.exit("two", 0);
    let status = world.rest();
    let names: Vec<_> = world.starts.iter().map(|(name, _)| name.as_str()).collect();
    assert_eq!(names, ["one", "side", "two", "main"]);
    assert_eq!(condition(&status, "Initialized"), "True");
    world.exit("main", 0);
    let status = world.rest();
    assert_eq!(status.phase.as_deref(), Some("Succeeded"), "the sidecar is stopped and does not count");
    assert!(world.observed.iter().all(|observed| !observed.is_running()));
}

#[test]
fn images_are_pulled_as_the_policy_says() {
    for (image, policy, pulls, reason) in [
        ("app:1", None, false, "ContainerCreating"),
        ("app:1", Some("Always"), true, "ContainerCreating"),
        ("app:1", Some("Never"), false, "ContainerCreating"),
        ("other:1", None, true, "ContainerCreating"),
        ("other:1", Some("Never"), false, "ErrImageNeverPull"),
        ("other", Some("IfNotPresent"), true, "ContainerCreating"),
        ("bad name", None, false, "InvalidImageName"),
    ] {
        let mut spec = containers(&["a"], "Always");
        spec["containers"][0]["image"] = json!(image);
        spec["containers"][0]["imagePullPolicy"] = json!(policy);
        let plan = World::new(spec).plan();
        let pulled = plan.actions.iter().any(|action| matches!(action, Action::Pull { .. }));
        assert_eq!((pulled, waiting(&plan.status, "a").as_str()), (pulls, reason), "{image} {policy:?}");
    }
}

#[test]
fn a_failed_pull_backs_off_and_recovers() {
    let mut spec = containers(&["a"], "Always");
    spec["containers"][0]["image"] = json!("other:1");
    let mut world = World::new(spec);
    world.pulls_fail = true;
    let status = world.rest();
    assert_eq!(waiting(&status, "a"), "ErrImagePull");
    world.wait(4);
    let plan = world.step();
    assert_eq!(waiting(&plan.status, "a"), "ImagePullBackOff");
    assert_eq!(plan.wake_at, Some(at(10)));
    world.pulls_fail = false;
    let image = Image { id: "sha256:o".into(), names: vec!["other:1".into()], digests: vec![], bytes: 1 };
    world.images = ImageIndex::new(&[image]);
    assert_eq!(world.rest().phase.as_deref(), Some("Running"));
}

#[test]
fn a_missing_config_map_is_named_until_it_is_there() {
    let mut spec = containers(&["a"], "Always");
    spec["containers"][0]["envFrom"] = json!([{"configMapRef": {"name": "settings"}}]);
    let mut world = World::new(spec);
    let status = world.rest();
    assert_eq!(waiting(&status, "a"), "CreateContainerConfigError");
    let state = container(&status, "a").state.clone().unwrap();
    assert_eq!(state.waiting.unwrap().message.as_deref(), Some("configmap \"settings\" not found"));
    let key = gaggle_sched::state::Key::of::<k8s_openapi::api::core::v1::ConfigMap>("default", "settings");
    let value = json!({"metadata": {"name": "settings", "uid": "s"}, "data": {"A": "1"}});
    let write = gaggle_sched::state::Write::Put {
        key,
        value,
        expect: gaggle_sched::state::Expect::Any,
        intent: None,
    };
    world.store.apply(&write.into()).unwrap();
    assert_eq!(world.rest().phase.as_deref(), Some("Running"));
}
