//! ResourceQuotas: what is in use, counted anew when something has become free.
//!
//! What is made is charged where it is made ([`crate::admission::quota`]); this only corrects. It looks at a whole
//! namespace at a time, so it must not look for every object that is made in it.

use super::loaded::Loaded;
use super::{Controller, Plan};
use crate::admission::amount::{Amounts, amounts};
use crate::admission::quota;
use crate::state::{Change, Key, Object, Store, resource_of};
use k8s_openapi::api::core::v1::ResourceQuota;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use serde_json::Value;
use std::time::Duration;

const NAME: &str = "resourcequota-controller";
/// What was made without being charged (edits that were kept without a quorum) is found within this.
const RECOUNT: Duration = Duration::from_secs(60);

pub struct QuotaController;

impl Controller for QuotaController {
    fn name(&self) -> &'static str {
        NAME
    }

    fn concerned(&self, store: &Store, change: &Change) -> Vec<Key> {
        let (before, after) = (change.previous.as_deref(), change.object.as_deref());
        if change.key.resource == resource_of::<ResourceQuota>() {
            let spec = |object: &Object| object.value().get("spec").cloned();
            // Charges change the status alone.
            let same = before.map(spec) == after.map(spec);
            return if same { Vec::new() } else { vec![change.key.clone()] };
        }
        if change.key.namespace.is_empty() || !frees(before, after) {
            return Vec::new();
        }
        let quotas = store.list(&resource_of::<ResourceQuota>(), Some(&change.key.namespace));
        let counts = |object: &Object| {
            object.typed::<ResourceQuota>().is_some_and(|quota| quota::counts(&quota, &change.key.resource))
        };
        quotas.filter(|(_, object)| counts(object)).map(|(key, _)| key).collect()
    }

    fn all(&self, store: &Store) -> Vec<Key> {
        store.list(&resource_of::<ResourceQuota>(), None).map(|(key, _)| key).collect()
    }

    fn reconcile(&self, store: &Store, key: &Key, _: &Time) -> Plan {
        let mut plan = Plan::default();
        let Some(quota) = Loaded::<ResourceQuota>::get(store, key) else { return plan };
        let hard = quota::hard_of(&quota);
        let used = quota::count(store, &quota, &hard);
        let status = quota.status.as_ref();
        let told: (Amounts, Amounts) = (
            amounts(status.and_then(|status| status.hard.as_ref())),
            amounts(status.and_then(|status| status.used.as_ref())),
        );
        if told != (hard.clone(), used.clone()) {
            plan.write(quota::write_status(&quota, &hard, &used));
        }
        plan.requeue(RECOUNT);
        plan
    }
}

/// Whether a change makes anything free: an object goes, a pod ends, a Service is no longer reached from outside.
fn frees(before: Option<&Object>, after: Option<&Object>) -> bool {
    let has_ended = |object: &Object| {
        let phase = object.value().pointer("/status/phase").and_then(Value::as_str);
        matches!(phase, Some("Succeeded" | "Failed"))
    };
    match (before, after) {
        (Some(_), None) => true,
        (Some(before), Some(after)) => {
            let ports = |object: &Object| {
                object.value().pointer("/spec/ports").and_then(Value::as_array).map(Vec::len)
            };
            let reach = |object: &Object| object.value().pointer("/spec/type").cloned();
            (has_ended(after) && !has_ended(before))
                || reach(before) != reach(after)
                || ports(before) > ports(after)
        }
        (None, _) => false,
    }
}
