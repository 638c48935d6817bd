//! A Job's pods, sorted by what they mean, and the counts that come of them.

use super::super::deletion;
use super::super::loaded::Loaded;
use super::super::pods;
use super::birth::{self, TRACKING};
use super::failure::{Streak, Verdict, finished_at, verdict};
use super::indexes::Indexes;
use crate::state::Write;
use k8s_openapi::api::batch::v1::{JobSpec, JobStatus};
use k8s_openapi::api::core::v1::Pod;
use std::collections::BTreeMap;

/// Finished pods counted by one transaction.
const COUNT_LIMIT: usize = 500;

/// A Job's pods by what they are to it.
#[derive(Default)]
pub(super) struct Groups {
    pub active: Vec<Loaded<Pod>>,
    /// Marked for deletion and not ended.
    pub terminating: Vec<Loaded<Pod>>,
    pub succeeded: Vec<Loaded<Pod>>,
    pub failed: Vec<Loaded<Pod>>,
}

impl Groups {
    pub(super) fn new(dependents: Vec<Loaded<Pod>>) -> Self {
        let mut groups = Self::default();
        for pod in dependents {
            let group = match pods::phase(&pod) {
                "Succeeded" => &mut groups.succeeded,
                "Failed" => &mut groups.failed,
                _ if pods::is_terminating(&pod) => &mut groups.terminating,
                _ => &mut groups.active,
            };
            group.push(pod);
        }
        groups
    }
}

/// What is counted so far, and what counting does to the pods.
pub(super) struct Tally {
    pub completed: Indexes,
    pub failed_indexes: Indexes,
    pub succeeded: i32,
    /// Counts against `backoffLimit`.
    pub failed: i32,
    /// Why a rule of the failure policy gives the Job up.
    pub job_failure: Option<String>,
    /// Finalizers that come off in the same transaction.
    pub releases: Vec<Write>,
    /// Finished pods are left over for the next transaction.
    pub unfinished: bool,
}

pub(super) fn is_indexed(spec: &JobSpec) -> bool {
    spec.completion_mode.as_deref() == Some("Indexed")
}

impl Tally {
    pub(super) fn new(spec: &JobSpec, status: &JobStatus, groups: &Groups, ending: bool) -> Self {
        let limit = spec.completions.unwrap_or(0);
        let parse = |text: &Option<String>| Indexes::parse(text.as_deref().unwrap_or_default(), limit);
        let mut tally = Self {
            completed: parse(&status.completed_indexes),
            failed_indexes: parse(&status.failed_indexes),
            succeeded: status.succeeded.unwrap_or(0),
            failed: status.failed.unwrap_or(0),
            job_failure: None,
            releases: Vec::new(),
            unfinished: false,
        };
        tally.count(spec, groups, ending);
        if is_indexed(spec) {
            tally.succeeded = tally.completed.len();
        }
        tally
    }

    fn count(&mut self, spec: &JobSpec, groups: &Groups, ending: bool) {
        let valid = |pod| birth::index_of(pod).filter(|index| *index < spec.completions.unwrap_or(0));
        for pod in groups.succeeded.iter().chain(&groups.failed) {
            let Some(write) = deletion::without_finalizer(&pod.key, &pod.object, TRACKING) else { continue };
            if self.releases.len() == COUNT_LIMIT {
                self.unfinished = true;
                return;
            }
            self.releases.push(write);
            let index = valid(pod);
            if pods::phase(pod) == "Succeeded" {
                match index {
                    Some(index) if is_indexed(spec) => self.completed.insert(index),
                    _ => self.succeeded += 1,
                }
                continue;
            }
            match verdict(spec, pod) {
                // When the Job itself stops its pods, they are its failures.
                Verdict::Ignore => self.failed += i32::from(ending && pods::is_terminating(pod)),
                Verdict::Count => {
                    self.failed += 1;
                    let per_index = spec.backoff_limit_per_index.and_then(|limit| u32::try_from(limit).ok());
                    if let (Some(index), Some(limit)) = (index, per_index)
                        && birth::failures_before(pod) + 1 > limit
                        && !self.completed.contains(index)
                    {
                        self.failed_indexes.insert(index);
                    }
                }
                Verdict::FailIndex => {
                    self.failed += 1;
                    if let Some(index) = index.filter(|index| !self.completed.contains(*index)) {
                        self.failed_indexes.insert(index);
                    }
                }
                Verdict::FailJob(message) => {
                    self.failed += 1;
                    self.job_failure.get_or_insert(message);
                }
            }
        }
    }
}

/// Failures in a row, of the Job or of each of its indexes.
pub(super) struct Streaks {
    pub job: Streak,
    by_index: BTreeMap<i32, (u32, Streak)>,
}

impl Streaks {
    pub(super) fn new(spec: &JobSpec, groups: &Groups) -> Self {
        let counted: Vec<&Loaded<Pod>> =
            groups.failed.iter().filter(|pod| verdict(spec, pod) != Verdict::Ignore).collect();
        let last_success = groups.succeeded.iter().filter_map(|pod| finished_at(pod)).max();
        let job = Streak::of(counted.iter().copied(), last_success.as_ref());
        let mut of_index: BTreeMap<i32, Vec<&Loaded<Pod>>> = BTreeMap::new();
        if spec.backoff_limit_per_index.is_some() {
            for pod in &counted {
                if let Some(index) = birth::index_of(pod) {
                    of_index.entry(index).or_default().push(pod);
                }
            }
        }
        let summed = of_index.into_iter().map(|(index, pods)| {
            // Earlier failed pods may have been deleted: each pod remembers how many there were before it.
            let failures = pods.iter().map(|pod| birth::failures_before(pod) + 1).max().unwrap_or(0);
            let last = Streak::of(pods.into_iter(), None).last;
            (index, (failures, Streak { failures, last }))
        });
        Self { job, by_index: summed.collect() }
    }

    /// How often an index has failed, and what that means for its next pod.
    pub(super) fn of(&self, index: i32) -> (u32, Option<&Streak>) {
        self.by_index.get(&index).map_or((0, None), |(failures, streak)| (*failures, Some(streak)))
    }
}
