//! Which of this desktop's addresses lead others to it.

use nix::ifaddrs::InterfaceAddress;
use std::net::IpAddr;

/// Those of `listening` that another desktop can use, in a lasting order.
pub fn reachable(listening: &[IpAddr]) -> Vec<IpAddr> {
    let bridges = match nix::ifaddrs::getifaddrs() {
        Ok(interfaces) => bridge_addresses(interfaces),
        Err(error) => {
            tracing::warn!(%error, "the network interfaces cannot be listed: addresses of Docker's are announced too");
            Vec::new()
        }
    };
    without(listening, &bridges)
}

fn bridge_addresses(interfaces: impl Iterator<Item = InterfaceAddress>) -> Vec<IpAddr> {
    let docker = interfaces.filter(|interface| is_docker_bridge(&interface.interface_name));
    docker.filter_map(|interface| ip(&interface)).collect()
}

fn ip(interface: &InterfaceAddress) -> Option<IpAddr> {
    let address = interface.address?;
    let v4 = address.as_sockaddr_in().map(|v4| IpAddr::from(v4.ip()));
    v4.or_else(|| address.as_sockaddr_in6().map(|v6| IpAddr::from(v6.ip())))
}

/// Docker's default bridge, swarm's, and those of networks that users make (`br-` and the network's short id).
/// A bridge that somebody made for virtual machines may well be the desktop's way into the world.
fn is_docker_bridge(interface: &str) -> bool {
    let short_id = |id: &str| id.len() == 12 && id.bytes().all(|byte| byte.is_ascii_hexdigit());
    matches!(interface, "docker0" | "docker_gwbridge") || interface.strip_prefix("br-").is_some_and(short_id)
}

/// Docker's bridges have the same addresses on every desktop, link-local ones mean nothing elsewhere, and
/// loopback is of use to others only if there is nothing else: when all desktops are on one machine.
fn without(listening: &[IpAddr], bridges: &[IpAddr]) -> Vec<IpAddr> {
    let leads_here = |address: &IpAddr| {
        let link_local = matches!(address, IpAddr::V6(v6) if v6.is_unicast_link_local());
        !address.is_loopback() && !link_local && !bridges.contains(address)
    };
    let mut reachable: Vec<IpAddr> = listening.iter().copied().filter(leads_here).collect();
    if reachable.is_empty() {
        reachable = listening.to_vec();
    }
    reachable.sort_by_key(|address| (address.is_ipv6(), *address));
    reachable.dedup();
    reachable
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_addresses_that_lead_here_are_announced() {
        let ips = |texts: &[&str]| texts.iter().map(|text| text.parse().unwrap()).collect::<Vec<IpAddr>>();
        let docker = ips(&["172.17.0.1", "172.18.0.1"]);
        let table: [(&[&str], &[&str]); 4] = [
            (
                &["fd00::7", "10.0.0.9", "127.0.0.1", "10.0.0.7", "172.17.0.1", "fe80::1", "::1"],
                &["10.0.0.7", "10.0.0.9", "fd00::7"],
            ),
            (&["172.16.0.4", "172.18.0.1"], &["172.16.0.4"]),
            (&["127.0.0.1"], &["127.0.0.1"]),
            (&[], &[]),
        ];
        for (listening, announced) in table {
            assert_eq!(without(&ips(listening), &docker), ips(announced));
        }
    }

    #[test]
    fn dockers_bridges_are_told_from_others() {
        for name in ["docker0", "docker_gwbridge", "br-0123456789ab"] {
            assert!(is_docker_bridge(name), "{name}");
        }
        for name in ["eth0", "br0", "br-lan", "br-0123456789abc", "wlp2s0", "virbr0"] {
            assert!(!is_docker_bridge(name), "{name}");
        }
    }
}
