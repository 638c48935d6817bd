//! What controllers ask of pods (is it active, ready, available, lost?) and how they make one from a template.

use super::instant::{remaining, seconds};
use super::loaded::Loaded;
use super::names::Origin;
use super::owners;
use crate::state::{Key, Store};
use k8s_openapi::Metadata;
use k8s_openapi::api::core::v1::{Container, Pod, PodCondition, PodSpec, PodStatus, PodTemplateSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, Time};
use std::time::Duration;

/// The condition of a pod that goes for reasons that are not its own.
pub const DISRUPTION_TARGET: &str = "DisruptionTarget";
/// `status.reason` of a pod whose node died under it.
pub const NODE_LOST: &str = "NodeLost";

pub fn phase(pod: &Pod) -> &str {
    pod.status.as_ref().and_then(|status| status.phase.as_deref()).unwrap_or("Pending")
}

/// All its containers have ended and none will be started again.
pub fn is_finished(pod: &Pod) -> bool {
    matches!(phase(pod), "Succeeded" | "Failed")
}

pub fn is_terminating(pod: &Pod) -> bool {
    pod.metadata.deletion_timestamp.is_some()
}

/// Neither finished nor on its way out.
pub fn is_active(pod: &Pod) -> bool {
    !is_finished(pod) && !is_terminating(pod)
}

/// Whether the owner of pods is being deleted itself: then it makes and deletes none.
pub fn is_going<O>(owner: &Loaded<O>) -> bool {
    owner.object.is_terminating()
}

/// The node that the pod is bound to.
pub fn node_of(pod: &Pod) -> Option<&str> {
    pod.spec.as_ref()?.node_name.as_deref().filter(|node| !node.is_empty())
}

pub fn condition<'a>(pod: &'a Pod, type_: &str) -> Option<&'a PodCondition> {
    pod.status.as_ref()?.conditions.iter().flatten().find(|condition| condition.type_ == type_)
}

pub fn is_ready(pod: &Pod) -> bool {
    pod.status.as_ref().is_some_and(says_ready)
}

/// Whether a pod of this status is ready.
pub fn says_ready(status: &PodStatus) -> bool {
    let mut conditions = status.conditions.iter().flatten();
    conditions.any(|condition| condition.type_ == "Ready" && condition.status == "True")
}

/// Whether the pod went because of its node or another disruption, and not because of what it ran.
pub fn is_lost(pod: &Pod) -> bool {
    condition(pod, DISRUPTION_TARGET).is_some_and(|disrupted| disrupted.status == "True")
        || pod.status.as_ref().and_then(|status| status.reason.as_deref()) == Some(NODE_LOST)
}

/// The uid of the pod's controller.
pub fn controller_uid(pod: &Pod) -> Option<String> {
    owners::controller_of(&pod.metadata).map(|owner| owner.uid.clone())
}

/// Whether a pod serves, and has for long enough.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Availability {
    Available,
    /// Ready, but not yet for `minReadySeconds`.
    In(Duration),
    NotReady,
}

pub fn availability(pod: &Pod, min_ready_seconds: i32, now: &Time) -> Availability {
    let Some(ready) = condition(pod, "Ready").filter(|ready| ready.status == "True") else {
        return Availability::NotReady;
    };
    let since = ready.last_transition_time.as_ref();
    let left = since.and_then(|since| remaining(now, since, seconds(min_ready_seconds.into())));
    left.map_or(Availability::Available, Availability::In)
}

/// A pod from a template, owned by `owner`, under a name that is free in the store.
pub fn from_template<O>(
    store: &Store,
    owner: &Loaded<O>,
    template: &PodTemplateSpec,
    base: &str,
    ordinal: u64,
    now: &Time,
) -> Pod
where
    O: Metadata<Ty = ObjectMeta>,
{
    let revision = store.revision();
    let uid = owner.object.uid();
    let origin = Origin { owner_uid: uid, purpose: "pod", ordinal, revision };
    // A suffix may be taken by chance: the purpose is varied until one is not. Twice in a row is one in 10^14.
    let purposes = ["pod", "pod again", "pod once more"];
    let names = purposes.map(|purpose| Origin { purpose, ..origin }.name(base));
    let free =
        |name: &&String| store.get(&Key::of::<Pod>(owner.key.namespace.clone(), (*name).clone())).is_none();
    let name = names.iter().find(free).unwrap_or(&names[0]).clone();
    let metadata = template.metadata.clone().unwrap_or_default();
    let spec = template.spec.clone().unwrap_or_default();
    Pod {
        metadata: ObjectMeta {
            name: Some(name),
            generate_name: Some(format!("{base}-")),
            namespace: Some(owner.key.namespace.clone()),
            uid: Some(origin.uid()),
            creation_timestamp: Some(now.clone()),
            generation: Some(1),
            owner_references: Some(vec![owners::controller_reference(&**owner)]),
            labels: metadata.labels,
            annotations: metadata.annotations,
            finalizers: metadata.finalizers,
            ..ObjectMeta::default()
        },
        spec: Some(spec),
        status: Some(PodStatus { phase: Some("Pending".into()), ..PodStatus::default() }),
    }
}

/// <https://kubernetes.io/docs/concepts/workloads/pods/pod-qos/>
pub fn qos_class(spec: &PodSpec) -> &'static str {
    let containers = || spec.containers.iter().chain(spec.init_containers.iter().flatten());
    let empty = |container: &Container| {
        container.resources.as_ref().is_none_or(|resources| {
            resources.requests.as_ref().is_none_or(|map| map.is_empty())
                && resources.limits.as_ref().is_none_or(|map| map.is_empty())
        })
    };
    let guaranteed = |container: &Container| {
        container.resources.as_ref().is_some_and(|resources| {
            ["cpu", "memory"].iter().all(|name| {
                let limit = resources.limits.as_ref().and_then(|limits| limits.get(*name));
                let request = resources.requests.as_ref().and_then(|requests| requests.get(*name));
                limit.is_some() && (request.is_none() || request == limit)
            })
        })
    };
    match () {
        () if containers().all(empty) => "BestEffort",
        () if containers().all(guaranteed) => "Guaranteed",
        () => "Burstable",
    }
}
