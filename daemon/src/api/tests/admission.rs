//! Quotas, budgets and classes, as far as kubectl does not bring them about on demand.

use super::client::Answer;
use super::server::Server;
use gaggle_sched::state::{Key, Resource};
use serde_json::{Value, json};
use std::sync::Arc;

const PODS: &str = "/api/v1/namespaces/default/pods";
const BUDGETS: &str = "/apis/policy/v1/namespaces/default/poddisruptionbudgets";

/// A pod that runs and serves on a desktop.
async fn serving(server: &Server, name: &str) {
    let pod = json!({"metadata": {"name": name, "labels": {"app": "web"}}, "spec": {
        "nodeName": "d1", "containers": [{"name": "c", "image": "i"}]}});
    assert_eq!(server.post(PODS, &pod).await.code, 201);
    let status = json!({"phase": "Running", "conditions": [{"type": "Ready", "status": "True"}]});
    server.set_status(&Key::new(Resource::fixed("pods"), "default", name), status);
}

/// A budget that allows so many disruptions.
async fn budget(server: &Server, allowed: usize) -> Key {
    let budget = json!({"metadata": {"name": "web"}, "spec": {
        "minAvailable": 0, "selector": {"matchLabels": {"app": "web"}}}});
    assert_eq!(server.post(BUDGETS, &budget).await.code, 201);
    let key = Key::new(Resource::fixed("poddisruptionbudgets.policy"), "default", "web");
    let status = json!({"disruptionsAllowed": allowed, "currentHealthy": allowed, "desiredHealthy": 0,
        "expectedPods": allowed, "observedGeneration": 1});
    server.set_status(&key, status);
    key
}

async fn evict(server: &Server, name: &str) -> Answer {
    let eviction = json!({"apiVersion": "policy/v1", "kind": "Eviction", "metadata": {"name": name}});
    server.post(&format!("{PODS}/{name}/eviction"), &eviction).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_desktops_pods_are_evicted_at_once_as_far_as_their_budget_goes() {
    let server = Arc::new(Server::start().await);
    let names: Vec<String> = (0..32).map(|number| format!("web-{number}")).collect();
    for name in &names {
        serving(&server, name).await;
    }
    let key = budget(&server, 30).await;
    let evictions = names.iter().cloned().map(|name| {
        let server = server.clone();
        tokio::spawn(async move { evict(&server, &name).await.code })
    });
    let mut codes = Vec::new();
    for eviction in evictions.collect::<Vec<_>>() {
        codes.push(eviction.await.unwrap());
    }
    let count = |code: u16| codes.iter().filter(|one| **one == code).count();
    assert_eq!((count(201), count(429)), (30, 2), "{codes:?}");
    let left = server.view.read(|store| store.get(&key).unwrap().value()["status"].clone());
    assert_eq!(left["disruptionsAllowed"], 0);
}

#[tokio::test]
async fn an_evicted_pod_says_why_it_goes() {
    let server = Server::start().await;
    serving(&server, "web").await;
    assert_eq!(evict(&server, "web").await.code, 201);
    let pod = server.get(&format!("{PODS}/web")).await.json();
    let conditions = pod["status"]["conditions"].as_array().unwrap();
    let told = conditions.iter().find(|one| one["type"] == "DisruptionTarget").unwrap();
    assert_eq!((&told["status"], &told["reason"]), (&json!("True"), &json!("EvictionByEvictionAPI")));
    assert!(pod["metadata"]["deletionTimestamp"].is_string());
    assert_eq!(conditions[0]["type"], "Ready");
}

#[tokio::test]
async fn without_a_quorum_no_budget_is_passed_over() {
    let server = Server::start().await;
    serving(&server, "web").await;
    let key = budget(&server, 1).await;
    server.quorum.send(false).unwrap();
    let refused = evict(&server, "web").await;
    assert_eq!((refused.code, refused.retry_after), (503, true));
    assert!(server.documents.kept.lock().unwrap().is_empty());
    server.quorum.send(true).unwrap();
    assert_eq!(server.call("DELETE", &format!("{BUDGETS}/{}", key.name), "", String::new()).await.code, 200);
    server.quorum.send(false).unwrap();
    assert_eq!(evict(&server, "web").await.code, 201, "nobody relies on it");
    assert_eq!(server.documents.kept.lock().unwrap().len(), 1);
}

#[tokio::test]
async fn what_grows_is_charged() {
    let server = Server::start().await;
    let quota = json!({"metadata": {"name": "q"}, "spec": {"hard": {
        "requests.storage": "10Gi", "services.nodeports": "0"}}});
    assert_eq!(server.post("/api/v1/namespaces/default/resourcequotas", &quota).await.code, 201);
    let claims = "/api/v1/namespaces/default/persistentvolumeclaims";
    let claim = json!({"metadata": {"name": "data"}, "spec": {"accessModes": ["ReadWriteOnce"],
        "resources": {"requests": {"storage": "8Gi"}}}});
    assert_eq!(server.post(claims, &claim).await.code, 201);
    let services = "/api/v1/namespaces/default/services";
    let service =
        json!({"metadata": {"name": "web"}, "spec": {"selector": {"a": "b"}, "ports": [{"port": 80}]}});
    assert_eq!(server.post(services, &service).await.code, 201);
    let merge = async |path: String, patch: Value| {
        server.call("PATCH", &path, "application/merge-patch+json", patch.to_string()).await
    };
    let refused = merge(format!("{services}/web"), json!({"spec": {"type": "NodePort"}})).await;
    assert_eq!(refused.code, 403);
    let message = refused.json()["message"].as_str().unwrap().to_owned();
    assert!(message.contains("exceeded quota: q, requested: services.nodeports=1"), "{message}");
    let used =
        server.get("/api/v1/namespaces/default/resourcequotas/q").await.json()["status"]["used"].clone();
    assert_eq!(used["requests.storage"], "8Gi");
}

#[tokio::test]
async fn a_second_default_class_is_refused() {
    let server = Server::start().await;
    let classes = "/apis/scheduling.k8s.io/v1/priorityclasses";
    let class =
        |name: &str, global: bool| json!({"metadata": {"name": name}, "value": 7, "globalDefault": global});
    assert_eq!(server.post(classes, &class("one", true)).await.code, 201);
    assert_eq!(server.post(classes, &class("two", false)).await.code, 201);
    for answer in [
        server.post(classes, &class("three", true)).await,
        server
            .call(
                "PATCH",
                &format!("{classes}/two"),
                "application/merge-patch+json",
                json!({"globalDefault": true}).to_string(),
            )
            .await,
    ] {
        assert_eq!(answer.code, 403);
        let message = answer.json()["message"].as_str().unwrap().to_owned();
        assert!(message.contains("PriorityClass one is already marked as default."), "{message}");
    }
}

#[tokio::test]
async fn a_replication_controller_counts_the_changes_of_its_spec() {
    let server = Server::start().await;
    let path = "/api/v1/namespaces/default/replicationcontrollers";
    let controller = json!({"metadata": {"name": "web"}, "spec": {"replicas": 1, "template": {
        "metadata": {"labels": {"app": "web"}}, "spec": {"containers": [{"name": "c", "image": "i"}]}}}});
    let made = server.post(path, &controller).await.json();
    assert_eq!(made["metadata"]["generation"], 1);
    let patch = json!({"spec": {"replicas": 2}}).to_string();
    let changed = server.call("PATCH", &format!("{path}/web"), "application/merge-patch+json", patch).await;
    assert_eq!(changed.json()["metadata"]["generation"], 2);
}
