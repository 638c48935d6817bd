//! Objects and generators that the tests of intent share.

use proptest::prelude::*;
use serde_json::{Map, Value, json};

/// A Deployment with the lists that people edit from two sides.
pub fn deployment() -> Value {
    json!({
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": "web", "namespace": "default", "uid": "u-1", "labels": {"app": "web"}},
        "spec": {
            "replicas": 2,
            "selector": {"matchLabels": {"app": "web"}},
            "template": {
                "metadata": {"labels": {"app": "web"}},
                "spec": {
                    "containers": [
                        {"name": "web", "image": "nginx:1", "ports": [{"containerPort": 80}],
                         "env": [{"name": "A", "value": "1"}, {"name": "B", "value": "2"}]},
                        {"name": "log", "image": "fluent:1", "args": ["-c", "x"]},
                    ],
                    "volumes": [{"name": "data", "emptyDir": {}}],
                },
            },
        },
    })
}

/// `object` with the value at a JSON pointer replaced (the parent must be there).
pub fn with(object: &Value, pointer: &str, value: Value) -> Value {
    let mut object = object.clone();
    let (parent, name) = pointer.rsplit_once('/').unwrap();
    match object.pointer_mut(parent).unwrap() {
        Value::Object(fields) => {
            fields.insert(name.to_owned(), value);
        }
        Value::Array(list) => {
            let index: usize = name.parse().unwrap();
            match list.get_mut(index) {
                Some(item) => *item = value,
                None => list.push(value),
            }
        }
        _ => unreachable!(),
    }
    object
}

fn name() -> impl Strategy<Value = String> {
    prop_oneof![
        4 => "[a-c]{1,2}",
        2 => prop::sample::select(vec![
            "metadata", "spec", "containers", "ports", "env", "volumes", "labels", "name", "containerPort",
            "protocol", "port", "resourceVersion", "taints", "key", "effect",
        ]).prop_map(str::to_owned),
        2 => "[~/#.!o0-2]{0,6}",
        1 => any::<String>(),
    ]
}

fn scalar() -> impl Strategy<Value = Value> {
    prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<u64>().prop_map(Value::from),
        (0..3i64).prop_map(Value::from),
        any::<f64>().prop_filter("JSON has no others", |it| it.is_finite()).prop_map(Value::from),
        name().prop_map(Value::from),
    ]
}

/// Any JSON object that is wholly intent: weird names, lists that are almost keyed, every kind of number.
pub fn object() -> impl Strategy<Value = Value> {
    let value = scalar().prop_recursive(5, 60, 6, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            prop::collection::vec((name(), inner), 0..5)
                .prop_map(|fields| Value::Object(fields.into_iter().collect::<Map<_, _>>())),
        ]
    });
    prop::collection::vec((name(), value), 0..6).prop_map(|fields| {
        let mut object: Map<String, Value> = fields.into_iter().collect();
        object.remove("status");
        if let Some(Value::Object(metadata)) = object.get_mut("metadata") {
            metadata.remove("resourceVersion");
        }
        Value::Object(object)
    })
}
