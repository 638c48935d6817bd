//! Requests and limits as an engine counts them.

use super::quantity::scaled;
use super::{Context, SpecError};
use crate::agent::engine::ContainerSpec;
use k8s_openapi::api::core::v1::{Container, Pod, ResourceFieldSelector};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;

/// The kernel's CPU weight of one core, and the least it takes (as the kubelet sets them).
const SHARES_PER_CORE: i64 = 1024;
const LEAST_SHARES: i64 = 2;

/// One millicore for a period of 100 ms, in microseconds, and the least quota that the kernel takes.
const QUOTA_US_PER_MILLICORE: i64 = 100;
const LEAST_QUOTA_US: i64 = 1000;

/// Docker refuses less.
const LEAST_MEMORY_BYTES: i64 = 6 << 20;

const MILLI: i64 = 1000;

fn limit(container: &Container, resource: &str) -> Option<Quantity> {
    container.resources.as_ref()?.limits.as_ref()?.get(resource).cloned()
}

/// What is asked for; where only a limit is given, that is the request too.
fn request(container: &Container, resource: &str) -> Option<Quantity> {
    let requests = container.resources.as_ref().and_then(|resources| resources.requests.as_ref());
    requests.and_then(|requests| requests.get(resource)).cloned().or_else(|| limit(container, resource))
}

pub fn apply(context: &Context, container: &Container, spec: &mut ContainerSpec) {
    let requested = request(container, "cpu").and_then(|cpu| scaled(&cpu, MILLI)).unwrap_or_default();
    spec.cpu_shares = Some((requested.saturating_mul(SHARES_PER_CORE) / MILLI).max(LEAST_SHARES));
    spec.cpu_quota_us = limit(container, "cpu")
        .and_then(|cpu| scaled(&cpu, MILLI))
        .filter(|millis| *millis > 0)
        .map(|millis| millis.saturating_mul(QUOTA_US_PER_MILLICORE).max(LEAST_QUOTA_US));
    spec.memory_bytes = limit(container, "memory")
        .and_then(|memory| scaled(&memory, 1))
        .filter(|bytes| *bytes > 0)
        .map(|bytes| bytes.max(LEAST_MEMORY_BYTES));
    spec.oom_score_adj = oom_score(context, container);
}

/// When memory runs out, best-effort containers go first and those that use much of what they never asked for
/// next. (Kubernetes, "Node-pressure Eviction"; nothing is protected below the owner's own processes.)
fn oom_score(context: &Context, container: &Container) -> Option<i64> {
    const MOST: i64 = 1000;
    match qos_class(context.pod) {
        "BestEffort" => Some(MOST),
        "Guaranteed" => None,
        _ => {
            let requested =
                request(container, "memory").and_then(|memory| scaled(&memory, 1)).unwrap_or_default();
            let total = i64::try_from(context.desktop.memory_bytes).unwrap_or(i64::MAX).max(1);
            Some((MOST - requested.saturating_mul(MOST) / total).clamp(2, MOST - 1))
        }
    }
}

/// Kubernetes' quality of service class of a pod.
pub fn qos_class(pod: &Pod) -> &'static str {
    let Some(spec) = &pod.spec else { return "BestEffort" };
    let containers = || spec.containers.iter().chain(spec.init_containers.iter().flatten());
    let amount = |quantity: Option<Quantity>| quantity.and_then(|q| scaled(&q, MILLI)).filter(|n| *n > 0);
    let any = |container: &Container| {
        ["cpu", "memory"].iter().any(|resource| amount(request(container, resource)).is_some())
    };
    let exact = |container: &Container| {
        ["cpu", "memory"].iter().all(|resource| {
            let limit = amount(limit(container, resource));
            limit.is_some() && limit == amount(request(container, resource))
        })
    };
    if !containers().any(any) {
        "BestEffort"
    } else if containers().all(exact) {
        "Guaranteed"
    } else {
        "Burstable"
    }
}

/// A container's request or limit as environment variables and files show it; a limit that is not set is the
/// desktop's size.
pub fn resource_field(
    context: &Context,
    container: &Container,
    field: &ResourceFieldSelector,
) -> Result<String, SpecError> {
    let of = match field.container_name.as_deref().filter(|name| !name.is_empty()) {
        None => container,
        Some(name) => {
            let spec = context.spec()?;
            let mut all = spec.containers.iter().chain(spec.init_containers.iter().flatten());
            let missing =
                || SpecError::Invalid(format!("container \"{name}\" of a resourceFieldRef not found"));
            all.find(|container| container.name == name).ok_or_else(missing)?
        }
    };
    let unsupported = || SpecError::Invalid(format!("unsupported container resource: {}", field.resource));
    let (kind, resource) = field.resource.split_once('.').ok_or_else(unsupported)?;
    let scale = if resource == "cpu" { MILLI } else { 1 };
    let stated = match kind {
        "limits" => limit(of, resource),
        "requests" => request(of, resource),
        _ => return Err(unsupported()),
    };
    let amount = match (stated, kind, resource) {
        (Some(quantity), ..) => scaled(&quantity, scale).ok_or_else(unsupported)?,
        (None, "limits", "cpu") => i64::from(context.desktop.cpus) * MILLI,
        (None, "limits", "memory") => i64::try_from(context.desktop.memory_bytes).unwrap_or(i64::MAX),
        (None, ..) => 0,
    };
    let divisor = field.divisor.as_ref().and_then(|divisor| scaled(divisor, scale)).filter(|n| *n > 0);
    let divisor = divisor.unwrap_or(scale);
    Ok((amount / divisor + i64::from(amount % divisor != 0)).to_string())
}
