//! JSON patch (RFC 6902), bounded: a few copies in a row would double an object again and again.

use crate::api::body::BODY_BYTES;
use crate::api::status::ApiError;
use json_patch::{PatchOperation, jsonptr::Pointer};
use serde_json::Value;

/// As many operations as a Kubernetes API server takes.
const OPERATIONS: usize = 10_000;

pub struct JsonPatch(json_patch::Patch);

impl JsonPatch {
    pub fn parse(value: Value) -> Result<Self, ApiError> {
        let count = value.as_array().map_or(0, Vec::len);
        if count > OPERATIONS {
            let message =
                format!("the patch has {count} operations, the most that are taken is {OPERATIONS}");
            return Err(ApiError::new(413, "RequestEntityTooLarge", message));
        }
        serde_json::from_value(value)
            .map(Self)
            .map_err(|error| ApiError::bad_request(format!("the JSON patch cannot be read: {error}")))
    }

    pub fn apply(&self, object: &Value) -> Result<Value, ApiError> {
        let mut object = object.clone();
        let mut copied = 0;
        for operation in &self.0.0 {
            if let PatchOperation::Copy(copy) = operation {
                copied += size_at(&object, &copy.from);
                if copied > BODY_BYTES {
                    return Err(ApiError::too_large(BODY_BYTES));
                }
            }
            json_patch::patch(&mut object, std::slice::from_ref(operation)).map_err(|error| {
                ApiError::new(422, "Invalid", format!("the server rejected our request: {error}"))
            })?;
        }
        Ok(object)
    }
}

fn size_at(object: &Value, pointer: &Pointer) -> usize {
    object.pointer(pointer.as_str()).map_or(0, |value| value.to_string().len())
}
