//! What desktops and pods take, as `kubectl top` asks for it.

use super::server::Server;
use gaggle_sched::state::{Expect, Key, Resource, Write};
use serde_json::{Value, json};

const METRICS: &str = "/apis/metrics.k8s.io/v1beta1";

fn have(server: &Server, plural: &'static str, namespace: &str, object: Value) {
    let name = object["metadata"]["name"].as_str().unwrap().to_owned();
    let key = Key::new(Resource::fixed(plural), namespace, name);
    let put = Write::Put { key, value: object, expect: Expect::Absent, intent: None };
    server.view.write(|store| store.apply(&put.into())).unwrap();
}

fn pod(server: &Server, name: &str, node: &str) {
    have(
        server,
        "pods",
        "default",
        json!({"metadata": {"name": name, "namespace": "default", "uid": format!("uid-{name}"),
            "labels": {"app": name}}, "spec": {"nodeName": node}}),
    );
}

fn names(list: &Value) -> Vec<&str> {
    list["items"].as_array().unwrap().iter().map(|item| item["metadata"]["name"].as_str().unwrap()).collect()
}

#[tokio::test]
async fn what_runs_is_measured_and_what_does_not_answer_is_left_out() {
    let server = Server::start().await;
    for node in ["desktop", "away"] {
        have(&server, "nodes", "", json!({"metadata": {"name": node, "labels": {"room": node}}}));
    }
    for (name, node) in [("web", "desktop"), ("resting", "desktop"), ("lost", "away"), ("waiting", "")] {
        pod(&server, name, node);
    }
    let nodes = server.get(&format!("{METRICS}/nodes")).await.json();
    assert_eq!(names(&nodes), ["desktop"]);
    assert_eq!(nodes["kind"], "NodeMetricsList");
    let node = server.get(&format!("{METRICS}/nodes/desktop")).await.json();
    assert_eq!(node["usage"], json!({"cpu": "1500000000n", "memory": "3145728Ki"}));
    assert_eq!((&node["timestamp"], &node["window"]), (&json!("2026-01-02T03:04:05Z"), &json!("1500ms")));
    assert_eq!(node["metadata"]["labels"], json!({"room": "desktop"}));
    for path in ["pods", "namespaces/default/pods", "pods?labelSelector=app%3Dweb"] {
        let pods = server.get(&format!("{METRICS}/{path}")).await.json();
        assert_eq!(names(&pods), ["web"], "{path}");
        let containers = &pods["items"][0]["containers"];
        assert_eq!(
            containers,
            &json!([{"name": "main", "usage": {"cpu": "250000000n", "memory": "8192Ki"}},
                {"name": "side", "usage": {"cpu": "1n", "memory": "8192Ki"}}])
        );
    }
    for (path, code) in [
        ("pods?labelSelector=app%3Dresting", 200),
        ("namespaces/default/pods/web", 200),
        // It runs nothing, or nowhere, or is not there at all.
        ("namespaces/default/pods/resting", 404),
        ("namespaces/default/pods/waiting", 404),
        ("namespaces/default/pods/none", 404),
        ("nodes/none", 404),
        // One who asks for a single one hears why there is no answer.
        ("namespaces/default/pods/lost", 503),
        ("nodes/away", 503),
        ("pods?labelSelector=%3D%3D", 400),
    ] {
        assert_eq!(server.get(&format!("{METRICS}/{path}")).await.code, code, "{path}");
    }
    let found = server.get("/apis/metrics.k8s.io/v1beta1").await.json();
    assert_eq!(found["resources"][1]["verbs"], json!(["get", "list"]));
}
