//! What a Deployment says of itself: counts, Available, Progressing.

use super::super::instant::{remaining, seconds};
use super::super::replicaset::REPLICA_FAILURE;
use super::{Set, Work, strategy};
use k8s_openapi::api::apps::v1::{DeploymentCondition, DeploymentStatus};

const PROGRESSING: &str = "Progressing";
const AVAILABLE: &str = "Available";
const COMPLETE: &str = "NewReplicaSetAvailable";
const TIMED_OUT: &str = "ProgressDeadlineExceeded";
pub(super) const CREATE_ERROR: &str = "ReplicaSetCreateError";
const PAUSED: &str = "DeploymentPaused";
/// Kubernetes' default, for objects that were stored without it.
const DEFAULT_DEADLINE_SECONDS: i32 = 600;

impl Work<'_> {
    /// Sets the counts and the Available condition.
    pub(super) fn count(&mut self) {
        let sum = |of: fn(&Set) -> i32| self.sets.iter().map(of).sum::<i32>();
        let (replicas, available, ready) = (sum(Set::existing), sum(Set::available), sum(Set::ready));
        let updated = self.newest.map_or(0, |newest| self.sets[newest].existing());
        // Pods that are asked for and do not exist yet are unavailable too.
        let asked = self.total();
        let enough = available >= self.desired() - strategy::unavailable_of(&self.spec);
        self.status = DeploymentStatus {
            observed_generation: self.deployment.metadata.generation,
            replicas: Some(replicas),
            updated_replicas: Some(updated),
            ready_replicas: Some(ready),
            available_replicas: Some(available),
            unavailable_replicas: Some((asked - available).max(0)),
            ..self.status.clone()
        };
        self.note_failure();
        if enough {
            let message = "Deployment has minimum availability.";
            self.put_condition(AVAILABLE, "True", "MinimumReplicasAvailable", message);
        } else {
            let message = "Deployment does not have minimum availability.";
            self.put_condition(AVAILABLE, "False", "MinimumReplicasUnavailable", message);
        }
    }

    /// Takes over what a ReplicaSet says that cannot make its pods, the newest one's first.
    fn note_failure(&mut self) {
        let failure = |set: &Set| {
            let conditions = set.loaded.status.iter().flat_map(|status| status.conditions.iter().flatten());
            conditions.into_iter().find(|one| one.type_ == REPLICA_FAILURE).cloned()
        };
        let newest = self.newest.and_then(|newest| failure(&self.sets[newest]));
        match newest.or_else(|| self.sets.iter().find_map(failure)) {
            Some(failure) => {
                let (reason, message) = (failure.reason.as_deref(), failure.message.as_deref());
                let (reason, message) = (reason.unwrap_or_default(), message.unwrap_or_default());
                self.put_condition(REPLICA_FAILURE, &failure.status, reason, message);
            }
            None => self.conditions().retain(|condition| condition.type_ != REPLICA_FAILURE),
        }
    }

    /// A new ReplicaSet is forbidden.
    pub(super) fn note_refused(&mut self, message: &str) {
        self.put_condition(PROGRESSING, "False", CREATE_ERROR, message);
    }

    /// All pods are of the new revision, and serve.
    pub(super) fn is_complete(&self) -> bool {
        let desired = self.desired();
        let available: i32 = self.sets.iter().map(Set::available).sum();
        let existing: i32 = self.sets.iter().map(Set::existing).sum();
        let asked = self.total() == desired;
        self.newest.is_some_and(|newest| self.sets[newest].existing() == desired)
            && existing == desired
            && available == desired
            && asked
    }

    pub(super) fn note_progress(&mut self) {
        let deadline = self.spec.progress_deadline_seconds.unwrap_or(DEFAULT_DEADLINE_SECONDS);
        if deadline == i32::MAX {
            self.conditions().retain(|condition| condition.type_ != PROGRESSING);
            return;
        }
        let before = self.deployment.status.clone().unwrap_or_default();
        let reason = self.progressing().map(|condition| condition.reason.clone().unwrap_or_default());
        let was_complete = reason.as_deref() == Some(COMPLETE);
        if was_complete && self.status.replicas == self.status.updated_replicas {
            return;
        }
        let name = self.newest.map(|newest| self.sets[newest].name().to_owned());
        let subject = match &name {
            Some(name) => format!("ReplicaSet \"{name}\""),
            None => format!("Deployment \"{}\"", self.deployment.key.name),
        };
        if self.is_complete() {
            let message = format!("{subject} has successfully progressed.");
            self.put_condition(PROGRESSING, "True", COMPLETE, &message);
        } else if has_progressed(&before, &self.status) {
            self.remark_progress("ReplicaSetUpdated", &format!("{subject} is progressing."));
        } else if reason.as_deref() != Some(TIMED_OUT)
            && !was_complete
            && let Some(since) = self.progressing().and_then(|condition| condition.last_update_time.clone())
        {
            match remaining(self.now, &since, seconds(deadline.into())) {
                Some(wait) => self.plan.requeue(wait),
                None => {
                    let message = format!("{subject} has timed out progressing.");
                    self.put_condition(PROGRESSING, "False", TIMED_OUT, &message);
                }
            }
            return;
        }
        if !self.is_complete() {
            self.plan.requeue(seconds(deadline.into()));
        }
    }

    pub(super) fn note_pause(&mut self, paused: bool) {
        let was = self.progressing().is_some_and(|condition| condition.reason.as_deref() == Some(PAUSED));
        if paused && !was {
            self.put_condition(PROGRESSING, "Unknown", PAUSED, "Deployment is paused");
        } else if !paused && was {
            self.put_condition(PROGRESSING, "Unknown", "DeploymentResumed", "Deployment is resumed");
        }
    }

    pub(super) fn note_created(&mut self, name: &str) {
        let message = format!("Created new replica set \"{name}\"");
        self.remark_progress("NewReplicaSetCreated", &message);
    }

    /// A rollback, or a ReplicaSet that was there before its Deployment.
    pub(super) fn note_found(&mut self, name: &str) {
        if self.progressing().is_none() {
            let message = format!("Found new replica set \"{name}\"");
            self.remark_progress("FoundNewReplicaSet", &message);
        }
    }

    fn progressing(&self) -> Option<&DeploymentCondition> {
        self.status.conditions.iter().flatten().find(|condition| condition.type_ == PROGRESSING)
    }

    fn conditions(&mut self) -> &mut Vec<DeploymentCondition> {
        self.status.conditions.get_or_insert_default()
    }

    /// Progressing, with the clock of the deadline set back to now.
    fn remark_progress(&mut self, reason: &str, message: &str) {
        self.put_condition(PROGRESSING, "True", reason, message);
        let now = self.now.clone();
        for condition in self.conditions().iter_mut().filter(|condition| condition.type_ == PROGRESSING) {
            condition.last_update_time = Some(now.clone());
        }
    }

    fn put_condition(&mut self, type_: &str, status: &str, reason: &str, message: &str) {
        let now = self.now.clone();
        let conditions = self.conditions();
        let before = conditions.iter().position(|condition| condition.type_ == type_);
        let mut condition = DeploymentCondition {
            type_: type_.to_owned(),
            status: status.to_owned(),
            reason: Some(reason.to_owned()),
            message: Some(message.to_owned()),
            last_transition_time: Some(now.clone()),
            last_update_time: Some(now),
        };
        let Some(before) = before else {
            conditions.push(condition);
            return;
        };
        let old = &conditions[before];
        if old.status == condition.status {
            condition.last_transition_time = old.last_transition_time.clone();
            if old.reason == condition.reason && old.message == condition.message {
                return;
            }
        }
        conditions[before] = condition;
    }
}

/// Whether the counts came closer to a finished rollout.
fn has_progressed(before: &DeploymentStatus, after: &DeploymentStatus) -> bool {
    let count = |count: Option<i32>| count.unwrap_or(0);
    let old = |status: &DeploymentStatus| count(status.replicas) - count(status.updated_replicas);
    count(after.updated_replicas) > count(before.updated_replicas)
        || old(after) < old(before)
        || count(after.ready_replicas) > count(before.ready_replicas)
        || count(after.available_replicas) > count(before.available_replicas)
}
