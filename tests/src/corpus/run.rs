//! Trying every file: side by side where they do not meet, and alone where one changes the desktops themselves.

use super::case::Case;
use super::{Row, Unit, namespaces, said, stand_ins, stories};
use crate::bench::{Bench, Desktop, Outcome as Ran, Running};
use crate::history::access::Access;
use anyhow::{Context, Result, anyhow, bail, ensure};
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Condvar, Mutex, PoisonError};
use std::time::Duration;

/// Commands at once: kubectl is most of what they cost.
const COMMANDS: usize = 4;
/// Units at once. All of them would start two hundred containers in one moment.
const UNITS: usize = 28;
/// How long it is waited for what is known not to come.
const KNOWN: Duration = Duration::from_secs(8);
/// Between two looks at the cluster.
const LOOKS: Duration = Duration::from_millis(400);
/// The longest that one waits for a look.
const LOOK: Duration = Duration::from_secs(60);
/// The port of the page that init containers fetch.
const PAGE: u16 = 8099;

/// What is looked at, and where it is. Pods last: what the others say of them has come about by then.
const SEEN: [(&str, &str); 7] = [
    ("replicationcontrollers", "/api/v1/replicationcontrollers"),
    ("deployments", "/apis/apps/v1/deployments"),
    ("replicasets", "/apis/apps/v1/replicasets"),
    ("statefulsets", "/apis/apps/v1/statefulsets"),
    ("daemonsets", "/apis/apps/v1/daemonsets"),
    ("jobs", "/apis/batch/v1/jobs"),
    ("pods", "/api/v1/pods"),
];

/// What became of a row.
#[derive(Debug)]
pub struct Outcome {
    pub row: Row,
    /// Whether all its kinds are served.
    pub is_alive: bool,
    pub result: Result<()>,
}

/// The cluster on which the files are tried, as it was seen last.
pub struct Cluster<'a> {
    pub bench: &'a Bench,
    /// The one that commands are given on.
    pub desktop: &'a Desktop,
    pub nodes: usize,
    /// A directory for what manifests want of a desktop's disk.
    pub scratch: PathBuf,
    commands: Permits,
    seen: Mutex<Seen>,
    looked: Condvar,
}

#[derive(Default)]
struct Seen {
    looks: u64,
    objects: BTreeMap<&'static str, Vec<Value>>,
}

impl Cluster<'_> {
    /// Runs kubectl when it is its turn.
    pub fn kubectl(&self, line: &str, input: &str) -> Result<Ran> {
        let _turn = self.commands.take();
        self.desktop.kubectl_with(line, input)
    }

    /// Objects of a resource as they were seen last.
    pub fn seen(&self, resource: &str) -> Vec<Value> {
        let seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        seen.objects.get(resource).cloned().unwrap_or_default()
    }

    /// Waits until everything has been looked at that was there when it was called.
    pub fn fresh(&self) -> Result<()> {
        let seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        // The look that is under way may have begun before.
        let wanted = seen.looks + 2;
        let waited = self.looked.wait_timeout_while(seen, LOOK, |seen| seen.looks < wanted);
        let (seen, timeout) = waited.unwrap_or_else(PoisonError::into_inner);
        drop(seen);
        ensure!(!timeout.timed_out(), "nobody has looked at the cluster for {LOOK:?}");
        Ok(())
    }

    /// Looks again and again until it is told to stop.
    fn watch(&self, access: &Access, stop: &AtomicBool) -> Result<()> {
        while !stop.load(Ordering::Relaxed) {
            let mut objects = BTreeMap::new();
            for (resource, path) in SEEN {
                let answer =
                    access.ask(1, "GET", path, None).map_err(|failure| anyhow!("{path}: {failure:?}"))?;
                ensure!(answer.code == 200, "{path}: {}", answer.body);
                objects.insert(resource, answer.body["items"].as_array().cloned().unwrap_or_default());
            }
            let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
            seen.objects = objects;
            seen.looks += 1;
            drop(seen);
            self.looked.notify_all();
            std::thread::sleep(LOOKS);
        }
        Ok(())
    }
}

/// So many at once.
struct Permits {
    free: Mutex<usize>,
    freed: Condvar,
}

struct Permit<'a>(&'a Permits);

impl Permits {
    fn new(free: usize) -> Self {
        Self { free: Mutex::new(free), freed: Condvar::new() }
    }

    fn take(&self) -> Permit<'_> {
        let free = self.free.lock().unwrap_or_else(PoisonError::into_inner);
        let mut free = self.freed.wait_while(free, |free| *free == 0).unwrap_or_else(PoisonError::into_inner);
        *free -= 1;
        Permit(self)
    }
}

impl Drop for Permit<'_> {
    fn drop(&mut self) {
        *self.0.free.lock().unwrap_or_else(PoisonError::into_inner) += 1;
        self.0.freed.notify_one();
    }
}

/// Tries every file on a bench whose daemons run. `known`: what is known not to come as is expected; it is not waited
/// for long.
pub fn run(bench: &Bench, units: Vec<Unit>, known: &(dyn Fn(&Row) -> bool + Sync)) -> Result<Vec<Outcome>> {
    stand_ins::load(bench)?;
    let access = Access::to(bench)?;
    let scratch = bench.layout().dir.join("scratch");
    std::fs::create_dir_all(&scratch)?;
    std::fs::write(scratch.join("machine-id"), "0123456789abcdef0123456789abcdef\n")?;
    let cluster = Cluster {
        bench,
        desktop: bench.desktop(1),
        nodes: bench.desktops().len(),
        scratch,
        commands: Permits::new(COMMANDS),
        seen: Mutex::default(),
        looked: Condvar::new(),
    };
    let _page = page(&cluster)?;
    let served = served(&cluster)?;
    make_namespaces(&cluster, &units)?;
    let (mut alone, mut together): (Vec<Unit>, Vec<Unit>) = units.into_iter().partition(is_alone);
    together.sort_by_key(|unit| !unit.rows.iter().any(takes_long));
    // The longest of them has ended before: the desktops are changed under nobody.
    alone.sort_by_key(|unit| unit.rows.first().map(|row| row.file.clone()));
    let tried = |unit: Unit| try_unit(&cluster, unit, &served, known);
    let (permits, stop) = (Permits::new(UNITS), AtomicBool::new(false));
    std::thread::scope(|scope| {
        let watching = scope.spawn(|| cluster.watch(&access, &stop));
        let threads: Vec<_> = together
            .into_iter()
            .map(|unit| {
                let turn = permits.take();
                let tried = &tried;
                scope.spawn(move || {
                    let _turn = turn;
                    tried(unit)
                })
            })
            .collect();
        let mut outcomes = Vec::new();
        for thread in threads {
            outcomes.extend(thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)));
        }
        outcomes.extend(alone.into_iter().flat_map(&tried));
        stop.store(true, Ordering::Relaxed);
        watching.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))?;
        Ok(outcomes)
    })
}

/// Whether a unit wants the desktops themselves labelled or tainted.
fn is_alone(unit: &Unit) -> bool {
    let features =
        ["pod.nodeSelector", "pod.tolerations", "pod.topologySpreadConstraints", "affinity.nodeAffinity"];
    unit.rows.iter().any(|row| features.iter().any(|feature| row.uses(feature)))
}

/// Whether a row waits for a minute to begin, or for a probe to give up.
fn takes_long(row: &Row) -> bool {
    row.has("CronJob") || row.uses("livenessProbe") || row.says("restarts")
}

/// What an init container fetches, from the first desktop.
fn page(cluster: &Cluster) -> Result<Running> {
    let dir = cluster.scratch.join("page");
    std::fs::create_dir_all(&dir)?;
    std::fs::write(dir.join("index.html"), "from afar\n")?;
    cluster.desktop.start(&format!("exec busybox httpd -f -p {PAGE} -h '{}'", dir.display()))
}

/// The kinds that the API serves.
fn served(cluster: &Cluster) -> Result<BTreeSet<String>> {
    let listed = cluster.kubectl("api-resources --no-headers", "")?.ok()?;
    Ok(listed.lines().filter_map(|line| line.split_whitespace().last()).map(str::to_owned).collect())
}

fn make_namespaces(cluster: &Cluster, units: &[Unit]) -> Result<()> {
    let items: Vec<Value> = namespaces(units)
        .into_iter()
        .map(|name| json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}}))
        .collect();
    let list = json!({"apiVersion": "v1", "kind": "List", "items": items}).to_string();
    cluster.kubectl("create -f -", &list)?.ok()?;
    Ok(())
}

fn try_unit(
    cluster: &Cluster,
    unit: Unit,
    served: &BTreeSet<String>,
    known: &(dyn Fn(&Row) -> bool + Sync),
) -> Vec<Outcome> {
    let mut later: Vec<(usize, Case)> = Vec::new();
    let mut results: Vec<Option<Result<()>>> = unit.rows.iter().map(|_| None).collect();
    for (index, row) in unit.rows.iter().enumerate() {
        let patience = known(row).then_some(KNOWN);
        let namespace = unit.namespace.as_str();
        let mut case = Case { row, namespace, cluster, patience, objects: Vec::new() };
        let is_alive = row.kinds.iter().all(|kind| served.contains(kind));
        if !is_alive {
            results[index] = Some(Err(anyhow!("not all of {:?} are served", row.kinds)));
            continue;
        }
        // Something that comes with another file of the same bundle.
        let waits = unit.rows[index + 1..].iter().any(|other| row.says(&other.file));
        results[index] = match applied(&mut case) {
            Ok(()) if waits => {
                later.push((index, case));
                None
            }
            Ok(()) => Some(outcome(&case)),
            Err(error) => Some(Err(error)),
        };
    }
    for (index, case) in later {
        results[index] = Some(outcome(&case));
    }
    let rows = unit.rows.iter().cloned();
    rows.zip(results)
        .map(|(row, result)| Outcome {
            is_alive: row.kinds.iter().all(|kind| served.contains(kind)),
            row,
            result: result.unwrap_or_else(untried),
        })
        .collect()
}

fn untried() -> Result<()> {
    bail!("it was not tried")
}

/// Applies a file and reads it back; or sees it refused, as is expected.
fn applied(case: &mut Case) -> Result<()> {
    stories::before(case).context("what is needed before")?;
    let manifest = on_this_bench(case.cluster, case.row);
    let how = if case.row.says("server-side") { "--server-side -o name" } else { "-o name" };
    let mut ran = case.apply(how, &manifest)?;
    if let Some(words) = said::refusal(case.row) {
        let said = ran.refused()?;
        for words in words {
            ensure!(said::is_said(&said, words), "{words:?} is not in {said:?}");
        }
        return Ok(());
    }
    if ran.stderr.contains("pod updates may not change fields") {
        // Of two pods of one name in a bundle the second one takes the place of the first one.
        case.cluster.kubectl(&format!("-n {} delete --now -f -", case.namespace), &manifest)?.ok()?;
        ran = case.apply(how, &manifest)?;
    }
    ensure!(ran.stderr.is_empty(), "it complains: {ran}");
    case.objects = names(&ran.ok()?);
    ensure!(case.objects.len() == case.row.kinds.len(), "{:?} of {:?}", case.objects, case.row.kinds);
    // What is adopted and terminated at once may be gone already.
    if !case.row.says("then terminated") {
        let read = case.cluster.kubectl(&format!("-n {} get -o name -f -", case.namespace), &manifest)?;
        ensure!(names(&read.ok()?) == case.objects, "something else is read back than {:?}", case.objects);
    }
    if said::is_only_kept(case.row) {
        let described = case.cluster.kubectl(&format!("-n {} describe -f -", case.namespace), &manifest)?;
        ensure!(described.stderr.is_empty(), "{described}");
        let text = described.ok()?;
        ensure!(text.matches("Name:").count() >= case.objects.len(), "{text}");
    }
    Ok(())
}

fn outcome(case: &Case) -> Result<()> {
    if said::refusal(case.row).is_some() {
        return Ok(());
    }
    if !stories::is_whole(case) {
        said::check(case)?;
    }
    stories::after(case)
}

fn names(printed: &str) -> Vec<String> {
    printed.lines().map(str::to_owned).collect()
}

/// The manifest, with what it wants of the world beyond the cluster on this bench.
fn on_this_bench(cluster: &Cluster, row: &Row) -> String {
    let scratch = cluster.scratch.display();
    let page = format!("http://{}:{PAGE}", cluster.desktop.address());
    let mut text = row.text.replace("http://info.cern.ch", &page);
    // A path may be the last thing in a file.
    text.push('\n');
    if row.file.ends_with("job-success-policy.yaml") {
        // Nine of its ten pods fail at once, and the seventh failure ends a Job: whether the success or that is seen first,
        // Kubernetes does not promise either.
        text = text.replacen("\nspec:\n", "\nspec:\n  backoffLimit: 60\n", 1);
    }
    for (path, here) in [("/etc/machine-id", "/machine-id"), ("/var/log", "")] {
        let line = |path: &str| format!("          path: {path}\n");
        text = text.replace(&line(path), &line(&format!("{scratch}{here}")));
    }
    text
}
