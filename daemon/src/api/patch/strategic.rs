//! Strategic merge patch: merge patch that knows keyed lists, with directives inside the patch.
//!
//! The directives are described in Kubernetes' community repository under
//! `contributors/devel/sig-api-machinery/strategic-merge-patch.md`: `$patch`, `$retainKeys`,
//! `$deleteFromPrimitiveList/FIELD` and `$setElementOrder/FIELD`.

use crate::api::schema::{Elements, Node};
use serde_json::{Map, Value};

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
        result.retain(|key, _| retained.iter().any(|kept| kept == key));
    }
    for (key, removed) in patch {
        let Some(list) = key.strip_prefix(DELETE_PRIMITIVES) else { continue };
        let removed = removed.as_array().ok_or_else(|| format!("{key} is not a list"))?;
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
    let key = match merged(of) {
        Elements::Atomic => return Ok(patch.iter().map(without_directives).collect()),
        Elements::Set => {
            for item in patch {
                if !list.contains(item) {
                    list.push(item.clone());
                }
            }
            return Ok(list);
        }
        Elements::Keyed(keys) => keys.first().copied().unwrap_or_default(),
    };
    let items = of.and_then(Node::items);
    // An element that is only the directive speaks for the whole list.
    if patch.iter().any(|item| item.as_object().is_some_and(|item| item.len() == 1 && replaces(item))) {
        let rest = patch.iter().filter(|item| !item.as_object().is_some_and(replaces));
        return Ok(rest.map(without_directives).collect());
    }
    for item in patch {
        let item = item.as_object().ok_or_else(|| format!("an element of {field} is not an object"))?;
        let Some(value) = item.get(key) else {
            return Err(format!("an element of {field} does not contain declared merge key: {key}"));
        };
        let same = |other: &Value| other.get(key) == Some(value);
        match directive(item)? {
            Directive::Delete => list.retain(|other| !same(other)),
            Directive::Merge | Directive::Replace => {
                let empty = Map::new();
                let at = list.iter().position(same);
                let original = at.and_then(|at| list[at].as_object()).unwrap_or(&empty);
                let merged = Value::Object(merge_objects(original, item, items)?);
                match at {
                    Some(at) => list[at] = merged,
                    None => list.push(merged),
                }
            }
        }
    }
    Ok(list)
}

/// Puts lists into the order that the patch asks for; elements that only the server has stay where they are
/// among their neighbours.
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
        let elements = merged(of.and_then(|of| of.child(field)));
        let identity = |item: &Value| match elements {
            Elements::Atomic => None,
            Elements::Set => Some(item.clone()),
            Elements::Keyed(keys) => item.get(keys.first()?).cloned(),
        };
        if *elements == Elements::Atomic {
            continue;
        }
        let wished: Vec<Option<Value>> = order.iter().map(identity).collect();
        let before = original.get(field).and_then(Value::as_array);
        let before: Vec<Option<Value>> = before.into_iter().flatten().map(identity).collect();
        let place = |among: &[Option<Value>], item: &Value| {
            let identity = identity(item);
            among.iter().position(|other| *other == identity)
        };
        let (mut named, servers): (Vec<Value>, Vec<Value>) =
            std::mem::take(list).into_iter().partition(|item| place(&wished, item).is_some());
        named.sort_by_key(|item| place(&wished, item));
        let (mut named, mut servers) = (named.into_iter().peekable(), servers.into_iter().peekable());
        loop {
            let server_first = match (servers.peek(), named.peek()) {
                (None, None) => break,
                (Some(_), None) => true,
                (None, Some(_)) => false,
                (Some(server), Some(named)) => {
                    matches!((place(&before, server), place(&before, named)), (Some(s), Some(n)) if s < n)
                }
            };
            list.extend(if server_first { servers.next() } else { named.next() });
        }
    }
    Ok(())
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
