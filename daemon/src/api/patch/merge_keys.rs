//! Which lists are merged element by element, and by which key: the `patchStrategy` and `patchMergeKey` of
//! Kubernetes' API types. The server merges by it, and `gaggle apply` makes its patches by it.

/// How a list is merged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ListRule {
    /// Replaced as a whole.
    Atomic,
    /// A set of plain values.
    Set,
    /// Objects, told apart by this field.
    ByKey(&'static str),
}

/// The rule of the list `field` in an object that stands under `parent`: the field that holds the object or the
/// list that it is an element of; empty for the whole object.
pub fn rule(parent: &str, field: &str) -> ListRule {
    use ListRule::{Atomic, ByKey, Set};
    let in_container = matches!(parent, "containers" | "initContainers" | "ephemeralContainers");
    match field {
        "containers" | "initContainers" | "ephemeralContainers" => ByKey("name"),
        "volumes" | "imagePullSecrets" | "resourceClaims" | "schedulingGates" if parent == "spec" => {
            ByKey("name")
        }
        "hostAliases" if parent == "spec" => ByKey("ip"),
        "topologySpreadConstraints" if parent == "spec" => ByKey("topologyKey"),
        "env" if in_container => ByKey("name"),
        "ports" if in_container => ByKey("containerPort"),
        // Only a Service has ports directly in its spec.
        "ports" if parent == "spec" => ByKey("port"),
        "volumeMounts" if in_container => ByKey("mountPath"),
        "volumeDevices" if in_container => ByKey("devicePath"),
        // Of a ServiceAccount, and of the configurations of webhooks.
        "secrets" | "imagePullSecrets" | "webhooks" if parent.is_empty() => ByKey("name"),
        "ownerReferences" if parent == "metadata" => ByKey("uid"),
        "finalizers" if parent == "metadata" => Set,
        "conditions" | "addresses" if parent == "status" => ByKey("type"),
        "podIPs" | "hostIPs" if parent == "status" => ByKey("ip"),
        "podCIDRs" if parent == "spec" => Set,
        _ => Atomic,
    }
}

/// Whether the object `field`, or each element of the list `field`, holds alternatives to each other, of which
/// only those that are given may stay.
pub fn retains_keys(parent: &str, field: &str) -> bool {
    matches!((parent, field), ("spec", "strategy" | "volumes"))
}
