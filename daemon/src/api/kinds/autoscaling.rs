//! The kinds of the group `autoscaling`. Autoscalers are kept in the newer of their forms.

use super::{Entry, Keeping, Older, Scope, Subresource, any_update, decode_as};
use crate::api::schema::describe;
use crate::api::value::set;
use crate::api::{autoscaling_v1, defaults, table, validate};
use k8s_openapi::api::autoscaling::{v1, v2};
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
    schema: describe::<v2::HorizontalPodAutoscaler>,
    decode: decode_as::<v2::HorizontalPodAutoscaler>,
}];

pub(super) static OLDER: &[Older] = &[Older {
    entry: Entry {
        group: "autoscaling",
        version: "v1",
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
        begin: autoscaling_v1::begin,
        default: autoscaling_v1::default,
        validate: autoscaling_v1::validate,
        validate_update: any_update,
        name: validate::subdomain,
        schema: describe::<v1::HorizontalPodAutoscaler>,
        decode: decode_as::<v1::HorizontalPodAutoscaler>,
    },
    shown: autoscaling_v1::to_v1,
    stored: autoscaling_v1::to_v2,
}];
