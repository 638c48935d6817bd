//! CustomResourceDefinitions.

use super::{Problems, label_1035, subdomain};
use crate::api::definition::structure;
use crate::api::value::{flag, is_set, items, text};
use crate::api::{kinds, metrics, reviews};
use gaggle_sched::controller::definition::is_own_group;
use serde_json::Value;
use std::collections::BTreeSet;

/// Versions of one definition; the largest known ones have a handful.
const VERSIONS: usize = 32;
const COLUMNS: usize = 64;
/// ... and of fields that selectors may name, as on a Kubernetes API server.
const SELECTABLE: usize = 8;
/// Who defines kinds in Kubernetes' own groups says with this that they were approved there.
const APPROVED: &str = "api-approved.kubernetes.io";

pub fn definition(definition: &Value, problems: &mut Problems) {
    let (group, plural) = (text(definition, "/spec/group"), text(definition, "/spec/names/plural"));
    if text(definition, "/metadata/name") != format!("{plural}.{group}") {
        let why = "must be spec.names.plural+\".\"+spec.group";
        problems.invalid("metadata.name", &text(definition, "/metadata/name").into(), why);
    }
    check_group(definition, group, problems);
    match text(definition, "/spec/scope") {
        "" => problems.required("spec.scope", ""),
        scope => problems.one_of("spec.scope", scope, &["Cluster", "Namespaced"]),
    }
    names(definition, problems);
    match text(definition, "/spec/conversion/strategy") {
        "None" => {}
        // There is no one whom the objects could be sent to, and to show them as they are would be wrong.
        other => problems.unsupported("spec.conversion.strategy", other, &["None"]),
    }
    if flag(definition, "/spec/preserveUnknownFields") {
        let why = "cannot set to true, set x-kubernetes-preserve-unknown-fields to true in spec.versions[*].schema instead";
        problems.invalid("spec.preserveUnknownFields", &true.into(), why);
    }
    versions(definition, problems);
}

fn check_group(definition: &Value, group: &str, problems: &mut Problems) {
    if group.is_empty() {
        return problems.required("spec.group", "");
    }
    problems.form("spec.group", group, subdomain);
    if !group.contains('.') {
        problems.invalid("spec.group", &group.into(), "should be a domain with at least one dot");
    }
    if is_own_group(group) {
        return problems.invalid("spec.group", &group.into(), "is gaggle's own; choose another one");
    }
    let is_served = kinds::all().any(|kind| kind.group == group)
        || reviews::ALL.iter().any(|review| review.group == group)
        || metrics::answered().any(|one| one.group == group);
    if is_served {
        let why = "is a group of Kubernetes' own that is served already; choose another one";
        return problems.invalid("spec.group", &group.into(), why);
    }
    let is_protected = ["k8s.io", "kubernetes.io"]
        .iter()
        .any(|own| group == *own || group.strip_suffix(own).is_some_and(|rest| rest.ends_with('.')));
    let approval = definition.pointer("/metadata/annotations").and_then(|all| all.get(APPROVED)?.as_str());
    if is_protected && approval.is_none_or(str::is_empty) {
        let why = format!(
            "protected groups must have approval annotation {APPROVED:?}, see https://github.com/kubernetes/enhancements/pull/1111"
        );
        problems.required(&format!("metadata.annotations[{APPROVED}]"), &why);
    }
}

fn names(definition: &Value, problems: &mut Problems) {
    let names = &definition["spec"]["names"];
    for (name, is_kind) in [("plural", false), ("singular", false), ("kind", true), ("listKind", true)] {
        let (field, value) = (format!("spec.names.{name}"), text(names, &format!("/{name}")));
        match (value, is_kind) {
            ("", _) => problems.required(&field, ""),
            // Kinds are written with capitals.
            (value, true) => problems.form(&field, value, |value| {
                label_1035(&value.to_lowercase())
                    .map_err(|why| format!("may have mixed case, but should otherwise match: {why}"))
            }),
            (value, false) => problems.form(&field, value, label_1035),
        }
    }
    for list in ["shortNames", "categories"] {
        for (i, name) in items(names, &format!("/{list}")).iter().enumerate() {
            let name = name.as_str().unwrap_or_default();
            problems.form(&format!("spec.names.{list}[{i}]"), name, label_1035);
        }
    }
    if !text(names, "/kind").is_empty() && text(names, "/kind") == text(names, "/listKind") {
        let why = "kind and listKind may not be the same";
        problems.invalid("spec.names.listKind", &names["listKind"], why);
    }
}

fn versions(definition: &Value, problems: &mut Problems) {
    let versions = items(definition, "/spec/versions");
    if versions.len() > VERSIONS {
        return problems.forbidden("spec.versions", &format!("may not have more than {VERSIONS} versions"));
    }
    let shown = Value::from(versions.iter().map(|version| text(version, "/name")).collect::<Vec<_>>());
    if versions.iter().filter(|version| flag(version, "/storage")).count() != 1 {
        problems.invalid("spec.versions", &shown, "must have exactly one version marked as storage version");
    }
    let named: BTreeSet<&str> = versions.iter().map(|version| text(version, "/name")).collect();
    if named.len() < versions.len() {
        problems.invalid("spec.versions", &shown, "must contain unique version names");
    }
    for (i, stored) in items(definition, "/status/storedVersions").iter().enumerate() {
        if !named.contains(stored.as_str().unwrap_or_default()) {
            let why = "must appear in spec.versions";
            problems.invalid(&format!("status.storedVersions[{i}]"), stored, why);
        }
    }
    for (i, version) in versions.iter().enumerate() {
        let field = format!("spec.versions[{i}]");
        problems.form(&format!("{field}.name"), text(version, "/name"), label_1035);
        if is_set(version, "/deprecationWarning") && !flag(version, "/deprecated") {
            let why = "can only be set for deprecated versions";
            problems.invalid(&format!("{field}.deprecationWarning"), &version["deprecationWarning"], why);
        }
        let schema = format!("{field}.schema.openAPIV3Schema");
        match version.pointer("/schema/openAPIV3Schema").filter(|schema| schema.is_object()) {
            None => problems.required(&schema, "schemas are required"),
            Some(json) => drop(structure::read(json, &schema, problems)),
        }
        columns(&field, version, problems);
        scale(&format!("{field}.subresources.scale"), version, problems);
        selectable(&format!("{field}.selectableFields"), version, problems);
    }
}

fn columns(field: &str, version: &Value, problems: &mut Problems) {
    let columns = items(version, "/additionalPrinterColumns");
    let field = format!("{field}.additionalPrinterColumns");
    if columns.len() > COLUMNS {
        return problems.forbidden(&field, &format!("may not have more than {COLUMNS} columns"));
    }
    for (i, column) in columns.iter().enumerate() {
        let field = format!("{field}[{i}]");
        if text(column, "/name").is_empty() {
            problems.required(&format!("{field}.name"), "");
        }
        match text(column, "/type") {
            "" => {
                let why = "must be one of boolean,date,integer,number,string";
                problems.required(&format!("{field}.type"), why);
            }
            kind => {
                let kinds = ["boolean", "date", "integer", "number", "string"];
                problems.one_of(&format!("{field}.type"), kind, &kinds);
            }
        }
        match text(column, "/jsonPath") {
            "" => problems.required(&format!("{field}.jsonPath"), ""),
            path if !path.starts_with(['.', '[', '{']) => {
                let why = "must be a simple json path starting with .";
                problems.invalid(&format!("{field}.jsonPath"), &path.into(), why);
            }
            _ => {}
        }
    }
}

fn scale(field: &str, version: &Value, problems: &mut Problems) {
    let Some(scale) = version.pointer("/subresources/scale").filter(|scale| !scale.is_null()) else { return };
    for (name, below, is_required) in [
        ("specReplicasPath", &[".spec."][..], true),
        ("statusReplicasPath", &[".status."][..], true),
        ("labelSelectorPath", &[".spec.", ".status."][..], false),
    ] {
        let (field, path) = (format!("{field}.{name}"), text(scale, &format!("/{name}")));
        if path.is_empty() {
            if is_required {
                problems.required(&field, "");
            }
            continue;
        }
        let is_simple = path.split('.').skip(1).all(|step| {
            !step.is_empty() && step.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '_'))
        });
        if !is_simple {
            problems.invalid(&field, &path.into(), "should be a simple json path without arrays");
        } else if !below.iter().any(|below| path.starts_with(below)) {
            let below: Vec<&str> = below.iter().map(|below| below.trim_end_matches('.')).collect();
            let why = format!("should be a json path under {}", below.join(" or "));
            problems.invalid(&field, &path.into(), &why);
        }
    }
}

fn selectable(field: &str, version: &Value, problems: &mut Problems) {
    let fields = items(version, "/selectableFields");
    if fields.len() > SELECTABLE {
        let message = format!("Too many: {}: must have at most {SELECTABLE} items", fields.len());
        problems.add("FieldValueTooMany", field, message);
    }
    let mut seen = BTreeSet::new();
    for (i, selectable) in fields.iter().enumerate() {
        let (field, path) = (format!("{field}[{i}].jsonPath"), text(selectable, "/jsonPath"));
        if path.is_empty() {
            problems.required(&field, "");
        } else if !path.starts_with('.') || path.contains(['[', '*', '@']) {
            problems.invalid(&field, &path.into(), "must be a simple json path of plain fields");
        } else if path.starts_with(".metadata.") {
            problems.invalid(&field, &path.into(), "must not point to fields in metadata");
        } else if !seen.insert(path) {
            problems.duplicate(&field, path);
        }
    }
}

/// What objects are stored under, and what clients have come to know.
pub fn definition_update(new: &Value, old: &Value, problems: &mut Problems) {
    for field in ["group", "names/plural"] {
        let pointer = format!("/spec/{field}");
        problems.same(
            &format!("spec.{}", field.replace('/', ".")),
            new.pointer(&pointer),
            old.pointer(&pointer),
        );
    }
    let is_established =
        |condition: &Value| text(condition, "/type") == "Established" && text(condition, "/status") == "True";
    if items(old, "/status/conditions").iter().any(is_established) {
        for field in ["scope", "names/kind"] {
            let pointer = format!("/spec/{field}");
            problems.same(
                &format!("spec.{}", field.replace('/', ".")),
                new.pointer(&pointer),
                old.pointer(&pointer),
            );
        }
    }
}
