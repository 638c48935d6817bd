//! Which lists are keyed, and which maps are free-form. Pure tables; knows nothing of documents.
//!
//! Source of the table: the `patchMergeKey` and `x-kubernetes-list-map-keys` of the core, apps and batch APIs
//! (Kubernetes API conventions, "Merge Strategy" and "Server-Side Apply"), and Argo's lists of named things.

/// One field of a list's merge key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KeyField {
    pub name: &'static str,
    /// What the field means where it is not written.
    pub default: Option<&'static str>,
}

const fn field(name: &'static str) -> KeyField {
    KeyField { name, default: None }
}

/// How an object's parts merge. Every node must answer alike, so an implementation is pure and only ever grows.
pub trait Schema: Send + Sync + 'static {
    /// The fields that tell the items of the list at `path` apart; `None` keeps the list as one value.
    /// `path` is from the object's root, with `*` for a list's item: `["spec", "containers", "*", "env"]`.
    fn merge_key(&self, path: &[&str]) -> Option<&'static [KeyField]>;

    /// Whether the map at `path` has names that people choose (labels, data), so that a name added on one side
    /// outlives the removal of the whole map on the other. Elsewhere the removal of a map takes concurrent edits
    /// inside it along, since half of a `rollingUpdate` or of a container is worse than none.
    fn open_map(&self, path: &[&str]) -> bool;
}

/// The lists and maps of the core, apps, batch and Argo types, by how their path ends.
#[derive(Clone, Copy, Debug, Default)]
pub struct KubernetesLists;

const NAME: &[KeyField] = &[field("name")];
const PROTOCOL: KeyField = KeyField { name: "protocol", default: Some("TCP") };

const LISTS: &[(&str, &[KeyField])] = &[
    ("artifacts", NAME),
    ("conditions", &[field("type")]),
    ("containers", NAME),
    ("env", NAME),
    ("ephemeralContainers", NAME),
    ("hostAliases", &[field("ip")]),
    ("imagePullSecrets", NAME),
    ("initContainers", NAME),
    ("ownerReferences", &[field("uid")]),
    ("parameters", NAME),
    ("resourceClaims", NAME),
    ("secrets", NAME),
    ("sysctls", NAME),
    ("taints", &[field("key"), KeyField { name: "effect", default: Some("") }]),
    ("templates", NAME),
    ("topologySpreadConstraints", &[field("topologyKey"), field("whenUnsatisfiable")]),
    ("volumeClaimTemplates", &[field("metadata.name")]),
    ("volumeDevices", &[field("devicePath")]),
    ("volumeMounts", &[field("mountPath")]),
    ("volumes", NAME),
];

const CONTAINER_PORTS: &[KeyField] = &[field("containerPort"), PROTOCOL];
const SERVICE_PORTS: &[KeyField] = &[field("port"), PROTOCOL];

const OPEN_MAPS: &[&str] = &[
    "annotations",
    "binaryData",
    "data",
    "labels",
    "limits",
    "matchLabels",
    "nodeSelector",
    "requests",
    "stringData",
];

impl Schema for KubernetesLists {
    fn merge_key(&self, path: &[&str]) -> Option<&'static [KeyField]> {
        match path {
            [.., list, "*", "ports"] if list.ends_with("ontainers") => Some(CONTAINER_PORTS),
            [.., "ports"] => Some(SERVICE_PORTS),
            [.., last] => LISTS.iter().find(|(name, _)| name == last).map(|(_, key)| *key),
            [] => None,
        }
    }

    fn open_map(&self, path: &[&str]) -> bool {
        path.last().is_some_and(|last| OPEN_MAPS.contains(last))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ports_are_told_apart_by_where_they_are() {
        let schema = KubernetesLists;
        let names = |path: &[&str]| schema.merge_key(path).map(|key| key[0].name);
        assert_eq!(names(&["spec", "template", "spec", "containers", "*", "ports"]), Some("containerPort"));
        assert_eq!(names(&["spec", "initContainers", "*", "ports"]), Some("containerPort"));
        assert_eq!(names(&["spec", "ports"]), Some("port"));
        assert_eq!(names(&["spec", "tolerations"]), None);
        assert_eq!(names(&["spec", "containers", "*", "args"]), None);
        assert_eq!(names(&[]), None);
    }
}
