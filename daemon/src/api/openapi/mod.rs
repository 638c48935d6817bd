//! OpenAPI: what can be asked, and what every kind looks like.
//!
//! kubectl reads here whether the server validates fields, how lists are merged when it applies an object again, and
//! what it explains.

mod components;
mod paths;

use super::kinds::{self, group_version};
use super::query::Query;
use super::schema::{self, Definitions};
use super::status::{ApiError, json_response};
use super::version::GIT_VERSION;
use axum::body::Bytes;
use axum::extract::Path;
use axum::http::{HeaderMap, StatusCode, Uri, header};
use axum::response::{IntoResponse, Response};
use serde_json::{Map, Value, json};
use sha2::{Digest, Sha256};
use std::collections::BTreeMap;
use std::sync::LazyLock;

/// How long a document that is asked for with its hash may be kept: another version has another hash.
const FOR_EVER: &str = "public, immutable, max-age=31536000";
const ASK_AGAIN: &str = "no-cache, private";

/// `GET /openapi/v3`
pub async fn index() -> Response {
    let paths: Map<String, Value> = DOCUMENTS
        .iter()
        .map(|(name, document)| {
            let url = format!("/openapi/v3/{name}?hash={}", document.hash);
            (name.clone(), json!({"serverRelativeURL": url}))
        })
        .collect();
    json_response(200, &json!({"paths": paths}))
}

/// `GET /openapi/v3/api/v1` and `GET /openapi/v3/apis/GROUP/VERSION`
pub async fn group_document(Path(wanted): Path<String>, uri: Uri, headers: HeaderMap) -> Response {
    let Some(document) = DOCUMENTS.get(&wanted) else { return ApiError::no_such_path().into_response() };
    let asked = match Query::of(&uri) {
        Ok(query) => query.text("hash").to_owned(),
        Err(error) => return error.into_response(),
    };
    if !asked.is_empty() && asked != document.hash {
        // The index was another desktop's, of another version.
        let location = format!("/openapi/v3/{wanted}?hash={}", document.hash);
        return (StatusCode::MOVED_PERMANENTLY, [(header::LOCATION, location)]).into_response();
    }
    let tag = format!("\"{}\"", document.hash);
    let known = headers.get_all(header::IF_NONE_MATCH).iter().filter_map(|known| known.to_str().ok());
    let is_known = known.flat_map(|tags| tags.split(',')).any(|known| known.trim() == tag);
    let lasting = if asked.is_empty() { ASK_AGAIN } else { FOR_EVER };
    let about = [(header::ETAG, tag.as_str()), (header::CACHE_CONTROL, lasting), (header::VARY, "Accept")];
    match is_known {
        true => (StatusCode::NOT_MODIFIED, about).into_response(),
        false => {
            (about, [(header::CONTENT_TYPE, "application/json")], document.bytes.clone()).into_response()
        }
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

/// One group-version's document as it is sent, and what tells it from another one.
struct Document {
    bytes: Bytes,
    hash: String,
}

/// Made when somebody asks first: they are megabytes, and nobody may ever ask this desktop.
static DOCUMENTS: LazyLock<BTreeMap<String, Document>> = LazyLock::new(|| {
    let definitions = schema::definitions();
    let documents = kinds::group_versions().into_iter().map(|(group, version)| {
        let bytes = document(&definitions, group, version).to_string();
        let hash = Sha256::digest(&bytes).iter().take(16).map(|byte| format!("{byte:02X}")).collect();
        (path_of(group, version), Document { bytes: bytes.into(), hash })
    });
    documents.collect()
});

fn document(definitions: &Definitions, group: &str, version: &str) -> Value {
    let served: Vec<_> =
        definitions.kinds.iter().filter(|(kind, _)| kind.group == group && kind.version == version).collect();
    let around = [components::DELETE_OPTIONS, components::STATUS, components::LIST_META];
    let parts = [components::SCALE, components::EVICTION];
    let names = served.iter().map(|(_, name)| name.as_str());
    let mut schemas = components::closure(definitions, names.chain(around).chain(parts));
    let mut paths = Map::new();
    for (kind, name) in served {
        components::add_kind(&mut schemas, kind, name);
        paths::add(&mut paths, kind, name);
    }
    json!({"openapi": "3.0.0", "info": {"title": TITLE, "version": GIT_VERSION},
        "paths": paths, "components": {"schemas": schemas}})
}
