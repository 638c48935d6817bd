//! Which running container a conversation means, and where a pod's ports are.

use super::engine::{EndOfInput, EngineError, RunState};
use super::identity::{Observed, PodId, Role};
use super::spec::find_container;
use crate::pods::StreamError;
use k8s_openapi::api::core::v1::Pod;
use std::collections::BTreeMap;

/// A container on the engine that can be talked with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Running {
    pub id: String,
    /// Whether its own process has a terminal.
    pub tty: bool,
    /// What becomes of its own process' input when a client has no more.
    pub end: EndOfInput,
}

/// Finds the container, or says in Kubernetes' words why nobody can talk with it.
pub fn running(
    wanted: Option<&Pod>,
    pod: &PodId,
    containers: &BTreeMap<String, Observed>,
    name: &str,
) -> Result<Running, StreamError> {
    let missing = || StreamError::NotFound(format!("container not found (\"{name}\")"));
    let role = Role::Container(name.to_owned());
    let newest = containers
        .values()
        .filter(|observed| observed.role == role)
        .max_by_key(|observed| observed.restart_count);
    match newest.map(|observed| (&observed.id, &observed.state)) {
        Some((id, RunState::Running { .. })) => {
            // One that only waits for its end is nobody's to talk with, and nothing says whether it has a terminal.
            let spec = wanted.and_then(|pod| find_container(pod.spec.as_ref()?, name)).ok_or_else(missing)?;
            let once = spec.stdin_once == Some(true);
            Ok(Running {
                id: id.clone(),
                tty: spec.tty == Some(true),
                end: if once { EndOfInput::Closes } else { EndOfInput::Stays },
            })
        }
        Some((_, RunState::Exited(exit))) => Err(StreamError::BadRequest(format!(
            "container \"{name}\" in pod \"{}\" is not running: it ended with exit code {}",
            pod.name, exit.code
        ))),
        Some((_, RunState::Created)) | None => Err(missing()),
    }
}

/// Where the pod's ports are reached from this desktop.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Address {
    pub host: String,
    /// The container whose network the pod has; `None` where that is the desktop's.
    pub sandbox: Option<String>,
}

/// Finds the pod's address, or says why it has none.
pub fn address(
    wanted: Option<&Pod>,
    pod: &PodId,
    containers: &BTreeMap<String, Observed>,
) -> Result<Address, StreamError> {
    let sandbox = containers
        .values()
        .find(|observed| observed.role == Role::Sandbox && observed.is_running())
        .ok_or_else(|| StreamError::BadRequest(format!("pod \"{}\" is not running", pod.name)))?;
    let host = wanted.and_then(|pod| pod.spec.as_ref()).is_some_and(|spec| spec.host_network == Some(true));
    match sandbox.ips.first() {
        _ if host => Ok(Address { host: "127.0.0.1".to_owned(), sandbox: None }),
        Some(ip) => Ok(Address { host: ip.clone(), sandbox: Some(sandbox.id.clone()) }),
        None => Err(StreamError::BadRequest(format!("pod \"{}\" has no address yet", pod.name))),
    }
}

/// What the engine said, as the API passes it on.
pub fn refusal(error: EngineError) -> StreamError {
    match error {
        EngineError::NotFound(why) => StreamError::NotFound(why),
        EngineError::Conflict(why) | EngineError::Refused(why) => StreamError::BadRequest(why),
        EngineError::Unreachable { .. } => StreamError::Unavailable(error.to_string()),
    }
}
