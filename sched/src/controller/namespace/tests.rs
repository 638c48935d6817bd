use super::*;
use crate::controller::harness::World;

#[test]
fn the_namespaces_that_clients_expect_are_there_from_the_start() {
    let mut world = World::new(1);
    world.run();
    let names: Vec<String> = world.store.list(&NAMESPACES, None).map(|(key, _)| key.name).collect();
    assert_eq!(names, ["default", "kube-node-lease", "kube-public", "kube-system"]);
    let default = world.store.get(&Key::new(NAMESPACES, "", "default")).unwrap();
    assert_eq!(default.label(NAME_LABEL), Some("default"));
    assert_eq!(default.value()["status"]["phase"], "Active");
}

#[test]
fn a_finalizer_of_somebody_else_is_waited_for() {
    let mut world = World::new(2);
    let key = world.create::<Namespace>(
        "",
        "lab",
        json!({"metadata": {"finalizers": ["x/y"]}, "spec": {"finalizers": ["kubernetes"]}}),
    );
    world.run();
    world.delete(&key);
    world.run();
    assert!(world.store.get(&key).is_some());
    let object = world.store.get(&key).unwrap().clone();
    world.txn(deletion::without_finalizer(&key, &object, "x/y").unwrap().into());
    world.run();
    assert!(world.store.get(&key).is_none());
}
