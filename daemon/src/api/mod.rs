//! The Kubernetes API, which every desktop serves alike.
//!
//! Owns the wire: paths, forms, defaults, validation, patches, tables and errors as Kubernetes clients know them.
//! It reads the desktop's own view and writes through [`Propose`]; it must never know who orders writes, how
//! desktops talk to one another, or what runs containers.
//!
//! What is particular to a kind stands in [`kinds`], one entry each.

pub mod access;
mod account_token;
mod admission;
pub mod apply;
pub mod auth;
mod autoscaling_v1;
mod body;
mod commit;
mod contention;
mod create;
mod credentials;
mod defaults;
pub mod definition;
mod delete;
mod discovery;
mod dispatch;
pub mod kinds;
mod log;
mod metrics;
mod negotiate;
mod openapi;
mod page;
pub mod patch;
mod protobuf;
mod query;
mod read;
mod reviews;
mod scale;
pub mod schema;
mod selector;
pub mod serve;
pub mod status;
mod stream;
mod strict;
mod table;
mod target;
mod update;
mod validate;
mod value;
pub mod version;
mod watch;

pub use auth::{Authenticate, Tokens, User, require_token};
pub use serve::serve;

use crate::documents::Documents;
use crate::pods::PodStreams;
use crate::tokens::TokenKeeper;
use crate::usage::Usages;
use axum::body::Body;
use axum::extract::State;
use axum::http::{HeaderMap, Uri};
use axum::middleware::from_fn_with_state;
use axum::response::IntoResponse;
use axum::routing::{MethodRouter, get, post};
use axum::{Extension, Router};
use gaggle_sched::state::{Propose, View};
use k8s_openapi::jiff::Timestamp;
use std::sync::Arc;
use tokio::sync::watch::Receiver;

/// All that the API needs of the desktop that it runs on.
#[derive(Clone)]
pub struct ApiState {
    pub view: View,
    /// What is served.
    pub kinds: kinds::Kinds,
    pub propose: Arc<dyn Propose>,
    pub documents: Arc<dyn Documents>,
    pub pods: Arc<dyn PodStreams>,
    pub usages: Arc<dyn Usages>,
    pub tokens: Arc<TokenKeeper>,
    /// This desktop's name.
    pub node: String,
    /// Whether writes would be ordered now. While it is false they are kept as intent without being proposed.
    pub quorum: Receiver<bool>,
}

/// The whole API behind its tokens.
pub fn router(state: ApiState) -> Router {
    router_with(state, Router::new())
}

/// The API and `more` routes, such as the daemon's own, all behind the same tokens and the same rules.
pub fn router_with(state: ApiState, more: Router) -> Router {
    let (auth, gate): (Arc<dyn Authenticate>, _) = (state.tokens.clone(), state.clone());
    let mut router = Router::new();
    for review in reviews::ALL {
        let answer =
            move |State(state): State<ApiState>,
                  Extension(user): Extension<User>,
                  uri: Uri,
                  headers: HeaderMap,
                  body: Body| async move { review.answer(&state, &user, &uri, &headers, body).await };
        router = router.route(&review.route(), post(answer));
    }
    // Some clients end these with a slash.
    let listings: [(&str, MethodRouter<ApiState>); 6] = [
        ("/version", get(version::version)),
        ("/api", get(discovery::api)),
        ("/api/v1", get(discovery::core_resources)),
        ("/apis", get(discovery::apis)),
        ("/apis/{group}", get(discovery::api_group)),
        ("/apis/{group}/{version}", get(discovery::group_resources)),
    ];
    for (path, answer) in listings {
        router = router.route(path, answer.clone()).route(&format!("{path}/"), answer);
    }
    router
        .route("/healthz", get(version::alive))
        .route("/livez", get(version::alive))
        .route("/readyz", get(version::ready))
        .route("/openapi/v2", get(openapi::version_2))
        .route("/openapi/v3", get(openapi::index))
        .route("/openapi/v3/{*path}", get(openapi::group_document))
        .route(credentials::USERS, post(credentials::users))
        .route(credentials::REVOCATIONS, post(credentials::revocations))
        .merge(metrics::routes())
        .fallback(dispatch::resources)
        .method_not_allowed_fallback(async || status::ApiError::method_not_allowed().into_response())
        .with_state(state)
        .merge(more)
        .layer(from_fn_with_state(gate, access::guard))
        .layer(from_fn_with_state(auth, require_token))
}

/// The time as Kubernetes writes it: whole seconds.
fn now() -> Timestamp {
    let now = Timestamp::now();
    Timestamp::from_second(now.as_second()).unwrap_or(now)
}

#[cfg(test)]
mod tests;
