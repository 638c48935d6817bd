//! Where each container of a pod stands: what the engine shows, completed by what the status already says.

use super::Input;
use crate::agent::engine::{Exit, RunState};
use crate::agent::identity::{Observed, Role};
use crate::agent::spec::as_container;
use k8s_openapi::api::core::v1::{
    Container, ContainerState, ContainerStateTerminated, ContainerStatus, PodStatus,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use k8s_openapi::jiff::Timestamp;
use std::borrow::Cow;
use std::time::Duration;

/// Exit code of a process that was killed (128 + SIGKILL), and Kubernetes' for a container that is lost.
const KILLED: i32 = 137;

/// A container that ended.
#[derive(Clone, Debug, PartialEq)]
pub struct Ended {
    pub restart_count: u32,
    pub terminated: ContainerStateTerminated,
    pub image_id: String,
    pub spec_hash: Option<String>,
}

impl Ended {
    pub fn succeeded(&self) -> bool {
        self.terminated.exit_code == 0
    }

    pub fn finished_at(&self) -> Option<Timestamp> {
        self.terminated.finished_at.as_ref().map(|time| time.0)
    }

    pub fn ran(&self) -> Option<Duration> {
        let started = self.terminated.started_at.as_ref()?.0;
        Duration::try_from(self.finished_at()?.duration_since(started)).ok()
    }
}

#[derive(Clone, Debug, PartialEq)]
pub enum Current<'a> {
    Absent,
    /// Made but not started.
    Created(&'a Observed),
    Running {
        observed: &'a Observed,
        started_at: Timestamp,
    },
    Ended(Box<Ended>),
}

/// Where one container stands.
#[derive(Clone, Debug, PartialEq)]
pub struct Standing<'a> {
    pub container: Cow<'a, Container>,
    pub current: Current<'a>,
    /// The one before, for `lastState`.
    pub previous: Option<ContainerStateTerminated>,
    pub restart_count: u32,
    /// Older ones that ended: all but the newest may go.
    pub older: Vec<&'a Observed>,
}

impl Standing<'_> {
    pub fn is_absent(&self) -> bool {
        matches!(self.current, Current::Absent)
    }

    pub fn next_count(&self) -> u32 {
        match &self.current {
            Current::Ended(ended) => ended.restart_count.saturating_add(1),
            _ => self.restart_count,
        }
    }
}

/// Where a pod stands.
pub struct PodStanding<'a> {
    pub sandbox: Option<&'a Observed>,
    pub old_sandboxes: Vec<&'a Observed>,
    pub init: Vec<Standing<'a>>,
    pub main: Vec<Standing<'a>>,
    /// Added while the pod runs; it does not wait for them.
    pub ephemeral: Vec<Standing<'a>>,
}

impl<'a> PodStanding<'a> {
    pub fn of(input: &Input<'a>) -> Self {
        let of_role = |role: &Role| {
            let mut found: Vec<&Observed> =
                input.observed.iter().filter(|observed| observed.role == *role).collect();
            found.sort_by_key(|observed| observed.restart_count);
            found
        };
        let mut sandboxes = of_role(&Role::Sandbox);
        let sandbox = sandboxes.pop();
        let spec = input.context.pod.spec.as_ref();
        let last = input.memory.status.as_ref().or(input.context.pod.status.as_ref());
        let standing = |container: Cow<'a, Container>| {
            let found = of_role(&Role::Container(container.name.clone()));
            let last = last.and_then(|status| status_of(status, &container.name));
            stand(container, found, last)
        };
        Self {
            sandbox,
            old_sandboxes: sandboxes,
            init: spec
                .iter()
                .flat_map(|spec| spec.init_containers.iter().flatten())
                .map(|container| standing(Cow::Borrowed(container)))
                .collect(),
            main: spec
                .iter()
                .flat_map(|spec| &spec.containers)
                .map(|container| standing(Cow::Borrowed(container)))
                .collect(),
            ephemeral: spec
                .iter()
                .flat_map(|spec| spec.ephemeral_containers.iter().flatten())
                .map(|container| standing(Cow::Owned(as_container(container))))
                .collect(),
        }
    }

    pub fn all(&self) -> impl Iterator<Item = &Standing<'a>> {
        self.init.iter().chain(&self.main).chain(&self.ephemeral)
    }

    pub fn running(&self) -> impl Iterator<Item = (&Container, &'a Observed)> {
        self.all().filter_map(|standing| match standing.current {
            Current::Running { observed, .. } => Some((&*standing.container, observed)),
            _ => None,
        })
    }

    /// The addresses of the pod, if its sandbox runs.
    pub fn ips(&self) -> Option<&'a [String]> {
        self.sandbox.filter(|sandbox| sandbox.is_running()).map(|sandbox| sandbox.ips.as_slice())
    }
}

/// What a status says of all containers, whatever their part in the pod.
pub fn statuses(status: &PodStatus) -> impl Iterator<Item = &ContainerStatus> {
    let declared = status.init_container_statuses.iter().chain(&status.container_statuses);
    declared.chain(&status.ephemeral_container_statuses).flatten()
}

pub fn status_of<'s>(status: &'s PodStatus, name: &str) -> Option<&'s ContainerStatus> {
    statuses(status).find(|status| status.name == name)
}

fn stand<'a>(
    container: Cow<'a, Container>,
    mut found: Vec<&'a Observed>,
    last: Option<&ContainerStatus>,
) -> Standing<'a> {
    let told = last.and_then(told);
    let newest = found.pop();
    let previous = found.last().and_then(|older| match &older.state {
        RunState::Exited(exit) => Some(terminated(older, exit)),
        _ => None,
    });
    // The status may know of a start that the engine no longer shows.
    let lost = told.filter(|told| newest.is_none_or(|newest| newest.restart_count < told.restart_count));
    let current = match (&lost, newest) {
        (Some(told), _) => Current::Ended(Box::new(told.clone())),
        (None, None) => Current::Absent,
        (None, Some(observed)) => match &observed.state {
            RunState::Created => Current::Created(observed),
            RunState::Running { started_at } => Current::Running { observed, started_at: *started_at },
            RunState::Exited(exit) => Current::Ended(Box::new(Ended {
                restart_count: observed.restart_count,
                terminated: terminated(observed, exit),
                image_id: observed.image_id.clone(),
                spec_hash: Some(observed.spec_hash.clone()),
            })),
        },
    };
    let restart_count = match (&current, newest) {
        (Current::Ended(ended), _) => ended.restart_count,
        // Not started, so not counted yet.
        (Current::Created(observed), _) => observed.restart_count.saturating_sub(1),
        (_, Some(observed)) => observed.restart_count,
        (_, None) => 0,
    };
    let previous = previous.or_else(|| {
        let last = last?;
        let count = u32::try_from(last.restart_count).unwrap_or_default();
        let state = if count == restart_count { last.last_state.as_ref() } else { last.state.as_ref() };
        state?.terminated.clone()
    });
    if lost.is_some() {
        found.extend(newest);
    }
    Standing { container, current, previous, restart_count, older: found }
}

/// What the status says that ran, as something that ended: if the engine no longer has it, it is over.
fn told(status: &ContainerStatus) -> Option<Ended> {
    let restart_count = u32::try_from(status.restart_count).unwrap_or_default();
    let ended = |terminated: &ContainerStateTerminated| Ended {
        restart_count,
        terminated: terminated.clone(),
        image_id: status.image_id.clone(),
        spec_hash: None,
    };
    let state = status.state.as_ref()?;
    match state {
        ContainerState { terminated: Some(terminated), .. } => Some(ended(terminated)),
        ContainerState { running: Some(running), .. } => Some(ended(&ContainerStateTerminated {
            container_id: status.container_id.clone(),
            exit_code: KILLED,
            reason: Some("ContainerStatusUnknown".to_owned()),
            message: Some(
                "The container could not be located on this desktop's Docker engine any more".to_owned(),
            ),
            started_at: running.started_at.clone(),
            ..Default::default()
        })),
        // Waiting to be started again: the one before is in `lastState`.
        _ => status.last_state.as_ref()?.terminated.as_ref().map(ended),
    }
}

/// A container's end in Kubernetes' words.
fn terminated(observed: &Observed, exit: &Exit) -> ContainerStateTerminated {
    let reason = match exit {
        Exit { error, .. } if !error.is_empty() => "ContainerCannotRun",
        Exit { oom_killed: true, .. } => "OOMKilled",
        Exit { code: 0, .. } => "Completed",
        _ => "Error",
    };
    let message = if exit.error.is_empty() { &observed.message } else { &exit.error };
    ContainerStateTerminated {
        container_id: Some(format!("docker://{}", observed.id)),
        exit_code: exit.code,
        reason: Some(reason.to_owned()),
        message: (!message.is_empty()).then(|| message.clone()),
        started_at: exit.started_at.map(Time),
        finished_at: Some(Time(exit.finished_at)),
        signal: None,
    }
}
