//! Kinds of objects: everything that is particular to one.
//!
//! Handlers never name a kind; what differs stands here as data and small functions. Kinds come from two places: the
//! table, one entry each in the files below, and people's CustomResourceDefinitions ([`definition`]). What is served now
//! is the [`Catalogue`] of both. To serve another kind of Kubernetes', add an entry to the table.

mod access;
mod apps;
mod autoscaling;
mod batch;
mod catalogue;
mod core;
mod extensions;
mod kind;
mod network;
mod policy;
mod storage;
pub mod version;

pub use catalogue::{Catalogue, Kinds};
pub use kind::{Kind, Names};

use super::schema::Describe;
use super::table::Column;
use super::validate::Problems;
use k8s_openapi::jiff::Timestamp;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;
use std::sync::{Arc, LazyLock};

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

/// One kind of Kubernetes' own, as the table has it.
pub struct Entry {
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

/// Another version of a kind, whose objects are kept as another entry of the table has them.
pub struct Older {
    /// In this form; but its cells are of what is kept.
    pub entry: Entry,
    /// This form of what is kept.
    pub shown: fn(Value) -> Value,
    /// What is kept of this form.
    pub stored: fn(Value) -> Value,
}

pub fn group_version(group: &str, version: &str) -> String {
    match group {
        "" => version.to_owned(),
        group => format!("{group}/{version}"),
    }
}

static TABLE: LazyLock<Vec<Arc<Kind>>> = LazyLock::new(|| {
    let entries = core::KINDS
        .iter()
        .chain(apps::KINDS)
        .chain(autoscaling::KINDS)
        .chain(batch::KINDS)
        .chain(network::KINDS)
        .chain(policy::KINDS)
        .chain(access::KINDS)
        .chain(storage::KINDS)
        .chain(extensions::KINDS);
    // Beside the newer ones, which discovery lists first.
    let with_older = entries.flat_map(|entry| {
        let is_of = |older: &&Older| (older.entry.group, older.entry.plural) == (entry.group, entry.plural);
        std::iter::once(Kind::of_entry(entry))
            .chain(autoscaling::OLDER.iter().filter(is_of).map(Kind::of_older))
    });
    with_older.map(Arc::new).collect()
});

/// Every kind of the table, in the order in which discovery lists them.
pub fn all() -> impl Iterator<Item = &'static Arc<Kind>> {
    TABLE.iter()
}

/// A kind of the table.
pub fn find(group: &str, version: &str, plural: &str) -> Option<&'static Arc<Kind>> {
    all().find(|kind| kind.group == group && kind.version == version && kind.plural == plural)
}

/// The group-versions of kinds, each once, in discovery's order.
pub fn group_versions<'a>(kinds: impl Iterator<Item = &'a Arc<Kind>>) -> Vec<(&'a str, &'a str)> {
    let mut found = Vec::new();
    for kind in kinds {
        let of_kind = (kind.group.as_str(), kind.version.as_str());
        if !found.contains(&of_kind) {
            found.push(of_kind);
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
