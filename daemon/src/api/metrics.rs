//! `metrics.k8s.io`: what desktops and pods take now, as `kubectl top` asks for it. Measured where they run, when somebody
//! asks; kept nowhere.
//!
//! The objects are those of <https://github.com/kubernetes/metrics>, `pkg/apis/metrics/v1beta1`.

use super::ApiState;
use super::discovery::Answered;
use super::kinds::{self, Scope};
use super::query::Query;
use super::read::list_at;
use super::selector::Selector;
use super::status::{ApiError, json_response};
use super::value::text;
use crate::usage::{ContainerUsage, Measured, Usage};
use axum::Router;
use axum::extract::{Path, State};
use axum::http::Uri;
use axum::response::Response;
use axum::routing::get;
use futures::StreamExt;
use k8s_openapi::jiff::Timestamp;
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};

const GROUP: &str = "metrics.k8s.io";
const VERSION: &str = "v1beta1";

/// Desktops that are asked at once.
const ASKED_AT_ONCE: usize = 32;

/// For discovery.
pub fn answered() -> impl Iterator<Item = Answered> {
    [("NodeMetrics", "nodes", Scope::Cluster), ("PodMetrics", "pods", Scope::Namespaced)].into_iter().map(
        |(kind, plural, scope)| Answered {
            group: GROUP,
            version: VERSION,
            kind,
            plural,
            singular: "",
            scope,
            verbs: &["get", "list"],
        },
    )
}

pub fn routes() -> Router<ApiState> {
    let of = |path: &str| format!("/apis/{GROUP}/{VERSION}/{path}");
    Router::new()
        .route(&of("nodes"), get(nodes))
        .route(&of("nodes/{name}"), get(node))
        .route(&of("pods"), get(all_pods))
        .route(&of("namespaces/{namespace}/pods"), get(pods))
        .route(&of("namespaces/{namespace}/pods/{name}"), get(pod))
}

async fn nodes(State(state): State<ApiState>, uri: Uri) -> Result<Response, ApiError> {
    let wanted = wanted(&state, "nodes", None, &uri)?;
    let names: Vec<String> = wanted.keys().map(|(_, name)| name.clone()).collect();
    let measured = ask(&state, names).await;
    let items = wanted.iter().filter_map(|((_, name), node)| Some(node_metrics(node, measured.get(name)?)));
    Ok(list("NodeMetricsList", items.collect()))
}

async fn node(State(state): State<ApiState>, Path(name): Path<String>) -> Result<Response, ApiError> {
    let there = one(&state, "nodes", "", &name)?;
    let measured = state.usages.measured(&name).await.map_err(ApiError::from_stream)?;
    Ok(json_response(200, &node_metrics(&there, &measured)))
}

async fn all_pods(State(state): State<ApiState>, uri: Uri) -> Result<Response, ApiError> {
    pods_in(&state, None, &uri).await
}

async fn pods(
    State(state): State<ApiState>,
    Path(namespace): Path<String>,
    uri: Uri,
) -> Result<Response, ApiError> {
    pods_in(&state, Some(&namespace), &uri).await
}

async fn pods_in(state: &ApiState, namespace: Option<&str>, uri: &Uri) -> Result<Response, ApiError> {
    let wanted = wanted(state, "pods", namespace, uri)?;
    let mut hosts: BTreeSet<String> =
        wanted.values().map(|pod| text(pod, "/spec/nodeName").to_owned()).collect();
    hosts.remove("");
    let measured = ask(state, hosts).await;
    let mut taken: BTreeMap<&str, (&Measured, Vec<&ContainerUsage>)> = BTreeMap::new();
    for measured in measured.values() {
        for container in &measured.containers {
            taken.entry(&container.uid).or_insert_with(|| (measured, Vec::new())).1.push(container);
        }
    }
    let items = wanted.values().filter_map(|pod| {
        let (measured, containers) = taken.get(text(pod, "/metadata/uid"))?;
        Some(pod_metrics(pod, measured, containers))
    });
    Ok(list("PodMetricsList", items.collect()))
}

async fn pod(
    State(state): State<ApiState>,
    Path((namespace, name)): Path<(String, String)>,
) -> Result<Response, ApiError> {
    let pod = one(&state, "pods", &namespace, &name)?;
    let missing = || {
        let message = format!("podmetrics.{GROUP} \"{namespace}/{name}\" not found");
        ApiError::new(404, "NotFound", message)
    };
    let host = text(&pod, "/spec/nodeName");
    if host.is_empty() {
        return Err(missing());
    }
    let measured = state.usages.measured(host).await.map_err(ApiError::from_stream)?;
    let uid = text(&pod, "/metadata/uid");
    let containers: Vec<_> = measured.containers.iter().filter(|container| container.uid == uid).collect();
    if containers.is_empty() {
        return Err(missing());
    }
    Ok(json_response(200, &pod_metrics(&pod, &measured, &containers)))
}

/// The objects that a request is about, by namespace and name.
fn wanted(
    state: &ApiState,
    plural: &str,
    namespace: Option<&str>,
    uri: &Uri,
) -> Result<BTreeMap<(String, String), Value>, ApiError> {
    let query = Query::of(uri)?;
    let kind = kinds::find("", "v1", plural).ok_or_else(ApiError::no_such_path)?;
    let selector = Selector::parse(kind, query.text("labelSelector"), query.text("fieldSelector"))?;
    let (_, listing) = state.view.read(|store| list_at(store, kind, namespace, None))?;
    let matching = listing.into_iter().filter(|(_, object)| selector.matches(object.value()));
    Ok(matching.map(|(place, object)| (place, object.value().clone())).collect())
}

fn one(state: &ApiState, plural: &str, namespace: &str, name: &str) -> Result<Value, ApiError> {
    let kind = kinds::find("", "v1", plural).ok_or_else(ApiError::no_such_path)?;
    let found = state.view.read(|store| store.get(&kind.key(namespace, name)).cloned());
    Ok(found.ok_or_else(|| ApiError::not_found(kind, name))?.value().clone())
}

/// What these desktops say. One that does not answer is left out, as one without metrics is in Kubernetes.
async fn ask(state: &ApiState, nodes: impl IntoIterator<Item = String>) -> BTreeMap<String, Measured> {
    let asked = nodes.into_iter().map(async |node| match state.usages.measured(&node).await {
        Ok(measured) => Some((node, measured)),
        Err(error) => {
            tracing::debug!(node, %error, "a desktop does not say what it takes");
            None
        }
    });
    let answers = futures::stream::iter(asked).buffer_unordered(ASKED_AT_ONCE);
    answers.filter_map(async |answer| answer).collect().await
}

fn list(kind: &str, items: Vec<Value>) -> Response {
    let api_version = format!("{GROUP}/{VERSION}");
    json_response(200, &json!({"kind": kind, "apiVersion": api_version, "metadata": {}, "items": items}))
}

fn node_metrics(node: &Value, measured: &Measured) -> Value {
    let mut metrics = metrics("NodeMetrics", node, measured);
    metrics["usage"] = amounts(measured.node);
    metrics
}

fn pod_metrics(pod: &Value, measured: &Measured, containers: &[&ContainerUsage]) -> Value {
    let mut metrics = metrics("PodMetrics", pod, measured);
    let containers = containers.iter();
    metrics["containers"] = containers
        .map(|container| json!({"name": container.container, "usage": amounts(container.usage)}))
        .collect::<Vec<_>>()
        .into();
    metrics
}

fn metrics(kind: &str, of: &Value, measured: &Measured) -> Value {
    let at = Timestamp::from_second(measured.at.as_second()).unwrap_or(measured.at);
    let mut metadata = json!({"name": text(of, "/metadata/name"), "creationTimestamp": at.to_string()});
    for field in ["namespace", "labels"] {
        if let Some(value) = of.pointer(&format!("/metadata/{field}")) {
            metadata[field] = value.clone();
        }
    }
    let api_version = format!("{GROUP}/{VERSION}");
    let window = format!("{}ms", measured.window_ms);
    json!({"kind": kind, "apiVersion": api_version, "metadata": metadata, "timestamp": at.to_string(), "window": window})
}

/// As quantities, in the units that metrics are given in.
fn amounts(usage: Usage) -> Value {
    json!({"cpu": format!("{}n", usage.nanocores), "memory": format!("{}Ki", usage.memory_bytes / 1024)})
}
