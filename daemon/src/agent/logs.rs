//! Which container a log request means, and its log as Kubernetes gives it out.

use super::engine::{Engine, LogQuery, RunState};
use super::identity::{Observed, PodId, Role};
use super::planner::status_of;
use super::spec::find_container;
use crate::pods::{ByteStream, LogOptions, StreamError};
use futures::StreamExt;
use k8s_openapi::api::core::v1::{Pod, PodStatus};
use k8s_openapi::jiff::Timestamp;
use std::collections::BTreeMap;
use std::sync::Arc;

/// The container on the engine whose log is meant.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogTarget {
    pub id: String,
}

/// Finds it, or says in Kubernetes' words why there is none.
pub fn target(
    wanted: Option<&Pod>,
    pod: &PodId,
    containers: &BTreeMap<String, Observed>,
    status: Option<&PodStatus>,
    options: &LogOptions,
) -> Result<LogTarget, StreamError> {
    let spec = wanted.and_then(|pod| pod.spec.as_ref());
    let name = match options.container.as_str() {
        "" => spec
            .and_then(|spec| spec.containers.first())
            .map(|container| container.name.clone())
            .unwrap_or_default(),
        name => name.to_owned(),
    };
    let in_spec = spec.is_some_and(|spec| find_container(spec, &name).is_some());
    let role = Role::Container(name.clone());
    let mut found: Vec<_> = containers.values().filter(|observed| observed.role == role).collect();
    if !in_spec && found.is_empty() {
        return Err(StreamError::BadRequest(format!("container {name} is not valid for pod {}", pod.name)));
    }
    found.retain(|observed| observed.state != RunState::Created);
    found.sort_by_key(|observed| observed.restart_count);
    let newest = found.pop();
    if options.previous {
        // While a restart waits, the newest is the one that ended before it.
        let waits = waiting(status, &name).is_some();
        let previous = if waits { newest } else { found.pop() };
        return previous.map(|observed| LogTarget { id: observed.id.clone() }).ok_or_else(|| {
            let pod = &pod.name;
            StreamError::BadRequest(format!(
                "previous terminated container \"{name}\" in pod \"{pod}\" not found"
            ))
        });
    }
    match newest {
        Some(observed) => Ok(LogTarget { id: observed.id.clone() }),
        None => {
            let reason = waiting(status, &name).unwrap_or("ContainerCreating");
            let pod = &pod.name;
            let hint = match reason {
                "ErrImagePull" | "ImagePullBackOff" => "trying and failing to pull image",
                reason => reason,
            };
            Err(StreamError::BadRequest(match reason {
                "ErrImagePull" | "ImagePullBackOff" => {
                    format!("container \"{name}\" in pod \"{pod}\" is waiting to start: {hint}")
                }
                _ => format!("container \"{name}\" in pod \"{pod}\" is waiting to start: {reason}"),
            }))
        }
    }
}

fn waiting<'s>(status: Option<&'s PodStatus>, name: &str) -> Option<&'s str> {
    let status = status_of(status?, name)?;
    status.state.as_ref()?.waiting.as_ref()?.reason.as_deref()
}

/// Opens the log.
pub fn open(
    engine: &Arc<dyn Engine>,
    target: &LogTarget,
    options: &LogOptions,
    now: Timestamp,
) -> Result<ByteStream, StreamError> {
    let since_time = match options.since_time.as_deref().filter(|time| !time.is_empty()) {
        Some(text) => Some(text.parse::<Timestamp>().map_err(|error| {
            StreamError::BadRequest(format!("sinceTime \"{text}\" is not an RFC 3339 time: {error}"))
        })?),
        None => None,
    };
    let ago = options.since_seconds.and_then(|seconds| i64::try_from(seconds).ok());
    let since_s = ago.map(|ago| now.as_second().saturating_sub(ago)).or(since_time.map(Timestamp::as_second));
    let query = LogQuery {
        follow: options.follow,
        timestamps: options.timestamps,
        tail_lines: options.tail_lines,
        since_s,
    };
    let logs = engine.logs(&target.id, &query).map(|part| part.map_err(std::io::Error::other));
    let Some(limit) = options.limit_bytes else { return Ok(logs.boxed()) };
    let limited = logs.scan(limit, |left, part| {
        let part = part.map(|mut bytes| {
            bytes.truncate(usize::try_from(*left).unwrap_or(usize::MAX));
            *left -= bytes.len() as u64;
            bytes
        });
        // An empty part says that the limit is reached.
        let over = part.as_ref().is_ok_and(Vec::is_empty);
        futures::future::ready((!over).then_some(part))
    });
    Ok(limited.boxed())
}
