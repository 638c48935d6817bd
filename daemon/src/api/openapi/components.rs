//! The schemas of one group-version, in the words in which Kubernetes publishes its own.

use crate::api::definition;
use crate::api::kinds::Kind;
use crate::api::schema::rules::{self, FieldRules};
use crate::api::schema::{Definitions, REFERENCE, referred};
use crate::api::value::remove;
use serde_json::{Map, Value, json};
use std::collections::BTreeSet;

/// What every document has, also one of kinds that people defined.
pub const AROUND: &[&str] = &[DELETE_OPTIONS, STATUS, LIST_META];
/// A patch's body: its form is its media type's.
pub const PATCH: &str = "io.k8s.apimachinery.pkg.apis.meta.v1.Patch";
pub const DELETE_OPTIONS: &str = "io.k8s.apimachinery.pkg.apis.meta.v1.DeleteOptions";
pub const STATUS: &str = "io.k8s.apimachinery.pkg.apis.meta.v1.Status";
pub const SCALE: &str = "io.k8s.api.autoscaling.v1.Scale";
pub const EVICTION: &str = "io.k8s.api.policy.v1.Eviction";
pub const TOKEN_REQUEST: &str = "io.k8s.api.authentication.v1.TokenRequest";
pub const OBJECT_META: &str = "io.k8s.apimachinery.pkg.apis.meta.v1.ObjectMeta";
pub const LIST_META: &str = "io.k8s.apimachinery.pkg.apis.meta.v1.ListMeta";

/// Types that Kubernetes publishes without saying what they hold.
const ANYTHING: &[&str] = &[
    ".apiextensions.v1.JSON",
    ".JSONSchemaPropsOrArray",
    ".JSONSchemaPropsOrBool",
    ".JSONSchemaPropsOrStringArray",
];

/// A reference to a schema.
pub fn refer(name: &str) -> Value {
    json!({"$ref": format!("{REFERENCE}{name}")})
}

pub fn list_of(name: &str) -> String {
    format!("{name}List")
}

/// Everything that these schemas are made of, and they themselves.
pub fn closure<'a>(
    definitions: &'a Definitions,
    names: impl IntoIterator<Item = &'a str>,
) -> Map<String, Value> {
    let mut open: Vec<&str> = names.into_iter().collect();
    let mut seen = BTreeSet::new();
    let mut found = Map::new();
    while let Some(name) = open.pop() {
        let Some(definition) = definitions.schemas.get(name).filter(|_| seen.insert(name)) else { continue };
        references(definition, &mut open);
        found.insert(name.to_owned(), published(name, definition));
    }
    found.insert(
        PATCH.into(),
        json!({"description": "A patch, in the form that its content type says.", "type": "object"}),
    );
    found
}

fn references<'a>(schema: &'a Value, found: &mut Vec<&'a str>) {
    found.extend(referred(schema));
    match schema {
        Value::Object(fields) => fields.values().for_each(|field| references(field, found)),
        Value::Array(items) => items.iter().for_each(|item| references(item, found)),
        _ => {}
    }
}

/// Says which kinds the schemas are of, also where another group's objects hold them. `kinds`: schemas and identities.
pub fn identify<'a>(
    schemas: &mut Map<String, Value>,
    kinds: impl Iterator<Item = (&'a str, Value)>,
    group_version: (&str, &str),
) {
    let (group, version) = group_version;
    let around = [
        (SCALE, "autoscaling", "v1", "Scale"),
        (EVICTION, "policy", "v1", "Eviction"),
        (TOKEN_REQUEST, "authentication.k8s.io", "v1", "TokenRequest"),
        (STATUS, "", "v1", "Status"),
        // Each group says that its objects are deleted with these.
        (DELETE_OPTIONS, group, version, "DeleteOptions"),
    ];
    let around = around.map(|(name, group, version, kind)| (name, identity(group, version, kind)));
    for (name, identity) in kinds.chain(around) {
        if let Some(schema) = schemas.get_mut(name) {
            schema["x-kubernetes-group-version-kind"] = json!([identity]);
        }
    }
}

/// Adds the schema that somebody defined a kind with, and tells its name: `com.example.stable.v1.CronTab`.
pub fn add_defined(schemas: &mut Map<String, Value>, kind: &Kind, published: &Value) -> String {
    let mut parts: Vec<&str> = kind.group.split('.').rev().collect();
    parts.extend([kind.version.as_str(), kind.kind.as_str()]);
    let metadata = json!({"description": "Standard object metadata.", "allOf": [refer(OBJECT_META)]});
    let name = parts.join(".");
    schemas.insert(name.clone(), definition::with_identity(published.clone(), metadata));
    name
}

/// Adds the schema of a kind's lists.
pub fn add_list(schemas: &mut Map<String, Value>, kind: &Kind, name: &str) {
    let text = |of: &str| schemas.get(name).and_then(|schema| schema["properties"][of].as_object().cloned());
    let (kind_field, version_field) = (text("kind"), text("apiVersion"));
    let list = kind.list.as_str();
    let schema = json!({
        "description": format!("{list} is a list of objects of kind {}.", kind.kind),
        "type": "object",
        "required": ["items"],
        "properties": {
            "apiVersion": version_field, "kind": kind_field,
            "items": {"description": "The objects.", "type": "array", "items": refer(name)},
            "metadata": {"description": "Standard list metadata.", "allOf": [refer(LIST_META)]},
        },
        "x-kubernetes-group-version-kind": [identity(&kind.group, &kind.version, list)],
    });
    schemas.insert(list_of(name), schema);
}

pub fn identity(group: &str, version: &str, kind: &str) -> Value {
    json!({"group": group, "version": version, "kind": kind})
}

/// A definition of the model with what that is silent about.
fn published(name: &str, definition: &Value) -> Value {
    let own = rules::of(name);
    let mut schema = definition.clone();
    if ANYTHING.iter().any(|anything| name.ends_with(anything)) {
        return json!({"description": definition["description"]});
    }
    if own.is_some_and(|own| own.is_atomic) {
        schema["x-kubernetes-map-type"] = "atomic".into();
    }
    if schema.get("x-kubernetes-int-or-string").is_some() {
        // Of a quantity any number may be the amount.
        let number = if name.ends_with(".Quantity") { "number" } else { "integer" };
        schema["oneOf"] = json!([{"type": number}, {"type": "string"}]);
    }
    let is_kind = ["kind", "apiVersion"].iter().all(|field| schema["properties"].get(field).is_some());
    if is_kind && let Some(Value::Array(required)) = schema.get_mut("required") {
        // The model cannot do without metadata; what a client sends can.
        required.retain(|field| field != "metadata");
        if required.is_empty() {
            remove(&mut schema, "required");
        }
    }
    if let Some(Value::Object(properties)) = schema.get_mut("properties") {
        for (field, schema) in properties {
            let rules = own.map(|own| own.field(field)).unwrap_or_default();
            describe_field(schema, &rules);
        }
    }
    schema
}

fn describe_field(schema: &mut Value, rules: &FieldRules) {
    // What stands beside a reference is not read, so that the reference goes inside.
    if let Some(fields) = schema.as_object_mut()
        && fields.len() > 1
        && let Some(reference) = fields.remove("$ref")
    {
        fields.insert("allOf".into(), json!([{"$ref": reference}]));
    }
    if schema["type"] == "array" {
        let kind = match (rules.map_keys.as_slice(), rules.is_set) {
            ([], false) => "atomic",
            ([], true) => "set",
            (keys, _) => {
                schema["x-kubernetes-list-map-keys"] = json!(keys);
                "map"
            }
        };
        schema["x-kubernetes-list-type"] = kind.into();
    } else if rules.is_atomic {
        schema["x-kubernetes-map-type"] = "atomic".into();
    } else if rules.is_granular {
        schema["x-kubernetes-map-type"] = "granular".into();
    }
    let strategies: Vec<&str> = [
        ("merge", rules.merge.is_some()),
        ("retainKeys", rules.retains_keys),
        ("replace", rules.is_replaced),
    ]
    .into_iter()
    .filter_map(|(name, is_set)| is_set.then_some(name))
    .collect();
    if !strategies.is_empty() {
        schema["x-kubernetes-patch-strategy"] = strategies.join(",").into();
    }
    if let Some(Some(key)) = rules.merge {
        schema["x-kubernetes-patch-merge-key"] = key.into();
    }
    if let Some(default) = rules.default {
        schema["default"] = default.into();
    }
}
