//! What a failed pod means for its Job: `podFailurePolicy`, pods lost with their node, and the back-off.

use super::super::instant::remaining;
use super::super::loaded::Loaded;
use super::super::pods;
use k8s_openapi::api::batch::v1::{JobSpec, PodFailurePolicyRule};
use k8s_openapi::api::core::v1::{ContainerStatus, Pod};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use std::time::Duration;

/// Kubernetes' pod failure back-off: the first wait, doubled with each failure in a row.
const BACKOFF_BASE: Duration = Duration::from_secs(10);
const BACKOFF_LIMIT: Duration = Duration::from_secs(360);
/// Beyond this many doublings the limit holds anyway.
const DOUBLINGS_LIMIT: u32 = 10;

/// What to make of a failed pod.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// Count it against the Job's limits.
    Count,
    /// Make another one and forget it.
    Ignore,
    /// Give its index up.
    FailIndex,
    /// Give the Job up, for this reason.
    FailJob(String),
}

pub(super) fn verdict(spec: &JobSpec, pod: &Loaded<Pod>) -> Verdict {
    let rules = spec.pod_failure_policy.iter().flat_map(|policy| &policy.rules);
    for (number, rule) in rules.enumerate() {
        let Some(what) = matched(rule, pod) else { continue };
        match rule.action.as_str() {
            "Ignore" => return Verdict::Ignore,
            "FailIndex" => return Verdict::FailIndex,
            "FailJob" => {
                return Verdict::FailJob(format!("{what} matching FailJob rule at index {number}"));
            }
            "Count" => return Verdict::Count,
            // A rule of a newer version is passed over.
            _ => {}
        }
    }
    // Desktops are switched off; that says nothing about what ran there. (Kubernetes counts it unless a rule
    // ignores DisruptionTarget: here that rule is the default.) A pod that somebody deleted was stopped by
    // them, and did not fail either.
    if pods::is_lost(pod) || pods::is_terminating(pod) { Verdict::Ignore } else { Verdict::Count }
}

fn matched(rule: &PodFailurePolicyRule, pod: &Loaded<Pod>) -> Option<String> {
    let name = format!("{}/{}", pod.key.namespace, pod.key.name);
    if let Some(codes) = &rule.on_exit_codes {
        return statuses(pod).find_map(|status| {
            let code = status.state.as_ref()?.terminated.as_ref()?.exit_code;
            let wanted = codes.container_name.as_ref().is_none_or(|name| *name == status.name);
            let listed = codes.values.contains(&code);
            let fits = if codes.operator == "NotIn" { !listed } else { listed };
            (code != 0 && wanted && fits)
                .then(|| format!("Container {} for pod {name} failed with exit code {code}", status.name))
        });
    }
    rule.on_pod_conditions.iter().flatten().find_map(|wanted| {
        let found = pods::condition(pod, &wanted.type_)?;
        (found.status == wanted.status).then(|| format!("Pod {name} has condition {}", wanted.type_))
    })
}

fn statuses(pod: &Pod) -> impl Iterator<Item = &ContainerStatus> {
    let status = pod.status.as_ref();
    let main = status.and_then(|status| status.container_statuses.as_ref());
    let init = status.and_then(|status| status.init_container_statuses.as_ref());
    main.into_iter().chain(init).flatten()
}

/// Restarts of containers in place (restartPolicy OnFailure).
pub(super) fn restarts(pod: &Pod) -> i32 {
    statuses(pod).map(|status| status.restart_count).sum()
}

/// When the last of a finished pod's containers ended.
pub(super) fn finished_at(pod: &Pod) -> Option<Time> {
    let ends =
        statuses(pod).filter_map(|status| status.state.as_ref()?.terminated.as_ref()?.finished_at.clone());
    let not_ready = || pods::condition(pod, "Ready")?.last_transition_time.clone();
    ends.max().or_else(not_ready).or_else(|| pod.metadata.creation_timestamp.clone())
}

/// Failures in a row: how many since something last succeeded, and when the last was.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Streak {
    pub failures: u32,
    pub last: Option<Time>,
}

impl Streak {
    pub(super) fn of<'a>(failed: impl Iterator<Item = &'a Loaded<Pod>>, since: Option<&Time>) -> Self {
        let mut streak = Self::default();
        for at in failed.filter_map(|pod| finished_at(pod)) {
            if since.is_none_or(|since| at > *since) {
                streak.failures += 1;
                streak.last = streak.last.max(Some(at));
            }
        }
        streak
    }

    /// How long no new pod is to be made; `None` if one may be made now.
    pub(super) fn wait(&self, now: &Time) -> Option<Duration> {
        let last = self.last.as_ref()?;
        let doublings = self.failures.saturating_sub(1).min(DOUBLINGS_LIMIT);
        let wait = (BACKOFF_BASE * 2_u32.pow(doublings)).min(BACKOFF_LIMIT);
        remaining(now, last, wait)
    }
}
