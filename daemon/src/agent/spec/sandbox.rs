//! The container that holds a pod's namespaces: hostname, ports and name resolution are its.

use super::container::lasting;
use super::volumes::memory_volumes;
use super::{Context, SpecError, account};
use crate::agent::engine::{ContainerSpec, Mount, Network, PAUSE_IMAGE, PublishedPort};
use crate::agent::identity::{self, PodId, Role, container_name};
use k8s_openapi::api::core::v1::PodSpec;

/// The longest host name that the kernel's tools agree on (RFC 1123 label).
const HOSTNAME_LENGTH: usize = 63;

pub fn sandbox(context: &Context, restart_count: u32) -> Result<ContainerSpec, SpecError> {
    let pod = context.spec()?;
    let id = PodId::of(context.pod);
    let host_network = pod.host_network == Some(true);
    let memory = memory_volumes(context.pod);
    let mut labels = context.owner.labels_for(context.pod, &Role::Sandbox, restart_count);
    if !memory.is_empty() {
        let names: Vec<_> = memory.iter().map(|volume| volume.engine_name.as_str()).collect();
        labels.insert(identity::VOLUMES.to_owned(), names.join(","));
    }
    let mut spec = ContainerSpec {
        name: container_name(&id, &Role::Sandbox, restart_count),
        image: PAUSE_IMAGE.to_owned(),
        labels,
        network: if host_network { Network::Host } else { Network::Own },
        ipc: Some(if pod.host_ipc == Some(true) { "host" } else { "shareable" }.to_owned()),
        pid: (pod.host_pid == Some(true)).then(|| "host".to_owned()),
        // It has no use for any; a pod's containers are weighed by themselves.
        cpu_shares: Some(2),
        // Process 1 has no handler for SIGTERM: without this, an engine that stops waits for nothing.
        stop_signal: Some("SIGKILL".to_owned()),
        mounts: memory
            .into_iter()
            .map(|volume| Mount::Memory {
                target: format!("/volumes/{}", volume.name),
                name: volume.engine_name,
                read_only: false,
                size_bytes: volume.size_bytes,
            })
            .collect(),
        ..ContainerSpec::default()
    };
    if !host_network {
        let name = pod.hostname.clone().filter(|name| !name.is_empty()).unwrap_or(id.name);
        let name: String = name.chars().take(HOSTNAME_LENGTH).collect();
        spec.hostname = Some(name.trim_end_matches(['-', '.']).to_owned());
        spec.ports = published(pod);
        resolve(context, pod, &mut spec);
        let aliases = pod.host_aliases.iter().flatten();
        // The pod's own come first, and so count.
        spec.extra_hosts = aliases
            .flat_map(|alias| alias.hostnames.iter().flatten().map(|name| format!("{name}:{}", alias.ip)))
            .chain(account::hosts(context))
            .collect();
        let sysctls = pod.security_context.as_ref().and_then(|security| security.sysctls.as_ref());
        spec.sysctls =
            sysctls.into_iter().flatten().map(|sysctl| (sysctl.name.clone(), sysctl.value.clone())).collect();
    }
    Ok(spec)
}

fn published(pod: &PodSpec) -> Vec<PublishedPort> {
    let ports = lasting(pod).flat_map(|container| container.ports.iter().flatten());
    ports
        .filter_map(|port| {
            let host_port = u16::try_from(port.host_port?).ok().filter(|port| *port > 0)?;
            let protocol = port.protocol.as_deref().unwrap_or("TCP").to_ascii_lowercase();
            Some(PublishedPort {
                container: format!("{}/{protocol}", port.container_port),
                host_ip: port.host_ip.clone().unwrap_or_default(),
                host_port,
            })
        })
        .collect()
}

/// Kubernetes' `dnsPolicy` and `dnsConfig`.
fn resolve(context: &Context, pod: &PodSpec, spec: &mut ContainerSpec) {
    if matches!(pod.dns_policy.as_deref(), None | Some("ClusterFirst" | "ClusterFirstWithHostNet"))
        && !context.desktop.dns.is_empty()
    {
        spec.dns.clone_from(&context.desktop.dns);
        let own =
            context.desktop.dns_search.first().map(|domain| format!("{}.{domain}", context.namespace()));
        spec.dns_search = own.into_iter().chain(context.desktop.dns_search.iter().cloned()).collect();
        spec.dns_options = vec!["ndots:5".to_owned()];
    }
    if let Some(config) = &pod.dns_config {
        spec.dns.extend(config.nameservers.iter().flatten().cloned());
        spec.dns_search.extend(config.searches.iter().flatten().cloned());
        let options = config.options.iter().flatten().filter_map(|option| {
            let name = option.name.clone()?;
            Some(match &option.value {
                Some(value) => format!("{name}:{value}"),
                None => name,
            })
        });
        spec.dns_options.extend(options);
    }
}
