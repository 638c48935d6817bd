//! `pods/NAME/log`: a container's output, wherever the pod runs.

use super::ApiState;
use super::query::Query;
use super::read;
use super::status::ApiError;
use super::target::Target;
use super::value::{items, text};
use crate::pods::{LogOptions, PodRef, StreamError};
use axum::body::Body;
use axum::http::{HeaderValue, header};
use axum::response::Response;
use serde_json::Value;

pub async fn log(state: &ApiState, target: &Target, query: &Query) -> Result<Response, ApiError> {
    let pod = read::current(state, target)?;
    let pod = pod.value();
    let options = options(query, pod, &target.name)?;
    let node = text(pod, "/spec/nodeName");
    if node.is_empty() {
        let message = format!("pod {} does not have a host assigned", target.name);
        return Err(ApiError::bad_request(message));
    }
    let pod = PodRef {
        namespace: target.namespace.clone(),
        name: target.name.clone(),
        uid: text(pod, "/metadata/uid").to_owned(),
        node: node.to_owned(),
    };
    let stream = state.pods.logs(&pod, &options).await.map_err(|error| match error {
        StreamError::BadRequest(why) => ApiError::bad_request(why),
        StreamError::NotFound(why) => ApiError::new(404, "NotFound", why),
        StreamError::Unavailable(why) => ApiError::unavailable(why),
    })?;
    let mut response = Response::new(Body::from_stream(stream));
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("text/plain"));
    Ok(response)
}

fn options(query: &Query, pod: &Value, name: &str) -> Result<LogOptions, ApiError> {
    let containers: Vec<&str> = ["/spec/initContainers", "/spec/containers", "/spec/ephemeralContainers"]
        .iter()
        .flat_map(|list| items(pod, list))
        .map(|container| text(container, "/name"))
        .collect();
    let container = match query.text("container") {
        "" if items(pod, "/spec/containers").len() > 1 => {
            let message = format!(
                "a container name must be specified for pod {name}, choose one of: [{}]",
                containers.join(" ")
            );
            return Err(ApiError::bad_request(message));
        }
        "" => text(pod, "/spec/containers/0/name"),
        wanted if !containers.contains(&wanted) => {
            return Err(ApiError::bad_request(format!("container {wanted} is not valid for pod {name}")));
        }
        wanted => wanted,
    };
    let since_time = query.text("sinceTime");
    if !since_time.is_empty() && since_time.parse::<k8s_openapi::jiff::Timestamp>().is_err() {
        return Err(ApiError::bad_request(format!("sinceTime {since_time:?} is not a time (RFC 3339)")));
    }
    let since_seconds = query.number("sinceSeconds")?;
    if since_seconds.is_some() && !since_time.is_empty() {
        return Err(ApiError::bad_request("at most one of `sinceTime` or `sinceSeconds` may be specified"));
    }
    Ok(LogOptions {
        container: container.to_owned(),
        follow: query.flag("follow")?,
        previous: query.flag("previous")?,
        timestamps: query.flag("timestamps")?,
        tail_lines: query.number("tailLines")?,
        limit_bytes: query.number("limitBytes")?,
        since_seconds,
        since_time: (!since_time.is_empty()).then(|| since_time.to_owned()),
    })
}
