//! Roles and their bindings.

use super::{Column, age, column, name, name_column, wide};
use crate::api::value::{items, text};
use k8s_openapi::jiff::Timestamp;
use serde_json::Value;

pub const ROLE: &[Column] = &[name_column(), column("Created At")];

pub fn role(object: &Value, _: Timestamp) -> Vec<Value> {
    vec![name(object), text(object, "/metadata/creationTimestamp").into()]
}

pub const BINDING: &[Column] =
    &[name_column(), column("Role"), column("Age"), wide("Users"), wide("Groups"), wide("ServiceAccounts")];

pub fn binding(object: &Value, now: Timestamp) -> Vec<Value> {
    let role = format!("{}/{}", text(object, "/roleRef/kind"), text(object, "/roleRef/name"));
    let subjects = |kind: &str| {
        let of_kind = items(object, "/subjects").iter().filter(|subject| text(subject, "/kind") == kind);
        let names = of_kind.map(|subject| match text(subject, "/namespace") {
            "" => text(subject, "/name").to_owned(),
            namespace => format!("{namespace}/{}", text(subject, "/name")),
        });
        Value::from(names.collect::<Vec<_>>().join(", "))
    };
    vec![
        name(object),
        role.into(),
        age(object, now),
        subjects("User"),
        subjects("Group"),
        subjects("ServiceAccount"),
    ]
}
