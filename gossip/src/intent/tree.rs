//! Objects as flat leaves and back: the shape that merges field by field. Pure; knows JSON and the schema, not
//! automerge.
//!
//! A document is one flat map from path to leaf. There are no nested containers that two sides could create apart
//! and then lose one of: `annotations` added on both sides hold both sides' names afterwards, and the same
//! manifest applied in two halves of a cut network is the same document.
//!
//! Paths: `.` is the object, `/name` a field, `#key` an item of a keyed list; `~`, `/` and `#` in names are `~0`,
//! `~1`, `~2`; a path that ends in `~o` holds its item's place in the list. A map or keyed list has a leaf of its
//! own, its *marker*. What is below a path counts only while the marker is there, so a removal that takes the
//! marker away wins over concurrent edits further down (but see [`Schema::open_map`]).

use super::order;
use super::schema::{KeyField, Schema};
use serde_json::{Map, Value};
use std::collections::{BTreeMap, BTreeSet};

/// How deep an object may nest: what JSON parsers take by default.
pub const MAX_DEPTH: usize = 128;
/// The longest path. Kubernetes' longest names are 317 bytes, so this is a dozen of them in a row.
pub const MAX_PATH_BYTES: usize = 8 * 1024;
/// The longest merge key of one item; a list with a longer one is kept as one value.
const MAX_ITEM_KEY_BYTES: usize = 512;

pub const ROOT: &str = ".";
/// The path of `metadata.uid`.
pub const UID: &str = "./metadata/uid";
const ORDER: &str = "~o";

/// What stands at one path.
#[derive(Clone, Debug, PartialEq)]
pub enum Leaf {
    Null,
    Bool(bool),
    Int(i64),
    /// Only above `i64::MAX`, so that a number has one form.
    Uint(u64),
    Float(f64),
    Text(String),
    Map,
    Keyed,
    /// A list that merges as a whole.
    Atomic(Value),
}

pub type Leaves = BTreeMap<String, Leaf>;

#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TreeError {
    #[error("an object must be a JSON object")]
    NotAnObject,
    #[error("it nests deeper than {MAX_DEPTH} levels")]
    TooDeep,
    #[error("a field's path is longer than {MAX_PATH_BYTES} bytes")]
    PathTooLong,
}

/// The object as leaves, without what never belongs to intent (status and what servers count). `current` are the
/// document's leaves now: items that stay keep their place numbers.
pub fn flatten(object: &Value, current: &Leaves, schema: &dyn Schema) -> Result<Leaves, TreeError> {
    let Value::Object(fields) = object else { return Err(TreeError::NotAnObject) };
    let mut flat = Flatten { leaves: Leaves::new(), current, schema, path: Vec::new() };
    flat.put(ROOT.to_owned(), Leaf::Map)?;
    for (name, value) in fields.iter().filter(|(name, _)| *name != "status") {
        let at = child(ROOT, name);
        flat.path.push(name.clone());
        match value {
            Value::Object(metadata) if name == "metadata" => {
                flat.put(at.clone(), Leaf::Map)?;
                let counted = ["resourceVersion", "managedFields", "generation"];
                flat.fields(&at, metadata.iter().filter(|(name, _)| !counted.contains(&name.as_str())))?;
            }
            _ => flat.value(at, value)?,
        }
        flat.path.pop();
    }
    Ok(flat.leaves)
}

struct Flatten<'a> {
    leaves: Leaves,
    current: &'a Leaves,
    schema: &'a dyn Schema,
    path: Vec<String>,
}

impl Flatten<'_> {
    fn put(&mut self, at: String, leaf: Leaf) -> Result<(), TreeError> {
        if at.len() > MAX_PATH_BYTES {
            return Err(TreeError::PathTooLong);
        }
        self.leaves.insert(at, leaf);
        Ok(())
    }

    fn value(&mut self, at: String, value: &Value) -> Result<(), TreeError> {
        if self.path.len() >= MAX_DEPTH {
            return Err(TreeError::TooDeep);
        }
        match value {
            Value::Null => self.put(at, Leaf::Null),
            Value::Bool(it) => self.put(at, Leaf::Bool(*it)),
            Value::Number(number) => self.put(at, number_leaf(number)),
            Value::String(text) => self.put(at, Leaf::Text(text.clone())),
            Value::Object(fields) => {
                self.put(at.clone(), Leaf::Map)?;
                self.fields(&at, fields.iter())
            }
            Value::Array(list) => self.list(at, list),
        }
    }

    fn fields<'v>(
        &mut self,
        at: &str,
        fields: impl Iterator<Item = (&'v String, &'v Value)>,
    ) -> Result<(), TreeError> {
        for (name, value) in fields {
            self.path.push(name.clone());
            self.value(child(at, name), value)?;
            self.path.pop();
        }
        Ok(())
    }

    fn list(&mut self, at: String, list: &[Value]) -> Result<(), TreeError> {
        let path: Vec<&str> = self.path.iter().map(String::as_str).collect();
        let Some(items) = self.schema.merge_key(&path).and_then(|key| keyed(list, key)) else {
            let room = MAX_DEPTH.saturating_sub(self.path.len());
            if list.iter().any(|item| !fits(item, room)) {
                return Err(TreeError::TooDeep);
            }
            return self.put(at, Leaf::Atomic(Value::Array(list.to_vec())));
        };
        self.put(at.clone(), Leaf::Keyed)?;
        let paths: Vec<String> = items.iter().map(|(key, _)| format!("{at}#{}", escape(key))).collect();
        let places = paths.iter().map(|path| match self.current.get(&format!("{path}{ORDER}")) {
            Some(Leaf::Int(place)) => Some(*place),
            _ => None,
        });
        let places = order::assign(&places.collect::<Vec<_>>());
        self.path.push("*".to_owned());
        for ((path, (_, fields)), place) in paths.into_iter().zip(items).zip(places) {
            self.put(format!("{path}{ORDER}"), Leaf::Int(place))?;
            self.put(path.clone(), Leaf::Map)?;
            self.fields(&path, fields.iter())?;
        }
        self.path.pop();
        Ok(())
    }
}

fn number_leaf(number: &serde_json::Number) -> Leaf {
    match (number.as_i64(), number.as_u64(), number.as_f64()) {
        (Some(int), _, _) => Leaf::Int(int),
        (_, Some(uint), _) => Leaf::Uint(uint),
        (_, _, Some(float)) => Leaf::Float(float),
        (None, None, None) => Leaf::Null,
    }
}

/// The list's items by merge key, or `None` if they cannot be told apart by it.
fn keyed<'v>(list: &'v [Value], key: &[KeyField]) -> Option<Vec<(String, &'v Map<String, Value>)>> {
    let mut seen = BTreeSet::new();
    let items = list.iter().map(|item| {
        let fields = item.as_object()?;
        let parts: Option<Vec<String>> = key.iter().map(|field| key_part(fields, field)).collect();
        let key = parts?.join("/");
        (key.len() <= MAX_ITEM_KEY_BYTES && seen.insert(key.clone())).then_some((key, fields))
    });
    items.collect()
}

fn key_part(fields: &Map<String, Value>, field: &KeyField) -> Option<String> {
    let value = match field.name.split_once('.') {
        Some((outer, inner)) => fields.get(outer).and_then(|outer| outer.get(inner)),
        None => fields.get(field.name),
    };
    match value {
        Some(Value::String(text)) => Some(text.clone()),
        Some(Value::Number(number)) => Some(number.to_string()),
        Some(_) => None,
        None => field.default.map(str::to_owned),
    }
}

fn fits(value: &Value, room: usize) -> bool {
    room > 0
        && match value {
            Value::Array(list) => list.iter().all(|item| fits(item, room - 1)),
            Value::Object(fields) => fields.values().all(|item| fits(item, room - 1)),
            _ => true,
        }
}

fn child(at: &str, name: &str) -> String {
    format!("{at}/{}", escape(name))
}

fn escape(name: &str) -> String {
    name.replace('~', "~0").replace('/', "~1").replace('#', "~2")
}

fn unescape(name: &str) -> String {
    name.replace("~2", "#").replace("~1", "/").replace("~0", "~")
}

/// A path as people write it: `spec.template.spec.containers[web].image`. `None` for what is no field of the object.
pub fn field_of(path: &str) -> Option<String> {
    let rest = path.strip_prefix(ROOT).filter(|rest| !rest.is_empty() && !rest.ends_with(ORDER))?;
    let mut field = String::new();
    let mut rest = rest;
    while !rest.is_empty() {
        let (kind, after) = rest.split_at_checked(1)?;
        let end = after.find(['/', '#']).unwrap_or(after.len());
        let name = unescape(&after[..end]);
        match kind {
            "/" if field.is_empty() => field.push_str(&name),
            "/" => field.extend([".", &name]),
            "#" => field.extend(["[", &name, "]"]),
            _ => return None,
        }
        rest = &after[end..];
    }
    Some(field)
}

/// What a leaf says by itself; `None` for the markers of maps and lists.
pub fn leaf_value(leaf: Leaf) -> Option<Value> {
    Some(match leaf {
        Leaf::Null => Value::Null,
        Leaf::Bool(it) => it.into(),
        Leaf::Int(number) => number.into(),
        Leaf::Uint(number) => number.into(),
        Leaf::Float(number) => number.into(),
        Leaf::Text(text) => text.into(),
        Leaf::Atomic(list) => list,
        Leaf::Map | Leaf::Keyed => return None,
    })
}

/// The object that the leaves make, `None` if its own marker is not there. Leaves whose path is not understood are
/// passed over, the same on every node.
pub fn unflatten(leaves: &Leaves, schema: &dyn Schema) -> Option<Value> {
    let mut root = Node::default();
    for (path, leaf) in leaves {
        root.place(path, leaf);
    }
    root.leaf.is_some().then(|| root.value(&mut Vec::new(), schema)).flatten()
}

#[derive(Default)]
struct Node<'a> {
    leaf: Option<&'a Leaf>,
    order: i64,
    fields: BTreeMap<String, Node<'a>>,
    items: BTreeMap<String, Node<'a>>,
}

impl<'a> Node<'a> {
    fn place(&mut self, path: &str, leaf: &'a Leaf) {
        let (path, is_order) = match path.strip_suffix(ORDER) {
            Some(path) => (path, true),
            None => (path, false),
        };
        let Some(mut rest) = path.strip_prefix(ROOT) else { return };
        if rest.matches(['/', '#']).count() > MAX_DEPTH {
            return;
        }
        let mut node = self;
        while !rest.is_empty() {
            let (kind, after) = rest.split_at(1);
            let end = after.find(['/', '#']).unwrap_or(after.len());
            let name = unescape(&after[..end]);
            rest = &after[end..];
            node = match kind {
                "/" => node.fields.entry(name).or_default(),
                "#" => node.items.entry(name).or_default(),
                _ => return,
            };
        }
        match (is_order, leaf) {
            (true, Leaf::Int(order)) => node.order = *order,
            (true, _) => {}
            (false, leaf) => node.leaf = Some(leaf),
        }
    }

    fn value(&self, path: &mut Vec<String>, schema: &dyn Schema) -> Option<Value> {
        Some(match self.leaf {
            Some(Leaf::Null) => Value::Null,
            Some(Leaf::Bool(it)) => Value::Bool(*it),
            Some(Leaf::Int(number)) => (*number).into(),
            Some(Leaf::Uint(number)) => (*number).into(),
            Some(Leaf::Float(number)) => (*number).into(),
            Some(Leaf::Text(text)) => text.clone().into(),
            Some(Leaf::Atomic(list)) => list.clone(),
            Some(Leaf::Map) => Value::Object(self.object(path, schema)),
            Some(Leaf::Keyed) => Value::Array(self.list(path, schema)),
            None => {
                let names: Vec<&str> = path.iter().map(String::as_str).collect();
                let fields = if schema.open_map(&names) { self.object(path, schema) } else { Map::default() };
                if fields.is_empty() {
                    return None;
                }
                Value::Object(fields)
            }
        })
    }

    fn object(&self, path: &mut Vec<String>, schema: &dyn Schema) -> Map<String, Value> {
        let mut fields = Map::new();
        for (name, node) in &self.fields {
            path.push(name.clone());
            if let Some(value) = node.value(path, schema) {
                fields.insert(name.clone(), value);
            }
            path.pop();
        }
        fields
    }

    fn list(&self, path: &mut Vec<String>, schema: &dyn Schema) -> Vec<Value> {
        let mut items: Vec<_> = self.items.iter().filter(|(_, node)| node.leaf == Some(&Leaf::Map)).collect();
        items.sort_by_key(|(key, node)| (node.order, *key));
        path.push("*".to_owned());
        let list = items.into_iter().map(|(_, node)| Value::Object(node.object(path, schema))).collect();
        path.pop();
        list
    }
}
