//! What users should read in `kubectl describe` when a status changes.

use super::standing::statuses;
use k8s_openapi::api::core::v1::{ContainerStateWaiting, ContainerStatus, PodStatus};

/// An event about a pod, in Kubernetes' words.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PodNote {
    pub warning: bool,
    pub reason: &'static str,
    pub message: String,
}

impl PodNote {
    pub fn normal(reason: &'static str, message: impl Into<String>) -> Self {
        Self { warning: false, reason, message: message.into() }
    }

    pub fn warning(reason: &'static str, message: impl Into<String>) -> Self {
        Self { warning: true, reason, message: message.into() }
    }
}

/// The notes that a change of status is worth.
pub fn notes_between(before: Option<&PodStatus>, after: &PodStatus) -> Vec<PodNote> {
    let mut notes = Vec::new();
    for status in statuses(after) {
        let Some(waiting) = waiting(status) else { continue };
        let old =
            before.into_iter().flat_map(statuses).find(|old| old.name == status.name).and_then(self::waiting);
        if old == Some(waiting) {
            continue;
        }
        let same_reason = old.is_some_and(|old| old.reason == waiting.reason);
        notes.extend(note(status, waiting, same_reason));
    }
    notes
}

fn waiting(status: &ContainerStatus) -> Option<&ContainerStateWaiting> {
    status.state.as_ref()?.waiting.as_ref()
}

fn note(status: &ContainerStatus, waiting: &ContainerStateWaiting, same_reason: bool) -> Option<PodNote> {
    let message = waiting.message.clone().unwrap_or_default();
    match waiting.reason.as_deref()? {
        "CrashLoopBackOff" if !same_reason => {
            let rest = message.split_once("failed container=").map_or("", |(_, rest)| rest);
            let rest = rest.replacen(" pod=", " in pod ", 1);
            Some(PodNote::warning("BackOff", format!("Back-off restarting failed container {rest}")))
        }
        "ImagePullBackOff" if !same_reason => {
            Some(PodNote::normal("BackOff", format!("Back-off pulling image \"{}\"", status.image)))
        }
        "ErrImageNeverPull" if !same_reason => Some(PodNote::warning("ErrImageNeverPull", message)),
        "InvalidImageName" if !same_reason => Some(PodNote::warning("InspectFailed", message)),
        "CreateContainerConfigError" => Some(PodNote::warning("Failed", format!("Error: {message}"))),
        "ContainerCreating" if message.starts_with("MountVolume") => {
            Some(PodNote::warning("FailedMount", message))
        }
        _ => None,
    }
}
