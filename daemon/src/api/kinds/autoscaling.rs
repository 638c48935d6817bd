//! The kinds of the group `autoscaling`.

use super::{Entry, Keeping, Scope, Subresource, any_update, decode_as};
use crate::api::schema::describe;
use crate::api::value::set;
use crate::api::{defaults, table, validate};
use k8s_openapi::api::autoscaling::v2::HorizontalPodAutoscaler;
use serde_json::{Value, json};

pub(super) static KINDS: &[Entry] = &[Entry {
    group: "autoscaling",
    version: "v2",
    kind: "HorizontalPodAutoscaler",
    plural: "horizontalpodautoscalers",
    singular: "horizontalpodautoscaler",
    short_names: &["hpa"],
    categories: &["all"],
    scope: Scope::Namespaced,
    keeping: Keeping::Intent,
    subresources: &[Subresource::Status],
    fields: &[],
    columns: table::workload::AUTOSCALER,
    cells: table::workload::autoscaler,
    begin: |scaler: &mut Value| set(scaler, "status", json!({"currentMetrics": null, "desiredReplicas": 0})),
    default: defaults::autoscaler,
    validate: validate::workload::autoscaler,
    validate_update: any_update,
    name: validate::subdomain,
    schema: describe::<HorizontalPodAutoscaler>,
    decode: decode_as::<HorizontalPodAutoscaler>,
}];
