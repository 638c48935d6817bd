//! What this desktop says of itself.

use crate::agent::EngineState;
use crate::options::UpOptions;
use crate::owner::OwnerState;
use gaggle_gossip::membership::NodeFacts;
use gaggle_sched::state::{Key, Resource, Store};
use std::collections::BTreeMap;
use std::net::IpAddr;

/// What the owner offers, before what the engine says of the machine.
#[derive(Clone, Debug)]
pub struct Offer {
    pub name: String,
    pub labels: BTreeMap<String, String>,
    pub cpu_millis: Option<u64>,
    pub memory_bytes: Option<u64>,
    pub pods: u32,
    pub started_ms: u64,
    pub api_port: u16,
    pub leaving: bool,
}

impl Offer {
    pub fn new(options: &UpOptions, started_ms: u64, api_port: u16) -> Self {
        Self {
            name: options.name.as_str().to_owned(),
            labels: options.labels.clone(),
            cpu_millis: options.cpu.map(|cpu| cpu.0),
            memory_bytes: options.memory.map(|memory| memory.0),
            pods: options.max_pods,
            started_ms,
            api_port,
            leaving: false,
        }
    }

    /// `addresses`: those that lead here (see [`super::addresses`]); `engine`: what Docker says of the machine; without an answer from it the node is not ready.
    pub fn facts(&self, addresses: &[IpAddr], engine: &EngineState, owner: &OwnerState) -> NodeFacts {
        NodeFacts {
            name: self.name.clone(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            labels: self.labels.clone(),
            addresses: addresses.to_vec(),
            api_port: self.api_port,
            started_ms: self.started_ms,
            cpu_millis: self.cpu_millis.unwrap_or(u64::from(engine.cpus) * 1000),
            memory_bytes: self.memory_bytes.unwrap_or(engine.memory_bytes),
            pods: self.pods,
            engine: engine.version.clone(),
            problem: engine.problem.clone().unwrap_or_default(),
            ready: engine.problem.is_none() && !engine.version.is_empty(),
            leaving: self.leaving,
            kernel: engine.kernel.clone(),
            os_image: engine.os.clone(),
            arch: engine.arch.clone(),
            on_battery: owner.on_battery,
            owner_active: owner.active,
        }
    }
}

pub fn nodes() -> Resource {
    Resource::fixed("nodes")
}

/// Whether the group has this node as Ready, or at least in its roster with a problem that is its own.
pub fn node_is_ready(store: &Store, name: &str) -> bool {
    let Some(node) = store.get(&Key::new(nodes(), "", name)) else { return false };
    let conditions = node.value().pointer("/status/conditions").and_then(|all| all.as_array());
    conditions
        .into_iter()
        .flatten()
        .any(|condition| condition["type"] == "Ready" && condition["status"] == "True")
}
