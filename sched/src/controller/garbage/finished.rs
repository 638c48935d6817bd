//! Finished pods are kept for their logs and exit codes, but not without bound.

use super::super::deletion::{self, Grace};
use super::super::loaded::Loaded;
use super::super::{Controller, Plan, pods};
use crate::state::{Change, Key, Resource, Store};
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

const NAME: &str = "finished-pod-collector";
const PODS: Resource = Resource::fixed("pods");
/// Finished pods kept in the whole cluster; the oldest beyond it go. (Kubernetes keeps 12,500, on larger
/// machines.) A pod that a finalizer holds, because its Job has not counted it yet, stays until it is counted.
pub const FINISHED_POD_LIMIT: usize = 1000;

pub struct FinishedPodCollector;

/// All finished pods together are one thing to reconcile.
fn sentinel() -> Key {
    Key::new(PODS, "", "")
}

impl Controller for FinishedPodCollector {
    fn name(&self) -> &'static str {
        NAME
    }

    fn concerned(&self, _: &Store, change: &Change) -> Vec<Key> {
        let finished = |object: &crate::state::Object| {
            let phase = object.value().pointer("/status/phase").and_then(|phase| phase.as_str());
            matches!(phase, Some("Succeeded" | "Failed"))
        };
        let now = change.key.resource == PODS && change.object.as_deref().is_some_and(finished);
        let before = change.previous.as_deref().is_some_and(finished);
        if now && !before { vec![sentinel()] } else { Vec::new() }
    }

    fn all(&self, _: &Store) -> Vec<Key> {
        vec![sentinel()]
    }

    fn reconcile(&self, store: &Store, _: &Key, now: &Time) -> Plan {
        let mut plan = Plan::default();
        let all = store.list(&PODS, None).filter_map(|(key, object)| Loaded::<Pod>::from_object(key, object));
        let mut finished: Vec<Loaded<Pod>> =
            all.filter(|pod| pods::is_finished(pod) && !pods::is_terminating(pod)).collect();
        let surplus = finished.len().saturating_sub(FINISHED_POD_LIMIT);
        if surplus > 0 {
            finished.retain(|pod| deletion::finalizers(&pod.object).next().is_none());
            finished.sort_by_cached_key(|pod| (pod.metadata.creation_timestamp.clone(), pod.key.clone()));
            for pod in finished.iter().take(surplus) {
                plan.writes
                    .extend(deletion::delete(&pod.key, &pod.object, Grace::AsSpecified, now).map(Into::into));
            }
        }
        plan
    }
}
