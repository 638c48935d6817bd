//! One stored object at one revision.

use super::Revision;
use serde::de::DeserializeOwned;
use serde_json::Value;
use std::any::Any;
use std::sync::{Arc, OnceLock};

/// An object as committed: its JSON (with `metadata.resourceVersion` set) and the revision that wrote it.
#[derive(Debug)]
pub struct Object {
    revision: Revision,
    value: Value,
    /// Decoded once, by the first reader that asks; every kind is decoded as one type.
    typed: OnceLock<Option<Arc<dyn Any + Send + Sync>>>,
}

impl Object {
    pub(super) fn new(revision: Revision, mut value: Value) -> Self {
        if let Some(metadata) = value.get_mut("metadata").and_then(Value::as_object_mut) {
            metadata.insert("resourceVersion".into(), Value::String(revision.to_string()));
        }
        Self { revision, value, typed: OnceLock::new() }
    }

    pub fn revision(&self) -> Revision {
        self.revision
    }

    pub fn value(&self) -> &Value {
        &self.value
    }

    /// The object as a Kubernetes type; `None` if the JSON is not one (the API validates before it writes, so
    /// that is a bug or another version's object, and readers pass it over).
    pub fn typed<T: DeserializeOwned + Send + Sync + 'static>(&self) -> Option<Arc<T>> {
        let cached = self.typed.get_or_init(|| match T::deserialize(&self.value) {
            Ok(object) => Some(Arc::new(object)),
            Err(error) => {
                tracing::warn!(%error, revision = %self.revision, "a stored object does not decode");
                None
            }
        });
        cached.clone()?.downcast().ok()
    }

    fn metadata(&self, field: &str) -> &Value {
        self.value.pointer("/metadata").and_then(|m| m.get(field)).unwrap_or(&Value::Null)
    }

    pub fn uid(&self) -> &str {
        self.metadata("uid").as_str().unwrap_or_default()
    }

    pub fn label(&self, name: &str) -> Option<&str> {
        self.metadata("labels").get(name)?.as_str()
    }

    pub fn annotation(&self, name: &str) -> Option<&str> {
        self.metadata("annotations").get(name)?.as_str()
    }

    /// Whether deletion was asked for and something still holds the object.
    pub fn is_terminating(&self) -> bool {
        !self.metadata("deletionTimestamp").is_null()
    }

    /// The uids of its owners, as far as they have one.
    pub fn owner_uids(&self) -> impl Iterator<Item = &str> {
        let owners = self.metadata("ownerReferences").as_array().map(Vec::as_slice).unwrap_or_default();
        owners.iter().filter_map(|owner| owner.get("uid")?.as_str()).filter(|uid| !uid.is_empty())
    }
}
