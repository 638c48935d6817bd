//! Owner references: who made what, adopting what nobody owns, and letting go of what no longer matches.

use super::loaded::{Loaded, set, set_list};
use super::selector;
use crate::state::{Change, Key, Object, Store, Write, resource_of};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{LabelSelector, ObjectMeta, OwnerReference};
use k8s_openapi::{Metadata, Resource};
use serde::de::DeserializeOwned;
use serde_json::json;
use std::borrow::Cow;

/// The reference of a controller to put on what it makes.
pub fn controller_reference<O: Metadata<Ty = ObjectMeta>>(owner: &O) -> OwnerReference {
    let metadata = owner.metadata();
    OwnerReference {
        api_version: O::API_VERSION.to_owned(),
        kind: O::KIND.to_owned(),
        name: metadata.name.clone().unwrap_or_default(),
        uid: metadata.uid.clone().unwrap_or_default(),
        controller: Some(true),
        block_owner_deletion: Some(true),
    }
}

/// The one reference that says `controller: true`.
pub fn controller_of(metadata: &ObjectMeta) -> Option<&OwnerReference> {
    metadata.owner_references.iter().flatten().find(|owner| owner.controller == Some(true))
}

/// The key of the object's controller, if that is an `O`.
pub fn controller_key<O: Resource>(key: &Key, object: &Object) -> Option<Key> {
    let owners = object.value().pointer("/metadata/ownerReferences")?.as_array()?;
    let owner = owners.iter().find(|owner| owner["controller"] == true)?;
    let group = owner["apiVersion"].as_str()?.split_once('/').map_or("", |(group, _)| group);
    let of_kind = owner["kind"] == O::KIND && group == O::GROUP;
    of_kind.then(|| Key::of::<O>(key.namespace.clone(), owner["name"].as_str().unwrap_or_default()))
}

/// The keys of the `O`s that a change of a dependent concerns: its controller now and before, and, if it is
/// owned by nobody, those whose selector would adopt it.
pub fn concerned<O>(
    store: &Store,
    change: &Change,
    selector: fn(&O) -> Option<Cow<'_, LabelSelector>>,
) -> Vec<Key>
where
    O: Resource + DeserializeOwned + Send + Sync + 'static,
{
    let states = [change.object.as_deref(), change.previous.as_deref()];
    let mut keys: Vec<Key> =
        states.into_iter().flatten().filter_map(|object| controller_key::<O>(&change.key, object)).collect();
    if let Some(object) = &change.object
        && object.owner_uids().next().is_none()
        && !object.is_terminating()
    {
        let labels = labels_of(object);
        for (key, owner) in store.list(&resource_of::<O>(), Some(&change.key.namespace)) {
            let Some(owner) = owner.typed::<O>() else { continue };
            if selector(&owner).is_some_and(|wanted| adopts(&wanted, &labels)) {
                keys.push(key);
            }
        }
    }
    keys.sort();
    keys.dedup();
    keys
}

/// What an owner has, and the writes that make it so.
pub struct Claimed<T> {
    pub dependents: Vec<Loaded<T>>,
    /// Adoptions and releases, each on its own: one that is refused must not hold up the others.
    pub writes: Vec<Write>,
}

/// The dependents of type `T` that an owner controls. Orphans that match the selector are adopted and count at
/// once (whatever else is written to one in the same plan is refused, and tried again after the adoption);
/// dependents that match no more are released.
pub fn claim<O, T>(store: &Store, owner: &Loaded<O>, wanted: Option<&LabelSelector>) -> Claimed<T>
where
    O: Metadata<Ty = ObjectMeta>,
    T: Metadata<Ty = ObjectMeta> + DeserializeOwned + Send + Sync + 'static,
{
    let resource = resource_of::<T>();
    let uid = owner.object.uid();
    let mut claimed = Claimed { dependents: Vec::new(), writes: Vec::new() };
    for key in store.owned_by(uid).filter(|key| key.resource == resource) {
        let Some(dependent) = Loaded::<T>::get(store, key) else { continue };
        if controller_of(dependent.metadata()).is_none_or(|owner| owner.uid != uid) {
            continue;
        }
        let labels = dependent.metadata().labels.clone().unwrap_or_default();
        let matching = wanted.is_none_or(|wanted| selector::matches(wanted, &labels));
        if matching || dependent.object.is_terminating() {
            claimed.dependents.push(dependent);
        } else {
            claimed.writes.push(release(&dependent, uid));
        }
    }
    if let Some(wanted) = wanted
        && !owner.object.is_terminating()
    {
        let reference = controller_reference(&**owner);
        for key in store.ownerless(&resource, &owner.key.namespace) {
            let Some(orphan) = Loaded::<T>::get(store, &key) else { continue };
            if !orphan.object.is_terminating() && adopts(wanted, &labels_of(&orphan.object)) {
                let adopt = |value: &mut _| set(value, &["metadata", "ownerReferences"], json!([&reference]));
                claimed.writes.push(orphan.edit(adopt));
                claimed.dependents.push(orphan);
            }
        }
    }
    claimed
}

fn release<T: Metadata<Ty = ObjectMeta>>(dependent: &Loaded<T>, uid: &str) -> Write {
    let owners = dependent.metadata().owner_references.iter().flatten();
    let rest: Vec<&OwnerReference> = owners.filter(|owner| owner.uid != uid).collect();
    dependent.edit(|value| set_list(value, &["metadata", "ownerReferences"], &rest))
}

/// An empty selector would adopt everything in its namespace, which nobody means.
fn adopts(wanted: &LabelSelector, labels: &selector::Labels) -> bool {
    !selector::is_empty(wanted) && selector::matches(wanted, labels)
}

fn labels_of(object: &Object) -> selector::Labels {
    let labels = object.value().pointer("/metadata/labels").and_then(|labels| labels.as_object());
    let text =
        |(name, value): (&String, &serde_json::Value)| Some((name.clone(), value.as_str()?.to_owned()));
    labels.into_iter().flatten().filter_map(text).collect()
}
