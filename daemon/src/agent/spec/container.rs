//! One container of a pod.

use super::env::{Environment, environment};
use super::volumes::mount;
use super::{Context, SpecError, Volume, account, is_sidecar, resources};
use crate::agent::engine::{ContainerSpec, Mount, Network};
use crate::agent::identity::{self, PodId, Role, container_name, spec_hash};
use k8s_openapi::api::core::v1::{Capabilities, Container, PodSecurityContext, SecurityContext};
use std::path::PathBuf;

/// Where a container may leave a last word (Kubernetes' default for `terminationMessagePath`).
const MESSAGE_PATH: &str = "/dev/termination-log";

/// The file on this desktop behind a container's `terminationMessagePath`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MessageFile(pub PathBuf);

impl MessageFile {
    pub fn of(dir: &std::path::Path, container: &str, restart_count: u32) -> Self {
        Self(dir.join("messages").join(format!("{container}.{restart_count}")))
    }
}

/// What to create for a container in the sandbox `sandbox_id`.
pub fn container(
    context: &Context,
    container: &Container,
    volumes: &[Volume],
    sandbox_id: &str,
    restart_count: u32,
) -> Result<ContainerSpec, SpecError> {
    let pod = context.spec()?;
    let role = Role::Container(container.name.clone());
    let environment = environment(context, container)?;
    let expand = |words: &Option<Vec<String>>| -> Vec<String> {
        words.iter().flatten().map(|word| environment.expand(word)).collect()
    };
    let mut labels = context.owner.labels_for(context.pod, &role, restart_count);
    labels.insert(identity::SPEC_HASH.to_owned(), spec_hash(container));
    if let Some(policy) = &container.termination_message_policy {
        labels.insert(identity::MESSAGE_POLICY.to_owned(), policy.clone());
    }
    let share = pod.share_process_namespace == Some(true);
    let mut spec = ContainerSpec {
        name: container_name(&PodId::of(context.pod), &role, restart_count),
        image: container.image.clone().unwrap_or_default(),
        labels,
        entrypoint: expand(&container.command),
        cmd: expand(&container.args),
        env: environment.pairs(),
        working_dir: container.working_dir.clone().filter(|dir| !dir.is_empty()),
        tty: container.tty == Some(true),
        stdin: container.stdin == Some(true),
        stdin_once: container.stdin_once == Some(true),
        network: match pod.host_network {
            Some(true) => Network::Host,
            _ => Network::Join(sandbox_id.to_owned()),
        },
        ipc: Some(match pod.host_ipc {
            Some(true) => "host".to_owned(),
            _ => format!("container:{sandbox_id}"),
        }),
        pid: match pod.host_pid {
            Some(true) => Some("host".to_owned()),
            _ => share.then(|| format!("container:{sandbox_id}")),
        },
        mounts: mounts(context, container, volumes, &environment, restart_count)?,
        ..ContainerSpec::default()
    };
    resources::apply(context, container, &mut spec);
    secure(&mut spec, pod.security_context.as_ref(), container)?;
    Ok(spec)
}

fn mounts(
    context: &Context,
    container: &Container,
    volumes: &[Volume],
    environment: &Environment,
    restart_count: u32,
) -> Result<Vec<Mount>, SpecError> {
    let message = MessageFile::of(context.dir, &container.name, restart_count);
    let mut mounts = vec![Mount::Bind {
        source: message.0.to_string_lossy().into_owned(),
        target: container.termination_message_path.clone().unwrap_or_else(|| MESSAGE_PATH.to_owned()),
        read_only: false,
        propagation: None,
    }];
    mounts.extend(account::mount(container, volumes));
    for wanted in container.volume_mounts.iter().flatten() {
        let volume = volumes.iter().find(|volume| volume.name == wanted.name).ok_or_else(|| {
            SpecError::Invalid(format!("volume mount \"{}\" names no volume of the pod", wanted.name))
        })?;
        let sub_path = match wanted.sub_path_expr.as_deref().filter(|path| !path.is_empty()) {
            Some(expression) => Some(environment.expand(expression)),
            None => wanted.sub_path.clone().filter(|path| !path.is_empty()),
        };
        mounts.push(mount(volume, wanted, sub_path.as_deref())?);
    }
    Ok(mounts)
}

fn secure(
    spec: &mut ContainerSpec,
    pod: Option<&PodSecurityContext>,
    container: &Container,
) -> Result<(), SpecError> {
    let none = SecurityContext::default();
    let own = container.security_context.as_ref().unwrap_or(&none);
    let user = own.run_as_user.or_else(|| pod?.run_as_user);
    let group = own.run_as_group.or_else(|| pod?.run_as_group);
    let non_root = own.run_as_non_root.or_else(|| pod?.run_as_non_root) == Some(true);
    if non_root && user == Some(0) {
        return Err(SpecError::Invalid(format!(
            "container's runAsUser breaks non-root policy (container: {})",
            container.name
        )));
    }
    spec.user = match (user, group) {
        (Some(user), Some(group)) => Some(format!("{user}:{group}")),
        (Some(user), None) => Some(user.to_string()),
        (None, Some(group)) => Some(format!(":{group}")),
        (None, None) => None,
    };
    if let Some(pod) = pod {
        let groups = pod.supplemental_groups.iter().flatten().chain(pod.fs_group.iter());
        spec.groups = groups.map(ToString::to_string).collect();
    }
    spec.privileged = own.privileged == Some(true);
    spec.read_only_root = own.read_only_root_filesystem == Some(true);
    spec.no_new_privileges = own.allow_privilege_escalation == Some(false);
    let seccomp = own.seccomp_profile.as_ref().or_else(|| pod?.seccomp_profile.as_ref());
    spec.seccomp_unconfined = seccomp.is_some_and(|profile| profile.type_ == "Unconfined");
    if let Some(Capabilities { add, drop }) = &own.capabilities {
        spec.capabilities_add = add.clone().unwrap_or_default();
        spec.capabilities_drop = drop.clone().unwrap_or_default();
    }
    Ok(())
}

/// The containers of a pod that may run at the same time as its main ones: theirs are the ports.
pub fn lasting(pod: &k8s_openapi::api::core::v1::PodSpec) -> impl Iterator<Item = &Container> {
    let sidecars = pod.init_containers.iter().flatten().filter(|container| is_sidecar(container));
    pod.containers.iter().chain(sidecars)
}
