//! How many pods a rollout may have too many or too few.

use super::super::bounds::{Rounding, resolve};
use super::Work;
use k8s_openapi::api::apps::v1::DeploymentSpec;
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Strategy {
    Recreate,
    RollingUpdate { surge: i32, unavailable: i32 },
}

/// Kubernetes' default for both bounds.
const DEFAULT_BOUND: &str = "25%";

impl Work<'_> {
    pub(super) fn strategy(&self) -> Strategy {
        strategy_of(&self.spec)
    }
}

pub(super) fn strategy_of(spec: &DeploymentSpec) -> Strategy {
    let strategy = spec.strategy.as_ref();
    if strategy.and_then(|strategy| strategy.type_.as_deref()) == Some("Recreate") {
        return Strategy::Recreate;
    }
    let rolling = strategy.and_then(|strategy| strategy.rolling_update.clone()).unwrap_or_default();
    let bound =
        |given: Option<IntOrString>| given.unwrap_or_else(|| IntOrString::String(DEFAULT_BOUND.into()));
    let replicas = spec.replicas.unwrap_or(1);
    let surge = resolve(&bound(rolling.max_surge), replicas, Rounding::Up);
    let mut unavailable = resolve(&bound(rolling.max_unavailable), replicas, Rounding::Down);
    if surge == 0 && unavailable == 0 {
        // Both may round to nothing; then the rollout could never move.
        unavailable = 1;
    }
    Strategy::RollingUpdate { surge, unavailable: unavailable.min(replicas) }
}

/// How many pods more than desired there may be.
pub(super) fn surge_of(spec: &DeploymentSpec) -> i32 {
    match strategy_of(spec) {
        Strategy::Recreate => 0,
        Strategy::RollingUpdate { surge, .. } => surge,
    }
}

/// How many pods fewer than desired may be available.
pub(super) fn unavailable_of(spec: &DeploymentSpec) -> i32 {
    match strategy_of(spec) {
        Strategy::Recreate => 0,
        Strategy::RollingUpdate { unavailable, .. } => unavailable,
    }
}
