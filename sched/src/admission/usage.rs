//! What one object takes of a namespace's quota
//! (<https://kubernetes.io/docs/concepts/policy/resource-quotas/>).

use super::amount::{Amount, Amounts, add, amounts, at_least, of_container};
use crate::controller::pods;
use k8s_openapi::api::core::v1::{Container, Pod, PodSpec};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use serde_json::Value;

/// Resources that have counted under their own name since before all could be counted.
const PLAIN: [&str; 7] = [
    "configmaps",
    "persistentvolumeclaims",
    "pods",
    "replicationcontrollers",
    "resourcequotas",
    "secrets",
    "services",
];
/// Between the name of a storage class and what of it is bounded.
pub(super) const OF_CLASS: &str = ".storageclass.storage.k8s.io/";
/// Where a claim told its class before there was a field for it.
const CLASS_ANNOTATION: &str = "volume.beta.kubernetes.io/storage-class";
/// Resources of pods that count under a short name, too.
const SHORT: [&str; 3] = ["cpu", "memory", "ephemeral-storage"];

/// What counts of an object of any kind but pods; `resource` as the store names it.
pub(super) fn of_object(resource: &str, value: &Value) -> Amounts {
    let one = Amount::count(1);
    let mut used = Amounts::from([(format!("count/{resource}"), one)]);
    if PLAIN.contains(&resource) {
        used.insert(resource.to_owned(), one);
    }
    match resource {
        "services" => {
            let kind = value.pointer("/spec/type").and_then(Value::as_str).unwrap_or_default();
            if matches!(kind, "NodePort" | "LoadBalancer") {
                let ports = value.pointer("/spec/ports").and_then(Value::as_array).map_or(0, Vec::len);
                used.insert("services.nodeports".into(), Amount::count(ports));
            }
            if kind == "LoadBalancer" {
                used.insert("services.loadbalancers".into(), one);
            }
        }
        "persistentvolumeclaims" => {
            let asked = value.pointer("/spec/resources/requests/storage").and_then(Value::as_str);
            let asked = asked.map(|text| Amount::of(&Quantity(text.to_owned())));
            used.extend(asked.map(|asked| ("requests.storage".to_owned(), asked)));
            if let Some(class) = storage_class(value) {
                used.insert(format!("{class}{OF_CLASS}persistentvolumeclaims"), one);
                used.extend(asked.map(|asked| (format!("{class}{OF_CLASS}requests.storage"), asked)));
            }
        }
        _ => {}
    }
    used
}

/// The class that a claim asks for.
fn storage_class(claim: &Value) -> Option<&str> {
    let annotations = claim.pointer("/metadata/annotations");
    let annotated = annotations.and_then(|annotations| annotations.get(CLASS_ANNOTATION)?.as_str());
    let class = annotated.or_else(|| claim.pointer("/spec/storageClassName").and_then(Value::as_str));
    class.filter(|class| !class.is_empty())
}

/// What a change of an object takes beyond what the object took before.
pub(super) fn of_growth(resource: &str, before: &Value, after: &Value) -> Amounts {
    let before = of_object(resource, before);
    let mut used = of_object(resource, after);
    for (name, amount) in &mut used {
        *amount = amount.minus(before.get(name));
    }
    used.retain(|_, amount| amount.millis > 0);
    used
}

/// What counts of a pod; one that has ended takes only its place in the list.
pub(super) fn of_pod(pod: &Pod) -> Amounts {
    let one = Amount::count(1);
    let mut used = Amounts::from([("count/pods".to_owned(), one)]);
    let Some(spec) = pod.spec.as_ref().filter(|_| !pods::is_finished(pod)) else { return used };
    used.insert("pods".into(), one);
    let (mut requests, limits) = of_containers(spec);
    add(&mut requests, &amounts(spec.overhead.as_ref()));
    for (name, amount) in requests {
        if SHORT.contains(&name.as_str()) {
            used.insert(name.clone(), amount);
        }
        used.insert(format!("requests.{name}"), amount);
    }
    used.extend(limits.into_iter().map(|(name, amount)| (format!("limits.{name}"), amount)));
    used
}

/// Requests and limits of a pod's containers: the sum over what runs together, and at least what each init container needs beside
/// the sidecars that were started before it.
pub(super) fn of_containers(spec: &PodSpec) -> (Amounts, Amounts) {
    let both = |container: &Container| of_container(container.resources.as_ref());
    let (mut requests, mut limits) = (Amounts::new(), Amounts::new());
    for (request, limit) in spec.containers.iter().map(both) {
        add(&mut requests, &request);
        add(&mut limits, &limit);
    }
    let mut sidecars = (Amounts::new(), Amounts::new());
    let mut peak = (Amounts::new(), Amounts::new());
    for container in spec.init_containers.iter().flatten() {
        let own = both(container);
        let mut beside = sidecars.clone();
        add(&mut beside.0, &own.0);
        add(&mut beside.1, &own.1);
        at_least(&mut peak.0, &beside.0);
        at_least(&mut peak.1, &beside.1);
        if container.restart_policy.as_deref() == Some("Always") {
            sidecars = beside;
        }
    }
    add(&mut requests, &sidecars.0);
    add(&mut limits, &sidecars.1);
    at_least(&mut requests, &peak.0);
    at_least(&mut limits, &peak.1);
    (requests, limits)
}
