//! The types, reduced to what merging asks for: small enough to be kept for as long as the process runs.

mod defined;

use super::rules::{self, FieldRules};
use super::{Definitions, referred};
use serde_json::Value;
use std::collections::{BTreeMap, HashMap};

/// Where a type stands among all of a model.
type Id = usize;

/// All types, and which of them are kinds.
#[derive(Debug, Default)]
pub struct Model {
    types: Vec<Type>,
    roots: HashMap<(&'static str, &'static str, &'static str), Id>,
}

#[derive(Debug)]
enum Type {
    Scalar(Scalar),
    Any,
    /// Named fields, and what other ones hold where they are allowed.
    Struct {
        fields: BTreeMap<String, Field>,
        rest: Option<Id>,
        is_atomic: bool,
    },
    Map {
        values: Id,
        is_atomic: bool,
    },
    List {
        list: List,
        items: Id,
    },
    /// A type of Kubernetes' own, in the model of those.
    Elsewhere(Node<'static>),
}

#[derive(Debug)]
struct Field {
    of: Id,
    retains_keys: bool,
    is_replaced: bool,
    is_granular: bool,
    default: Option<Value>,
}

/// What a plain value is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scalar {
    Text,
    /// An amount, which may be written as a number.
    Quantity,
    /// Any bytes, written as base64.
    Bytes,
    /// A number, a flag, or either of a number and a text.
    Other,
}

/// How a list's elements are told apart.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct List {
    /// By server-side apply.
    pub elements: Elements,
    /// By strategic merge patches. Where there are several keys these go by the first.
    pub merged: Elements,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Elements {
    /// Not at all: the list is one value.
    Atomic,
    /// Plain values, each there once.
    Set,
    /// Objects, by these fields.
    Keyed(Vec<String>),
}

/// A type as one value's.
#[derive(Clone, Copy, Debug)]
pub struct Node<'a> {
    model: &'a Model,
    of: &'a Type,
    field: Option<&'a Field>,
}

/// What a value is taken apart into.
#[derive(Clone, Copy, Debug)]
pub enum Shape<'a> {
    Scalar(Scalar),
    /// Anything, which is taken whole.
    Any,
    /// Named fields.
    Struct {
        is_atomic: bool,
    },
    /// Keys that people choose.
    Map {
        is_atomic: bool,
    },
    List(&'a List),
}

impl<'a> Node<'a> {
    pub fn shape(self) -> Shape<'a> {
        match self.of {
            Type::Scalar(scalar) => Shape::Scalar(*scalar),
            Type::Any => Shape::Any,
            Type::Elsewhere(node) => node.shape(),
            Type::Struct { is_atomic, .. } => {
                let is_granular = self.field.is_some_and(|field| field.is_granular);
                Shape::Struct { is_atomic: *is_atomic && !is_granular }
            }
            Type::Map { is_atomic, .. } => Shape::Map { is_atomic: *is_atomic },
            Type::List { list, .. } => Shape::List(list),
        }
    }

    /// What stands under a key of an object: a field, or a value of a map.
    pub fn child(self, key: &str) -> Option<Self> {
        match self.of {
            Type::Struct { fields, rest, .. } => match fields.get(key) {
                Some(field) => self.at(field.of, Some(field)),
                None => self.at((*rest)?, None),
            },
            Type::Map { values, .. } => self.at(*values, None),
            Type::Elsewhere(node) => node.child(key),
            Type::Scalar(_) | Type::Any | Type::List { .. } => None,
        }
    }

    /// Whether `key` is a field that the type names.
    pub fn has_field(self, key: &str) -> bool {
        match self.of {
            Type::Struct { fields, .. } => fields.contains_key(key),
            Type::Elsewhere(node) => node.has_field(key),
            _ => false,
        }
    }

    pub fn items(self) -> Option<Self> {
        match self.of {
            Type::List { items, .. } => self.at(*items, None),
            Type::Elsewhere(node) => node.items(),
            _ => None,
        }
    }

    /// How a strategic merge patch merges the list that this is.
    pub fn merged(self) -> &'a Elements {
        match self.of {
            Type::List { list, .. } => &list.merged,
            Type::Elsewhere(node) => node.merged(),
            _ => &Elements::Atomic,
        }
    }

    /// Whether the object, or each element of the list, that stands in this field holds alternatives to each other, of
    /// which only those that are given may stay.
    pub fn retains_keys(self) -> bool {
        self.field.is_some_and(|field| field.retains_keys)
    }

    /// Whether a strategic merge patch takes the object that stands in this field as one value.
    pub fn is_replaced(self) -> bool {
        self.field.is_some_and(|field| field.is_replaced)
    }

    /// What the field means where it is not written.
    pub fn default(self) -> Option<&'a Value> {
        self.field?.default.as_ref()
    }

    fn at(self, id: Id, field: Option<&'a Field>) -> Option<Self> {
        Some(Self { of: self.model.types.get(id)?, field, ..self })
    }
}

impl Model {
    pub fn compile(definitions: &Definitions) -> Self {
        let mut compiler = Compiler { definitions, model: Self::default(), named: HashMap::new() };
        for (kind, name) in &definitions.kinds {
            let id = compiler.named(name);
            compiler.model.roots.insert((kind.group.as_str(), kind.version.as_str(), kind.kind.as_str()), id);
        }
        compiler.model
    }

    pub fn root(&self, group: &str, version: &str, kind: &str) -> Option<Node<'_>> {
        let id = self.roots.get(&(group, version, kind))?;
        Some(Node { model: self, of: self.types.get(*id)?, field: None })
    }
}

struct Compiler<'a> {
    definitions: &'a Definitions,
    model: Model,
    named: HashMap<&'a str, Id>,
}

impl<'a> Compiler<'a> {
    fn named(&mut self, name: &'a str) -> Id {
        if let Some(id) = self.named.get(name) {
            return *id;
        }
        // A place first: types may contain themselves.
        let id = self.push(Type::Any);
        self.named.insert(name, id);
        if let Some(schema) = self.definitions.schemas.get(name) {
            let compiled = self.type_of(schema, name, &FieldRules::default());
            self.model.types[id] = compiled;
        }
        id
    }

    fn push(&mut self, one: Type) -> Id {
        self.model.types.push(one);
        self.model.types.len() - 1
    }

    fn nested(&mut self, schema: &'a Value, rules: &FieldRules) -> Id {
        match referred(schema) {
            Some(name) => self.named(name),
            None => {
                let compiled = self.type_of(schema, "", rules);
                self.push(compiled)
            }
        }
    }

    /// The type that a schema describes. `name` is its own, if it has one; `rules` are those of the field that it is
    /// the schema of.
    fn type_of(&mut self, schema: &'a Value, name: &str, rules: &FieldRules) -> Type {
        let plain = FieldRules::default();
        match schema.get("type").and_then(Value::as_str) {
            Some("object") => match (schema.get("properties"), schema.get("additionalProperties")) {
                (Some(Value::Object(properties)), _) => {
                    let own = rules::of(name);
                    let fields = properties.iter().map(|(field, schema)| {
                        let rules = own.map(|own| own.field(field)).unwrap_or_default();
                        let of = self.nested(schema, &rules);
                        let FieldRules { retains_keys, is_replaced, is_granular, default, .. } = rules;
                        let default = default.map(Value::from);
                        let compiled = Field { of, retains_keys, is_replaced, is_granular, default };
                        (field.clone(), compiled)
                    });
                    let fields = fields.collect();
                    Type::Struct { fields, rest: None, is_atomic: own.is_some_and(|own| own.is_atomic) }
                }
                (None, Some(values)) => {
                    Type::Map { values: self.nested(values, &plain), is_atomic: rules.is_atomic }
                }
                _ => Type::Any,
            },
            Some("array") => {
                let items = match schema.get("items") {
                    Some(items) => self.nested(items, &plain),
                    None => self.push(Type::Any),
                };
                Type::List { list: list_of(rules), items }
            }
            Some("string") if schema.get("format").is_some_and(|format| format == "byte") => {
                Type::Scalar(Scalar::Bytes)
            }
            Some("string") => Type::Scalar(Scalar::Text),
            Some(_) => Type::Scalar(Scalar::Other),
            None if name.ends_with(".Quantity") => Type::Scalar(Scalar::Quantity),
            None if schema.get("x-kubernetes-int-or-string").is_some() => Type::Scalar(Scalar::Other),
            None => Type::Any,
        }
    }
}

fn list_of(rules: &FieldRules) -> List {
    let elements = match (rules.map_keys.as_slice(), rules.is_set) {
        ([], false) => Elements::Atomic,
        ([], true) => Elements::Set,
        (keys, _) => Elements::Keyed(keys.iter().map(|key| (*key).to_owned()).collect()),
    };
    let merged = match rules.merge {
        None => Elements::Atomic,
        Some(None) => Elements::Set,
        Some(Some(key)) => Elements::Keyed(vec![key.to_owned()]),
    };
    List { elements, merged }
}

#[cfg(test)]
mod tests {
    use crate::api::kinds;
    use crate::api::schema::{self, Elements, Node, Scalar, Shape};

    fn at(kind: (&str, &str, &str), path: &str) -> Node<'static> {
        let root = schema::of(kind.0, kind.1, kind.2).unwrap();
        path.split('.').fold(root, |node, step| match step {
            "[]" => node.items().unwrap(),
            step => node.child(step).unwrap_or_else(|| panic!("no {step} in {path}")),
        })
    }

    const DEPLOYMENT: (&str, &str, &str) = ("apps", "v1", "Deployment");

    #[test]
    fn every_kind_that_is_served_has_a_schema() {
        for kind in kinds::all() {
            let node = schema::of(&kind.group, &kind.version, &kind.kind);
            let fields = ["apiVersion", "kind", "metadata"];
            assert!(fields.iter().all(|field| node.unwrap().has_field(field)), "{}", kind.kind);
        }
        assert!(schema::of("example.com", "v1", "Deployment").is_none());
    }

    #[test]
    fn lists_are_told_apart_as_kubernetes_says() {
        let container = "spec.template.spec.containers.[]";
        let keyed = |keys: &[&str]| Elements::Keyed(keys.iter().map(|key| (*key).to_owned()).collect());
        for (path, elements, merged) in [
            (format!("{container}.ports"), keyed(&["containerPort", "protocol"]), keyed(&["containerPort"])),
            (format!("{container}.env"), keyed(&["name"]), keyed(&["name"])),
            (format!("{container}.args"), Elements::Atomic, Elements::Atomic),
            ("metadata.finalizers".into(), Elements::Set, Elements::Set),
            ("metadata.ownerReferences".into(), keyed(&["uid"]), keyed(&["uid"])),
            ("spec.template.spec.tolerations".into(), Elements::Atomic, Elements::Atomic),
        ] {
            let Shape::List(list) = at(DEPLOYMENT, &path).shape() else { panic!("{path} is no list") };
            assert_eq!((&list.elements, &list.merged), (&elements, &merged), "{path}");
        }
    }

    #[test]
    fn maps_structs_and_plain_values_are_told_from_each_other() {
        let shape = |path: &str| at(DEPLOYMENT, path).shape();
        assert!(matches!(shape("metadata.labels"), Shape::Map { is_atomic: false }));
        assert!(matches!(shape("spec.selector"), Shape::Struct { is_atomic: true }));
        assert!(matches!(shape("spec.template.spec.nodeSelector"), Shape::Map { is_atomic: true }));
        let limit = "spec.template.spec.containers.[].resources.limits.cpu";
        assert!(matches!(shape(limit), Shape::Scalar(Scalar::Quantity)));
        assert!(matches!(shape("spec.strategy.rollingUpdate.maxSurge"), Shape::Scalar(Scalar::Other)));
        assert!(at(DEPLOYMENT, "spec.strategy").retains_keys());
        assert!(at(DEPLOYMENT, "spec.template.spec.volumes").retains_keys());
        let protocol = at(DEPLOYMENT, "spec.template.spec.containers.[].ports.[].protocol");
        assert_eq!(protocol.default(), Some(&"TCP".into()));
        assert!(matches!(at(("apps", "v1", "ControllerRevision"), "data").shape(), Shape::Any));
        let volume = at(("", "v1", "PersistentVolume"), "spec.claimRef");
        assert!(
            matches!(volume.shape(), Shape::Struct { is_atomic: false }),
            "a reference of several writers"
        );
        assert!(at(("policy", "v1", "PodDisruptionBudget"), "spec.selector").is_replaced());
    }
}
