//! Roles: the ones that are always there, and those that are made of others.

mod bootstrap;

use super::loaded::{Loaded, create, edit_object, set, to_json};
use super::names::Origin;
use super::{Controller, Plan, selector};
use crate::state::{Change, Key, Object, Resource, Store, resource_of};
use k8s_openapi::Metadata;
use k8s_openapi::api::rbac::v1::{ClusterRole, ClusterRoleBinding, PolicyRule};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, Time};
use serde::Serialize;
use serde_json::json;
use std::collections::BTreeMap;
use std::sync::Arc;

const NAME: &str = "clusterrole-aggregation-controller";

pub struct AccessController;

/// What is always there is one thing to reconcile: it may not exist yet.
fn sentinel() -> Key {
    Key::new(roles(), "", "")
}

fn roles() -> Resource {
    resource_of::<ClusterRole>()
}

impl Controller for AccessController {
    fn name(&self) -> &'static str {
        NAME
    }

    fn concerned(&self, store: &Store, change: &Change) -> Vec<Key> {
        let mut keys = match change.key.resource == roles() {
            true => aggregated(store),
            false => Vec::new(),
        };
        if change.object.is_none() && bootstrap::is_ours(&change.key) {
            keys.push(sentinel());
        }
        keys
    }

    fn all(&self, store: &Store) -> Vec<Key> {
        std::iter::once(sentinel()).chain(aggregated(store)).collect()
    }

    fn reconcile(&self, store: &Store, key: &Key, now: &Time) -> Plan {
        if *key == sentinel() { found(store, now) } else { aggregate(store, key) }
    }
}

/// The roles that are made of others.
fn aggregated(store: &Store) -> Vec<Key> {
    let is_aggregated =
        |object: &Object| object.value().get("aggregationRule").is_some_and(|rule| !rule.is_null());
    store.list(&roles(), None).filter(|(_, role)| is_aggregated(role)).map(|(key, _)| key).collect()
}

/// Makes what is missing, and fills in what a newer version of this program knows.
fn found(store: &Store, now: &Time) -> Plan {
    let mut plan = Plan::default();
    for role in bootstrap::roles() {
        if let Some(there) = missing(&mut plan, store, &role, now) {
            let wanted = role.rules.clone().unwrap_or_default();
            let there_typed = there.typed::<ClusterRole>().and_then(|role| role.rules.clone());
            lacks(&mut plan, &key_of(&role), there, "rules", there_typed.unwrap_or_default(), wanted);
        }
    }
    for binding in bootstrap::bindings() {
        if let Some(there) = missing(&mut plan, store, &binding, now) {
            let wanted = binding.subjects.clone().unwrap_or_default();
            let there_typed =
                there.typed::<ClusterRoleBinding>().and_then(|binding| binding.subjects.clone());
            lacks(&mut plan, &key_of(&binding), there, "subjects", there_typed.unwrap_or_default(), wanted);
        }
    }
    plan
}

fn key_of<T: k8s_openapi::Resource + Metadata<Ty = ObjectMeta>>(object: &T) -> Key {
    Key::of::<T>("", object.metadata().name.clone().unwrap_or_default())
}

/// Creates the object, or gives what is there under its name.
fn missing<'s, T>(plan: &mut Plan, store: &'s Store, object: &T, now: &Time) -> Option<&'s Arc<Object>>
where
    T: k8s_openapi::Resource + Metadata<Ty = ObjectMeta> + Serialize + Clone,
{
    let key = key_of(object);
    let there = store.get(&key);
    if there.is_none() {
        let purpose = key.resource.as_str();
        let origin = Origin { owner_uid: &key.name, purpose, ordinal: 0, revision: store.revision() };
        let mut object = object.clone();
        bootstrap::born(object.metadata_mut(), origin.uid(), now);
        plan.write(create(&object));
    }
    there
}

/// Adds to a list what it should hold, unless people have said that it is theirs.
fn lacks<E: PartialEq + Serialize>(
    plan: &mut Plan,
    key: &Key,
    there: &Object,
    field: &str,
    mut list: Vec<E>,
    wanted: Vec<E>,
) {
    if there.annotation(bootstrap::AUTOUPDATE) != Some("true") || there.is_terminating() {
        return;
    }
    let before = list.len();
    for element in wanted {
        if !list.contains(&element) {
            list.push(element);
        }
    }
    if list.len() > before {
        plan.write(edit_object(key, there, |value| set(value, &[field], to_json(&list))));
    }
}

/// Gives a role the rules of all that its selectors choose.
fn aggregate(store: &Store, key: &Key) -> Plan {
    let mut plan = Plan::default();
    let Some(role) = Loaded::<ClusterRole>::get(store, key) else { return plan };
    let Some(rule) = &role.aggregation_rule else { return plan };
    let mut rules: Vec<PolicyRule> = Vec::new();
    let none = BTreeMap::new();
    for selector in rule.cluster_role_selectors.iter().flatten() {
        for (part_key, part) in store.list(&roles(), None).filter(|(part, _)| part != key) {
            let Some(part) = Loaded::<ClusterRole>::from_object(part_key, part) else { continue };
            if !selector::matches(selector, part.metadata.labels.as_ref().unwrap_or(&none)) {
                continue;
            }
            for rule in part.rules.iter().flatten() {
                if !rules.contains(rule) {
                    rules.push(rule.clone());
                }
            }
        }
    }
    if rules != role.rules.clone().unwrap_or_default() {
        plan.write(role.edit(|value| set(value, &["rules"], json!(rules))));
    }
    plan
}

#[cfg(test)]
mod tests;
