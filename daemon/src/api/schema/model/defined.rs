//! Types that people define, as merging and pruning see them.

use super::{Elements, Field, Id, List, Model, Node, Scalar, Type};
use crate::api::definition::structure::{ListType, Schema, Type as Defined};
use crate::api::schema;
use std::collections::BTreeMap;

impl Model {
    /// The model of one definition's objects.
    pub fn of_defined(schema: &Schema) -> Self {
        let mut model = Self::default();
        // The root is the first type, and what nobody described the second.
        model.types.extend([Type::Any, Type::Any]);
        model.types[DEDUCED] = Type::Map { values: DEDUCED, is_atomic: false };
        let root = model.struct_of(schema, Identity::Whole);
        model.types[ROOT] = root;
        model
    }

    /// The type of a definition's objects.
    pub fn defined(&self) -> Option<Node<'_>> {
        Some(Node { model: self, of: self.types.get(ROOT)?, field: None })
    }

    fn compiled(&mut self, schema: &Schema) -> Id {
        let compiled = self.type_of_defined(schema);
        self.types.push(compiled);
        self.types.len() - 1
    }

    fn type_of_defined(&mut self, schema: &Schema) -> Type {
        if schema.int_or_string {
            return Type::Scalar(Scalar::Other);
        }
        match schema.kind {
            Some(Defined::Array) => {
                let items = schema.items.as_ref().map_or(DEDUCED, |items| self.compiled(items));
                let elements = match &schema.list {
                    ListType::Atomic => Elements::Atomic,
                    ListType::Set => Elements::Set,
                    ListType::Map(keys) => Elements::Keyed(keys.clone()),
                };
                Type::List { list: List { elements, merged: Elements::Atomic }, items }
            }
            Some(Defined::Object) if schema.embedded => self.struct_of(schema, Identity::Whole),
            Some(Defined::Object) => match &schema.additional {
                Some(values) if schema.properties.is_empty() => {
                    let values = self.compiled(values);
                    Type::Map { values, is_atomic: schema.is_atomic_map }
                }
                _ if schema.properties.is_empty() && schema.preserves => {
                    Type::Map { values: DEDUCED, is_atomic: schema.is_atomic_map }
                }
                _ => self.struct_of(schema, Identity::None),
            },
            Some(Defined::String | Defined::Integer | Defined::Number | Defined::Boolean) => {
                Type::Scalar(Scalar::Other)
            }
            None => Type::Map { values: DEDUCED, is_atomic: false },
        }
    }

    fn struct_of(&mut self, schema: &Schema, identity: Identity) -> Type {
        let mut fields = BTreeMap::new();
        for (name, property) in &schema.properties {
            let of = self.compiled(property);
            let default = property.default.as_ref().map(|default| default.value.clone());
            fields.insert(name.clone(), field(of, default));
        }
        if identity == Identity::Whole {
            for name in ["apiVersion", "kind"] {
                self.types.push(Type::Scalar(Scalar::Text));
                fields.insert(name.into(), field(self.types.len() - 1, None));
            }
            let metadata = schema::of("", "v1", "ConfigMap").and_then(|object| object.child("metadata"));
            self.types.push(metadata.map_or(Type::Any, Type::Elsewhere));
            fields.insert("metadata".into(), field(self.types.len() - 1, None));
        }
        Type::Struct { fields, rest: schema.preserves.then_some(DEDUCED), is_atomic: schema.is_atomic_map }
    }
}

const ROOT: Id = 0;
/// Objects field by field, everything else as one value: what server-side apply makes of what has no schema.
const DEDUCED: Id = 1;

/// Whether an object has a kind and metadata of its own.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Identity {
    Whole,
    None,
}

fn field(of: Id, default: Option<serde_json::Value>) -> Field {
    Field { of, retains_keys: false, is_replaced: false, is_granular: false, default }
}
