//! OpenAPI: what can be asked, and what every kind looks like.
//!
//! kubectl reads here whether the server validates fields, how lists are merged when it applies an object again, and
//! what it explains.

mod components;
mod paths;

use super::ApiState;
use super::kinds::{self, Catalogue, Kind, group_version};
use super::negotiate::Form;
use super::query::Query;
use super::reviews;
use super::schema::{self, Definitions};
use super::status::{ApiError, json_response};
use super::version::GIT_VERSION;
use axum::body::Bytes;
use axum::extract::{Path, State};
use axum::http::{HeaderMap, HeaderName, StatusCode, Uri, header};
use axum::response::{IntoResponse, Response};
use flate2::Compression;
use flate2::read::{GzDecoder, GzEncoder};
use serde_json::{Map, Value, json};
use sha2::{Digest, Sha256};
use std::collections::{BTreeMap, BTreeSet};
use std::io::Read;
use std::sync::{Arc, LazyLock};

/// How long a document that is asked for with its hash may be kept: another version has another hash.
const FOR_EVER: &str = "public, immutable, max-age=31536000";
const ASK_AGAIN: &str = "no-cache, private";

/// `GET /openapi/v3`
pub async fn index(State(state): State<ApiState>) -> Response {
    let documents = match All::of(&state).await {
        Ok(documents) => documents,
        Err(error) => return error.into_response(),
    };
    let paths: Map<String, Value> = documents
        .iter()
        .map(|(name, document)| {
            let url = format!("/openapi/v3/{name}?hash={}", document.hash);
            (name.clone(), json!({"serverRelativeURL": url}))
        })
        .collect();
    json_response(200, &json!({"paths": paths}))
}

/// `GET /openapi/v3/api/v1` and `GET /openapi/v3/apis/GROUP/VERSION`
pub async fn group_document(
    State(state): State<ApiState>,
    Path(wanted): Path<String>,
    uri: Uri,
    headers: HeaderMap,
) -> Response {
    answer(&state, &wanted, &uri, &headers).await.unwrap_or_else(IntoResponse::into_response)
}

async fn answer(
    state: &ApiState,
    wanted: &str,
    uri: &Uri,
    headers: &HeaderMap,
) -> Result<Response, ApiError> {
    // Who takes nothing but protobuf has to hear that there is none.
    Form::of(headers, "")?;
    let documents = All::of(state).await?;
    let document = documents.get(wanted).ok_or_else(ApiError::no_such_path)?;
    let query = Query::of(uri)?;
    let asked = query.text("hash");
    if !asked.is_empty() && asked != document.hash {
        // The index was another desktop's, of another version.
        let location = format!("/openapi/v3/{wanted}?hash={}", document.hash);
        return Ok((StatusCode::MOVED_PERMANENTLY, [(header::LOCATION, location)]).into_response());
    }
    let tag = format!("\"{}\"", document.hash);
    let is_known = listed(headers, header::IF_NONE_MATCH).any(|known| known == tag);
    let lasting = if asked.is_empty() { ASK_AGAIN } else { FOR_EVER };
    let about = [
        (header::ETAG, tag.as_str()),
        (header::CACHE_CONTROL, lasting),
        (header::VARY, "Accept, Accept-Encoding"),
        (header::CONTENT_TYPE, "application/json"),
    ];
    if is_known {
        return Ok((StatusCode::NOT_MODIFIED, about).into_response());
    }
    if listed(headers, header::ACCEPT_ENCODING).any(|encoding| encoding == "gzip") {
        return Ok((about, [(header::CONTENT_ENCODING, "gzip")], document.packed.clone()).into_response());
    }
    let packed = document.packed.clone();
    let text = tokio::task::spawn_blocking(move || unpacked(&packed)).await;
    let text = text.map_err(ApiError::internal)?.map_err(ApiError::internal)?;
    Ok((about, text).into_response())
}

/// What a header lists, without parameters.
fn listed(headers: &HeaderMap, name: HeaderName) -> impl Iterator<Item = &str> {
    let values = headers.get_all(name).iter().filter_map(|value| value.to_str().ok());
    values.flat_map(|value| value.split(',')).map(|one| one.split(';').next().unwrap_or_default().trim())
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

/// One group-version's document, and what tells it from another one.
struct Document {
    /// Compressed, as most clients take it: in the open all of them are some megabytes.
    packed: Bytes,
    hash: String,
}

/// Documents by their path below `/openapi/v3`.
pub struct Documents(BTreeMap<String, Document>);

/// Those of Kubernetes' own kinds, made when somebody asks first: it takes a moment, and nobody may ever ask this desktop.
static OF_TABLE: LazyLock<Documents> = LazyLock::new(|| {
    let definitions = schema::definitions();
    let mut all = kinds::group_versions(kinds::all());
    let of_reviews: BTreeSet<_> =
        reviews::ALL.iter().map(|review| (review.group, reviews::VERSION)).collect();
    all.extend(of_reviews);
    Documents::of(all.into_iter().map(|group_version| (group_version, document(&definitions, group_version))))
});

/// The schemas beside the kinds, for documents that have none of Kubernetes' kinds.
static AROUND: LazyLock<Map<String, Value>> = LazyLock::new(|| {
    let names = components::AROUND.iter().copied().chain([components::OBJECT_META, components::SCALE]);
    components::closure(&schema::definitions(), names)
});

impl Documents {
    fn of<'a>(all: impl Iterator<Item = ((&'a str, &'a str), Value)>) -> Self {
        let documents = all.map(|((group, version), document)| {
            let text = document.to_string();
            let hash = Sha256::digest(&text).iter().take(16).map(|byte| format!("{byte:02X}")).collect();
            (path_of(group, version), Document { packed: packed(text.as_bytes()), hash })
        });
        Self(documents.collect())
    }

    /// Those of the groups that people defined.
    pub fn of_defined(catalogue: &Catalogue) -> Self {
        let all = kinds::group_versions(catalogue.defined()).into_iter();
        Self::of(all.map(|group_version| (group_version, defined_document(catalogue, group_version))))
    }
}

/// All documents, of one moment.
struct All(Arc<Catalogue>);

impl All {
    /// Made where it holds nobody up.
    async fn of(state: &ApiState) -> Result<Self, ApiError> {
        let kinds = state.kinds.clone();
        let all = tokio::task::spawn_blocking(move || {
            let catalogue = kinds.now();
            LazyLock::force(&OF_TABLE);
            catalogue.documents();
            Self(catalogue)
        });
        all.await.map_err(ApiError::internal)
    }

    fn iter(&self) -> impl Iterator<Item = (&String, &Document)> {
        OF_TABLE.0.iter().chain(&self.0.documents().0)
    }

    fn get(&self, name: &str) -> Option<&Document> {
        OF_TABLE.0.get(name).or_else(|| self.0.documents().0.get(name))
    }
}

fn packed(text: &[u8]) -> Bytes {
    let mut packed = Vec::new();
    GzEncoder::new(text, Compression::default()).read_to_end(&mut packed).map_or_else(
        |error| {
            // Reading from memory does not fail.
            tracing::error!(%error, "an OpenAPI document could not be compressed");
            Bytes::new()
        },
        |_| packed.into(),
    )
}

fn unpacked(packed: &[u8]) -> std::io::Result<Vec<u8>> {
    let mut text = Vec::new();
    GzDecoder::new(packed).read_to_end(&mut text)?;
    Ok(text)
}

fn document(definitions: &Definitions, (group, version): (&str, &str)) -> Value {
    let served: Vec<_> =
        definitions.kinds.iter().filter(|(kind, _)| kind.group == group && kind.version == version).collect();
    let reviews: Vec<_> = definitions
        .reviews
        .iter()
        .filter(|(review, _)| review.group == group && version == reviews::VERSION)
        .collect();
    let parts = [components::SCALE, components::EVICTION, components::TOKEN_REQUEST];
    let names = served.iter().map(|(_, name)| name).chain(reviews.iter().map(|(_, name)| name));
    let around = components::AROUND.iter().copied();
    let mut schemas = components::closure(definitions, names.map(String::as_str).chain(around).chain(parts));
    let kinds = definitions.kinds.iter().map(|(kind, name)| (name.as_str(), identity_of(kind)));
    let asked = definitions.reviews.iter().map(|(review, name)| {
        (name.as_str(), components::identity(review.group, reviews::VERSION, review.kind))
    });
    components::identify(&mut schemas, kinds.chain(asked), (group, version));
    let mut document = whole(schemas, served.into_iter().map(|(kind, name)| (*kind, name.as_str())));
    for (review, name) in reviews {
        document["paths"][review.route()] = paths::of_review(review, name);
    }
    document
}

fn identity_of(kind: &Kind) -> Value {
    components::identity(&kind.group, &kind.version, &kind.kind)
}

fn defined_document(catalogue: &Catalogue, (group, version): (&str, &str)) -> Value {
    let mut schemas = AROUND.clone();
    let served = catalogue.defined().filter(|kind| kind.group == group && kind.version == version);
    let served: Vec<(&Kind, String)> = served
        .filter_map(|kind| {
            let published = kind.definition()?.published();
            Some((&**kind, components::add_defined(&mut schemas, kind, published)))
        })
        .collect();
    let kinds = || served.iter().map(|(kind, name)| (*kind, name.as_str()));
    let identities = kinds().map(|(kind, name)| (name, identity_of(kind)));
    components::identify(&mut schemas, identities, (group, version));
    whole(schemas, kinds())
}

/// The document of these schemas, with the paths and lists of the kinds.
fn whole<'a>(mut schemas: Map<String, Value>, kinds: impl Iterator<Item = (&'a Kind, &'a str)>) -> Value {
    let mut paths = Map::new();
    for (kind, name) in kinds {
        components::add_list(&mut schemas, kind, name);
        paths::add(&mut paths, kind, name);
    }
    json!({"openapi": "3.0.0", "info": {"title": TITLE, "version": GIT_VERSION},
        "paths": paths, "components": {"schemas": schemas}})
}
