//! The priority classes that are always there.

use super::loaded::create;
use super::names::Origin;
use super::{Controller, Plan};
use crate::admission::SYSTEM_CLASSES;
use crate::state::{Change, Key, Store, resource_of};
use k8s_openapi::api::scheduling::v1::PriorityClass;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, Time};

const NAME: &str = "priorityclass-controller";

pub struct PriorityClassController;

/// They are one thing to reconcile: they may not exist yet.
fn sentinel() -> Key {
    Key::new(resource_of::<PriorityClass>(), "", "")
}

impl Controller for PriorityClassController {
    fn name(&self) -> &'static str {
        NAME
    }

    fn concerned(&self, _: &Store, change: &Change) -> Vec<Key> {
        let is_ours = SYSTEM_CLASSES.iter().any(|(name, ..)| *name == change.key.name);
        let gone = change.key.resource == resource_of::<PriorityClass>() && change.object.is_none();
        if is_ours && gone { vec![sentinel()] } else { Vec::new() }
    }

    fn all(&self, _: &Store) -> Vec<Key> {
        vec![sentinel()]
    }

    fn reconcile(&self, store: &Store, _: &Key, now: &Time) -> Plan {
        let mut plan = Plan::default();
        for (name, value, description) in SYSTEM_CLASSES {
            if store.get(&Key::of::<PriorityClass>("", name)).is_some() {
                continue;
            }
            let origin =
                Origin { owner_uid: name, purpose: "priorityclass", ordinal: 0, revision: store.revision() };
            plan.write(create(&PriorityClass {
                metadata: ObjectMeta {
                    name: Some(name.into()),
                    uid: Some(origin.uid()),
                    creation_timestamp: Some(now.clone()),
                    generation: Some(1),
                    ..ObjectMeta::default()
                },
                value,
                description: Some(description.into()),
                preemption_policy: Some("PreemptLowerPriority".into()),
                global_default: None,
            }));
        }
        plan
    }
}
