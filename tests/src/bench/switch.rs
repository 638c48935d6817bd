//! The switch: a network namespace with bridges, into which every desktop's cable is plugged.
//!
//! It is a namespace of its own because a Docker engine in the machine's own one would filter what crosses it.

use super::layout::Layout;
use super::outcome;
use anyhow::{Context, Result};
use std::process::Command;
use std::time::Duration;

/// The bridge that all are on unless they are cut off.
const WHOLE: &str = "br0";
/// `ip` answers in milliseconds; this only bounds a wedged kernel.
const DEADLINE: Duration = Duration::from_secs(30);

/// Makes the namespace and the whole bridge, with an address that refuses whatever is for the outside at once.
pub fn create(layout: &Layout) -> Result<()> {
    let switch = layout.switch();
    ip(&format!("netns add {switch}"))?;
    ip(&format!("-n {switch} link set lo up"))?;
    add_bridge(layout, WHOLE)?;
    ip(&format!("-n {switch} addr add {}/24 dev {WHOLE}", layout.gateway()))?;
    ip(&format!("-n {switch} route add unreachable default"))?;
    ip(&format!("netns exec {switch} sysctl -qw net.ipv4.ip_forward=1"))
}

/// Lays the cable of a desktop that has none yet, and switches its port on.
pub fn plug(layout: &Layout, index: usize) -> Result<()> {
    let (switch, namespace, port) = (layout.switch(), layout.namespace(index), Layout::port(index));
    if !std::path::Path::new("/run/netns").join(&namespace).exists() {
        ip(&format!("netns add {namespace}"))?;
        ip(&format!("link add {port} netns {switch} type veth peer name eth0 netns {namespace}"))?;
        ip(&format!("-n {switch} link set {port} master {WHOLE}"))?;
        ip(&format!("-n {namespace} link set lo up"))?;
        ip(&format!("-n {namespace} link set eth0 up"))?;
        readdress(layout, index, layout.address(index))?;
    }
    ip(&format!("-n {switch} link set {port} up"))
}

/// Gives a desktop that has a cable this address and no other.
pub fn readdress(layout: &Layout, index: usize, address: std::net::Ipv4Addr) -> Result<()> {
    let namespace = layout.namespace(index);
    ip(&format!("-n {namespace} addr flush dev eth0 scope global"))?;
    ip(&format!("-n {namespace} addr add {address}/24 dev eth0"))?;
    // It went with the address.
    ip(&format!("-n {namespace} route replace default via {}", layout.gateway()))
}

/// Changes the packet filter of a desktop.
pub fn filter(layout: &Layout, index: usize, rule: &str) -> Result<()> {
    ip(&format!("netns exec {} iptables -w {rule}", layout.namespace(index)))
}

/// Switches a desktop's port off: from then on not even a goodbye gets out.
pub fn unplug(layout: &Layout, index: usize) -> Result<()> {
    ip(&format!("-n {} link set {} down", layout.switch(), Layout::port(index)))
}

/// Puts each group on a bridge of its own; the first one stays on the whole bridge.
pub fn cut(layout: &Layout, groups: &[&[usize]]) -> Result<()> {
    // Who moves to a bridge must not meet there, for a moment, those who have yet to leave it.
    for &index in groups.iter().skip(1).copied().flatten() {
        ip(&format!("-n {} link set {} nomaster", layout.switch(), Layout::port(index)))?;
    }
    for (number, group) in groups.iter().enumerate() {
        let bridge = format!("br{number}");
        if number > 0 && ip(&format!("-n {} link show {bridge}", layout.switch())).is_err() {
            add_bridge(layout, &bridge)?;
        }
        for &index in *group {
            ip(&format!("-n {} link set {} master {bridge}", layout.switch(), Layout::port(index)))?;
        }
    }
    Ok(())
}

/// Drops the frames of one direction.
pub fn cut_one_way(layout: &Layout, from: usize, to: usize) -> Result<()> {
    let (from, to) = (Layout::port(from), Layout::port(to));
    ip(&format!("netns exec {} ebtables -A FORWARD -i {from} -o {to} -j DROP", layout.switch()))
}

/// Everybody back on the whole bridge, and nothing dropped. Desktops that were never switched on have no cable.
pub fn heal(layout: &Layout) -> Result<()> {
    for index in 1..=layout.desktops {
        if std::path::Path::new("/run/netns").join(layout.namespace(index)).exists() {
            ip(&format!("-n {} link set {} master {WHOLE}", layout.switch(), Layout::port(index)))?;
        }
    }
    ip(&format!("netns exec {} ebtables -F FORWARD", layout.switch()))
}

/// Queues what the switch itself sends; frames between its ports do not pass there.
pub fn slow_gateway(layout: &Layout, kilobits: u32) -> Result<()> {
    let line = format!("qdisc replace dev {WHOLE} root tbf rate {kilobits}kbit burst 32k latency 200ms");
    ip(&format!("netns exec {} tc {line}", layout.switch()))
}

fn add_bridge(layout: &Layout, bridge: &str) -> Result<()> {
    let switch = layout.switch();
    // Without snooping no querier is needed for multicast, and without the delay a port forwards at once.
    ip(&format!("-n {switch} link add {bridge} type bridge mcast_snooping 0 stp_state 0 forward_delay 0"))?;
    ip(&format!("-n {switch} link set {bridge} up"))
}

fn ip(arguments: &str) -> Result<()> {
    let mut command = Command::new("ip");
    command.args(arguments.split_whitespace());
    outcome::run(command, b"", DEADLINE)?.ok().context("arranging the bench's network")?;
    Ok(())
}
