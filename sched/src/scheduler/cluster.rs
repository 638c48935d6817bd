//! The scheduler's own index: nodes with what they offer and what is used, in numbers, kept up to date while
//! one call places pod after pod.

use super::demand::{Amounts, Demand, HostPort, add};
use super::quantity;
use crate::controller::pods;
use crate::controller::selector::Labels;
use crate::state::{Resource, Store, resource_of};
use k8s_openapi::api::core::v1::{Namespace, Node, Pod, Taint};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

const PODS: Resource = Resource::fixed("pods");
const UNSCHEDULABLE: &str = "node.kubernetes.io/unschedulable";

/// One node and what runs there.
#[derive(Debug)]
pub(super) struct Machine {
    pub name: String,
    pub labels: Labels,
    pub taints: Vec<Taint>,
    pub cordoned: bool,
    pub ready: bool,
    pub offers: Amounts,
    pub used: Amounts,
    /// For comparing nodes: see [`Demand::assumed_cpu`].
    pub assumed_cpu: i64,
    pub assumed_memory: i64,
    pub ports: BTreeSet<HostPort>,
    pub images: BTreeSet<String>,
    pub pods: Vec<Arc<Demand>>,
}

impl Machine {
    pub(super) fn new(name: String, node: &Node, images: BTreeSet<String>) -> Self {
        let status = node.status.as_ref();
        let offers = status.and_then(|status| status.allocatable.as_ref().or(status.capacity.as_ref()));
        let offers = offers.into_iter().flatten();
        let offers = offers.map(|(name, quantity)| (name.clone(), quantity::amount(name, quantity)));
        Self { offers: offers.collect(), images, ..Self::bare(name, node) }
    }

    /// A node that nobody asks for room: reading what it offers takes longer than all the rest.
    pub(super) fn bare(name: String, node: &Node) -> Self {
        let spec = node.spec.clone().unwrap_or_default();
        let conditions = node.status.iter().flat_map(|status| status.conditions.iter().flatten());
        let ready = conditions.into_iter().any(|one| one.type_ == "Ready" && one.status == "True");
        Self {
            name,
            labels: node.metadata.labels.clone().unwrap_or_default(),
            cordoned: spec.unschedulable == Some(true),
            // A cordon is told as such, not as the taint that comes with it.
            taints: spec
                .taints
                .unwrap_or_default()
                .into_iter()
                .filter(|one| one.key != UNSCHEDULABLE)
                .collect(),
            ready: ready && node.metadata.deletion_timestamp.is_none(),
            offers: Amounts::new(),
            used: Amounts::new(),
            assumed_cpu: 0,
            assumed_memory: 0,
            ports: BTreeSet::new(),
            images: BTreeSet::new(),
            pods: Vec::new(),
        }
    }

    pub(super) fn place(&mut self, demand: Arc<Demand>) {
        add(&mut self.used, &demand.requests);
        self.assumed_cpu = self.assumed_cpu.saturating_add(demand.assumed_cpu);
        self.assumed_memory = self.assumed_memory.saturating_add(demand.assumed_memory);
        self.ports.extend(demand.ports.iter().cloned());
        self.pods.push(demand);
    }

    pub(super) fn free(&self, resource: &str) -> i64 {
        let offered = self.offers.get(resource).copied().unwrap_or(0);
        offered.saturating_sub(self.used.get(resource).copied().unwrap_or(0))
    }
}

/// All nodes, by name, and what filters ask of the rest.
#[derive(Debug, Default)]
pub(super) struct Cluster {
    pub machines: Vec<Machine>,
    by_name: BTreeMap<String, usize>,
    pub namespaces: BTreeMap<String, Labels>,
}

impl Cluster {
    pub(super) fn new(store: &Store, images: &BTreeMap<String, BTreeSet<String>>) -> Self {
        let mut cluster = Self::default();
        for (key, object) in store.list(&resource_of::<Node>(), None) {
            let Some(node) = object.typed::<Node>() else { continue };
            let images = images.get(&key.name).cloned().unwrap_or_default();
            cluster.by_name.insert(key.name.clone(), cluster.machines.len());
            cluster.machines.push(Machine::new(key.name, &node, images));
        }
        for namespace in store.list_as::<Namespace>(None) {
            let name = namespace.metadata.name.clone().unwrap_or_default();
            cluster.namespaces.insert(name, namespace.metadata.labels.clone().unwrap_or_default());
        }
        for (key, object) in store.list(&PODS, None) {
            let Some(pod) = object.typed::<Pod>().filter(|pod| !pods::is_finished(pod)) else { continue };
            let Some(node) = pods::node_of(&pod).map(str::to_owned) else { continue };
            if let Some(index) = cluster.by_name.get(&node) {
                cluster.machines[*index].place(Arc::new(Demand::new(key, pod)));
            }
        }
        cluster
    }

    /// Every pod that runs, with the labels of its node.
    pub(super) fn placed(&self) -> impl Iterator<Item = (&Machine, &Demand)> {
        self.machines.iter().flat_map(|machine| machine.pods.iter().map(move |pod| (machine, &**pod)))
    }
}
