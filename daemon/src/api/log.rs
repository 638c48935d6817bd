//! `pods/NAME/log`: a container's output, wherever the pod runs.

use super::ApiState;
use super::query::Query;
use super::read;
use super::status::ApiError;
use super::stream::request;
use super::target::Target;
use crate::pods::LogOptions;
use axum::body::Body;
use axum::http::{HeaderValue, header};
use axum::response::Response;
use serde_json::Value;

pub async fn log(state: &ApiState, target: &Target, query: &Query) -> Result<Response, ApiError> {
    let pod = read::current(state, target)?;
    let pod = pod.value();
    let options = options(query, pod, &target.name)?;
    let pod = request::pod_ref(target, pod)?;
    let stream = state.pods.logs(&pod, &options).await.map_err(ApiError::from_stream)?;
    let mut response = Response::new(Body::from_stream(stream));
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("text/plain"));
    Ok(response)
}

fn options(query: &Query, pod: &Value, name: &str) -> Result<LogOptions, ApiError> {
    let container = request::container(query, pod, name)?;
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
