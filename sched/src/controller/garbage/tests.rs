use super::finished::FINISHED_POD_LIMIT;
use crate::controller::deletion::{self, FOREGROUND, Grace, ORPHAN};
use crate::controller::harness::{Dice, World};
use crate::state::{Key, Resource, Write};
use k8s_openapi::api::core::v1::{ConfigMap, Pod};
use proptest::prelude::*;
use serde_json::{Value, json};
use std::collections::BTreeMap;

fn owned_by(world: &World, owners: &[&Key], blocking: bool) -> Value {
    let reference = |owner: &&Key| {
        let uid = world.store.get(owner).unwrap().uid();
        json!({
            "apiVersion": "v1", "kind": "ConfigMap", "name": owner.name, "uid": uid,
            "blockOwnerDeletion": blocking
        })
    };
    json!({"metadata": {"ownerReferences": owners.iter().map(reference).collect::<Vec<_>>()}})
}

fn add(world: &mut World, name: &str, owners: &[&Key], blocking: bool) -> Key {
    let value = owned_by(world, owners, blocking);
    world.create::<ConfigMap>("default", name, value)
}

fn delete_with(world: &mut World, key: &Key, finalizer: &str) {
    let object = world.store.get(key).unwrap().clone();
    let write = deletion::delete_with(key, &object, finalizer, Grace::AsSpecified, &world.now).unwrap();
    world.txn(write.into());
}

#[test]
fn dependents_go_after_their_last_owner() {
    let mut world = World::new(1);
    let first = add(&mut world, "first", &[], false);
    let second = add(&mut world, "second", &[], false);
    let both = add(&mut world, "both", &[&first, &second], false);
    let child = add(&mut world, "child", &[&both], false);
    world.run();
    world.delete(&first);
    world.run();
    let left = world.store.get(&both).unwrap();
    assert_eq!(left.owner_uids().count(), 1, "the reference to what is gone is dropped");
    world.delete(&second);
    world.run();
    assert!(world.store.get(&both).is_none() && world.store.get(&child).is_none());
}

#[test]
fn orphans_stay() {
    let mut world = World::new(2);
    let owner = add(&mut world, "owner", &[], false);
    let child = add(&mut world, "child", &[&owner], true);
    world.run();
    delete_with(&mut world, &owner, ORPHAN);
    world.run();
    assert!(world.store.get(&owner).is_none());
    assert_eq!(world.store.get(&child).unwrap().owner_uids().count(), 0);
}

#[test]
fn foreground_deletion_takes_the_owner_last() {
    let mut world = World::new(3);
    let owner = add(&mut world, "owner", &[], false);
    let child = add(&mut world, "child", &[&owner], true);
    let grandchild = add(&mut world, "grandchild", &[&child], true);
    world.run();
    delete_with(&mut world, &owner, FOREGROUND);
    world.settle(&mut |_| crate::controller::harness::Act::Serve, &mut |world| {
        let there = |key| world.store.get(key).is_some();
        assert!(there(&owner) || !there(&child), "the owner waits for its child");
        assert!(there(&child) || !there(&grandchild), "the child waits for its own");
    });
    assert!(world.store.get(&owner).is_none());
}

#[test]
fn a_namesake_of_a_dead_owner_is_no_owner() {
    let mut world = World::new(4);
    let owner = add(&mut world, "owner", &[], false);
    let child = add(&mut world, "child", &[&owner], false);
    world.delete(&owner);
    add(&mut world, "owner", &[], false);
    world.run();
    assert!(world.store.get(&child).is_none());
}

#[test]
fn finished_pods_are_bounded_and_the_oldest_go() {
    let mut world = World::new(5);
    for number in 0..FINISHED_POD_LIMIT + 5 {
        world.create::<Pod>(
            "default",
            &format!("pod-{number:05}"),
            json!({"metadata": {}, "spec": {"containers": []}, "status": {"phase": "Succeeded"}}),
        );
    }
    world.run();
    assert_eq!(world.pods().len(), FINISHED_POD_LIMIT);
    assert!(world.store.get(&Key::of::<Pod>("default", "pod-00004")).is_none());
    assert!(world.store.get(&Key::of::<Pod>("default", "pod-00005")).is_some());
}

#[test]
fn a_namespace_takes_everything_in_it_along() {
    let mut world = World::with_nodes(6, 1);
    let namespace = world.create::<k8s_openapi::api::core::v1::Namespace>(
        "",
        "lab",
        json!({"metadata": {}, "spec": {"finalizers": ["kubernetes"]}}),
    );
    world.create::<ConfigMap>("lab", "settings", json!({"metadata": {}}));
    world.create::<Pod>("lab", "pod", json!({"metadata": {}, "spec": {"containers": []}}));
    let other = world.create::<ConfigMap>("default", "settings", json!({"metadata": {}}));
    world.run();
    world.delete(&namespace);
    assert_eq!(world.value(&namespace)["status"]["phase"], "Terminating");
    world.settle(&mut |_| crate::controller::harness::Act::Serve, &mut |world| {
        let inside = Resource::fixed("pods");
        let gone = world.store.get(&namespace).is_none();
        assert!(!gone || world.store.list(&inside, Some("lab")).next().is_none());
    });
    assert!(world.store.get(&namespace).is_none());
    assert!(world.store.get(&other).is_some());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(60))]

    /// In any graph of owners, with any deletions: what has a living owner lives, the rest goes.
    #[test]
    fn nothing_with_a_living_owner_is_collected(seed: u64, size in 2..25_usize) {
        let mut world = World::new(seed);
        let mut dice = Dice(seed ^ 0x5eed);
        let mut keys: Vec<Key> = Vec::new();
        let mut owners: BTreeMap<Key, Vec<Key>> = BTreeMap::new();
        for number in 0..size {
            let mut chosen: Vec<Key> =
                (0..dice.roll(3)).filter_map(|_| keys.get(dice.roll(keys.len())).cloned()).collect();
            chosen.sort();
            chosen.dedup();
            let refs: Vec<&Key> = chosen.iter().collect();
            let key = add(&mut world, &format!("object-{number}"), &refs, dice.roll(2) == 0);
            owners.insert(key.clone(), chosen);
            keys.push(key);
        }
        world.run();
        let mut killed: Vec<Key> = Vec::new();
        for _ in 0..1 + dice.roll(4) {
            let key = keys[dice.roll(keys.len())].clone();
            if world.store.get(&key).is_some_and(|object| !object.is_terminating()) {
                if dice.roll(2) == 0 { world.delete(&key) } else { delete_with(&mut world, &key, FOREGROUND) }
                killed.push(key);
            }
            for _ in 0..dice.roll(20) {
                world.reconcile_one();
            }
        }
        world.run();
        // By hand: in order of making, so owners come first.
        let mut alive: BTreeMap<&Key, bool> = BTreeMap::new();
        for key in &keys {
            let of = &owners[key];
            let owned = of.is_empty() || of.iter().any(|owner| alive[owner]);
            alive.insert(key, owned && !killed.contains(key));
        }
        for key in &keys {
            let there = world.store.get(key).is_some();
            prop_assert_eq!(there, alive[key], "{} (owners {:?}, killed {:?})", key, &owners[key], &killed);
        }
    }
}

#[test]
fn a_pod_is_deleted_by_the_rule_that_fits_it() {
    let mut world = World::new(7);
    let pod = |world: &mut World, name: &str, metadata: Value, spec: Value, phase: &str| {
        let value = json!({"metadata": metadata, "spec": spec, "status": {"phase": phase}});
        world.create::<Pod>("default", name, value)
    };
    let bound = json!({"containers": [], "nodeName": "desk", "terminationGracePeriodSeconds": 7});
    let free = pod(&mut world, "free", json!({}), json!({"containers": []}), "Pending");
    let running = pod(&mut world, "running", json!({}), bound.clone(), "Running");
    let done = pod(&mut world, "done", json!({}), bound.clone(), "Succeeded");
    let held = pod(&mut world, "held", json!({"finalizers": ["x/y"]}), bound, "Succeeded");
    let write = |key: &Key, grace| deletion::delete(key, world.store.get(key).unwrap(), grace, &world.now);
    assert!(matches!(write(&free, Grace::AsSpecified), Some(Write::Delete { .. })));
    assert!(matches!(write(&done, Grace::AsSpecified), Some(Write::Delete { .. })));
    assert!(matches!(write(&running, Grace::Seconds(0)), Some(Write::Delete { .. })));
    for (key, seconds) in [(&running, 7), (&held, 0)] {
        match write(key, Grace::AsSpecified) {
            Some(Write::Put { value, .. }) => {
                assert_eq!(value["metadata"]["deletionGracePeriodSeconds"], seconds, "{key}");
            }
            other => panic!("{key} should be marked: {other:?}"),
        }
    }
    world.delete(&running);
    let object = world.store.get(&running).unwrap();
    assert!(deletion::delete(&running, object, Grace::AsSpecified, &world.now).is_none(), "marked once");
    let sooner = deletion::delete(&running, object, Grace::Seconds(1), &world.now);
    assert!(matches!(sooner, Some(Write::Put { .. })), "a shorter grace hastens it");
    assert!(!deletion::removable(&running, object), "its agent has to stop it");
    assert!(matches!(deletion::finish(&running, object), Some(Write::Delete { .. })));
    world.delete(&held);
    let object = world.store.get(&held).unwrap();
    assert!(!deletion::removable(&held, object));
    assert!(matches!(deletion::without_finalizer(&held, object, "x/y"), Some(Write::Delete { .. })));
}
