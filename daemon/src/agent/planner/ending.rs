//! The end of a pod: deleted, finished, or out of time.

use super::backoff::after;
use super::running::deadline_verdict;
use super::standing::{Current, PodStanding};
use super::{Action, Draft, Input, Waiting};
use crate::agent::engine::RunState;
use crate::agent::hold::May;
use crate::agent::identity::{Observed, Role};
use crate::agent::spec::is_sidecar;
use k8s_openapi::api::core::v1::Container;
use std::time::Duration;

/// Kubernetes' default `terminationGracePeriodSeconds`.
const DEFAULT_GRACE: Duration = Duration::from_secs(30);

/// A changed deletion deadline that is earlier by less than this is the same one.
const DEADLINE_SLACK: Duration = Duration::from_secs(1);

/// Why a pod is not to run any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ending {
    /// Its object was deleted: nothing stays.
    Deleted,
    /// Its status says Succeeded or Failed, which is for good: what has ended stays for its logs.
    Finished,
    /// It had `activeDeadlineSeconds`.
    OutOfTime,
}

/// Whether, and why, the pod is to end.
pub fn ending(input: &Input, draft: &mut Draft) -> Option<Ending> {
    let pod = input.context.pod;
    if pod.metadata.deletion_timestamp.is_some() {
        return Some(Ending::Deleted);
    }
    let phase = |status: &k8s_openapi::api::core::v1::PodStatus| status.phase.clone();
    let phases = [pod.status.as_ref().and_then(phase), input.memory.status.as_ref().and_then(phase)];
    if phases.iter().flatten().any(|phase| phase == "Succeeded" || phase == "Failed") {
        return Some(Ending::Finished);
    }
    let deadline =
        pod.spec.as_ref()?.active_deadline_seconds.and_then(|seconds| u64::try_from(seconds).ok())?;
    let started = pod.status.as_ref().and_then(|status| Some(status.start_time.as_ref()?.0));
    let at = after(started.unwrap_or(input.memory.accepted_at), Duration::from_secs(deadline));
    if input.now < at {
        draft.wake(at);
        return None;
    }
    draft.verdict = Some(deadline_verdict());
    Some(Ending::OutOfTime)
}

/// Stops what runs, then removes what may go.
pub fn wind_down(input: &Input, pod: &PodStanding, ending: &Ending, draft: &mut Draft) {
    for standing in pod.all().filter(|standing| standing.is_absent()) {
        draft.waiting.insert(standing.container.name.clone(), Waiting::new("ContainerCreating", ""));
    }
    // Containers that the pod does not name (any more) are of an older version of it.
    let unnamed = input.observed.iter().filter(|observed| match &observed.role {
        Role::Sandbox => false,
        Role::Container(name) => !pod.all().any(|standing| standing.container.name == *name),
    });
    let unnamed: Vec<_> = unnamed.filter(|observed| observed.is_running()).collect();
    for observed in &unnamed {
        stop_after(input, observed, None, grace(input), "the pod does not name it", draft);
    }
    if stop_all(input, pod, draft) || !unnamed.is_empty() {
        return;
    }
    match ending {
        Ending::Deleted if input.observed.is_empty() => draft.actions.push(Action::Forget),
        Ending::Deleted => {
            // Containers before the sandbox whose namespaces they are in.
            let (sandboxes, others): (Vec<_>, Vec<_>) =
                input.observed.iter().partition(|observed| observed.role == Role::Sandbox);
            draft.actions.extend(others.into_iter().chain(sandboxes).map(remove));
        }
        Ending::Finished | Ending::OutOfTime => leave_logs_only(input, draft),
    }
}

/// A pod all of whose containers ended, or whose initialisation failed for good.
pub fn leave_finished(input: &Input, pod: &PodStanding, draft: &mut Draft) {
    for standing in pod.all().filter(|standing| standing.is_absent()) {
        draft.waiting.insert(standing.container.name.clone(), Waiting::new("PodInitializing", ""));
    }
    if !stop_all(input, pod, draft) {
        leave_logs_only(input, draft);
    }
}

/// Removes sandboxes and what was never started; ended containers stay for their logs.
fn leave_logs_only(input: &Input, draft: &mut Draft) {
    let useless =
        |observed: &&Observed| observed.role == Role::Sandbox || observed.state == RunState::Created;
    draft.actions.extend(input.observed.iter().filter(useless).map(remove));
}

fn remove(observed: &Observed) -> Action {
    Action::Remove { id: observed.id.clone(), volumes: observed.volumes.clone() }
}

/// Stops the main containers, and then the sidecars. Returns whether anything still runs.
pub fn stop_all(input: &Input, pod: &PodStanding, draft: &mut Draft) -> bool {
    let running: Vec<_> = pod.running().collect();
    let (sidecars, others): (Vec<_>, Vec<_>) =
        running.iter().partition(|(container, _)| is_sidecar(container));
    let next = if others.is_empty() { &sidecars } else { &others };
    for (container, observed) in next {
        let why = format!("Stopping container {}", container.name);
        stop(input, container, observed, &why, draft);
    }
    // An older start of a container that a newer one replaced can hardly still run; if it does, it goes too.
    let stray = pod.all().flat_map(|standing| &standing.older).filter(|older| older.is_running());
    let stray: Vec<_> = stray.collect();
    for older in &stray {
        stop_after(input, older, None, Duration::ZERO, "replaced by a newer start", draft);
    }
    !running.is_empty() || !stray.is_empty()
}

pub fn stop(input: &Input, container: &Container, observed: &Observed, why: &str, draft: &mut Draft) {
    let hook = container.lifecycle.as_ref().and_then(|lifecycle| lifecycle.pre_stop.as_ref());
    let pre_stop = hook.and_then(|hook| hook.exec.as_ref()?.command.clone());
    let sleep = hook.and_then(|hook| Some(hook.sleep.as_ref()?.seconds));
    // A sleep hook is a command like any other, only that the image need not have one: the grace period is all
    // that there is to wait for.
    let pre_stop = pre_stop.or_else(|| sleep.map(|seconds| vec!["sleep".to_owned(), seconds.to_string()]));
    stop_after(input, observed, pre_stop, grace(input), why, draft);
}

fn stop_after(
    input: &Input,
    observed: &Observed,
    pre_stop: Option<Vec<String>>,
    grace: Duration,
    why: &str,
    draft: &mut Draft,
) {
    let deadline = after(input.now, grace);
    if input.may == May::Stop && input.memory.is_stopping(&observed.id, true) {
        return;
    }
    if input.may != May::Stop
        && let Some(known) = input.memory.stopping.get(&observed.id)
        && deadline.checked_add(DEADLINE_SLACK).is_ok_and(|deadline| deadline >= *known)
    {
        return;
    }
    let Role::Container(container) = &observed.role else { return };
    let first = !input.memory.stopping.contains_key(&observed.id);
    draft.actions.push(Action::Stop {
        id: observed.id.clone(),
        container: container.clone(),
        grace,
        pre_stop: pre_stop.filter(|_| first),
        why: why.to_owned(),
    });
}

/// How long containers may take to end: counted from when this desktop learns of it, so that clocks need not agree.
fn grace(input: &Input) -> Duration {
    if input.may == May::Stop {
        return Duration::ZERO;
    }
    let metadata = &input.context.pod.metadata;
    let spec = input.context.pod.spec.as_ref();
    let asked = metadata.deletion_timestamp.as_ref().and(metadata.deletion_grace_period_seconds);
    let seconds = asked.or_else(|| spec?.termination_grace_period_seconds);
    seconds.map_or(DEFAULT_GRACE, |seconds| Duration::from_secs(u64::try_from(seconds).unwrap_or_default()))
}

/// Whether every container that a pod needs for its end has ended.
pub fn nothing_runs(pod: &PodStanding) -> bool {
    pod.all()
        .all(|standing| matches!(standing.current, Current::Ended(_) | Current::Absent | Current::Created(_)))
}
