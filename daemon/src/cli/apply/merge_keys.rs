//! Which lists of Kubernetes' own kinds are keyed: the strategic-merge keys of its API types.

/// How the server merges a list.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ListKind {
    /// Elements are known by this field.
    Keyed(&'static str),
    /// A set of plain values.
    Set,
    /// One value: replaced as a whole.
    Atomic,
}

/// How the list under `field` is merged; `parent` is the field that holds the object (or the list of objects)
/// that `field` belongs to. From the `patchMergeKey` tags of k8s.io/api.
pub fn list_kind(parent: &str, field: &str) -> ListKind {
    match (parent, field) {
        (_, "containers" | "initContainers" | "ephemeralContainers") => ListKind::Keyed("name"),
        ("containers" | "initContainers" | "ephemeralContainers", "ports") => {
            ListKind::Keyed("containerPort")
        }
        ("containers" | "initContainers" | "ephemeralContainers", "env") => ListKind::Keyed("name"),
        (_, "volumeMounts") => ListKind::Keyed("mountPath"),
        (_, "volumeDevices") => ListKind::Keyed("devicePath"),
        ("spec", "volumes" | "imagePullSecrets" | "resourceClaims" | "schedulingGates") => {
            ListKind::Keyed("name")
        }
        ("spec", "hostAliases") => ListKind::Keyed("ip"),
        ("spec", "topologySpreadConstraints") => ListKind::Keyed("topologyKey"),
        // Only a Service has ports directly in its spec.
        ("spec", "ports") => ListKind::Keyed("port"),
        ("", "secrets" | "imagePullSecrets") => ListKind::Keyed("name"),
        ("", "webhooks") => ListKind::Keyed("name"),
        ("metadata", "ownerReferences") => ListKind::Keyed("uid"),
        ("metadata", "finalizers") => ListKind::Set,
        _ => ListKind::Atomic,
    }
}

/// Objects of which only the given fields may stay, because they are alternatives to each other.
pub fn retains_keys(parent: &str, field: &str) -> bool {
    matches!((parent, field), ("spec", "strategy" | "volumes"))
}
