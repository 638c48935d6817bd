//! What stands between the wish for a new object and the object: the rules of its namespace (LimitRanges,
//! ResourceQuotas) and the priority that its class means.
//!
//! Pure, and the same for what clients write and what controllers make. It knows objects and the store, and nothing of
//! who asks. Refusals have Kubernetes' words; whoever tells them adds what was refused.

pub mod amount;
mod limits;
mod priority;
pub mod quota;
mod usage;

pub use priority::SYSTEM_CLASSES;
pub use quota::Ledger;

use crate::state::Store;
use k8s_openapi::api::core::v1::{PersistentVolumeClaim, Pod};
use k8s_openapi::api::scheduling::v1::PriorityClass;

/// Fills what the namespace and the priority class say about a pod that does not say it itself.
pub fn complete(store: &Store, pod: &mut Pod) -> Result<(), String> {
    priority::resolve(store, pod)?;
    limits::complete(store, pod);
    Ok(())
}

/// Whether the namespace's LimitRanges allow a pod, defaults included.
pub fn check_limits(store: &Store, pod: &Pod) -> Result<(), String> {
    one_of(limits::check(store, pod))
}

/// The same of a claim.
pub fn check_claim(store: &Store, claim: &PersistentVolumeClaim) -> Result<(), String> {
    one_of(limits::check_claim(store, claim))
}

/// Whether a priority class may be the one for pods that name none.
pub fn check_global_default(store: &Store, class: &PriorityClass) -> Result<(), String> {
    let name = class.metadata.name.as_deref().unwrap_or_default();
    match priority::other_global(store, name).filter(|_| class.global_default == Some(true)) {
        None => Ok(()),
        Some(other) => {
            Err(format!("PriorityClass {other} is already marked as default. Only one default can exist"))
        }
    }
}

/// Several reasons are told together.
fn one_of(reasons: Vec<String>) -> Result<(), String> {
    match reasons.as_slice() {
        [] => Ok(()),
        [one] => Err(one.clone()),
        many => Err(format!("[{}]", many.join(", "))),
    }
}

#[cfg(test)]
mod tests;
