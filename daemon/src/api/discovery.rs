//! What is served, as clients find it out: the aggregated form that kubectl asks for, and the plain one.

use super::ApiState;
use super::kinds::{self, Catalogue, Kind, Scope, Subresource, group_version};
use super::metrics;
use super::reviews;
use super::status::{ApiError, json_response};
use axum::extract::{Path, State};
use axum::http::{HeaderMap, HeaderValue, header};
use axum::response::{IntoResponse, Response};
use serde_json::{Value, json};
use std::sync::Arc;

const AGGREGATED: &str = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList";

const VERBS: &[&str] = &["create", "delete", "deletecollection", "get", "list", "patch", "update", "watch"];

/// A resource that is answered and kept nowhere.
pub(super) struct Answered {
    pub group: &'static str,
    pub version: &'static str,
    pub kind: &'static str,
    pub plural: &'static str,
    /// Empty where Kubernetes has none.
    pub singular: &'static str,
    pub scope: Scope,
    pub verbs: &'static [&'static str],
}

fn answered() -> impl Iterator<Item = Answered> {
    reviews::answered().chain(metrics::answered())
}

/// `GET /api`
pub async fn api(State(state): State<ApiState>, headers: HeaderMap) -> Response {
    if wants_aggregated(&headers) {
        return Served::by(&state).aggregated(|group| group.is_empty());
    }
    let address = json!([{"clientCIDR": "0.0.0.0/0", "serverAddress": state.node}]);
    json_response(
        200,
        &json!({"kind": "APIVersions", "versions": ["v1"], "serverAddressByClientCIDRs": address}),
    )
}

/// `GET /apis`
pub async fn apis(State(state): State<ApiState>, headers: HeaderMap) -> Response {
    let served = Served::by(&state);
    if wants_aggregated(&headers) {
        return served.aggregated(|group| !group.is_empty());
    }
    let groups = served.groups().into_iter().filter(|group| !group.is_empty());
    let groups: Vec<Value> = groups.map(|group| served.group(group)).collect();
    json_response(200, &json!({"kind": "APIGroupList", "apiVersion": "v1", "groups": groups}))
}

/// `GET /apis/GROUP`
pub async fn api_group(State(state): State<ApiState>, Path(name): Path<String>) -> Response {
    let served = Served::by(&state);
    match served.groups().into_iter().find(|group| !group.is_empty() && *group == name) {
        Some(found) => {
            let mut group = served.group(found);
            group["kind"] = "APIGroup".into();
            group["apiVersion"] = "v1".into();
            json_response(200, &group)
        }
        None => ApiError::no_such_path().into_response(),
    }
}

/// `GET /api/v1`
pub async fn core_resources(State(state): State<ApiState>) -> Response {
    Served::by(&state).resources("", "v1")
}

/// `GET /apis/GROUP/VERSION`
pub async fn group_resources(
    State(state): State<ApiState>,
    Path((group, version)): Path<(String, String)>,
) -> Response {
    Served::by(&state).resources(&group, &version)
}

fn wants_aggregated(headers: &HeaderMap) -> bool {
    let accept = headers.get(header::ACCEPT).and_then(|value| value.to_str().ok()).unwrap_or_default();
    accept.split(',').any(|wanted| {
        let has = |parameter: &str| wanted.split(';').any(|part| part.trim() == parameter);
        has("g=apidiscovery.k8s.io") && has("v=v2") && has("as=APIGroupDiscoveryList")
    })
}

fn answered_of(group: &str, version: &str) -> impl Iterator<Item = Answered> {
    answered().filter(move |one| one.group == group && one.version == version)
}

/// What is served at one moment.
struct Served(Arc<Catalogue>);

impl Served {
    fn by(state: &ApiState) -> Self {
        Self(state.kinds.now())
    }

    fn kinds(&self, group: &str, version: &str) -> impl Iterator<Item = &Arc<Kind>> {
        self.0.all().filter(move |kind| kind.group == group && kind.version == version)
    }

    /// The group-versions that are served, each once.
    fn group_versions(&self) -> Vec<(&str, &str)> {
        let mut all = kinds::group_versions(self.0.all());
        for one in answered() {
            if !all.contains(&(one.group, one.version)) {
                all.push((one.group, one.version));
            }
        }
        all
    }

    fn groups(&self) -> Vec<&str> {
        let mut groups: Vec<&str> = self.group_versions().into_iter().map(|(group, _)| group).collect();
        groups.dedup();
        groups
    }

    fn versions_of(&self, group: &str) -> Vec<&str> {
        let all = self.group_versions();
        all.into_iter().filter(|(found, _)| *found == group).map(|(_, version)| version).collect()
    }

    fn group(&self, name: &str) -> Value {
        let versions = self.versions_of(name).into_iter();
        let versions: Vec<Value> = versions
            .map(|version| json!({"groupVersion": group_version(name, version), "version": version}))
            .collect();
        json!({"name": name, "versions": versions, "preferredVersion": versions.first()})
    }

    fn resources(&self, group: &str, version: &str) -> Response {
        let mut resources: Vec<Value> = answered_of(group, version)
            .map(|one| {
                json!({"name": one.plural, "singularName": one.singular,
                    "namespaced": one.scope == Scope::Namespaced, "kind": one.kind, "verbs": one.verbs})
            })
            .collect();
        for kind in self.kinds(group, version) {
            resources.push(json!({
                "name": kind.plural, "singularName": kind.singular, "namespaced": kind.is_namespaced(),
                "kind": kind.kind, "verbs": VERBS, "shortNames": kind.short_names,
                "categories": kind.categories,
            }));
            for part in &kind.subresources {
                let (group, version, served) = served_as(kind, *part);
                let mut resource = json!({
                    "name": format!("{}/{}", kind.plural, part.name()), "singularName": "",
                    "namespaced": kind.is_namespaced(), "kind": served, "verbs": verbs_of(*part),
                });
                if group != kind.group {
                    resource["group"] = group.into();
                    resource["version"] = version.into();
                }
                resources.push(resource);
            }
        }
        if resources.is_empty() {
            return ApiError::no_such_path().into_response();
        }
        json_response(
            200,
            &json!({"kind": "APIResourceList", "apiVersion": "v1",
                "groupVersion": group_version(group, version), "resources": resources}),
        )
    }

    fn aggregated(&self, wanted: impl Fn(&str) -> bool) -> Response {
        let groups = self.groups().into_iter().filter(|group| wanted(group));
        let items = groups.map(|group| {
            let versions = self.versions_of(group).into_iter();
            let versions: Vec<Value> =
                versions.map(|version| self.aggregated_version(group, version)).collect();
            json!({"metadata": {"name": group, "creationTimestamp": null}, "versions": versions})
        });
        let items: Vec<Value> = items.collect();
        let list = json!({"kind": "APIGroupDiscoveryList", "apiVersion": "apidiscovery.k8s.io/v2",
            "metadata": {}, "items": items});
        let mut response = json_response(200, &list);
        response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(AGGREGATED));
        response
    }

    fn aggregated_version(&self, group: &str, version: &str) -> Value {
        let answered = answered_of(group, version).map(|one| {
            json!({"resource": one.plural, "singularResource": one.singular, "scope": scope_of(one.scope),
                "verbs": one.verbs, "responseKind": {"group": group, "version": version, "kind": one.kind}})
        });
        let kinds = self.kinds(group, version).map(|kind| {
            let parts = kind.subresources.iter().map(|part| {
                let (group, version, served) = served_as(kind, *part);
                json!({"subresource": part.name(), "verbs": verbs_of(*part),
                    "responseKind": {"group": group, "version": version, "kind": served}})
            });
            json!({
                "resource": kind.plural, "singularResource": kind.singular, "shortNames": kind.short_names,
                "categories": kind.categories, "verbs": VERBS, "subresources": parts.collect::<Vec<_>>(),
                "scope": scope_of(kind.scope),
                "responseKind": {"group": kind.group, "version": kind.version, "kind": kind.kind},
            })
        });
        let resources: Vec<Value> = kinds.chain(answered).collect();
        json!({"version": version, "freshness": "Current", "resources": resources})
    }
}

fn scope_of(scope: Scope) -> &'static str {
    match scope {
        Scope::Namespaced => "Namespaced",
        Scope::Cluster => "Cluster",
    }
}

/// Group, version and kind of what a subresource reads and writes.
pub(super) fn served_as(kind: &Kind, part: Subresource) -> (&str, &str, &str) {
    match part {
        Subresource::Scale => ("autoscaling", "v1", "Scale"),
        Subresource::Eviction => ("policy", "v1", "Eviction"),
        Subresource::Token => ("authentication.k8s.io", "v1", "TokenRequest"),
        Subresource::Exec => ("", "v1", "PodExecOptions"),
        Subresource::Attach => ("", "v1", "PodAttachOptions"),
        Subresource::PortForward => ("", "v1", "PodPortForwardOptions"),
        Subresource::Status | Subresource::Log | Subresource::Finalize | Subresource::EphemeralContainers => {
            (&kind.group, &kind.version, &kind.kind)
        }
    }
}

pub(super) fn verbs_of(part: Subresource) -> &'static [&'static str] {
    match part {
        Subresource::Status | Subresource::Scale | Subresource::EphemeralContainers => {
            &["get", "patch", "update"]
        }
        Subresource::Log => &["get"],
        Subresource::Eviction | Subresource::Token => &["create"],
        Subresource::Finalize => &["update"],
        Subresource::Exec | Subresource::Attach | Subresource::PortForward => &["create", "get"],
    }
}
