//! The three-way patch: from what was applied last, what should be, and what is. Pure.
//!
//! Fields that the manifest has are set; fields that the last manifest had and this one has not are taken away;
//! everything else (defaults, what controllers or other people wrote) stays.

use crate::api::schema::{Elements, Node};
use serde_json::{Map, Value, json};

/// The patch that leads from `live` to `modified`, given that `last` was applied before; `None` when nothing
/// has to change.
///
/// With the objects' type it is a strategic merge patch, which merges some lists by key. Without it is a JSON merge
/// patch, to which lists are single values.
pub fn three_way(last: &Value, modified: &Value, live: &Value, of: Option<Node<'_>>) -> Option<Value> {
    let patch = object(last, modified.as_object()?, live, of);
    (!patch.is_empty()).then_some(Value::Object(patch))
}

/// The patch of one object.
fn object(
    last: &Value,
    modified: &Map<String, Value>,
    live: &Value,
    of: Option<Node<'_>>,
) -> Map<String, Value> {
    let mut patch = Map::new();
    for (key, wanted) in modified {
        let (was, is) = (&last[key.as_str()], live.get(key));
        let child = of.and_then(|of| of.child(key));
        match (wanted, is) {
            // To ask for null is to ask that the field not be there.
            (Value::Null, None | Some(Value::Null)) => {}
            (Value::Null, Some(_)) => {
                patch.insert(key.clone(), Value::Null);
            }
            (Value::Object(_), Some(is)) if child.is_some_and(Node::is_replaced) => {
                let whole = without_nulls(wanted);
                if whole != *is {
                    patch.insert(key.clone(), whole);
                }
            }
            (Value::Object(wanted), Some(is @ Value::Object(_))) => {
                let mut inner = object(was, wanted, is, child);
                if !inner.is_empty() && child.is_some_and(Node::retains_keys) {
                    inner.insert("$retainKeys".into(), wanted.keys().cloned().collect());
                }
                if !inner.is_empty() {
                    patch.insert(key.clone(), Value::Object(inner));
                }
            }
            (Value::Array(wanted), Some(Value::Array(is))) => list(was, wanted, is, key, child, &mut patch),
            (wanted, Some(is)) if wanted == is => {}
            (wanted, _) => {
                patch.insert(key.clone(), without_nulls(wanted));
            }
        }
    }
    for key in last.as_object().into_iter().flat_map(Map::keys) {
        if !modified.contains_key(key) && live.get(key).is_some_and(|is| !is.is_null()) {
            patch.insert(key.clone(), Value::Null);
        }
    }
    patch
}

fn list(
    last: &Value,
    modified: &[Value],
    live: &[Value],
    field: &str,
    of: Option<Node<'_>>,
    patch: &mut Map<String, Value>,
) {
    let last = last.as_array().map_or(&[][..], Vec::as_slice);
    let replaced = match of.map_or(&Elements::Atomic, Node::merged) {
        Elements::Atomic => (modified != live).then(|| Value::Array(modified.to_vec())),
        Elements::Set => return set(last, modified, live, field, patch),
        Elements::Keyed(keys) => {
            let key = keys.first().map(String::as_str).unwrap_or_default();
            match (by_key(last, key), by_key(modified, key), by_key(live, key)) {
                (Some(last), Some(modified), Some(live)) => {
                    return keyed(&KeyedList { key, field, of, last, modified, live }, patch);
                }
                // Keys that are missing or given twice (a port for TCP and for UDP) cannot be merged by.
                _ => (modified != live).then(|| {
                    let whole = modified.iter().cloned().chain([json!({"$patch": "replace"})]);
                    Value::Array(whole.collect())
                }),
            }
        }
    };
    if let Some(list) = replaced {
        patch.insert(field.to_owned(), list);
    }
}

fn set(last: &[Value], modified: &[Value], live: &[Value], field: &str, patch: &mut Map<String, Value>) {
    let added: Vec<Value> = modified.iter().filter(|item| !live.contains(item)).cloned().collect();
    let taken: Vec<Value> =
        last.iter().filter(|item| !modified.contains(item) && live.contains(item)).cloned().collect();
    if !added.is_empty() {
        patch.insert(field.to_owned(), added.into());
    }
    if !taken.is_empty() {
        patch.insert(format!("$deleteFromPrimitiveList/{field}"), taken.into());
    }
}

fn keyed(list: &KeyedList<'_>, patch: &mut Map<String, Value>) {
    let KeyedList { key, field, .. } = *list;
    let mut changes = Vec::new();
    for (name, wanted) in &list.modified {
        let Some(wanted_fields) = wanted.as_object() else { continue };
        let Some(is) = find(&list.live, name) else {
            changes.push(without_nulls(wanted));
            continue;
        };
        let was = find(&list.last, name).unwrap_or(&Value::Null);
        let mut inner = object(was, wanted_fields, is, list.of.and_then(Node::items));
        if !inner.is_empty() {
            if list.of.is_some_and(Node::retains_keys) {
                inner.insert("$retainKeys".into(), wanted_fields.keys().cloned().collect());
            }
            inner.insert(key.to_owned(), (*name).clone());
            changes.push(Value::Object(inner));
        }
    }
    for (name, _) in &list.last {
        if find(&list.modified, name).is_none() && find(&list.live, name).is_some() {
            changes.push(json!({"$patch": "delete", key: name}));
        }
    }
    if !list.in_order() {
        let order: Vec<Value> = list.modified.iter().map(|(name, _)| json!({key: name})).collect();
        patch.insert(format!("$setElementOrder/{field}"), order.into());
        // The server looks at the order only where the list itself is patched.
        if changes.is_empty() {
            changes.extend(list.modified.first().map(|(name, _)| json!({key: name})));
        }
    }
    if !changes.is_empty() {
        patch.insert(field.to_owned(), changes.into());
    }
}

type ByKey<'a> = Vec<(&'a Value, &'a Value)>;

struct KeyedList<'a> {
    key: &'a str,
    field: &'a str,
    /// The list's type.
    of: Option<Node<'a>>,
    last: ByKey<'a>,
    modified: ByKey<'a>,
    live: ByKey<'a>,
}

impl KeyedList<'_> {
    /// Whether the elements will stand in the manifest's order without being told: those that are there keep
    /// their places, but new ones come before those that the patch does not name.
    fn in_order(&self) -> bool {
        let place = |name: &Value| self.live.iter().position(|(other, _)| *other == name);
        let places: Option<Vec<usize>> = self.modified.iter().map(|(name, _)| place(name)).collect();
        places.is_some_and(|places| places.is_sorted())
    }
}

fn find<'a>(list: &ByKey<'a>, name: &Value) -> Option<&'a Value> {
    list.iter().find(|(key, _)| *key == name).map(|(_, element)| *element)
}

/// The elements by key; `None` when one has none or two have the same.
fn by_key<'a>(list: &'a [Value], key: &str) -> Option<ByKey<'a>> {
    let mut found: ByKey<'a> = Vec::with_capacity(list.len());
    for element in list {
        let name = element.get(key).filter(|name| !name.is_null())?;
        if find(&found, name).is_some() {
            return None;
        }
        found.push((name, element));
    }
    Some(found)
}

/// A new value has no field to take away: null there would be taken for one.
fn without_nulls(value: &Value) -> Value {
    match value {
        Value::Object(fields) => fields
            .iter()
            .filter(|(_, value)| !value.is_null())
            .map(|(key, value)| (key.clone(), without_nulls(value)))
            .collect::<Map<_, _>>()
            .into(),
        Value::Array(list) => list.iter().map(without_nulls).collect(),
        other => other.clone(),
    }
}

#[cfg(test)]
mod tests;
