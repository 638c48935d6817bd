//! From a pod to what the engine is asked to create: pure, with the store for references.
//!
//! It must never know the engine's API, or do anything: what cannot be built is an error in Kubernetes' words.

mod account;
mod container;
mod env;
mod ephemeral;
mod quantity;
mod resources;
mod sandbox;
mod volumes;

pub use account::{ApiPlace, TokenWish};
pub use container::{MessageFile, container};
pub use ephemeral::{all_containers, as_container, find_container, is_ephemeral, process_target};
pub use resources::qos_class;
pub use sandbox::sandbox;
pub use volumes::{Content, File, Filling, Source, Volume, is_volume_of, present_volumes, volumes};

use super::identity::Owner;
use gaggle_sched::state::Store;
use k8s_openapi::api::core::v1::{Container, Pod, PodSpec};
use std::net::IpAddr;
use std::path::Path;

/// Something that a pod names is missing or cannot be; it is looked at again when the store changes.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SpecError {
    #[error("{kind} \"{name}\" not found")]
    Missing { kind: &'static str, name: String },
    #[error("couldn't find key {key} in {kind} {namespace}/{name}")]
    MissingKey { kind: &'static str, namespace: String, name: String, key: String },
    #[error("{0}")]
    Invalid(String),
}

/// What this desktop is: for fields that name it, and for its limits.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Desktop {
    pub host_ips: Vec<String>,
    pub cpus: u32,
    pub memory_bytes: u64,
    /// Nameservers for pods with the ClusterFirst policy; empty: the engine's own.
    pub dns: Vec<String>,
    pub dns_search: Vec<String>,
    /// This desktop as containers with a network of their own reach it.
    pub gateway: Option<IpAddr>,
    /// `None`: pods are told of no API.
    pub api: Option<ApiPlace>,
}

/// What a pod's containers are built from.
#[derive(Clone, Copy)]
pub struct Context<'a> {
    pub pod: &'a Pod,
    pub store: &'a Store,
    pub owner: &'a Owner,
    pub desktop: &'a Desktop,
    pub pod_ips: &'a [String],
    /// Where this pod's files are kept.
    pub dir: &'a Path,
}

impl<'a> Context<'a> {
    pub fn spec(&self) -> Result<&'a PodSpec, SpecError> {
        self.pod.spec.as_ref().ok_or_else(|| SpecError::Invalid("the pod has no spec".to_owned()))
    }

    pub fn namespace(&self) -> &'a str {
        self.pod.metadata.namespace.as_deref().unwrap_or_default()
    }
}

/// Whether an init container goes on running beside the others.
pub fn is_sidecar(container: &Container) -> bool {
    container.restart_policy.as_deref() == Some("Always")
}

#[cfg(test)]
mod tests;
