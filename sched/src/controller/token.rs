//! Secrets that hold a ServiceAccount's token: the way to one that does not expire, for programs outside of the cluster.
//!
//! (Kubernetes, "Manually create a long-lived API token for a ServiceAccount", and its tokens controller.)

use super::deletion::{self, Grace};
use super::loaded::{Loaded, set};
use super::serviceaccount::ROOT_CA;
use super::{Controller, Note, Plan};
use crate::state::{Change, Key, Object, Resource, Store, resource_of};
use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::{Secret, ServiceAccount};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use serde_json::json;
use std::fmt;
use std::sync::Arc;

const NAME: &str = "serviceaccount-token-controller";
const SECRETS: Resource = Resource::fixed("secrets");
const TYPE: &str = "kubernetes.io/service-account-token";
/// Annotations: whose token it is, and which ServiceAccount of that name got it.
const ACCOUNT: &str = "kubernetes.io/service-account.name";
const ACCOUNT_UID: &str = "kubernetes.io/service-account.uid";
const TOKEN: &str = "token";
const NAMESPACE: &str = "namespace";

/// Whoever can sign tokens. For equal arguments the token is the same.
pub trait SignTokens: Send + Sync + fmt::Debug {
    /// A token of the ServiceAccount of this name and uid, good for as long as that and the Secret are there.
    fn sign(&self, account: (&str, &str), secret: &Key, secret_uid: &str, now: &Time) -> String;
}

pub struct TokenController {
    /// Nothing is signed where there is none.
    pub signer: Option<Arc<dyn SignTokens>>,
    /// See [`ServiceAccountController`](super::serviceaccount::ServiceAccountController).
    pub authority_pem: Arc<str>,
}

impl Controller for TokenController {
    fn name(&self) -> &'static str {
        NAME
    }

    fn concerned(&self, store: &Store, change: &Change) -> Vec<Key> {
        let Key { resource, namespace, name } = &change.key;
        if *resource == SECRETS {
            let holds = change.object.as_deref().is_some_and(|object| account_of(object).is_some());
            return if holds { vec![change.key.clone()] } else { Vec::new() };
        }
        if *resource != resource_of::<ServiceAccount>() {
            return Vec::new();
        }
        let of_account = |(_, object): &(Key, &Arc<Object>)| account_of(object) == Some(name);
        store.list(&SECRETS, Some(namespace)).filter(of_account).map(|(key, _)| key).collect()
    }

    fn all(&self, store: &Store) -> Vec<Key> {
        let secrets = store.list(&SECRETS, None);
        secrets.filter(|(_, object)| account_of(object).is_some()).map(|(key, _)| key).collect()
    }

    fn reconcile(&self, store: &Store, key: &Key, now: &Time) -> Plan {
        let mut plan = Plan::default();
        let (Some(signer), Some(secret)) = (&self.signer, Loaded::<Secret>::get(store, key)) else {
            return plan;
        };
        let Some(name) = account_of(&secret.object).filter(|_| !secret.object.is_terminating()) else {
            return plan;
        };
        let account = store.get(&Key::of::<ServiceAccount>(&key.namespace, name));
        let account = account.filter(|account| !account.is_terminating());
        let given_to = secret.object.annotation(ACCOUNT_UID).unwrap_or_default();
        let account = match account {
            Some(account) if given_to.is_empty() || given_to == account.uid() => account,
            // It may come: whoever applies a directory makes them in the order of its files.
            None if given_to.is_empty() => {
                let why = format!("there is no ServiceAccount {name} whose token it could hold");
                plan.events.push(Note::warning(key, NAME, "NoServiceAccount", why));
                return plan;
            }
            // As in Kubernetes: a token goes with its account.
            _ => {
                deletion::delete(key, &secret.object, Grace::AsSpecified, now)
                    .into_iter()
                    .for_each(|write| plan.write(write));
                return plan;
            }
        };
        let before = secret.data.clone().unwrap_or_default();
        let held = |entry: &str| before.get(entry).map(|bytes| &*bytes.0).filter(|bytes| !bytes.is_empty());
        let mut data = before.clone();
        let mut hold = |entry: &str, text: &str| {
            data.insert(entry.to_owned(), ByteString(text.as_bytes().to_vec()));
        };
        if held(TOKEN).is_none() {
            hold(TOKEN, &signer.sign((name, account.uid()), key, secret.object.uid(), now));
        }
        if held(ROOT_CA.1).is_none() && !self.authority_pem.is_empty() {
            hold(ROOT_CA.1, &self.authority_pem);
        }
        if held(NAMESPACE) != Some(key.namespace.as_bytes()) {
            hold(NAMESPACE, &key.namespace);
        }
        if (data != before || given_to.is_empty()) && secret.immutable != Some(true) {
            plan.write(secret.edit(|value| {
                set(value, &["data"], json!(data));
                set(value, &["metadata", "annotations", ACCOUNT_UID], json!(account.uid()));
            }));
        }
        plan
    }
}

/// The ServiceAccount whose token a Secret is to hold, if it is one of those.
fn account_of(secret: &Object) -> Option<&str> {
    let holds = secret.value().get("type").and_then(|of| of.as_str()) == Some(TYPE);
    secret.annotation(ACCOUNT).filter(|_| holds)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::controller::harness::World;
    use crate::state::{Expect, Revision, Seen, Write};
    use serde_json::Value;

    #[derive(Debug)]
    struct Signer;

    impl SignTokens for Signer {
        fn sign(&self, (name, uid): (&str, &str), secret: &Key, secret_uid: &str, _: &Time) -> String {
            format!("{name} {uid} {} {secret_uid}", secret.name)
        }
    }

    fn put(world: &mut World, key: &Key, value: Value) {
        let write = Write::Put { key: key.clone(), value, expect: Expect::Any, intent: None };
        world.store.apply(&write.into()).unwrap();
    }

    fn account(world: &mut World, uid: &str) -> Key {
        let key = Key::of::<ServiceAccount>("default", "robot");
        put(world, &key, json!({"metadata": {"name": "robot", "namespace": "default", "uid": uid}}));
        key
    }

    /// What is done after the newest change, and what is said.
    fn reconcile(world: &mut World) -> Vec<Note> {
        let signer: Arc<dyn SignTokens> = Arc::new(Signer);
        let controller = TokenController { signer: Some(signer), authority_pem: "PEM".into() };
        let before = Revision(world.store.revision().0 - 1);
        let seen = Seen { revision: before, ..world.store.seen() };
        let mut notes = Vec::new();
        for change in world.store.changes_since(seen).unwrap() {
            for key in controller.concerned(&world.store, &change) {
                let plan = controller.reconcile(&world.store, &key, &world.now.clone());
                plan.writes.iter().for_each(|txn| _ = world.store.apply(txn).unwrap());
                notes.extend(plan.events);
            }
        }
        notes
    }

    #[test]
    fn a_secret_gets_its_accounts_token_and_goes_with_the_account() {
        let mut world = World::new(1);
        let key = Key::of::<Secret>("default", "robot-token");
        let secret = json!({"type": TYPE, "metadata": {"name": "robot-token", "namespace": "default", "uid": "s",
            "annotations": {ACCOUNT: "robot"}}});
        put(&mut world, &key, secret.clone());
        assert_eq!(reconcile(&mut world)[0].reason, "NoServiceAccount");
        assert_eq!(world.value(&key).get("data"), None, "it waits");
        let account_key = account(&mut world, "one");
        assert_eq!(reconcile(&mut world), vec![]);
        let held = world.store.get_as::<Secret>("default", "robot-token").unwrap();
        let text = |entry: &str| String::from_utf8(held.data.as_ref().unwrap()[entry].0.clone()).unwrap();
        assert_eq!(text(TOKEN), "robot one robot-token s");
        assert_eq!((text(ROOT_CA.1), text(NAMESPACE)), ("PEM".into(), "default".into()));
        assert_eq!(world.value(&key)["metadata"]["annotations"][ACCOUNT_UID], "one");
        let before = world.store.revision();
        reconcile(&mut world);
        assert_eq!(world.store.revision(), before, "nothing is left to do");

        // Another account of that name is not the one that the token was given to.
        account(&mut world, "two");
        reconcile(&mut world);
        assert!(world.store.get(&key).is_none());
        put(&mut world, &key, secret);
        reconcile(&mut world);
        let gone = Write::Delete { key: account_key, expect: Expect::Present, intent: None };
        world.store.apply(&gone.into()).unwrap();
        reconcile(&mut world);
        assert!(world.store.get(&key).is_none());
    }

    #[test]
    fn other_secrets_are_left_alone() {
        let mut world = World::new(1);
        account(&mut world, "one");
        let key = Key::of::<Secret>("default", "plain");
        let plain = json!({"type": "Opaque", "metadata": {"name": "plain", "namespace": "default", "uid": "s",
            "annotations": {ACCOUNT: "robot"}}});
        put(&mut world, &key, plain);
        reconcile(&mut world);
        account(&mut world, "two");
        reconcile(&mut world);
        assert_eq!(world.value(&key).get("data"), None);
    }
}
