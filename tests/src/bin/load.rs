//! `load`: what the API bears, beside etcd where that does the same: writes, lists of many pods, many watchers.

use anyhow::{Context, Result, ensure};
use base64::Engine as _;
use clap::Parser;
use futures::future::{join_all, try_join_all};
use futures::{AsyncBufReadExt, TryStreamExt};
use gaggle_tests::bench::{Bench, BenchConfig, Desktop, Running};
use gaggle_tests::client::inside;
use http::Request;
use kube::{Client, Config};
use serde_json::{Value, json};
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::{Duration, Instant};

const DESKTOPS: usize = 3;
/// Alternating, so that what else the machine does hits both.
const ROUNDS: usize = 5;
/// How long each side writes in a round, and by how many clients at once.
const WRITES_FOR: Duration = Duration::from_secs(4);
const CLIENTS: usize = 32;
/// Writes of one client alone, of each side in a round: of fewer, one percent is a reading or two.
const SINGLE_WRITES: usize = 1000;
/// What an object holds beside its name.
const CONTENT_BYTES: usize = 700;
const PODS: usize = 10_000;
const LISTS: usize = 5;
const WATCHERS: usize = 500;
/// HTTP/2 carries some hundreds of streams on a connection.
const WATCHERS_OF_ONE: usize = 50;
const CHANGES: usize = 20;
const MAPS: &str = "/api/v1/namespaces/default/configmaps";
const IN_TIME: Duration = Duration::from_secs(60);

/// Measures what the API of three desktops bears, beside a group of three etcd members on the same desktops.
#[derive(Parser)]
struct Arguments {
    /// The gaggle binary; by default the one built beside this program.
    #[arg(long)]
    binary: Option<PathBuf>,
    /// The etcd binary; without one there is nothing to compare with.
    #[arg(long)]
    etcd: Option<PathBuf>,
    /// Writes alone, no lists and no watchers.
    #[arg(long)]
    writes: bool,
    /// Asks a desktop that does not lead, and so has to ask the one that does; by default the leader is asked.
    #[arg(long)]
    follower: bool,
}

fn main() -> ExitCode {
    match run(&Arguments::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("load: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: &Arguments) -> Result<()> {
    let bench =
        Bench::new(BenchConfig { binary: arguments.binary.clone(), ..BenchConfig::desktops(DESKTOPS) })?;
    let leader = bench.up()?.leader.context("no leader")?;
    let asked = |desktop: &&Desktop| (desktop.name() == leader) != arguments.follower;
    let desktop = bench.desktops().iter().find(asked).context("no desktop to ask")?;
    println!("all requests go to {}; {leader} leads", desktop.name());
    let etcds: &[Etcd] = if arguments.etcd.is_some() { &ETCDS } else { &[] };
    let binary = arguments.etcd.clone().unwrap_or_default();
    let _members = etcds.iter().map(|etcd| etcd.start(&bench, &binary)).collect::<Result<Vec<_>>>()?;
    inside(&bench, desktop, async |config| {
        let sides = sides(&bench, desktop, &config, etcds).await?;
        writes(&sides).await?;
        if !arguments.writes {
            lists(&sides[0].client).await?;
            watchers(&config, &sides[0]).await?;
        }
        println!("resident memory of the daemon that was asked: {:.0} MiB", resident_mib(desktop)?);
        Ok(())
    })
}

/// A group of etcd members: one on each desktop, on the same disk as its daemon.
struct Etcd {
    name: &'static str,
    scheme: &'static str,
    options: &'static str,
    /// Where members listen for clients and, one above, for each other.
    port: u16,
}

/// As it is by default, and as it is deployed for Kubernetes: with TLS on both ports, as gaggle has it.
const ETCDS: [Etcd; 2] = [
    Etcd { name: "etcd", scheme: "http", options: "", port: 2379 },
    Etcd { name: "etcd+tls", scheme: "https", options: "--auto-tls --peer-auto-tls", port: 2389 },
];

impl Etcd {
    fn client(&self, desktop: &Desktop) -> String {
        format!("{}://{}:{}", self.scheme, desktop.address(), self.port)
    }

    fn peer(&self, desktop: &Desktop) -> String {
        format!("{}://{}:{}", self.scheme, desktop.address(), self.port + 1)
    }

    fn start(&self, bench: &Bench, binary: &std::path::Path) -> Result<Vec<Running>> {
        let one = |desktop: &Desktop| format!("{}={}", desktop.name(), self.peer(desktop));
        let all: Vec<String> = bench.desktops().iter().map(one).collect();
        let members = bench.desktops().iter().map(|desktop| {
            let (client, peer) = (self.client(desktop), self.peer(desktop));
            desktop.start(&format!(
                "exec '{}' --name {} --data-dir '{}' --logger zap --log-level error --initial-cluster-state new \
                 --initial-cluster {} --initial-advertise-peer-urls {peer} --listen-peer-urls {peer} \
                 --advertise-client-urls {client} --listen-client-urls {client} {}",
                binary.display(),
                desktop.name(),
                desktop.dir().join(self.name).display(),
                all.join(","),
                self.options,
            ))
        });
        members.collect()
    }

    async fn side(&self, bench: &Bench, desktop: &Desktop) -> Result<Side> {
        let mut config = Config::new(self.client(desktop).parse().context("an address")?);
        // Its certificate is one that it made up for itself.
        config.accept_invalid_certs = true;
        let mut side = Side {
            name: self.name,
            client: Client::try_from(config)?,
            put: |name| {
                let base64 = |text: &str| base64::engine::general_purpose::STANDARD.encode(text);
                let (key, value) = (base64(name), base64(&object(name).to_string()));
                post("/v3/kv/put", &json!({"key": key, "value": value}))
            },
            pids: Vec::new(),
        };
        ready(&side).await?;
        side.pids = processes(bench, "etcd", &format!(":{}", self.port));
        Ok(side)
    }
}

/// Somewhere to write to.
struct Side {
    name: &'static str,
    client: Client,
    /// The request that makes an object of this name.
    put: fn(&str) -> Result<Request<Vec<u8>>>,
    /// The processes that serve it.
    pids: Vec<u32>,
}

/// Of one second of writing by many clients.
struct Rate {
    writes: f64,
    /// Processor time of all who serve.
    cpu: f64,
}

impl Side {
    async fn write(&self, name: &str) -> Result<()> {
        self.client.request::<Value>((self.put)(name)?).await?;
        Ok(())
    }

    async fn rate(&self, round: usize) -> Result<Rate> {
        let (began, cpu) = (Instant::now(), self.cpu()?);
        let clients = (0..CLIENTS).map(async |client| {
            let mut count = 0_u32;
            while began.elapsed() < WRITES_FOR {
                self.write(&format!("many-{round}-{client}-{count}")).await?;
                count += 1;
            }
            anyhow::Ok(count)
        });
        let counts = try_join_all(clients).await?;
        let (seconds, cpu) = (began.elapsed().as_secs_f64(), self.cpu()? - cpu);
        Ok(Rate { writes: f64::from(counts.iter().sum::<u32>()) / seconds, cpu: cpu / seconds })
    }

    /// Seconds of processor time that its processes have taken so far.
    fn cpu(&self) -> Result<f64> {
        // proc_pid_stat(5); the clock of these numbers ticks a hundred times a second on every Linux.
        const TICKS: f64 = 100.0;
        let mut ticks = 0.0;
        for pid in &self.pids {
            let stat = std::fs::read_to_string(format!("/proc/{pid}/stat"))?;
            let (_, fields) = stat.rsplit_once(')').context("no command in a stat")?;
            let times = fields.split_whitespace().skip(11).take(2);
            ticks += times.filter_map(|time| time.parse::<f64>().ok()).sum::<f64>();
        }
        Ok(ticks / TICKS)
    }

    /// How long a write takes, in milliseconds.
    async fn single(&self, round: usize) -> Result<Vec<f64>> {
        let mut times = Vec::new();
        for count in 0..SINGLE_WRITES {
            let began = Instant::now();
            self.write(&format!("one-{round}-{count}")).await?;
            times.push(began.elapsed().as_secs_f64() * 1e3);
        }
        Ok(times)
    }
}

fn object(name: &str) -> Value {
    json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}, "data": {"v": "x".repeat(CONTENT_BYTES)}})
}

fn post(path: &str, body: &Value) -> Result<Request<Vec<u8>>> {
    let request = Request::post(path).header("content-type", "application/json");
    Ok(request.body(serde_json::to_vec(body)?)?)
}

fn at(times: &mut [f64], percent: usize) -> f64 {
    times.sort_by(f64::total_cmp);
    times[(times.len() * percent / 100).min(times.len() - 1)]
}

/// All sides, gaggle's first. All requests go to one desktop.
async fn sides(bench: &Bench, desktop: &Desktop, config: &Config, etcds: &[Etcd]) -> Result<Vec<Side>> {
    let mut sides = vec![Side {
        name: "gaggle",
        client: Client::try_from(config.clone())?,
        put: |name| post(MAPS, &object(name)),
        pids: processes(bench, "gaggle", ""),
    }];
    for etcd in etcds {
        sides.push(etcd.side(bench, desktop).await?);
    }
    Ok(sides)
}

/// Of all desktops, those of this command that were given this argument, or part of one.
fn processes(bench: &Bench, command: &str, argument: &str) -> Vec<u32> {
    let all = bench.desktops().iter().flat_map(Desktop::processes);
    let of =
        |pid: &u32, file: &str| std::fs::read_to_string(format!("/proc/{pid}/{file}")).unwrap_or_default();
    all.filter(|pid| of(pid, "comm").trim_end() == command && of(pid, "cmdline").contains(argument)).collect()
}

async fn ready(side: &Side) -> Result<()> {
    let began = Instant::now();
    while let Err(error) = side.write("ready").await {
        ensure!(began.elapsed() < IN_TIME, "{} does not come up: {error:#}", side.name);
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    Ok(())
}

async fn writes(sides: &[Side]) -> Result<()> {
    let none = || vec![Vec::new(); sides.len()];
    let (mut rates, mut costs, mut times) = (none(), none(), none());
    for round in 0..ROUNDS {
        for (index, side) in sides.iter().enumerate() {
            let Rate { writes, cpu } = side.rate(round).await?;
            rates[index].push(writes);
            costs[index].push(cpu / writes * 1e6);
            times[index].extend(side.single(round).await?);
        }
    }
    let mut told = Vec::new();
    for (index, side) in sides.iter().enumerate() {
        let (rate, cost) = (at(&mut rates[index], 50), at(&mut costs[index], 50));
        let (half, most) = (at(&mut times[index], 50), at(&mut times[index], 99));
        println!(
            "{:<8} {rate:>8.0} writes/s by {CLIENTS} clients (median of {ROUNDS}), {cost:.0} us of processor each; \
             one alone: p50 {half:.2} ms, p99 {most:.2} ms",
            side.name
        );
        told.push((rate, cost, half, most));
    }
    let ours = told[0];
    for (side, theirs) in sides.iter().zip(&told).skip(1) {
        println!(
            "gaggle : {} = {:.2} of its writes/s, {:.2} of its processor for one, {:.2} of its p50, {:.2} of its p99",
            side.name,
            ours.0 / theirs.0,
            ours.1 / theirs.1,
            ours.2 / theirs.2,
            ours.3 / theirs.3
        );
    }
    Ok(())
}

/// Many pods that no desktop takes, and how long it takes to list them.
async fn lists(client: &Client) -> Result<()> {
    let began = Instant::now();
    let makers = (0..CLIENTS).map(async |maker| {
        for number in (maker..PODS).step_by(CLIENTS) {
            let pod = json!({"apiVersion": "v1", "kind": "Pod",
                "metadata": {"name": format!("pod-{number}"), "labels": {"app": "many"}},
                "spec": {"nodeSelector": {"there-is": "none"}, "containers": [{"name": "main", "image": "busybox"}]}});
            client.request::<Value>(post("/api/v1/namespaces/default/pods", &pod)?).await?;
        }
        anyhow::Ok(())
    });
    try_join_all(makers).await?;
    println!("{PODS} pods made in {:.1} s", began.elapsed().as_secs_f64());
    let table = "application/json;as=Table;v=v1;g=meta.k8s.io";
    for (what, accept) in [("objects", "application/json"), ("a table", table)] {
        let (mut times, mut bytes) = (Vec::new(), 0);
        for _ in 0..LISTS {
            let request = Request::get("/api/v1/namespaces/default/pods").header("accept", accept);
            let began = Instant::now();
            bytes = client.request_text(request.body(Vec::new())?).await?.len();
            times.push(began.elapsed().as_secs_f64());
        }
        println!(
            "list of {PODS} pods as {what}: {:.2} s (median of {LISTS}), {:.1} MB",
            at(&mut times, 50),
            bytes as f64 / 1e6
        );
    }
    Ok(())
}

/// How long after a write has been acknowledged all watchers have heard of it.
async fn watchers(config: &Config, writer: &Side) -> Result<()> {
    let clients = (0..WATCHERS / WATCHERS_OF_ONE).map(|_| Client::try_from(config.clone()));
    let clients = clients.collect::<kube::Result<Vec<_>>>()?;
    let list: Value =
        writer.client.request(Request::get(format!("{MAPS}?limit=1")).body(Vec::new())?).await?;
    let revision = list["metadata"]["resourceVersion"].as_str().context("a list without a revision")?;
    let path = format!("{MAPS}?watch=true&resourceVersion={revision}&timeoutSeconds=600");
    let opened =
        clients.iter().flat_map(|client| std::iter::repeat_n(client, WATCHERS_OF_ONE)).map(async |client| {
            let request = Request::get(&path).body(Vec::new())?;
            anyhow::Ok(client.request_stream(request).await?.lines())
        });
    let mut streams = try_join_all(opened).await?;
    let mut times = Vec::new();
    for change in 0..CHANGES {
        let name = format!("heard-{change}");
        let began = Instant::now();
        let heard = streams.iter_mut().map(async |stream| {
            let line = tokio::time::timeout(IN_TIME, stream.try_next()).await??.context("a watch ended")?;
            ensure!(line.contains(&name), "{line}");
            anyhow::Ok(began.elapsed().as_secs_f64() * 1e3)
        });
        let (written, heard) = tokio::join!(writer.write(&name), join_all(heard));
        written?;
        times.extend(heard.into_iter().collect::<Result<Vec<_>>>()?);
    }
    println!(
        "{WATCHERS} watchers hear of a write: p50 {:.1} ms, p99 {:.1} ms after it was asked for ({CHANGES} writes)",
        at(&mut times, 50),
        at(&mut times, 99)
    );
    Ok(())
}

fn resident_mib(desktop: &Desktop) -> Result<f64> {
    let pid = desktop.daemon().pid().context("no daemon")?;
    let status = std::fs::read_to_string(format!("/proc/{pid}/status"))?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).context("no VmRSS")?;
    Ok(line.trim().trim_end_matches(" kB").parse::<f64>()? / 1024.0)
}
