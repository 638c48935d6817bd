//! What every namespace has for its pods' programs to speak with the API: the ServiceAccount of those that name none,
//! and the certificate by which they know the API.
//!
//! (Kubernetes, "Managing Service Accounts": its ServiceAccount controller and root CA certificate publisher.)

use super::birth::{FORBIDDEN_WAIT, charged};
use super::loaded::{Loaded, set};
use super::names::Origin;
use super::{Controller, Plan};
use crate::state::{Change, Key, Resource, Store, resource_of};
use k8s_openapi::api::core::v1::{ConfigMap, ServiceAccount};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, Time};
use serde_json::json;
use std::sync::Arc;

const NAME: &str = "serviceaccount-controller";
const NAMESPACES: Resource = Resource::fixed("namespaces");
/// The ServiceAccount of pods that name none.
pub const DEFAULT: &str = "default";
/// The ConfigMap with the certificate, and its key.
pub const ROOT_CA: (&str, &str) = ("kube-root-ca.crt", "ca.crt");
const DESCRIPTION: (&str, &str) = (
    "kubernetes.io/description",
    "Contains a CA bundle that can be used to verify the API when its in-cluster address is used, or its name.",
);

pub struct ServiceAccountController {
    /// The certificate of the cluster's authority; none is published where it is empty. Desktops' certificates of one
    /// authority differ in their signatures, and any of them will do.
    pub authority_pem: Arc<str>,
}

impl Controller for ServiceAccountController {
    fn name(&self) -> &'static str {
        NAME
    }

    fn concerned(&self, _: &Store, change: &Change) -> Vec<Key> {
        let Key { resource, namespace, name } = &change.key;
        if *resource == NAMESPACES {
            return vec![change.key.clone()];
        }
        let is_ours =
            *resource == resource_of::<ServiceAccount>() && name == DEFAULT && change.object.is_none()
                || *resource == resource_of::<ConfigMap>() && name == ROOT_CA.0;
        if is_ours { vec![Key::new(NAMESPACES, "", namespace.clone())] } else { Vec::new() }
    }

    fn all(&self, store: &Store) -> Vec<Key> {
        store.list(&NAMESPACES, None).map(|(key, _)| key).collect()
    }

    fn reconcile(&self, store: &Store, key: &Key, now: &Time) -> Plan {
        let mut plan = Plan::default();
        let namespace = key.name.as_str();
        if store.get(key).is_none_or(|namespace| namespace.is_terminating()) {
            return plan;
        }
        let born = |name: &str, purpose: &str| {
            let origin = Origin { owner_uid: namespace, purpose, ordinal: 0, revision: store.revision() };
            ObjectMeta {
                name: Some(name.to_owned()),
                namespace: Some(namespace.to_owned()),
                uid: Some(origin.uid()),
                creation_timestamp: Some(now.clone()),
                ..ObjectMeta::default()
            }
        };
        if store.get(&Key::of::<ServiceAccount>(namespace, DEFAULT)).is_none() {
            let metadata = born(DEFAULT, "serviceaccount");
            add(&mut plan, charged(store, &ServiceAccount { metadata, ..ServiceAccount::default() }));
        }
        if self.authority_pem.is_empty() {
            return plan;
        }
        let data = || Some([(ROOT_CA.1.to_owned(), self.authority_pem.to_string())].into());
        match Loaded::<ConfigMap>::get(store, &Key::of::<ConfigMap>(namespace, ROOT_CA.0)) {
            None => {
                let mut metadata = born(ROOT_CA.0, "root ca");
                metadata.annotations = Some([(DESCRIPTION.0.to_owned(), DESCRIPTION.1.to_owned())].into());
                let map = ConfigMap { metadata, data: data(), ..ConfigMap::default() };
                add(&mut plan, charged(store, &map));
            }
            Some(map) => {
                let there = map.data.as_ref().and_then(|data| data.get(ROOT_CA.1));
                if !there.is_some_and(|pem| pem.contains("BEGIN CERTIFICATE")) && map.immutable != Some(true)
                {
                    plan.write(map.edit(|value| set(value, &["data"], json!(data()))));
                }
            }
        }
        plan
    }
}

/// Each by itself: a quota that forbids the one may allow the other.
fn add(plan: &mut Plan, made: Result<Vec<crate::state::Write>, String>) {
    match made {
        Ok(writes) => plan.transaction(writes),
        Err(why) => {
            tracing::debug!(why, "what a namespace should have is not made yet");
            plan.requeue(FORBIDDEN_WAIT);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::controller::harness::World;
    use crate::state::{Expect, Write};

    fn reconciled(world: &mut World) {
        let controller = ServiceAccountController { authority_pem: "-----BEGIN CERTIFICATE-----".into() };
        for key in controller.all(&world.store) {
            for txn in controller.reconcile(&world.store, &key, &world.now.clone()).writes {
                world.store.apply(&txn).unwrap();
            }
        }
    }

    #[test]
    fn every_namespace_has_its_account_and_the_certificate_and_gets_them_back() {
        let mut world = World::new(1);
        world.run();
        reconciled(&mut world);
        for namespace in ["default", "kube-system"] {
            let map = world.store.get_as::<ConfigMap>(namespace, ROOT_CA.0).unwrap();
            assert!(map.data.as_ref().unwrap()[ROOT_CA.1].contains("CERTIFICATE"));
        }
        let account = Key::of::<ServiceAccount>("default", DEFAULT);
        let first = world.store.get(&account).unwrap().uid().to_owned();
        let gone = Write::Delete { key: account.clone(), expect: Expect::Present, intent: None };
        world.store.apply(&gone.into()).unwrap();
        let map = Key::of::<ConfigMap>("default", ROOT_CA.0);
        let object = world.store.get(&map).unwrap().clone();
        let emptied =
            crate::controller::loaded::edit_object(&map, &object, |value| set(value, &["data"], json!({})));
        world.store.apply(&emptied.into()).unwrap();
        reconciled(&mut world);
        assert_ne!(
            world.store.get(&account).unwrap().uid(),
            first,
            "tokens of the one before are worth nothing"
        );
        assert!(world.value(&map)["data"][ROOT_CA.1].as_str().unwrap().contains("CERTIFICATE"));
        let before = world.store.revision();
        reconciled(&mut world);
        assert_eq!(world.store.revision(), before, "nothing is left to do");
    }
}
