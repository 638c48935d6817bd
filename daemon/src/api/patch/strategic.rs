//! Strategic merge patch: merge patch that knows keyed lists, with directives inside the patch.
//!
//! The directives are described in Kubernetes' community repository under
//! `contributors/devel/sig-api-machinery/strategic-merge-patch.md`: `$patch`, `$retainKeys`,
//! `$deleteFromPrimitiveList/FIELD` and `$setElementOrder/FIELD`.

use crate::api::schema::{Elements, Node};
use serde_json::{Map, Value};
use std::collections::{HashMap, HashSet};

const DIRECTIVE: &str = "$patch";
const RETAIN: &str = "$retainKeys";
const DELETE_PRIMITIVES: &str = "$deleteFromPrimitiveList/";
const ORDER: &str = "$setElementOrder/";

/// Applies a patch to an object of a type; all lists of an unknown one are replaced.
///
/// # Errors
/// What in the patch makes no sense.
pub fn apply(object: &Value, patch: &Value, of: Option<Node<'_>>) -> Result<Value, String> {
    let empty = Map::new();
    let object = object.as_object().unwrap_or(&empty);
    let patch = patch.as_object().ok_or("the patch is not an object")?;
    merge_objects(object, patch, of).map(Value::Object)
}

fn merge_objects(
    original: &Map<String, Value>,
    patch: &Map<String, Value>,
    of: Option<Node<'_>>,
) -> Result<Map<String, Value>, String> {
    let mut result = match directive(patch)? {
        Directive::Merge => original.clone(),
        Directive::Replace => Map::new(),
        Directive::Delete => return Ok(Map::new()),
    };
    if let Some(retained) = patch.get(RETAIN) {
        let retained = retained.as_array().ok_or("$retainKeys is not a list")?;
        let retained: HashSet<&str> = retained.iter().filter_map(Value::as_str).collect();
        result.retain(|key, _| retained.contains(key.as_str()));
    }
    for (key, removed) in patch {
        let Some(list) = key.strip_prefix(DELETE_PRIMITIVES) else { continue };
        let removed = removed.as_array().ok_or_else(|| format!("{key} is not a list"))?;
        let removed: HashSet<&Value> = removed.iter().collect();
        if let Some(Value::Array(list)) = result.get_mut(list) {
            list.retain(|item| !removed.contains(item));
        }
    }
    for (key, value) in patch {
        if key == DIRECTIVE || key == RETAIN || key.starts_with(DELETE_PRIMITIVES) || key.starts_with(ORDER) {
            continue;
        }
        let child = of.and_then(|of| of.child(key));
        match value {
            Value::Null => {
                result.remove(key);
            }
            Value::Object(_) if child.is_some_and(Node::is_replaced) => {
                result.insert(key.clone(), without_directives(value));
            }
            Value::Object(patch) => {
                let empty = Map::new();
                let original = result.get(key).and_then(Value::as_object).unwrap_or(&empty);
                let deleted = matches!(directive(patch)?, Directive::Delete);
                let merged = merge_objects(original, patch, child)?;
                if deleted {
                    result.remove(key);
                } else {
                    result.insert(key.clone(), Value::Object(merged));
                }
            }
            Value::Array(patch) => {
                let original = match result.get_mut(key) {
                    Some(Value::Array(list)) => std::mem::take(list),
                    _ => Vec::new(),
                };
                let merged = merge_lists(original, patch, key, child)?;
                result.insert(key.clone(), Value::Array(merged));
            }
            value => {
                result.insert(key.clone(), value.clone());
            }
        }
    }
    set_orders(original, patch, &mut result, of)?;
    Ok(result)
}

fn merge_lists(
    mut list: Vec<Value>,
    patch: &[Value],
    field: &str,
    of: Option<Node<'_>>,
) -> Result<Vec<Value>, String> {
    let elements = merged(of);
    let key = match elements {
        Elements::Atomic => return Ok(patch.iter().map(without_directives).collect()),
        Elements::Set => {
            let before = list.clone();
            list.extend(patch.iter().cloned());
            let mut seen = HashSet::new();
            list.retain(|item| seen.insert(item.clone()));
            return Ok(in_order(list, patch, &before, elements));
        }
        Elements::Keyed(keys) => keys.first().map(String::as_str).unwrap_or_default(),
    };
    // An element that is only the directive speaks for the whole list.
    if patch.iter().any(|item| item.as_object().is_some_and(|item| item.len() == 1 && replaces(item))) {
        let rest = patch.iter().filter(|item| !item.as_object().is_some_and(replaces));
        return Ok(rest.map(without_directives).collect());
    }
    let mut deleted = HashSet::new();
    let mut changed = Vec::new();
    for item in patch {
        let fields = item.as_object().ok_or_else(|| format!("an element of {field} is not an object"))?;
        let Some(value) = fields.get(key) else {
            return Err(format!("an element of {field} does not contain declared merge key: {key}"));
        };
        match directive(fields)? {
            Directive::Delete => {
                deleted.insert(value);
            }
            Directive::Merge | Directive::Replace => changed.push((value, fields)),
        }
    }
    list.retain(|item| item.get(key).is_none_or(|value| !deleted.contains(value)));
    let before = list.clone();
    let mut places: HashMap<&Value, usize> = HashMap::new();
    for (place, item) in before.iter().enumerate() {
        if let Some(value) = item.get(key) {
            places.entry(value).or_insert(place);
        }
    }
    for (value, fields) in changed {
        let empty = Map::new();
        let place = *places.entry(value).or_insert(list.len());
        let original = list.get(place).and_then(Value::as_object).unwrap_or(&empty);
        let merged = Value::Object(merge_objects(original, fields, of.and_then(Node::items))?);
        match list.get_mut(place) {
            Some(item) => *item = merged,
            None => list.push(merged),
        }
    }
    Ok(in_order(list, patch, &before, elements))
}

/// Puts lists into the order that the patch asks for.
fn set_orders(
    original: &Map<String, Value>,
    patch: &Map<String, Value>,
    result: &mut Map<String, Value>,
    of: Option<Node<'_>>,
) -> Result<(), String> {
    for (key, order) in patch {
        let Some(field) = key.strip_prefix(ORDER) else { continue };
        let order = order.as_array().ok_or_else(|| format!("{key} is not a list"))?;
        let Some(Value::Array(list)) = result.get_mut(field) else { continue };
        let before = original.get(field).and_then(Value::as_array).map_or(&[][..], Vec::as_slice);
        let elements = merged(of.and_then(|of| of.child(field)));
        *list = in_order(std::mem::take(list), order, before, elements);
    }
    Ok(())
}

/// A list with the elements that `wished` names in its order. Those that only the server has stay in theirs, each before
/// whatever it stood before; what was not there `before` goes first.
fn in_order(list: Vec<Value>, wished: &[Value], before: &[Value], elements: &Elements) -> Vec<Value> {
    let identity = |item: &Value| match elements {
        Elements::Atomic => None,
        Elements::Set => Some(item.clone()),
        Elements::Keyed(keys) => item.get(keys.first()?).cloned(),
    };
    let places_of = |list: &[Value]| {
        let mut places: HashMap<Value, usize> = HashMap::with_capacity(list.len());
        for (place, item) in list.iter().enumerate() {
            if let Some(identity) = identity(item) {
                places.entry(identity).or_insert(place);
            }
        }
        places
    };
    let (wished, before) = (places_of(wished), places_of(before));
    let placed = list.into_iter().map(|item| {
        let identity = identity(&item);
        let place_in = |places: &HashMap<Value, usize>| places.get(identity.as_ref()?).copied();
        (place_in(&wished), place_in(&before), item)
    });
    let (mut named, servers): (Vec<_>, Vec<_>) = placed.partition(|(wished, ..)| wished.is_some());
    named.sort_by_key(|(wished, ..)| *wished);
    let mut ordered = Vec::with_capacity(named.len() + servers.len());
    let (mut named, mut servers) = (named.into_iter().peekable(), servers.into_iter().peekable());
    loop {
        let server_first = match (servers.peek(), named.peek()) {
            (None, None) => return ordered,
            (Some(_), None) => true,
            (None, Some(_)) => false,
            (Some((_, server, _)), Some((_, named, _))) => {
                matches!((server, named), (Some(server), Some(named)) if server < named)
            }
        };
        let next = if server_first { servers.next() } else { named.next() };
        ordered.extend(next.map(|(_, _, item)| item));
    }
}

fn merged(list: Option<Node<'_>>) -> &Elements {
    list.map_or(&Elements::Atomic, Node::merged)
}

#[derive(Clone, Copy)]
enum Directive {
    Merge,
    Replace,
    Delete,
}

fn directive(patch: &Map<String, Value>) -> Result<Directive, String> {
    match patch.get(DIRECTIVE).map(|value| value.as_str().unwrap_or_default()) {
        None | Some("merge") => Ok(Directive::Merge),
        Some("replace") => Ok(Directive::Replace),
        Some("delete") => Ok(Directive::Delete),
        Some(other) => Err(format!("unknown $patch directive: {other:?}")),
    }
}

fn replaces(item: &Map<String, Value>) -> bool {
    item.get(DIRECTIVE).and_then(Value::as_str) == Some("replace")
}

/// A value that is taken whole: nothing that is only an instruction must be stored.
fn without_directives(value: &Value) -> Value {
    match value {
        Value::Object(fields) => Value::Object(
            fields
                .iter()
                .filter(|(key, value)| !key.starts_with('$') && !value.is_null())
                .map(|(key, value)| (key.clone(), without_directives(value)))
                .collect(),
        ),
        Value::Array(items) => Value::Array(items.iter().map(without_directives).collect()),
        value => value.clone(),
    }
}
