//! One trial: a flock, clients, watchers and work on it, a nemesis against it, and the judgement of what was recorded.

use super::access::Access;
use super::check::{Violation, describe, durable, judge, operations::Operations, work as judged_work};
use super::clients::{Client, Stop, collection, generations, prepare, probe};
use super::record::{Entry, History, Outcome, Recorder};
use super::watchers::{Watcher, holds};
use super::work::Work;
use crate::bench::{Bench, poll};
use crate::kube::SOON;
use crate::nemesis::act::{carry_out, fit};
use crate::nemesis::plan::plan;
use crate::seed::Seed;
use anyhow::{Context, Result, bail};
use serde_json::json;
use std::fmt::Write;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Clients and watchers beside each other: enough to collide on three registers all the time.
const CLIENTS: usize = 5;
const WATCHERS: usize = 3;
/// From the end of the faults until an object can be written.
const WRITABLE: Duration = Duration::from_secs(20);
/// From then until every desktop holds the same, with everything in it that was acknowledged.
const AGREE: Duration = Duration::from_secs(30);
/// The object that tells the watchers that it is over.
const LAST: &str = "last";

/// What is tried.
#[derive(Debug, Clone)]
pub struct Trial {
    pub seed: u64,
    /// How long the faults go on.
    pub time: Duration,
    /// Where the history goes, and the daemons' logs if it is a bad one.
    pub dir: PathBuf,
}

/// What a good trial came to.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Tally {
    pub ordered: usize,
    pub kept: usize,
    pub refused: usize,
    pub unknown: usize,
    pub reads: usize,
    pub events: usize,
    pub faults: usize,
}

impl std::fmt::Display for Tally {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "{} writes ordered, {} kept as intent, {} refused, {} unknown; {} reads; {} watch events; {} faults",
            self.ordered, self.kept, self.refused, self.unknown, self.reads, self.events, self.faults
        )
    }
}

impl Tally {
    /// Counts what a history holds.
    #[must_use]
    pub fn of(history: &History) -> Self {
        let mut tally = Self::default();
        if let Ok(operations) = Operations::of(history) {
            for operation in &operations.all {
                let count = match operation.outcome {
                    _ if !operation.action.writes() => &mut tally.reads,
                    Some(Outcome::Ordered { .. }) => &mut tally.ordered,
                    Some(Outcome::Kept { .. }) => &mut tally.kept,
                    Some(Outcome::Refused { .. }) => &mut tally.refused,
                    _ => &mut tally.unknown,
                };
                *count += 1;
            }
        }
        for entry in &history.entries {
            tally.events += usize::from(matches!(entry, Entry::Watch { .. }));
            tally.faults += usize::from(matches!(entry, Entry::Fault { .. }));
        }
        tally
    }
}

/// Tries a flock on a fresh bench whose daemons do not run yet.
///
/// # Errors
/// A promise that was not kept, with the operations that show it, the seed, the timeline, and where the rest lies.
pub fn run(bench: &Bench, trial: &Trial) -> Result<Tally> {
    std::fs::create_dir_all(&trial.dir).with_context(|| format!("making {}", trial.dir.display()))?;
    let file = trial.dir.join("history.jsonl");
    let recorder = Recorder::create(&file)?;
    let tried = attempt(bench, trial, &recorder);
    let history = recorder.history()?;
    let complaint = match tried {
        Err(error) => format!("{error:#}"),
        Ok(violations) if violations.is_empty() => return Ok(Tally::of(&history)),
        Ok(violations) => describe(&history, &violations),
    };
    let logs = keep_logs(bench, &trial.dir)?;
    let mut timeline = String::new();
    for entry in &history.entries {
        if let Entry::Fault { at_us, what } = entry {
            let _ = writeln!(timeline, "    {:8.3} s  {what}", *at_us as f64 / 1e6);
        }
    }
    bail!(
        "seed {} on {} desktops for {:?}: {complaint}\nwhat was done to them:\n{timeline}{}\nthe history is {}, the \
         daemons' logs {logs}",
        trial.seed,
        bench.desktops().len(),
        trial.time,
        Tally::of(&history),
        file.display(),
    )
}

fn attempt(bench: &Bench, trial: &Trial, recorder: &Recorder) -> Result<Vec<Violation>> {
    let seed = Seed::new(trial.seed);
    let plan = plan(&seed, bench.desktops().len(), trial.time);
    fit(bench, plan.fitting)?;
    let access = Access::to(bench)?;
    let generations = generations(trial.time);
    prepare(&access, generations)?;
    let work = Work::start(bench, trial.time)?;
    // Clients end with the faults; watchers and the followers of work when they have seen the end.
    let (faults_over, all_over) = (Stop::default(), Stop::default());
    let tell = |what: &str| recorder.fault(what);

    let (ended, told, evidence) = std::thread::scope(|scope| {
        let clients: Vec<_> = (0..CLIENTS)
            .map(|number| {
                let mut client = Client::new(&access, recorder, number, &seed, generations);
                let stop = &faults_over;
                scope.spawn(move || client.run(stop))
            })
            .collect();
        let watchers: Vec<_> = (0..WATCHERS)
            .map(|number| {
                let mut watcher = Watcher::new(&access, recorder, number, &seed);
                let stop = &all_over;
                scope.spawn(move || watcher.run(LAST, stop))
            })
            .collect();
        scope.spawn(|| work.make_singles(&access, &seed, &faults_over));
        scope.spawn(|| work.follow(&access, &seed, &all_over));

        let ended = carry_out(bench, &plan, &Stop::default(), &tell).context("the flock did not recover");
        faults_over.stop();
        for client in clients {
            let _ = client.join();
        }
        let ended = ended
            .and_then(|()| probe(&access, recorder, CLIENTS, WRITABLE))
            .and_then(|()| agree(&access, recorder))
            .and_then(|()| finish(&access));
        // Watchers that are not told in time are stopped, and what they lack is told.
        let told = ended.is_ok().then(|| {
            poll(SOON, "the watchers", || {
                Ok(watchers.iter().all(std::thread::ScopedJoinHandle::is_finished).then_some(()))
            })
        });
        let evidence = ended.is_ok().then(|| work.end(bench));
        all_over.stop();
        (ended, told, evidence)
    });
    ended?;
    let mut violations = judge(&recorder.history()?);
    if let Some(Err(_)) = told {
        violations.push(Violation::new("a watch was never told of the last write".into(), []));
    }
    match evidence {
        Some(Ok(evidence)) => violations.extend(judged_work::check(&evidence)),
        Some(Err(error)) => {
            violations.push(Violation::new(format!("the work did not end well: {error:#}"), []))
        }
        None => {}
    }
    if !recorder.has_room() {
        violations.push(Violation::new("the history is full: run it shorter".into(), []));
    }
    Ok(violations)
}

/// Waits until every desktop holds the same and nothing that was acknowledged is missing, and notes what they hold.
/// If that never comes, the judgement tells what is wrong with the last look.
fn agree(access: &Access, recorder: &Recorder) -> Result<()> {
    let mut history = recorder.history()?;
    let length = history.entries.len();
    let mut last = Vec::new();
    let agreed = poll(AGREE, "every desktop to hold all that was acknowledged", || {
        last = (1..=access.desktops()).map(|desktop| holds(access, desktop)).collect::<Result<Vec<_>>>()?;
        history.entries.truncate(length);
        let at_us = recorder.now_us();
        history.entries.extend(last.iter().enumerate().map(|(index, items)| Entry::Final {
            at_us,
            desktop: index + 1,
            items: items.clone(),
        }));
        let good = Operations::of(&history).is_ok_and(|operations| durable::check(&operations).is_empty());
        Ok(good.then_some(()))
    });
    if last.is_empty() {
        return agreed;
    }
    for (index, items) in last.into_iter().enumerate() {
        recorder.last(index + 1, items);
    }
    Ok(())
}

/// The write that the watchers wait for.
fn finish(access: &Access) -> Result<()> {
    let last = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": LAST}});
    let answer = access
        .ask(1, "POST", &collection(), Some(("application/json", &last)))
        .map_err(|failure| anyhow::anyhow!("the last write: {failure:?}"))?;
    anyhow::ensure!(answer.code == 201 && answer.warnings.is_empty(), "the last write: {answer:?}");
    Ok(())
}

/// Copies what the daemons said out of the bench, which is taken away.
fn keep_logs(bench: &Bench, dir: &Path) -> Result<String> {
    for desktop in bench.desktops() {
        let file = dir.join(format!("{}.log", desktop.name()));
        std::fs::write(&file, desktop.daemon_log()).with_context(|| format!("writing {}", file.display()))?;
    }
    Ok(dir.join("d*.log").display().to_string())
}
