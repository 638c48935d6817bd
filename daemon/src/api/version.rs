//! Versions and health.

use super::ApiState;
use super::status::json_response;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use serde_json::json;

/// The Kubernetes version whose behaviour is served, with ours behind it.
pub const GIT_VERSION: &str = concat!("v1.32.0+gaggle-", env!("CARGO_PKG_VERSION"));

/// The version of a desktop that runs this version of gaggle, as Kubernetes clients compare it.
pub fn of_gaggle(version: &str) -> String {
    let ours = GIT_VERSION.strip_suffix(env!("CARGO_PKG_VERSION")).unwrap_or(GIT_VERSION);
    format!("{ours}{version}")
}

/// A machine's architecture by Go's name, which labels and images use; Linux' and Rust's name is the same here.
pub fn kubernetes_arch(machine: &str) -> &str {
    match machine {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        "i386" | "i686" => "386",
        "armv6l" | "armv7l" => "arm",
        other => other,
    }
}

/// `GET /version`
pub async fn version() -> Response {
    let os = std::env::consts::OS;
    let arch = kubernetes_arch(std::env::consts::ARCH);
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
