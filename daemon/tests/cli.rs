//! The built binary as a user meets it: its words, its exit codes, and what it asks of the API.

#![allow(clippy::unwrap_used)]

mod fake_api;

use fake_api::FakeApi;
use serde_json::json;
use std::io::Write;
use std::path::Path;
use std::process::{Command, Output, Stdio};

fn gaggle(data_dir: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_gaggle"));
    command.env_clear().env("HOME", data_dir).env("GAGGLE_DATA_DIR", data_dir).stdin(Stdio::null());
    command
}

fn run(data_dir: &Path, line: &[&str]) -> Ran {
    Ran::from(gaggle(data_dir).args(line).output().unwrap())
}

fn run_with_input(data_dir: &Path, line: &[&str], input: &[u8]) -> Ran {
    let mut command = gaggle(data_dir);
    command.args(line).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    child.stdin.take().unwrap().write_all(input).unwrap();
    Ran::from(child.wait_with_output().unwrap())
}

#[derive(Debug)]
struct Ran {
    code: i32,
    out: String,
    err: String,
}

impl From<Output> for Ran {
    fn from(output: Output) -> Self {
        Self {
            code: output.status.code().unwrap_or(-1),
            out: String::from_utf8(output.stdout).unwrap(),
            err: String::from_utf8(output.stderr).unwrap(),
        }
    }
}

impl Ran {
    #[track_caller]
    fn expect(self, code: i32, out: &str) -> Self {
        assert_eq!((self.code, self.out.as_str()), (code, out), "standard error: {}", self.err);
        self
    }

    #[track_caller]
    fn says(self, words: &[&str]) -> Self {
        for word in words {
            assert!(self.err.contains(word), "{word:?} is missing in: {}", self.err);
        }
        self
    }
}

#[test]
fn without_a_daemon_every_command_says_what_to_type() {
    let dir = tempfile::tempdir().unwrap();
    for line in [
        &["status"][..],
        &["down"],
        &["kubeconfig"],
        &["get", "pods"],
        &["image", "ls"],
        &["describe", "pod", "x"],
        &["logs", "x"],
        &["exec", "x", "--", "true"],
        &["delete", "pod", "x"],
        &["scale", "deploy/x", "--replicas", "1"],
        &["wait", "pod/x", "--for=delete"],
    ] {
        run(dir.path(), line).expect(1, "").says(&["gaggle up", "--data-dir"]);
    }
    let other = dir.path().join("none.yaml");
    run(dir.path(), &["status", "--kubeconfig", other.to_str().unwrap()]).expect(1, "").says(&["none.yaml"]);
}

#[test]
fn a_daemon_that_has_stopped_is_told_from_one_that_never_ran() {
    let dir = tempfile::tempdir().unwrap();
    // Bound and dropped: nobody else listens there.
    let address = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    fake_api::write_kubeconfig(dir.path(), address);
    run(dir.path(), &["status"]).expect(1, "").says(&["cannot reach a daemon", "gaggle up", "refused"]);
    run(dir.path(), &["down"]).expect(0, "no daemon runs on this desktop: nothing to do\n");
}

#[test]
fn a_wrong_command_line_is_a_usage_error() {
    let dir = tempfile::tempdir().unwrap();
    for line in [
        &["fly"][..],
        &["get"],
        &["up", "--memory", "8"],
        &["up", "--listen", "7", "--api-listen", "7"],
        &["up", "--label", "a=1", "--label", "a=2"],
        &["apply"],
        &["apply", "-f", "https://example.org/x.yaml"],
        &["scale", "deploy/x", "--replicas", "-1"],
        &["wait", "pod/x", "--for=ready"],
        &["up", ""],
    ] {
        let ran = run(dir.path(), line);
        assert_eq!(ran.code, 2, "{line:?}: {}", ran.err);
    }
}

#[test]
fn a_phrase_goes_through_the_new_process_and_into_no_message() {
    let dir = tempfile::tempdir().unwrap();
    // The two addresses are compared after the process has replaced itself.
    let refused = ["--listen", "7", "--api-listen", "7"];
    let secret = "ivory canal seven lantern otter";
    let ran = run(dir.path(), &[&["up", secret][..], &refused].concat());
    assert!(ran.code == 2 && !ran.err.contains("lantern"), "{ran:?}");
    let ran =
        Ran::from(gaggle(dir.path()).env("GAGGLE_PHRASE", secret).arg("up").args(refused).output().unwrap());
    assert!(ran.code == 2 && !ran.err.contains("lantern"), "{ran:?}");

    let file = dir.path().join("phrase");
    std::fs::write(&file, " \n").unwrap();
    let ran = run(dir.path(), &["up", "--phrase-file", file.to_str().unwrap()]);
    ran.says(&["phrase", "empty"]);
    let missing = run(dir.path(), &["up", "--phrase-file", "/nonexistent/phrase"]);
    missing.expect(1, "").says(&["/nonexistent/phrase"]);
    for number in ["2", "x", "99"] {
        let ran = Ran::from(gaggle(dir.path()).env("GAGGLE_PHRASE_FD", number).arg("up").output().unwrap());
        ran.expect(1, "").says(&["GAGGLE_PHRASE_FD"]);
    }
}

#[test]
fn help_teaches_with_examples() {
    let dir = tempfile::tempdir().unwrap();
    for verb in
        ["up", "status", "kubeconfig", "image", "apply", "get", "describe", "logs", "delete", "scale", "wait"]
    {
        let ran = run(dir.path(), &[verb, "--help"]);
        assert!(ran.code == 0 && ran.out.contains("Example"), "{verb}: {}", ran.out);
    }
}

#[test]
fn get_prints_the_servers_table_or_the_objects() {
    let api = FakeApi::start();
    api.put(
        "/api/v1/namespaces/default/pods/web",
        json!({"kind": "Pod", "apiVersion": "v1",
        "metadata": {"name": "web", "namespace": "default"}, "status": {"phase": "Running"}}),
    );
    let dir = api.data_dir();
    let table = "NAME   PHASE\nweb    Running\n";
    run(dir, &["get", "po"]).expect(0, table);
    run(dir, &["get", "pod/web"]).expect(0, table);
    run(dir, &["get", "pods", "-o", "name"]).expect(0, "pod/web\n");
    run(dir, &["get", "pod", "web", "-o", "jsonpath={.status.phase}"]).expect(0, "Running");
    let yaml = run(dir, &["get", "pod", "web", "-o", "yaml"]);
    assert!(yaml.out.starts_with("apiVersion: v1\nkind: Pod\n"), "{}", yaml.out);
    run(dir, &["get", "pods", "-n", "empty"]).expect(0, "").says(&["No resources found in empty namespace"]);
    run(dir, &["get", "pod", "none"])
        .expect(1, "")
        .says(&["Error from server (NotFound): pods \"none\" not found\n"]);
    run(dir, &["get", "pod", "none", "--ignore-not-found"]).expect(0, "");
    // What is there is shown also when something else is not.
    run(dir, &["get", "pod", "none", "web"]).expect(1, table);
    run(dir, &["get", "goose"]).expect(1, "").says(&["doesn't have a resource type \"goose\""]);
    run(dir, &["get", "pod", "a/../b"]).says(&["TYPE/NAME"]);
}

#[test]
fn apply_creates_then_patches_then_leaves_alone() {
    let api = FakeApi::start();
    let dir = api.data_dir();
    let manifest = |image: &str| {
        format!(
            "apiVersion: apps/v1\nkind: Deployment\nmetadata:\n  name: web\nspec:\n  template:\n    spec:\n      \
             containers:\n      - name: main\n        image: {image}\n"
        )
        .into_bytes()
    };
    let apply = |image: &str| run_with_input(dir, &["apply", "-f", "-"], &manifest(image));
    apply("web:1").expect(0, "deployment.apps/web created\n");
    apply("web:1").expect(0, "deployment.apps/web unchanged\n");
    assert_eq!(api.count("PATCH"), 0, "an unchanged manifest was sent");
    apply("web:2").expect(0, "deployment.apps/web configured\n");
    let patch = api.last("PATCH");
    assert_eq!(patch.content_type, "application/strategic-merge-patch+json");
    assert!(patch.target.contains("fieldValidation=Strict"), "{}", patch.target);
    let container = &patch.body["spec"]["template"]["spec"]["containers"][0];
    assert_eq!(*container, json!({"name": "main", "image": "web:2"}));
    run_with_input(dir, &["delete", "-f", "-", "--wait=false"], &manifest("web:2"))
        .expect(0, "deployment.apps \"web\" deleted\n");
}

#[test]
fn a_malformed_document_changes_nothing() {
    let api = FakeApi::start();
    let text = b"apiVersion: v1\nkind: Pod\nmetadata: {name: a}\n---\napiVersion: v1\nkind: [\n";
    run_with_input(api.data_dir(), &["apply", "-f", "-"], text)
        .expect(1, "")
        .says(&["standard input, document 2", "line"]);
    assert_eq!(api.count("POST"), 0);
    let unknown = b"apiVersion: lab/v1\nkind: Goose\nmetadata: {name: a}\n";
    run_with_input(api.data_dir(), &["apply", "-f", "-"], unknown).expect(1, "").says(&["Goose", "lab/v1"]);
}

#[test]
fn a_write_without_a_quorum_shows_the_warning() {
    let api = FakeApi::start();
    api.warn("299 - \"no quorum: kept, and takes effect later\"");
    let pod = b"apiVersion: v1\nkind: Pod\nmetadata: {name: a}\n";
    run_with_input(api.data_dir(), &["apply", "-f", "-"], pod)
        .expect(0, "pod/a created\n")
        .says(&["Warning: no quorum: kept, and takes effect later\n"]);
}

#[test]
fn logs_arrive_as_they_are_written() {
    let api = FakeApi::start();
    let pod = json!({"metadata": {"name": "web", "annotations": {"kubectl.kubernetes.io/default-container": "main"}},
        "spec": {"containers": [{"name": "side"}, {"name": "main"}]}});
    api.put("/api/v1/namespaces/default/pods/web", pod);
    api.put("/api/v1/namespaces/default/pods/web/log", json!(["one\n", "two\n"]));
    let line = ["logs", "-f", "web", "--tail", "5", "--since", "1m"];
    run(api.data_dir(), &line).expect(0, "one\ntwo\n");
    let asked = api.last("GET").target;
    for part in ["container=main", "follow=true", "tailLines=5", "sinceSeconds=60"] {
        assert!(asked.contains(part), "{asked}");
    }
    run(api.data_dir(), &["logs", "none"]).expect(1, "").says(&["NotFound"]);
}

#[test]
fn wait_ends_with_the_condition_or_the_time() {
    let api = FakeApi::start();
    let job = |status: &str| {
        json!({"kind": "Job", "metadata": {"name": "j", "resourceVersion": "5"},
            "status": {"conditions": [{"type": "Complete", "status": status}]}})
    };
    api.put("/apis/batch/v1/namespaces/default/jobs/j", job("False"));
    let wait = ["wait", "job/j", "--for=condition=Complete"];
    run(api.data_dir(), &[&wait[..], &["--timeout=1s"]].concat())
        .expect(1, "")
        .says(&["timed out waiting for the condition on jobs.batch/j"]);
    api.event(json!({"type": "MODIFIED", "object": job("True")}));
    run(api.data_dir(), &[&wait[..], &["--timeout=60s"]].concat()).expect(0, "job.batch/j condition met\n");
    run(api.data_dir(), &["wait", "job/none", "--for=condition=Complete"]).expect(1, "").says(&["NotFound"]);
    run(api.data_dir(), &["wait", "job/none", "--for=delete"]).expect(0, "job.batch/none condition met\n");
}

#[test]
fn the_daemons_own_endpoints() {
    let api = FakeApi::start();
    api.put("/gaggle/v1/status", json!({"cluster": "c", "group": "g", "leader": "pc1", "quorum": true,
        "nodes": [{"name": "pc1", "ready": true, "role": "leader", "addresses": ["10.0.0.1"], "revision": 9}]}));
    let status = run(api.data_dir(), &["status"]);
    assert!(status.out.contains("pc1    yes     leader   10.0.0.1   9"), "{}", status.out);
    let status = run(api.data_dir(), &["status", "-o", "json"]);
    let parsed: serde_json::Value = serde_json::from_str(&status.out).unwrap();
    assert_eq!(parsed["leader"], "pc1");

    // Larger than any buffer on the way, so that it has to be streamed.
    let tar = vec![7u8; 5 << 20];
    run_with_input(api.data_dir(), &["image", "load", "-"], &tar).expect(0, "loaded web:1\n");
    assert_eq!(api.received_bytes(), tar.len());

    run(api.data_dir(), &["down"]).expect(0, "handing over\nleft\n");
    let config = run(api.data_dir(), &["kubeconfig", "--server", "pc7"]);
    assert!(config.out.contains("https://pc7:6443"), "{}", config.out);
}

#[test]
fn exec_passes_everything_through() {
    let api = FakeApi::start();
    api.put("/api/v1/namespaces/default/pods/web", json!({"kind": "Pod", "metadata": {"name": "web"}}));
    let line = ["exec", "-i", "web", "-c", "main", "--", "tr", "a b", "c"];
    run_with_input(api.data_dir(), &line, b"typed").expect(
        0,
        "/api/v1/namespaces/default/pods/web/exec?container=main&stdin=true&stdout=true&stderr=true&\
         command=tr&command=a%20b&command=c\ntyped",
    );
    run(api.data_dir(), &["exec", "web", "--", "fail"])
        .expect(7, "/api/v1/namespaces/default/pods/web/exec?stdout=true&stderr=true&command=fail\n")
        .says(&["command terminated with exit code 7"]);
    run(api.data_dir(), &["exec", "none", "--", "true"]).expect(1, "").says(&["pods \"none\" not found"]);
    run(api.data_dir(), &["exec", "web"]).expect(2, "").says(&["<COMMAND>"]);
}

#[test]
fn scale_goes_through_the_subresource() {
    let api = FakeApi::start();
    api.put("/apis/apps/v1/namespaces/lab/deployments/web/scale", json!({"spec": {"replicas": 1}}));
    run(api.data_dir(), &["scale", "deploy/web", "--replicas=3", "-n", "lab"])
        .expect(0, "deployment.apps/web scaled\n");
    assert_eq!(api.last("PATCH").body, json!({"spec": {"replicas": 3}}));
    run(api.data_dir(), &["scale", "deploy/web", "--replicas=3", "--current-replicas=9", "-n", "lab"])
        .expect(1, "")
        .says(&["not scaled"]);
}

#[test]
fn the_daemon_must_prove_to_be_the_clusters() {
    let api = FakeApi::start_with_tls();
    api.put("/gaggle/v1/status", json!({"cluster": "c", "leader": "pc1"}));
    let status = run(api.data_dir(), &["status", "-o", "json"]);
    assert!(status.code == 0 && status.out.contains("pc1"), "{status:?}");
    // The same address with the authority of another cluster.
    let other = FakeApi::start_with_tls();
    let file = |api: &FakeApi| std::fs::read_to_string(api.data_dir().join("admin.kubeconfig")).unwrap();
    let mut config: serde_json::Value = serde_json::from_str(&file(&other)).unwrap();
    let ours: serde_json::Value = serde_json::from_str(&file(&api)).unwrap();
    config["clusters"][0]["cluster"]["server"] = ours["clusters"][0]["cluster"]["server"].clone();
    let mixed = api.data_dir().join("mixed");
    std::fs::write(&mixed, config.to_string()).unwrap();
    run(api.data_dir(), &["status", "--kubeconfig", mixed.to_str().unwrap()])
        .expect(1, "")
        .says(&["certificate"]);
}
