//! `serviceaccounts/NAME/token`: a token of a ServiceAccount, as `kubectl create token` asks for one.
//! (Kubernetes, "TokenRequest" of `authentication.k8s.io/v1`.)

use super::ApiState;
use super::kinds;
use super::read;
use super::status::ApiError;
use super::target::Target;
use super::value::{child, int, items, set, text};
use crate::tokens::{AUDIENCE, Account, BoundTo};
use gaggle_sched::state::Object;
use k8s_openapi::jiff::Timestamp;
use serde_json::{Value, json};
use std::sync::Arc;

/// How long a token is good for when nobody says, and the least and the most that can be said.
const DEFAULT_S: i64 = 3600;
const SHORTEST_S: i64 = 600;
const LONGEST_S: i64 = 1 << 32;
/// What is signed is not good for longer, whatever was asked for.
const SIGNED_S: u32 = super::credentials::LONGEST_S;
/// Audiences that one token can be for.
const AUDIENCES: usize = 32;

/// `POST` of a TokenRequest: the same with the token in its status.
pub fn request(state: &ApiState, target: &Target, mut request: Value) -> Result<Value, ApiError> {
    if !request.is_object() {
        return Err(ApiError::bad_request("the body is not an object"));
    }
    let account = read::current(state, target)?;
    if account.is_terminating() {
        return Err(ApiError::not_found(&target.kind, &target.name));
    }
    let seconds = int(&request, "/spec/expirationSeconds").unwrap_or(DEFAULT_S);
    let invalid = |why: &str| {
        let why = format!("TokenRequest.authentication.k8s.io \"\" is invalid: spec.{why}");
        ApiError::new(422, "Invalid", why)
    };
    if seconds < SHORTEST_S {
        let why = "may not specify a duration less than 10 minutes";
        return Err(invalid(&format!("expirationSeconds: Invalid value: {seconds}: {why}")));
    }
    if seconds > LONGEST_S {
        let why = "may not specify a duration larger than 2^32 seconds";
        return Err(invalid(&format!("expirationSeconds: Invalid value: {seconds}: {why}")));
    }
    let audiences: Vec<String> = items(&request, "/spec/audiences")
        .iter()
        .filter_map(Value::as_str)
        .filter(|audience| !audience.is_empty())
        .map(str::to_owned)
        .collect();
    if audiences.len() > AUDIENCES {
        return Err(invalid(&format!("audiences: Too many: must have at most {AUDIENCES} items")));
    }
    let holder = Account {
        namespace: target.namespace.clone(),
        name: target.name.clone(),
        uid: account.uid().to_owned(),
        bound: bound(state, target, request.pointer("/spec/boundObjectRef"))?,
    };
    let granted = u32::try_from(seconds).unwrap_or(SIGNED_S).min(SIGNED_S);
    let issued = state.tokens.for_account(holder, audiences.clone(), granted);
    let expires = Timestamp::from_second(issued.expires).map_err(ApiError::internal)?;
    set(&mut request, "apiVersion", "authentication.k8s.io/v1");
    set(&mut request, "kind", "TokenRequest");
    let spec = child(&mut request, "spec");
    set(spec, "expirationSeconds", granted);
    set(spec, "audiences", if audiences.is_empty() { vec![AUDIENCE.to_owned()] } else { audiences });
    let metadata = child(&mut request, "metadata");
    set(metadata, "name", target.name.as_str());
    set(metadata, "namespace", target.namespace.as_str());
    set(&mut request, "status", json!({"token": issued.token, "expirationTimestamp": expires.to_string()}));
    Ok(request)
}

/// What the token is not to outlive.
fn bound(state: &ApiState, target: &Target, to: Option<&Value>) -> Result<Option<BoundTo>, ApiError> {
    let Some(to) = to.filter(|to| !to.is_null()) else { return Ok(None) };
    let (kind, name, uid) = (text(to, "/kind"), text(to, "/name"), text(to, "/uid"));
    let plural = match (text(to, "/apiVersion"), kind) {
        ("v1", "Pod") => "pods",
        ("v1", "Secret") => "secrets",
        (version, kind) => {
            return Err(ApiError::bad_request(format!(
                "cannot bind token for serviceaccount {:?} to {version}, Kind={kind}: a Pod or a Secret of v1 will do",
                target.name
            )));
        }
    };
    let of = kinds::find("", "v1", plural).ok_or_else(ApiError::no_such_path)?;
    let namespace = target.namespace.clone();
    let object: Arc<Object> = read::current(
        state,
        &Target { kind: of.clone(), namespace, name: name.to_owned(), subresource: None },
    )?;
    let pods = text(object.value(), "/spec/serviceAccountName");
    let pods = if pods.is_empty() { "default" } else { pods };
    if kind == "Pod" && pods != target.name {
        let why = format!(
            "cannot bind token for serviceaccount {:?} to pod running with different serviceaccount name.",
            target.name
        );
        return Err(ApiError::bad_request(why));
    }
    if !uid.is_empty() && uid != object.uid() {
        let why = format!(
            "the UID in the bound object reference ({uid}) does not match the UID in record. The object might have \
             been deleted and then recreated"
        );
        return Err(ApiError::conflict(of, name, &why));
    }
    Ok(Some(BoundTo { kind: kind.to_owned(), name: name.to_owned(), uid: object.uid().to_owned() }))
}
