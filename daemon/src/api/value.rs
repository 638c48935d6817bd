//! Reading and filling JSON objects by path: the short words that the kinds' functions are written in.
//!
//! Owns no meaning of any field. A path that is absent, or of another type, reads as empty: types are checked
//! once, when an object is decoded.

use serde_json::{Map, Value};

pub fn text<'a>(value: &'a Value, pointer: &str) -> &'a str {
    value.pointer(pointer).and_then(Value::as_str).unwrap_or_default()
}

pub fn int(value: &Value, pointer: &str) -> Option<i64> {
    value.pointer(pointer).and_then(Value::as_i64)
}

pub fn flag(value: &Value, pointer: &str) -> bool {
    value.pointer(pointer).and_then(Value::as_bool).unwrap_or_default()
}

pub fn items<'a>(value: &'a Value, pointer: &str) -> &'a [Value] {
    value.pointer(pointer).and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default()
}

/// The pairs of a map of strings, such as labels.
pub fn pairs<'a>(value: &'a Value, pointer: &str) -> impl Iterator<Item = (&'a str, &'a str)> + use<'a> {
    let map = value.pointer(pointer).and_then(Value::as_object);
    map.into_iter().flatten().map(|(key, value)| (key.as_str(), value.as_str().unwrap_or_default()))
}

pub fn is_set(value: &Value, pointer: &str) -> bool {
    value.pointer(pointer).is_some_and(|found| !found.is_null())
}

/// The object under `key`, made if it is not there.
pub fn child<'a>(parent: &'a mut Value, key: &str) -> &'a mut Value {
    let fields = as_map(parent);
    let child = fields.entry(key).or_insert_with(|| Value::Object(Map::new()));
    as_map(child);
    child
}

/// The fields of an object; whatever else stood there gives way to an empty one.
pub fn as_map(value: &mut Value) -> &mut Map<String, Value> {
    if !value.is_object() {
        *value = Value::Object(Map::new());
    }
    match value {
        Value::Object(fields) => fields,
        _ => unreachable!("made an object above"),
    }
}

/// Sets a field unless it is there. As Kubernetes' defaulting does, an empty string counts as absent.
pub fn default_to(parent: &mut Value, key: &str, default: impl Into<Value>) {
    let slot = as_map(parent).entry(key).or_insert(Value::Null);
    if slot.is_null() || slot.as_str() == Some("") {
        *slot = default.into();
    }
}

pub fn set(parent: &mut Value, key: &str, value: impl Into<Value>) {
    as_map(parent).insert(key.to_owned(), value.into());
}

pub fn remove(parent: &mut Value, key: &str) -> Option<Value> {
    parent.as_object_mut()?.remove(key)
}

/// The elements of a list in place; empty when there is no list.
pub fn items_mut<'a>(parent: &'a mut Value, key: &str) -> &'a mut [Value] {
    parent.get_mut(key).and_then(Value::as_array_mut).map(Vec::as_mut_slice).unwrap_or_default()
}
