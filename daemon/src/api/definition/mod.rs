//! Kinds that people define: from a CustomResourceDefinition to what the API does with its objects.
//!
//! Pure. Whether names are accepted and a definition is established is for the leader to say
//! (`gaggle_sched::controller::definition`); here only what is established becomes kinds. Objects are kept like any other
//! intent, whether their definition is known or not: it is asked only when somebody reads or writes them.

pub mod check;
mod columns;
pub mod fill;
mod format;
mod pattern;
pub mod structure;
#[cfg(test)]
mod tests;

use super::kinds::{Keeping, Kind, Names, Scope, Subresource};
use super::scale::Paths;
use super::schema::{Model, Node};
use super::validate::Problems;
use super::value::{child, flag, is_set, items, remove, set, text};
use columns::Column;
use gaggle_sched::controller::definition::is_own_group;
use gaggle_sched::controller::definition::{RULES, has_rules};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use k8s_openapi::jiff::Timestamp;
use serde::Deserialize;
use serde_json::Value;
use std::borrow::Cow;
use structure::Schema;

/// Definitions that are served. More of them, made where nobody counted, are passed over, the newest first.
pub const DEFINITIONS: usize = 512;
/// What all definitions may take together, as text: every desktop keeps them read, at several times that size.
const DEFINITIONS_BYTES: usize = 64 << 20;

/// Whether there is room for a definition beside the others.
///
/// # Errors
/// What there is too much of.
pub fn fits<'a>(definition: &Value, others: impl Iterator<Item = &'a Value>) -> Result<(), String> {
    let (count, bytes) = others.fold((1, definition.to_string().len()), |(count, bytes), other| {
        (count + 1, bytes + other.to_string().len())
    });
    if count > DEFINITIONS {
        return Err(format!("there are {DEFINITIONS} definitions already, which is as many as are served"));
    }
    if bytes > DEFINITIONS_BYTES {
        let limit = DEFINITIONS_BYTES >> 20;
        return Err(format!(
            "all definitions together may take {limit} MiB, and would take {} MiB",
            bytes >> 20
        ));
    }
    Ok(())
}

/// What a definition says of one version of its kind.
pub struct Version {
    schema: Schema,
    model: Model,
    columns: Vec<Column>,
    scale: Option<Paths>,
    has_status: bool,
    is_terminating: bool,
    /// The version, with its group, in which objects are stored.
    storage: String,
    /// What clients are told of a version that goes out of use.
    deprecation: Option<String>,
    /// The schema as it was written.
    published: Value,
}

/// The kinds that a definition makes, one for each version that is served; none before it is established.
pub fn kinds_of(definition: &Value) -> Vec<Kind> {
    let is_true = |condition: &&Value| text(condition, "/status") == "True";
    let conditions = items(definition, "/status/conditions").iter().filter(is_true);
    let is_established = conditions.into_iter().any(|condition| text(condition, "/type") == "Established");
    if !is_established || is_own_group(text(definition, "/spec/group")) {
        return Vec::new();
    }
    let versions = items(definition, "/spec/versions");
    let storage = versions.iter().find(|version| flag(version, "/storage"));
    let group = text(definition, "/spec/group");
    let storage = format!("{group}/{}", storage.map(|version| text(version, "/name")).unwrap_or_default());
    let served = versions.iter().filter(|version| flag(version, "/served"));
    served.map(|version| kind_of(definition, version, &storage)).collect()
}

fn kind_of(definition: &Value, version: &Value, storage: &str) -> Kind {
    let names = &definition["status"]["acceptedNames"];
    let list =
        |pointer: &str| items(names, pointer).iter().filter_map(Value::as_str).map(str::to_owned).collect();
    let (group, name) = (text(definition, "/spec/group"), text(version, "/name"));
    let published = version.pointer("/schema/openAPIV3Schema").cloned().unwrap_or_default();
    // It was checked when it was written; what another version's daemon let through is taken as far as it goes.
    let schema = structure::read(&published, "", &mut Problems::default());
    let pointer = |path: &str| text(version, path).replace('.', "/");
    let has_status = is_set(version, "/subresources/status");
    let has_scale = is_set(version, "/subresources/scale");
    let scale = has_scale.then(|| Paths {
        replicas: pointer("/subresources/scale/specReplicasPath"),
        seen: pointer("/subresources/scale/statusReplicasPath"),
        selector: Some(pointer("/subresources/scale/labelSelectorPath")).filter(|path| !path.is_empty()),
    });
    let kind = text(names, "/kind");
    let deprecation = flag(version, "/deprecated").then(|| match text(version, "/deprecationWarning") {
        "" => format!("{group}/{name} {kind} is deprecated"),
        given => given.to_owned(),
    });
    let columns = columns::of(version);
    let subresources = [(has_status, Subresource::Status), (has_scale, Subresource::Scale)];
    let fields = items(version, "/selectableFields").iter().map(|field| text(field, "/jsonPath"));
    Kind::of_definition(
        Names {
            group: group.into(),
            version: name.into(),
            kind: kind.into(),
            list: text(names, "/listKind").into(),
            plural: text(names, "/plural").into(),
            singular: text(names, "/singular").into(),
            short_names: list("/shortNames"),
            categories: list("/categories"),
            scope: match text(definition, "/spec/scope") {
                "Cluster" => Scope::Cluster,
                _ => Scope::Namespaced,
            },
            keeping: Keeping::Intent,
            subresources: subresources
                .iter()
                .filter(|(is_served, _)| *is_served)
                .map(|(_, one)| *one)
                .collect(),
            fields: fields.map(|path| path.trim_start_matches('.').to_owned()).collect(),
            columns: columns::definitions(&columns),
        },
        Version {
            model: Model::of_defined(&schema),
            schema,
            columns,
            scale,
            has_status,
            is_terminating: is_set(definition, "/metadata/deletionTimestamp"),
            storage: storage.to_owned(),
            deprecation,
            published,
        },
    )
}

impl Version {
    pub fn node(&self) -> Option<Node<'_>> {
        self.model.defined()
    }

    /// The schema as it was written.
    pub fn published(&self) -> &Value {
        &self.published
    }

    pub fn scale(&self) -> Option<&Paths> {
        self.scale.as_ref()
    }

    pub fn is_terminating(&self) -> bool {
        self.is_terminating
    }

    /// The cells of one table row.
    pub fn cells(&self, object: &Value, now: Timestamp) -> Vec<Value> {
        let name = text(object, "/metadata/name").into();
        std::iter::once(name).chain(self.columns.iter().map(|column| column.cell(object, now))).collect()
    }

    pub fn begin(&self, object: &mut Value) {
        if self.has_status {
            remove(object, "status");
        }
    }

    pub fn default(&self, object: &mut Value) {
        fill::fill(&self.schema, object);
    }

    pub fn validate(&self, object: &Value, before: Option<&Value>, problems: &mut Problems) {
        check::check(&self.schema, object, before, "", problems);
    }

    /// Metadata is the same for every kind; the rest is checked when it is complete.
    pub fn decode(&self, object: &Value) -> Result<Value, String> {
        let mut decoded = object.clone();
        if let Some(metadata) = object.get("metadata") {
            let typed = ObjectMeta::deserialize(metadata).map_err(|error| error.to_string())?;
            let metadata = serde_json::to_value(typed).map_err(|error| error.to_string())?;
            set(&mut decoded, "metadata", metadata);
        }
        Ok(decoded)
    }

    /// A stored object in this version: versions are told apart by their schemas alone (conversion strategy None).
    pub fn shown<'a>(&self, kind: &Kind, object: &'a Value) -> Cow<'a, Value> {
        let mut shown = object.clone();
        set(&mut shown, "apiVersion", kind.api_version());
        if let Some(of) = self.node() {
            super::strict::drop_unknown(&mut shown, of);
        }
        self.default(&mut shown);
        match shown == *object {
            true => Cow::Borrowed(object),
            false => Cow::Owned(shown),
        }
    }

    pub fn stored(&self, mut object: Value) -> Value {
        set(&mut object, "apiVersion", self.storage.as_str());
        object
    }

    /// What clients should be told whenever they use the version.
    pub fn warnings(&self) -> Vec<String> {
        self.deprecation.iter().cloned().collect()
    }
}

/// What whoever writes a definition should be told.
pub fn warnings(definition: &Value) -> Vec<String> {
    let versions = items(definition, "/spec/versions").iter().enumerate();
    let with_rules = versions.filter(|(_, version)| has_rules(version));
    with_rules
        .map(|(i, _)| {
            format!(
                "spec.versions[{i}].schema: {} are kept, but not evaluated here: objects that break them are accepted",
                RULES
            )
        })
        .collect()
}

/// Adds what every object of a kind has to the schema that its definer wrote.
pub fn with_identity(mut schema: Value, metadata: Value) -> Value {
    let properties = child(&mut schema, "properties");
    for (name, description) in [
        ("apiVersion", "The version of the schema of this object, with its group."),
        ("kind", "The kind of this object, in CamelCase."),
    ] {
        set(properties, name, serde_json::json!({"type": "string", "description": description}));
    }
    set(properties, "metadata", metadata);
    schema
}
