//! `autoscaling/v1`: HorizontalPodAutoscalers may be created in their older form, as `kubectl autoscale` does.
//!
//! They are kept and read in `autoscaling/v2`, which can say more. So nothing else is served in this version, and
//! discovery does not name it: an update in the older form would take away what that cannot say.

use super::ApiState;
use super::auth::User;
use super::body::{self, Decoded};
use super::create;
use super::kinds;
use super::query::Query;
use super::status::{ApiError, json_response, warn};
use super::target::Target;
use super::value::{child, items, remove, set, text};
use axum::Extension;
use axum::body::Body;
use axum::extract::{Path, State};
use axum::http::{HeaderMap, Method, Uri};
use axum::response::{IntoResponse, Response};
use serde_json::{Value, json};

pub const PATH: &str = "/apis/autoscaling/v1/namespaces/{namespace}/horizontalpodautoscalers";
const CPU_TARGET: &str = "targetCPUUtilizationPercentage";

/// `POST` of one.
pub async fn create(
    State(state): State<ApiState>,
    Extension(user): Extension<User>,
    Path(namespace): Path<String>,
    uri: Uri,
    headers: HeaderMap,
    body: Body,
) -> Response {
    created(&state, user, namespace, &uri, &headers, body).await.unwrap_or_else(IntoResponse::into_response)
}

async fn created(
    state: &ApiState,
    user: User,
    namespace: String,
    uri: &Uri,
    headers: &HeaderMap,
    body: Body,
) -> Result<Response, ApiError> {
    let kind = kinds::find("autoscaling", "v2", "horizontalpodautoscalers");
    let kind = kind.ok_or_else(ApiError::no_such_path)?.clone();
    let query = Query::of(uri)?.of_request(&Method::POST, headers).asked_by(user);
    let bytes = body::read(body).await?;
    let Decoded { mut value, twice } = body::decode(body::media_type(headers), &bytes)?;
    let version = text(&value, "/apiVersion");
    if !matches!(version, "" | "autoscaling/v1") {
        let message = format!(
            "the apiVersion in the data ({version}) does not match the expected apiVersion (autoscaling/v1)"
        );
        return Err(ApiError::bad_request(message));
    }
    if value.is_object() {
        to_v2(&mut value);
    }
    let target = Target { kind, namespace, name: String::new(), subresource: None };
    let (done, warnings) = create::create(state, &target, &query, Decoded { value, twice }).await?;
    let mut response = json_response(201, &to_v1(done.object));
    for warning in warnings.into_iter().chain(done.warning) {
        warn(&mut response, &warning);
    }
    Ok(response)
}

fn to_v2(scaler: &mut Value) {
    set(scaler, "apiVersion", "autoscaling/v2");
    // What has been seen is for the controller to say.
    remove(scaler, "status");
    let Some(percent) = scaler.get_mut("spec").and_then(|spec| remove(spec, CPU_TARGET)) else { return };
    if !percent.is_null() {
        let target = json!({"type": "Utilization", "averageUtilization": percent});
        let metric = json!({"type": "Resource", "resource": {"name": "cpu", "target": target}});
        set(child(scaler, "spec"), "metrics", json!([metric]));
    }
}

/// What the older form can say of an autoscaler.
fn to_v1(mut scaler: Value) -> Value {
    let cpu = |list: &str, amount: &str| -> Option<Value> {
        let is_cpu = |metric: &&Value| text(metric, "/resource/name") == "cpu";
        items(&scaler, list).iter().find(is_cpu)?.pointer(amount).cloned()
    };
    let target = cpu("/spec/metrics", "/resource/target/averageUtilization");
    let current = cpu("/status/currentMetrics", "/resource/current/averageUtilization");
    let mut status = json!({"currentReplicas": 0, "desiredReplicas": 0});
    for (field, value) in pairs_of(&scaler, "/status") {
        if matches!(field, "currentReplicas" | "desiredReplicas" | "lastScaleTime" | "observedGeneration") {
            set(&mut status, field, value.clone());
        }
    }
    if let Some(current) = current {
        set(&mut status, "currentCPUUtilizationPercentage", current);
    }
    let spec = child(&mut scaler, "spec");
    for newer in ["metrics", "behavior"] {
        remove(spec, newer);
    }
    if let Some(target) = target {
        set(spec, CPU_TARGET, target);
    }
    set(&mut scaler, "apiVersion", "autoscaling/v1");
    set(&mut scaler, "status", status);
    scaler
}

fn pairs_of<'a>(value: &'a Value, pointer: &str) -> impl Iterator<Item = (&'a str, &'a Value)> {
    let fields = value.pointer(pointer).and_then(Value::as_object);
    fields.into_iter().flatten().map(|(key, value)| (key.as_str(), value))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_older_form_is_a_metric_of_the_newer_one() {
        let spec = json!({"maxReplicas": 5, "minReplicas": 2, "targetCPUUtilizationPercentage": 80});
        let older = json!({"apiVersion": "autoscaling/v1", "kind": "HorizontalPodAutoscaler", "spec": spec});
        let mut newer = older.clone();
        to_v2(&mut newer);
        let target = json!({"type": "Utilization", "averageUtilization": 80});
        let metrics = json!([{"type": "Resource", "resource": {"name": "cpu", "target": target}}]);
        let expected = json!({"maxReplicas": 5, "minReplicas": 2, "metrics": metrics});
        assert_eq!((&newer["apiVersion"], &newer["spec"]), (&json!("autoscaling/v2"), &expected));
        newer["status"] = json!({"desiredReplicas": 3, "currentMetrics": null, "conditions": []});
        let back = to_v1(newer);
        assert_eq!(back["spec"], older["spec"]);
        assert_eq!(back["status"], json!({"currentReplicas": 0, "desiredReplicas": 3}));
    }
}
