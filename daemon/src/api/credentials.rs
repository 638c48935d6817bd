//! Credentials for people: `/gaggle/v1/users` signs a token for a user, `/gaggle/v1/revocations` takes all back that a
//! user has. What a user may is said by roles and bindings like anybody's.
//!
//! A revocation is an object that clients can read, written as a client would write it: without a quorum it is kept
//! as intent and heeded by every desktop that hears of it.

use super::ApiState;
use super::access::{Attributes, authorize};
use super::auth::User;
use super::body::{self, Decoded};
use super::create;
use super::kinds;
use super::query::Query;
use super::status::{ApiError, json_response, warn};
use super::target::Target;
use super::update;
use super::value::text;
use crate::tokens::{REVOKED, Revocations, revocation_key, superseded};
use axum::Extension;
use axum::body::Body;
use axum::extract::State;
use axum::http::HeaderMap;
use axum::response::{IntoResponse, Response};
use k8s_openapi::jiff::{SignedDuration, Timestamp};
use serde_json::{Map, Value, json};

pub const USERS: &str = "/gaggle/v1/users";
pub const REVOCATIONS: &str = "/gaggle/v1/revocations";

/// The longest that a token can be good for: a year. A revocation is remembered as long.
pub const LONGEST_S: u32 = 366 * 24 * 3600;
/// The longest name of a user.
const NAME_BYTES: usize = 128;
/// The longest key of a ConfigMap.
const KEY_BYTES: usize = 253;
/// How often a revocation is written anew because others came between.
const TRIES: usize = 5;

/// `POST` of `{"name": ..., "seconds": ...}`; the answer has the token.
pub async fn users(
    State(state): State<ApiState>,
    Extension(user): Extension<User>,
    headers: HeaderMap,
    body: Body,
) -> Response {
    let issued = async {
        let asked = read(&headers, body).await?;
        let name = name_of(&asked)?;
        let seconds = asked.get("seconds").and_then(Value::as_u64).and_then(|s| u32::try_from(s).ok());
        let seconds = seconds.filter(|seconds| (1..=LONGEST_S).contains(seconds)).ok_or_else(|| {
            ApiError::bad_request(format!("seconds: say for how long, from 1 to {LONGEST_S} (a year)"))
        })?;
        // Whoever has the token is that user.
        authorize(&state, &user, &Attributes::object("impersonate", "", "users", "", name))?;
        let issued = state.tokens.for_user(name, seconds);
        tracing::info!(by = %user.name, user = %name, seconds, "a token was signed");
        let expires = Timestamp::from_second(issued.expires).map_err(ApiError::internal)?;
        Ok::<_, ApiError>(json!({"name": name, "token": issued.token, "expires": expires.to_string()}))
    };
    match issued.await {
        Ok(issued) => json_response(201, &issued),
        Err(error) => error.into_response(),
    }
}

/// `POST` of `{"name": ...}`: no token of this user that is there now is taken any more.
pub async fn revocations(
    State(state): State<ApiState>,
    Extension(user): Extension<User>,
    headers: HeaderMap,
    body: Body,
) -> Response {
    let revoked = async {
        let asked = read(&headers, body).await?;
        let name = name_of(&asked)?;
        let warning = revoke(&state, &user, name).await?;
        tracing::info!(by = %user.name, user = %name, "tokens were revoked");
        Ok::<_, ApiError>((json!({"name": name}), warning))
    };
    match revoked.await {
        Ok((revoked, warning)) => {
            let mut response = json_response(201, &revoked);
            if let Some(warning) = warning {
                warn(&mut response, &warning);
            }
            response
        }
        Err(error) => error.into_response(),
    }
}

async fn read(headers: &HeaderMap, body: Body) -> Result<Value, ApiError> {
    let bytes = body::read(body).await?;
    Ok(body::decode(body::media_type(headers), &bytes)?.value)
}

/// A name that is a person's, or a program's of one's own: none that means something already.
fn name_of(asked: &Value) -> Result<&str, ApiError> {
    let name = text(asked, "/name");
    let is_written = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '.' | '_' | '@' | '+');
    if name.is_empty() || name.len() > NAME_BYTES || !name.chars().all(is_written) {
        return Err(ApiError::bad_request(format!(
            "name: {name:?} cannot be a user's name: write up to {NAME_BYTES} letters, digits and - . _ @ +"
        )));
    }
    if name.starts_with('.') || revocation_key(name, u32::MAX).len() > KEY_BYTES {
        return Err(ApiError::bad_request(format!(
            "name: {name:?} could not be revoked: write a shorter one that does not begin with a dot"
        )));
    }
    if name == "admin" {
        return Err(ApiError::bad_request(
            "name: \"admin\" is the user of every desktop's own kubeconfig; choose another name",
        ));
    }
    Ok(name)
}

/// What is to be warned of, if it could only be kept.
async fn revoke(state: &ApiState, user: &User, name: &str) -> Result<Option<String>, ApiError> {
    let kind = kinds::find("", "v1", "configmaps").ok_or_else(ApiError::no_such_path)?;
    let (namespace, object) = REVOKED;
    let target = |object: &str| Target {
        kind: kind.clone(),
        namespace: namespace.to_owned(),
        name: object.to_owned(),
        subresource: None,
    };
    let query = Query::default().asked_by(user.clone());
    let issue = state.view.read(|store| state.tokens.revoked().current_issue(store, name));
    let note = json!({"user": name, "revoked": super::now().to_string()}).to_string();
    let mut tries = 0;
    loop {
        tries += 1;
        let mut data: Map<String, Value> = state.tokens.revoked().notes().into_iter().collect();
        data.extend(forgettable(state).into_iter().map(|key| (key, Value::Null)));
        data.insert(revocation_key(name, issue), note.clone().into());
        let patch = json!({"data": data}).to_string();
        let media = "application/merge-patch+json";
        let written = match update::patch(state, &target(object), &query, media, patch.as_bytes()).await {
            Ok((done, ..)) => Ok(done),
            Err(error) if error.code == 404 => {
                data.retain(|_, note| !note.is_null());
                let value = json!({"apiVersion": "v1", "kind": "ConfigMap",
                    "metadata": {"name": object, "namespace": namespace}, "data": data});
                let decoded = Decoded { value, ..Decoded::default() };
                create::create(state, &target(""), &query, decoded).await.map(|(done, _)| done)
            }
            Err(error) => Err(error),
        };
        match written {
            Ok(done) => return Ok(done.warning),
            // Somebody else made it, or removed it, at the same time.
            Err(error) if matches!(error.code, 404 | 409) && tries < TRIES => {}
            Err(error) => return Err(error),
        }
    }
}

/// The keys of revocations whose tokens have all expired.
fn forgettable(state: &ApiState) -> Vec<String> {
    let longest = SignedDuration::from_secs(i64::from(LONGEST_S));
    let Ok(before) = super::now().checked_sub(longest) else { return Vec::new() };
    let is_old = |note: &Value| {
        let note: Value = serde_json::from_str(note.as_str().unwrap_or_default()).unwrap_or_default();
        text(&note, "/revoked").parse::<Timestamp>().is_ok_and(|revoked| revoked < before)
    };
    state.view.read(|store| {
        let data = store.get(&Revocations::key()).and_then(|object| object.value().get("data")?.as_object());
        let Some(data) = data else { return Vec::new() };
        // The last note of a user says which issue is the next, for ever.
        let superseded = superseded(data.keys().map(String::as_str));
        superseded.filter(|key| data.get(*key).is_some_and(is_old)).map(str::to_owned).collect()
    })
}
