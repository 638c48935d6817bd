//! The table of kinds: everything that is particular to one kind of object, one entry each.
//!
//! Handlers never name a kind; what differs stands here as data and small functions. To serve another kind, add
//! an entry to one of the files below.

mod access;
mod apps;
mod autoscaling;
mod batch;
mod core;
mod network;
mod policy;
mod storage;

use super::schema::{self, Describe, Node};
use super::table::Column;
use super::validate::Problems;
use gaggle_sched::state::{Key, Resource};
use k8s_openapi::jiff::Timestamp;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

/// A part of an object with a path of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Subresource {
    Status,
    Scale,
    Log,
    Eviction,
    Finalize,
    Exec,
    Attach,
    PortForward,
    EphemeralContainers,
    Token,
}

impl Subresource {
    pub fn name(self) -> &'static str {
        match self {
            Self::Status => "status",
            Self::Scale => "scale",
            Self::Log => "log",
            Self::Eviction => "eviction",
            Self::Finalize => "finalize",
            Self::Exec => "exec",
            Self::Attach => "attach",
            Self::PortForward => "portforward",
            Self::EphemeralContainers => "ephemeralcontainers",
            Self::Token => "token",
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scope {
    Namespaced,
    Cluster,
}

/// Whether what clients write of a kind is intent, kept on every desktop, or exists in the ordered state alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Keeping {
    Intent,
    Ordered,
}

/// One kind of object.
pub struct Kind {
    /// Empty for the core group.
    pub group: &'static str,
    pub version: &'static str,
    pub kind: &'static str,
    pub plural: &'static str,
    pub singular: &'static str,
    pub short_names: &'static [&'static str],
    pub categories: &'static [&'static str],
    pub scope: Scope,
    pub keeping: Keeping,
    pub subresources: &'static [Subresource],
    /// Fields, beside name and namespace, that field selectors may name.
    pub fields: &'static [&'static str],
    pub columns: &'static [Column],
    /// The cells of one table row, one for each column.
    pub cells: fn(&Value, Timestamp) -> Vec<Value>,
    /// Fills what a new object starts with (status, generated parts); its metadata is complete by then.
    pub begin: fn(&mut Value),
    /// Fills fields that were left out, as Kubernetes does when it reads an object.
    pub default: fn(&mut Value),
    pub validate: fn(&Value, &mut Problems),
    /// What an update may not change: the new object and the stored one.
    pub validate_update: fn(&Value, &Value, &mut Problems),
    /// How names of this kind are written.
    pub name: fn(&str) -> Result<(), String>,
    /// The schema of the Kubernetes type.
    pub schema: Describe,
    /// Decodes into the Kubernetes type and back: fields that the type does not have are gone afterwards.
    pub decode: fn(&Value) -> Result<Value, String>,
}

impl Kind {
    /// `deployments.apps`, as errors name it; also the store's resource.
    pub fn qualified(&self) -> String {
        self.resource().to_string()
    }

    pub fn resource(&self) -> Resource {
        Resource::new(self.group, self.plural)
    }

    pub fn key(&self, namespace: &str, name: &str) -> Key {
        Key::new(self.resource(), namespace, name)
    }

    /// `v1` or `apps/v1`.
    pub fn api_version(&self) -> String {
        group_version(self.group, self.version)
    }

    pub fn is_namespaced(&self) -> bool {
        self.scope == Scope::Namespaced
    }

    pub fn has(&self, subresource: Subresource) -> bool {
        self.subresources.contains(&subresource)
    }

    /// Whether `metadata.generation` grows with every change of `spec`.
    pub fn counts_generations(&self) -> bool {
        let has_controller = !self.group.is_empty() || self.kind == "ReplicationController";
        has_controller && self.has(Subresource::Status)
    }

    /// The type of its objects.
    pub fn node(&self) -> Option<Node<'static>> {
        schema::of(self.group, self.version, self.kind)
    }

    pub fn is(&self, group: &str, kind: &str) -> bool {
        self.group == group && self.kind == kind
    }
}

pub fn group_version(group: &str, version: &str) -> String {
    match group {
        "" => version.to_owned(),
        group => format!("{group}/{version}"),
    }
}

/// Every kind, in the order in which discovery lists them.
pub fn all() -> impl Iterator<Item = &'static Kind> {
    core::KINDS
        .iter()
        .chain(apps::KINDS)
        .chain(autoscaling::KINDS)
        .chain(batch::KINDS)
        .chain(network::KINDS)
        .chain(policy::KINDS)
        .chain(access::KINDS)
        .chain(storage::KINDS)
}

pub fn find(group: &str, version: &str, plural: &str) -> Option<&'static Kind> {
    all().find(|kind| kind.group == group && kind.version == version && kind.plural == plural)
}

/// The group-versions that are served, each once, in discovery's order.
pub fn group_versions() -> Vec<(&'static str, &'static str)> {
    let mut found = Vec::new();
    for kind in all() {
        if !found.contains(&(kind.group, kind.version)) {
            found.push((kind.group, kind.version));
        }
    }
    found
}

fn decode_as<T: Serialize + DeserializeOwned>(value: &Value) -> Result<Value, String> {
    let typed = T::deserialize(value).map_err(|error| error.to_string())?;
    serde_json::to_value(typed).map_err(|error| error.to_string())
}

fn nothing(_: &mut Value) {}

fn any_update(_: &Value, _: &Value, _: &mut Problems) {}

/// Objects whose content needs no check beyond its type.
fn any_content(_: &Value, _: &mut Problems) {}
