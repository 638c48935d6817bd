//! Patches: from the object as it is and a description of the difference to the object as wished.

mod json;
pub mod strategic;

pub use json::JsonPatch;

use super::body::{self, Decoded};
use super::schema::Node;
use super::status::ApiError;
use serde_json::Value;

const ACCEPTED: &str = "application/json-patch+json, application/merge-patch+json, \
                        application/strategic-merge-patch+json, application/apply-patch+yaml";
/// Of objects whose lists nobody could merge by keys.
pub const ACCEPTED_OF_DEFINED: &str =
    "application/json-patch+json, application/merge-patch+json, application/apply-patch+yaml";
/// Of a part that has no managers of its own.
const ACCEPTED_OF_PARTS: &str =
    "application/json-patch+json, application/merge-patch+json, application/strategic-merge-patch+json";

/// A patch as it came, ready to be applied to one version of an object after another.
pub enum Patch {
    Json(JsonPatch),
    Merge(Value),
    Strategic(Value),
    /// Server-side apply: the fields that one manager wishes for.
    Apply(Value),
}

impl Patch {
    pub fn parse(media: &str, bytes: &[u8]) -> Result<(Self, Vec<String>), ApiError> {
        let document = |media: &str| -> Result<Decoded, ApiError> {
            let decoded = body::decode(media, bytes)?;
            if decoded.value.is_object() {
                return Ok(decoded);
            }
            Err(ApiError::bad_request("the patch is not an object"))
        };
        match media {
            "application/json-patch+json" => {
                let decoded = body::decode("application/json", bytes)?;
                Ok((Self::Json(JsonPatch::parse(decoded.value)?), Vec::new()))
            }
            "application/merge-patch+json" => {
                let decoded = document("application/json")?;
                Ok((Self::Merge(decoded.value), decoded.twice))
            }
            "application/strategic-merge-patch+json" => {
                let decoded = document("application/json")?;
                Ok((Self::Strategic(decoded.value), decoded.twice))
            }
            "application/apply-patch+yaml" => {
                let decoded = document("application/yaml")?;
                Ok((Self::Apply(decoded.value), decoded.twice))
            }
            other => Err(ApiError::unsupported_media_type(other, ACCEPTED)),
        }
    }

    /// The object with the patch applied; `of` is its type.
    pub fn apply(&self, object: &Value, of: Option<Node<'_>>) -> Result<Value, ApiError> {
        match self {
            Self::Json(patch) => patch.apply(object),
            Self::Merge(patch) => {
                let mut object = object.clone();
                json_patch::merge(&mut object, patch);
                Ok(object)
            }
            Self::Strategic(patch) => strategic::apply(object, patch, of).map_err(ApiError::bad_request),
            // Whoever has managers does not come here with it.
            Self::Apply(_) => {
                Err(ApiError::unsupported_media_type("application/apply-patch+yaml", ACCEPTED_OF_PARTS))
            }
        }
    }
}

#[cfg(test)]
mod tests;
