//! The kind of the group `apiextensions.k8s.io`: with its objects people define kinds of their own.

use super::{Entry, Keeping, Scope, Subresource, decode_as};
use crate::api::schema::describe;
use crate::api::value::set;
use crate::api::{defaults, table, validate};
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use serde_json::{Value, json};

pub const GROUP: &str = "apiextensions.k8s.io";
pub const KIND: &str = "CustomResourceDefinition";

pub(super) static KINDS: &[Entry] = &[Entry {
    group: GROUP,
    version: "v1",
    kind: KIND,
    plural: "customresourcedefinitions",
    singular: "customresourcedefinition",
    short_names: &["crd", "crds"],
    categories: &["api-extensions"],
    scope: Scope::Cluster,
    keeping: Keeping::Intent,
    subresources: &[Subresource::Status],
    fields: &[],
    columns: table::extensions::DEFINITION,
    cells: table::extensions::definition,
    begin: |definition: &mut Value| set(definition, "status", nothing_accepted()),
    default: defaults::extensions::definition,
    validate: validate::definition::definition,
    validate_update: validate::definition::definition_update,
    name: validate::subdomain,
    schema: describe::<CustomResourceDefinition>,
    decode: decode_as::<CustomResourceDefinition>,
}];

/// What the leader has not said yet.
fn nothing_accepted() -> Value {
    json!({"conditions": [], "acceptedNames": {"plural": "", "kind": ""}, "storedVersions": []})
}
