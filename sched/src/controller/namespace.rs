//! Namespaces: the ones that are always there, and emptying those that go.

use super::deletion::{self, Grace};
use super::loaded::{create, edit_object, set};
use super::names::Origin;
use super::{Controller, Plan};
use crate::state::{Change, Expect, Key, Object, Resource, Store, Write};
use k8s_openapi::api::core::v1::{Namespace, NamespaceSpec, NamespaceStatus};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, Time};
use serde_json::{Value, json};
use std::time::Duration;

const NAME: &str = "namespace-controller";
const NAMESPACES: Resource = Resource::fixed("namespaces");
/// Namespaces that clients expect of every cluster: made where they are missing, and never deleted.
pub const ALWAYS: [&str; 4] = ["default", "kube-system", "kube-public", "kube-node-lease"];
/// The finalizer in a namespace's spec.
const FINALIZER: &str = "kubernetes";
/// The label that selectors of namespaces can rely on.
const NAME_LABEL: &str = "kubernetes.io/metadata.name";
/// Objects deleted per plan.
const BURST: usize = 500;

pub struct NamespaceController;

/// The namespaces that are always there are one thing to reconcile: they may not exist yet.
fn sentinel() -> Key {
    Key::new(NAMESPACES, "", "")
}

impl Controller for NamespaceController {
    fn name(&self) -> &'static str {
        NAME
    }

    fn concerned(&self, store: &Store, change: &Change) -> Vec<Key> {
        if change.key.resource == NAMESPACES {
            let gone = change.object.is_none() && ALWAYS.contains(&change.key.name.as_str());
            return vec![if gone { sentinel() } else { change.key.clone() }];
        }
        if change.key.namespace.is_empty() {
            return Vec::new();
        }
        let namespace = Key::new(NAMESPACES, "", change.key.namespace.clone());
        let terminating = store.get(&namespace).is_some_and(|object| object.is_terminating());
        if terminating { vec![namespace] } else { Vec::new() }
    }

    fn all(&self, store: &Store) -> Vec<Key> {
        std::iter::once(sentinel()).chain(store.list(&NAMESPACES, None).map(|(key, _)| key)).collect()
    }

    fn reconcile(&self, store: &Store, key: &Key, now: &Time) -> Plan {
        if *key == sentinel() {
            return found(store, now);
        }
        match store.get(key) {
            Some(object) if object.is_terminating() => empty(store, key, object, now),
            _ => Plan::default(),
        }
    }
}

fn found(store: &Store, now: &Time) -> Plan {
    let mut plan = Plan::default();
    for name in ALWAYS {
        if store.get(&Key::new(NAMESPACES, "", name)).is_some() {
            continue;
        }
        let revision = store.revision();
        let origin = Origin { owner_uid: name, purpose: "namespace", ordinal: 0, revision };
        plan.write(create(&Namespace {
            metadata: ObjectMeta {
                name: Some(name.into()),
                uid: Some(origin.uid()),
                creation_timestamp: Some(now.clone()),
                labels: Some([(NAME_LABEL.to_owned(), name.to_owned())].into()),
                ..ObjectMeta::default()
            },
            spec: Some(NamespaceSpec { finalizers: Some(vec![FINALIZER.into()]) }),
            status: Some(NamespaceStatus { phase: Some("Active".into()), conditions: None }),
        }));
    }
    plan
}

/// Deletes what is in the namespace, and then the namespace.
fn empty(store: &Store, key: &Key, object: &Object, now: &Time) -> Plan {
    let mut plan = Plan::default();
    let resources: Vec<Resource> = store.resources().cloned().collect();
    let inside = || resources.iter().flat_map(|resource| store.list(resource, Some(&key.name)));
    let mut left = 0;
    for (inner, object) in inside() {
        left += 1;
        if plan.writes.len() >= BURST {
            plan.requeue(Duration::ZERO);
            break;
        }
        let write = deletion::delete(&inner, object, Grace::AsSpecified, now);
        plan.writes.extend(write.map(Into::into));
    }
    if left > 0 {
        return plan;
    }
    let held = deletion::finalizers(object).next().is_some();
    let finalizers = object.value().pointer("/spec/finalizers").and_then(Value::as_array);
    let rest: Vec<&Value> = finalizers.into_iter().flatten().filter(|name| *name != FINALIZER).collect();
    if !held && rest.is_empty() {
        // Expecting the revision is not enough against something made in it meanwhile: the change that makes it
        // brings this controller back, which finds no namespace, and the API refuses to create in one that goes.
        let expect = Expect::Revision(object.revision());
        plan.write(Write::Delete { key: key.clone(), expect, intent: None });
    } else if finalizers.is_some_and(|all| all.len() > rest.len()) {
        plan.write(edit_object(key, object, |value| set(value, &["spec", "finalizers"], json!(rest))));
    }
    plan
}

#[cfg(test)]
mod tests;
