//! CustomResourceDefinitions.

use super::{Column, column, name, name_column};
use crate::api::value::text;
use k8s_openapi::jiff::Timestamp;
use serde_json::Value;

pub const DEFINITION: &[Column] = &[name_column(), column("Created At")];

pub fn definition(object: &Value, _: Timestamp) -> Vec<Value> {
    vec![name(object), text(object, "/metadata/creationTimestamp").into()]
}
