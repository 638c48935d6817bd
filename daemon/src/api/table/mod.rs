//! Tables: lists as people read them, rendered by the server for `kubectl get`.
//!
//! Columns and values are kubectl's own, so that scripts and eyes find what they know.

pub mod access;
pub mod core;
pub mod duration;
pub mod extensions;
pub mod network;
pub mod pod;
pub mod policy;
pub mod storage;
pub mod workload;

use duration::{age, since};

use super::kinds::Kind;
use super::value::text;
use k8s_openapi::jiff::Timestamp;
use serde_json::{Value, json};

/// When a column is shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shown {
    Always,
    /// Only with `-o wide`.
    Wide,
}

/// One column of a kind's table.
#[derive(Debug)]
pub struct Column {
    pub name: &'static str,
    /// `string`, `integer`.
    pub kind: &'static str,
    /// `name` marks the column that identifies the object.
    pub format: &'static str,
    pub shown: Shown,
}

impl Column {
    /// As `columnDefinitions` holds it.
    pub fn definition(&self) -> Value {
        json!({"name": self.name, "type": self.kind, "format": self.format, "description": self.name,
            "priority": i32::from(self.shown == Shown::Wide)})
    }
}

pub(super) const fn name_column() -> Column {
    Column { name: "Name", kind: "string", format: "name", shown: Shown::Always }
}

pub(super) const fn column(name: &'static str) -> Column {
    Column { name, kind: "string", format: "", shown: Shown::Always }
}

pub(super) const fn number(name: &'static str) -> Column {
    Column { name, kind: "integer", format: "", shown: Shown::Always }
}

pub(super) const fn wide(name: &'static str) -> Column {
    Column { name, kind: "string", format: "", shown: Shown::Wide }
}

/// What comes with a row beside its cells (`includeObject` of the request).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RowObject {
    None,
    Metadata,
    Object,
}

/// A table of objects; `metadata` is that of the list.
pub fn table<'a>(
    kind: &Kind,
    objects: impl IntoIterator<Item = &'a Value>,
    metadata: Value,
    with: RowObject,
    now: Timestamp,
) -> Value {
    let row = |object| row(kind.cells(object, now), object, with, || kind.shown(object).into_owned());
    whole(json!(kind.columns), objects.into_iter().map(row).collect(), metadata)
}

/// The table of one scale, which has columns of its own.
pub fn of_scale(scale: &Value, with: RowObject, now: Timestamp) -> Value {
    let columns = [name_column(), number("Desired"), number("Available"), column("Age")];
    let replicas = |pointer| scale.pointer(pointer).cloned().unwrap_or_default();
    let cells = [name(scale), replicas("/spec/replicas"), replicas("/status/replicas"), age(scale, now)];
    let revision = scale.pointer("/metadata/resourceVersion").cloned().unwrap_or_default();
    let row = row(cells.into(), scale, with, || scale.clone());
    let columns: Vec<Value> = columns.iter().map(Column::definition).collect();
    whole(columns.into(), vec![row], json!({"resourceVersion": revision}))
}

fn whole(columns: Value, rows: Vec<Value>, metadata: Value) -> Value {
    json!({"kind": "Table", "apiVersion": "meta.k8s.io/v1", "metadata": metadata,
        "columnDefinitions": columns, "rows": rows})
}

fn row(cells: Vec<Value>, object: &Value, with: RowObject, shown: impl FnOnce() -> Value) -> Value {
    let mut row = json!({"cells": cells});
    match with {
        RowObject::None => {}
        RowObject::Metadata => row["object"] = partial(object),
        RowObject::Object => row["object"] = shown(),
    }
    row
}

/// An object's metadata alone, as `PartialObjectMetadata`.
pub fn partial(object: &Value) -> Value {
    json!({"kind": "PartialObjectMetadata", "apiVersion": "meta.k8s.io/v1",
        "metadata": object.get("metadata").cloned().unwrap_or_default()})
}

fn name(object: &Value) -> Value {
    text(object, "/metadata/name").into()
}

fn or_none(text: &str) -> Value {
    if text.is_empty() { "<none>".into() } else { text.into() }
}

fn or_unknown(text: &str) -> Value {
    if text.is_empty() { "<unknown>".into() } else { text.into() }
}

/// Labels as `a=b,c=d`.
fn labels(object: &Value, pointer: &str) -> String {
    let pairs: Vec<String> =
        super::value::pairs(object, pointer).map(|(key, value)| format!("{key}={value}")).collect();
    if pairs.is_empty() { "<none>".into() } else { pairs.join(",") }
}

/// A label selector as kubectl prints it.
fn selector(object: &Value, pointer: &str) -> String {
    let mut parts: Vec<String> = super::value::pairs(object, &format!("{pointer}/matchLabels"))
        .map(|(key, value)| format!("{key}={value}"))
        .collect();
    for expression in super::value::items(object, &format!("{pointer}/matchExpressions")) {
        let key = text(expression, "/key");
        let values: Vec<&str> =
            super::value::items(expression, "/values").iter().filter_map(Value::as_str).collect();
        let values = values.join(",");
        parts.push(match text(expression, "/operator") {
            "In" => format!("{key} in ({values})"),
            "NotIn" => format!("{key} notin ({values})"),
            "DoesNotExist" => format!("!{key}"),
            _ => key.to_owned(),
        });
    }
    if parts.is_empty() { "<none>".into() } else { parts.join(",") }
}

#[cfg(test)]
mod tests;
