//! OpenAPI v3, as much of it as clients need: that every kind can be patched, and that field validation is the
//! server's work.
//!
//! kubectl reads from it whether the server validates fields. Only merge patch is listed: where strategic merge
//! patch is, kubectl wants the whole schema with its merge keys, and with neither it uses those that it was
//! built with.

use super::kinds::{self, Kind, group_version};
use super::status::{ApiError, json_response};
use axum::extract::Path;
use axum::response::{IntoResponse, Response};
use serde_json::{Map, Value, json};
use sha2::{Digest, Sha256};

/// `GET /openapi/v3`
pub async fn index() -> Response {
    let mut paths = Map::new();
    for (group, version) in kinds::group_versions() {
        let name = path_of(group, version);
        let hash = Sha256::digest(document(group, version).to_string());
        let hash: String = hash.iter().take(8).map(|byte| format!("{byte:02X}")).collect();
        let url = format!("/openapi/v3/{name}?hash={hash}");
        paths.insert(name, json!({"serverRelativeURL": url}));
    }
    json_response(200, &json!({"paths": paths}))
}

/// `GET /openapi/v3/api/v1` and `GET /openapi/v3/apis/GROUP/VERSION`
pub async fn group_document(Path(wanted): Path<String>) -> Response {
    let found =
        kinds::group_versions().into_iter().find(|(group, version)| path_of(group, version) == wanted);
    match found {
        Some((group, version)) => json_response(200, &document(group, version)),
        None => ApiError::no_such_path().into_response(),
    }
}

fn path_of(group: &str, version: &str) -> String {
    let prefix = if group.is_empty() { "api" } else { "apis" };
    format!("{prefix}/{}", group_version(group, version))
}

fn document(group: &str, version: &str) -> Value {
    let (mut paths, mut schemas) = (Map::new(), Map::new());
    for kind in kinds::all().filter(|kind| kind.group == group && kind.version == version) {
        let namespaced = if kind.is_namespaced() { "namespaces/{namespace}/" } else { "" };
        let base = format!("/{}/{namespaced}{}", path_of(group, version), kind.plural);
        paths.insert(base.clone(), json!({"post": operation(kind, "post", &["application/json"])}));
        let patches = ["application/json-patch+json", "application/merge-patch+json"];
        paths.insert(
            format!("{base}/{{name}}"),
            json!({
                "get": {"x-kubernetes-action": "get", "x-kubernetes-group-version-kind": identity(kind),
                    "responses": {"200": answer(kind)}},
                "put": operation(kind, "put", &["application/json"]),
                "patch": operation(kind, "patch", &patches),
            }),
        );
        schemas.insert(
            schema_name(kind),
            json!({
                "type": "object", "x-kubernetes-group-version-kind": [identity(kind)],
                "x-kubernetes-preserve-unknown-fields": true,
                "properties": {"apiVersion": {"type": "string"}, "kind": {"type": "string"},
                    "metadata": {"type": "object"}},
            }),
        );
    }
    json!({"openapi": "3.0.0", "info": {"title": "Kubernetes", "version": super::version::GIT_VERSION},
        "paths": paths, "components": {"schemas": schemas}})
}

fn identity(kind: &Kind) -> Value {
    json!({"group": kind.group, "version": kind.version, "kind": kind.kind})
}

fn schema_name(kind: &Kind) -> String {
    let group = kind.group.split('.').next().filter(|group| !group.is_empty()).unwrap_or("core");
    format!("io.k8s.api.{group}.{}.{}", kind.version, kind.kind)
}

fn answer(kind: &Kind) -> Value {
    let schema = json!({"$ref": format!("#/components/schemas/{}", schema_name(kind))});
    json!({"description": "OK", "content": {"application/json": {"schema": schema}}})
}

fn operation(kind: &Kind, action: &str, bodies: &[&str]) -> Value {
    let parameters: Vec<Value> = ["dryRun", "fieldManager", "fieldValidation"]
        .iter()
        .map(|name| json!({"name": name, "in": "query", "schema": {"type": "string", "uniqueItems": true}}))
        .collect();
    let content: Map<String, Value> =
        bodies.iter().map(|body| ((*body).to_owned(), json!({"schema": {"type": "object"}}))).collect();
    json!({"x-kubernetes-action": action, "x-kubernetes-group-version-kind": identity(kind),
        "parameters": parameters, "requestBody": {"content": content}, "responses": {"200": answer(kind)}})
}
