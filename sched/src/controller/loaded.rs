//! An object as it was read: its key, its revision, and its Kubernetes type; and the writes that go back.

use crate::state::{Expect, Key, Object, Store, Write, resource_of};
use k8s_openapi::Metadata;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use std::ops::Deref;
use std::sync::Arc;

/// A typed object together with what is needed to write it back.
#[derive(Debug)]
pub struct Loaded<T> {
    pub key: Key,
    pub object: Arc<Object>,
    typed: Arc<T>,
}

impl<T> Clone for Loaded<T> {
    fn clone(&self) -> Self {
        Self { key: self.key.clone(), object: self.object.clone(), typed: self.typed.clone() }
    }
}

impl<T> Deref for Loaded<T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.typed
    }
}

impl<T> Loaded<T>
where
    T: DeserializeOwned + Send + Sync + 'static,
{
    pub fn get(store: &Store, key: &Key) -> Option<Self> {
        Self::from_object(key.clone(), store.get(key)?)
    }

    pub fn from_object(key: Key, object: &Arc<Object>) -> Option<Self> {
        Some(Self { key, object: object.clone(), typed: object.typed()? })
    }
}

impl<T> Loaded<T> {
    /// Replaces the object by what `edit` makes of its JSON, if it is still the one that was read. The JSON is
    /// edited, not the typed object: fields that this version does not know stay.
    pub fn edit(&self, edit: impl FnOnce(&mut Value)) -> Write {
        edit_object(&self.key, &self.object, edit)
    }
}

/// As [`Loaded::edit`], for objects of any kind.
pub fn edit_object(key: &Key, object: &Object, edit: impl FnOnce(&mut Value)) -> Write {
    let mut value = object.value().clone();
    edit(&mut value);
    Write::Put { key: key.clone(), value, expect: Expect::Revision(object.revision()), intent: None }
}

/// Creates an object, if its name is free.
pub fn create<T>(object: &T) -> Write
where
    T: Metadata<Ty = ObjectMeta> + Serialize,
{
    let metadata = object.metadata();
    let namespace = metadata.namespace.clone().unwrap_or_default();
    let key = Key::new(resource_of::<T>(), namespace, metadata.name.clone().unwrap_or_default());
    Write::Put { key, value: to_json(object), expect: Expect::Absent, intent: None }
}

pub fn to_json<T: Serialize>(value: &T) -> Value {
    serde_json::to_value(value).expect("Kubernetes types have string keys and finite numbers")
}

/// Sets a field in one of the object's maps, making the maps on the way: `["metadata", "annotations", name]`.
pub fn set(value: &mut Value, path: &[&str], new: Value) {
    let Some((field, parents)) = path.split_last() else { return };
    let mut at = value;
    for parent in parents {
        let Some(map) = as_map(at) else { return };
        at = map.entry(*parent).or_insert_with(|| json!({}));
    }
    if let Some(map) = as_map(at) {
        map.insert((*field).to_owned(), new);
    }
}

/// Sets a list; one that is empty is left out, as Kubernetes writes objects.
pub fn set_list<T: Serialize>(value: &mut Value, path: &[&str], list: &[T]) {
    match list {
        [] => unset(value, path),
        list => set(value, path, json!(list)),
    }
}

/// Removes a field of one of the object's maps.
pub fn unset(value: &mut Value, path: &[&str]) {
    let Some((field, parents)) = path.split_last() else { return };
    let parent = parents.iter().try_fold(value, |at, parent| at.get_mut(parent));
    if let Some(map) = parent.and_then(Value::as_object_mut) {
        map.remove(*field);
    }
}

/// The map at a place; an explicit `null` counts as an empty one.
fn as_map(at: &mut Value) -> Option<&mut serde_json::Map<String, Value>> {
    if at.is_null() {
        *at = json!({});
    }
    at.as_object_mut()
}

/// Counts one more change of the spec, as the API does when a client makes it.
pub fn bump_generation(value: &mut Value) {
    let generation = value.pointer("/metadata/generation").and_then(Value::as_i64).unwrap_or(0);
    set(value, &["metadata", "generation"], json!(generation + 1));
}
