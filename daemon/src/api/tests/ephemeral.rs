//! Containers that are added to pods.

use super::server::Server;
use axum::body::Body;
use serde_json::{Value, json};

const PODS: &str = "/api/v1/namespaces/default/pods";
const ADDED: &str = "/api/v1/namespaces/default/pods/web/ephemeralcontainers";
const STRATEGIC: &str = "application/strategic-merge-patch+json";

async fn sent(server: &Server, method: &str, path: &str, media: &str, body: &Value) -> (u16, Value) {
    let answer = server.call(method, path, media, Body::from(body.to_string())).await;
    (answer.code, answer.json())
}

fn pod(name: &str) -> Value {
    json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name},
        "spec": {"containers": [{"name": "main", "image": "app:1"}]}})
}

fn with(containers: &Value) -> Value {
    json!({"spec": {"ephemeralContainers": containers}})
}

#[tokio::test]
async fn ephemeral_containers_are_added_by_their_own_path_and_stay_as_they_are() {
    let server = Server::start().await;
    let mut early = pod("early");
    early["spec"]["ephemeralContainers"] = json!([{"name": "probe", "image": "app:1"}]);
    let (code, answer) = sent(&server, "POST", PODS, "application/json", &early).await;
    assert_eq!(code, 422);
    assert_eq!(
        answer["message"],
        "Pod \"early\" is invalid: spec.ephemeralContainers: Forbidden: cannot be set on create"
    );
    assert_eq!(sent(&server, "POST", PODS, "application/json", &pod("web")).await.0, 201);

    let probe = json!([{"name": "probe", "image": "app:1", "targetContainerName": "main", "stdin": true}]);
    let (code, answer) = sent(&server, "PATCH", ADDED, STRATEGIC, &with(&probe)).await;
    assert_eq!(code, 200, "{answer}");
    let added = &answer["spec"]["ephemeralContainers"][0];
    assert_eq!((&added["imagePullPolicy"], &added["stdin"]), (&json!("IfNotPresent"), &json!(true)));
    assert!(added.get("resources").is_none_or(|resources| resources == &json!({})), "{added}");
    // Nothing but them is changed by this path, and they by no other.
    let mut other = with(&json!([{"name": "second", "image": "app:1"}]));
    other["spec"]["containers"] = json!([{"name": "main", "image": "other:1"}]);
    let (code, answer) = sent(&server, "PATCH", ADDED, STRATEGIC, &other).await;
    assert_eq!(code, 200, "{answer}");
    assert_eq!(answer["spec"]["containers"][0]["image"], "app:1");
    assert_eq!(answer["spec"]["ephemeralContainers"].as_array().unwrap().len(), 2);
    let (code, answer) = sent(
        &server,
        "PATCH",
        &format!("{PODS}/web"),
        STRATEGIC,
        &with(&json!([{"name": "third", "image": "app:1"}])),
    )
    .await;
    assert_eq!(code, 422, "{answer}");

    for (containers, why) in [
        (
            json!([{"name": "main", "image": "app:1"}]),
            "ephemeralContainers[0].name: Duplicate value: \"main\"",
        ),
        (
            json!([{"name": "x", "image": "app:1", "targetContainerName": "none"}]),
            ".targetContainerName: Not found: \"none\"",
        ),
        (
            json!([{"name": "x", "image": "app:1", "ports": [{"containerPort": 80}]}]),
            ".ports: Forbidden: cannot be set for an Ephemeral Container",
        ),
        (json!([{"name": "x", "image": "app:1", "restartPolicy": "Always"}]), ".restartPolicy: Forbidden"),
        (json!([{"name": "probe", "image": "new:1"}]), "\"probe\" may not be changed"),
        (
            json!([{"name": "probe", "$patch": "delete"}]),
            "existing ephemeral containers \"probe\" may not be removed",
        ),
    ] {
        let (code, answer) = sent(&server, "PATCH", ADDED, STRATEGIC, &with(&containers)).await;
        let message = answer["message"].as_str().unwrap_or_default();
        assert!(code == 422 && message.contains(why), "{containers}: {code} {message}");
    }
    let template = json!({"apiVersion": "v1", "kind": "ReplicationController", "metadata": {"name": "many"},
        "spec": {"selector": {"app": "web"}, "template": {"metadata": {"labels": {"app": "web"}},
            "spec": early["spec"]}}});
    let path = "/api/v1/namespaces/default/replicationcontrollers";
    let (code, answer) = sent(&server, "POST", path, "application/json", &template).await;
    let message = answer["message"].as_str().unwrap_or_default();
    assert!(code == 422 && message.contains("ephemeral containers not allowed in pod template"), "{message}");
}
