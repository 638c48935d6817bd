//! Objects taken apart by their types: which fields there are, what two objects differ in, how one is merged into
//! another, and what is left without some fields.
//!
//! These are the operations of structured merge (kubernetes.io/docs/reference/using-api/server-side-apply). Values of
//! unknown types, and atomic ones, are leaves.

use super::fields::{Fields, Step};
use crate::api::schema::{Elements, Node, Shape};
use serde_json::{Map, Value};
use std::collections::{BTreeMap, BTreeSet};

/// A type, where it is known.
pub type Of<'a> = Option<Node<'a>>;

/// The type below a step.
pub fn down<'a>(of: Of<'a>, step: &Step) -> Of<'a> {
    match step.as_field() {
        Some(name) => of?.child(name),
        None => of?.items(),
    }
}

/// How a value of a type is taken apart.
enum Parts<'a> {
    Leaf,
    Object,
    List(&'a Elements),
}

fn parts<'a>(of: Of<'a>) -> Parts<'a> {
    match of.map(Node::shape) {
        Some(Shape::Struct { is_atomic: false } | Shape::Map { is_atomic: false }) => Parts::Object,
        Some(Shape::List(list)) if list.elements != Elements::Atomic => Parts::List(&list.elements),
        _ => Parts::Leaf,
    }
}

/// Why an object cannot be taken apart.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{path}: {why}")]
pub struct Malformed {
    path: String,
    why: String,
}

/// What tells an element of a list from the others.
fn step_of(element: &Value, elements: &Elements, of: Of<'_>) -> Result<Step, String> {
    let keys = match elements {
        Elements::Keyed(keys) => keys,
        Elements::Set | Elements::Atomic => {
            return match element {
                Value::Object(_) | Value::Array(_) | Value::Null => {
                    Err("an element of a set is not a plain value".into())
                }
                plain => Ok(Step::value(plain)),
            };
        }
    };
    let element = element.as_object().ok_or("an element of a keyed list is not an object")?;
    let found = keys.iter().filter_map(|key| {
        let default = || of?.items()?.child(key)?.default().cloned();
        let value = element.get(key).filter(|value| !value.is_null()).cloned().or_else(default)?;
        Some((key.clone(), value))
    });
    let found: Map<String, Value> = found.collect();
    match found.is_empty() {
        true => Err(format!("an element of a keyed list has none of the keys {}", keys.join(", "))),
        false => Ok(Step::keys(&found)),
    }
}

/// A list's elements by what tells them apart; several where two are the same.
fn index<'a>(
    list: &'a [Value],
    elements: &Elements,
    of: Of<'_>,
) -> Result<BTreeMap<Step, Vec<&'a Value>>, String> {
    let mut index: BTreeMap<Step, Vec<&Value>> = BTreeMap::new();
    for element in list {
        index.entry(step_of(element, elements, of)?).or_default().push(element);
    }
    Ok(index)
}

fn malformed(path: &[Step]) -> impl Fn(String) -> Malformed + use<> {
    let path: String = path.iter().map(Step::to_string).collect();
    move |why| Malformed { path: path.clone(), why }
}

/// All fields of an object.
///
/// # Errors
/// A list whose elements cannot be told apart.
pub fn fields_of(object: &Value, of: Of<'_>) -> Result<Fields, Malformed> {
    let mut fields = Fields::default();
    add_fields(object, of, &mut Vec::new(), &mut fields)?;
    Ok(fields)
}

fn add_fields(value: &Value, of: Of<'_>, path: &mut Vec<Step>, fields: &mut Fields) -> Result<(), Malformed> {
    match (parts(of), value) {
        (Parts::Object, Value::Object(members)) => {
            for (key, member) in members {
                path.push(Step::field(key));
                add_fields(member, of.and_then(|of| of.child(key)), path, fields)?;
                let is_empty = member.is_null() || member.as_object().is_some_and(Map::is_empty);
                let is_chosen = !of.is_some_and(|of| of.has_field(key));
                if is_empty || is_chosen {
                    fields.insert(path);
                }
                path.pop();
            }
        }
        (Parts::List(elements), Value::Array(list)) => {
            for (step, same) in index(list, elements, of).map_err(malformed(path))? {
                path.push(step);
                if let [one] = same.as_slice() {
                    add_fields(one, of.and_then(Node::items), path, fields)?;
                }
                fields.insert(path);
                path.pop();
            }
        }
        (Parts::Object | Parts::List(_), Value::Null) => {}
        _ => fields.insert(path),
    }
    Ok(())
}

/// What an object has that another one has not.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Difference {
    pub added: Fields,
    pub modified: Fields,
    pub removed: Fields,
}

impl Difference {
    /// What somebody set.
    pub fn set(&self) -> Fields {
        self.added.union(&self.modified)
    }
}

/// What tells `after` from `before`.
///
/// # Errors
/// A list whose elements cannot be told apart.
pub fn compare(before: &Value, after: &Value, of: Of<'_>) -> Result<Difference, Malformed> {
    let mut difference = Difference::default();
    add_difference(Some(before), Some(after), of, &mut Vec::new(), &mut difference)?;
    Ok(difference)
}

fn add_difference<'v>(
    before: Option<&'v Value>,
    after: Option<&'v Value>,
    of: Of<'_>,
    path: &mut Vec<Step>,
    into: &mut Difference,
) -> Result<(), Malformed> {
    let granular = match parts(of) {
        Parts::Object => {
            let none = Map::new();
            let members = |value: Option<&'v Value>| value.and_then(Value::as_object);
            let (old, new) = (members(before).unwrap_or(&none), members(after).unwrap_or(&none));
            for key in old.keys().chain(new.keys().filter(|key| !old.contains_key(*key))) {
                path.push(Step::field(key));
                add_difference(old.get(key), new.get(key), of.and_then(|of| of.child(key)), path, into)?;
                path.pop();
            }
            !old.is_empty() || !new.is_empty()
        }
        Parts::List(elements) => {
            let list = |value: Option<&'v Value>| {
                let list = value.and_then(Value::as_array).map_or(&[][..], Vec::as_slice);
                index(list, elements, of).map_err(malformed(path))
            };
            let (old, new) = (list(before)?, list(after)?);
            let steps: Vec<&Step> =
                old.keys().chain(new.keys().filter(|step| !old.contains_key(*step))).collect();
            let none = Vec::new();
            for step in steps {
                let (was, is) = (old.get(step).unwrap_or(&none), new.get(step).unwrap_or(&none));
                path.push(step.clone());
                compare_elements(was, is, of.and_then(Node::items), path, into)?;
                path.pop();
            }
            !old.is_empty() || !new.is_empty()
        }
        Parts::Leaf => false,
    };
    match (before, after) {
        (None, Some(_)) => into.added.insert(path),
        (Some(_), None) => into.removed.insert(path),
        (Some(before), Some(after)) if !granular && before != after => into.modified.insert(path),
        _ => {}
    }
    Ok(())
}

/// Elements that are there several times are one value.
fn compare_elements(
    was: &[&Value],
    is: &[&Value],
    of: Of<'_>,
    path: &mut Vec<Step>,
    into: &mut Difference,
) -> Result<(), Malformed> {
    match (was, is) {
        ([] | [_], [] | [_]) => add_difference(was.first().copied(), is.first().copied(), of, path, into)?,
        ([_, _, ..], [_, _, ..]) if was != is => into.modified.insert(path),
        ([_, _, ..], [_, _, ..]) => {}
        ([_, _, ..], one) => {
            add_difference(None, one.first().copied(), of, path, into)?;
            into.removed.insert(path);
        }
        (one, _) => {
            add_difference(one.first().copied(), None, of, path, into)?;
            into.added.insert(path);
        }
    }
    Ok(())
}

/// The object with what `wished` says.
///
/// # Errors
/// A list whose elements cannot be told apart, or that wishes for one twice.
pub fn merge(object: &Value, wished: &Value, of: Of<'_>) -> Result<Value, Malformed> {
    merge_at(Some(object), wished, of, &mut Vec::new())
}

fn merge_at(
    object: Option<&Value>,
    wished: &Value,
    of: Of<'_>,
    path: &mut Vec<Step>,
) -> Result<Value, Malformed> {
    match (parts(of), wished) {
        (Parts::Object, Value::Object(wished)) => {
            let mut merged = object.and_then(Value::as_object).cloned().unwrap_or_default();
            for (key, wished) in wished {
                path.push(Step::field(key));
                let value = merge_at(merged.get(key), wished, of.and_then(|of| of.child(key)), path)?;
                merged.insert(key.clone(), value);
                path.pop();
            }
            Ok(Value::Object(merged))
        }
        (Parts::List(elements), Value::Array(wished)) => {
            let object = object.and_then(Value::as_array).map_or(&[][..], Vec::as_slice);
            merge_lists(object, wished, elements, of, path).map(Value::Array)
        }
        _ => Ok(wished.clone()),
    }
}

/// Elements that are wished for come in the order of the wish. Those that only the object has stay behind what they
/// stood behind, as far as that order lets them.
///
/// These are the steps of Kubernetes' structured merge, so that two servers make the same list of the same wish.
fn merge_lists(
    object: &[Value],
    wished: &[Value],
    elements: &Elements,
    of: Of<'_>,
    path: &mut Vec<Step>,
) -> Result<Vec<Value>, Malformed> {
    let steps = |list: &[Value]| -> Result<Vec<Step>, String> {
        list.iter().map(|element| step_of(element, elements, of)).collect()
    };
    let live = steps(object).map_err(malformed(path))?;
    let wanted = steps(wished).map_err(malformed(path))?;
    let mut asked = BTreeSet::new();
    if let Some(step) = wanted.iter().find(|step| !asked.insert(*step)) {
        return Err(malformed(path)(format!("duplicate entries for key {step}")));
    }
    let mut values: BTreeMap<&Step, Option<&Value>> = BTreeMap::new();
    for (step, value) in live.iter().zip(object) {
        // What is there twice has no one value to be merged with.
        values.entry(step).and_modify(|value| *value = None).or_insert(Some(value));
    }
    let mut shared = wanted.iter().filter(|step| values.contains_key(step)).peekable();
    let mut done = BTreeSet::new();
    let mut merged = Vec::with_capacity(object.len().max(wished.len()));
    let (mut l, mut r) = (0, 0);
    while l < live.len() || r < wanted.len() {
        if let Some(step) = live.get(l) {
            if !asked.contains(step) {
                merged.push(object[l].clone());
                l += 1;
                continue;
            }
            if wanted.get(r) == Some(step) {
                l += 1;
            } else if r < wanted.len() && shared.peek().is_some_and(|next| *next != step) {
                // It is wished for, but later or earlier.
                l += 1;
                continue;
            } else if done.contains(step) {
                l += 1;
            }
        }
        let Some(step) = wanted.get(r) else { continue };
        path.push(step.clone());
        let value = values.get(step).copied().flatten();
        merged.push(merge_at(value, &wished[r], of.and_then(Node::items), path)?);
        path.pop();
        done.insert(step);
        shared.next_if_eq(&step);
        r += 1;
    }
    Ok(merged)
}

/// The object without these fields.
pub fn remove(object: &Value, fields: &Fields, of: Of<'_>) -> Value {
    match (parts(of), object) {
        (Parts::Object, Value::Object(members)) => {
            let left = members.iter().filter_map(|(key, member)| {
                let step = Step::field(key);
                remove_below(member, &step, fields, down(of, &step)).map(|member| (key.clone(), member))
            });
            Value::Object(left.collect())
        }
        (Parts::List(elements), Value::Array(list)) => {
            let left = list.iter().filter_map(|element| match step_of(element, elements, of) {
                Ok(step) => remove_below(element, &step, fields, down(of, &step)),
                Err(_) => Some(element.clone()),
            });
            Value::Array(left.collect())
        }
        _ => object.clone(),
    }
}

fn remove_below(value: &Value, step: &Step, fields: &Fields, of: Of<'_>) -> Option<Value> {
    if fields.has(step) {
        return None;
    }
    Some(match fields.below(step) {
        Some(below) => remove(value, below, of),
        None => value.clone(),
    })
}

/// The set with the fields of structs that lead to what is in it.
pub fn with_named(fields: &Fields, of: Of<'_>) -> Fields {
    fields.with_named(of, &|of, name| of.is_some_and(|of| of.has_field(name)), &|of, step| down(of, step))
}
