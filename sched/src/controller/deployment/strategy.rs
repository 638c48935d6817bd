//! How many pods a rollout may have too many or too few.

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

#[derive(Clone, Copy)]
enum Rounding {
    Up,
    Down,
}

fn resolve(bound: &IntOrString, replicas: i32, rounding: Rounding) -> i32 {
    match bound {
        IntOrString::Int(count) => (*count).max(0),
        IntOrString::String(text) => {
            let percent: i64 =
                text.trim().trim_end_matches('%').parse().unwrap_or(0).clamp(0, i32::MAX.into());
            let hundredths = percent.saturating_mul(replicas.max(0).into());
            let count = match rounding {
                Rounding::Up => hundredths.saturating_add(99) / 100,
                Rounding::Down => hundredths / 100,
            };
            count.try_into().unwrap_or(i32::MAX)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percents_round_up_for_surge_and_down_for_unavailable() {
        let percent = |text: &str| IntOrString::String(text.into());
        let cases = [
            (percent("25%"), 3, 1, 0),
            (percent("25%"), 4, 1, 1),
            (percent("50%"), 5, 3, 2),
            (percent("0%"), 5, 0, 0),
            (IntOrString::Int(2), 5, 2, 2),
            (percent("nonsense"), 5, 0, 0),
        ];
        for (bound, replicas, up, down) in cases {
            assert_eq!(resolve(&bound, replicas, Rounding::Up), up, "{bound:?} of {replicas}");
            assert_eq!(resolve(&bound, replicas, Rounding::Down), down, "{bound:?} of {replicas}");
        }
    }
}
