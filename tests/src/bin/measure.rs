//! `measure`: the figures that gaggle promises, beside those of bare Docker engines in the same run.

use anyhow::{Context, Result, bail, ensure};
use clap::Parser;
use gaggle_tests::bench::{Bench, BenchConfig, Desktop, Image, poll};
use gaggle_tests::engine::Engine;
use gaggle_tests::kube::{SOON, pod};
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

const DESKTOPS: usize = 3;
const ASSEMBLIES: usize = 5;
const SINGLE_PODS: usize = 11;
const SHORT_PODS: usize = 200;
/// Pairs that each concurrency is tried with.
const TRIAL_PAIRS: usize = 60;
/// Containers started at once on each engine; the best one counts.
const CONCURRENCIES: [usize; 5] = [1, 2, 3, 4, 6];
/// Assembly, elections and first gossip are over by then.
const SETTLES: Duration = Duration::from_secs(10);
const IDLES: Duration = Duration::from_secs(20);
const CLOCK_TICKS: f64 = 100.0;

/// Measures gaggle on a bench of three desktops, against bare Docker engines in the same run.
#[derive(Parser)]
struct Arguments {
    /// The gaggle binary; by default the one built beside this program.
    #[arg(long)]
    binary: Option<PathBuf>,
    /// Exit with 1 when a figure is missed.
    #[arg(long)]
    strict: bool,
}

/// One figure and what it must keep to.
struct Figure {
    what: &'static str,
    value: f64,
    limit: f64,
    /// Whether the limit is a floor, as for a rate, and not a ceiling.
    floor: bool,
    detail: String,
}

impl Figure {
    fn met(&self) -> bool {
        if self.floor { self.value >= self.limit } else { self.value <= self.limit }
    }

    fn print(&self) {
        let (verdict, relation) =
            (if self.met() { "met" } else { "MISSED" }, if self.floor { ">=" } else { "<=" });
        println!(
            "{:<44} {:>8.2}   {relation} {:<6} {verdict:<7} {}",
            self.what, self.value, self.limit, self.detail
        );
    }
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    match measure(&arguments) {
        Ok(0) => ExitCode::SUCCESS,
        Ok(_) => ExitCode::from(u8::from(arguments.strict)),
        Err(error) => {
            eprintln!("measure: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// Prints each figure as soon as it is known, and returns how many are missed.
fn measure(arguments: &Arguments) -> Result<usize> {
    let config = || BenchConfig { binary: arguments.binary.clone(), ..BenchConfig::desktops(DESKTOPS) };
    let mut verdicts = Vec::new();
    let mut tell = |figure: Figure| {
        figure.print();
        verdicts.push(figure.met());
    };
    tell(assembly(&config)?);

    let bench = Bench::new(config())?;
    let image = bench.image(&Image::busybox())?;
    bench.each(|desktop| desktop.load(&image))?;
    // Nothing of gaggle runs beside the bare engines yet.
    let rates = CONCURRENCIES
        .into_iter()
        .map(|concurrency| bare_rate(&bench, concurrency, TRIAL_PAIRS))
        .collect::<Result<Vec<_>>>()?;
    let best = rates.into_iter().max_by(|one, other| one.per_second.total_cmp(&other.per_second));
    bench.each(remove_all)?;
    bench.up()?;
    idle(&bench)?.into_iter().for_each(&mut tell);
    tell(single_pod(&bench)?);
    tell(short_pods(&bench, best.context("no concurrency was tried")?)?);
    let missed = verdicts.iter().filter(|met| !**met).count();
    println!("{} of {} figures met", verdicts.len() - missed, verdicts.len());
    Ok(missed)
}

/// From the last `up` until every desktop sees all ready, each time from nothing.
fn assembly(config: &dyn Fn() -> BenchConfig) -> Result<Figure> {
    let mut times = Vec::new();
    for _ in 0..ASSEMBLIES {
        let bench = Bench::new(config())?;
        let began = Instant::now();
        bench.up()?;
        times.push(began.elapsed().as_secs_f64());
    }
    Ok(Figure {
        what: "three desktops ready after `up` [s]",
        value: median(&mut times),
        limit: 3.0,
        floor: false,
        detail: format!("median of {ASSEMBLIES}: {:.2} to {:.2}", times[0], times[ASSEMBLIES - 1]),
    })
}

/// Memory and processor time of daemons that have nothing to do; the worst of the three counts.
fn idle(bench: &Bench) -> Result<Vec<Figure>> {
    std::thread::sleep(SETTLES);
    let before = bench.desktops().iter().map(processor_seconds).collect::<Result<Vec<_>>>()?;
    let began = Instant::now();
    std::thread::sleep(IDLES);
    let elapsed = began.elapsed().as_secs_f64();
    let mut percent = Vec::new();
    for (desktop, before) in bench.desktops().iter().zip(before) {
        percent.push(100.0 * (processor_seconds(desktop)? - before) / elapsed);
    }
    let mut resident = bench.desktops().iter().map(resident_mib).collect::<Result<Vec<_>>>()?;
    let all =
        |values: &[f64]| values.iter().map(|value| format!("{value:.1}")).collect::<Vec<_>>().join(", ");
    let (resident_detail, percent_detail) = (all(&resident), all(&percent));
    Ok(vec![
        Figure {
            what: "resident memory of an idle daemon [MiB]",
            value: maximum(&mut resident),
            limit: 60.0,
            floor: false,
            detail: resident_detail,
        },
        Figure {
            what: "processor use of an idle daemon [% of a core]",
            value: maximum(&mut percent),
            limit: 1.5,
            floor: false,
            detail: percent_detail,
        },
    ])
}

/// From the request to the moment when a watch says Running, one pod after another; and between them, so that a
/// machine with other work is unjust to neither, the two starts that a pod is made of.
fn single_pod(bench: &Bench) -> Result<Figure> {
    let desktop = bench.desktop(1);
    desktop.make_kubeconfig()?;
    let engine = Engine::at(desktop.engine_socket());
    let phases = r#"kubectl get pods -w -o jsonpath='{.metadata.name} {.status.phase}{"\n"}'"#;
    let watch = desktop.start(phases)?;
    let (mut times, mut bare_times, mut bare_ids) = (Vec::new(), Vec::new(), Vec::new());
    for number in 0..SINGLE_PODS {
        let began = Instant::now();
        bare_ids.extend(engine.run_pair(&["sleep", "100000"])?);
        bare_times.push(began.elapsed().as_secs_f64());

        let name = format!("single-{number}");
        let began = Instant::now();
        desktop.post("/api/v1/namespaces/default/pods", &pod(&name, "sleep 100000"))?.ok()?;
        let running = format!("{name} Running");
        while !watch.stdout().contains(&running) {
            ensure!(began.elapsed() < Duration::from_secs(60), "{name} does not run: {}", watch.stdout());
            std::thread::sleep(Duration::from_millis(2));
        }
        times.push(began.elapsed().as_secs_f64());
    }
    desktop.kubectl("delete pods --all --grace-period=0 --force")?.ok()?;
    desktop.docker(&format!("rm -f {} > /dev/null", bare_ids.join(" ")))?.ok()?;
    // The next figure must not pay for what this one leaves to be removed.
    poll(SOON, "the engines to be empty", || {
        for desktop in bench.desktops() {
            let left = desktop.docker("ps -aq")?.ok()?;
            ensure!(left.trim().is_empty(), "{} still has {left}", desktop.name());
        }
        Ok(Some(()))
    })?;
    let (pod, bare) = (median(&mut times), median(&mut bare_times));
    Ok(Figure {
        what: "a pod Running, against bare starts [ratio]",
        value: pod / bare,
        limit: 1.5,
        floor: false,
        detail: format!("{:.0} ms against {:.0} ms, medians of {SINGLE_PODS}", pod * 1e3, bare * 1e3),
    })
}

/// Pairs a second over all engines, with so many at once on each.
struct Rate {
    per_second: f64,
    concurrency: usize,
}

fn bare_rate(bench: &Bench, concurrency: usize, pairs: usize) -> Result<Rate> {
    bench.each(remove_all)?;
    let (next, began) = (AtomicUsize::new(0), Instant::now());
    bench.each(|desktop| {
        std::thread::scope(|scope| {
            let worker = || -> Result<()> {
                let engine = Engine::at(desktop.engine_socket());
                while next.fetch_add(1, Ordering::Relaxed) < pairs {
                    engine.run_pair_to_end(&["true"])?;
                }
                Ok(())
            };
            let workers: Vec<_> = (0..concurrency).map(|_| scope.spawn(worker)).collect();
            workers
                .into_iter()
                .map(|worker| worker.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)))
                .fold(Ok(()), Result::and)
        })
    })?;
    Ok(Rate { per_second: pairs as f64 / began.elapsed().as_secs_f64(), concurrency })
}

/// As many pods as a Job may have at once, all doing nothing.
fn short_pods(bench: &Bench, before: Rate) -> Result<Figure> {
    let desktop = bench.desktop(1);
    let job = serde_json::json!({
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": { "name": "short" },
        "spec": {
            "completions": SHORT_PODS, "parallelism": SHORT_PODS,
            "template": { "spec": { "restartPolicy": "Never", "containers": [{
                "name": "main", "image": "busybox", "imagePullPolicy": "IfNotPresent", "command": ["true"],
            }] } },
        },
    });
    let began = Instant::now();
    desktop.post("/apis/batch/v1/namespaces/default/jobs", &job.to_string())?.ok()?;
    desktop.exec("kubectl wait --for=condition=complete job/short --timeout=110s")?.ok()?;
    let per_second = SHORT_PODS as f64 / began.elapsed().as_secs_f64();
    // The machine may have been busier before, so the engines are driven once more, and their better rate counts.
    bench.each(Desktop::kill_daemon)?;
    let after = bare_rate(bench, before.concurrency, SHORT_PODS)?;
    let bare = if after.per_second > before.per_second { after } else { before };
    Ok(Figure {
        what: "200 short pods, against bare engines [ratio]",
        value: per_second / bare.per_second,
        limit: 0.8,
        floor: true,
        detail: format!(
            "{per_second:.1}/s against {:.1}/s at {} an engine",
            bare.per_second, bare.concurrency
        ),
    })
}

fn remove_all(desktop: &Desktop) -> Result<()> {
    // An agent may be removing some of them at the same time, which fails here and is as good: what counts is that
    // none is left.
    const ROUNDS: u32 = 100;
    for _ in 0..ROUNDS {
        desktop.docker("ps -aq | xargs -r docker rm -f > /dev/null")?;
        if desktop.docker("ps -aq")?.ok()?.trim().is_empty() {
            return Ok(());
        }
        std::thread::sleep(Duration::from_millis(200));
    }
    bail!("{} still has containers after {ROUNDS} attempts to remove them", desktop.name())
}

fn processor_seconds(desktop: &Desktop) -> Result<f64> {
    let pid = desktop.daemon().pid().context("no daemon")?;
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat"))?;
    let fields: Vec<_> = stat.rsplit_once(')').map_or("", |(_, rest)| rest).split_whitespace().collect();
    // utime and stime are fields 14 and 15; the state after the name is field 3.
    let ticks =
        |field: usize| fields.get(field - 3).and_then(|ticks| ticks.parse::<f64>().ok()).context("no times");
    Ok((ticks(14)? + ticks(15)?) / CLOCK_TICKS)
}

fn resident_mib(desktop: &Desktop) -> Result<f64> {
    let pid = desktop.daemon().pid().context("no daemon")?;
    let status = std::fs::read_to_string(format!("/proc/{pid}/status"))?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).context("no VmRSS")?;
    Ok(line.trim().trim_end_matches(" kB").parse::<f64>()? / 1024.0)
}

/// Sorts, and returns the middle.
fn median(values: &mut [f64]) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

fn maximum(values: &mut [f64]) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() - 1]
}
