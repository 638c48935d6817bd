//! OpenAPI, as much of it as clients need: that every kind can be patched, and that field validation is the
//! server's work.
//!
//! kubectl reads from it whether the server validates fields. Only merge patch is listed: where strategic merge
//! patch is, kubectl wants the whole schema with its merge keys, and with neither it uses those that it was
//! built with.

use super::kinds::{self, Kind, group_version};
use super::status::{ApiError, json_response};
use super::version::GIT_VERSION;
use axum::extract::Path;
use axum::http::{HeaderMap, header};
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

/// `GET /openapi/v2`: that there is one, and nothing in it.
///
/// kubectl turns to it for kinds that version 3 does not have, and would otherwise complain of the missing
/// document where it should name the unknown kind.
pub async fn version_2(headers: HeaderMap) -> Response {
    let protobuf = headers.get_all(header::ACCEPT).iter().any(|accept| {
        accept.to_str().is_ok_and(|accept| accept.split([',', ';']).any(|media| media.trim() == V2_ASKED))
    });
    if protobuf {
        return ([(header::CONTENT_TYPE, V2_ANSWERED)], v2_protobuf()).into_response();
    }
    json_response(
        200,
        &json!({"swagger": "2.0", "info": {"title": TITLE, "version": GIT_VERSION}, "paths": {}, "definitions": {}}),
    )
}

/// How clients ask for it. A media type has no "@", and Go refuses one in an answer, so that it is answered
/// without.
const V2_ASKED: &str = "application/com.github.proto-openapi.spec.v2@v1.0+protobuf";
const V2_ANSWERED: &str = "application/com.github.proto-openapi.spec.v2.v1.0+protobuf";
const TITLE: &str = "Kubernetes";

/// The same as gnostic's `openapi.v2.Document`: swagger (1), info (2) of title (1) and version (2), paths (8).
fn v2_protobuf() -> Vec<u8> {
    let field = |number: u8, bytes: &[u8]| {
        // Fields of a few bytes have their tag and their length in one byte each.
        debug_assert!(number < 16 && bytes.len() < 128, "a longer field needs varints");
        [&[(number << 3) | 2, bytes.len() as u8], bytes].concat()
    };
    let info = [field(1, TITLE.as_bytes()), field(2, GIT_VERSION.as_bytes())].concat();
    [field(1, b"2.0"), field(2, &info), field(8, b"")].concat()
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
    json!({"openapi": "3.0.0", "info": {"title": TITLE, "version": GIT_VERSION},
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
