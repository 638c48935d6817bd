//! Containers that are added to a pod that runs.

use super::*;

fn add(world: &mut World, name: &str, target: &str) {
    let spec = world.pod.spec.as_mut().unwrap();
    let added = json!({"name": name, "image": "app:1", "targetContainerName": target});
    spec.ephemeral_containers.get_or_insert_default().push(serde_json::from_value(added).unwrap());
}

fn state_of(world: &World, name: &str) -> ContainerStatus {
    let status = world.pod.status.as_ref().unwrap();
    let all = status.ephemeral_container_statuses.iter().flatten();
    all.into_iter().find(|status| status.name == name).unwrap().clone()
}

fn id_of(world: &World, name: &str) -> String {
    let role = Role::Container(name.to_owned());
    world.observed.iter().find(|observed| observed.role == role).unwrap().id.clone()
}

#[test]
fn one_that_is_added_runs_once_beside_the_others() {
    let mut world = World::new(containers(&["main"], "Always"));
    world.rest();
    add(&mut world, "probe", "main");
    let (main, plan) = (id_of(&world, "main"), world.plan());
    let [Action::StartContainer { name, spec, .. }] = plan.actions.as_slice() else {
        panic!("{:?}", plan.actions)
    };
    assert_eq!((name.as_str(), spec.pid.as_deref()), ("probe", Some(format!("container:{main}").as_str())));
    world.rest();
    let status = state_of(&world, "probe");
    assert!(status.state.unwrap().running.is_some() && !status.ready && status.started.is_none());
    // Its end is no reason to start it again, and none for the pod to be less ready.

    world.exit("probe", 3);
    world.now = at(1000);
    world.rest();
    let ended = state_of(&world, "probe").state.unwrap().terminated.unwrap();
    assert_eq!(ended.exit_code, 3);
    assert_eq!(world.starts.iter().filter(|(name, _)| name == "probe").count(), 1);
    assert_eq!(world.pod.status.as_ref().unwrap().phase.as_deref(), Some("Running"));
}

#[test]
fn one_whose_target_does_not_run_says_so_and_waits() {
    let mut spec = containers(&["main"], "Always");
    spec["initContainers"] = json!([{"name": "first", "image": "app:1"}]);
    let mut world = World::new(spec);
    world.rest();
    add(&mut world, "probe", "main");
    add(&mut world, "free", "");
    world.rest();
    let waiting = state_of(&world, "probe").state.unwrap().waiting.unwrap();
    assert_eq!(waiting.message.as_deref(), Some("the target container main does not run"));
    assert!(
        state_of(&world, "free").state.unwrap().running.is_some(),
        "one that looks at a pod that does not come up"
    );

    world.exit("first", 0);
    world.rest();
    assert!(state_of(&world, "probe").state.unwrap().running.is_some());
}

#[test]
fn none_holds_up_the_end_of_its_pod() {
    let mut world = World::new(containers(&["main"], "Never"));
    world.rest();
    add(&mut world, "probe", "");
    world.rest();

    world.exit("main", 0);
    world.rest();
    assert_eq!(world.pod.status.as_ref().unwrap().phase.as_deref(), Some("Succeeded"));
    assert!(!world.observed.iter().any(Observed::is_running));
    assert!(state_of(&world, "probe").state.unwrap().terminated.is_some());
}
