//! Deletion, grace periods, deadlines and orphans.

use super::*;

#[test]
fn deletion_stops_removes_and_forgets() {
    let mut world = World::new(containers(&["a", "b"], "Always"));
    world.rest();
    world.exit("b", 1);
    world.delete();
    let plan = world.step();
    assert!(
        matches!(&plan.actions[..], [Action::Stop { container, grace, .. }] if container == "a" && grace.as_secs() == 5),
        "{:?}",
        plan.actions
    );
    world.rest();
    assert!(world.forgotten && world.observed.is_empty());
}

#[test]
fn a_shorter_grace_period_is_obeyed() {
    let mut world = World::new(containers(&["a"], "Always"));
    world.rest();
    let id = world.observed.iter().find(|observed| observed.role != Role::Sandbox).unwrap().id.clone();
    world.delete();
    world.memory.stopping.insert(id, at(300));
    assert_eq!(world.plan().actions.len(), 1);
    world.memory.stopping.values_mut().for_each(|deadline| *deadline = at(5));
    assert_eq!(world.plan().actions, vec![], "it is under way");
}

#[test]
fn an_active_deadline_ends_a_pod() {
    let mut spec = containers(&["a"], "Always");
    spec["activeDeadlineSeconds"] = json!(60);
    let mut world = World::new(spec);
    world.rest();
    assert_eq!(world.plan().wake_at, Some(at(60)));
    world.wait(60);
    let status = world.rest();
    assert_eq!(
        (status.phase.as_deref(), status.reason.as_deref()),
        (Some("Failed"), Some("DeadlineExceeded"))
    );
    assert!(world.observed.iter().all(|observed| !observed.is_running()));
    assert_eq!(world.rest().reason.as_deref(), Some("DeadlineExceeded"));
}

#[test]
fn orphans_are_stopped_before_they_are_removed() {
    let mut world = World::new(containers(&["a"], "Always"));
    world.rest();
    let actions = clear_away(world.observed.iter(), &world.memory);
    assert!(matches!(&actions[..], [Action::Stop { .. }]), "{actions:?}");
    actions.into_iter().for_each(|action| world.perform(action));
    let actions = clear_away(world.observed.iter(), &world.memory);
    assert_eq!(actions.len(), 2);
    assert!(actions.iter().all(|action| matches!(action, Action::Remove { .. })));
}
