//! One kind as the handlers see it, wherever it comes from.

use super::{Entry, Keeping, Older, Scope, Subresource, extensions, group_version};
use crate::api::definition;
use crate::api::schema::{self, Node};
use crate::api::table::Column;
use crate::api::validate::{self, Problems};
use gaggle_sched::state::{Key, Resource};
use k8s_openapi::jiff::Timestamp;
use k8s_openapi::schemars::SchemaGenerator;
use serde_json::Value;
use std::borrow::Cow;
use std::ops::Deref;

/// What a kind is called, and where and in which parts its objects are had.
pub struct Names {
    /// Empty for the core group.
    pub group: String,
    pub version: String,
    pub kind: String,
    /// The kind of a list of its objects.
    pub list: String,
    pub plural: String,
    pub singular: String,
    pub short_names: Vec<String>,
    pub categories: Vec<String>,
    pub scope: Scope,
    pub keeping: Keeping,
    pub subresources: Vec<Subresource>,
    /// Fields, beside name and namespace, that field selectors may name.
    pub fields: Vec<String>,
    /// A table's columns, as `columnDefinitions` holds them.
    pub columns: Vec<Value>,
}

/// One kind of object in one version.
pub struct Kind {
    names: Names,
    of: Of,
}

impl Deref for Kind {
    type Target = Names;

    fn deref(&self) -> &Names {
        &self.names
    }
}

/// Who says what a kind's objects are.
enum Of {
    Entry(&'static Entry),
    Older(&'static Older),
    Definition(Box<definition::Version>),
}

impl Kind {
    pub(super) fn of_entry(entry: &'static Entry) -> Self {
        Self { names: Self::names_of(entry), of: Of::Entry(entry) }
    }

    pub(super) fn of_older(older: &'static Older) -> Self {
        Self { names: Self::names_of(&older.entry), of: Of::Older(older) }
    }

    fn names_of(entry: &Entry) -> Names {
        let owned = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect();
        Names {
            group: entry.group.into(),
            version: entry.version.into(),
            kind: entry.kind.into(),
            list: format!("{}List", entry.kind),
            plural: entry.plural.into(),
            singular: entry.singular.into(),
            short_names: owned(entry.short_names),
            categories: owned(entry.categories),
            scope: entry.scope,
            keeping: entry.keeping,
            subresources: entry.subresources.to_vec(),
            fields: owned(entry.fields),
            columns: entry.columns.iter().map(Column::definition).collect(),
        }
    }

    pub fn of_definition(names: Names, version: definition::Version) -> Self {
        Self { names, of: Of::Definition(Box::new(version)) }
    }

    /// `deployments.apps`, as errors name it; also the store's resource.
    pub fn qualified(&self) -> String {
        self.resource().to_string()
    }

    pub fn resource(&self) -> Resource {
        Resource::new(&self.group, &self.plural)
    }

    pub fn key(&self, namespace: &str, name: &str) -> Key {
        Key::new(self.resource(), namespace, name)
    }

    /// `v1` or `apps/v1`.
    pub fn api_version(&self) -> String {
        group_version(&self.group, &self.version)
    }

    pub fn is_namespaced(&self) -> bool {
        self.scope == Scope::Namespaced
    }

    pub fn has(&self, subresource: Subresource) -> bool {
        self.subresources.contains(&subresource)
    }

    pub fn is(&self, group: &str, kind: &str) -> bool {
        self.group == group && self.kind == kind
    }

    /// What somebody's definition says of the kind; `None` for those of the table.
    pub fn definition(&self) -> Option<&definition::Version> {
        match &self.of {
            Of::Entry(_) | Of::Older(_) => None,
            Of::Definition(version) => Some(version.as_ref()),
        }
    }

    /// The table's entry, or whose definition it is.
    fn by(&self) -> Result<&'static Entry, &definition::Version> {
        match &self.of {
            Of::Entry(entry) => Ok(*entry),
            Of::Older(older) => Ok(&older.entry),
            Of::Definition(version) => Err(version),
        }
    }

    /// Whether objects have a `metadata.generation`.
    pub fn counts_generations(&self) -> bool {
        let has_controller = !self.group.is_empty() || self.kind == "ReplicationController";
        self.definition().is_some() || (has_controller && self.has(Subresource::Status))
    }

    /// Whether a change is one that `metadata.generation` counts.
    pub fn is_new_generation(&self, before: &Value, after: &Value) -> bool {
        if !self.counts_generations() {
            return false;
        }
        if self.definition().is_none() {
            return before.get("spec") != after.get("spec");
        }
        // Whatever its definer called it is what is wished for.
        let beside = ["apiVersion", "kind", "metadata"];
        let is_beside =
            |field: &str| beside.contains(&field) || (field == "status" && self.has(Subresource::Status));
        let fields = |object: &Value| object.as_object().cloned().unwrap_or_default();
        let (before, after) = (fields(before), fields(after));
        let mut names = before.keys().chain(after.keys()).filter(|field| !is_beside(field));
        names.any(|field| before.get(field) != after.get(field))
    }

    /// Whether a request about the whole object leaves its status as it is.
    pub fn keeps_status_apart(&self) -> bool {
        self.definition().is_none() || self.has(Subresource::Status)
    }

    /// The type of its objects.
    pub fn node(&self) -> Option<Node<'_>> {
        match self.by() {
            Ok(entry) => schema::of(entry.group, entry.version, entry.kind),
            Err(version) => version.node(),
        }
    }

    /// Adds the schema of the Kubernetes type, and tells its name; `None` for a kind that people defined.
    pub fn describe(&self, generator: &mut SchemaGenerator) -> Option<String> {
        match self.by() {
            Ok(entry) => Some((entry.schema)(generator)),
            Err(_) => None,
        }
    }

    pub fn cells(&self, object: &Value, now: Timestamp) -> Vec<Value> {
        match self.by() {
            Ok(entry) => (entry.cells)(object, now),
            Err(version) => version.cells(&version.shown(self, object), now),
        }
    }

    pub fn begin(&self, object: &mut Value) {
        match self.by() {
            Ok(entry) => (entry.begin)(object),
            Err(version) => version.begin(object),
        }
    }

    pub fn default(&self, object: &mut Value) {
        match self.by() {
            Ok(entry) => (entry.default)(object),
            Err(version) => version.default(object),
        }
    }

    /// Checks the content of an object that is to be stored; `before` is the stored one.
    pub fn validate(&self, object: &Value, before: Option<&Value>, problems: &mut Problems) {
        match self.by() {
            Ok(entry) => {
                (entry.validate)(object, problems);
                if let Some(before) = before {
                    (entry.validate_update)(object, before, problems);
                }
            }
            Err(version) => version.validate(object, before, problems),
        }
    }

    /// Whether a request about the status alone has the whole object checked, since its definer has a say in statuses.
    pub fn validates_status(&self) -> bool {
        self.definition().is_some()
    }

    pub fn check_name(&self, name: &str) -> Result<(), String> {
        match self.by() {
            Ok(entry) => (entry.name)(name),
            Err(_) => validate::subdomain(name),
        }
    }

    pub fn decode(&self, object: &Value) -> Result<Value, String> {
        match self.by() {
            Ok(entry) => (entry.decode)(object),
            Err(version) => version.decode(object),
        }
    }

    /// A stored object as this version shows it: of a kind with several versions it may have been stored in another one.
    pub fn shown<'a>(&self, object: &'a Value) -> Cow<'a, Value> {
        match &self.of {
            Of::Entry(_) => Cow::Borrowed(object),
            Of::Older(older) => Cow::Owned((older.shown)(object.clone())),
            Of::Definition(version) => version.shown(self, object),
        }
    }

    /// An object of this version as it is stored.
    pub fn stored(&self, object: Value) -> Value {
        match &self.of {
            Of::Entry(_) => object,
            Of::Older(older) => (older.stored)(object),
            Of::Definition(version) => version.stored(object),
        }
    }

    /// What clients should be told of a write of this kind.
    pub fn warnings(&self, object: &Value) -> Vec<String> {
        match self.by() {
            Err(version) => version.warnings(),
            Ok(_) if self.is(extensions::GROUP, extensions::KIND) => definition::warnings(object),
            Ok(_) => Vec::new(),
        }
    }
}
