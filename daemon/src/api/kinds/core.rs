//! The kinds of the core group, and leases.

use super::{Keeping, Kind, Scope, Subresource, any_content, any_update, decode_as, nothing};
use crate::api::value::{as_map, child, default_to, set, text};
use crate::api::{defaults, table, validate};
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::{ConfigMap, Event, Namespace, Node, Pod, Secret, Service, ServiceAccount};
use serde_json::{Value, json};

pub(super) static KINDS: &[Kind] = &[
    Kind {
        group: "",
        version: "v1",
        kind: "ConfigMap",
        plural: "configmaps",
        singular: "configmap",
        short_names: &["cm"],
        categories: &[],
        scope: Scope::Namespaced,
        keeping: Keeping::Intent,
        subresources: &[],
        fields: &[],
        columns: table::core::CONFIG_MAP,
        cells: table::core::config_map,
        begin: nothing,
        default: nothing,
        validate: validate::core::config_map,
        validate_update: validate::core::immutable_data,
        name: validate::subdomain,
        decode: decode_as::<ConfigMap>,
    },
    Kind {
        group: "",
        version: "v1",
        kind: "Event",
        plural: "events",
        singular: "event",
        short_names: &["ev"],
        categories: &[],
        scope: Scope::Namespaced,
        keeping: Keeping::Ordered,
        subresources: &[],
        fields: &[
            "involvedObject.kind",
            "involvedObject.namespace",
            "involvedObject.name",
            "involvedObject.uid",
            "involvedObject.apiVersion",
            "involvedObject.resourceVersion",
            "involvedObject.fieldPath",
            "reason",
            "reportingComponent",
            "source.component",
            "type",
        ],
        columns: table::core::EVENT,
        cells: table::core::event,
        begin: nothing,
        default: nothing,
        validate: any_content,
        validate_update: any_update,
        name: validate::subdomain,
        decode: decode_as::<Event>,
    },
    Kind {
        group: "",
        version: "v1",
        kind: "Namespace",
        plural: "namespaces",
        singular: "namespace",
        short_names: &["ns"],
        categories: &[],
        scope: Scope::Cluster,
        keeping: Keeping::Intent,
        subresources: &[Subresource::Status, Subresource::Finalize],
        fields: &["status.phase"],
        columns: table::core::NAMESPACE,
        cells: table::core::namespace,
        begin: begin_namespace,
        default: defaults::namespace,
        validate: any_content,
        validate_update: any_update,
        name: validate::label,
        decode: decode_as::<Namespace>,
    },
    Kind {
        group: "",
        version: "v1",
        kind: "Node",
        plural: "nodes",
        singular: "node",
        short_names: &["no"],
        categories: &[],
        scope: Scope::Cluster,
        keeping: Keeping::Ordered,
        subresources: &[Subresource::Status],
        fields: &["spec.unschedulable"],
        columns: table::core::NODE,
        cells: table::core::node,
        begin: nothing,
        default: nothing,
        validate: validate::core::node,
        validate_update: any_update,
        name: validate::subdomain,
        decode: decode_as::<Node>,
    },
    Kind {
        group: "",
        version: "v1",
        kind: "Pod",
        plural: "pods",
        singular: "pod",
        short_names: &["po"],
        categories: &["all"],
        scope: Scope::Namespaced,
        keeping: Keeping::Intent,
        subresources: &[Subresource::Status, Subresource::Log, Subresource::Eviction],
        fields: &[
            "spec.nodeName",
            "spec.restartPolicy",
            "spec.schedulerName",
            "spec.serviceAccountName",
            "spec.hostNetwork",
            "status.phase",
            "status.podIP",
            "status.nominatedNodeName",
        ],
        columns: table::pod::COLUMNS,
        cells: table::pod::cells,
        begin: begin_pod,
        default: defaults::pod,
        validate: validate::pod::pod,
        validate_update: validate::pod::update,
        name: validate::subdomain,
        decode: decode_as::<Pod>,
    },
    Kind {
        group: "",
        version: "v1",
        kind: "Secret",
        plural: "secrets",
        singular: "secret",
        short_names: &[],
        categories: &[],
        scope: Scope::Namespaced,
        keeping: Keeping::Intent,
        subresources: &[],
        fields: &["type"],
        columns: table::core::SECRET,
        cells: table::core::secret,
        begin: nothing,
        default: defaults::secret,
        validate: validate::core::secret,
        validate_update: validate::core::immutable_data,
        name: validate::subdomain,
        decode: decode_as::<Secret>,
    },
    Kind {
        group: "",
        version: "v1",
        kind: "ServiceAccount",
        plural: "serviceaccounts",
        singular: "serviceaccount",
        short_names: &["sa"],
        categories: &[],
        scope: Scope::Namespaced,
        keeping: Keeping::Intent,
        subresources: &[],
        fields: &[],
        columns: table::core::SERVICE_ACCOUNT,
        cells: table::core::service_account,
        begin: nothing,
        default: nothing,
        validate: any_content,
        validate_update: any_update,
        name: validate::subdomain,
        decode: decode_as::<ServiceAccount>,
    },
    Kind {
        group: "",
        version: "v1",
        kind: "Service",
        plural: "services",
        singular: "service",
        short_names: &["svc"],
        categories: &["all"],
        scope: Scope::Namespaced,
        keeping: Keeping::Intent,
        subresources: &[Subresource::Status],
        fields: &["spec.clusterIP", "spec.type"],
        columns: table::core::SERVICE,
        cells: table::core::service,
        begin: begin_service,
        default: defaults::service,
        validate: validate::core::service,
        validate_update: any_update,
        name: validate::label_1035,
        decode: decode_as::<Service>,
    },
    Kind {
        group: "coordination.k8s.io",
        version: "v1",
        kind: "Lease",
        plural: "leases",
        singular: "lease",
        short_names: &[],
        categories: &[],
        scope: Scope::Namespaced,
        keeping: Keeping::Ordered,
        subresources: &[],
        fields: &[],
        columns: table::core::LEASE,
        cells: table::core::lease,
        begin: nothing,
        default: nothing,
        validate: any_content,
        validate_update: any_update,
        name: validate::subdomain,
        decode: decode_as::<Lease>,
    },
];

fn begin_namespace(namespace: &mut Value) {
    let spec = child(namespace, "spec");
    set(spec, "finalizers", json!(["kubernetes"]));
    set(namespace, "status", json!({"phase": "Active"}));
}

fn begin_pod(pod: &mut Value) {
    let class = quality_of_service(pod);
    set(pod, "status", json!({"phase": "Pending", "qosClass": class}));
}

fn begin_service(service: &mut Value) {
    set(service, "status", json!({"loadBalancer": {}}));
    let headless = matches!(text(service, "/spec/type"), "ExternalName");
    let spec = child(service, "spec");
    if !headless {
        default_to(spec, "sessionAffinity", "None");
    }
    as_map(spec);
}

/// The quality-of-service class of a pod: how kubernetes.io/docs/concepts/workloads/pods/pod-qos divides them.
fn quality_of_service(pod: &Value) -> &'static str {
    let (mut any, mut guaranteed) = (false, true);
    for list in ["/spec/initContainers", "/spec/containers"] {
        for container in crate::api::value::items(pod, list) {
            for resource in ["cpu", "memory"] {
                let amount = |of: &str| container.pointer(&format!("/resources/{of}/{resource}"));
                let (request, limit) = (amount("requests"), amount("limits"));
                any |= request.is_some() || limit.is_some();
                guaranteed &= limit.is_some() && request.is_none_or(|request| Some(request) == limit);
            }
        }
    }
    match (any, guaranteed) {
        (false, _) => "BestEffort",
        (true, true) => "Guaranteed",
        (true, false) => "Burstable",
    }
}
