//! Work that goes on beside the clients: a Job, a Deployment, a StatefulSet and single pods, whose containers write down
//! on the machine's disk, past the product, that they began, that they run, and that they ended.

use super::access::Access;
use super::check::lives::lives;
use super::check::work::{Evidence, expand};
use super::clients::Stop;
use crate::bench::Bench;
use crate::kube::{RECOVERS, SOON, deployment, node_of};
use crate::seed::Seed;
use anyhow::{Context, Result, bail, ensure};
use gaggle_sched::scheduler::ATTEMPT;
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

/// The Job, and the prefix of single pods.
const JOB: &str = "counted";
const SINGLE: &str = "single";
/// The Deployment and its replicas.
const WEB: &str = "web";
const REPLICAS: usize = 3;
/// The StatefulSet and its members.
const SET: &str = "db";
const MEMBERS: usize = 2;
/// Pods of the Job at once.
const PARALLELISM: usize = 2;
/// What one index takes of a run on a machine that does much besides, and the pause between single pods.
const INDEX: Duration = Duration::from_secs(5);
const PAUSE: Duration = Duration::from_secs(4);
/// Single pods of a run.
const SINGLES: usize = 200;
/// One stream of the watches here, its silence, and the pause before another desktop is tried.
const STREAM_S: u64 = 6;
const SILENCE: Duration = Duration::from_secs(STREAM_S + 4);
const RETRY: Duration = Duration::from_millis(100);

/// Writes down its beginning, with the binding by which it began, and its end; each line is one write, so that none is torn.
const LINE: &str = "echo start $POD $ATTEMPT >> /out/$WHAT; sleep 1; echo end $POD >> /out/$WHAT";

/// Says again and again which container it is and what the machine's clock shows.
const ALIVE: &str = "self=$(cat /proc/sys/kernel/random/uuid)
while true; do echo \"$self $(cut -d' ' -f1 /proc/uptime)\" >> /out/$(hostname); sleep 0.5; done";

/// The work of one run.
#[derive(Debug)]
pub struct Work {
    dir: PathBuf,
    /// Where identities write.
    identities: PathBuf,
    completions: usize,
    seen: Mutex<Seen>,
}

/// What the API said while it went on.
#[derive(Debug, Default)]
struct Seen {
    completed_at: BTreeMap<usize, u64>,
    born: BTreeMap<String, (usize, u64)>,
}

impl Work {
    /// Starts as much as a run of this length can carry.
    pub fn start(bench: &Bench, run: Duration) -> Result<Self> {
        let (dir, identities) = (bench.layout().dir.join("work"), bench.layout().dir.join("identities"));
        std::fs::create_dir_all(&dir)?;
        std::fs::create_dir_all(&identities)?;
        let completions = usize::try_from(run.as_secs() / INDEX.as_secs())?.max(4);
        let work = Self { dir, identities, completions, seen: Mutex::default() };
        let first = bench.desktop(1);
        first.apply(&deployment(WEB, REPLICAS))?;
        first.apply(&work.stateful_set())?;
        first.apply(&work.job())?;
        Ok(work)
    }

    fn stateful_set(&self) -> String {
        json!({
            "apiVersion": "apps/v1", "kind": "StatefulSet", "metadata": {"name": SET},
            "spec": {
                "serviceName": SET, "replicas": MEMBERS, "podManagementPolicy": "Parallel",
                "selector": {"matchLabels": {"app": SET}},
                "template": {"metadata": {"labels": {"app": SET}}, "spec": {
                    "terminationGracePeriodSeconds": 1,
                    "volumes": [{"name": "out", "hostPath": {"path": self.identities, "type": "Directory"}}],
                    "containers": [{
                        "name": "main", "image": "busybox", "imagePullPolicy": "IfNotPresent",
                        "command": ["sh", "-c", ALIVE],
                        "volumeMounts": [{"name": "out", "mountPath": "/out"}],
                    }],
                }},
            },
        })
        .to_string()
    }

    fn job(&self) -> String {
        let index = json!({"fieldRef": {
            "fieldPath": "metadata.annotations['batch.kubernetes.io/job-completion-index']",
        }});
        json!({
            "apiVersion": "batch/v1", "kind": "Job", "metadata": {"name": JOB},
            "spec": {
                "completionMode": "Indexed", "completions": self.completions, "parallelism": PARALLELISM,
                "backoffLimit": 10_000,
                "template": {"spec": self.pod(json!({"name": "WHAT", "valueFrom": index}))},
            },
        })
        .to_string()
    }

    fn pod(&self, what: Value) -> Value {
        let attempt = json!({"fieldRef": {"fieldPath": format!("metadata.annotations['{ATTEMPT}']")}});
        json!({
            "restartPolicy": "Never", "terminationGracePeriodSeconds": 1,
            "volumes": [{"name": "out", "hostPath": {"path": self.dir, "type": "Directory"}}],
            "containers": [{
                "name": "main", "image": "busybox", "imagePullPolicy": "IfNotPresent",
                "command": ["sh", "-c", LINE],
                "env": [
                    {"name": "POD", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}},
                    {"name": "ATTEMPT", "valueFrom": attempt},
                    what,
                ],
                "volumeMounts": [{"name": "out", "mountPath": "/out"}],
            }],
        })
    }

    /// Makes single pods through any desktop, until the run ends. Whether one is made is not what is judged, but
    /// that none begins twice.
    pub fn make_singles(&self, access: &Access, seed: &Seed, stop: &Stop) {
        let mut seed = seed.part("singles", 0);
        for number in 0..SINGLES {
            if stop.wait(PAUSE) {
                return;
            }
            let name = format!("{SINGLE}-{number}");
            let spec = self.pod(json!({"name": "WHAT", "value": name}));
            let pod = json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name}, "spec": spec});
            let desktop = 1 + seed.below(access.desktops());
            let _ = access.ask(
                desktop,
                "POST",
                "/api/v1/namespaces/default/pods",
                Some(("application/json", &pod)),
            );
        }
    }

    /// Follows the Job and its pods through any desktop, until the run ends.
    pub fn follow(&self, access: &Access, seed: &Seed, stop: &Stop) {
        std::thread::scope(|scope| {
            scope.spawn(|| {
                self.follow_kind(access, "/apis/batch/v1/namespaces/default/jobs", seed.part("jobs", 0), stop)
            });
            self.follow_kind(access, "/api/v1/namespaces/default/pods", seed.part("pods", 0), stop);
        });
    }

    fn follow_kind(&self, access: &Access, path: &str, mut seed: Seed, stop: &Stop) {
        let mut after = None;
        loop {
            let desktop = 1 + seed.below(access.desktops());
            // Whatever ends a stream, another one goes on from where it was; what it was does not matter here.
            let _ = self.stream(access, desktop, path, &mut after);
            if stop.wait(RETRY) {
                return;
            }
        }
    }

    fn stream(&self, access: &Access, desktop: usize, path: &str, after: &mut Option<u64>) -> Result<()> {
        let failed = |failure| anyhow::anyhow!("{failure:?}");
        let Some(from) = *after else {
            let list = access.ask(desktop, "GET", path, None).map_err(failed)?.body;
            *after = list["metadata"]["resourceVersion"].as_str().and_then(|revision| revision.parse().ok());
            return Ok(());
        };
        let path = format!("{path}?watch=true&resourceVersion={from}&timeoutSeconds={STREAM_S}");
        let mut stream = access.watch(desktop, &path, SILENCE).map_err(failed)?;
        while let Some(line) = stream.line()? {
            if stream.code == 410 || line["object"]["code"] == 410 {
                *after = None;
                bail!("expired");
            }
            let revision = line["object"]["metadata"]["resourceVersion"].as_str();
            let revision =
                revision.and_then(|text| text.parse().ok()).context("an event without a revision")?;
            *after = Some(revision);
            self.note(&line, revision);
        }
        Ok(())
    }

    fn note(&self, line: &Value, revision: u64) {
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        let object = &line["object"];
        let name = object["metadata"]["name"].as_str().unwrap_or_default();
        let index = &object["metadata"]["annotations"]["batch.kubernetes.io/job-completion-index"];
        if name == JOB {
            for index in expand(object["status"]["completedIndexes"].as_str().unwrap_or_default()) {
                seen.completed_at.entry(index).or_insert(revision);
            }
        } else if line["type"] == "ADDED"
            && let Some(index) = index.as_str().and_then(|index| index.parse().ok())
        {
            seen.born.entry(name.to_owned()).or_insert((index, revision));
        }
    }

    /// Waits until all of it has come to its end, and says what it left behind.
    pub fn end(&self, bench: &Bench) -> Result<Evidence> {
        let first = bench.desktop(1);
        let job = bench.wait_until(RECOVERS, "the Job to complete", || {
            let job = first.get("job", JOB)?;
            let complete = job["status"]["conditions"].as_array().is_some_and(|conditions| {
                conditions.iter().any(|one| one["type"] == "Complete" && one["status"] == "True")
            });
            ensure!(complete, "it says {}", job["status"]);
            Ok(Some(job))
        })?;
        first.replicas(WEB, REPLICAS, RECOVERS)?;
        first.replicas(SET, MEMBERS, RECOVERS)?;
        bench.wait_until(SOON, "containers and pods to agree everywhere", || {
            let pods = first.list("pods", &format!("-l app={WEB}"))?;
            for desktop in bench.desktops() {
                let bound = pods.iter().filter(|pod| node_of(pod) == desktop.name()).count();
                let commands = desktop.docker("ps --no-trunc --format '{{.Command}}'")?.ok()?;
                let running = commands.lines().filter(|line| line.contains("sleep 100000")).count();
                ensure!(running == bound, "{} runs {running} containers of {bound} pods", desktop.name());
            }
            Ok(Some(()))
        })?;
        let mut evidence = self.traces()?;
        evidence.completions = self.completions;
        evidence.completed = expand(job["status"]["completedIndexes"].as_str().unwrap_or_default());
        evidence.succeeded = job["status"]["succeeded"].as_u64().and_then(|n| n.try_into().ok()).unwrap_or(0);
        let seen = std::mem::take(&mut *self.seen.lock().unwrap_or_else(PoisonError::into_inner));
        (evidence.completed_at, evidence.born) = (seen.completed_at, seen.born);
        Ok(evidence)
    }

    fn traces(&self) -> Result<Evidence> {
        let mut evidence = Evidence::default();
        for entry in std::fs::read_dir(&self.dir)? {
            let entry = entry?;
            let index: Option<usize> = entry.file_name().to_str().and_then(|name| name.parse().ok());
            for line in std::fs::read_to_string(entry.path())?.lines() {
                match (line.split_once(' '), index) {
                    (Some(("start", begun)), _) => {
                        let (pod, attempt) =
                            begun.split_once(' ').context("a beginning without a binding")?;
                        evidence.starts.entry(pod.to_owned()).or_default().push(attempt.to_owned());
                    }
                    (Some(("end", pod)), Some(index)) => {
                        let finished: &mut BTreeSet<_> = evidence.finished.entry(index).or_default();
                        finished.insert(pod.to_owned());
                    }
                    (Some(("end", _)), None) => {}
                    _ => bail!("{} holds {line:?}", entry.path().display()),
                }
            }
        }
        evidence.members = MEMBERS;
        for entry in std::fs::read_dir(&self.identities)? {
            let entry = entry?;
            let lives = lives(&std::fs::read_to_string(entry.path())?);
            let lives = lives.with_context(|| format!("{} cannot be read", entry.path().display()))?;
            evidence.identities.insert(entry.file_name().to_string_lossy().into_owned(), lives);
        }
        Ok(evidence)
    }
}
