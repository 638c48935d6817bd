//! The kinds of the groups `policy` and `scheduling.k8s.io`.

use super::{Entry, Keeping, Scope, Subresource, any_update, decode_as, nothing};
use crate::api::schema::describe;
use crate::api::value::set;
use crate::api::{defaults, table, validate};
use k8s_openapi::api::policy::v1::PodDisruptionBudget;
use k8s_openapi::api::scheduling::v1::PriorityClass;
use serde_json::Value;

pub(super) static KINDS: &[Entry] = &[
    Entry {
        group: "policy",
        version: "v1",
        kind: "PodDisruptionBudget",
        plural: "poddisruptionbudgets",
        singular: "poddisruptionbudget",
        short_names: &["pdb"],
        categories: &[],
        scope: Scope::Namespaced,
        keeping: Keeping::Intent,
        subresources: &[Subresource::Status],
        fields: &[],
        columns: table::policy::DISRUPTION_BUDGET,
        cells: table::policy::disruption_budget,
        begin: |budget: &mut Value| set(budget, "status", validate::policy::nothing_counted()),
        default: nothing,
        validate: validate::policy::disruption_budget,
        validate_update: any_update,
        name: validate::subdomain,
        schema: describe::<PodDisruptionBudget>,
        decode: decode_as::<PodDisruptionBudget>,
    },
    Entry {
        group: "scheduling.k8s.io",
        version: "v1",
        kind: "PriorityClass",
        plural: "priorityclasses",
        singular: "priorityclass",
        short_names: &["pc"],
        categories: &[],
        scope: Scope::Cluster,
        keeping: Keeping::Intent,
        subresources: &[],
        fields: &[],
        columns: table::policy::PRIORITY_CLASS,
        cells: table::policy::priority_class,
        begin: nothing,
        default: defaults::policy::priority_class,
        validate: validate::policy::priority_class,
        validate_update: validate::policy::priority_class_update,
        name: validate::subdomain,
        schema: describe::<PriorityClass>,
        decode: decode_as::<PriorityClass>,
    },
];
