//! Between the agent's words and Docker's: pure functions, no calls.

use super::super::{
    ContainerSpec, Counters, EngineError, EngineEvent, Exit, Facts, Found, Image, Mount, Network,
    PullProgress, RunState, Running,
};
use bollard::errors::Error;
use bollard::models::{
    ContainerCreateBody, ContainerInspectResponse, ContainerState, ContainerStateStatusEnum,
    ContainerStatsResponse, ContainerSummary, CreateImageInfo, EventMessage, EventMessageTypeEnum,
    HostConfig, HostConfigLogConfig, ImageSummary, Mount as DockerMount, MountBindOptions,
    MountBindOptionsPropagationEnum, MountType, MountVolumeOptions, MountVolumeOptionsDriverConfig,
    NetworkInspect, PortBinding, SystemInfo,
};
use k8s_openapi::jiff::Timestamp;
use std::collections::{BTreeMap, HashMap};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// The scheduler's period that CPU quotas are given for.
const CPU_PERIOD_US: i64 = 100_000;

pub fn error(host: &str, error: Error) -> EngineError {
    match error {
        Error::DockerResponseServerError { status_code: 404, message } => EngineError::NotFound(message),
        Error::DockerResponseServerError { status_code: 409, message } => EngineError::Conflict(message),
        Error::DockerResponseServerError { message, .. } => EngineError::Refused(message),
        Error::DockerStreamError { error } | Error::DockerContainerWaitError { error, .. } => {
            EngineError::Refused(error)
        }
        Error::JsonDataError { .. } | Error::JsonSerdeError { .. } | Error::StrParseError { .. } => {
            EngineError::Refused(format!("Docker's answer was not understood: {error}"))
        }
        other => EngineError::Unreachable { host: host.to_owned(), why: other.to_string() },
    }
}

pub fn facts(info: SystemInfo) -> Facts {
    Facts {
        version: info.server_version.unwrap_or_default(),
        cpus: info.ncpu.and_then(|cpus| u32::try_from(cpus).ok()).unwrap_or_default(),
        memory_bytes: info.mem_total.and_then(|bytes| u64::try_from(bytes).ok()).unwrap_or_default(),
        os: info.operating_system.unwrap_or_default(),
        kernel: info.kernel_version.unwrap_or_default(),
        arch: info.architecture.unwrap_or_default(),
        clock: time(info.system_time.as_deref()),
        gateway: None,
    }
}

/// The address by which a network's containers reach this desktop.
pub fn gateway(network: NetworkInspect) -> Option<IpAddr> {
    let addresses = network.ipam?.config?.into_iter().filter_map(|config| {
        let said = config.gateway.and_then(|gateway| gateway.parse::<IpAddr>().ok());
        said.or_else(|| first_of(&config.subnet?))
    });
    addresses.min_by_key(IpAddr::is_ipv6)
}

/// The address that Docker takes in a subnet where nobody chose one; of its usual network it says so only after its
/// second start.
fn first_of(subnet: &str) -> Option<IpAddr> {
    let (network, _) = subnet.split_once('/')?;
    match network.parse::<IpAddr>().ok()? {
        IpAddr::V4(network) => Some(Ipv4Addr::from(u32::from(network).checked_add(1)?).into()),
        IpAddr::V6(network) => Some(Ipv6Addr::from(u128::from(network).checked_add(1)?).into()),
    }
}

/// Docker writes the year 1 for what has not happened.
fn time(text: Option<&str>) -> Option<Timestamp> {
    text?.parse().ok().filter(|time: &Timestamp| time.as_second() > 0)
}

/// Seconds and nanoseconds since 1970 as the events request takes them.
pub fn unix_nanos(time: Timestamp) -> String {
    format!("{}.{:09}", time.as_second(), time.subsec_nanosecond())
}

pub fn found(inspected: ContainerInspectResponse) -> Result<Found, EngineError> {
    let id = inspected
        .id
        .ok_or_else(|| EngineError::Refused("Docker described a container without an id".into()))?;
    let networks = inspected.network_settings.and_then(|settings| settings.networks).unwrap_or_default();
    let networks: BTreeMap<_, _> = networks.into_iter().collect();
    let addresses =
        networks.into_values().flat_map(|endpoint| [endpoint.ip_address, endpoint.global_ipv6_address]);
    Ok(Found {
        id,
        labels: inspected.config.and_then(|config| config.labels).unwrap_or_default().into_iter().collect(),
        image_id: inspected.image.unwrap_or_default(),
        state: run_state(inspected.state.unwrap_or_default()),
        ips: addresses.flatten().filter(|address| !address.is_empty()).collect(),
    })
}

pub fn running(summary: ContainerSummary) -> Option<Running> {
    Some(Running { id: summary.id?, labels: summary.labels.unwrap_or_default().into_iter().collect() })
}

fn run_state(state: ContainerState) -> RunState {
    use ContainerStateStatusEnum as Status;
    let started_at = time(state.started_at.as_deref());
    let error = state.error.unwrap_or_default();
    let exited = |error| {
        RunState::Exited(Exit {
            code: state.exit_code.and_then(|code| i32::try_from(code).ok()).unwrap_or_default(),
            oom_killed: state.oom_killed.unwrap_or_default(),
            started_at,
            finished_at: time(state.finished_at.as_deref()).or(started_at).unwrap_or(Timestamp::UNIX_EPOCH),
            error,
        })
    };
    match state.status {
        Some(Status::RUNNING | Status::PAUSED | Status::RESTARTING | Status::STOPPING) => {
            RunState::Running { started_at: started_at.unwrap_or(Timestamp::UNIX_EPOCH) }
        }
        // A start that failed leaves the container as created, with the reason.
        Some(Status::CREATED) | None if error.is_empty() => RunState::Created,
        _ => exited(error),
    }
}

/// The labels among an event's attributes: Docker mixes them with facts of its own.
const OWN_ATTRIBUTES: [&str; 3] = ["image", "name", "exitCode"];

/// `None` for a container that does not run: Docker counts nothing then.
pub fn counters(stats: ContainerStatsResponse) -> Option<Counters> {
    let memory = stats.memory_stats?;
    let pages = memory.stats.unwrap_or_default();
    // The names of control groups of the second version, then of the first.
    let unused = ["inactive_file", "total_inactive_file"].iter().find_map(|name| pages.get(*name));
    Some(Counters {
        cpu_nanos: stats.cpu_stats?.cpu_usage?.total_usage?,
        memory_bytes: memory.usage?.saturating_sub(unused.copied().unwrap_or_default()),
    })
}

pub fn event(event: EventMessage) -> Option<EngineEvent> {
    if event.typ == Some(EventMessageTypeEnum::IMAGE) {
        return Some(EngineEvent::ImagesChanged);
    }
    let actor = event.actor?;
    let (id, attributes) = (actor.id?, actor.attributes.unwrap_or_default());
    let at = i128::from(event.time_nano.unwrap_or_default());
    let at = Timestamp::from_nanosecond(at).unwrap_or(Timestamp::UNIX_EPOCH);
    let code = attributes.get("exitCode").and_then(|code| code.parse().ok()).unwrap_or_default();
    let labels =
        attributes.into_iter().filter(|(name, _)| !OWN_ATTRIBUTES.contains(&name.as_str())).collect();
    match event.action.as_deref()? {
        "start" => Some(EngineEvent::Started { id, labels, at }),
        "die" => Some(EngineEvent::Died { id, labels, code, at }),
        "oom" => Some(EngineEvent::OutOfMemory { id }),
        "destroy" => Some(EngineEvent::Destroyed { id }),
        _ => None,
    }
}

pub fn image(image: ImageSummary) -> Image {
    let named = |names: Vec<String>| names.into_iter().filter(|name| !name.contains("<none>")).collect();
    let bytes = u64::try_from(image.size).unwrap_or_default();
    Image { id: image.id, names: named(image.repo_tags), digests: named(image.repo_digests), bytes }
}

pub fn progress(info: CreateImageInfo) -> PullProgress {
    let bytes = |bytes: Option<i64>| bytes.and_then(|bytes| u64::try_from(bytes).ok());
    let detail = info.progress_detail.unwrap_or_default();
    PullProgress {
        layer: info.id.unwrap_or_default(),
        status: info.status.unwrap_or_default(),
        current_bytes: bytes(detail.current),
        total_bytes: bytes(detail.total),
    }
}

/// The name in a line of Docker's answer to a load.
pub fn loaded_name(line: &str) -> Option<String> {
    let line = line.trim();
    let name = line.strip_prefix("Loaded image: ").or_else(|| line.strip_prefix("Loaded image ID: "))?;
    Some(name.to_owned())
}

pub fn create_body(spec: &ContainerSpec) -> ContainerCreateBody {
    let some = |list: &[String]| (!list.is_empty()).then(|| list.to_vec());
    ContainerCreateBody {
        hostname: spec.hostname.clone(),
        user: spec.user.clone(),
        tty: Some(spec.tty),
        open_stdin: Some(spec.stdin),
        stdin_once: Some(spec.stdin_once),
        exposed_ports: (!spec.ports.is_empty())
            .then(|| spec.ports.iter().map(|port| port.container.clone()).collect()),
        env: some(&spec.env),
        entrypoint: some(&spec.entrypoint),
        cmd: some(&spec.cmd),
        image: Some(spec.image.clone()),
        working_dir: spec.working_dir.clone(),
        labels: Some(spec.labels.clone().into_iter().collect()),
        stop_signal: spec.stop_signal.clone(),
        host_config: Some(host_config(spec)),
        ..Default::default()
    }
}

fn host_config(spec: &ContainerSpec) -> HostConfig {
    let some = |list: &[String]| (!list.is_empty()).then(|| list.to_vec());
    let mut security = Vec::new();
    if spec.no_new_privileges {
        security.push("no-new-privileges".to_owned());
    }
    if spec.seccomp_unconfined {
        security.push("seccomp=unconfined".to_owned());
    }
    let mut ports: HashMap<String, Option<Vec<PortBinding>>> = HashMap::new();
    for port in &spec.ports {
        let binding = PortBinding {
            host_ip: (!port.host_ip.is_empty()).then(|| port.host_ip.clone()),
            host_port: Some(port.host_port.to_string()),
        };
        ports.entry(port.container.clone()).or_default().get_or_insert_default().push(binding);
    }
    HostConfig {
        network_mode: match &spec.network {
            Network::Own => None,
            Network::Host => Some("host".to_owned()),
            Network::Join(id) => Some(format!("container:{id}")),
        },
        ipc_mode: spec.ipc.clone(),
        pid_mode: spec.pid.clone(),
        port_bindings: (!ports.is_empty()).then_some(ports),
        dns: some(&spec.dns),
        dns_search: some(&spec.dns_search),
        dns_options: some(&spec.dns_options),
        extra_hosts: some(&spec.extra_hosts),
        sysctls: (!spec.sysctls.is_empty()).then(|| spec.sysctls.clone().into_iter().collect()),
        mounts: (!spec.mounts.is_empty()).then(|| spec.mounts.iter().map(mount).collect()),
        cpu_shares: spec.cpu_shares,
        cpu_period: spec.cpu_quota_us.map(|_| CPU_PERIOD_US),
        cpu_quota: spec.cpu_quota_us,
        memory: spec.memory_bytes,
        // Memory and swap together as much as memory alone: no swap.
        memory_swap: spec.memory_bytes,
        oom_score_adj: spec.oom_score_adj,
        privileged: Some(spec.privileged),
        readonly_rootfs: Some(spec.read_only_root),
        security_opt: some(&security),
        cap_add: some(&spec.capabilities_add),
        cap_drop: some(&spec.capabilities_drop),
        group_add: some(&spec.groups),
        // Logs are read back through the engine, whatever this engine's default driver is.
        log_config: Some(HostConfigLogConfig {
            typ: Some("json-file".to_owned()),
            config: Some(HashMap::from([
                ("max-size".to_owned(), LOG_FILE_SIZE.to_owned()),
                ("max-file".to_owned(), LOG_FILES.to_owned()),
            ])),
        }),
        ..Default::default()
    }
}

/// The kubelet's defaults (`containerLogMaxSize`, `containerLogMaxFiles`), so that a chatty container does not
/// fill a desktop's disk.
const LOG_FILE_SIZE: &str = "10m";
const LOG_FILES: &str = "5";

fn mount(mount: &Mount) -> DockerMount {
    match mount {
        Mount::Bind { source, target, read_only, propagation } => DockerMount {
            typ: Some(MountType::BIND),
            source: Some(source.clone()),
            target: Some(target.clone()),
            read_only: Some(*read_only),
            bind_options: propagation.map(|propagation| MountBindOptions {
                propagation: Some(match propagation {
                    "rslave" => MountBindOptionsPropagationEnum::RSLAVE,
                    "rshared" => MountBindOptionsPropagationEnum::RSHARED,
                    _ => MountBindOptionsPropagationEnum::RPRIVATE,
                }),
                ..Default::default()
            }),
            ..Default::default()
        },
        Mount::Memory { name, target, read_only, size_bytes } => {
            let size = size_bytes.map(|bytes| format!(",size={bytes}")).unwrap_or_default();
            let options = [("type", "tmpfs"), ("device", "tmpfs"), ("o", &format!("mode=1777{size}"))];
            DockerMount {
                typ: Some(MountType::VOLUME),
                source: Some(name.clone()),
                target: Some(target.clone()),
                read_only: Some(*read_only),
                volume_options: Some(MountVolumeOptions {
                    no_copy: Some(true),
                    driver_config: Some(MountVolumeOptionsDriverConfig {
                        name: Some("local".to_owned()),
                        options: Some(
                            options.map(|(name, value)| (name.to_owned(), value.to_owned())).into(),
                        ),
                    }),
                    ..Default::default()
                }),
                ..Default::default()
            }
        }
    }
}
