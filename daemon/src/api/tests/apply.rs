//! Server-side apply and field managers, over HTTP.

use super::client::Answer;
use super::server::Server;
use serde_json::{Value, json};

const DEPLOYMENTS: &str = "/apis/apps/v1/namespaces/default/deployments";

async fn apply(server: &Server, name: &str, query: &str, config: &Value) -> Answer {
    let path = format!("{DEPLOYMENTS}/{name}?{query}");
    server.call("PATCH", &path, "application/apply-patch+yaml", config.to_string()).await
}

fn web(spec: Value) -> Value {
    let template = json!({"metadata": {"labels": {"app": "web"}},
        "spec": {"containers": [{"name": "web", "image": "nginx:1"}]}});
    let mut object = json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "web"},
        "spec": {"selector": {"matchLabels": {"app": "web"}}, "template": template}});
    for (key, value) in spec.as_object().unwrap() {
        object["spec"][key] = value.clone();
    }
    object
}

fn managers(object: &Value) -> Vec<String> {
    let entries = object["metadata"]["managedFields"].as_array().cloned().unwrap_or_default();
    let shown = |entry: &Value| {
        let text = |field: &str| entry[field].as_str().unwrap_or_default().to_owned();
        format!("{} {} {}", text("manager"), text("operation"), text("subresource")).trim_end().to_owned()
    };
    entries.iter().map(shown).collect()
}

#[tokio::test]
async fn two_managers_share_an_object_and_a_third_is_told_whose_a_field_is() {
    let server = Server::start().await;
    let made = apply(&server, "web", "fieldManager=ci", &web(json!({"replicas": 2}))).await;
    assert_eq!((made.code, managers(&made.json())), (201, vec!["ci Apply".to_owned()]), "{}", made.json());
    let again = apply(&server, "web", "fieldManager=ci", &web(json!({"replicas": 2}))).await;
    assert_eq!(again.code, 200);
    let version = |answer: &Answer| answer.json()["metadata"]["resourceVersion"].clone();
    assert_eq!(version(&again), version(&made), "to apply the same again changes nothing");

    let other = json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "web"},
        "spec": {"replicas": 5, "paused": true}});
    let refused = apply(&server, "web", "fieldManager=hpa", &other).await;
    let status = refused.json();
    assert_eq!((refused.code, &status["reason"]), (409, &json!("Conflict")));
    assert_eq!(status["message"], "Apply failed with 1 conflict: conflict with \"ci\": .spec.replicas");
    let cause = json!({"reason": "FieldManagerConflict", "message": "conflict with \"ci\"", "field": ".spec.replicas"});
    assert_eq!(status["details"]["causes"], json!([cause]));
    let forced = apply(&server, "web", "fieldManager=hpa&force=true", &other).await.json();
    assert_eq!((&forced["spec"]["replicas"], &forced["spec"]["paused"]), (&json!(5), &json!(true)));

    // What neither says any more goes; what the other manages stays.
    let without = apply(&server, "web", "fieldManager=ci", &web(json!({}))).await.json();
    assert_eq!(without["spec"]["replicas"], 5);
    let less = json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "web"},
        "spec": {"replicas": 5}});
    let less = apply(&server, "web", "fieldManager=hpa", &less).await.json();
    assert!(less["spec"].get("paused").is_none(), "{less}");
    assert_eq!(less["metadata"]["generation"], 3);
}

#[tokio::test]
async fn every_write_says_who_wrote_and_statuses_of_controllers_are_nobodys() {
    let server = Server::start().await;
    let path = format!("{DEPLOYMENTS}/web");
    let made = server.post(&format!("{DEPLOYMENTS}?fieldManager=creator"), &web(json!({}))).await.json();
    assert_eq!(managers(&made), ["creator Update"]);
    let key = gaggle_sched::state::Key::new(
        gaggle_sched::state::Resource::fixed("deployments.apps"),
        "default",
        "web",
    );
    server.set_status(&key, json!({"replicas": 1}));
    assert_eq!(managers(&server.get(&path).await.json()), ["creator Update"]);
    let patch = json!({"spec": {"paused": true}}).to_string();
    let merge = "application/merge-patch+json";
    let patched =
        server.call("PATCH", &format!("{path}?fieldManager=editor"), merge, patch.clone()).await.json();
    assert_eq!(managers(&patched).len(), 2);
    let editor = patched["metadata"]["managedFields"].as_array().unwrap();
    let editor = editor.iter().find(|entry| entry["manager"] == "editor").unwrap();
    assert_eq!(editor["fieldsV1"], json!({"f:spec": {"f:paused": {}}}));
    let version = patched["metadata"]["resourceVersion"].clone();
    let same = server.call("PATCH", &format!("{path}?fieldManager=third"), merge, patch).await.json();
    assert_eq!(same["metadata"]["resourceVersion"], version, "who changes nothing manages nothing");
    let scale = json!({"spec": {"replicas": 4}}).to_string();
    server.call("PATCH", &format!("{path}/scale?fieldManager=scaler"), merge, scale).await;
    let status = json!({"status": {"replicas": 4}}).to_string();
    server.call("PATCH", &format!("{path}/status?fieldManager=reporter"), merge, status).await;
    let all = managers(&server.get(&path).await.json());
    for expected in ["scaler Update scale", "reporter Update status"] {
        assert!(all.contains(&expected.to_owned()), "{all:?}");
    }
    let forced = server.call("PATCH", &format!("{path}?force=true"), merge, "{}").await;
    assert_eq!(forced.code, 422, "only who applies may take fields");
    let reset = json!({"metadata": {"managedFields": [{}]}}).to_string();
    let reset = server.call("PATCH", &path, merge, reset).await.json();
    assert!(managers(&reset).is_empty());
}

#[tokio::test]
async fn what_cannot_be_applied_is_refused_with_the_field() {
    let server = Server::start().await;
    let config = web(json!({"replicaz": 1}));
    let refused = apply(&server, "web", "fieldManager=ci", &config).await;
    let expected = "failed to create typed patch object (/web; apps/v1, Kind=Deployment): \
                    .spec.replicaz: field not declared in schema";
    assert_eq!((refused.code, refused.json()["message"].clone()), (400, json!(expected)));
    let nobody = apply(&server, "web", "force=false", &web(json!({}))).await;
    assert_eq!(nobody.code, 422);
    assert!(nobody.json()["message"].as_str().unwrap().contains("fieldManager: Required value"));
    let long = format!("fieldManager={}", "x".repeat(129));
    assert_eq!(apply(&server, "web", &long, &web(json!({}))).await.code, 422);
    let mut managed = web(json!({}));
    managed["metadata"]["managedFields"] = json!([{"manager": "x"}]);
    assert_eq!(apply(&server, "web", "fieldManager=ci", &managed).await.code, 400);
    let too_long = apply(&server, "web", &long, &web(json!({}))).await.json()["message"].clone();
    let expected =
        "PatchOptions.meta.k8s.io \"\" is invalid: fieldManager: Too long: may not be more than 128 bytes";
    assert_eq!(too_long, expected);
    let path = format!("{DEPLOYMENTS}/web?force=true");
    let forced = server.call("PATCH", &path, "application/merge-patch+json", "{}").await;
    let expected = "PatchOptions.meta.k8s.io \"\" is invalid: force: Forbidden: may not be specified for non-apply patch";
    assert_eq!((forced.code, forced.json()["message"].clone()), (422, json!(expected)));
    let mut of_another = web(json!({}));
    of_another["metadata"]["uid"] = json!("abc");
    let gone = apply(&server, "web", "fieldManager=ci", &of_another).await;
    let expected = "Operation cannot be fulfilled on deployments.apps \"web\": uid mismatch: the provided object \
                    specified uid abc, and no existing object was found";
    assert_eq!((gone.code, gone.json()["message"].clone()), (409, json!(expected)));
    let other = apply(&server, "other", "fieldManager=ci", &web(json!({}))).await;
    assert_eq!(other.code, 400, "{}", other.json());
    let partial = json!({"apiVersion": "apps/v1", "kind": "Deployment", "spec": {"replicas": 1}});
    assert_eq!(
        apply(&server, "web", "fieldManager=ci", &partial).await.code,
        422,
        "nothing is there to be completed"
    );
    let dry = apply(&server, "web", "fieldManager=ci&dryRun=All", &web(json!({}))).await;
    assert_eq!(dry.code, 201);
    assert_eq!(server.get(&format!("{DEPLOYMENTS}/web")).await.code, 404);
}

#[tokio::test]
async fn to_apply_to_a_scale_is_refused_and_not_taken_for_something_else() {
    let server = Server::start().await;
    apply(&server, "web", "fieldManager=ci", &web(json!({"replicas": 2}))).await;
    let scale = json!({"apiVersion": "autoscaling/v1", "kind": "Scale", "metadata": {"name": "web"},
        "spec": {"replicas": 5}});
    let refused = apply(&server, "web/scale", "fieldManager=hpa", &scale).await;
    assert_eq!(refused.code, 415, "{}", refused.json());
    assert_eq!(server.get(&format!("{DEPLOYMENTS}/web")).await.json()["spec"]["replicas"], 2);
}
