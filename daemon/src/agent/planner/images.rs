//! Which image a start needs, and whether this desktop has it.

use super::backoff::{after, delay};
use super::{Action, Draft, Input, PullState, Waiting};
use crate::agent::engine::Image;
use k8s_openapi::api::core::v1::Container;
use std::collections::BTreeMap;
use std::time::Duration;

/// The images on this desktop, by every name they answer to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ImageIndex(BTreeMap<String, String>);

impl ImageIndex {
    pub fn new(images: &[Image]) -> Self {
        let named = |image: &Image| {
            let names = image.names.iter().chain(&image.digests).map(|name| familiar(name));
            names.chain([image.id.clone()]).map(|name| (name, image.id.clone())).collect::<Vec<_>>()
        };
        Self(images.iter().flat_map(named).collect())
    }

    /// The content id of an image as a pod names it.
    pub fn find(&self, image: &str) -> Option<&str> {
        self.0.get(&familiar(image)).map(String::as_str)
    }

    /// Every name, sorted, without content ids.
    pub fn names(&self) -> Vec<String> {
        self.0.keys().filter(|name| !name.starts_with("sha256:")).cloned().collect()
    }
}

/// An image's name as Docker lists it: without the default registry, with a tag.
pub fn familiar(image: &str) -> String {
    let name = image.strip_prefix("docker.io/").or_else(|| image.strip_prefix("index.docker.io/"));
    let name = name.map_or(image, |name| name.strip_prefix("library/").unwrap_or(name));
    let last = name.rsplit('/').next().unwrap_or(name);
    if last.contains(':') || last.contains('@') || name.starts_with("sha256:") {
        name.to_owned()
    } else {
        format!("{name}:latest")
    }
}

/// Kubernetes' default: `Always` for `:latest` and untagged names.
fn policy(container: &Container) -> &str {
    match container.image_pull_policy.as_deref() {
        Some(policy) if !policy.is_empty() => policy,
        _ if familiar(container.image.as_deref().unwrap_or_default()).ends_with(":latest") => "Always",
        _ => "IfNotPresent",
    }
}

/// For how long a failed pull is shown as such before it shows as a back-off.
const FAILURE_SHOWN: Duration = Duration::from_secs(3);

/// Whether the image is there for this start; else why not, and a pull if one is due.
pub fn ready(
    input: &Input,
    container: &Container,
    restart_count: u32,
    draft: &mut Draft,
) -> Result<(), Waiting> {
    let image = container.image.as_deref().unwrap_or_default();
    let creating = || Waiting::new("ContainerCreating", "");
    if image.is_empty() || image.chars().any(|c| c.is_whitespace() || c.is_control()) {
        let message = format!("couldn't parse image name \"{image}\": invalid reference format");
        return Err(Waiting::new("InvalidImageName", message));
    }
    let present = input.images.find(image).is_some();
    let mut pull = || {
        let (container, image) = (container.name.clone(), image.to_owned());
        draft.actions.push(Action::Pull { container, restart_count, image });
    };
    let known = input.memory.pulls.get(&(container.name.clone(), restart_count));
    let Some(known) = known else {
        return match policy(container) {
            "Never" if present => Ok(()),
            "Never" => Err(Waiting::new(
                "ErrImageNeverPull",
                format!("Container image \"{image}\" is not present with pull policy of Never"),
            )),
            "IfNotPresent" if present => Ok(()),
            _ => {
                pull();
                Err(creating())
            }
        };
    };
    match (known.state, &known.failure) {
        (PullState::Done, _) if present => Ok(()),
        // It was there and is not any more.
        (PullState::Done, _) => {
            pull();
            Err(creating())
        }
        (PullState::Pending, None) => Err(creating()),
        // Somebody else has put it there.
        (PullState::Failed, _) if present && policy(container) != "Always" => Ok(()),
        (PullState::Failed, None) => {
            pull();
            Err(creating())
        }
        (state, Some(failure)) => {
            let retry_at = after(failure.at, delay(known.failures));
            let shown_until = after(failure.at, FAILURE_SHOWN);
            if state == PullState::Failed {
                if input.now < retry_at {
                    draft.wake(if input.now < shown_until { shown_until } else { retry_at });
                } else {
                    draft.actions.push(Action::Pull {
                        container: container.name.clone(),
                        restart_count,
                        image: image.to_owned(),
                    });
                }
            }
            Err(if input.now < shown_until {
                Waiting::new("ErrImagePull", failure.message.clone())
            } else {
                Waiting::new(
                    "ImagePullBackOff",
                    format!("Back-off pulling image \"{image}\": ErrImagePull: {}", failure.message),
                )
            })
        }
    }
}
