//! What is started again, when, and what never is.

use super::*;

#[test]
fn restart_policies_decide_what_an_end_means() {
    for (policy, code, phase, restarts) in [
        ("Never", 0, "Succeeded", false),
        ("Never", 1, "Failed", false),
        ("OnFailure", 0, "Succeeded", false),
        ("OnFailure", 1, "Running", true),
        ("Always", 0, "Running", true),
        ("Always", 1, "Running", true),
    ] {
        let mut world = World::new(containers(&["a"], policy));
        world.rest();
        world.wait(3);
        world.exit("a", code);
        let status = world.rest();
        assert_eq!(status.phase.as_deref(), Some(phase), "{policy} {code}");
        assert_eq!(world.starts.len(), 1 + usize::from(restarts), "{policy} {code}");
        if !restarts {
            assert_eq!(world.sandboxes(), 0, "a finished pod needs no sandbox");
            assert_eq!(world.observed.len(), 1, "but its container stays for its log");
            world.wait(100_000);
            assert_eq!(world.rest().phase.as_deref(), Some(phase));
            assert_eq!(world.starts.len(), 1);
        }
    }
}

#[test]
fn crashes_back_off_and_a_good_run_forgives() {
    let mut world = World::new(containers(&["a"], "Always"));
    world.rest();
    for (crash, delay) in [0, 10, 20, 40, 80, 160, 300, 300].into_iter().enumerate() {
        world.wait(1);
        world.exit("a", 1);
        let status = world.rest();
        if delay > 0 {
            assert_eq!(waiting(&status, "a"), "CrashLoopBackOff", "{crash}");
            let last = container(&status, "a").last_state.as_ref().unwrap().terminated.as_ref().unwrap();
            assert_eq!(last.exit_code, 1);
            world.wait(delay - 1);
            world.rest();
            assert_eq!(world.starts.len(), crash + 1, "not before {delay} s");
            world.wait(1);
            world.rest();
        }
        assert_eq!(world.starts.len(), crash + 2);
    }
    world.wait(600);
    world.exit("a", 1);
    let status = world.rest();
    assert_eq!(waiting(&status, "a"), "", "after ten good minutes it is restarted at once");
    assert_eq!(container(&status, "a").restart_count, 9);
    assert_eq!(
        world.observed.iter().filter(|o| o.role != Role::Sandbox).count(),
        2,
        "the one before is kept"
    );
}

/// A kubelet forgets it, too: a desktop that is switched off again and again would leave its pods waiting for minutes.
#[test]
fn a_daemon_that_was_restarted_holds_no_earlier_crash_against_a_container() {
    let mut world = World::new(containers(&["a"], "Always"));
    world.rest();
    for starts in 2..6 {
        world.memory = Memory::new(world.now);
        world.wait(1);
        world.exit("a", 137);
        assert_eq!(waiting(&world.rest(), "a"), "");
        assert_eq!(world.starts.len(), starts);
    }
}

#[test]
fn a_failed_init_container_fails_a_pod_that_never_restarts() {
    let mut spec = containers(&["main"], "Never");
    spec["initContainers"] = json!([{"name": "one", "image": "app:1"}]);
    let mut world = World::new(spec);
    world.rest();
    world.exit("one", 2);
    assert_eq!(world.rest().phase.as_deref(), Some("Failed"));
    assert_eq!(world.starts.len(), 1);
    assert_eq!(world.sandboxes(), 0);
}

#[test]
fn a_lost_sandbox_is_made_anew_with_its_containers() {
    let mut world = World::new(containers(&["a"], "Always"));
    world.rest();
    world.wait(5);
    world.end(|observed| observed.role == Role::Sandbox, 137);
    let status = world.rest();
    assert_eq!(status.phase.as_deref(), Some("Running"));
    assert_eq!(world.starts.len(), 2);
    assert_eq!(world.sandboxes(), 1);
    assert_eq!(container(&status, "a").restart_count, 1);
}

#[test]
fn what_the_engine_lost_has_failed_and_is_not_run_twice() {
    let mut world = World::new(containers(&["a"], "Never"));
    world.rest();
    world.observed.clear();
    world.memory = Memory::new(at(9));
    let status = world.rest();
    assert_eq!(status.phase.as_deref(), Some("Failed"));
    let terminated = container(&status, "a").state.clone().unwrap().terminated.unwrap();
    assert_eq!((terminated.exit_code, terminated.reason.as_deref()), (137, Some("ContainerStatusUnknown")));
    assert_eq!(world.starts.len(), 1);
}

#[test]
fn an_unhealthy_container_is_restarted_and_an_unready_one_is_not_ready() {
    let mut spec = containers(&["a"], "Always");
    spec["containers"][0]["livenessProbe"] = json!({"tcpSocket": {"port": 80}});
    spec["containers"][0]["readinessProbe"] = json!({"tcpSocket": {"port": 80}});
    let mut world = World::new(spec);
    let status = world.rest();
    assert_eq!((status.phase.as_deref(), condition(&status, "Ready")), (Some("Running"), "False"));
    let id = world.observed.iter().find(|observed| observed.role != Role::Sandbox).unwrap().id.clone();
    world.memory.health.insert(id.clone(), Health { started: true, ready: true, failed: None });
    assert_eq!(condition(&world.rest(), "Ready"), "True");
    let failed = Some("Container a failed liveness probe, will be restarted".to_owned());
    world.memory.health.insert(id, Health { started: true, ready: true, failed });
    world.rest();
    assert_eq!(world.starts.len(), 2);
}

#[test]
fn a_changed_image_restarts_its_container_only() {
    let mut world = World::new(containers(&["a", "b"], "Always"));
    world.rest();
    world.wait(1);
    world.pod.spec.as_mut().unwrap().containers[0].image = Some("app:2".into());
    let image = |tag: &str| Image {
        id: format!("sha256:{tag}"),
        names: vec![format!("app:{tag}")],
        digests: vec![],
        bytes: 1,
    };
    world.images = ImageIndex::new(&[image("1"), image("2")]);
    world.rest();
    let names: Vec<_> = world.starts.iter().map(|(name, _)| name.as_str()).collect();
    assert_eq!(names, ["a", "b", "a"]);
}
