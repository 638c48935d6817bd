//! Kinds that people define, over HTTP and with the real kubectl.

use super::client::Answer;
use super::kubectl::Kubectl;
use super::server::{Server, TOKEN};
use axum::body::Body;
use axum::http::Request;
use serde_json::{Value, json};
use std::time::Duration;

const DEFINITIONS: &str = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions";
const CRONTABS: &str = "/apis/stable.example.com/v1/namespaces/default/crontabs";
const MERGE: &str = "application/merge-patch+json";

fn definition() -> Value {
    json!({"apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition",
        "metadata": {"name": "crontabs.stable.example.com"},
        "spec": {"group": "stable.example.com", "scope": "Namespaced",
            "names": {"plural": "crontabs", "singular": "crontab", "kind": "CronTab", "shortNames": ["ct"], "categories": ["all"]},
            "versions": [{"name": "v1", "served": true, "storage": true,
                "subresources": {"status": {}, "scale": {"specReplicasPath": ".spec.replicas",
                    "statusReplicasPath": ".status.replicas", "labelSelectorPath": ".status.labelSelector"}},
                "additionalPrinterColumns": [
                    {"name": "Spec", "type": "string", "description": "When it runs", "jsonPath": ".spec.cronSpec"},
                    {"name": "Replicas", "type": "integer", "jsonPath": ".spec.replicas"},
                    {"name": "Age", "type": "date", "jsonPath": ".metadata.creationTimestamp"}],
                "selectableFields": [{"jsonPath": ".spec.image"}],
                "schema": {"openAPIV3Schema": {"type": "object", "properties": {
                    "spec": {"type": "object", "required": ["cronSpec"], "properties": {
                        "cronSpec": {"type": "string", "description": "When to run.",
                            "pattern": "^(\\d+|\\*)(/\\d+)?(\\s+(\\d+|\\*)(/\\d+)?){4}$"},
                        "image": {"type": "string"},
                        "replicas": {"type": "integer", "minimum": 1, "maximum": 10, "default": 1},
                        "ports": {"type": "array", "x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["name"],
                            "items": {"type": "object", "required": ["name"],
                                "properties": {"name": {"type": "string"}, "port": {"type": "integer"}}}}}},
                    "status": {"type": "object", "properties": {"replicas": {"type": "integer"}, "labelSelector": {"type": "string"}}}}}}}]}})
}

fn crontab(name: &str, spec: &Value) -> Value {
    json!({"apiVersion": "stable.example.com/v1", "kind": "CronTab", "metadata": {"name": name}, "spec": spec})
}

async fn established(server: &Server, name: &str) -> Value {
    let path = format!("{DEFINITIONS}/{name}");
    let is_established = async {
        let mut bell = server.view.subscribe();
        loop {
            bell.mark_unchanged();
            let found = server.get(&path).await.json();
            let conditions = found["status"]["conditions"].as_array().cloned().unwrap_or_default();
            if conditions.iter().any(|one| one["type"] == "Established" && one["status"] == "True") {
                return found;
            }
            bell.changed().await.unwrap();
        }
    };
    tokio::time::timeout(Duration::from_secs(30), is_established).await.expect("it is not established")
}

async fn defined() -> Server {
    let server = Server::start().await;
    server.play_definitions();
    let made = server.post(DEFINITIONS, &definition()).await;
    assert_eq!(made.code, 201, "{}", made.json());
    established(&server, "crontabs.stable.example.com").await;
    server
}

fn message(answer: &Answer) -> String {
    answer.json()["message"].as_str().unwrap_or_default().to_owned()
}

#[tokio::test]
async fn a_watch_ends_when_its_kind_is_defined_otherwise() {
    let server = defined().await;
    let request = Request::get(format!("{CRONTABS}?watch=1&timeoutSeconds=600"))
        .header("host", "localhost")
        .header("authorization", format!("Bearer {TOKEN}"));
    let watching = server.open(request.body(Body::empty()).unwrap()).await;
    assert_eq!(watching.status(), 200);
    let change = json!({"spec": {"names": {"shortNames": ["ct", "tab"]}}}).to_string();
    let path = format!("{DEFINITIONS}/crontabs.stable.example.com");
    assert_eq!(server.call("PATCH", &path, MERGE, change).await.code, 200);
    let ends = axum::body::to_bytes(Body::new(watching.into_body()), 1 << 20);
    tokio::time::timeout(Duration::from_secs(60), ends).await.expect("the watch goes on").unwrap();
    let metrics = definition().to_string().replace("stable.example.com", "metrics.k8s.io");
    let refused = server.post(DEFINITIONS, &serde_json::from_str(&metrics).unwrap()).await;
    assert_eq!(refused.code, 422);
    assert!(message(&refused).contains("is served already"), "{}", message(&refused));
}

#[tokio::test]
async fn objects_of_a_defined_kind_are_made_read_changed_watched_and_deleted() {
    let server = Server::start().await;
    assert_eq!(server.get(CRONTABS).await.code, 404, "nobody has defined it");
    drop(server);
    let server = defined().await;
    let made = server.post(CRONTABS, &crontab("a", &json!({"cronSpec": "* * * * */5"}))).await;
    let object = made.json();
    assert_eq!((made.code, &object["spec"]["replicas"]), (201, &json!(1)), "{object}");
    assert_eq!(object["metadata"]["generation"], 1);
    let kept =
        server.documents.prepared.lock().unwrap().iter().any(|(key, _)| key.to_string().contains("crontabs"));
    assert!(kept, "it is intent like any other object");
    let one = format!("{CRONTABS}/a");
    let patched =
        server.call("PATCH", &one, MERGE, json!({"spec": {"replicas": 4}}).to_string()).await.json();
    assert_eq!((&patched["spec"]["replicas"], &patched["metadata"]["generation"]), (&json!(4), &json!(2)));
    let list = server.get("/apis/stable.example.com/v1/crontabs").await.json();
    assert_eq!((&list["kind"], list["items"].as_array().unwrap().len()), (&json!("CronTabList"), 1));
    let selected = server.get(&format!("{CRONTABS}?fieldSelector=spec.image%3Dx")).await.json();
    assert_eq!(selected["items"], json!([]));
    assert_eq!(server.get(&format!("{CRONTABS}?fieldSelector=spec.cronSpec%3Dx")).await.code, 400);
    let watched = server.get(&format!("{CRONTABS}?watch=1&timeoutSeconds=1")).await.lines();
    assert_eq!((&watched[0]["type"], &watched[0]["object"]["kind"]), (&json!("ADDED"), &json!("CronTab")));
    let strategic = server.call("PATCH", &one, "application/strategic-merge-patch+json", "{}").await;
    assert_eq!(strategic.code, 415);
    assert_eq!(server.call("DELETE", &one, "", "").await.code, 200);
    assert_eq!(server.get(&one).await.code, 404);
}

#[tokio::test]
async fn objects_that_break_their_schema_are_refused_with_every_field() {
    let server = defined().await;
    let wrong = crontab("a", &json!({"cronSpec": "now", "replicas": 11, "image": 5}));
    let refused = server.post(CRONTABS, &wrong).await;
    let status = refused.json();
    assert_eq!((refused.code, &status["reason"]), (422, &json!("Invalid")));
    let causes: Vec<&str> = status["details"]["causes"]
        .as_array()
        .unwrap()
        .iter()
        .map(|cause| cause["field"].as_str().unwrap())
        .collect();
    assert_eq!(causes, ["spec.cronSpec", "spec.image", "spec.replicas"]);
    assert!(message(&refused).starts_with("CronTab.stable.example.com \"a\" is invalid: ["), "{status}");
    let missing = server.post(CRONTABS, &crontab("a", &json!({}))).await;
    assert_eq!(
        message(&missing),
        "CronTab.stable.example.com \"a\" is invalid: spec.cronSpec: Required value"
    );
    let good = json!({"cronSpec": "* * * * *", "odd": 1});
    let strict = server.post(&format!("{CRONTABS}?fieldValidation=Strict"), &crontab("a", &good)).await;
    let expected = "CronTab in version \"v1\" cannot be handled as a CronTab: strict decoding error: unknown field \"spec.odd\"";
    assert_eq!((strict.code, message(&strict)), (400, expected.to_owned()));
    let warned = server.post(CRONTABS, &crontab("a", &good)).await;
    assert!(warned.warnings[0].contains("unknown field"), "{:?}", warned.warnings);
    assert!(warned.json()["spec"].get("odd").is_none(), "it is pruned");
    assert_eq!(server.get(&format!("{CRONTABS}/b")).await.code, 404);
}

#[tokio::test]
async fn status_and_scale_are_parts_of_their_own() {
    let server = defined().await;
    let mut object = crontab("a", &json!({"cronSpec": "* * * * *", "replicas": 2}));
    object["status"] = json!({"replicas": 9});
    let made = server.post(CRONTABS, &object).await.json();
    assert!(made.get("status").is_none(), "nobody creates a status: {made}");
    let status = json!({"status": {"replicas": 2, "labelSelector": "app=a"}}).to_string();
    let one = format!("{CRONTABS}/a");
    let written = server.call("PATCH", &format!("{one}/status"), MERGE, status).await.json();
    assert_eq!((&written["status"]["replicas"], &written["metadata"]["generation"]), (&json!(2), &json!(1)));
    let wrong = json!({"status": {"replicas": "x"}}).to_string();
    assert_eq!(server.call("PATCH", &format!("{one}/status"), MERGE, wrong).await.code, 422);
    let scale = server.get(&format!("{one}/scale")).await.json();
    assert_eq!(
        (&scale["spec"]["replicas"], &scale["status"]),
        (&json!(2), &json!({"replicas": 2, "selector": "app=a"}))
    );
    let scaled = server
        .call("PATCH", &format!("{one}/scale"), MERGE, json!({"spec": {"replicas": 5}}).to_string())
        .await;
    assert_eq!(scaled.json()["spec"]["replicas"], 5, "{}", scaled.json());
    let refused = server
        .call("PATCH", &format!("{one}/scale"), MERGE, json!({"spec": {"replicas": 50}}).to_string())
        .await;
    assert_eq!(refused.code, 422, "the schema holds for the scale, too");
    let read = server.get(&one).await.json();
    assert_eq!((&read["spec"]["replicas"], &read["status"]["replicas"]), (&json!(5), &json!(2)));
}

#[tokio::test]
async fn lists_with_keys_are_shared_by_who_applies() {
    let server = defined().await;
    let apply = async |manager: &str, spec: Value| {
        let path = format!("{CRONTABS}/a?fieldManager={manager}");
        server.call("PATCH", &path, "application/apply-patch+yaml", crontab("a", &spec).to_string()).await
    };
    let first = apply("one", json!({"cronSpec": "* * * * *", "ports": [{"name": "a", "port": 1}]})).await;
    assert_eq!(first.code, 201, "{}", first.json());
    let second = apply("two", json!({"cronSpec": "* * * * *", "ports": [{"name": "b", "port": 2}]})).await;
    assert_eq!(second.code, 200, "{}", second.json());
    assert_eq!(second.json()["spec"]["ports"].as_array().unwrap().len(), 2);
    let conflict = apply("two", json!({"cronSpec": "* * * * *", "ports": [{"name": "a", "port": 3}]})).await;
    assert_eq!(conflict.code, 409);
    assert!(message(&conflict).contains(".spec.ports[name=\"a\"].port"), "{}", message(&conflict));
    let unknown = apply("two", json!({"cronSpec": "* * * * *", "odd": 1})).await;
    assert!(message(&unknown).contains(".spec.odd: field not declared in schema"), "{}", message(&unknown));
}

#[tokio::test]
async fn a_definition_that_cannot_be_served_is_refused_with_the_field() {
    let server = Server::start().await;
    server.play_definitions();
    let refused = async |change: &dyn Fn(&mut Value)| {
        let mut wrong = definition();
        change(&mut wrong);
        let answer = server.post(DEFINITIONS, &wrong).await;
        assert_eq!(answer.code, 422, "{}", answer.json());
        message(&answer)
    };
    let said = refused(&|one: &mut Value| one["metadata"]["name"] = json!("tabs.stable.example.com")).await;
    assert!(said.contains("metadata.name: Invalid value: \"tabs.stable.example.com\": must be spec.names.plural+\".\"+spec.group"), "{said}");
    let said = refused(&|one: &mut Value| {
        one["spec"]["group"] = json!("apps");
        one["metadata"]["name"] = json!("crontabs.apps");
    })
    .await;
    assert!(
        said.contains("spec.group: Invalid value: \"apps\": should be a domain with at least one dot"),
        "{said}"
    );
    let said = refused(&|one: &mut Value| {
        one["spec"]["group"] = json!("x.k8s.io");
        one["metadata"]["name"] = json!("crontabs.x.k8s.io");
    })
    .await;
    assert!(said.contains("protected groups must have approval annotation"), "{said}");
    let said = refused(&|one: &mut Value| one["spec"]["versions"][0]["storage"] = json!(false)).await;
    assert!(said.contains("must have exactly one version marked as storage version"), "{said}");
    let said = refused(&|one: &mut Value| {
        drop(one["spec"]["versions"][0].as_object_mut().unwrap().remove("schema"))
    })
    .await;
    assert!(
        said.contains("spec.versions[0].schema.openAPIV3Schema: Required value: schemas are required"),
        "{said}"
    );
    let said = refused(&|one: &mut Value| one["spec"]["conversion"] = json!({"strategy": "Webhook"})).await;
    assert!(said.contains("spec.conversion.strategy: Unsupported value: \"Webhook\""), "{said}");
    let said = refused(&|one: &mut Value| {
        one["spec"]["versions"][0]["subresources"]["scale"]["specReplicasPath"] = json!(".replicas");
    })
    .await;
    assert!(
        said.contains("specReplicasPath: Invalid value: \".replicas\": should be a json path under .spec"),
        "{said}"
    );

    let mut with_rules = definition();
    with_rules["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["x-kubernetes-validations"] =
        json!([{"rule": "true"}]);
    let made = server.post(DEFINITIONS, &with_rules).await;
    assert_eq!(made.code, 201, "{}", made.json());
    assert!(made.warnings.iter().any(|warning| warning.contains("not evaluated")), "{:?}", made.warnings);
    established(&server, "crontabs.stable.example.com").await;
    let path = format!("{DEFINITIONS}/crontabs.stable.example.com");
    let moved = server.call("PATCH", &path, MERGE, json!({"spec": {"scope": "Cluster"}}).to_string()).await;
    assert!(
        message(&moved).contains("spec.scope: Invalid value: \"Cluster\": field is immutable"),
        "{}",
        message(&moved)
    );
}

#[tokio::test]
async fn every_version_shows_the_same_objects_and_the_newest_is_preferred() {
    let server = Server::start().await;
    server.play_definitions();
    let mut two = definition();
    let mut old = two["spec"]["versions"][0].clone();
    old["name"] = json!("v1beta1");
    old["storage"] = json!(false);
    old["deprecated"] = json!(true);
    two["spec"]["versions"].as_array_mut().unwrap().insert(0, old);
    assert_eq!(server.post(DEFINITIONS, &two).await.code, 201);
    established(&server, "crontabs.stable.example.com").await;
    let group = server.get("/apis/stable.example.com").await.json();
    assert_eq!(group["preferredVersion"]["version"], "v1");
    assert_eq!(group["versions"].as_array().unwrap().len(), 2);
    let mut object = crontab("a", &json!({"cronSpec": "* * * * *"}));
    object["apiVersion"] = json!("stable.example.com/v1beta1");
    let made = server.post(&CRONTABS.replace("/v1/", "/v1beta1/"), &object).await;
    assert_eq!(
        (made.code, &made.json()["apiVersion"]),
        (201, &json!("stable.example.com/v1beta1")),
        "{}",
        made.json()
    );
    assert_eq!(made.warnings, ["299 gaggle \"stable.example.com/v1beta1 CronTab is deprecated\""]);
    let read = server.get(&format!("{CRONTABS}/a")).await.json();
    assert_eq!(read["apiVersion"], "stable.example.com/v1");
    let key = gaggle_sched::state::Key::new(
        gaggle_sched::state::Resource::new("stable.example.com", "crontabs"),
        "default",
        "a",
    );
    let stored = server.view.read(|store| store.get(&key).unwrap().value()["apiVersion"].clone());
    assert_eq!(stored, "stable.example.com/v1");
    let list = server.get(&CRONTABS.replace("/v1/", "/v1beta1/")).await.json();
    assert_eq!(list["items"][0]["apiVersion"], "stable.example.com/v1beta1");
}

#[tokio::test]
async fn an_object_is_kept_although_its_definition_is_not_known_yet() {
    let server = Server::start().await;
    server.play_definitions();
    let key = gaggle_sched::state::Key::new(
        gaggle_sched::state::Resource::new("stable.example.com", "crontabs"),
        "default",
        "early",
    );
    let mut value = crontab("early", &json!({"cronSpec": "* * * * *"}));
    value["metadata"]["namespace"] = json!("default");
    value["metadata"]["uid"] = json!("u");
    let write = gaggle_sched::state::Write::Put {
        key,
        value,
        expect: gaggle_sched::state::Expect::Absent,
        intent: None,
    };
    server.view.write(|store| store.apply(&write.into())).unwrap();
    assert_eq!(server.get(&format!("{CRONTABS}/early")).await.code, 404);
    server.post(DEFINITIONS, &definition()).await;
    established(&server, "crontabs.stable.example.com").await;
    let read = server.get(&format!("{CRONTABS}/early")).await.json();
    assert_eq!(read["spec"], json!({"cronSpec": "* * * * *", "replicas": 1}), "{read}");
}

#[tokio::test]
async fn a_definition_takes_its_objects_along() {
    let server = defined().await;
    server.post(CRONTABS, &crontab("a", &json!({"cronSpec": "* * * * *"}))).await;
    let mut held = crontab("b", &json!({"cronSpec": "* * * * *"}));
    held["metadata"]["finalizers"] = json!(["example.com/hold"]);
    server.post(CRONTABS, &held).await;
    let path = format!("{DEFINITIONS}/crontabs.stable.example.com");
    assert_eq!(server.call("DELETE", &path, "", "").await.code, 200);
    let refused = server.post(CRONTABS, &crontab("c", &json!({"cronSpec": "* * * * *"}))).await;
    assert_eq!(message(&refused), "create not allowed while custom resource definition is terminating");
    let free = json!({"metadata": {"finalizers": null}}).to_string();
    server.call("PATCH", &format!("{CRONTABS}/b"), MERGE, free).await;
    let is_gone = async {
        let mut bell = server.view.subscribe();
        while server.get(&path).await.code != 404 {
            bell.changed().await.unwrap();
        }
    };
    tokio::time::timeout(Duration::from_secs(30), is_gone).await.expect("it does not go");
    assert_eq!(server.get(CRONTABS).await.code, 404);
    let group = server.get("/apis/stable.example.com").await;
    assert_eq!(group.code, 404, "nothing is left of it");
}

#[tokio::test]
async fn kubectl_defines_explains_applies_scales_and_waits() {
    let Some(k) = Kubectl::start().await else { return };
    k.server.play_definitions();
    k.ok_with(&["apply", "-f", "-"], &definition().to_string()).await;
    k.ok(&["wait", "--for=condition=established", "--timeout=30s", "crd/crontabs.stable.example.com"]).await;
    let resources = k.ok(&["api-resources", "--api-group=stable.example.com", "--no-headers"]).await;
    assert!(resources.contains("ct") && resources.contains("CronTab"), "{resources}");
    let explained = k.ok(&["explain", "crontab.spec.cronSpec"]).await;
    assert!(
        explained.contains("FIELD: cronSpec <string>") && explained.contains("When to run."),
        "{explained}"
    );
    let explained = k.ok(&["explain", "ct", "--recursive"]).await;
    for line in ["metadata\t<ObjectMeta>", "ports\t<[]Object>", "cronSpec\t<string> -required-"] {
        assert!(explained.contains(line), "{line}: {explained}");
    }
    let object =
        crontab("my-new-cron-object", &json!({"cronSpec": "* * * * */5", "image": "my-awesome-cron-image"}));
    k.ok_with(&["apply", "-f", "-"], &object.to_string()).await;
    let again =
        crontab("my-new-cron-object", &json!({"cronSpec": "* * * * */6", "image": "my-awesome-cron-image"}));
    assert!(k.ok_with(&["apply", "-f", "-"], &again.to_string()).await.contains("configured"));
    let table = k.ok(&["get", "ct"]).await;
    let words: Vec<&str> = table.split_whitespace().take(4).collect();
    assert_eq!(words, ["NAME", "SPEC", "REPLICAS", "AGE"], "{table}");
    assert!(table.contains("* * * * */6"), "{table}");
    assert!(k.ok(&["get", "all"]).await.contains("crontab.stable.example.com/my-new-cron-object"));
    let odd = crontab("odd", &json!({"cronSpec": "* * * * *", "odd": 1}));
    let refused = k.fails(&["apply", "-f", "-"], &odd.to_string()).await;
    assert!(refused.contains("strict decoding error: unknown field \"spec.odd\""), "{refused}");
    k.ok(&["scale", "ct/my-new-cron-object", "--replicas=3"]).await;
    assert_eq!(k.ok(&["get", "ct/my-new-cron-object", "-o", "jsonpath={.spec.replicas}"]).await, "3");
    k.ok(&["patch", "ct/my-new-cron-object", "--type=merge", "-p", "{\"spec\":{\"replicas\":4}}"]).await;
    k.ok_with(
        &["apply", "--server-side", "--field-manager=other", "--force-conflicts", "-f", "-"],
        &again.to_string(),
    )
    .await;
    k.ok(&["delete", "crd", "crontabs.stable.example.com", "--timeout=30s"]).await;
    // By what it remembers of the server, or after it has asked anew.
    let gone = k.fails(&["get", "ct"], "").await;
    let said = ["could not find the requested resource", "doesn't have a resource type \"ct\""];
    assert!(said.iter().any(|said| gone.contains(said)), "{gone}");
}
