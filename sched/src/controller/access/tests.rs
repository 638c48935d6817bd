use super::*;
use crate::controller::harness::World;
use crate::state::{Expect, Write};

fn role(world: &World, name: &str) -> Arc<ClusterRole> {
    world.store.get_as::<ClusterRole>("", name).unwrap()
}

/// Whether a rule of the role names this verb and resource.
fn allows(role: &ClusterRole, verb: &str, resource: &str) -> bool {
    let names = |list: &Option<Vec<String>>, name: &str| list.iter().flatten().any(|one| one == name);
    role.rules
        .iter()
        .flatten()
        .any(|rule| rule.verbs.iter().any(|one| one == verb) && names(&rule.resources, resource))
}

#[test]
fn the_roles_that_users_expect_are_there_and_made_of_each_other() {
    let mut world = World::new(1);
    world.run();
    let [admin, edit, view] = ["admin", "edit", "view"].map(|name| role(&world, name));
    assert!(allows(&view, "list", "pods") && !allows(&view, "list", "secrets"));
    assert!(!allows(&view, "create", "pods"));
    assert!(
        allows(&edit, "create", "pods") && allows(&edit, "list", "pods") && allows(&edit, "get", "pods/log")
    );
    assert!(!allows(&edit, "create", "roles") && allows(&admin, "create", "roles"));
    assert!(allows(&admin, "watch", "deployments"));
    let masters = world.store.get_as::<ClusterRoleBinding>("", "cluster-admin").unwrap();
    assert_eq!(masters.subjects.as_ref().unwrap()[0].name, "system:masters");
}

#[test]
fn a_role_of_ones_own_becomes_part_of_those_that_it_names_and_leaves_them_again() {
    let mut world = World::new(2);
    world.run();
    let rules = json!([{"apiGroups": ["example.com"], "resources": ["geese"], "verbs": ["list"]}]);
    let labels = json!({"rbac.authorization.k8s.io/aggregate-to-view": "true"});
    let geese =
        world.create::<ClusterRole>("", "geese", json!({"metadata": {"labels": labels}, "rules": rules}));
    world.run();
    for name in ["view", "edit", "admin"] {
        assert!(allows(&role(&world, name), "list", "geese"), "{name}");
    }
    let gone = Write::Delete { key: geese, expect: Expect::Present, intent: None };
    world.txn(gone.into());
    world.run();
    for name in ["view", "edit", "admin"] {
        assert!(!allows(&role(&world, name), "list", "geese"), "{name}");
    }
}

#[test]
fn what_was_deleted_comes_back_and_what_people_made_their_own_stays() {
    let mut world = World::new(3);
    world.run();
    let key = |name: &str| Key::of::<ClusterRole>("", name);
    let gone = Write::Delete { key: key("system:discovery"), expect: Expect::Present, intent: None };
    world.txn(gone.into());
    let own = world.store.get(&key("system:basic-user")).unwrap().clone();
    let edited = edit_object(&key("system:basic-user"), &own, |value| {
        set(value, &["metadata", "annotations", bootstrap::AUTOUPDATE], json!("false"));
        set(value, &["rules"], json!([]));
    });
    world.txn(edited.into());
    let lacking = world.store.get(&key("system:monitoring")).unwrap().clone();
    let edited = edit_object(&key("system:monitoring"), &lacking, |value| set(value, &["rules"], json!([])));
    world.txn(edited.into());
    world.run();
    assert_eq!(role(&world, "system:discovery").rules.as_ref().map(Vec::len), Some(1));
    assert_eq!(role(&world, "system:basic-user").rules.as_ref().map_or(0, Vec::len), 0);
    assert_eq!(role(&world, "system:monitoring").rules.as_ref().map(Vec::len), Some(1));
}
