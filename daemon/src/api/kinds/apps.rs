//! The kinds of the group `apps`.

use super::{Keeping, Kind, Scope, Subresource, decode_as};
use crate::api::value::set;
use crate::api::{defaults, table, validate};
use k8s_openapi::api::apps::v1::{Deployment, ReplicaSet};
use serde_json::{Value, json};

pub(super) static KINDS: &[Kind] = &[
    Kind {
        group: "apps",
        version: "v1",
        kind: "Deployment",
        plural: "deployments",
        singular: "deployment",
        short_names: &["deploy"],
        categories: &["all"],
        scope: Scope::Namespaced,
        keeping: Keeping::Intent,
        subresources: &[Subresource::Status, Subresource::Scale],
        fields: &[],
        columns: table::workload::DEPLOYMENT,
        cells: table::workload::deployment,
        begin: |deployment: &mut Value| set(deployment, "status", json!({})),
        default: defaults::deployment,
        validate: validate::workload::deployment,
        validate_update: validate::workload::immutable_selector,
        name: validate::subdomain,
        decode: decode_as::<Deployment>,
    },
    Kind {
        group: "apps",
        version: "v1",
        kind: "ReplicaSet",
        plural: "replicasets",
        singular: "replicaset",
        short_names: &["rs"],
        categories: &["all"],
        scope: Scope::Namespaced,
        keeping: Keeping::Intent,
        subresources: &[Subresource::Status, Subresource::Scale],
        fields: &["status.replicas"],
        columns: table::workload::REPLICA_SET,
        cells: table::workload::replica_set,
        begin: |set_: &mut Value| set(set_, "status", json!({"replicas": 0})),
        default: defaults::replica_set,
        validate: validate::workload::replica_set,
        validate_update: validate::workload::immutable_selector,
        name: validate::subdomain,
        decode: decode_as::<ReplicaSet>,
    },
];
