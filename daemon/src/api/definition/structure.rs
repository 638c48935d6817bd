//! Structural schemas: the part of OpenAPI v3 that a CustomResourceDefinition may use, read once and checked
//! (kubernetes.io/docs/tasks/extend-kubernetes/custom-resources/custom-resource-definitions#specifying-a-structural-schema).

use super::pattern::{self, Pattern};
use super::{check, fill};
use crate::api::body::BODY_BYTES;
use crate::api::validate::Problems;
use crate::api::value::{flag, int, items, text};
use serde_json::Value;
use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

/// Schemas in one another; each is two levels of the JSON that it came in.
const DEPTH: usize = 60;
/// Schemas in one version. The largest known definitions have some ten thousand.
const SCHEMAS: usize = 50_000;
/// Different patterns in one version: each is compiled and kept.
const PATTERNS: usize = 512;
/// What the defaults of one version come to.
const DEFAULTS_BYTES: usize = BODY_BYTES;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Type {
    Object,
    Array,
    String,
    Integer,
    Number,
    Boolean,
}

impl Type {
    pub fn name(self) -> &'static str {
        match self {
            Self::Object => "object",
            Self::Array => "array",
            Self::String => "string",
            Self::Integer => "integer",
            Self::Number => "number",
            Self::Boolean => "boolean",
        }
    }
}

const TYPES: &[(&str, Type)] = &[
    ("array", Type::Array),
    ("boolean", Type::Boolean),
    ("integer", Type::Integer),
    ("number", Type::Number),
    ("object", Type::Object),
    ("string", Type::String),
];

/// How a list's elements are told apart.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum ListType {
    #[default]
    Atomic,
    Set,
    Map(Vec<String>),
}

/// What a field holds where it is left out, and its size as text.
#[derive(Clone, Debug)]
pub struct Preset {
    pub value: Value,
    pub bytes: usize,
}

/// What one value may be.
#[derive(Debug, Default)]
pub struct Schema {
    /// None: of any type.
    pub kind: Option<Type>,
    pub properties: BTreeMap<String, Schema>,
    /// What the values of other keys are, of a map.
    pub additional: Option<Box<Schema>>,
    pub items: Option<Box<Schema>>,
    pub required: Vec<String>,
    pub nullable: bool,
    /// Whether fields that are not named stay.
    pub preserves: bool,
    /// Whether it is an object with a kind and metadata.
    pub embedded: bool,
    pub int_or_string: bool,
    pub default: Option<Preset>,
    pub list: ListType,
    pub is_atomic_map: bool,
    pub options: Vec<Value>,
    pub pattern: Option<Arc<Pattern>>,
    pub format: String,
    pub least: Option<Bound>,
    pub most: Option<Bound>,
    pub multiple_of: Option<f64>,
    pub lengths: Range,
    pub counts: Range,
    pub sizes: Range,
    pub all_of: Vec<Schema>,
    pub any_of: Vec<Schema>,
    pub one_of: Vec<Schema>,
    pub not: Option<Box<Schema>>,
}

/// A number that a value may not go beyond.
#[derive(Clone, Debug)]
pub struct Bound {
    /// As it was written.
    pub shown: String,
    pub number: f64,
    pub is_exclusive: bool,
}

/// How many there may be: characters, elements, fields.
#[derive(Clone, Copy, Debug, Default)]
pub struct Range {
    pub least: Option<u64>,
    pub most: Option<u64>,
}

/// Where a schema stands.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Place {
    Root,
    Field,
    Items,
    /// In `allOf` and the like: it only says more about what is described outside.
    Condition,
}

/// Reads a schema, and adds to `problems` what is wrong with it.
pub fn read(json: &Value, field: &str, problems: &mut Problems) -> Schema {
    let mut reader = Reader {
        problems,
        schemas: 0,
        patterns: HashMap::new(),
        defaults: DEFAULTS_BYTES,
        is_too_large: false,
    };
    let schema = reader.schema(json, field, Place::Root, 0);
    if reader.is_too_large {
        let why = format!(
            "must have at most {SCHEMAS} schemas, {DEPTH} in one another, {PATTERNS} patterns, and {DEFAULTS_BYTES} bytes of defaults, each with those below it"
        );
        reader.problems.forbidden(field, &why);
    }
    schema
}

struct Reader<'a> {
    problems: &'a mut Problems,
    schemas: usize,
    patterns: HashMap<String, Option<Arc<Pattern>>>,
    /// What all defaults together may still take: each holds those below it.
    defaults: usize,
    is_too_large: bool,
}

impl Reader<'_> {
    fn schema(&mut self, json: &Value, field: &str, place: Place, depth: usize) -> Schema {
        self.schemas += 1;
        if depth > DEPTH || self.schemas > SCHEMAS {
            self.is_too_large = true;
            return Schema::default();
        }
        self.forbidden(json, field);
        let mut schema = Schema {
            kind: self.kind(json, field, place),
            required: items(json, "/required").iter().filter_map(Value::as_str).map(str::to_owned).collect(),
            nullable: flag(json, "/nullable"),
            preserves: flag(json, "/x-kubernetes-preserve-unknown-fields"),
            embedded: flag(json, "/x-kubernetes-embedded-resource"),
            int_or_string: flag(json, "/x-kubernetes-int-or-string"),
            is_atomic_map: text(json, "/x-kubernetes-map-type") == "atomic",
            options: items(json, "/enum").to_vec(),
            format: text(json, "/format").to_owned(),
            least: bound(json, "minimum", "exclusiveMinimum"),
            most: bound(json, "maximum", "exclusiveMaximum"),
            multiple_of: json.get("multipleOf").and_then(Value::as_f64).filter(|number| *number > 0.0),
            lengths: range(json, "/minLength", "/maxLength"),
            counts: range(json, "/minItems", "/maxItems"),
            sizes: range(json, "/minProperties", "/maxProperties"),
            ..Schema::default()
        };
        schema.pattern = self.pattern(text(json, "/pattern"), field);
        let (inner, next) = (if place == Place::Condition { place } else { Place::Field }, depth + 1);
        for (name, property) in json.get("properties").and_then(Value::as_object).into_iter().flatten() {
            let property = self.schema(property, &format!("{field}.properties[{name}]"), inner, next);
            schema.properties.insert(name.clone(), property);
        }
        if place == Place::Root {
            self.identity(json, field, &mut schema);
        }
        match json.get("additionalProperties") {
            None | Some(Value::Null | Value::Bool(false)) => {}
            Some(Value::Bool(true)) => {
                schema.additional = Some(Box::new(Schema { preserves: true, ..Schema::default() }));
            }
            Some(values) => {
                let values = self.schema(values, &format!("{field}.additionalProperties"), inner, next);
                schema.additional = Some(Box::new(values));
            }
        }
        let inner = if place == Place::Condition { place } else { Place::Items };
        match json.get("items") {
            Some(each @ Value::Object(_)) => {
                schema.items = Some(Box::new(self.schema(each, &format!("{field}.items"), inner, next)));
            }
            Some(Value::Array(_)) => {
                let why = "items must be a schema object and not an array";
                self.problems.forbidden(&format!("{field}.items"), why);
            }
            _ if schema.kind == Some(Type::Array) && place != Place::Condition => {
                self.problems.required(&format!("{field}.items"), "must be specified");
            }
            _ => {}
        }
        for (name, list) in
            [("allOf", &mut schema.all_of), ("anyOf", &mut schema.any_of), ("oneOf", &mut schema.one_of)]
        {
            for (i, one) in items(json, &format!("/{name}")).iter().enumerate() {
                list.push(self.schema(one, &format!("{field}.{name}[{i}]"), Place::Condition, next));
            }
        }
        if let Some(not) = json.get("not").filter(|not| not.is_object()) {
            let not = self.schema(not, &format!("{field}.not"), Place::Condition, next);
            schema.not = Some(Box::new(not));
        }
        self.extensions(json, field, &mut schema);
        if let Some(value) = json.get("default").filter(|_| place != Place::Condition) {
            self.default(value, field, place, &mut schema);
        }
        schema
    }

    /// What every object has is not for its definer to fill in: a finalizer by default would never go.
    fn identity(&mut self, json: &Value, field: &str, schema: &mut Schema) {
        let metadata = json.pointer("/properties/metadata/properties").and_then(Value::as_object);
        if metadata.into_iter().flatten().any(|(name, _)| !matches!(name.as_str(), "name" | "generateName")) {
            let why = "must not specify anything other than name and generateName, but metadata is implicitly specified";
            self.problems.forbidden(&format!("{field}.properties[metadata]"), why);
        }
        // Also of a definition that was stored before anybody looked.
        for name in ["metadata", "apiVersion", "kind"] {
            schema.properties.get_mut(name).into_iter().for_each(Schema::forget_defaults);
        }
    }

    /// What Kubernetes does not take either.
    fn forbidden(&mut self, json: &Value, field: &str) {
        for (name, why) in [
            ("$ref", "$ref is not supported"),
            ("$schema", "must be empty"),
            ("id", "id is not supported"),
            ("definitions", "definitions is not supported"),
            ("dependencies", "dependencies is not supported"),
            ("patternProperties", "patternProperties is not supported"),
            ("additionalItems", "additionalItems is not supported"),
        ] {
            if json.get(name).is_some_and(|value| !value.is_null()) {
                self.problems.forbidden(&format!("{field}.{name}"), why);
            }
        }
        if flag(json, "/uniqueItems") {
            let why = "uniqueItems cannot be set to true since the runtime complexity becomes quadratic";
            self.problems.forbidden(&format!("{field}.uniqueItems"), why);
        }
        let has_fields = json.get("properties").and_then(Value::as_object).is_some_and(|all| !all.is_empty());
        let additional = json.get("additionalProperties");
        if has_fields && additional.is_some_and(|value| !matches!(value, Value::Null | Value::Bool(true))) {
            let why = "additionalProperties and properties are mutual exclusive";
            self.problems.forbidden(&format!("{field}.additionalProperties"), why);
        }
    }

    fn kind(&mut self, json: &Value, field: &str, place: Place) -> Option<Type> {
        let (name, field) = (text(json, "/type"), format!("{field}.type"));
        let any = ["int-or-string", "preserve-unknown-fields"];
        let may_be_any = any.iter().any(|of| flag(json, &format!("/x-kubernetes-{of}")));
        match (name, place) {
            ("", Place::Root) => self.problems.required(&field, "must not be empty at the root"),
            ("", Place::Field) if !may_be_any => {
                self.problems.required(&field, "must not be empty for specified object fields");
            }
            ("", Place::Items) if !may_be_any => {
                self.problems.required(&field, "must not be empty for specified array items");
            }
            ("", _) => {}
            ("object", Place::Root) => {}
            (name, Place::Root) => {
                self.problems.invalid(&field, &name.into(), "must be object at the root");
            }
            (name, _) if !TYPES.iter().any(|(known, _)| *known == name) => {
                let known: Vec<&str> = TYPES.iter().map(|(name, _)| *name).collect();
                self.problems.unsupported(&field, name, &known);
            }
            (name, _) if flag(json, "/x-kubernetes-int-or-string") => {
                let why = "must be empty if x-kubernetes-int-or-string is true";
                self.problems.invalid(&field, &name.into(), why);
            }
            _ => {}
        }
        TYPES.iter().find(|(known, _)| *known == name).map(|(_, kind)| *kind)
    }

    fn pattern(&mut self, text: &str, field: &str) -> Option<Arc<Pattern>> {
        if text.is_empty() {
            return None;
        }
        if let Some(known) = self.patterns.get(text) {
            return known.clone();
        }
        if self.patterns.len() >= PATTERNS {
            self.is_too_large = true;
            return None;
        }
        let compiled = match pattern::compile(text) {
            Ok(compiled) => Some(Arc::new(compiled)),
            Err(why) => {
                let why = format!("must be a valid regular expression, but isn't: {why}");
                self.problems.invalid(&format!("{field}.pattern"), &text.into(), &why);
                None
            }
        };
        self.patterns.insert(text.to_owned(), compiled.clone());
        compiled
    }

    fn extensions(&mut self, json: &Value, field: &str, schema: &mut Schema) {
        if json.get("x-kubernetes-preserve-unknown-fields") == Some(&Value::Bool(false)) {
            let field = format!("{field}.x-kubernetes-preserve-unknown-fields");
            self.problems.invalid(&field, &false.into(), "must be true or undefined");
        }
        if schema.embedded && schema.kind != Some(Type::Object) {
            let why = "must be object if x-kubernetes-embedded-resource is true";
            self.problems.invalid(&format!("{field}.type"), &text(json, "/type").into(), why);
        }
        let map_type = text(json, "/x-kubernetes-map-type");
        if !map_type.is_empty() {
            if schema.kind != Some(Type::Object) {
                let why = "must be object if x-kubernetes-map-type is specified";
                self.problems.invalid(&format!("{field}.type"), &text(json, "/type").into(), why);
            }
            if !["atomic", "granular"].contains(&map_type) {
                let field = format!("{field}.x-kubernetes-map-type");
                self.problems.unsupported(&field, map_type, &["atomic", "granular"]);
            }
        }
        let keys: Vec<String> = items(json, "/x-kubernetes-list-map-keys")
            .iter()
            .filter_map(Value::as_str)
            .map(str::to_owned)
            .collect();
        let list_type = text(json, "/x-kubernetes-list-type");
        if !list_type.is_empty() && schema.kind != Some(Type::Array) {
            let why = "must be array if x-kubernetes-list-type is specified";
            self.problems.invalid(&format!("{field}.type"), &text(json, "/type").into(), why);
        }
        match list_type {
            "" if !keys.is_empty() => {
                let why = "must be map if x-kubernetes-list-map-keys is non-empty";
                self.problems.required(&format!("{field}.x-kubernetes-list-type"), why);
            }
            "" | "atomic" => {}
            "set" => schema.list = ListType::Set,
            "map" => {
                self.keys(field, schema, &keys);
                schema.list = ListType::Map(keys);
            }
            other => {
                let field = format!("{field}.x-kubernetes-list-type");
                self.problems.unsupported(&field, other, &["atomic", "set", "map"]);
            }
        }
    }

    fn keys(&mut self, field: &str, schema: &Schema, keys: &[String]) {
        let named = format!("{field}.x-kubernetes-list-map-keys");
        if keys.is_empty() {
            let why = "must not be empty if x-kubernetes-list-type is map";
            return self.problems.required(&named, why);
        }
        let Some(items) = schema.items.as_ref() else { return };
        if items.kind != Some(Type::Object) {
            let why = "must be object if parent array's x-kubernetes-list-type is map";
            let is = items.kind.map(Type::name).unwrap_or_default();
            return self.problems.invalid(&format!("{field}.items.type"), &is.into(), why);
        }
        for (i, key) in keys.iter().enumerate() {
            let why = match items.properties.get(key) {
                None => "must be a property of items",
                Some(Schema { kind: Some(Type::Array | Type::Object), .. }) => "must be of a scalar type",
                Some(property) if !items.required.contains(key) && property.default.is_none() => {
                    "must be required or have a default, as it is in x-kubernetes-list-map-keys"
                }
                Some(_) => continue,
            };
            self.problems.invalid(&format!("{named}[{i}]"), &key.as_str().into(), why);
        }
    }

    fn default(&mut self, value: &Value, field: &str, place: Place, schema: &mut Schema) {
        let field = format!("{field}.default");
        if place == Place::Root {
            return self.problems.forbidden(&field, "must not be set at the root");
        }
        let mut value = value.clone();
        fill::fill(schema, &mut value);
        let mut found = Problems::default();
        if !(value.is_null() && schema.nullable) {
            check::check(schema, &value, None, &field, &mut found);
        }
        for cause in found.into_causes() {
            self.problems.add(cause.reason, &cause.field, cause.message);
        }
        let bytes = value.to_string().len();
        match self.defaults.checked_sub(bytes) {
            Some(left) => {
                self.defaults = left;
                schema.default = Some(Preset { value, bytes });
            }
            None => self.is_too_large = true,
        }
    }
}

impl Schema {
    fn forget_defaults(&mut self) {
        self.default = None;
        self.properties.values_mut().for_each(Self::forget_defaults);
        self.items.iter_mut().chain(&mut self.additional).for_each(|schema| schema.forget_defaults());
    }
}

fn bound(json: &Value, name: &str, exclusive: &str) -> Option<Bound> {
    let number = json.get(name)?;
    let as_number = number.as_f64()?;
    // `60.0`, as it is stored, is a round number to whoever wrote it.
    let shown = match number.is_f64() && as_number.fract() == 0.0 && as_number.abs() < 1e15 {
        true => format!("{as_number:.0}"),
        false => number.to_string(),
    };
    Some(Bound { shown, number: as_number, is_exclusive: flag(json, &format!("/{exclusive}")) })
}

fn range(json: &Value, least: &str, most: &str) -> Range {
    let number = |pointer: &str| int(json, pointer).and_then(|number| u64::try_from(number).ok());
    Range { least: number(least), most: number(most) }
}
