//! From the name of a priority class to the number that decides who goes first
//! (<https://kubernetes.io/docs/concepts/scheduling-eviction/pod-priority-preemption/>).

use crate::state::Store;
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::api::scheduling::v1::PriorityClass;
use std::sync::Arc;

/// The classes that every cluster has, with their values and what they say of themselves.
pub const SYSTEM_CLASSES: [(&str, i32, &str); 2] = [
    (
        "system-cluster-critical",
        2_000_000_000,
        "Used for system critical pods that must run in the cluster, but can be moved to another node if necessary.",
    ),
    (
        "system-node-critical",
        2_000_001_000,
        "Used for system critical pods that must not be moved from their current node.",
    ),
];

/// What a class says of preemption that says nothing.
const PREEMPTS: &str = "PreemptLowerPriority";

pub(super) fn resolve(store: &Store, pod: &mut Pod) -> Result<(), String> {
    let spec = pod.spec.get_or_insert_default();
    let name = spec.priority_class_name.clone().filter(|name| !name.is_empty());
    let (value, policy) = match name {
        Some(name) => match class(store, &name) {
            Some(found) => found,
            None => return Err(format!("no PriorityClass with name {name} was found")),
        },
        None => match global(store) {
            Some(class) => {
                spec.priority_class_name = class.metadata.name.clone();
                (class.value, class.preemption_policy.clone())
            }
            // Nothing is more important than anything else; a given 0 says the same.
            None if spec.priority.is_none_or(|given| given == 0) && spec.preemption_policy.is_none() => {
                return Ok(());
            }
            None => (0, None),
        },
    };
    if spec.priority.is_some_and(|given| given != value) {
        return Err(format!(
            "the integer value of priority ({}) must not be provided in pod spec; priority admission controller \
             computed {value} from the given PriorityClass name",
            spec.priority.unwrap_or_default()
        ));
    }
    let policy = policy.unwrap_or_else(|| PREEMPTS.into());
    if let Some(given) = spec.preemption_policy.as_ref().filter(|given| **given != policy) {
        return Err(format!(
            "the string value of PreemptionPolicy ({given}) must not be provided in pod spec; priority admission \
             controller computed {policy} from the given PriorityClass name"
        ));
    }
    spec.priority = Some(value);
    spec.preemption_policy = Some(policy);
    Ok(())
}

fn class(store: &Store, name: &str) -> Option<(i32, Option<String>)> {
    let stored = store.get_as::<PriorityClass>("", name);
    let system =
        || SYSTEM_CLASSES.iter().find(|(system, ..)| *system == name).map(|(_, value, _)| (*value, None));
    stored.map(|class| (class.value, class.preemption_policy.clone())).or_else(system)
}

/// The class, other than the one of this name, that is for those that name none.
pub(super) fn other_global(store: &Store, name: &str) -> Option<String> {
    let classes = store.list_as::<PriorityClass>(None).into_iter();
    let mut global = classes.filter(|class| class.global_default == Some(true));
    global.find_map(|class| class.metadata.name.clone().filter(|other| other != name))
}

/// The class of those that name none: of several the one of the lowest value.
fn global(store: &Store) -> Option<Arc<PriorityClass>> {
    let classes = store.list_as::<PriorityClass>(None).into_iter();
    classes.filter(|class| class.global_default == Some(true)).min_by_key(|class| class.value)
}
