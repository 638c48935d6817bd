//! A pod's conditions, as the kubelet writes them.

use k8s_openapi::api::core::v1::{PodCondition, PodStatus};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use k8s_openapi::jiff::Timestamp;

/// What a condition is now.
pub struct Verdict {
    pub holds: bool,
    pub reason: Option<&'static str>,
    pub message: Option<String>,
}

impl Verdict {
    pub fn holds() -> Self {
        Self { holds: true, reason: None, message: None }
    }

    pub fn not(reason: &'static str, message: impl Into<Option<String>>) -> Self {
        Self { holds: false, reason: Some(reason), message: message.into() }
    }

    pub fn plain(holds: bool) -> Self {
        Self { holds, reason: None, message: None }
    }
}

/// The agent's conditions, with their old transition times where the status is the same, and everybody else's
/// as they are.
pub fn merge(
    existing: Option<&PodStatus>,
    own: Vec<(&'static str, Verdict)>,
    now: Timestamp,
) -> Vec<PodCondition> {
    let existing = existing.and_then(|status| status.conditions.as_deref()).unwrap_or_default();
    let mut merged: Vec<PodCondition> = own
        .into_iter()
        .map(|(type_, verdict)| {
            let status = if verdict.holds { "True" } else { "False" };
            let before = existing.iter().find(|before| before.type_ == type_ && before.status == status);
            PodCondition {
                type_: type_.to_owned(),
                status: status.to_owned(),
                reason: verdict.reason.map(str::to_owned),
                message: verdict.message,
                last_probe_time: None,
                last_transition_time: before
                    .and_then(|before| before.last_transition_time.clone())
                    .or(Some(Time(now))),
                observed_generation: None,
            }
        })
        .collect();
    let others = existing.iter().filter(|before| !merged.iter().any(|own| own.type_ == before.type_));
    let others: Vec<_> = others.cloned().collect();
    merged.extend(others);
    merged
}
