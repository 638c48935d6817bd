//! Which lists are merged element by element, and by which key: the `patchStrategy` and `patchMergeKey` of
//! Kubernetes' API types.

use crate::api::kinds::Kind;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ListRule {
    /// Replaced as a whole.
    Atomic,
    /// A set of plain values.
    Set,
    /// Objects, told apart by this field.
    ByKey(&'static str),
}

/// The rule of the list `field` in an object that stands at `path` (names of fields, without list positions).
pub(super) fn rule(kind: &Kind, path: &[&str], field: &str) -> ListRule {
    use ListRule::{Atomic, ByKey, Set};
    let parent = path.last().copied().unwrap_or_default();
    let in_container = matches!(parent, "containers" | "initContainers" | "ephemeralContainers");
    match field {
        "containers"
        | "initContainers"
        | "ephemeralContainers"
        | "volumes"
        | "imagePullSecrets"
        | "resourceClaims"
        | "schedulingGates" => ByKey("name"),
        "env" if in_container => ByKey("name"),
        "ports" if in_container => ByKey("containerPort"),
        "ports" if kind.is("", "Service") => ByKey("port"),
        "volumeMounts" if in_container => ByKey("mountPath"),
        "volumeDevices" if in_container => ByKey("devicePath"),
        "hostAliases" => ByKey("ip"),
        "topologySpreadConstraints" => ByKey("topologyKey"),
        "secrets" if kind.is("", "ServiceAccount") => ByKey("name"),
        "ownerReferences" if parent == "metadata" => ByKey("uid"),
        "finalizers" if parent == "metadata" => Set,
        "conditions" if parent == "status" => ByKey("type"),
        "addresses" if parent == "status" => ByKey("type"),
        "podIPs" | "hostIPs" if parent == "status" => ByKey("ip"),
        "podCIDRs" => Set,
        _ => Atomic,
    }
}
