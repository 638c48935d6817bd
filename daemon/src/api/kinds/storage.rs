//! The kinds of the group `storage.k8s.io`, and `node.k8s.io`.

use super::{Entry, Keeping, Scope, decode_as, nothing};
use crate::api::schema::describe;
use crate::api::{defaults, table, validate};
use k8s_openapi::api::node::v1::RuntimeClass;
use k8s_openapi::api::storage::v1::StorageClass;

pub(super) static KINDS: &[Entry] = &[
    Entry {
        group: "storage.k8s.io",
        version: "v1",
        kind: "StorageClass",
        plural: "storageclasses",
        singular: "storageclass",
        short_names: &["sc"],
        categories: &[],
        scope: Scope::Cluster,
        keeping: Keeping::Intent,
        subresources: &[],
        fields: &[],
        columns: table::storage::CLASS,
        cells: table::storage::class,
        begin: nothing,
        default: defaults::storage::class,
        validate: validate::storage::class,
        validate_update: validate::storage::class_update,
        name: validate::subdomain,
        schema: describe::<StorageClass>,
        decode: decode_as::<StorageClass>,
    },
    Entry {
        group: "node.k8s.io",
        version: "v1",
        kind: "RuntimeClass",
        plural: "runtimeclasses",
        singular: "runtimeclass",
        short_names: &[],
        categories: &[],
        scope: Scope::Cluster,
        keeping: Keeping::Intent,
        subresources: &[],
        fields: &[],
        columns: table::storage::RUNTIME_CLASS,
        cells: table::storage::runtime_class,
        begin: nothing,
        default: nothing,
        validate: validate::storage::runtime_class,
        validate_update: validate::storage::runtime_class_update,
        name: validate::subdomain,
        schema: describe::<RuntimeClass>,
        decode: decode_as::<RuntimeClass>,
    },
];
