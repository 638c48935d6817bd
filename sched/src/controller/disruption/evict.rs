//! Whether a pod may be evicted now, and what that takes of its budget.

use super::super::loaded::set;
use super::super::pods;
use super::{all_of, covers};
use crate::state::{Store, Write};
use k8s_openapi::api::core::v1::Pod;
use serde_json::json;

/// Why a pod may not be evicted, in Kubernetes' words.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Blocked {
    #[error("The disruption budget {budget} needs {needed} healthy pods and has {healthy} currently")]
    Spent { budget: String, needed: i32, healthy: i32 },
    #[error("The disruption budget {0} is still being processed by the server.")]
    NotCounted(String),
    #[error(
        "This pod has more than one PodDisruptionBudget, which the eviction subresource does not support."
    )]
    Several,
}

/// What has to be written together with the eviction; nothing where no budget is concerned.
pub fn evict(store: &Store, pod: &Pod) -> Result<Option<Write>, Blocked> {
    // What does not serve yet, or any more, is missed by nobody.
    if pods::is_finished(pod) || pods::is_terminating(pod) || pods::phase(pod) == "Pending" {
        return Ok(None);
    }
    let namespace = pod.metadata.namespace.as_deref().unwrap_or_default();
    let mut budgets = all_of(store, namespace).into_iter().filter(|budget| covers(budget, pod));
    let Some(budget) = budgets.next() else { return Ok(None) };
    if budgets.next().is_some() {
        return Err(Blocked::Several);
    }
    let status = budget.status.clone().unwrap_or_default();
    let policy = budget.spec.as_ref().and_then(|spec| spec.unhealthy_pod_eviction_policy.as_deref());
    let enough = status.desired_healthy > 0 && status.current_healthy >= status.desired_healthy;
    if !pods::is_ready(pod) && (policy == Some("AlwaysAllow") || enough) {
        return Ok(None);
    }
    if status.observed_generation < budget.metadata.generation {
        return Err(Blocked::NotCounted(budget.key.name.clone()));
    }
    if status.disruptions_allowed <= 0 {
        let (needed, healthy) = (status.desired_healthy, status.current_healthy);
        return Err(Blocked::Spent { budget: budget.key.name.clone(), needed, healthy });
    }
    let left = status.disruptions_allowed - 1;
    Ok(Some(budget.edit(|value| set(value, &["status", "disruptionsAllowed"], json!(left)))))
}
