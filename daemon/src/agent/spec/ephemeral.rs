//! Containers that are added to a pod that runs, as `kubectl debug` adds them.
//! (Kubernetes, "Ephemeral Containers".)

use k8s_openapi::api::core::v1::{Container, EphemeralContainer, PodSpec};
use std::borrow::Cow;

/// An ephemeral container as the container that it is; what it cannot have is left out.
pub fn as_container(ephemeral: &EphemeralContainer) -> Container {
    let ephemeral = ephemeral.clone();
    Container {
        args: ephemeral.args,
        command: ephemeral.command,
        env: ephemeral.env,
        env_from: ephemeral.env_from,
        image: ephemeral.image,
        image_pull_policy: ephemeral.image_pull_policy,
        name: ephemeral.name,
        security_context: ephemeral.security_context,
        stdin: ephemeral.stdin,
        stdin_once: ephemeral.stdin_once,
        termination_message_path: ephemeral.termination_message_path,
        termination_message_policy: ephemeral.termination_message_policy,
        tty: ephemeral.tty,
        volume_mounts: ephemeral.volume_mounts,
        working_dir: ephemeral.working_dir,
        ..Container::default()
    }
}

/// All containers of a pod, whatever their part in it.
pub fn all_containers(spec: &PodSpec) -> impl Iterator<Item = Cow<'_, Container>> {
    let declared = spec.containers.iter().chain(spec.init_containers.iter().flatten());
    let ephemeral = spec.ephemeral_containers.iter().flatten().map(as_container);
    declared.map(Cow::Borrowed).chain(ephemeral.map(Cow::Owned))
}

/// The container of this name, whatever its part in the pod.
pub fn find_container<'s>(spec: &'s PodSpec, name: &str) -> Option<Cow<'s, Container>> {
    all_containers(spec).find(|container| container.name == name)
}

fn find<'s>(spec: &'s PodSpec, name: &str) -> Option<&'s EphemeralContainer> {
    spec.ephemeral_containers.iter().flatten().find(|ephemeral| ephemeral.name == name)
}

pub fn is_ephemeral(spec: &PodSpec, name: &str) -> bool {
    find(spec, name).is_some()
}

/// The container whose processes an ephemeral one is to see.
pub fn process_target<'s>(spec: &'s PodSpec, name: &str) -> Option<&'s str> {
    find(spec, name)?.target_container_name.as_deref().filter(|target| !target.is_empty())
}
