use super::*;
use crate::api::patch::strategic;
use crate::api::schema;
use proptest::prelude::*;

/// What the server makes of a patch.
fn merged(live: &Value, patch: &Value, of: Option<Node<'_>>) -> Value {
    match of {
        Some(_) => strategic::apply(live, patch, of).unwrap(),
        None => {
            let mut result = live.clone();
            json_patch::merge(&mut result, patch);
            result
        }
    }
}

fn of(group: &str, kind: &str) -> Option<Node<'static>> {
    Some(schema::of(group, "v1", kind).unwrap())
}

fn deployment(containers: Value) -> Value {
    json!({"spec": {"replicas": 2, "template": {"spec": {"containers": containers}}}})
}

#[test]
fn a_sidecar_that_somebody_else_added_stays() {
    let last = deployment(json!([{"name": "web", "image": "web:1"}]));
    let modified = deployment(json!([{"name": "web", "image": "web:2"}]));
    let live = deployment(json!([
        {"name": "proxy", "image": "p"}, {"name": "web", "image": "web:1", "imagePullPolicy": "Always"}]));
    let patch = three_way(&last, &modified, &live, of("apps", "Deployment")).unwrap();
    assert_eq!(
        patch,
        json!({"spec": {"template": {"spec": {"containers": [{"name": "web", "image": "web:2"}]}}}})
    );
}

#[test]
fn what_the_manifest_no_longer_has_is_taken_away_and_nothing_else() {
    let last = json!({"metadata": {"labels": {"a": "1", "b": "2"}}, "spec": {"template": {"spec": {"containers": [
        {"name": "web", "env": [{"name": "A"}, {"name": "B"}]}, {"name": "old"}]}}}});
    let modified = json!({"metadata": {"labels": {"a": "1"}}, "spec": {"template": {"spec": {"containers": [
        {"name": "web", "env": [{"name": "A"}]}]}}}});
    let mut live = last.clone();
    live["metadata"]["labels"]["c"] = json!("set by somebody else");
    let patch = three_way(&last, &modified, &live, of("apps", "Deployment")).unwrap();
    let containers = json!([
        {"name": "web", "env": [{"$patch": "delete", "name": "B"}]}, {"$patch": "delete", "name": "old"}]);
    assert_eq!(
        patch,
        json!({"metadata": {"labels": {"b": null}}, "spec": {"template": {"spec": {"containers": containers}}}})
    );
}

#[test]
fn replicas_left_out_of_the_manifest_are_left_to_the_autoscaler() {
    let mut modified = deployment(json!([]));
    modified["spec"].as_object_mut().unwrap().remove("replicas");
    let live = deployment(json!([]));
    assert_eq!(three_way(&modified, &modified, &live, of("apps", "Deployment")), None);
}

#[test]
fn a_strategy_that_excludes_the_defaulted_fields_drops_them() {
    let modified = json!({"spec": {"strategy": {"type": "Recreate"}}});
    let live = json!({"spec": {"strategy": {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 1}}}});
    let patch = three_way(&json!({}), &modified, &live, of("apps", "Deployment")).unwrap();
    assert_eq!(merged(&live, &patch, of("apps", "Deployment")), modified);
}

#[test]
fn ports_that_share_a_number_are_replaced_whole() {
    let ports = |second: &str| {
        let ports = json!([{"port": 53, "protocol": "TCP"}, {"port": 53, "protocol": second}]);
        json!({"spec": {"ports": ports}})
    };
    let patch = three_way(&ports("UDP"), &ports("SCTP"), &ports("UDP"), of("", "Service")).unwrap();
    assert_eq!(merged(&ports("UDP"), &patch, of("", "Service")), ports("SCTP"));
}

#[test]
fn order_that_matters_is_kept() {
    let env = |names: &[&str]| {
        let env: Vec<Value> = names.iter().map(|name| json!({"name": name})).collect();
        deployment(json!([{"name": "web", "env": env}]))
    };
    for (live, wanted) in [(&["A", "C"][..], &["A", "B", "C"][..]), (&["A", "B"], &["B", "A"])] {
        let patch = three_way(&env(live), &env(wanted), &env(live), of("apps", "Deployment")).unwrap();
        assert_eq!(merged(&env(live), &patch, of("apps", "Deployment")), env(wanted));
    }
}

#[test]
fn a_selector_that_is_replaced_is_sent_whole() {
    let budget = |labels: Value| json!({"spec": {"minAvailable": 1, "selector": {"matchLabels": labels}}});
    let (old, new) = (budget(json!({"a": "1", "b": "2"})), budget(json!({"a": "1"})));
    let patch = three_way(&old, &new, &old, of("policy", "PodDisruptionBudget")).unwrap();
    assert_eq!(patch, json!({"spec": {"selector": {"matchLabels": {"a": "1"}}}}));
    assert_eq!(merged(&old, &patch, of("policy", "PodDisruptionBudget")), new);
}

#[test]
fn lists_of_other_kinds_are_whole() {
    let list = |names: &[&str]| json!({"spec": {"containers": names.iter().map(|n| json!({"name": n})).collect::<Vec<_>>()}});
    let patch = three_way(&list(&["a"]), &list(&["b"]), &list(&["a"]), None).unwrap();
    assert_eq!(patch, list(&["b"]));
}

/// Small objects with the shapes that matter: maps, atomic lists, keyed lists, sets, absent fields.
fn pod() -> impl Strategy<Value = Value> {
    let labels = prop::collection::btree_map("[abc]", "[xy]", 0..3);
    let finalizers = prop::collection::btree_set("[pq]", 0..3);
    let args = prop::option::of(prop::collection::vec("[rs]", 0..3));
    let env = prop::collection::btree_map("[DEF]", prop::option::of("[0-2]"), 0..3);
    let container = (args, env.prop_map(|env| env.into_iter().collect::<Vec<_>>()).prop_shuffle());
    let containers = prop::collection::btree_map("[uvw]", container, 0..3)
        .prop_map(|containers| containers.into_iter().collect::<Vec<_>>())
        .prop_shuffle();
    (labels, finalizers, containers).prop_map(|(labels, finalizers, containers)| {
        let containers: Vec<Value> = containers
            .into_iter()
            .map(|(name, (args, env))| {
                let env: Vec<Value> = env
                    .into_iter()
                    .map(|(name, value)| match value {
                        Some(value) => json!({"name": name, "value": value}),
                        None => json!({"name": name}),
                    })
                    .collect();
                let mut container = json!({"name": name, "env": env});
                if let Some(args) = args {
                    container["args"] = json!(args);
                }
                container
            })
            .collect();
        json!({"metadata": {"labels": labels, "finalizers": finalizers}, "spec": {"containers": containers}})
    })
}

/// Whether everything that `wanted` says is so in `is`.
fn satisfies(is: &Value, wanted: &Value, of: Option<Node<'_>>) -> bool {
    match (is, wanted) {
        (Value::Object(is), Value::Object(wanted)) => {
            let child = |key: &str| of.and_then(|of| of.child(key));
            wanted.iter().all(|(key, wanted)| is.get(key).is_some_and(|is| satisfies(is, wanted, child(key))))
        }
        (Value::Array(is), Value::Array(wanted)) => match of.map_or(&Elements::Atomic, Node::merged) {
            Elements::Atomic => is == wanted,
            Elements::Set => wanted.iter().all(|item| is.contains(item)),
            Elements::Keyed(keys) => wanted.iter().all(|wanted| {
                let same = |is: &Value| is[keys[0].as_str()] == wanted[keys[0].as_str()];
                is.iter().any(|is| same(is) && satisfies(is, wanted, of.and_then(Node::items)))
            }),
        },
        _ => is == wanted,
    }
}

proptest! {
    #[test]
    fn the_patched_object_is_what_the_manifest_says(last in pod(), modified in pod(), live in pod()) {
        let result = match three_way(&last, &modified, &live, of("", "Pod")) {
            Some(patch) => merged(&live, &patch, of("", "Pod")),
            None => live.clone(),
        };
        prop_assert!(satisfies(&result, &modified, of("", "Pod")), "{result} is not {modified}");
        prop_assert_eq!(three_way(&modified, &modified, &result, of("", "Pod")), None, "applying again changes");
    }

    #[test]
    fn with_nobody_else_the_result_is_the_manifest(last in pod(), modified in pod()) {
        let pod = of("", "Pod");
        for of in [pod, None] {
            let result = match three_way(&last, &modified, &last, of) {
                Some(patch) => merged(&last, &patch, of),
                None => last.clone(),
            };
            prop_assert!(satisfies(&result, &modified, pod) && satisfies(&modified, &result, pod));
        }
    }

    #[test]
    fn what_others_added_stays(before in pod(), modified in pod(), live in pod()) {
        // `before` was applied, so that only what it has and `modified` has not may go.
        let result = match three_way(&before, &modified, &live, of("", "Pod")) {
            Some(patch) => merged(&live, &patch, of("", "Pod")),
            None => live.clone(),
        };
        for key in live["metadata"]["labels"].as_object().unwrap().keys() {
            let applied = before["metadata"]["labels"].get(key).is_some();
            prop_assert!(applied || result["metadata"]["labels"].get(key).is_some(), "lost label {key}");
        }
        for container in live["spec"]["containers"].as_array().unwrap() {
            let has = |object: &Value| {
                object["spec"]["containers"].as_array().unwrap().iter().any(|c| c["name"] == container["name"])
            };
            prop_assert!(has(&before) || has(&result), "lost container {container}");
        }
    }
}
