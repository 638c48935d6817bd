use super::*;
use proptest::prelude::*;
use serde_json::json;

fn deployment() -> Option<Node<'static>> {
    crate::api::schema::of("apps", "v1", "Deployment")
}

fn with_containers(containers: Value) -> Value {
    json!({"spec": {"template": {"spec": {"containers": containers}}}})
}

#[track_caller]
fn patched(before: Value, patch: Value, after: Value) {
    let result = Patch::Strategic(patch).apply(&before, deployment()).unwrap();
    assert_eq!(result, after);
}

#[test]
fn containers_merge_by_name() {
    patched(
        with_containers(
            json!([{"name": "a", "image": "1", "env": [{"name": "X", "value": "1"}]}, {"name": "b"}]),
        ),
        with_containers(json!([{"name": "a", "image": "2", "env": [{"name": "Y", "value": "2"}]}])),
        with_containers(json!([
            {"name": "a", "image": "2", "env": [{"name": "Y", "value": "2"}, {"name": "X", "value": "1"}]},
            {"name": "b"}
        ])),
    );
}

#[test]
fn elements_can_be_deleted_and_lists_replaced() {
    patched(
        with_containers(json!([{"name": "a"}, {"name": "b"}])),
        with_containers(json!([{"name": "a", "$patch": "delete"}])),
        with_containers(json!([{"name": "b"}])),
    );
    patched(
        with_containers(json!([{"name": "a"}, {"name": "b"}])),
        with_containers(json!([{"name": "c"}, {"$patch": "replace"}])),
        with_containers(json!([{"name": "c"}])),
    );
    patched(
        json!({"metadata": {"labels": {"a": "1"}, "name": "x"}}),
        json!({"metadata": {"labels": {"$patch": "replace", "b": "2"}}}),
        json!({"metadata": {"labels": {"b": "2"}, "name": "x"}}),
    );
}

#[test]
fn the_order_of_the_patch_is_kept_around_what_others_added() {
    let order = json!([{"name": "c"}, {"name": "a"}]);
    let mut patch = with_containers(json!([{"name": "c", "image": "new"}]));
    patch["spec"]["template"]["spec"]["$setElementOrder/containers"] = order;
    patched(
        with_containers(json!([{"name": "a"}, {"name": "sidecar"}])),
        patch,
        with_containers(json!([{"name": "c", "image": "new"}, {"name": "a"}, {"name": "sidecar"}])),
    );
}

#[test]
fn kept_keys_and_plain_lists() {
    patched(
        json!({"spec": {"strategy": {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 1}}}}),
        json!({"spec": {"strategy": {"$retainKeys": ["type"], "type": "Recreate"}}}),
        json!({"spec": {"strategy": {"type": "Recreate"}}}),
    );
    patched(
        json!({"metadata": {"finalizers": ["a", "b"]}}),
        json!({"metadata": {"$deleteFromPrimitiveList/finalizers": ["a"], "finalizers": ["c"]}}),
        json!({"metadata": {"finalizers": ["c", "b"]}}),
    );
    patched(
        json!({"spec": {"template": {"spec": {"tolerations": [{"key": "a"}]}}}}),
        json!({"spec": {"template": {"spec": {"tolerations": [{"key": "b"}]}}}}),
        json!({"spec": {"template": {"spec": {"tolerations": [{"key": "b"}]}}}}),
    );
}

#[test]
fn new_elements_stand_in_the_order_of_the_patch_before_what_only_the_server_has() {
    let with = |names: &[&str]| with_containers(names.iter().map(|name| json!({"name": name})).collect());
    patched(with(&["a", "b", "c"]), with(&["c", "new", "a"]), with(&["b", "c", "new", "a"]));
    patched(with(&["a", "b"]), with(&["y", "x"]), with(&["y", "x", "a", "b"]));
}

#[test]
fn a_selector_that_is_replaced_keeps_nothing_of_the_old_one() {
    let budget = crate::api::schema::of("policy", "v1", "PodDisruptionBudget");
    let selector = |labels: Value| json!({"spec": {"minAvailable": 1, "selector": {"matchLabels": labels}}});
    let patch = Patch::Strategic(json!({"spec": {"selector": {"matchLabels": {"b": "2"}}}}));
    let result = patch.apply(&selector(json!({"a": "1"})), budget).unwrap();
    assert_eq!(result, selector(json!({"b": "2"})));
}

#[test]
fn lists_of_many_elements_are_merged_in_time() {
    let env = |range: std::ops::Range<u32>| {
        let env: Vec<Value> = range.map(|n| json!({"name": format!("V{n}"), "value": "x"})).collect();
        with_containers(json!([{"name": "a", "env": env}]))
    };
    let began = std::time::Instant::now();
    let patch = Patch::Strategic(env(15_000..45_000));
    let result = patch.apply(&env(0..30_000), deployment()).unwrap();
    let merged = result.pointer("/spec/template/spec/containers/0/env").and_then(Value::as_array).unwrap();
    assert_eq!(merged.len(), 45_000);
    assert!(began.elapsed().as_secs() < 20, "{:?}", began.elapsed());
}

#[test]
fn null_removes_and_new_maps_hold_no_directives() {
    patched(
        json!({"metadata": {"labels": {"a": "1", "b": "2"}}}),
        json!({"metadata": {"labels": {"a": null, "c": "3"}, "annotations": {"x": null, "y": "z"}}}),
        json!({"metadata": {"labels": {"b": "2", "c": "3"}, "annotations": {"y": "z"}}}),
    );
}

#[test]
fn broken_patches_are_refused() {
    for patch in [
        with_containers(json!([{"image": "x"}])),
        with_containers(json!(["x"])),
        json!({"spec": {"$patch": "explode"}}),
        json!({"spec": {"$retainKeys": 3}}),
    ] {
        let error = Patch::Strategic(patch).apply(&json!({"spec": {}}), deployment()).unwrap_err();
        assert_eq!(error.code, 400);
    }
    assert_eq!(Patch::parse("text/plain", b"{}").err().unwrap().code, 415);
    assert_eq!(Patch::parse("application/merge-patch+json", b"[]").err().unwrap().code, 400);
}

#[test]
fn copies_in_a_json_patch_cannot_blow_an_object_up() {
    let mut operations = vec![json!({"op": "add", "path": "/a", "value": ["x".repeat(1000)]})];
    operations.extend((0..40).map(|_| json!({"op": "copy", "from": "/a", "path": "/a/-"})));
    let body = Value::Array(operations).to_string();
    let (patch, _) = Patch::parse("application/json-patch+json", body.as_bytes()).unwrap();
    assert_eq!(patch.apply(&json!({}), None).unwrap_err().code, 413);
}

fn any_value() -> impl Strategy<Value = Value> {
    let leaf =
        prop_oneof![Just(Value::Null), any::<bool>().prop_map(Value::from), "[a-c]".prop_map(Value::from)];
    let key = prop::sample::select(vec![
        "spec",
        "containers",
        "name",
        "$patch",
        "$retainKeys",
        "env",
        "finalizers",
        "metadata",
        "$setElementOrder/containers",
        "$deleteFromPrimitiveList/finalizers",
    ]);
    leaf.prop_recursive(5, 40, 5, move |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            prop::collection::btree_map(key.clone().prop_map(String::from), inner, 0..5)
                .prop_map(|map| Value::Object(map.into_iter().collect())),
        ]
    })
}

proptest! {
    #[test]
    fn any_patch_applies_or_is_refused(object in any_value(), patch in any_value()) {
        let _ = Patch::Strategic(patch).apply(&object, deployment());
    }

    #[test]
    fn applying_twice_is_applying_once(names in prop::collection::vec("[a-e]", 0..5), image in "[a-z]{3}") {
        let before = with_containers(json!([{"name": "a", "image": "old"}, {"name": "z"}]));
        let items: Vec<Value> = names.iter().map(|name| json!({"name": name, "image": image})).collect();
        let patch = Patch::Strategic(with_containers(json!(items)));
        let once = patch.apply(&before, deployment()).unwrap();
        prop_assert_eq!(patch.apply(&once, deployment()).unwrap(), once);
    }

    #[test]
    fn without_lists_it_is_a_merge_patch(labels in prop::collection::btree_map("[a-d]", prop::option::of("[x-z]"), 0..4)) {
        let before = json!({"metadata": {"labels": {"a": "1", "b": "2"}}});
        let patch = json!({"metadata": {"labels": labels}});
        let strategic = Patch::Strategic(patch.clone()).apply(&before, deployment()).unwrap();
        prop_assert_eq!(strategic, Patch::Merge(patch).apply(&before, None).unwrap());
    }
}
