//! From a request to the function that answers it.

use super::auth::User;
use super::body::{self, Decoded};
use super::commit::Done;
use super::delete::{self, Deleted, Options};
use super::kinds::Subresource;
use super::negotiate::Form;
use super::patch::Patch;
use super::query::{Query, Run};
use super::scale::{self, Wish};
use super::status::{ApiError, json_response, warn};
use super::target::Target;
use super::update::{self, Made};
use super::value::{int, text};
use super::{ApiState, account_token, create, log, read, stream, watch};
use axum::extract::{Request, State};
use axum::http::{HeaderMap, Method};
use axum::response::{IntoResponse, Response};
use serde_json::{Value, json};

/// Everything below `/api/v1` and `/apis/GROUP/VERSION`.
pub async fn resources(State(state): State<ApiState>, request: Request) -> Response {
    match answer(&state, request).await {
        Ok(response) => response,
        Err(error) => {
            if error.code >= 500 {
                tracing::warn!(code = error.code, error = %error.message, "a request failed");
            }
            error.into_response()
        }
    }
}

async fn answer(state: &ApiState, request: Request) -> Result<Response, ApiError> {
    let (parts, body) = request.into_parts();
    let target = Target::parse(&state.kinds, parts.uri.path())?;
    let user = parts.extensions.get::<User>().cloned().ok_or_else(ApiError::unauthorized)?;
    let query = Query::of(&parts.uri)?.of_request(&parts.method, &parts.headers).asked_by(user);
    if let Some(part @ (Subresource::Exec | Subresource::Attach | Subresource::PortForward)) =
        target.subresource
        && matches!(parts.method, Method::GET | Method::POST)
    {
        return stream::open(state, &target, &query, part, parts).await;
    }
    let headers = parts.headers;
    match parts.method {
        Method::GET | Method::HEAD => return get(state, &target, &query, &headers).await,
        Method::POST | Method::PUT | Method::PATCH | Method::DELETE => {}
        _ => return Err(ApiError::method_not_allowed()),
    }
    let bytes = body::read(body).await?;
    let media = body::media_type(&headers).to_owned();
    // Negotiated first: a write whose answer nobody would understand must not take place.
    let form = Form::of(&headers, query.text("includeObject"))?;
    let show = |done: Done, code: u16, warnings: Vec<String>| {
        let object = form.object(&target.kind, &done.object, super::now());
        let told = target.kind.warnings(&done.object);
        with_warnings(json_response(code, &object), warnings.into_iter().chain(told).chain(done.warning))
    };
    match (parts.method, target.name.is_empty(), target.subresource) {
        (Method::POST, true, None) => {
            let decoded = body::decode(&media, &bytes)?;
            let (done, warnings) = create::create(state, &target, &query, decoded).await?;
            Ok(show(done, 201, warnings))
        }
        (Method::POST, false, Some(Subresource::Eviction)) => {
            let eviction = body::decode(&media, &bytes)?.value;
            evict(state, &target, &query, &eviction).await
        }
        (Method::POST, false, Some(Subresource::Token)) => {
            let asked = body::decode(&media, &bytes)?.value;
            Ok(json_response(201, &account_token::request(state, &target, asked)?))
        }
        (
            Method::PUT,
            false,
            None | Some(Subresource::Status | Subresource::Finalize | Subresource::EphemeralContainers),
        ) => {
            let decoded = body::decode(&media, &bytes)?;
            let (done, warnings) = update::replace(state, &target, &query, decoded).await?;
            Ok(show(done, 200, warnings))
        }
        (Method::PATCH, false, None | Some(Subresource::Status | Subresource::EphemeralContainers)) => {
            let (done, warnings, made) = update::patch(state, &target, &query, &media, &bytes).await?;
            Ok(show(done, if made == Made::New { 201 } else { 200 }, warnings))
        }
        (Method::PUT, false, Some(Subresource::Scale)) => {
            let wish = Wish::Whole(body::decode(&media, &bytes)?.value);
            let done = scale::change(state, &target, &query, wish).await?;
            Ok(with_warnings(json_response(200, &done.object), done.warning))
        }
        (Method::PATCH, false, Some(Subresource::Scale)) => {
            let wish = Wish::Patch(Patch::parse(&media, &bytes)?.0);
            let done = scale::change(state, &target, &query, wish).await?;
            Ok(with_warnings(json_response(200, &done.object), done.warning))
        }
        (Method::DELETE, one, None) => {
            let Decoded { value, .. } = match bytes.is_empty() {
                true => Decoded::default(),
                false => body::decode(&media, &bytes)?,
            };
            let options = Options::of(&query, &value)?;
            if one {
                return delete_collection(state, &target, &query, &options).await;
            }
            Ok(deleted(&target, delete::delete(state, &target, &options).await?))
        }
        _ => Err(ApiError::method_not_allowed()),
    }
}

async fn get(
    state: &ApiState,
    target: &Target,
    query: &Query,
    headers: &HeaderMap,
) -> Result<Response, ApiError> {
    match (target.subresource, target.name.is_empty()) {
        (Some(Subresource::Log), _) => log::log(state, target, query).await,
        (Some(Subresource::Scale), _) => {
            let form = Form::of(headers, query.text("includeObject"))?;
            Ok(json_response(200, &scale::get(state, target, form)?))
        }
        // Streams were opened before; HEAD remains.
        (
            Some(
                Subresource::Eviction
                | Subresource::Token
                | Subresource::Finalize
                | Subresource::Exec
                | Subresource::Attach
                | Subresource::PortForward,
            ),
            _,
        ) => Err(ApiError::method_not_allowed()),
        (None, _) if query.flag("watch")? => watch::watch(state, target, query, headers).await,
        (None, true) => read::list(state, target, query, headers).await,
        (None | Some(Subresource::Status | Subresource::EphemeralContainers), _) => {
            read::get(state, target, query, headers).await
        }
    }
}

/// Deletion on behalf of a drain, as far as disruption budgets allow it.
async fn evict(
    state: &ApiState,
    target: &Target,
    query: &Query,
    eviction: &Value,
) -> Result<Response, ApiError> {
    let named = text(eviction, "/metadata/name");
    if !named.is_empty() && named != target.name {
        let message =
            format!("name in URL ({}) does not match name in Eviction object ({named})", target.name);
        return Err(ApiError::bad_request(message));
    }
    let empty = Value::Null;
    let options = Options::of(query, eviction.get("deleteOptions").unwrap_or(&empty))?;
    if query.run()? == Run::Real && int(eviction, "/deleteOptions/gracePeriodSeconds") == Some(0) {
        tracing::debug!(pod = %target.name, "an eviction leaves no grace");
    }
    delete::evict(state, target, &options).await?;
    Ok(json_response(201, &success(target, "")))
}

async fn delete_collection(
    state: &ApiState,
    target: &Target,
    query: &Query,
    options: &Options,
) -> Result<Response, ApiError> {
    let (objects, warning) = delete::delete_collection(state, target, query, options).await?;
    let metadata = json!({"resourceVersion": state.view.revision().to_string()});
    let list = Form::Object.list(&target.kind, &objects, metadata, super::now());
    Ok(with_warnings(json_response(200, &list), warning))
}

fn deleted(target: &Target, deleted: Deleted) -> Response {
    let (answer, warning) = match deleted {
        Deleted::Gone(done) => (success(target, text(&done.object, "/metadata/uid")), done.warning),
        Deleted::Terminating(done) => (target.kind.shown(&done.object).into_owned(), done.warning),
    };
    with_warnings(json_response(200, &answer), warning)
}

fn success(target: &Target, uid: &str) -> Value {
    let mut details = json!({"name": target.name, "kind": target.kind.plural});
    for (field, value) in [("group", target.kind.group.as_str()), ("uid", uid)] {
        if !value.is_empty() {
            details[field] = value.into();
        }
    }
    json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success", "details": details})
}

fn with_warnings(mut response: Response, warnings: impl IntoIterator<Item = String>) -> Response {
    for warning in warnings {
        warn(&mut response, &warning);
    }
    response
}
