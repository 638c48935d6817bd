//! A pod's status, as the kubelet writes it.

use super::conditions::{self, Verdict as Condition};
use super::running::{has_started, restarts};
use super::standing::{Current, PodStanding, Standing};
use super::{Draft, Input, Waiting, ending};
use crate::agent::spec::{is_sidecar, qos_class};
use k8s_openapi::api::core::v1::{
    ContainerState, ContainerStateRunning, ContainerStateWaiting, ContainerStatus, HostIP, PodIP, PodStatus,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

/// The conditions that are the agent's.
const OWN: [&str; 4] = ["PodReadyToStartContainers", "Initialized", "Ready", "ContainersReady"];

pub fn compose(input: &Input, pod: &PodStanding, draft: &Draft) -> PodStatus {
    let existing = input.context.pod.status.as_ref();
    let last = input.memory.status.as_ref();
    let init: Vec<_> = pod.init.iter().map(|standing| container(input, standing, draft)).collect();
    let main: Vec<_> = pod.main.iter().map(|standing| container(input, standing, draft)).collect();
    let ephemeral: Vec<_> = pod.ephemeral.iter().map(|standing| ephemeral(input, standing, draft)).collect();
    let (phase, verdict) = phase(input, pod, draft);
    // Addresses of a pod that has ended are kept as they were: they say where it ran.
    let ips = pod.ips().map(<[String]>::to_vec).filter(|ips| !ips.is_empty() || host_network(input));
    let ips = match ips {
        Some(_) if host_network(input) => input.context.desktop.host_ips.clone(),
        Some(ips) => ips,
        None => {
            let known = last.or(existing).and_then(|status| status.pod_ips.as_ref());
            known.into_iter().flatten().map(|ip| ip.ip.clone()).collect()
        }
    };
    let terminal = phase == "Succeeded" || phase == "Failed";
    let own = own_conditions(input, pod, &main, phase);
    let host_ips = &input.context.desktop.host_ips;
    PodStatus {
        conditions: Some(conditions::merge(
            last.or(existing).map(|_| merged_base(existing, last)).as_ref(),
            own,
            input.now,
        )),
        container_statuses: Some(main),
        ephemeral_container_statuses: (!ephemeral.is_empty()).then_some(ephemeral),
        init_container_statuses: (!init.is_empty()).then_some(init),
        host_ip: host_ips.first().cloned(),
        host_ips: (!host_ips.is_empty())
            .then(|| host_ips.iter().map(|ip| HostIP { ip: ip.clone() }).collect()),
        pod_ip: ips.first().cloned(),
        pod_ips: (!ips.is_empty()).then(|| ips.into_iter().map(|ip| PodIP { ip }).collect()),
        phase: Some(phase.to_owned()),
        reason: verdict.0.or_else(|| existing.filter(|_| terminal).and_then(|status| status.reason.clone())),
        message: verdict
            .1
            .or_else(|| existing.filter(|_| terminal).and_then(|status| status.message.clone())),
        qos_class: Some(
            existing
                .and_then(|status| status.qos_class.clone())
                .unwrap_or_else(|| qos_class(input.context.pod).to_owned()),
        ),
        start_time: existing
            .and_then(|status| status.start_time.clone())
            .or_else(|| last?.start_time.clone())
            .or(Some(Time(input.memory.accepted_at))),
        nominated_node_name: existing.and_then(|status| status.nominated_node_name.clone()),
        ..PodStatus::default()
    }
}

/// A status with what others have noted of the pod since it was composed.
pub fn with_others(mut status: PodStatus, shown: Option<&PodStatus>) -> PodStatus {
    let noted = shown.and_then(|shown| shown.conditions.as_deref()).unwrap_or_default();
    let conditions = status.conditions.get_or_insert_default();
    for condition in noted.iter().filter(|one| !OWN.contains(&one.type_.as_str())) {
        if conditions.iter().all(|known| known.type_ != condition.type_) {
            conditions.push(condition.clone());
        }
    }
    status
}

/// Conditions of others come from the view; transition times of our own from our newest status, which may be
/// ahead of it.
fn merged_base(existing: Option<&PodStatus>, last: Option<&PodStatus>) -> PodStatus {
    let of =
        |status: Option<&PodStatus>| status.and_then(|status| status.conditions.clone()).unwrap_or_default();
    let view = of(existing);
    let mut merged: Vec<_> =
        view.iter().filter(|condition| !OWN.contains(&condition.type_.as_str())).cloned().collect();
    let own = if last.is_some() { of(last) } else { view };
    merged.extend(own.into_iter().filter(|condition| OWN.contains(&condition.type_.as_str())));
    PodStatus { conditions: Some(merged), ..PodStatus::default() }
}

fn host_network(input: &Input) -> bool {
    input.context.pod.spec.as_ref().is_some_and(|spec| spec.host_network == Some(true))
}

fn container(input: &Input, standing: &Standing, draft: &Draft) -> ContainerStatus {
    let spec = &*standing.container;
    let waiting = draft.waiting.get(&spec.name);
    let running = match standing.current {
        Current::Running { observed, started_at } => Some((observed, started_at)),
        _ => None,
    };
    let started = has_started(input, standing);
    let is_init = !is_sidecar(spec) && init_containers(input).any(|name| name == spec.name);
    let probed = |id: &str| input.memory.health.get(id).is_some_and(|health| health.ready);
    let ready = match (&standing.current, running) {
        (Current::Ended(ended), _) if is_init => ended.succeeded(),
        (_, Some((observed, _))) => {
            !is_init && started && (spec.readiness_probe.is_none() || probed(&observed.id))
        }
        _ => false,
    };
    let (state, last_state) = state(standing, waiting);
    let (container_id, image_id) = match (&standing.current, running) {
        (_, Some((observed, _))) => (Some(format!("docker://{}", observed.id)), observed.image_id.clone()),
        (Current::Ended(ended), _) => (ended.terminated.container_id.clone(), ended.image_id.clone()),
        _ => (None, String::new()),
    };
    ContainerStatus {
        name: spec.name.clone(),
        image: spec.image.clone().unwrap_or_default(),
        image_id: if image_id.is_empty() {
            image_id
        } else {
            format!("docker://{image_id}").replace("docker://docker://", "docker://")
        },
        container_id,
        ready,
        started: Some(started),
        restart_count: i32::try_from(standing.restart_count).unwrap_or(i32::MAX),
        state: Some(state),
        last_state,
        ..ContainerStatus::default()
    }
}

/// No pod is ready by what was added to look into it, and nothing asks whether that is.
fn ephemeral(input: &Input, standing: &Standing, draft: &Draft) -> ContainerStatus {
    ContainerStatus { ready: false, started: None, ..container(input, standing, draft) }
}

fn init_containers<'a>(input: &Input<'a>) -> impl Iterator<Item = &'a str> {
    let spec = input.context.pod.spec.iter();
    spec.flat_map(|spec| spec.init_containers.iter().flatten()).map(|container| container.name.as_str())
}

fn state(standing: &Standing, waiting: Option<&Waiting>) -> (ContainerState, Option<ContainerState>) {
    let terminated = |terminated| ContainerState { terminated: Some(terminated), ..Default::default() };
    let previous = standing.previous.clone().map(terminated);
    let waits = |waiting: Option<&Waiting>| ContainerState {
        waiting: Some(ContainerStateWaiting {
            reason: Some(waiting.map_or("ContainerCreating", |waiting| &waiting.reason).to_owned()),
            message: waiting.map(|waiting| waiting.message.clone()).filter(|message| !message.is_empty()),
        }),
        ..Default::default()
    };
    match &standing.current {
        Current::Running { started_at, .. } => {
            let running = ContainerStateRunning { started_at: Some(Time(*started_at)) };
            (ContainerState { running: Some(running), ..Default::default() }, previous)
        }
        // Between the end and a restart that is under way the end is what there is to see.
        Current::Ended(ended) => match waiting {
            Some(waiting) if waiting.reason != "ContainerCreating" && waiting.reason != "PodInitializing" => {
                (waits(Some(waiting)), Some(terminated(ended.terminated.clone())))
            }
            _ => (terminated(ended.terminated.clone()), previous),
        },
        Current::Absent | Current::Created(_) => (waits(waiting), previous),
    }
}

type Why = (Option<String>, Option<String>);

/// The phase, and reason and message where the pod as a whole has one. (Kubernetes, "Pod phase".)
fn phase(input: &Input, pod: &PodStanding, draft: &Draft) -> (&'static str, Why) {
    let known = |status: Option<&PodStatus>| {
        let phase = status.and_then(|status| status.phase.as_deref());
        ["Succeeded", "Failed"].into_iter().find(|terminal| phase == Some(terminal))
    };
    // Once over, for good; also when somebody else said so.
    if let Some(terminal) =
        known(input.context.pod.status.as_ref()).or_else(|| known(input.memory.status.as_ref()))
    {
        let last = input.memory.status.as_ref();
        return (terminal, last.map(|last| (last.reason.clone(), last.message.clone())).unwrap_or_default());
    }
    if let Some(verdict) = &draft.verdict
        && ending::nothing_runs(pod)
    {
        return ("Failed", (Some(verdict.reason.clone()), Some(verdict.message.clone())));
    }
    let deleted = input.context.pod.metadata.deletion_timestamp.is_some();
    let over = |standing: &Standing| match &standing.current {
        Current::Ended(ended) => deleted || !restarts(input, &standing.container, ended),
        _ => false,
    };
    let failed =
        |standing: &Standing| matches!(&standing.current, Current::Ended(ended) if !ended.succeeded());
    let plain_init = || pod.init.iter().filter(|init| !is_sidecar(&init.container));
    if plain_init().any(|init| over(init) && failed(init)) {
        return ("Failed", Why::default());
    }
    if !pod.main.is_empty() && pod.main.iter().all(over) {
        // A pod is over when its sidecars are, too.
        let sidecars_run = pod.running().next().is_some();
        return match (sidecars_run, pod.main.iter().any(failed)) {
            (true, _) => ("Running", Why::default()),
            (false, true) => ("Failed", Why::default()),
            (false, false) => ("Succeeded", Why::default()),
        };
    }
    let never_ran = |standing: &Standing| {
        matches!(standing.current, Current::Absent | Current::Created(_)) && standing.previous.is_none()
    };
    let waiting = pod.main.iter().any(never_ran);
    (if waiting { "Pending" } else { "Running" }, Why::default())
}

fn own_conditions(
    input: &Input,
    pod: &PodStanding,
    main: &[ContainerStatus],
    phase: &str,
) -> Vec<(&'static str, Condition)> {
    let passed = pod.main.iter().any(|main| !main.is_absent());
    let incomplete = pod.init.iter().filter(|standing| match &standing.current {
        _ if is_sidecar(&standing.container) => !passed && !has_started(input, standing),
        Current::Ended(ended) => !ended.succeeded(),
        _ => !passed,
    });
    let incomplete: Vec<_> = incomplete.map(|standing| standing.container.name.as_str()).collect();
    let initialized = if incomplete.is_empty() {
        Condition { holds: true, reason: (phase == "Succeeded").then_some("PodCompleted"), message: None }
    } else {
        let message = format!("containers with incomplete status: [{}]", incomplete.join(" "));
        Condition::not("ContainersNotInitialized", message)
    };
    let unready: Vec<_> =
        main.iter().filter(|status| !status.ready).map(|status| status.name.as_str()).collect();
    let containers_ready = || match phase {
        "Succeeded" => Condition::not("PodCompleted", None),
        "Failed" => Condition::not("PodFailed", None),
        _ if unready.is_empty() => Condition::holds(),
        _ => Condition::not(
            "ContainersNotReady",
            format!("containers with unready status: [{}]", unready.join(" ")),
        ),
    };
    let mut ready = containers_ready();
    if ready.holds {
        let gates = input.context.pod.spec.iter().flat_map(|spec| spec.readiness_gates.iter().flatten());
        let conditions = input.context.pod.status.as_ref().and_then(|status| status.conditions.as_ref());
        let holds = |gate: &str| {
            let mut all = conditions.into_iter().flatten();
            all.any(|condition| condition.type_ == gate && condition.status == "True")
        };
        if let Some(gate) = gates.map(|gate| gate.condition_type.as_str()).find(|gate| !holds(gate)) {
            let message = format!(
                "corresponding condition of pod readiness gate \"{gate}\" does not exist or is not True."
            );
            ready = Condition::not("ReadinessGatesNotReady", message);
        }
    }
    // What is over loses its sandbox next: said at once, it needs no report of its own.
    let over = phase == "Succeeded" || phase == "Failed";
    let sandboxed = !over && pod.sandbox.is_some_and(|sandbox| sandbox.is_running());
    vec![
        ("PodReadyToStartContainers", Condition::plain(sandboxed)),
        ("Initialized", initialized),
        ("Ready", ready),
        ("ContainersReady", containers_ready()),
    ]
}
