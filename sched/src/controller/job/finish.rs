//! When a Job is over, and why: success by its completions or success policy, failure by its limits.

use super::super::instant::{remaining, seconds};
use super::failure::restarts;
use super::indexes::Indexes;
use super::sync::Sync;
use super::tally::{Tally, is_indexed};
use super::{condition, pods};

/// Kubernetes' default `backoffLimit`; Jobs that limit each index have none of their own.
const DEFAULT_BACKOFF_LIMIT: i32 = 6;

/// How a Job ends.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum End {
    Success { reason: String, message: String },
    Failure { reason: String, message: String },
}

impl End {
    fn failure(reason: &str, message: impl Into<String>) -> Option<Self> {
        Some(Self::Failure { reason: reason.into(), message: message.into() })
    }

    fn success(reason: &str, message: impl Into<String>) -> Option<Self> {
        Some(Self::Success { reason: reason.into(), message: message.into() })
    }
}

impl Sync<'_> {
    /// The end that was decided on earlier, and now waits for the last pods to go.
    pub(super) fn decided(&self) -> Option<End> {
        let status = self.job.status.as_ref();
        let text = |text: &Option<String>| text.clone().unwrap_or_default();
        if let Some(failing) = condition(status, "FailureTarget") {
            return End::failure(&text(&failing.reason), text(&failing.message));
        }
        let met = condition(status, "SuccessCriteriaMet")?;
        End::success(&text(&met.reason), text(&met.message))
    }

    /// Whether the Job ends now. Failure is looked for first, as Kubernetes does.
    pub(super) fn decide(&mut self, tally: &Tally) -> Option<End> {
        if let Some(message) = &tally.job_failure {
            return End::failure("PodFailurePolicy", message.clone());
        }
        let of_each_index = self.spec.backoff_limit_per_index.is_some();
        let default = if of_each_index { i32::MAX } else { DEFAULT_BACKOFF_LIMIT };
        let limit = self.spec.backoff_limit.unwrap_or(default);
        if tally.failed > limit || self.restarted_beyond(limit) {
            return End::failure("BackoffLimitExceeded", "Job has reached the specified backoff limit");
        }
        if let Some(end) = self.deadline() {
            return Some(end);
        }
        if of_each_index && !tally.failed_indexes.is_empty() {
            let failed = tally.failed_indexes.len();
            if self.spec.max_failed_indexes.is_some_and(|limit| failed > limit) {
                let message = "Job has exceeded the specified maximal number of failed indexes";
                return End::failure("MaxFailedIndexesExceeded", message);
            }
            if failed + tally.completed.len() >= self.spec.completions.unwrap_or(0) {
                return End::failure("FailedIndexes", "Job has failed indexes");
            }
        }
        if let Some(number) = self.success_rule(tally) {
            return End::success("SuccessPolicy", format!("Matched rules at index {number}"));
        }
        let enough = match self.spec.completions {
            Some(completions) => tally.succeeded >= completions,
            // A work queue: the first success says that it is empty, the others finish what they have.
            None => {
                tally.succeeded > 0 && self.groups.active.is_empty() && self.groups.terminating.is_empty()
            }
        };
        if enough && !tally.unfinished {
            return End::success("CompletionsReached", "Reached expected number of succeeded pods");
        }
        None
    }

    /// With `restartPolicy: OnFailure` the agent restarts containers in place, and those count instead of pods.
    fn restarted_beyond(&self, limit: i32) -> bool {
        let policy = self.spec.template.spec.as_ref().and_then(|spec| spec.restart_policy.as_deref());
        if policy != Some("OnFailure") {
            return false;
        }
        let running =
            self.groups.active.iter().filter(|pod| matches!(pods::phase(pod), "Running" | "Pending"));
        let restarts: i32 = running.map(|pod| restarts(pod)).sum();
        if limit == 0 { restarts > 0 } else { restarts >= limit }
    }

    fn deadline(&mut self) -> Option<End> {
        let deadline = seconds(self.spec.active_deadline_seconds?);
        let start = self.status.start_time.as_ref().filter(|_| self.spec.suspend != Some(true))?;
        match remaining(self.now, start, deadline) {
            Some(wait) => {
                self.plan.requeue(wait);
                None
            }
            None => End::failure("DeadlineExceeded", "Job was active longer than specified deadline"),
        }
    }

    fn success_rule(&self, tally: &Tally) -> Option<usize> {
        let policy = self.spec.success_policy.as_ref().filter(|_| is_indexed(&self.spec))?;
        let completions = self.spec.completions.unwrap_or(0);
        policy.rules.iter().position(|rule| {
            let wanted = rule.succeeded_indexes.as_deref().map(|text| Indexes::parse(text, completions));
            match (wanted, rule.succeeded_count) {
                (Some(wanted), Some(count)) => {
                    tally.completed.common_with(&wanted) as i64 >= i64::from(count)
                }
                (Some(wanted), None) => tally.completed.contains_all(&wanted),
                (None, Some(count)) => tally.completed.len() >= count,
                (None, None) => false,
            }
        })
    }
}
