//! The one place through which every request comes in.

use super::attributes::Attributes;
use super::impersonation;
use super::policy::{Policy, Verdict};
use crate::api::ApiState;
use crate::api::auth::{User, open_to_all};
use crate::api::status::ApiError;
use crate::api::target::segments;
use axum::extract::{Request, State};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};

/// For `axum::middleware::from_fn_with_state`, behind the one that finds out who asks: answers 403 where that one
/// may not, and makes the user the one that it wants to be taken for.
pub async fn guard(State(state): State<ApiState>, mut request: Request, next: Next) -> Response {
    match admitted(&state, &request) {
        Ok(user) => {
            request.extensions_mut().insert(user);
            next.run(request).await
        }
        Err(error) => error.into_response(),
    }
}

fn admitted(state: &ApiState, request: &Request) -> Result<User, ApiError> {
    let user = request.extensions().get::<User>().cloned().ok_or_else(ApiError::unauthorized)?;
    let user = impersonation::wished(state, user, request.headers())?;
    let path = request.uri().path();
    if ["/api/", "/apis/"].iter().any(|root| path.starts_with(root)) && segments(path).is_none() {
        // What cannot be read as an object's path must not reach a route that reads it otherwise.
        return Err(ApiError::no_such_path());
    }
    // Whether a desktop is well is told to anybody, also before there is anything in its store.
    if !open_to_all(path) {
        authorize(state, &user, &Attributes::of(request.method(), request.uri()))?;
    }
    Ok(user)
}

/// Whether somebody may do something by what this desktop's view holds.
pub fn authorize(state: &ApiState, user: &User, attributes: &Attributes) -> Result<(), ApiError> {
    match state.view.read(|store| Policy(store).decide(user, attributes)) {
        Verdict::Allowed(_) => Ok(()),
        Verdict::Denied(reason) => {
            tracing::debug!(user = %user.name, ?attributes, "a request is forbidden");
            Err(attributes.refusal(&user.name, &reason))
        }
    }
}
