use super::*;
use crate::controller::harness::World;
use crate::state::Expect;
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;

fn define(world: &mut World, plural: &str, kind: &str, short: &[&str]) -> Key {
    let spec = json!({"group": "example.com", "scope": "Namespaced",
        "names": {"plural": plural, "singular": kind.to_lowercase(), "kind": kind, "listKind": format!("{kind}List"),
            "shortNames": short},
        "versions": [{"name": "v1", "served": true, "storage": true}]});
    let rest = json!({"metadata": {"finalizers": [CLEANUP]}, "spec": spec});
    world.create::<CustomResourceDefinition>("", &format!("{plural}.example.com"), rest)
}

fn condition<'a>(world: &'a World, key: &Key, kind: &str) -> &'a Value {
    let conditions = world.value(key)["status"]["conditions"].as_array().unwrap();
    conditions.iter().find(|condition| condition["type"] == kind).unwrap_or(&Value::Null)
}

#[test]
fn a_definition_is_established_with_its_names() {
    let mut world = World::new(1);
    let key = define(&mut world, "crontabs", "CronTab", &["ct"]);
    world.run();
    assert_eq!(condition(&world, &key, "NamesAccepted")["reason"], "NoConflicts");
    assert_eq!(condition(&world, &key, "Established")["status"], "True");
    let status = &world.value(&key)["status"];
    assert_eq!(status["storedVersions"], json!(["v1"]));
    assert_eq!(status["acceptedNames"]["shortNames"], json!(["ct"]));
    world.edit(&key, |value| {
        value["spec"]["versions"] = json!([{"name": "v1", "served": true, "storage": false},
            {"name": "v2", "served": true, "storage": true}]);
    });
    world.run();
    assert_eq!(world.value(&key)["status"]["storedVersions"], json!(["v1", "v2"]));
}

#[test]
fn of_two_with_one_name_the_first_has_it_until_it_goes() {
    for seed in 0..20 {
        let mut world = World::new(seed);
        let first = define(&mut world, "crontabs", "CronTab", &["ct"]);
        let second = define(&mut world, "cruftables", "CronTab", &["cf"]);
        world.run();
        assert_eq!(condition(&world, &first, "Established")["status"], "True", "seed {seed}");
        let refused = condition(&world, &second, "NamesAccepted");
        assert_eq!((&refused["status"], &refused["reason"]), (&json!("False"), &json!("ListKindConflict")));
        assert_eq!(refused["message"], "\"CronTabList\" is already in use");
        assert_eq!(condition(&world, &second, "Established")["status"], "False");
        world.delete(&first);
        world.run();
        assert!(world.store.get(&first).is_none());
        assert_eq!(condition(&world, &second, "Established")["status"], "True", "seed {seed}");
    }
}

#[test]
fn short_names_that_clash_are_not_accepted() {
    let mut world = World::new(3);
    define(&mut world, "crontabs", "CronTab", &["ct"]);
    world.run();
    let second = define(&mut world, "catalogs", "Catalog", &["ct", "cat"]);
    world.run();
    assert_eq!(condition(&world, &second, "NamesAccepted")["reason"], "ShortNamesConflict");
    assert!(world.value(&second)["status"]["acceptedNames"].get("shortNames").is_none());
}

#[test]
fn objects_go_before_their_definition_and_finalizers_are_waited_for() {
    let mut world = World::new(4);
    let definition = define(&mut world, "crontabs", "CronTab", &[]);
    world.run();
    let mut objects = Vec::new();
    for name in ["a", "b"] {
        let key = Key::new(Resource::new("example.com", "crontabs"), "default", name);
        let finalizers = if name == "b" { json!(["x.io/y"]) } else { json!([]) };
        let value = json!({"apiVersion": "example.com/v1", "kind": "CronTab",
            "metadata": {"name": name, "namespace": "default", "uid": name, "finalizers": finalizers}});
        world.txn(Write::Put { key: key.clone(), value, expect: Expect::Absent, intent: None }.into());
        objects.push(key);
    }
    world.delete(&definition);
    world.run();
    assert!(world.store.get(&objects[0]).is_none());
    assert!(world.store.get(&objects[1]).unwrap().is_terminating());
    assert_eq!(condition(&world, &definition, "Terminating")["status"], "True");
    let held = world.store.get(&objects[1]).unwrap().clone();
    world.txn(deletion::without_finalizer(&objects[1], &held, "x.io/y").unwrap().into());
    world.run();
    assert!(world.store.get(&objects[1]).is_none() && world.store.get(&definition).is_none());
}

#[test]
fn rules_that_nobody_evaluates_are_told_of() {
    let mut world = World::new(5);
    let key = define(&mut world, "crontabs", "CronTab", &[]);
    world.edit(&key, |value| {
        value["spec"]["versions"][0]["schema"]["openAPIV3Schema"] = json!({"type": "object",
            "properties": {"spec": {"type": "object", RULES: [{"rule": "self.a < self.b"}]}}});
    });
    world.run();
    assert_eq!(condition(&world, &key, RULES_EVALUATED)["status"], "False");
    world.edit(&key, |value| value["spec"]["versions"][0]["schema"] = json!({}));
    world.run();
    assert!(condition(&world, &key, RULES_EVALUATED).is_null());
}
