//! Versions and health.

use super::ApiState;
use super::status::json_response;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use serde_json::json;

/// The Kubernetes version whose behaviour is served, with ours behind it.
pub const GIT_VERSION: &str = concat!("v1.32.0+gaggle-", env!("CARGO_PKG_VERSION"));

/// `GET /version`
pub async fn version() -> Response {
    let os = std::env::consts::OS;
    let arch = match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    };
    json_response(
        200,
        &json!({"major": "1", "minor": "32", "gitVersion": GIT_VERSION, "gitCommit": "", "gitTreeState": "clean",
            "buildDate": "1970-01-01T00:00:00Z", "goVersion": "", "compiler": "rustc",
            "platform": format!("{os}/{arch}")}),
    )
}

/// `GET /healthz` and `GET /livez`: this process answers.
pub async fn alive() -> &'static str {
    "ok"
}

/// `GET /readyz`: this desktop has a view of the group and writes would be ordered.
pub async fn ready(State(state): State<ApiState>) -> Response {
    if *state.quorum.borrow() {
        return "ok".into_response();
    }
    let why =
        "[-]quorum failed: less than half of the cluster's desktops can be reached\nreadyz check failed\n";
    (StatusCode::SERVICE_UNAVAILABLE, why).into_response()
}
