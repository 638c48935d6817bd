//! The real kubectl against the API: what people type.

use super::server::Server;
use gaggle_sched::state::{Key, Resource};
use serde_json::{Value, json};
use std::io::Write;
use std::path::PathBuf;
use std::process::Stdio;
use std::time::Duration;
use tempfile::TempDir;
use tokio::io::AsyncWriteExt;
use tokio::process::Command;

/// Longer than any command takes on a busy machine; only a hang reaches it.
const DEADLINE: Duration = Duration::from_secs(120);

pub struct Kubectl {
    pub server: Server,
    home: TempDir,
}

pub struct Ran {
    pub out: String,
    pub err: String,
    pub ok: bool,
    pub code: Option<i32>,
}

impl Kubectl {
    /// `None`, loudly, on a machine without kubectl.
    pub async fn start() -> Option<Self> {
        let found = std::process::Command::new("kubectl").arg("version").arg("--client").output();
        if found.is_err() {
            let _ = writeln!(std::io::stderr(), "SKIPPED: there is no kubectl on this machine");
            return None;
        }
        let server = Server::start().await;
        let home = tempfile::tempdir().unwrap();
        server.write_kubeconfig(home.path());
        Some(Self { server, home })
    }

    pub fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new("kubectl");
        command
            .args(arguments)
            .env("HOME", self.home.path())
            .env("KUBECONFIG", self.home.path().join("config"))
            .env_remove("HTTPS_PROXY")
            .env_remove("https_proxy")
            .kill_on_drop(true);
        command
    }

    pub async fn run_with(&self, arguments: &[&str], input: &str) -> Ran {
        Self::run(self.command(arguments), input).await
    }

    pub async fn run(mut command: Command, input: &str) -> Ran {
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let mut stdin = child.stdin.take().unwrap();
        // A command that does not read its input is no failure.
        let _ = stdin.write_all(input.as_bytes()).await;
        drop(stdin);
        let output =
            tokio::time::timeout(DEADLINE, child.wait_with_output()).await.expect("kubectl hangs").unwrap();
        let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
        let (ok, code) = (output.status.success(), output.status.code());
        Ran { out: text(output.stdout), err: text(output.stderr), ok, code }
    }

    /// Runs a command that must succeed without a word on stderr, and returns what it prints.
    pub async fn ok(&self, arguments: &[&str]) -> String {
        self.ok_with(arguments, "").await
    }

    pub async fn ok_with(&self, arguments: &[&str], input: &str) -> String {
        let ran = self.run_with(arguments, input).await;
        assert!(ran.ok, "{arguments:?}: {}{}", ran.out, ran.err);
        assert_eq!(ran.err, "", "{arguments:?} complains");
        ran.out
    }

    pub async fn fails(&self, arguments: &[&str], input: &str) -> String {
        let ran = self.run_with(arguments, input).await;
        assert!(!ran.ok, "{arguments:?} should have failed: {}", ran.out);
        ran.err
    }

    fn file(&self, name: &str, content: &str) -> PathBuf {
        let path = self.home.path().join(name);
        std::fs::write(&path, content).unwrap();
        path
    }
}

/// The words of a printed table, row by row.
fn rows(table: &str) -> Vec<Vec<&str>> {
    table.lines().map(|line| line.split_whitespace().collect()).collect()
}

const DEPLOYMENT: &str = "apiVersion: apps/v1
kind: Deployment
metadata: {name: web, labels: {app: web}}
spec:
  replicas: 2
  selector: {matchLabels: {app: web}}
  template:
    metadata: {labels: {app: web}}
    spec:
      containers:
      - {name: web, image: 'nginx:1.25', ports: [{containerPort: 80}]}
";

fn deployment() -> Key {
    Key::new(Resource::fixed("deployments.apps"), "default", "web")
}

fn available(generation: u64, replicas: u64) -> Value {
    json!({"observedGeneration": generation, "replicas": replicas, "updatedReplicas": replicas,
        "readyReplicas": replicas, "availableReplicas": replicas,
        "conditions": [{"type": "Available", "status": "True"}]})
}

#[tokio::test]
async fn apply_get_scale_and_rollout_of_a_deployment() {
    let Some(k) = Kubectl::start().await else { return };
    assert_eq!(k.ok_with(&["apply", "-f", "-"], DEPLOYMENT).await, "deployment.apps/web created\n");
    assert_eq!(k.ok_with(&["apply", "-f", "-"], DEPLOYMENT).await, "deployment.apps/web unchanged\n");
    let changed = DEPLOYMENT.replace("nginx:1.25", "nginx:1.26").replace("  replicas: 2\n", "");
    assert_eq!(k.ok_with(&["apply", "-f", "-"], &changed).await, "deployment.apps/web configured\n");
    let read: Value = serde_json::from_str(&k.ok(&["get", "deploy", "web", "-o", "json"]).await).unwrap();
    assert_eq!(read["spec"]["template"]["spec"]["containers"][0]["image"], "nginx:1.26");
    assert_eq!(read["spec"]["replicas"], 1, "what the manifest no longer says is the default again");

    assert_eq!(k.ok(&["scale", "deploy/web", "--replicas=3"]).await, "deployment.apps/web scaled\n");
    k.server.set_status(&deployment(), available(3, 3));
    let table = k.ok(&["get", "deploy", "-o", "wide"]).await;
    let header = ["NAME", "READY", "UP-TO-DATE", "AVAILABLE", "AGE", "CONTAINERS", "IMAGES", "SELECTOR"];
    assert_eq!(rows(&table)[0], header);
    let row = rows(&table)[1].clone();
    assert_eq!(
        (&row[..4], &row[5..]),
        (&["web", "3/3", "3", "3"][..], &["web", "nginx:1.26", "app=web"][..])
    );
    let status = k.ok(&["rollout", "status", "deploy/web"]).await;
    assert_eq!(status, "deployment \"web\" successfully rolled out\n");
    assert_eq!(k.ok(&["rollout", "restart", "deploy/web"]).await, "deployment.apps/web restarted\n");
    let generation = k.ok(&["get", "deploy", "web", "-o", "jsonpath={.metadata.generation}"]).await;
    assert_eq!(generation, "4", "scaling, restarting and a new image are changes of the spec");
    assert_eq!(
        k.ok(&["set", "image", "deploy/web", "web=nginx:2"]).await,
        "deployment.apps/web image updated\n"
    );
    k.server.set_status(&deployment(), available(5, 3));
    k.ok(&["wait", "deploy/web", "--for=condition=Available", "--timeout=60s"]).await;
    let described = k.ok(&["describe", "deploy", "web"]).await;
    assert!(described.contains("Image:") && described.contains("nginx:2"), "{described}");
    let deleted = k.ok(&["delete", "deploy", "web"]).await;
    assert_eq!(deleted, "deployment.apps \"web\" deleted\n");
    let gone = k.fails(&["get", "deploy", "web"], "").await;
    assert_eq!(gone, "Error from server (NotFound): deployments.apps \"web\" not found\n");
    assert_eq!(k.run_with(&["get", "deploy"], "").await.err, "No resources found in default namespace.\n");
}

#[tokio::test]
async fn history_and_undo_go_by_replica_sets() {
    let Some(k) = Kubectl::start().await else { return };
    k.ok_with(&["apply", "-f", "-"], DEPLOYMENT).await;
    let uid = k.ok(&["get", "deploy", "web", "-o", "jsonpath={.metadata.uid}"]).await;
    for (revision, image) in [(1, "nginx:old"), (2, "nginx:1.25")] {
        let set = json!({"apiVersion": "apps/v1", "kind": "ReplicaSet", "metadata": {
            "name": format!("web-{revision}"), "labels": {"app": "web", "pod-template-hash": format!("h{revision}")},
            "annotations": {"deployment.kubernetes.io/revision": revision.to_string()},
            "ownerReferences": [{"apiVersion": "apps/v1", "kind": "Deployment", "name": "web", "uid": uid, "controller": true}]},
            "spec": {"replicas": 1, "selector": {"matchLabels": {"pod-template-hash": format!("h{revision}")}},
                "template": {"metadata": {"labels": {"app": "web", "pod-template-hash": format!("h{revision}")}},
                    "spec": {"containers": [{"name": "web", "image": image, "ports": [{"containerPort": 80}]}]}}}});
        k.ok_with(&["create", "-f", "-"], &set.to_string()).await;
    }
    let history = k.ok(&["rollout", "history", "deploy/web"]).await;
    assert!(rows(&history).contains(&vec!["1", "<none>"]), "{history}");
    assert_eq!(k.ok(&["rollout", "undo", "deploy/web"]).await, "deployment.apps/web rolled back\n");
    let image =
        k.ok(&["get", "deploy", "web", "-o", "jsonpath={.spec.template.spec.containers[0].image}"]).await;
    assert_eq!(image, "nginx:old");
}

#[tokio::test]
async fn the_create_commands_send_protobuf_and_are_understood() {
    let Some(k) = Kubectl::start().await else { return };
    assert_eq!(k.ok(&["create", "ns", "lab"]).await, "namespace/lab created\n");
    let file = k.file("settings.txt", "hello\n");
    let from_file = format!("--from-file=settings={}", file.display());
    let made = k.ok(&["create", "configmap", "c", "-n", "lab", &from_file, "--from-literal=a=b"]).await;
    assert_eq!(made, "configmap/c created\n");
    let data = k.ok(&["get", "cm", "c", "-n", "lab", "-o", "jsonpath={.data.settings}{.data.a}"]).await;
    assert_eq!(data, "hello\nb");
    k.ok(&["create", "secret", "generic", "s", "--from-literal=p=x"]).await;
    assert_eq!(k.ok(&["get", "secret", "s", "-o", "jsonpath={.data.p} {.type}"]).await, "eA== Opaque");
    k.ok(&["create", "sa", "robot"]).await;
    k.ok(&["create", "deployment", "d", "--image=nginx", "--replicas=0"]).await;
    assert_eq!(k.ok(&["get", "deploy", "d", "-o", "jsonpath={.spec.replicas}"]).await, "0");
    k.ok(&["create", "job", "j", "--image=busybox", "--", "echo", "hi there"]).await;
    let job = k.ok(&["get", "job", "j", "-o", "jsonpath={.spec.template.spec.containers[0].command}"]).await;
    assert_eq!(job, "[\"echo\",\"hi there\"]");
    k.ok(&["create", "cronjob", "cj", "--image=busybox", "--schedule=*/5 * * * *"]).await;
    let service = k.ok(&["create", "service", "clusterip", "svc", "--tcp=80:8080"]).await;
    assert_eq!(service, "service/svc created\n");
    let all = k.ok(&["get", "all"]).await;
    for name in ["deployment.apps/d", "job.batch/j", "cronjob.batch/cj", "service/svc"] {
        assert!(all.contains(name), "{name}: {all}");
    }
    assert_eq!(k.ok(&["delete", "ns", "lab", "--wait=false"]).await, "namespace \"lab\" deleted\n");
    let listed = k.ok(&["get", "ns", "lab"]).await;
    assert_eq!(rows(&listed)[1][1], "Terminating");
    let refused = k.fails(&["create", "cm", "x", "-n", "lab"], "").await;
    assert!(refused.contains("because it is being terminated"), "{refused}");
}

#[tokio::test]
async fn mistakes_are_told_with_the_field() {
    let Some(k) = Kubectl::start().await else { return };
    let unknown = DEPLOYMENT.replace("replicas: 2", "replicaz: 2");
    let error = k.fails(&["apply", "-f", "-"], &unknown).await;
    assert!(error.contains("strict decoding error: unknown field \"spec.replicaz\""), "{error}");
    let mismatch = DEPLOYMENT.replace("metadata: {labels: {app: web}}", "metadata: {labels: {app: other}}");
    let error = k.fails(&["create", "-f", "-"], &mismatch).await;
    let expected = "The Deployment \"web\" is invalid: spec.template.metadata.labels: Invalid value";
    assert!(
        error.contains(expected) && error.contains("`selector` does not match template `labels`"),
        "{error}"
    );
    let job = "---\n{apiVersion: batch/v1, kind: Job, metadata: {name: j}, spec: {template: {spec: {containers: \
               [{name: a, image: b}]}}}}";
    let error = k.fails(&["create", "-f", "-"], job).await;
    assert!(
        error.contains("Unsupported value: \"Always\": supported values: \"OnFailure\", \"Never\""),
        "{error}"
    );
    for (is, made_up, named) in [
        ("kind: Deployment", "kind: Deploymint", "kind \"Deploymint\""),
        ("apiVersion: apps/v1", "apiVersion: apps/v9", "version \"apps/v9\""),
    ] {
        let unknown = DEPLOYMENT.replacen(is, made_up, 1);
        let error = k.fails(&["apply", "-f", "-"], &unknown).await;
        assert!(error.contains("no matches for kind") && error.contains(named), "{error}");
    }
    k.ok_with(&["create", "-f", "-"], DEPLOYMENT).await;
    let error = k.fails(&["create", "-f", "-"], DEPLOYMENT).await;
    assert!(
        error.contains("(AlreadyExists)") && error.contains("deployments.apps \"web\" already exists"),
        "{error}"
    );
    let error = k
        .fails(
            &["patch", "deploy", "web", "-p", "{\"spec\":{\"selector\":{\"matchLabels\":{\"app\":\"x\"}}}}"],
            "",
        )
        .await;
    assert!(error.contains("field is immutable"), "{error}");
    let table = k.ok(&["get", "deploy", "web"]).await;
    assert_eq!(rows(&table)[1][1], "0/2", "nothing of it was changed");
}

#[tokio::test]
async fn nodes_are_cordoned_and_labelled_and_pods_drained() {
    let Some(k) = Kubectl::start().await else { return };
    let node = json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": "d1"}, "status": {
        "conditions": [{"type": "Ready", "status": "True"}], "addresses": [{"type": "InternalIP", "address": "10.0.0.1"}],
        "nodeInfo": {"kubeletVersion": "v1.32.0+gaggle"}, "capacity": {"cpu": "4"}, "allocatable": {"cpu": "4"}}});
    k.ok_with(&["create", "-f", "-"], &node.to_string()).await;
    let table = k.ok(&["get", "nodes", "-o", "wide"]).await;
    assert_eq!(rows(&table)[1][..3], ["d1", "Ready", "<none>"]);
    assert!(table.contains("INTERNAL-IP") && table.contains("10.0.0.1"), "{table}");
    assert_eq!(k.ok(&["cordon", "d1"]).await, "node/d1 cordoned\n");
    assert_eq!(rows(&k.ok(&["get", "nodes"]).await)[1][1], "Ready,SchedulingDisabled");
    assert_eq!(k.ok(&["uncordon", "d1"]).await, "node/d1 uncordoned\n");
    k.ok(&["label", "node", "d1", "disk=ssd"]).await;
    k.ok(&["taint", "node", "d1", "a=b:NoSchedule"]).await;
    k.ok(&["annotate", "node", "d1", "note=hi"]).await;
    assert_eq!(k.ok(&["get", "nodes", "-l", "disk=ssd", "-o", "name"]).await, "node/d1\n");
    let described = k.ok(&["describe", "node", "d1"]).await;
    assert!(described.contains("a=b:NoSchedule"), "{described}");
    let pod = json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "p"}, "spec": {
        "nodeName": "d1", "containers": [{"name": "main", "image": "busybox"}]}});
    k.ok_with(&["create", "-f", "-"], &pod.to_string()).await;
    let agent = k.server.play_agent();
    let drained = k.run_with(&["drain", "d1", "--force"], "").await;
    assert!(drained.ok && drained.out.contains("evicting pod default/p"), "{}{}", drained.out, drained.err);
    assert!(drained.out.contains("node/d1 drained"), "{}", drained.out);
    k.ok_with(&["create", "-f", "-"], &pod.to_string()).await;
    assert_eq!(
        k.ok(&["delete", "pod", "p"]).await,
        "pod \"p\" deleted\n",
        "it waits until the agent is done"
    );
    agent.abort();
}

#[tokio::test]
async fn pods_are_listed_described_logged_waited_for_and_watched() {
    let Some(k) = Kubectl::start().await else { return };
    let pod = json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "p"}, "spec": {
        "nodeName": "d1", "containers": [{"name": "main", "image": "busybox", "command": ["true"]}]}});
    assert_eq!(k.ok_with(&["apply", "-f", "-"], &pod.to_string()).await, "pod/p created\n");
    let mut watching = k.command(&["get", "pods", "-w", "--no-headers"]);
    let watching = watching.stdout(Stdio::piped()).spawn().unwrap();
    let mut lines = tokio::io::AsyncBufReadExt::lines(tokio::io::BufReader::new(watching.stdout.unwrap()));
    let first = tokio::time::timeout(DEADLINE, lines.next_line()).await.unwrap().unwrap().unwrap();
    assert_eq!(rows(&first)[0][..3], ["p", "0/1", "Pending"]);
    let key = Key::new(Resource::fixed("pods"), "default", "p");
    let status = json!({"phase": "Running", "podIP": "10.1.0.2", "conditions": [{"type": "Ready", "status": "True"}],
        "containerStatuses": [{"name": "main", "ready": true, "restartCount": 0, "state": {"running": {}}}]});
    k.server.set_status(&key, status);
    let second = tokio::time::timeout(DEADLINE, lines.next_line()).await.unwrap().unwrap().unwrap();
    assert_eq!(rows(&second)[0][..3], ["p", "1/1", "Running"]);
    k.ok(&["wait", "pod/p", "--for=condition=Ready", "--timeout=60s"]).await;
    assert_eq!(k.ok(&["logs", "p", "--tail=5"]).await, "p main tail=Some(5)\n");
    let error = k.fails(&["logs", "p", "-c", "other"], "").await;
    assert!(error.contains("container other is not valid for pod p"), "{error}");
    let event = json!({"apiVersion": "v1", "kind": "Event", "metadata": {"name": "p.1"}, "type": "Normal",
        "reason": "Started", "message": "Started container main", "lastTimestamp": "2026-01-01T00:00:00Z",
        "involvedObject": {"kind": "Pod", "namespace": "default", "name": "p"}});
    k.ok_with(&["create", "-f", "-"], &event.to_string()).await;
    let events = k.ok(&["get", "events", "--field-selector=involvedObject.name=p"]).await;
    assert_eq!(rows(&events)[1][1..4], ["Normal", "Started", "pod/p"]);
    assert!(k.ok(&["describe", "pod", "p"]).await.contains("10.1.0.2"));
    assert_eq!(k.ok(&["get", "pod", "p", "-o", "name"]).await, "pod/p\n");
    let forced = k.run_with(&["delete", "pod", "p", "--grace-period=0", "--force"], "").await;
    assert!(forced.ok && forced.out.contains("force deleted"), "{}{}", forced.out, forced.err);
}

#[tokio::test]
async fn a_job_shows_how_far_it_is() {
    let Some(k) = Kubectl::start().await else { return };
    let job = "---\n{apiVersion: batch/v1, kind: Job, metadata: {name: j}, spec: {completions: 4, parallelism: 2, \
               completionMode: Indexed, template: {spec: {restartPolicy: Never, containers: [{name: a, image: b}]}}}}";
    k.ok_with(&["apply", "-f", "-"], job).await;
    k.ok_with(&["apply", "-f", "-"], job).await;
    let key = Key::new(Resource::fixed("jobs.batch"), "default", "j");
    k.server.set_status(
        &key,
        json!({"succeeded": 4, "startTime": "2026-01-01T00:00:00Z",
        "completionTime": "2026-01-01T00:01:30Z", "conditions": [{"type": "Complete", "status": "True"}]}),
    );
    let table = k.ok(&["get", "jobs"]).await;
    assert_eq!(rows(&table)[1][..4], ["j", "Complete", "4/4", "90s"]);
    k.ok(&["wait", "job/j", "--for=condition=complete", "--timeout=60s"]).await;
    assert!(k.ok(&["describe", "job", "j"]).await.contains("Completed Indexes"));
    k.ok(&["delete", "job", "j", "--cascade=orphan", "--wait=false"]).await;
    let finalizers = k.ok(&["get", "job", "j", "-o", "jsonpath={.metadata.finalizers}"]).await;
    assert_eq!(finalizers, "[\"orphan\"]");
}

#[tokio::test]
async fn the_rest_of_what_people_type() {
    let Some(k) = Kubectl::start().await else { return };
    let resources = k.ok(&["api-resources"]).await;
    assert!(
        rows(&resources).iter().any(|row| row.starts_with(&["deployments", "deploy", "apps/v1"])),
        "{resources}"
    );
    assert!(k.ok(&["version"]).await.contains("Server Version: v1.32.0+gaggle"));
    assert!(k.ok(&["api-versions"]).await.contains("batch/v1"));
    k.ok_with(&["apply", "--server-side", "-f", "-"], DEPLOYMENT).await;
    k.ok_with(&["apply", "--server-side", "-f", "-"], &DEPLOYMENT.replace("1.25", "1.27")).await;
    let image = k.ok(&["get", "deploy", "web", "-o", "jsonpath={..image}"]).await;
    assert_eq!(image, "nginx:1.27");
    let patch = "[{\"op\":\"replace\",\"path\":\"/spec/replicas\",\"value\":7}]";
    k.ok(&["patch", "deploy", "web", "--type=json", "-p", patch]).await;
    assert_eq!(k.ok(&["get", "deploy", "web", "-o", "jsonpath={.spec.replicas}"]).await, "7");
    assert!(k.ok(&["get", "deploy", "web", "-o", "yaml"]).await.contains("kind: Deployment"));
    k.ok_with(&["replace", "-f", "-"], DEPLOYMENT).await;
    let dry = k.ok_with(&["apply", "--dry-run=server", "-f", "-"], &DEPLOYMENT.replace("web", "dry")).await;
    assert_eq!(dry, "deployment.apps/dry created (server dry run)\n");
    k.ok(&["create", "cm", "one", "--from-literal=a=b"]).await;
    k.ok(&["create", "cm", "two", "--from-literal=a=b"]).await;
    let deleted = k.ok(&["delete", "cm", "--all"]).await;
    assert_eq!(deleted, "configmap \"one\" deleted\nconfigmap \"two\" deleted\n");
    let listed = k.ok(&["get", "deploy", "-A", "--show-labels"]).await;
    assert!(rows(&listed)[0].contains(&"NAMESPACE") && listed.contains("app=web"), "{listed}");
}

fn pod_asking(name: &str, cpu: &str) -> String {
    json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, "labels": {"app": "web"}}, "spec": {"containers": [
        {"name": "c", "image": "busybox:1", "resources": {"requests": {"cpu": cpu}}}]}})
    .to_string()
}

#[tokio::test]
async fn a_namespaces_quota_is_kept_and_its_limits_are_told() {
    let Some(k) = Kubectl::start().await else { return };
    assert_eq!(
        k.ok(&["create", "quota", "q", "--hard=pods=1,requests.cpu=1"]).await,
        "resourcequota/q created\n"
    );
    let bare = "apiVersion: v1\nkind: Pod\nmetadata: {name: p}\nspec: {containers: [{name: c, image: b}]}";
    let error = k.fails(&["create", "-f", "-"], bare).await;
    let expected = "pods \"p\" is forbidden: failed quota: q: must specify requests.cpu for: c";
    assert!(error.contains("(Forbidden)") && error.contains(expected), "{error}");
    k.ok_with(&["create", "-f", "-"], &pod_asking("one", "500m")).await;
    let error = k.fails(&["create", "-f", "-"], &pod_asking("two", "500m")).await;
    let expected =
        "pods \"two\" is forbidden: exceeded quota: q, requested: pods=1, used: pods=1, limited: pods=1";
    assert!(error.contains(expected), "{error}");
    let table = k.ok(&["get", "quota"]).await;
    assert!(table.contains("pods: 1/1, requests.cpu: 500m/1"), "charged with the pod: {table}");

    k.ok(&["create", "ns", "lab"]).await;
    let range = "apiVersion: v1\nkind: LimitRange\nmetadata: {name: r, namespace: lab}\n\
                 spec: {limits: [{type: Container, max: {cpu: 800m}, min: {cpu: 200m}}]}";
    k.ok_with(&["create", "-f", "-"], range).await;
    k.ok_with(&["create", "-n", "lab", "-f", "-"], bare).await;
    let filled =
        k.ok(&["get", "pod", "p", "-n", "lab", "-o", "jsonpath={.spec.containers[0].resources}"]).await;
    assert_eq!(filled, r#"{"limits":{"cpu":"800m"},"requests":{"cpu":"800m"}}"#);
    let error = k.fails(&["create", "-n", "lab", "-f", "-"], &pod_asking("small", "100m")).await;
    assert!(error.contains("minimum cpu usage per Container is 200m, but request is 100m"), "{error}");
    let error = k.fails(&["create", "-n", "lab", "-f", "-"], &pod_asking("large", "1")).await;
    assert!(error.contains("must be less than or equal to cpu limit of 800m"), "{error}");
}

#[tokio::test]
async fn a_budget_stands_against_evictions_until_there_is_more_than_needed() {
    let Some(k) = Kubectl::start().await else { return };
    k.ok(&["create", "pdb", "web", "--selector=app=web", "--min-available=1"]).await;
    k.ok_with(&["create", "-f", "-"], &pod_asking("one", "1")).await;
    let table = k.ok(&["get", "pdb"]).await;
    assert_eq!(rows(&table)[1][..4], ["web", "1", "N/A", "0"]);
    let key = |resource, name: &str| Key::new(Resource::fixed(resource), "default", name);
    let ready = json!({"phase": "Running", "conditions": [{"type": "Ready", "status": "True"}]});
    k.server.set_status(&key("pods", "one"), ready);
    let counted = |healthy: i32, allowed: i32| {
        json!({"observedGeneration": 1, "expectedPods": 1, "currentHealthy": healthy, "desiredHealthy": 1,
            "disruptionsAllowed": allowed})
    };
    k.server.set_status(&key("poddisruptionbudgets.policy", "web"), counted(1, 0));
    let eviction =
        json!({"apiVersion": "policy/v1", "kind": "Eviction", "metadata": {"name": "one"}}).to_string();
    let path = "/api/v1/namespaces/default/pods/one/eviction";
    let error = k.fails(&["create", "--raw", path, "-f", "-"], &eviction).await;
    assert!(error.contains("Cannot evict pod as it would violate the pod's disruption budget."), "{error}");
    k.ok(&["get", "pod", "one"]).await;
    k.server.set_status(&key("poddisruptionbudgets.policy", "web"), counted(2, 1));
    k.ok_with(&["create", "--raw", path, "-f", "-"], &eviction).await;
    assert_eq!(k.ok(&["get", "pdb", "web", "-o", "jsonpath={.status.disruptionsAllowed}"]).await, "0");
    k.fails(&["get", "pod", "one"], "").await;
}

#[tokio::test]
async fn more_kinds_are_made_by_their_commands_and_shown_in_their_columns() {
    let Some(k) = Kubectl::start().await else { return };
    k.ok(&["create", "priorityclass", "high", "--value=1000", "--description=first"]).await;
    let mut pod: Value = serde_json::from_str(&pod_asking("first", "1")).unwrap();
    pod["spec"]["priorityClassName"] = json!("high");
    k.ok_with(&["create", "-f", "-"], &pod.to_string()).await;
    assert_eq!(k.ok(&["get", "pod", "first", "-o", "jsonpath={.spec.priority}"]).await, "1000");
    pod["metadata"]["name"] = json!("second");
    pod["spec"]["priorityClassName"] = json!("low");
    let error = k.fails(&["create", "-f", "-"], &pod.to_string()).await;
    assert!(
        error.contains("pods \"second\" is forbidden: no PriorityClass with name low was found"),
        "{error}"
    );
    k.ok(&["create", "role", "reader", "--verb=get,list", "--resource=pods"]).await;
    k.ok(&["create", "clusterrole", "looker", "--verb=get", "--non-resource-url=/healthz"]).await;
    k.ok(&["create", "rolebinding", "r", "--role=reader", "--user=ann", "--serviceaccount=default:robot"])
        .await;
    k.ok(&["create", "clusterrolebinding", "c", "--clusterrole=looker", "--group=lab"]).await;
    k.ok(&["create", "ingress", "web", "--rule=a.example.com/*=web:80", "--class=nginx"]).await;
    for (kind, header) in [
        ("pc", "NAME VALUE GLOBAL-DEFAULT AGE PREEMPTIONPOLICY"),
        ("role", "NAME CREATED AT"),
        ("rolebinding", "NAME ROLE AGE USERS GROUPS SERVICEACCOUNTS"),
        ("ingress", "NAME CLASS HOSTS ADDRESS PORTS AGE"),
    ] {
        let table = k.ok(&["get", kind, "-o", "wide"]).await;
        assert_eq!(rows(&table)[0].join(" "), header);
    }
    let bound = k.ok(&["get", "rolebinding", "r", "-o", "wide"]).await;
    assert!(
        bound.contains("Role/reader") && bound.contains("ann") && bound.contains("default/robot"),
        "{bound}"
    );
    let rule = k.ok(&["get", "ingress", "web", "-o", "jsonpath={.spec.rules[0].http.paths[0]}"]).await;
    assert_eq!(
        rule,
        r#"{"backend":{"service":{"name":"web","port":{"number":80}}},"path":"/","pathType":"Prefix"}"#
    );
    let set = "apiVersion: apps/v1\nkind: DaemonSet\nmetadata: {name: d}\nspec: {selector: {matchLabels: {a: b}}, template: \
               {metadata: {labels: {a: b}}, spec: {containers: [{name: c, image: i}]}}}";
    k.ok_with(&["create", "-f", "-"], set).await;
    let table = k.ok(&["get", "ds"]).await;
    let header = "NAME DESIRED CURRENT READY UP-TO-DATE AVAILABLE NODE SELECTOR AGE";
    assert_eq!(rows(&table)[0].join(" "), header);
    let strategy = k.ok(&["get", "ds", "d", "-o", "jsonpath={.spec.updateStrategy}"]).await;
    assert_eq!(strategy, r#"{"rollingUpdate":{"maxSurge":0,"maxUnavailable":1},"type":"RollingUpdate"}"#);
    k.ok(&["create", "cronjob", "tick", "--image=busybox", "--schedule=*/5 * * * *"]).await;
    k.ok(&["create", "job", "now", "--from=cronjob/tick"]).await;
    let owner = k.ok(&["get", "job", "now", "-o", "jsonpath={.metadata.ownerReferences[0].kind}"]).await;
    assert_eq!(owner, "CronJob");
    let rc = "apiVersion: v1\nkind: ReplicationController\nmetadata: {name: rc}\nspec: {template: {metadata: {labels: {a: \
              c}}, spec: {containers: [{name: c, image: i}]}}}";
    k.ok_with(&["create", "-f", "-"], rc).await;
    assert_eq!(k.ok(&["scale", "rc/rc", "--replicas=3"]).await, "replicationcontroller/rc scaled\n");
    let claim = "apiVersion: v1\nkind: PersistentVolumeClaim\nmetadata: {name: v}\nspec: {accessModes: [ReadWriteOnce], \
                 resources: {requests: {storage: 1Gi}}}";
    k.ok_with(&["create", "-f", "-"], claim).await;
    let table = k.ok(&["get", "pvc"]).await;
    assert_eq!(rows(&table)[1][..2], ["v", "Pending"]);
}
