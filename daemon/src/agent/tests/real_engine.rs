//! Pods on a real Docker engine, from a registry-less image of the static busybox.

use super::group::{Group, NODE, NoPeers, NoTokens, log_of, within};
use crate::agent::engine::{Docker, Engine};
use crate::agent::{Agent, AgentConfig, ImagePeers};
use crate::pods::{ByteStream, LogOptions};
use futures::StreamExt;
use serde_json::{Value, json};
use std::path::Path;
use std::sync::Arc;
use tokio::sync::watch;

const IMAGE: &str = "gaggle-test-busybox:1";

/// Everything of one test: its own cluster label, so that tests do not see each other's containers.
struct Bench {
    group: Group,
    agent: Agent,
    docker: Docker,
    cluster: String,
    host: String,
    dir: tempfile::TempDir,
    _current: watch::Sender<bool>,
}

/// `None`, said loudly, where there is no engine to test with.
async fn bench(name: &str) -> Option<Bench> {
    let Ok(socket) = std::env::var("GAGGLE_TEST_DOCKER") else {
        eprintln!("SKIPPED: {name} needs a Docker engine: set GAGGLE_TEST_DOCKER to its socket's path");
        return None;
    };
    let host = format!("unix://{}", socket.trim_start_matches("unix://"));
    let docker = Docker::connect(Some(&host)).await.expect("GAGGLE_TEST_DOCKER names no engine");
    static IMPORTED: tokio::sync::OnceCell<()> = tokio::sync::OnceCell::const_new();
    IMPORTED.get_or_init(|| async { docker.import(IMAGE, busybox(), "/bin/sh").await.unwrap() }).await;
    let dir = tempfile::tempdir().unwrap();
    let cluster = format!("test-{name}-{}", std::process::id());
    let group = Group::default();
    let (current, _) = watch::channel(true);
    let agent = start(&group, &cluster, &host, dir.path(), &current, Arc::new(NoPeers));
    Some(Bench { group, agent, docker, cluster, host, dir, _current: current })
}

fn start(
    group: &Group,
    cluster: &str,
    host: &str,
    dir: &Path,
    current: &watch::Sender<bool>,
    peers: Arc<dyn ImagePeers>,
) -> Agent {
    let config = AgentConfig {
        node: NODE.into(),
        cluster: cluster.into(),
        docker_host: Some(host.into()),
        dir: dir.into(),
        dns: vec![],
        dns_search: vec![],
        api: None,
    };
    let heard = tokio::sync::watch::channel(crate::boottime::boottime_ms()).1;
    Agent::start(
        config,
        group.view.clone(),
        current.subscribe(),
        heard,
        Arc::new(group.clone()),
        peers,
        Arc::new(NoTokens),
    )
}

impl Bench {
    async fn ours(&self) -> Vec<crate::agent::engine::Found> {
        self.docker.list(&[("gaggle.dev/cluster".into(), self.cluster.clone())]).await.unwrap()
    }

    async fn end(self) {
        self.agent.stop().await;
    }
}

/// Nothing stays on the engine, also when a test fails.
impl Drop for Bench {
    fn drop(&mut self) {
        let (host, cluster) = (self.host.clone(), self.cluster.clone());
        let clean = move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async {
                let docker = Docker::connect(Some(&host)).await.unwrap();
                for cluster in [cluster.clone(), format!("{cluster}-foreign")] {
                    for found in docker.list(&[("gaggle.dev/cluster".into(), cluster)]).await.unwrap() {
                        docker.remove(&found.id).await.unwrap();
                    }
                }
            });
        };
        let cleaned = std::thread::spawn(clean).join();
        assert!(cleaned.is_ok() || std::thread::panicking(), "containers stay behind");
    }
}

/// A layer with the machine's own static busybox and a link for each command that is used here.
fn busybox() -> Vec<u8> {
    let dir = tempfile::tempdir().unwrap();
    let bin = dir.path().join("bin");
    std::fs::create_dir(&bin).unwrap();
    std::fs::create_dir(dir.path().join("tmp")).unwrap();
    let path = ["/bin/busybox", "/usr/bin/busybox"].into_iter().find(|path| Path::new(path).exists());
    std::fs::copy(path.expect("busybox-static is needed"), bin.join("busybox")).unwrap();
    for name in
        ["sh", "echo", "sleep", "cat", "env", "hostname", "head", "tail", "test", "true", "false", "date"]
    {
        std::os::unix::fs::symlink("busybox", bin.join(name)).unwrap();
    }
    let tar =
        std::process::Command::new("tar").arg("-c").arg("-C").arg(dir.path()).arg(".").output().unwrap();
    tar.stdout
}

fn one(script: &str) -> Value {
    json!({"restartPolicy": "Never", "containers": [shell("main", script)]})
}

fn shell(name: &str, script: &str) -> Value {
    json!({"name": name, "image": IMAGE, "imagePullPolicy": "IfNotPresent", "command": ["sh", "-c", script]})
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pod_runs_to_its_end_and_leaves_its_log() {
    let Some(bench) = bench("ends").await else { return };
    let mut spec =
        one("echo out $GREETING $POD $IP; echo err >&2; echo last words > /dev/termination-log; exit 3");
    spec["containers"][0]["env"] = json!([
        {"name": "GREETING", "value": "hello"},
        {"name": "POD", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}},
        {"name": "IP", "valueFrom": {"fieldRef": {"fieldPath": "status.podIP"}}},
    ]);
    let pod = bench.group.pod("ends", spec);
    let status = bench.group.until_phase("ends", "Failed").await;
    let terminated = &status["containerStatuses"][0]["state"]["terminated"];
    assert_eq!(terminated["exitCode"], 3, "{status:#}");
    assert_eq!(terminated["reason"], "Error");
    assert_eq!(terminated["message"], "last words\n");
    assert!(terminated["containerID"].as_str().unwrap().starts_with("docker://"));
    let ip = status["podIP"].as_str().unwrap().to_owned();
    assert_eq!(
        status["conditions"].as_array().unwrap().iter().filter(|c| c["type"] == "PodScheduled").count(),
        1
    );
    let log = log_of(&bench.agent, &pod, LogOptions::default()).await;
    assert!(log.contains(&format!("out hello ends {ip}\n")) && log.contains("err\n"), "{log}");
    let limited =
        log_of(&bench.agent, &pod, LogOptions { limit_bytes: Some(5), ..LogOptions::default() }).await;
    assert_eq!(limited.len(), 5);
    bench.group.delete("ends", 1);
    bench.group.until_gone("ends").await;
    assert_eq!(bench.ours().await, vec![]);
    assert!(!bench.dir.path().join("pods").join(&pod.uid).exists(), "its files are gone");
    bench.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn containers_of_a_pod_share_network_volumes_and_hostname() {
    let Some(bench) = bench("shares").await else { return };
    bench.group.put(
        "configmaps",
        "default",
        "settings",
        json!({"metadata": {"name": "settings", "uid": "c"}, "data": {"key": "value"}}),
    );
    let mut writer = shell("writer", "cat /settings/key > /shared/said; hostname > /memory/name; sleep 1000");
    let mut reader = shell(
        "reader",
        "until test -s /shared/said && test -s /memory/name; do sleep 0.1; done; cat /shared/said; echo; cat /memory/name; hostname; sleep 1000",
    );
    writer["volumeMounts"] = json!([{"name": "shared", "mountPath": "/shared"}, {"name": "memory", "mountPath": "/memory"}, {"name": "settings", "mountPath": "/settings"}]);
    reader["volumeMounts"] =
        json!([{"name": "shared", "mountPath": "/shared"}, {"name": "memory", "mountPath": "/memory"}]);
    let mut first = shell("first", "echo prepared > /shared/first");
    first["volumeMounts"] = json!([{"name": "shared", "mountPath": "/shared"}]);
    let pod = bench.group.pod("shares", json!({
        "containers": [writer, reader], "initContainers": [first],
        "volumes": [{"name": "shared", "emptyDir": {}}, {"name": "memory", "emptyDir": {"medium": "Memory"}}, {"name": "settings", "configMap": {"name": "settings"}}],
    }));
    let ready = |status: &Value| {
        status["conditions"]
            .as_array()
            .is_some_and(|all| all.iter().any(|c| c["type"] == "Ready" && c["status"] == "True"))
    };
    let status = bench.group.until("shares", "ready", ready).await;
    assert_eq!(status["phase"], "Running");
    assert_eq!(status["initContainerStatuses"][0]["state"]["terminated"]["reason"], "Completed");
    let options = LogOptions { container: "reader".into(), follow: true, ..LogOptions::default() };
    let mut log = bench.agent.logs(&pod, &options).await.unwrap();
    let mut text = String::new();
    within("the log", async {
        while text.lines().count() < 3 {
            text.push_str(&String::from_utf8(log.next().await.unwrap().unwrap()).unwrap());
        }
    })
    .await;
    assert_eq!(text, "value\nshares\nshares\n");
    bench.group.delete("shares", 0);
    bench.group.until_gone("shares").await;
    assert_eq!(bench.ours().await, vec![]);
    bench.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restarted_daemon_finds_its_containers_and_restarts_nothing() {
    let Some(mut bench) = bench("finds").await else { return };
    bench.group.pod("finds", json!({"containers": [shell("main", "sleep 1000")]}));
    let before = bench.group.until_phase("finds", "Running").await;
    // One that is not in the view any more when the daemon returns, and one of another cluster.
    bench.group.pod("orphan", json!({"containers": [shell("main", "sleep 1000")]}));
    bench.group.until_phase("orphan", "Running").await;
    bench.agent.stop().await;
    bench.group.vanish("orphan");
    let (current, _) = watch::channel(true);
    let foreign = Group::default();
    let other = tempfile::tempdir().unwrap();
    let foreign_cluster = format!("{}-foreign", bench.cluster);
    let neighbour = start(&foreign, &foreign_cluster, &bench.host, other.path(), &current, Arc::new(NoPeers));
    foreign.pod("foreign", json!({"containers": [shell("main", "sleep 1000")]}));
    foreign.until_phase("foreign", "Running").await;
    bench.agent =
        start(&bench.group, &bench.cluster, &bench.host, bench.dir.path(), &current, Arc::new(NoPeers));
    within("the orphan to go", async {
        while bench.ours().await.iter().any(|found| found.labels["gaggle.dev/pod-name"] == "orphan") {
            tokio::time::sleep(std::time::Duration::from_millis(50)).await;
        }
    })
    .await;
    assert_eq!(bench.ours().await.len(), 2, "pause and container");
    let after = bench.group.object("finds").unwrap().value()["status"].clone();
    assert_eq!(after["containerStatuses"], before["containerStatuses"]);
    let found = bench.docker.list(&[("gaggle.dev/cluster".into(), foreign_cluster)]).await.unwrap();
    assert_eq!(found.len(), 2, "the other cluster's are untouched");
    foreign.delete("foreign", 0);
    foreign.until_gone("foreign").await;
    neighbour.stop().await;
    bench.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_failing_container_is_restarted_and_memory_limits_kill() {
    let Some(bench) = bench("crashes").await else { return };
    let pod = bench.group.pod("crashes", json!({"containers": [shell("main", "echo again; exit 1")]}));
    let status = bench
        .group
        .until("crashes", "backing off", |status| {
            status["containerStatuses"][0]["state"]["waiting"]["reason"] == "CrashLoopBackOff"
        })
        .await;
    assert_eq!(status["phase"], "Running");
    assert_eq!(status["containerStatuses"][0]["restartCount"], 1);
    assert_eq!(status["containerStatuses"][0]["lastState"]["terminated"]["exitCode"], 1);
    let previous = LogOptions { previous: true, ..LogOptions::default() };
    assert_eq!(log_of(&bench.agent, &pod, previous).await, "again\n");
    let mut hungry = one("tail /dev/zero");
    hungry["containers"][0]["resources"] = json!({"limits": {"memory": "16Mi"}});
    bench.group.pod("hungry", hungry);
    let status = bench.group.until_phase("hungry", "Failed").await;
    let terminated = &status["containerStatuses"][0]["state"]["terminated"];
    assert_eq!(terminated["reason"], "OOMKilled", "{status:#}");
    let mut missing = one("");
    missing["containers"][0]["command"] = json!(["/no/such/command"]);
    bench.group.pod("missing", missing);
    let status = bench.group.until_phase("missing", "Failed").await;
    assert_eq!(
        status["containerStatuses"][0]["state"]["terminated"]["reason"], "ContainerCannotRun",
        "{status:#}"
    );
    for name in ["crashes", "hungry", "missing"] {
        bench.group.delete(name, 0);
        bench.group.until_gone(name).await;
    }
    bench.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_image_comes_from_a_desktop_that_has_it() {
    let Some(bench) = bench("peers").await else { return };
    struct Peer(Docker, String);
    #[async_trait::async_trait]
    impl ImagePeers for Peer {
        async fn fetch(&self, image: &str) -> Result<Option<ByteStream>, String> {
            // The archive of an image that is not here: this one's, under the name that was asked for.
            assert_eq!(image, self.1);
            let copy = self.0.export(IMAGE);
            Ok(Some(copy))
        }
    }
    let (current, _) = watch::channel(true);
    bench.agent.stop().await;
    let peer = Peer(bench.docker.clone(), "lab.invalid/skim:2".into());
    let agent = start(&bench.group, &bench.cluster, &bench.host, bench.dir.path(), &current, Arc::new(peer));
    let mut notes = agent.take_notes().unwrap();
    let mut spec = one("true");
    spec["containers"][0]["image"] = json!("lab.invalid/skim:2");
    let pod = bench.group.pod("peers", spec);
    // The peer's archive has another name in it, so both ways fail, and the message says so.
    let failed = |status: &Value| {
        let reason = &status["containerStatuses"][0]["state"]["waiting"]["reason"];
        reason == "ErrImagePull" || reason == "ImagePullBackOff"
    };
    let status = bench.group.until("peers", "failing to pull", failed).await;
    let message = status["containerStatuses"][0]["state"]["waiting"]["message"].as_str().unwrap().to_owned();
    assert!(
        message.contains("the registry:") && message.contains("one sent an archive without it"),
        "{message}"
    );
    let error = agent.logs(&pod, &LogOptions::default()).await.err().unwrap().to_string();
    assert_eq!(
        error,
        "container \"main\" in pod \"peers\" is waiting to start: trying and failing to pull image"
    );
    let mut reasons = Vec::new();
    while let Ok(note) = notes.try_recv() {
        reasons.push(note.reason);
    }
    assert!(reasons.contains(&"Pulling".to_owned()) && reasons.contains(&"Failed".to_owned()), "{reasons:?}");
    // Untagged and present: it runs with no registry at all.
    let loaded = agent.load_image(bench.docker.export(IMAGE)).await.unwrap();
    assert_eq!(loaded, [IMAGE]);
    bench.group.delete("peers", 0);
    bench.group.until_gone("peers").await;
    agent.stop().await;
    bench.end().await;
}
