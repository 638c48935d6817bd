use super::*;
use crate::api::schema;
use proptest::prelude::*;

const NOW: &str = "2026-01-02T03:04:05Z";

fn deployment_type() -> Option<Node<'static>> {
    schema::of("apps", "v1", "Deployment")
}

fn author(name: &str, operation: Operation) -> Author {
    Author { name: name.into(), operation, subresource: String::new(), api_version: "apps/v1".into() }
}

fn apply(live: &Value, config: &Value, by: &str, force: Force) -> Result<Value, ApplyError> {
    let author = author(by, Operation::Apply);
    let writing = Writing { author: &author, of: deployment_type(), now: NOW };
    let (mut object, managers) = writing.applied(live, config, read(live), force)?;
    write(&mut object, managers);
    Ok(object)
}

fn update(live: &Value, change: impl FnOnce(&mut Value), by: &str) -> Value {
    let author = author(by, Operation::Update);
    let writing = Writing { author: &author, of: deployment_type(), now: NOW };
    let mut object = live.clone();
    change(&mut object);
    let managers = writing.updated(live, &object, read(live)).unwrap();
    write(&mut object, managers);
    object
}

fn deployment(spec: Value) -> Value {
    json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "web"}, "spec": spec})
}

fn fields(object: &Value, by: &str) -> Value {
    let managers = read(object);
    let manager = managers.iter().find(|manager| manager.author.name == by);
    manager.map(|manager| manager.fields.to_json()).unwrap_or_default()
}

fn containers(list: Value) -> Value {
    json!({"template": {"spec": {"containers": list}}})
}

#[test]
fn who_applies_manages_what_was_applied_and_nothing_else() {
    let config = deployment(containers(json!([
        {"name": "web", "image": "nginx:1", "args": ["a"], "ports": [{"containerPort": 80}],
         "resources": {"limits": {"cpu": "1"}}}])));
    let object = apply(&Value::Null, &config, "ci", Force::No).unwrap();
    let ports = json!({"k:{\"containerPort\":80,\"protocol\":\"TCP\"}": {".": {}, "f:containerPort": {}}});
    let web = json!({".": {}, "f:name": {}, "f:image": {}, "f:args": {}, "f:ports": ports,
        "f:resources": {"f:limits": {"f:cpu": {}}}});
    let expected =
        json!({"f:spec": {"f:template": {"f:spec": {"f:containers": {"k:{\"name\":\"web\"}": web}}}}});
    assert_eq!(fields(&object, "ci"), expected);
    let entry = &object["metadata"]["managedFields"][0];
    assert_eq!(
        (&entry["operation"], &entry["time"], &entry["fieldsType"]),
        (&json!("Apply"), &json!(NOW), &json!("FieldsV1"))
    );
}

#[test]
fn what_is_not_applied_any_more_goes_unless_somebody_else_manages_it() {
    let first = deployment(
        json!({"replicas": 3, "paused": true, "template": {"metadata": {"labels": {"a": "1", "b": "2"}},
        "spec": {"containers": [{"name": "web", "image": "i"}, {"name": "log", "image": "l"}]}}}),
    );
    let live = apply(&Value::Null, &first, "ci", Force::No).unwrap();
    let shared = deployment(json!({"template": {"metadata": {"labels": {"b": "2"}}}}));
    let live = apply(&live, &shared, "other", Force::No).unwrap();
    let live = update(&live, |object| object["spec"]["minReadySeconds"] = json!(5), "kubectl-edit");
    let second = deployment(
        json!({"replicas": 3, "template": {"spec": {"containers": [{"name": "web", "image": "i"}]}}}),
    );
    let object = apply(&live, &second, "ci", Force::No).unwrap();
    let spec = json!({"replicas": 3, "minReadySeconds": 5, "template": {"metadata": {"labels": {"b": "2"}},
        "spec": {"containers": [{"name": "web", "image": "i"}]}}});
    assert_eq!(object["spec"], spec);
}

#[test]
fn a_field_of_another_manager_is_a_conflict_in_kubectls_words() {
    let live =
        apply(&Value::Null, &deployment(json!({"replicas": 1, "paused": false})), "one", Force::No).unwrap();
    let error = apply(&live, &deployment(json!({"replicas": 2})), "two", Force::No).unwrap_err();
    assert_eq!(error.to_string(), "Apply failed with 1 conflict: conflict with \"one\": .spec.replicas");
    let error =
        apply(&live, &deployment(json!({"replicas": 2, "paused": true})), "two", Force::No).unwrap_err();
    let expected = "Apply failed with 2 conflicts: conflicts with \"one\":\n- .spec.paused\n- .spec.replicas";
    assert_eq!(error.to_string(), expected);
    let edited = update(&live, |object| object["spec"]["replicas"] = json!(5), "kubectl-edit");
    let error = apply(&edited, &deployment(json!({"replicas": 2})), "two", Force::No).unwrap_err();
    let expected =
        "Apply failed with 1 conflict: conflict with \"kubectl-edit\" using apps/v1: .spec.replicas";
    assert_eq!(error.to_string(), expected);
    assert_eq!(fields(&edited, "one"), json!({"f:spec": {"f:paused": {}}}), "an edit takes what it changes");
    let forced = apply(&edited, &deployment(json!({"replicas": 2})), "two", Force::Yes).unwrap();
    assert_eq!((&forced["spec"]["replicas"], fields(&forced, "kubectl-edit")), (&json!(2), Value::Null));
    let same = apply(&live, &deployment(json!({"replicas": 1})), "two", Force::No).unwrap();
    assert_eq!(fields(&same, "one"), fields(&live, "one"), "to agree is no conflict, and both manage it");
}

#[test]
fn lists_that_are_one_value_are_managed_whole() {
    let args = |args: Value| deployment(containers(json!([{"name": "web", "args": args}])));
    let live = apply(&Value::Null, &args(json!(["a"])), "one", Force::No).unwrap();
    let error = apply(&live, &args(json!(["b"])), "two", Force::No).unwrap_err();
    let field = ".spec.template.spec.containers[name=\"web\"].args";
    assert_eq!(error, ApplyError::Conflicts(vec![Conflict { with: "\"one\"".into(), field: field.into() }]));
}

#[test]
fn elements_of_others_keep_their_places() {
    let names = |object: &Value| -> Vec<String> {
        let list = object["spec"]["template"]["spec"]["containers"].as_array().unwrap();
        list.iter().map(|one| one["name"].as_str().unwrap().to_owned()).collect()
    };
    let with =
        |names: &[&str]| deployment(containers(names.iter().map(|name| json!({"name": name})).collect()));
    let live = apply(&Value::Null, &with(&["b", "c"]), "ci", Force::No).unwrap();
    let live = apply(&live, &with(&["proxy"]), "mesh", Force::No).unwrap();
    assert_eq!(names(&live), ["b", "c", "proxy"]);
    let live = apply(&live, &with(&["a", "c", "b"]), "ci", Force::No).unwrap();
    assert_eq!(names(&live), ["a", "c", "proxy", "b"]);
    let twice = apply(&live, &with(&["a", "a"]), "ci", Force::No).unwrap_err();
    assert!(twice.to_string().contains("duplicate entries for key [name=\"a\"]"), "{twice}");
}

#[test]
fn an_object_that_no_client_made_is_somebodys_before_it_is_applied_to() {
    let live = deployment(json!({"replicas": 1}));
    let error = apply(&live, &deployment(json!({"replicas": 2})), "ci", Force::No).unwrap_err();
    assert!(
        error.to_string().contains("conflict with \"before-first-apply\" using apps/v1: .spec.replicas"),
        "{error}"
    );
    let object = apply(&live, &deployment(json!({"paused": true})), "ci", Force::No).unwrap();
    assert_eq!(object["spec"], json!({"replicas": 1, "paused": true}));
}

#[test]
fn what_kubectl_applied_client_side_it_may_apply_server_side() {
    let last = deployment(json!({"replicas": 1}));
    let mut live = last.clone();
    live["metadata"]["annotations"] = json!({LAST_APPLIED: format!("{last}\n")});
    let live = update(&json!({}), |object| *object = live, "kubectl-client-side-apply");
    let config = deployment(json!({"replicas": 2}));
    assert!(apply(&live, &config, "somebody", Force::No).is_err());
    let object = apply(&live, &config, "kubectl", Force::No).unwrap();
    assert_eq!(object["spec"]["replicas"], 2);
    let note = object["metadata"]["annotations"][LAST_APPLIED].as_str().unwrap();
    assert_eq!(
        serde_json::from_str::<Value>(note).unwrap(),
        config,
        "client-side apply finds what is so now"
    );
    let edited = update(&live, |object| object["spec"]["replicas"] = json!(7), "kubectl-edit");
    assert!(apply(&edited, &config, "kubectl", Force::No).is_err(), "an edit since then stands");
}

#[test]
fn who_makes_an_object_does_not_manage_it_as_a_whole() {
    let author = author("kubectl-create", Operation::Update);
    let writing = Writing { author: &author, of: deployment_type(), now: NOW };
    let mut object = deployment(json!({"replicas": 1}));
    object["metadata"]["labels"] = json!({"a": "b"});
    let managers = writing.made(&object).unwrap();
    let expected = json!({"f:metadata": {"f:labels": {".": {}, "f:a": {}}}, "f:spec": {"f:replicas": {}}});
    assert_eq!(managers[0].fields.to_json(), expected);
}

#[test]
fn a_managers_time_is_when_it_last_changed_what_it_manages() {
    let time = |object: &Value, by: &str| {
        let managers = read(object);
        managers.iter().find(|one| one.author.name == by).unwrap().time.clone()
    };
    let later = "2026-02-03T04:05:06Z";
    let live =
        apply(&Value::Null, &deployment(json!({"replicas": 1, "paused": true})), "ci", Force::No).unwrap();
    let ci = author("ci", Operation::Apply);
    let again = |replicas: u32| {
        let writing = Writing { author: &ci, of: deployment_type(), now: later };
        let config = deployment(json!({"replicas": replicas, "paused": true}));
        let (mut object, managers) = writing.applied(&live, &config, read(&live), Force::No).unwrap();
        write(&mut object, managers);
        object
    };
    assert_eq!(again(1), live, "the same again is no change");
    assert_eq!(time(&again(2), "ci"), later);
    let live = update(&live, |object| object["spec"]["minReadySeconds"] = json!(1), "edit");
    let edit = author("edit", Operation::Update);
    let writing = Writing { author: &edit, of: deployment_type(), now: later };
    let mut object = live.clone();
    object["spec"]["minReadySeconds"] = json!(2);
    let managers = writing.updated(&live, &object, read(&live)).unwrap();
    write(&mut object, managers);
    assert_eq!((time(&object, "edit").as_str(), time(&object, "ci").as_str()), (later, NOW));
}

#[test]
fn a_note_of_what_was_applied_that_finds_no_room_beside_other_annotations_is_left_out() {
    let with = |filling: usize| {
        let config = deployment(json!({"replicas": 1}));
        let mut live = config.clone();
        let last = format!("{config}\n");
        live["metadata"]["annotations"] = json!({LAST_APPLIED: last, "other": "x".repeat(filling)});
        let live = update(&json!({}), |object| *object = live, "kubectl-client-side-apply");
        let object = apply(&live, &config, "kubectl", Force::No).unwrap();
        object["metadata"]["annotations"].get(LAST_APPLIED).is_some()
    };
    assert!(with(1000));
    assert!(!with(ANNOTATIONS_BYTES - 50));
}

#[test]
fn of_very_many_conflicts_some_are_named_and_all_are_counted() {
    let labels = |value: &str| {
        let labels: serde_json::Map<String, Value> =
            (0..1000).map(|n| (format!("l{n}"), json!(value))).collect();
        let mut object = deployment(json!({}));
        object["metadata"]["labels"] = labels.into();
        object
    };
    let live = apply(&Value::Null, &labels("a"), "one", Force::No).unwrap();
    let message = apply(&live, &labels("b"), "two", Force::No).unwrap_err().to_string();
    assert!(message.starts_with("Apply failed with 1000 conflicts:"));
    assert!(message.ends_with("\nand 700 more") && message.lines().count() < 400);
}

#[test]
fn many_updaters_are_put_together() {
    let mut object = deployment(json!({}));
    object = apply(&object, &deployment(json!({"paused": true})), "ci", Force::No).unwrap();
    for n in 0..30 {
        let label = format!("l{n}");
        object =
            update(&object, |object| object["metadata"]["labels"][&label] = json!("x"), &format!("m{n:02}"));
    }
    let managers = read(&object);
    let updaters = managers.iter().filter(|one| one.author.operation == Operation::Update);
    assert_eq!(updaters.count(), 10);
    let ancient = fields(&object, "ancient-changes");
    assert!(ancient["f:metadata"]["f:labels"]["f:l0"].is_object(), "{ancient}");
    assert!(managers.iter().any(|one| one.author.name == "ci"), "those that apply are kept");
}

#[test]
fn managers_are_read_as_clients_write_them() {
    let given = json!({"metadata": {"managedFields": [{"manager": "x", "operation": "Update", "apiVersion": "v1",
        "fieldsV1": {"f:a": {".": {}, "k:{\"b\": 2, \"a\":1}": {}, "v:\"x\"": {}, "i:3": {}}}}]}});
    let managers = wished(&given).unwrap();
    assert_eq!(managers[0].fields.paths(), [".a", ".a[3]", ".a[a=1,b=2]", ".a[=\"x\"]"]);
    assert_eq!(wished(&json!({"metadata": {"managedFields": [{}]}})), Some(Vec::new()));
    for nothing in
        [json!([]), json!([{"manager": "x"}]), json!([{"operation": "Update", "fieldsV1": {"a": 1}}])]
    {
        assert_eq!(wished(&json!({"metadata": {"managedFields": nothing}})), None, "{nothing}");
    }
}

/// Parts of a Deployment as people write them: plain fields, maps, keyed lists, lists that are one value.
fn config() -> impl Strategy<Value = Value> {
    let labels = prop::collection::btree_map("[abc]", "[xy]", 0..3);
    let args = prop::option::of(prop::collection::vec("[rs]", 0..3));
    let env = prop::collection::btree_map("[DEF]", "[0-2]", 0..3);
    let containers = prop::collection::btree_map("[uvw]", (args, env), 0..3);
    (prop::option::of(0..3i32), any::<bool>(), labels, containers).prop_map(
        |(replicas, paused, labels, containers)| {
            let containers: Vec<Value> = containers
                .into_iter()
                .map(|(name, (args, env))| {
                    let env: Vec<Value> =
                        env.into_iter().map(|(name, value)| json!({"name": name, "value": value})).collect();
                    let mut container = json!({"name": name});
                    if !env.is_empty() {
                        container["env"] = env.into();
                    }
                    if let Some(args) = args {
                        container["args"] = json!(args);
                    }
                    container
                })
                .collect();
            let mut spec = containers_or_none(containers);
            if let Some(replicas) = replicas {
                spec["replicas"] = replicas.into();
            }
            if paused {
                spec["paused"] = true.into();
            }
            let mut config = deployment(spec);
            if !labels.is_empty() {
                config["metadata"]["labels"] = json!(labels);
            }
            config
        },
    )
}

fn containers_or_none(list: Vec<Value>) -> Value {
    if list.is_empty() { json!({}) } else { containers(list.into()) }
}

/// Whether everything that somebody applied is so.
fn holds(object: &Value, config: &Value) -> bool {
    compare(&merge(object, config, deployment_type()).unwrap(), object, deployment_type()).unwrap()
        == typed::Difference::default()
}

fn without_managers(mut object: Value) -> Value {
    if let Some(Value::Object(metadata)) = object.get_mut("metadata") {
        metadata.remove("managedFields");
    }
    object
}

proptest! {
    #[test]
    fn applying_again_changes_nothing(first in config(), other in config(), config in config()) {
        let live = apply(&Value::Null, &first, "a", Force::No).unwrap();
        let live = apply(&live, &other, "b", Force::Yes).unwrap();
        let once = apply(&live, &config, "a", Force::Yes).unwrap();
        prop_assert!(holds(&once, &config), "{once} is not {config}");
        prop_assert_eq!(apply(&once, &config, "a", Force::No).unwrap(), once);
    }

    #[test]
    fn what_one_manages_another_does_not_touch_without_force(first in config(), config in config(), again in config()) {
        let live = apply(&Value::Null, &first, "a", Force::No).unwrap();
        let mut object = live;
        for config in [config, again] {
            if let Ok(next) = apply(&object, &config, "b", Force::No) {
                object = next;
            }
            prop_assert!(holds(&object, &first), "{object} is not {first}");
        }
    }

    #[test]
    fn who_is_alone_and_changes_its_mind_leaves_nothing_behind(first in config(), second in config()) {
        let live = apply(&Value::Null, &first, "a", Force::No).unwrap();
        let object = apply(&live, &second, "a", Force::No).unwrap();
        let direct = apply(&Value::Null, &second, "a", Force::No).unwrap();
        prop_assert_eq!(fields(&object, "a"), fields(&direct, "a"));
        let left = compare(&without_managers(direct), &without_managers(object), deployment_type()).unwrap();
        prop_assert!(left.added.is_empty() && left.modified.is_empty(), "{:?}", left);
    }

    #[test]
    fn sets_come_back_from_their_json(first in config(), second in config()) {
        let fields = |object: &Value| fields_of(object, deployment_type()).unwrap();
        let all = fields(&first).union(&fields(&second));
        prop_assert_eq!(Fields::from_json(&all.to_json()), Some(all.clone()));
        let (one, two) = (fields(&first), fields(&second));
        prop_assert_eq!(one.difference(&two).union(&one.intersection(&two)), one.clone());
        prop_assert!(one.difference(&all).is_empty());
    }

    #[test]
    fn what_an_update_sets_is_its_own_and_of_nobody_else(first in config(), second in config()) {
        let live = apply(&Value::Null, &first, "a", Force::No).unwrap();
        let object = update(&live, |object| object["spec"] = second["spec"].clone(), "b");
        let (before, after) = (without_managers(live), without_managers(object.clone()));
        let set = compare(&before, &after, deployment_type()).unwrap().set();
        let of = |name: &str| Fields::from_json(&fields(&object, name)).unwrap_or_default();
        prop_assert_eq!(of("b"), set.clone());
        prop_assert!(of("a").intersection(&set).is_empty());
    }
}
