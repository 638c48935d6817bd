//! What a pod needs of a node, in numbers.

use super::quantity;
use crate::controller::selector::Labels;
use crate::state::Key;
use k8s_openapi::api::core::v1::{Container, Pod, PodSpec};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// What a pod without a request is taken to use when nodes are compared (Kubernetes' figures): otherwise all
/// such pods would go to one node.
const ASSUMED_CPU_MILLIS: i64 = 100;
const ASSUMED_MEMORY_BYTES: i64 = 200 << 20;

/// Amounts by resource name; processors in thousandths.
pub(super) type Amounts = BTreeMap<String, i64>;

/// A port of the desktop itself.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct HostPort {
    pub ip: String,
    pub protocol: String,
    pub port: i32,
}

impl HostPort {
    /// An address of all interfaces takes the port on each of them.
    fn conflicts(&self, other: &Self) -> bool {
        let all = |ip: &str| ip.is_empty() || ip == "0.0.0.0";
        self.port == other.port
            && self.protocol == other.protocol
            && (self.ip == other.ip || all(&self.ip) || all(&other.ip))
    }
}

/// A pod as the scheduler sees it.
#[derive(Clone, Debug)]
pub(super) struct Demand {
    pub key: Key,
    pub pod: Arc<Pod>,
    pub labels: Labels,
    pub controller_uid: Option<String>,
    pub requests: Amounts,
    pub ports: BTreeSet<HostPort>,
    pub images: BTreeSet<String>,
    /// For comparing nodes only: with a figure for pods that request nothing.
    pub assumed_cpu: i64,
    pub assumed_memory: i64,
}

impl Demand {
    pub(super) fn new(key: Key, pod: Arc<Pod>) -> Self {
        let empty = PodSpec::default();
        let spec = pod.spec.as_ref().unwrap_or(&empty);
        let requests = requests(spec);
        let amount =
            |name, assumed| requests.get(name).copied().filter(|amount| *amount > 0).unwrap_or(assumed);
        Self {
            key,
            labels: pod.metadata.labels.clone().unwrap_or_default(),
            controller_uid: crate::controller::pods::controller_uid(&pod),
            ports: ports(spec),
            images: containers(spec).filter_map(|container| container.image.clone()).collect(),
            assumed_cpu: amount("cpu", ASSUMED_CPU_MILLIS),
            assumed_memory: amount("memory", ASSUMED_MEMORY_BYTES),
            requests,
            pod,
        }
    }

    pub(super) fn namespace(&self) -> &str {
        &self.key.namespace
    }

    pub(super) fn spec(&self) -> Option<&PodSpec> {
        self.pod.spec.as_ref()
    }

    pub(super) fn conflicts_with(&self, taken: &BTreeSet<HostPort>) -> bool {
        self.ports.iter().any(|wanted| taken.iter().any(|taken| wanted.conflicts(taken)))
    }
}

fn containers(spec: &PodSpec) -> impl Iterator<Item = &Container> {
    spec.containers.iter().chain(spec.init_containers.iter().flatten())
}

/// The sum over what runs together, and at least what each init container needs on its own beside the sidecars
/// that were started before it
/// (<https://kubernetes.io/docs/concepts/workloads/pods/init-containers/#resource-sharing-within-containers>).
fn requests(spec: &PodSpec) -> Amounts {
    let mut running = Amounts::new();
    for container in &spec.containers {
        add(&mut running, &of_container(container));
    }
    let (mut sidecars, mut peak) = (Amounts::new(), Amounts::new());
    for container in spec.init_containers.iter().flatten() {
        let own = of_container(container);
        if container.restart_policy.as_deref() == Some("Always") {
            add(&mut sidecars, &own);
            at_least(&mut peak, &sidecars);
        } else {
            let mut beside = sidecars.clone();
            add(&mut beside, &own);
            at_least(&mut peak, &beside);
        }
    }
    add(&mut running, &sidecars);
    at_least(&mut running, &peak);
    // Requests of the pod as a whole take the place of its containers'.
    if let Some(of_pod) = &spec.resources {
        running.extend(amounts(of_pod.requests.as_ref()));
    }
    add(&mut running, &amounts(spec.overhead.as_ref()));
    running.insert("pods".into(), 1);
    running
}

/// A limit without a request is a request, as the API's defaulting has it.
fn of_container(container: &Container) -> Amounts {
    let Some(resources) = &container.resources else { return Amounts::new() };
    let mut requests = amounts(resources.limits.as_ref());
    requests.extend(amounts(resources.requests.as_ref()));
    requests
}

fn amounts(quantities: Option<&BTreeMap<String, Quantity>>) -> Amounts {
    let amount =
        |(name, quantity): (&String, &Quantity)| (name.clone(), quantity::amount(name, quantity).max(0));
    quantities.into_iter().flatten().map(amount).collect()
}

pub(super) fn add(sum: &mut Amounts, more: &Amounts) {
    for (name, amount) in more {
        let entry = sum.entry(name.clone()).or_default();
        *entry = entry.saturating_add(*amount);
    }
}

fn at_least(amounts: &mut Amounts, floor: &Amounts) {
    for (name, amount) in floor {
        let entry = amounts.entry(name.clone()).or_default();
        *entry = (*entry).max(*amount);
    }
}

fn ports(spec: &PodSpec) -> BTreeSet<HostPort> {
    let of_host = spec.host_network == Some(true);
    let ports = containers(spec).flat_map(|container| container.ports.iter().flatten());
    ports
        .filter_map(|port| {
            let fixed = port.host_port.filter(|port| *port > 0);
            Some(HostPort {
                ip: port.host_ip.clone().unwrap_or_default(),
                protocol: port.protocol.clone().unwrap_or_else(|| "TCP".into()),
                port: fixed.or_else(|| of_host.then_some(port.container_port))?,
            })
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn demand(spec: serde_json::Value) -> Demand {
        let pod: Pod = serde_json::from_value(json!({"metadata": {"name": "p"}, "spec": spec})).unwrap();
        Demand::new(Key::of::<Pod>("default", "p"), Arc::new(pod))
    }

    #[test]
    fn an_init_container_counts_only_where_it_needs_more() {
        let cpu = |cpu: &str| json!({"name": "c", "resources": {"requests": {"cpu": cpu}}});
        let sidecar =
            json!({"name": "s", "restartPolicy": "Always", "resources": {"requests": {"cpu": "100m"}}});
        let small = demand(json!({"containers": [cpu("1"), cpu("500m")], "initContainers": [cpu("1")]}));
        assert_eq!(small.requests["cpu"], 1500);
        let large = demand(json!({"containers": [cpu("1")], "initContainers": [sidecar, cpu("2")]}));
        assert_eq!(large.requests["cpu"], 2100);
        assert_eq!(large.requests["pods"], 1);
    }

    #[test]
    fn a_limit_alone_is_a_request() {
        let limited =
            demand(json!({"containers": [{"name": "c", "resources": {"limits": {"memory": "1Gi"}}}]}));
        assert_eq!(limited.requests["memory"], 1 << 30);
    }

    #[test]
    fn ports_conflict_across_all_interfaces() {
        let port = |ip: &str| {
            let ports = json!([{"containerPort": 80, "hostPort": 8080, "hostIP": ip}]);
            demand(json!({"containers": [{"name": "c", "ports": ports}]}))
        };
        assert!(port("").conflicts_with(&port("10.0.0.1").ports));
        assert!(!port("10.0.0.2").conflicts_with(&port("10.0.0.1").ports));
    }
}
