//! CronJobs: a Job for each time of a schedule.
//!
//! The Job of a time has a name of its own, and making it and noting the time is one transaction that expects the
//! CronJob's revision: no time happens twice. Times that passed while nobody led are not made up for, but the last one
//! is, if it is not too late for it.

mod birth;

use super::birth::{FORBIDDEN_WAIT, charged};
use super::deletion::{self, Grace};
use super::instant::seconds;
use super::loaded::{Loaded, set, to_json};
use super::owners::{self, controller_of};
use super::pods;
use super::schedule::{self, Schedule};
use super::{Controller, Note, Plan};
use crate::state::{Change, Key, Resource, Store, Write, resource_of};
use k8s_openapi::api::batch::v1::{CronJob, CronJobSpec, CronJobStatus, Job};
use k8s_openapi::api::core::v1::ObjectReference;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use k8s_openapi::jiff::{SignedDuration, Timestamp};
use std::time::Duration;

const NAME: &str = "cronjob-controller";
const JOBS: Resource = Resource::fixed("jobs.batch");
/// However far the next time is: a clock that is set is noticed within this.
const LOOK_AGAIN: Duration = Duration::from_secs(60);
/// However near it is, or seems to be: nobody is asked again and again within a second.
const LOOK_AGAIN_MIN: Duration = Duration::from_secs(1);
/// More times than this passed without a Job: something is wrong, and it is told.
const MISSED_LIMIT: usize = 100;
const SUCCESSES_KEPT: i32 = 3;
const FAILURES_KEPT: i32 = 1;
/// What `kubectl create job --from` says of its Jobs.
const INSTANTIATE: &str = "cronjob.kubernetes.io/instantiate";

pub struct CronJobController;

impl Controller for CronJobController {
    fn name(&self) -> &'static str {
        NAME
    }

    fn concerned(&self, _: &Store, change: &Change) -> Vec<Key> {
        if change.key.resource == JOBS {
            let states = [change.object.as_deref(), change.previous.as_deref()];
            let owner = |object| owners::controller_key::<CronJob>(&change.key, object);
            let mut keys: Vec<Key> = states.into_iter().flatten().filter_map(owner).collect();
            keys.dedup();
            return keys;
        }
        if change.key.resource == resource_of::<CronJob>() { vec![change.key.clone()] } else { Vec::new() }
    }

    fn all(&self, store: &Store) -> Vec<Key> {
        store.list(&resource_of::<CronJob>(), None).map(|(key, _)| key).collect()
    }

    fn reconcile(&self, store: &Store, key: &Key, now: &Time) -> Plan {
        let Some(owner) = Loaded::<CronJob>::get(store, key) else { return Plan::default() };
        let Some(spec) = owner.spec.clone() else { return Plan::default() };
        let status = owner.status.clone().unwrap_or_default();
        Work { store, owner: &owner, spec: &spec, now, status, birth: Vec::new(), plan: Plan::default() }
            .run()
    }
}

/// How a Job ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    Complete,
    Failed,
}

fn end_of(job: &Job) -> Option<End> {
    let conditions = job.status.iter().flat_map(|status| status.conditions.iter().flatten());
    conditions.filter(|condition| condition.status == "True").find_map(|condition| {
        match condition.type_.as_str() {
            "Complete" => Some(End::Complete),
            "Failed" => Some(End::Failed),
            _ => None,
        }
    })
}

/// One reconciliation.
struct Work<'a> {
    store: &'a Store,
    owner: &'a Loaded<CronJob>,
    spec: &'a CronJobSpec,
    now: &'a Time,
    status: CronJobStatus,
    /// The Job to make, and what is charged for it.
    birth: Vec<Write>,
    plan: Plan,
}

impl Work<'_> {
    fn run(mut self) -> Plan {
        let jobs = self.jobs();
        self.take_stock(&jobs);
        if !pods::is_going(self.owner) {
            self.forget(&jobs);
            if self.spec.suspend != Some(true) {
                self.keep_schedule(&jobs);
            }
        }
        if self.status.active.as_ref().is_some_and(Vec::is_empty) {
            self.status.active = None;
        }
        let mut writes = Vec::new();
        if self.owner.status.clone().unwrap_or_default() != self.status || !self.birth.is_empty() {
            writes.push(self.owner.edit(|value| set(value, &["status"], to_json(&self.status))));
            writes.append(&mut self.birth);
        }
        self.plan.transaction(writes);
        self.plan
    }

    fn jobs(&self) -> Vec<Loaded<Job>> {
        let uid = self.owner.object.uid();
        let owned = self.store.owned_by(uid).filter(|key| key.resource == JOBS);
        owned
            .filter_map(|key| Loaded::<Job>::get(self.store, key))
            .filter(|job| controller_of(&job.metadata).is_some_and(|owner| owner.uid == uid))
            .collect()
    }

    /// Takes Jobs that have ended, or are gone, off the list of the active ones.
    fn take_stock(&mut self, jobs: &[Loaded<Job>]) {
        let active = self.status.active.take().unwrap_or_default();
        for job in jobs {
            let uid = Some(job.object.uid());
            let known = active.iter().any(|one| one.uid.as_deref() == uid);
            match end_of(job) {
                Some(end) if known => {
                    let message = format!("Saw completed job: {}, condition: {end:?}", job.key.name);
                    self.plan.events.push(Note::normal(&self.owner.key, NAME, "SawCompletedJob", message));
                }
                None if !known && job.object.annotation(INSTANTIATE).is_none() && !pods::is_going(job) => {
                    let name = &job.key.name;
                    let message = format!("Saw a job that the controller did not create or forgot: {name}");
                    self.plan.events.push(Note::warning(&self.owner.key, NAME, "UnexpectedJob", message));
                }
                _ => {}
            }
            if end_of(job) == Some(End::Complete) {
                let ended = job.status.as_ref().and_then(|status| status.completion_time.clone());
                self.status.last_successful_time = self.status.last_successful_time.take().max(ended);
            }
        }
        let mut still = Vec::new();
        for reference in active {
            let name = reference.name.as_deref().unwrap_or_default();
            match jobs.iter().find(|job| Some(job.object.uid()) == reference.uid.as_deref()) {
                Some(job) if end_of(job).is_none() => still.push(reference),
                Some(_) => {}
                None => {
                    let message = format!("Active job went missing: {name}");
                    self.plan.events.push(Note::normal(&self.owner.key, NAME, "MissingJob", message));
                }
            }
        }
        self.status.active = Some(still);
    }

    /// Deletes the oldest Jobs that have ended beyond those that are to be kept.
    fn forget(&mut self, jobs: &[Loaded<Job>]) {
        for (end, limit) in [
            (End::Complete, self.spec.successful_jobs_history_limit.unwrap_or(SUCCESSES_KEPT)),
            (End::Failed, self.spec.failed_jobs_history_limit.unwrap_or(FAILURES_KEPT)),
        ] {
            let mut ended: Vec<&Loaded<Job>> = jobs.iter().filter(|job| end_of(job) == Some(end)).collect();
            ended.sort_by_cached_key(|job| {
                let started = job.status.as_ref().and_then(|status| status.start_time.clone());
                (started, job.metadata.creation_timestamp.clone(), job.key.clone())
            });
            let surplus = ended.len().saturating_sub(usize::try_from(limit).unwrap_or(0));
            ended.into_iter().take(surplus).for_each(|job| self.delete(job));
        }
    }

    fn delete(&mut self, job: &Loaded<Job>) {
        let Some(write) = deletion::delete(&job.key, &job.object, Grace::AsSpecified, self.now) else {
            return;
        };
        self.plan.write(write);
        let message = format!("Deleted job {}", job.key.name);
        self.plan.events.push(Note::normal(&self.owner.key, NAME, "SuccessfulDelete", message));
    }

    fn schedule(&mut self) -> Option<Schedule> {
        let zone = self.spec.time_zone.as_deref();
        let (text, about) = (&self.spec.schedule, &self.owner.key);
        if let Some(Err(error)) = zone.map(schedule::zone) {
            let message = format!("invalid timeZone: {:?}: {error}", zone.unwrap_or_default());
            self.plan.events.push(Note::warning(about, NAME, "UnknownTimeZone", message));
            return None;
        }
        match Schedule::parse(text, zone) {
            Ok(schedule) => Some(schedule),
            Err(error) => {
                let message = format!("unparseable schedule: {text:?} : {error}");
                self.plan.events.push(Note::warning(about, NAME, "UnparseableSchedule", message));
                None
            }
        }
    }

    fn keep_schedule(&mut self, jobs: &[Loaded<Job>]) {
        let Some(schedule) = self.schedule() else { return };
        let now = self.now.0;
        let born = self.owner.metadata.creation_timestamp.as_ref().map_or(now, |born| born.0);
        let mut since = self.status.last_schedule_time.as_ref().map_or(born, |last| last.0);
        // The clock was set back: what was noted by the wrong one would hold everything up until it is reached again. (That
        // desktops' clocks differ by less is nothing to correct.)
        if since.duration_since(now).unsigned_abs() > LOOK_AGAIN && since > now {
            since = now;
            self.status.last_schedule_time = Some(Time(now));
        }
        let deadline = self.spec.starting_deadline_seconds.map(seconds);
        // What is too late anyway need not be looked for.
        let late =
            deadline.and_then(|deadline| now.checked_sub(SignedDuration::try_from(deadline).ok()?).ok());
        let from = late.map_or(since, |late| since.max(late));
        let passed = schedule.last(since, now);
        if let Some(next) = schedule.next(passed.unwrap_or(since)) {
            let wait = Duration::try_from(next.duration_since(now)).unwrap_or(Duration::ZERO);
            self.plan.requeue(wait.clamp(LOOK_AGAIN_MIN, LOOK_AGAIN));
        }
        let Some(due) = schedule.last(from, now) else {
            // Told when it has just become too late, and not for ever after.
            let still = |missed: &Timestamp| {
                late.is_some_and(|late| late.duration_since(*missed).unsigned_abs() < LOOK_AGAIN)
            };
            if let Some(missed) = passed.filter(still) {
                let told = missed.strftime("%a, %d %b %Y %H:%M:%S +0000");
                let message = format!("Missed scheduled time to start a job: {told}");
                self.plan.events.push(Note::warning(&self.owner.key, NAME, "MissSchedule", message));
            }
            return;
        };
        self.warn_of_missed(&schedule, from);
        self.start(&schedule, due, jobs);
    }

    fn warn_of_missed(&mut self, schedule: &Schedule, from: Timestamp) {
        let times = std::iter::successors(schedule.next(from), |at| schedule.next(*at));
        if times.take(MISSED_LIMIT + 1).take_while(|at| *at <= self.now.0).count() > MISSED_LIMIT {
            let message = "too many missed start times. Set or decrease .spec.startingDeadlineSeconds or check clock \
                           skew";
            self.plan.events.push(Note::warning(&self.owner.key, NAME, "TooManyMissedTimes", message));
        }
    }

    fn start(&mut self, schedule: &Schedule, due: Timestamp, jobs: &[Loaded<Job>]) {
        let name = birth::name(&self.owner.key.name, due);
        let active = self.status.active.clone().unwrap_or_default();
        if active.iter().any(|one| one.name.as_ref() == Some(&name)) {
            return;
        }
        // Made already, and forgotten: somebody wrote over the status.
        if let Some(job) = jobs.iter().find(|job| job.key.name == name) {
            self.status.last_schedule_time = Some(Time(due));
            if end_of(job).is_none() && !pods::is_going(job) {
                self.note_active(job);
            }
            return;
        }
        match self.spec.concurrency_policy.as_deref() {
            Some("Forbid") if !active.is_empty() => {
                let message =
                    "Not starting job because prior execution is running and concurrency policy is Forbid";
                self.plan.events.push(Note::normal(&self.owner.key, NAME, "JobAlreadyActive", message));
                return;
            }
            Some("Replace") => {
                let of = |job: &&Loaded<Job>| {
                    active.iter().any(|one| one.uid.as_deref() == Some(job.object.uid()))
                };
                jobs.iter().filter(of).for_each(|job| self.delete(job));
                self.status.active = Some(Vec::new());
            }
            _ => {}
        }
        // One that somebody else made under this name.
        let key = Key::of::<Job>(self.owner.key.namespace.clone(), name);
        if self.store.get(&key).is_some() {
            self.status.last_schedule_time = Some(Time(due));
            return;
        }
        let told = schedule.in_zone(due);
        let job = birth::job(self.store, self.owner, &self.spec.job_template, due, told, self.now);
        match charged(self.store, &job) {
            Ok(writes) => self.birth = writes,
            // Not noted as done: it is made when it is allowed, if that is not too late.
            Err(why) => {
                let message = format!("Error creating job: {why}");
                self.plan.events.push(Note::warning(&self.owner.key, NAME, "FailedCreate", message));
                return self.plan.requeue(FORBIDDEN_WAIT);
            }
        }
        self.status.last_schedule_time = Some(Time(due));
        self.note_active(&job);
        let message = format!("Created job {}", key.name);
        self.plan.events.push(Note::normal(&self.owner.key, NAME, "SuccessfulCreate", message));
    }

    fn note_active(&mut self, job: &Job) {
        self.status.active.get_or_insert_default().push(ObjectReference {
            api_version: Some("batch/v1".into()),
            kind: Some("Job".into()),
            name: job.metadata.name.clone(),
            namespace: job.metadata.namespace.clone(),
            uid: job.metadata.uid.clone(),
            ..ObjectReference::default()
        });
    }
}

#[cfg(test)]
mod tests;
