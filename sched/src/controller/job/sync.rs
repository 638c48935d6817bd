//! One reconciliation of a Job that is not over: count, decide, delete what is too much, make what is missing.

use super::super::birth::Births;
use super::super::deletion::{self, Grace};
use super::super::loaded::{Loaded, edit_object, set, to_json};
use super::super::replicaset::deletion_order;
use super::super::{Note, Plan, pods};
use super::birth::{self, Place, TRACKING};
use super::finish::End;
use super::tally::{Groups, Streaks, Tally, is_indexed};
use super::{NAME, condition};
use crate::state::{Store, Write};
use k8s_openapi::api::batch::v1::{Job, JobCondition, JobSpec, JobStatus};
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use serde_json::json;
use std::collections::BTreeSet;
use std::time::Duration;

/// Pods made per plan, as Kubernetes bounds it.
const BURST: usize = 500;

pub(super) struct Sync<'a> {
    pub store: &'a Store,
    pub now: &'a Time,
    pub job: Loaded<Job>,
    pub spec: JobSpec,
    pub groups: Groups,
    /// As it will be.
    pub status: JobStatus,
    pub plan: Plan,
}

impl<'a> Sync<'a> {
    pub(super) fn new(
        store: &'a Store,
        job: Loaded<Job>,
        spec: JobSpec,
        dependents: Vec<Loaded<Pod>>,
        now: &'a Time,
    ) -> Self {
        let status = job.status.clone().unwrap_or_default();
        let groups = Groups::new(dependents);
        Self { store, now, job, spec, groups, status, plan: Plan::default() }
    }

    pub(super) fn run(mut self) -> Plan {
        let suspended = self.spec.suspend == Some(true);
        if self.status.start_time.is_none() && !suspended {
            self.status.start_time = Some(self.now.clone());
        }
        self.track_adopted();
        self.release_unbound();
        let decided = self.decided();
        let failing = matches!(decided, Some(End::Failure { .. }));
        let mut tally = Tally::new(&self.spec, &self.status, &self.groups, failing);
        let end = decided.or_else(|| self.decide(&tally));
        self.record(&tally);
        let mut births = Vec::new();
        if let Some(end) = end {
            self.end(&end, tally.unfinished);
        } else if suspended {
            self.suspend();
        } else {
            self.resume();
            births = self.manage(&tally);
        }
        if tally.unfinished {
            self.plan.requeue(Duration::ZERO);
        }
        let mut writes = std::mem::take(&mut tally.releases);
        writes.extend(births);
        self.finish(writes)
    }

    /// Pods that were adopted are held for counting like those that were made.
    fn track_adopted(&mut self) {
        for pod in &self.groups.active {
            if !deletion::has_finalizer(&pod.object, TRACKING) {
                let mut finalizers: Vec<&str> = deletion::finalizers(&pod.object).collect();
                finalizers.push(TRACKING);
                self.plan.writes.push(
                    pod.edit(|value| set(value, &["metadata", "finalizers"], json!(finalizers))).into(),
                );
            }
        }
    }

    /// A pod that was deleted before it had a node ends nowhere, so there is nothing to count.
    fn release_unbound(&mut self) {
        for pod in self.groups.terminating.iter().filter(|pod| pods::node_of(pod).is_none()) {
            let write = deletion::without_finalizer(&pod.key, &pod.object, TRACKING);
            self.plan.writes.extend(write.map(Into::into));
        }
    }

    fn record(&mut self, tally: &Tally) {
        let count = |count: usize| i32::try_from(count).unwrap_or(i32::MAX);
        let ready = self.groups.active.iter().filter(|pod| pods::is_ready(pod)).count();
        self.status.active = Some(count(self.groups.active.len()));
        self.status.ready = Some(count(ready));
        self.status.terminating = Some(count(self.groups.terminating.len()));
        self.status.succeeded = Some(tally.succeeded);
        self.status.failed = Some(tally.failed);
        if is_indexed(&self.spec) {
            self.status.completed_indexes = Some(tally.completed.to_string());
        }
        if self.spec.backoff_limit_per_index.is_some() {
            self.status.failed_indexes = Some(tally.failed_indexes.to_string());
        }
    }

    /// Stops the pods; when none is left, the Job is Complete or Failed.
    fn end(&mut self, end: &End, unfinished: bool) {
        let (target, last, reason, message) = match end {
            End::Success { reason, message } => ("SuccessCriteriaMet", "Complete", reason, message),
            End::Failure { reason, message } => ("FailureTarget", "Failed", reason, message),
        };
        self.put_condition(target, "True", reason, message);
        let all = self.groups.active.clone();
        self.remove(&all, usize::MAX);
        if !self.groups.active.is_empty() || !self.groups.terminating.is_empty() || unfinished {
            return;
        }
        self.put_condition(last, "True", reason, message);
        let note = match end {
            End::Success { .. } => {
                self.status.completion_time = Some(self.now.clone());
                Note::normal(&self.job.key, NAME, "Completed", "Job completed")
            }
            End::Failure { .. } => Note::warning(&self.job.key, NAME, reason, message.clone()),
        };
        self.plan.events.push(note);
    }

    fn suspend(&mut self) {
        let all = self.groups.active.clone();
        self.remove(&all, usize::MAX);
        self.status.start_time = None;
        if condition(Some(&self.status), "Suspended").is_none() {
            self.put_condition("Suspended", "True", "JobSuspended", "Job suspended");
            self.plan.events.push(Note::normal(&self.job.key, NAME, "Suspended", "Job suspended"));
        }
    }

    fn resume(&mut self) {
        if condition(Some(&self.status), "Suspended").is_some() {
            self.put_condition("Suspended", "False", "JobResumed", "Job resumed");
            self.status.start_time = Some(self.now.clone());
            self.plan.events.push(Note::normal(&self.job.key, NAME, "Resumed", "Job resumed"));
        }
    }

    fn manage(&mut self, tally: &Tally) -> Vec<Write> {
        let parallelism = self.spec.parallelism.unwrap_or(1).max(0);
        let active = i32::try_from(self.groups.active.len()).unwrap_or(i32::MAX);
        let wanted = match self.spec.completions {
            Some(completions) => {
                let open = completions - tally.succeeded - tally.failed_indexes.len();
                open.clamp(0, parallelism)
            }
            None if tally.succeeded > 0 => active.min(parallelism),
            None => parallelism,
        };
        self.remove_needless(tally, usize::try_from(wanted).unwrap_or(0));
        let occupied = if self.waits_for_the_terminating() {
            active + self.status.terminating.unwrap_or(0)
        } else {
            active
        };
        let missing = usize::try_from(wanted - occupied).unwrap_or(0);
        // What is not counted yet may be the completion that a new pod would be made for.
        if missing == 0 || tally.unfinished {
            return Vec::new();
        }
        self.give_birth(tally, missing)
    }

    /// `podReplacementPolicy: Failed`, which is the default of Jobs with a `podFailurePolicy`.
    fn waits_for_the_terminating(&self) -> bool {
        match self.spec.pod_replacement_policy.as_deref() {
            Some(policy) => policy == "Failed",
            None => self.spec.pod_failure_policy.is_some(),
        }
    }

    /// Removes pods of indexes that need none (done, given up, had twice, beyond the end), and what is beyond
    /// the parallelism.
    fn remove_needless(&mut self, tally: &Tally, wanted: usize) {
        let mut pods = self.groups.active.clone();
        deletion_order(&mut pods, self.now);
        let mut needless = Vec::new();
        let mut needed = Vec::new();
        if is_indexed(&self.spec) {
            let mut seen = BTreeSet::new();
            let completions = self.spec.completions.unwrap_or(0);
            // Backwards: of two pods of an index the better one is met first and stays.
            for pod in pods.into_iter().rev() {
                let index = birth::index_of(&pod).filter(|index| {
                    *index < completions
                        && !tally.completed.contains(*index)
                        && !tally.failed_indexes.contains(*index)
                });
                if index.is_some_and(|index| seen.insert(index)) {
                    needed.push(pod)
                } else {
                    needless.push(pod)
                }
            }
            needed.reverse();
        } else {
            needed = pods;
        }
        let surplus = needed.len().saturating_sub(wanted);
        needless.extend(needed.into_iter().take(surplus));
        self.remove(&needless, BURST);
    }

    fn remove(&mut self, pods: &[Loaded<Pod>], limit: usize) {
        for pod in pods.iter().take(limit) {
            // Nothing ran where nothing was bound: such a pod need not be held for counting.
            let unbound = pods::node_of(pod).is_none();
            let others = deletion::finalizers(&pod.object).any(|name| name != TRACKING);
            let write = if unbound && !others {
                let expect = crate::state::Expect::Revision(pod.object.revision());
                Some(Write::Delete { key: pod.key.clone(), expect, intent: None })
            } else {
                deletion::delete(&pod.key, &pod.object, Grace::AsSpecified, self.now)
            };
            let Some(write) = write else { continue };
            self.plan.write(write);
            let message = format!("Deleted pod: {}", pod.key.name);
            self.plan.events.push(Note::normal(&self.job.key, NAME, "SuccessfulDelete", message));
        }
    }

    fn give_birth(&mut self, tally: &Tally, missing: usize) -> Vec<Write> {
        let streaks = Streaks::new(&self.spec, &self.groups);
        let of_each_index = self.spec.backoff_limit_per_index.is_some();
        if !of_each_index && let Some(wait) = streaks.job.wait(self.now) {
            self.plan.requeue(wait);
            return Vec::new();
        }
        let places: Vec<Option<Place>> = if is_indexed(&self.spec) {
            self.open_places(tally, &streaks, missing.min(BURST)).into_iter().map(Some).collect()
        } else {
            vec![None; missing.min(BURST)]
        };
        let mut births = Births::new(self.store, &self.job.key, NAME);
        for (ordinal, place) in places.into_iter().enumerate() {
            let pod = birth::pod(self.store, &self.job, &self.spec, place, ordinal as u64, self.now);
            if !births.add(pod, &mut self.plan) {
                break;
            }
        }
        // Fewer were made where the namespace forbids more: asking again at once would not help.
        if births.pods() == BURST && missing > BURST {
            self.plan.requeue(Duration::ZERO);
        }
        let born = i32::try_from(births.pods()).unwrap_or(i32::MAX);
        self.status.active = self.status.active.map(|active| active + born);
        births.into_writes()
    }

    /// The lowest indexes that have no pod, are not done, and need not wait.
    fn open_places(&mut self, tally: &Tally, streaks: &Streaks, missing: usize) -> Vec<Place> {
        let mut taken: BTreeSet<i32> = self.groups.active.iter().filter_map(birth::index_of).collect();
        if self.waits_for_the_terminating() {
            taken.extend(self.groups.terminating.iter().filter_map(birth::index_of));
        }
        let mut places = Vec::new();
        for index in 0..self.spec.completions.unwrap_or(0) {
            if places.len() == missing {
                break;
            }
            if taken.contains(&index)
                || tally.completed.contains(index)
                || tally.failed_indexes.contains(index)
            {
                continue;
            }
            let (failures, streak) = streaks.of(index);
            match streak.and_then(|streak| streak.wait(self.now)) {
                Some(wait) => self.plan.requeue(wait),
                None => places.push(Place { index, failures }),
            }
        }
        places
    }

    fn put_condition(&mut self, type_: &str, status: &str, reason: &str, message: &str) {
        let conditions = self.status.conditions.get_or_insert_default();
        let same = |condition: &&mut JobCondition| condition.type_ == type_;
        let new = JobCondition {
            type_: type_.into(),
            status: status.into(),
            reason: Some(reason.into()),
            message: Some(message.into()),
            last_probe_time: Some(self.now.clone()),
            last_transition_time: Some(self.now.clone()),
        };
        match conditions.iter_mut().find(same) {
            Some(old) if old.status == new.status => {}
            Some(old) => *old = new,
            None => conditions.push(new),
        }
    }

    /// One transaction: the Job's status, the finalizers of what it counts, the pods that it makes.
    fn finish(mut self, mut writes: Vec<Write>) -> Plan {
        if self.job.status.as_ref() != Some(&self.status) || !writes.is_empty() {
            let status = to_json(&self.status);
            let edit = |value: &mut serde_json::Value| set(value, &["status"], status);
            writes.insert(0, edit_object(&self.job.key, &self.job.object, edit));
            self.plan.writes.insert(0, crate::state::Txn::from(writes));
        }
        self.plan
    }
}
