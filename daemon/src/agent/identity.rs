//! Which containers are ours, and what each one is: labels and names, written and read back.
//!
//! Everything needed to find a pod's containers again after a restart of the daemon is in the labels. A
//! container without this cluster's and this desktop's label is nobody of ours and is never touched.

use super::engine::{Found, RunState};
use gaggle_sched::controller::identity::is_single;
use k8s_openapi::api::core::v1::{Container, Pod};
use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

pub const CLUSTER: &str = "gaggle.dev/cluster";
pub const NODE: &str = "gaggle.dev/node";
pub const POD_UID: &str = "gaggle.dev/pod-uid";
pub const POD_NAMESPACE: &str = "gaggle.dev/pod-namespace";
pub const POD_NAME: &str = "gaggle.dev/pod-name";
pub const CONTAINER: &str = "gaggle.dev/container";
pub const RESTART_COUNT: &str = "gaggle.dev/restart-count";
pub const SPEC_HASH: &str = "gaggle.dev/spec-hash";
pub const MESSAGE_POLICY: &str = "gaggle.dev/message-policy";
pub const VOLUMES: &str = "gaggle.dev/volumes";
/// On containers of a pod of which at most one runs in the whole flock.
pub const SINGLE: &str = "gaggle.dev/single";
/// On pods it is the annotation that a binding writes: which group's which term bound it.
pub const ATTEMPT: &str = "gaggle.dev/attempt";

/// The role of the container that holds a pod's namespaces, as container name.
const SANDBOX: &str = "POD";

/// Which binding of a pod is obeyed: the group's epoch, then the leader's term, written `epoch.term`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Attempt {
    pub epoch: u64,
    pub term: u64,
}

impl fmt::Display for Attempt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.epoch, self.term)
    }
}

impl FromStr for Attempt {
    type Err = std::num::ParseIntError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (epoch, term) = text.split_once('.').unwrap_or((text, "0"));
        Ok(Self { epoch: epoch.parse()?, term: term.parse()? })
    }
}

/// The attempt in a pod's annotation; a pod without one (made by hand for this node) is the oldest.
pub fn attempt_of(pod: &Pod) -> Attempt {
    let annotation = pod.metadata.annotations.as_ref().and_then(|annotations| annotations.get(ATTEMPT));
    annotation.and_then(|text| text.parse().ok()).unwrap_or_default()
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PodId {
    pub namespace: String,
    pub name: String,
    pub uid: String,
}

impl PodId {
    pub fn of(pod: &Pod) -> Self {
        let metadata = &pod.metadata;
        Self {
            namespace: metadata.namespace.clone().unwrap_or_default(),
            name: metadata.name.clone().unwrap_or_default(),
            uid: metadata.uid.clone().unwrap_or_default(),
        }
    }
}

/// What a container is to its pod.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Role {
    /// Holds the network and IPC namespaces.
    Sandbox,
    Container(String),
}

impl Role {
    fn from_label(label: &str) -> Self {
        if label == SANDBOX { Self::Sandbox } else { Self::Container(label.to_owned()) }
    }

    pub fn as_str(&self) -> &str {
        match self {
            Self::Sandbox => SANDBOX,
            Self::Container(name) => name,
        }
    }
}

/// One of our containers on the engine.
#[derive(Clone, Debug, PartialEq)]
pub struct Observed {
    pub id: String,
    pub pod: PodId,
    pub role: Role,
    /// 0 for the first of its role in the pod, then 1 more each.
    pub restart_count: u32,
    pub attempt: Attempt,
    /// Of the container that it was made from; empty for a sandbox.
    pub spec_hash: String,
    pub image_id: String,
    /// Memory volumes that go with a sandbox.
    pub volumes: Vec<String>,
    /// Whether the last lines of its log stand in for a missing termination message.
    pub logs_as_message: bool,
    /// Of a pod of which at most one runs in the whole flock.
    pub single: bool,
    pub state: RunState,
    pub ips: Vec<String>,
    /// What it left as termination message.
    pub message: String,
}

impl Observed {
    pub fn is_running(&self) -> bool {
        matches!(self.state, RunState::Running { .. })
    }
}

/// Whose containers are ours.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Owner {
    pub cluster: String,
    pub node: String,
}

impl Owner {
    pub fn labels(&self) -> [(String, String); 2] {
        [(CLUSTER.to_owned(), self.cluster.clone()), (NODE.to_owned(), self.node.clone())]
    }

    /// `None` if the container is not ours.
    pub fn recognise(&self, found: Found) -> Option<Observed> {
        let label = |name: &str| found.labels.get(name).cloned();
        if label(CLUSTER)? != self.cluster || label(NODE)? != self.node {
            return None;
        }
        let (pod, role) = pod_and_role(&found.labels)?;
        Some(Observed {
            pod,
            role,
            restart_count: label(RESTART_COUNT).and_then(|count| count.parse().ok()).unwrap_or_default(),
            attempt: label(ATTEMPT).and_then(|attempt| attempt.parse().ok()).unwrap_or_default(),
            spec_hash: label(SPEC_HASH).unwrap_or_default(),
            volumes: label(VOLUMES)
                .map(|list| list.split(',').map(str::to_owned).collect())
                .unwrap_or_default(),
            logs_as_message: label(MESSAGE_POLICY).is_some_and(|policy| policy == "FallbackToLogsOnError"),
            single: label(SINGLE).is_some(),
            id: found.id,
            image_id: found.image_id,
            state: found.state,
            ips: found.ips,
            message: String::new(),
        })
    }

    pub fn labels_for(&self, pod: &Pod, role: &Role, restart_count: u32) -> BTreeMap<String, String> {
        let id = PodId::of(pod);
        let mut labels: BTreeMap<String, String> = self.labels().into();
        labels.extend([
            (POD_UID.to_owned(), id.uid),
            (POD_NAMESPACE.to_owned(), id.namespace),
            (POD_NAME.to_owned(), id.name),
            (CONTAINER.to_owned(), role.as_str().to_owned()),
            (RESTART_COUNT.to_owned(), restart_count.to_string()),
            (ATTEMPT.to_owned(), attempt_of(pod).to_string()),
        ]);
        if is_single(pod) {
            labels.insert(SINGLE.to_owned(), "true".to_owned());
        }
        labels
    }
}

/// Of which pod a container with these labels is, and what it is there.
pub fn pod_and_role(labels: &BTreeMap<String, String>) -> Option<(PodId, Role)> {
    let label = |name: &str| labels.get(name).cloned();
    let pod = PodId { namespace: label(POD_NAMESPACE)?, name: label(POD_NAME)?, uid: label(POD_UID)? };
    Some((pod, Role::from_label(&label(CONTAINER)?)))
}

/// How many characters of the uid are in a container's name.
const UID_IN_NAME: usize = 8;

pub fn container_name(pod: &PodId, role: &Role, restart_count: u32) -> String {
    let uid: String = pod.uid.chars().filter(char::is_ascii_alphanumeric).take(UID_IN_NAME).collect();
    format!("gaggle_{}_{}_{}_{uid}_{restart_count}", role.as_str(), pod.name, pod.namespace)
}

/// A digest of what a running container can differ in from its pod: of a pod's containers only the image may
/// be changed, and defaults that a newer version fills in must not restart anything.
pub fn spec_hash(container: &Container) -> String {
    use sha2::{Digest, Sha256};
    let image = container.image.as_deref().unwrap_or_default();
    let digest = Sha256::digest(format!("{}\0{image}", container.name));
    digest.iter().take(8).map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn owner() -> Owner {
        Owner { cluster: "lab".into(), node: "ada".into() }
    }

    fn pod() -> Pod {
        let mut pod = Pod::default();
        pod.metadata.namespace = Some("default".into());
        pod.metadata.name = Some("web".into());
        pod.metadata.uid = Some("0123-4567-89ab".into());
        pod.metadata.annotations = Some([(ATTEMPT.to_owned(), "3.17".to_owned())].into());
        pod
    }

    fn found(labels: BTreeMap<String, String>) -> Found {
        Found { id: "c1".into(), labels, image_id: String::new(), state: RunState::Created, ips: vec![] }
    }

    #[test]
    fn a_container_is_recognised_by_its_labels() {
        let role = Role::Container("main".into());
        let observed = owner().recognise(found(owner().labels_for(&pod(), &role, 4))).unwrap();
        assert_eq!(observed.pod, PodId::of(&pod()));
        assert_eq!((observed.role, observed.restart_count), (role, 4));
        assert_eq!(observed.attempt, Attempt { epoch: 3, term: 17 });
    }

    #[test]
    fn containers_of_others_are_nobodys() {
        for (label, value) in [(CLUSTER, "another"), (NODE, "bob")] {
            let mut labels = owner().labels_for(&pod(), &Role::Sandbox, 0);
            labels.insert(label.into(), value.into());
            assert_eq!(owner().recognise(found(labels)), None, "{label}");
        }
        assert_eq!(owner().recognise(found(BTreeMap::new())), None);
    }

    #[test]
    fn newer_terms_and_epochs_are_newer() {
        let parse = |text: &str| text.parse::<Attempt>().unwrap();
        assert!(parse("1.9") < parse("1.10"));
        assert!(parse("1.10") < parse("2.1"));
    }
}
