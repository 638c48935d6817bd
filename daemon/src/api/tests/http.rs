//! Requests that kubectl does not make, or not on demand.

use super::server::{Server, TOKEN};
use axum::body::Body;
use axum::http::Request;
use futures::StreamExt;
use gaggle_sched::state::{Expect, Key, Resource, Write};
use serde_json::{Value, json};
use tokio::net::TcpStream;

const CONFIG_MAPS: &str = "/api/v1/namespaces/default/configmaps";

#[tokio::test]
async fn without_a_token_only_health_and_version_are_told() {
    let server = Server::start().await;
    let ask = |path: &str, token: &str| {
        let mut request = Request::get(path).header("host", "x");
        if !token.is_empty() {
            request = request.header("authorization", token);
        }
        request.body(Body::empty()).unwrap()
    };
    for (path, token, code) in [
        ("/healthz", "", 200),
        ("/version", "", 200),
        // As the Python client asks.
        ("/version/", "", 200),
        ("/apis/apps/v1/", "Bearer a-token-for-tests", 200),
        ("/readyz", "", 200),
        ("/api/v1/pods", "", 401),
        ("/apis", "Bearer wrong", 401),
        ("/version", "Bearer wrong", 401),
        ("/api/v1/pods", "Basic YTpi", 401),
        ("/no/such", "Bearer a-token-for-tests", 404),
    ] {
        let answer = server.send(ask(path, token)).await;
        assert_eq!(answer.code, code, "{path} {token}");
        if code >= 400 {
            assert_eq!(answer.json()["kind"], "Status", "{path}");
        }
    }
}

#[tokio::test]
async fn pages_of_a_list_are_of_one_revision() {
    let server = Server::start().await;
    for name in ["a", "b", "c", "d"] {
        assert_eq!(server.config_map(name, json!({"color": "red"})).await.code, 201);
    }
    let first = server.get(&format!("{CONFIG_MAPS}?limit=2")).await.json();
    assert_eq!(first["metadata"]["remainingItemCount"], 2);
    // Between two pages one object goes and another comes: the second page must not show it.
    server.call("DELETE", &format!("{CONFIG_MAPS}/c"), "", Body::empty()).await;
    server.config_map("e", json!({"color": "red"})).await;
    let token = first["metadata"]["continue"].as_str().unwrap();
    let second = server.get(&format!("{CONFIG_MAPS}?limit=5&continue={token}")).await.json();
    let names = |list: &Value| -> Vec<String> {
        let items = list["items"].as_array().unwrap();
        items.iter().map(|item| item["metadata"]["name"].as_str().unwrap().to_owned()).collect()
    };
    assert_eq!((names(&first), names(&second)), (vec!["a".into(), "b".into()], vec!["c".into(), "d".into()]));
    assert_eq!(first["metadata"]["resourceVersion"], second["metadata"]["resourceVersion"]);
    assert_eq!(server.get(&format!("{CONFIG_MAPS}?continue=nonsense")).await.code, 400);
}

#[tokio::test]
async fn a_list_is_of_the_revision_that_was_asked_for() {
    let server = Server::start().await;
    let made = server.config_map("a", json!({"color": "red"})).await.json();
    let then = made["metadata"]["resourceVersion"].as_str().unwrap();
    server.config_map("b", json!({"color": "red"})).await;
    let server = &server;
    let count = async |query: String| {
        let list = server.get(&format!("{CONFIG_MAPS}?{query}")).await.json();
        list["items"].as_array().map(Vec::len)
    };
    let exact = "resourceVersionMatch=Exact";
    assert_eq!(count(format!("resourceVersion={then}&{exact}")).await, Some(1));
    assert_eq!(count(format!("resourceVersion={then}&limit=9")).await, Some(1), "pages were always so");
    assert_eq!(count(format!("resourceVersion={then}")).await, Some(2), "or a newer one");
    assert_eq!(
        count(format!("resourceVersion={then}&limit=9&resourceVersionMatch=NotOlderThan")).await,
        Some(2)
    );
    for (query, code) in [
        (exact.to_owned(), 422),
        (format!("resourceVersion=0&{exact}"), 422),
        (format!("resourceVersion={then}&resourceVersionMatch=Newer"), 422),
        ("sendInitialEvents=true".to_owned(), 422),
        ("watch=true&sendInitialEvents=true".to_owned(), 422),
        ("watch=true&resourceVersionMatch=NotOlderThan".to_owned(), 422),
    ] {
        assert_eq!(server.get(&format!("{CONFIG_MAPS}?{query}")).await.code, code, "{query}");
    }
    let first = server.get(&format!("{CONFIG_MAPS}?limit=1")).await.json();
    let token = first["metadata"]["continue"].as_str().unwrap();
    assert_eq!(server.get(&format!("{CONFIG_MAPS}?continue={token}&resourceVersion={then}")).await.code, 400);
    let other = gaggle_sched::state::Store::starting_at(gaggle_sched::state::Revision::first_of(7));
    server.view.write(|store| *store = other);
    let expired = server.get(&format!("{CONFIG_MAPS}?continue={token}")).await;
    assert_eq!((expired.code, expired.json()["reason"].clone()), (410, json!("Expired")));
}

#[tokio::test]
async fn a_watch_begins_with_what_is_there_only_where_that_is_wished_for() {
    let server = Server::start().await;
    server.config_map("a", json!({"color": "red"})).await;
    let watch = format!("{CONFIG_MAPS}?watch=true&timeoutSeconds=1&allowWatchBookmarks=true");
    let initial = "&resourceVersionMatch=NotOlderThan&sendInitialEvents";
    let server = &server;
    let types = async |more: String| -> Vec<Value> {
        let lines = server.get(&format!("{watch}{more}")).await.lines();
        lines.into_iter().map(|mut line| line["type"].take()).collect()
    };
    let lines = server.get(&format!("{watch}{initial}=true")).await.lines();
    assert_eq!((&lines[0]["type"], &lines[0]["object"]["metadata"]["name"]), (&json!("ADDED"), &json!("a")));
    let end = lines.iter().find(|line| line["type"] == "BOOKMARK").unwrap();
    assert_eq!(end["object"]["metadata"]["annotations"]["k8s.io/initial-events-end"], "true");
    assert_eq!(types(format!("{initial}=false")).await, ["BOOKMARK"]);
    assert_eq!(types(String::new()).await.first(), Some(&json!("ADDED")));
}

#[tokio::test]
async fn a_watch_tells_what_enters_and_leaves_its_selector() {
    let server = Server::start().await;
    let begin =
        server.get(CONFIG_MAPS).await.json()["metadata"]["resourceVersion"].as_str().unwrap().to_owned();
    server.config_map("a", json!({"color": "blue"})).await;
    for color in ["red", "red", "blue"] {
        let patch = json!({"metadata": {"labels": {"color": color}}, "data": {"n": color}}).to_string();
        server.call("PATCH", &format!("{CONFIG_MAPS}/a"), "application/merge-patch+json", patch).await;
    }
    server.call("DELETE", &format!("{CONFIG_MAPS}/a"), "", Body::empty()).await;
    let path = format!(
        "{CONFIG_MAPS}?watch=true&resourceVersion={begin}&labelSelector=color%3Dred&timeoutSeconds=1&allowWatchBookmarks=true"
    );
    let lines = server.get(&path).await.lines();
    let types: Vec<&str> = lines.iter().map(|line| line["type"].as_str().unwrap()).collect();
    assert_eq!(types, ["ADDED", "DELETED", "BOOKMARK"], "the second red changed nothing");
    let everything = format!("{CONFIG_MAPS}?watch=true&resourceVersion={begin}&timeoutSeconds=1");
    let lines = server.get(&everything).await.lines();
    let types: Vec<&str> = lines.iter().map(|line| line["type"].as_str().unwrap()).collect();
    assert_eq!(types, ["ADDED", "MODIFIED", "MODIFIED", "DELETED"]);
}

#[tokio::test]
async fn a_watch_from_a_forgotten_revision_is_told_to_list_again() {
    let server = Server::start().await;
    let other = gaggle_sched::state::Store::starting_at(gaggle_sched::state::Revision::first_of(7));
    server.view.write(|store| *store = other);
    let lines = server.get(&format!("{CONFIG_MAPS}?watch=true&resourceVersion=3")).await.lines();
    assert_eq!((&lines[0]["type"], &lines[0]["object"]["code"]), (&json!("ERROR"), &json!(410)));
}

#[tokio::test]
async fn a_revision_that_a_founding_left_behind_is_valid_no_more() {
    let server = Server::start().await;
    let made = server.config_map("a", json!({"color": "red"})).await.json();
    let held: u64 = made["metadata"]["resourceVersion"].as_str().unwrap().parse().unwrap();
    let anew = gaggle_sched::state::Lineage { group: "lab".into(), epoch: 7 };
    server.view.write(|store| store.found(anew));
    // What another desktop had ordered, and shown, before it was lost.
    let lost = held + 1;
    for path in [CONFIG_MAPS.to_owned(), format!("{CONFIG_MAPS}/a"), format!("{CONFIG_MAPS}/gone")] {
        let answer = server.get(&format!("{path}?resourceVersion={lost}")).await;
        let told = answer.json();
        assert_eq!((answer.code, &told["reason"]), (410, &json!("Expired")), "{path}: {told}");
        assert!(told["message"].as_str().unwrap().contains("founded anew without it"), "{told}");
    }
    for path in [CONFIG_MAPS.to_owned(), format!("{CONFIG_MAPS}/a")] {
        assert_eq!(server.get(&format!("{path}?resourceVersion={held}")).await.code, 200, "{path}");
        assert_eq!(server.get(&format!("{path}?resourceVersion=0")).await.code, 200, "{path}");
    }
    assert_eq!(server.get(&format!("{CONFIG_MAPS}?watch=true&resourceVersion={lost}")).await.code, 410);
}

#[tokio::test]
async fn stale_writes_conflict_and_patches_do_not() {
    let server = Server::start().await;
    let made = server.config_map("a", json!({"color": "red"})).await.json();
    let path = format!("{CONFIG_MAPS}/a");
    let mut changed = made.clone();
    changed["data"]["color"] = "green".into();
    let put = |object: &Value| server.call("PUT", &path, "application/json", object.to_string());
    assert_eq!(put(&changed).await.code, 200);
    let stale = put(&changed).await;
    assert_eq!((stale.code, stale.json()["reason"].clone()), (409, json!("Conflict")));
    let patch = json!({"data": {"x": "y"}}).to_string();
    let answer = server.call("PATCH", &path, "application/merge-patch+json", patch).await;
    assert_eq!((answer.code, answer.json()["data"].clone()), (200, json!({"color": "green", "x": "y"})));
    let other_name = json!({"metadata": {"name": "b"}});
    assert_eq!(put(&other_name).await.code, 400);
    assert_eq!(server.config_map("a", json!({})).await.json()["reason"], "AlreadyExists");
}

#[tokio::test]
async fn bad_bodies_change_nothing_and_say_what_is_wrong() {
    let server = Server::start().await;
    let post = |media: &'static str, body: Vec<u8>| server.call("POST", CONFIG_MAPS, media, body);
    for (media, body, code, expected) in [
        ("application/json", b"{".to_vec(), 400, "cannot be read"),
        ("application/json", b"[]".to_vec(), 400, "not an object"),
        ("application/yaml", b"a: [".to_vec(), 400, "YAML"),
        ("application/vnd.kubernetes.protobuf", b"k8s\0\xff\xff".to_vec(), 400, "cannot be read"),
        ("text/html", b"<p>".to_vec(), 415, "unknown format"),
        ("application/json", vec![b' '; 4 << 20], 413, "too large: limit is 3145728"),
        ("application/json", b"{\"metadata\":{}}".to_vec(), 422, "name or generateName is required"),
        ("application/json", b"{\"metadata\":{\"name\":\"A\"}}".to_vec(), 422, "RFC 1123 subdomain"),
        ("application/json", b"{\"metadata\":{\"name\":\"a\"},\"data\":{\"x\":1}}".to_vec(), 400, "data.x"),
    ] {
        let answer = post(media, body).await;
        let status = answer.json();
        assert_eq!(answer.code, code, "{status}");
        assert!(status["message"].as_str().unwrap().contains(expected), "{status}");
    }
    let list = server.get(CONFIG_MAPS).await.json();
    assert_eq!(list["items"], json!([]));
    let elsewhere =
        server.post("/api/v1/namespaces/nowhere/configmaps", &json!({"metadata": {"name": "a"}})).await;
    assert_eq!(
        (elsewhere.code, elsewhere.json()["message"].clone()),
        (404, json!("namespaces \"nowhere\" not found"))
    );
}

#[tokio::test]
async fn without_a_quorum_wishes_are_kept_and_the_rest_is_refused() {
    let server = Server::start().await;
    server.config_map("before", json!({"color": "red"})).await;
    server.quorum.send(false).unwrap();
    let answer = server.config_map("a", json!({"color": "red"})).await;
    assert_eq!(answer.code, 201);
    assert!(
        answer.warnings[0].starts_with("299 gaggle \"no quorum: kept as intent"),
        "{:?}",
        answer.warnings
    );
    let gone = server.call("DELETE", &format!("{CONFIG_MAPS}/before"), "", Body::empty()).await;
    assert_eq!(gone.code, 200);
    let kept = server.documents.kept.lock().unwrap().clone();
    let key = |name: &str| Key::new(Resource::fixed("configmaps"), "default", name);
    assert_eq!(kept.len(), 2);
    assert_eq!((&kept[0].0, &kept[1]), (&key("a"), &(key("before"), None)));
    let wish = kept[0].1.clone().unwrap();
    assert!(wish["metadata"].get("resourceVersion").is_none() && wish["metadata"]["uid"].is_string());
    let status = json!({"status": {"phase": "Active"}, "metadata": {"name": "default"}}).to_string();
    let path = "/api/v1/namespaces/default/status";
    let refused = server.call("PUT", path, "application/json", status.replace("Active", "Terminating")).await;
    assert_eq!((refused.code, refused.retry_after), (503, true));
    assert_eq!(server.get("/readyz").await.code, 503);
}

#[tokio::test]
async fn without_a_quorum_an_edit_is_kept_as_what_it_edits() {
    let server = Server::start().await;
    server.config_map("a", json!({"color": "red"})).await;
    server.quorum.send(false).unwrap();
    let patch = json!({"data": {"size": "1"}}).to_string();
    let path = format!("{CONFIG_MAPS}/a");
    let answer = server.call("PATCH", &path, "application/merge-patch+json", patch).await;
    assert!(answer.code == 200 && answer.warnings[0].contains("kept as intent"), "{:?}", answer.warnings);
    let edited = server.documents.edited.lock().unwrap().clone();
    let key = Key::new(Resource::fixed("configmaps"), "default", "a");
    assert_eq!((edited.len(), &edited[0].0), (1, &key));
    assert_eq!(edited[0].1["data"], json!({"color": "red"}), "the edit is told from what was shown");
    assert!(edited[0].1["metadata"].get("resourceVersion").is_none(), "which is no wish itself");
    let kept = server.documents.kept.lock().unwrap().pop().unwrap().1.unwrap();
    assert_eq!(kept["data"], json!({"color": "red", "size": "1"}));
}

#[tokio::test]
async fn objects_that_controllers_made_are_no_intent() {
    let server = Server::start().await;
    let owner =
        json!([{"apiVersion": "apps/v1", "kind": "ReplicaSet", "name": "r", "uid": "u", "controller": true}]);
    let object = json!({"metadata": {"name": "a", "ownerReferences": owner}});
    assert_eq!(server.post(CONFIG_MAPS, &object).await.code, 201);
    assert!(server.documents.prepared.lock().unwrap().is_empty());
}

#[tokio::test]
async fn a_bound_pod_ends_gracefully_and_an_unbound_one_at_once() {
    let server = Server::start().await;
    let pods = "/api/v1/namespaces/default/pods";
    let pod = |name: &str, node: Option<&str>| json!({"metadata": {"name": name}, "spec": {"nodeName": node, "containers": [{"name": "c", "image": "i"}]}});
    server.post(pods, &pod("free", None)).await;
    server.post(pods, &pod("bound", Some("d1"))).await;
    let server = &server;
    let delete = async |path: String| server.call("DELETE", &path, "", Body::empty()).await;
    assert_eq!(delete(format!("{pods}/free")).await.json()["status"], "Success");
    let terminating = delete(format!("{pods}/bound")).await.json();
    assert_eq!(terminating["metadata"]["deletionGracePeriodSeconds"], 30);
    let again = delete(format!("{pods}/bound?gracePeriodSeconds=5")).await.json();
    assert_eq!(again["metadata"]["deletionGracePeriodSeconds"], 5);
    assert_eq!(delete(format!("{pods}/bound?gracePeriodSeconds=0")).await.json()["status"], "Success");
    assert_eq!(server.get(&format!("{pods}/bound")).await.code, 404);
    server.post(pods, &pod("evicted", Some("d1"))).await;
    let eviction = json!({"apiVersion": "policy/v1", "kind": "Eviction", "metadata": {"name": "evicted"}});
    assert_eq!(server.post(&format!("{pods}/evicted/eviction"), &eviction).await.code, 201);
    let evicted = server.get(&format!("{pods}/evicted")).await.json();
    assert!(evicted["metadata"]["deletionTimestamp"].is_string());
}

#[tokio::test]
async fn what_a_controller_stored_without_defaults_can_be_labelled() {
    let server = Server::start().await;
    let key = Key::new(Resource::fixed("pods"), "default", "p");
    let value = json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "p", "namespace": "default", "uid": "u"},
        "spec": {"containers": [{"name": "c", "image": "i"}]}});
    let write = Write::Put { key, value, expect: Expect::Absent, intent: None };
    server.view.write(|store| store.apply(&write.into())).unwrap();
    let patch = json!({"metadata": {"labels": {"a": "b"}}}).to_string();
    let path = "/api/v1/namespaces/default/pods/p";
    let answer = server.call("PATCH", path, "application/merge-patch+json", patch).await;
    assert_eq!(answer.code, 200, "{}", answer.json());
}

#[tokio::test]
async fn finalizers_hold_an_object_until_they_are_gone() {
    let server = Server::start().await;
    let object = json!({"metadata": {"name": "a", "finalizers": ["example.com/hold"]}});
    server.post(CONFIG_MAPS, &object).await;
    let path = format!("{CONFIG_MAPS}/a");
    let wrong = json!({"preconditions": {"uid": "other"}}).to_string();
    assert_eq!(server.call("DELETE", &path, "application/json", wrong).await.code, 409);
    let held = server.call("DELETE", &path, "", Body::empty()).await.json();
    assert!(held["metadata"]["deletionTimestamp"].is_string());
    let patch = json!({"metadata": {"finalizers": null}}).to_string();
    assert_eq!(server.call("PATCH", &path, "application/merge-patch+json", patch).await.code, 200);
    assert_eq!(server.get(&path).await.code, 404);
    let lasting = server.call("DELETE", "/api/v1/namespaces/default", "", Body::empty()).await;
    assert_eq!(lasting.code, 403);
}

#[tokio::test]
async fn a_dry_run_answers_as_if_and_leaves_no_trace() {
    let server = Server::start().await;
    let object = json!({"metadata": {"generateName": "a-"}});
    let answer = server.post(&format!("{CONFIG_MAPS}?dryRun=All"), &object).await;
    assert_eq!(answer.code, 201);
    let name = answer.json()["metadata"]["name"].as_str().unwrap().to_owned();
    assert!(name.starts_with("a-") && name.len() == 7, "{name}");
    assert_eq!(server.get(&format!("{CONFIG_MAPS}/{name}")).await.code, 404);
}

#[tokio::test]
async fn bytes_that_are_no_tls_and_requests_that_are_no_http_disturb_nobody() {
    let server = Server::start().await;
    let mut stranger = TcpStream::connect(server.address).await.unwrap();
    tokio::io::AsyncWriteExt::write_all(&mut stranger, b"GET / HTTP/1.1\r\n\r\n").await.unwrap();
    let mut answer = Vec::new();
    // An alert or nothing: the connection ends by itself.
    let _ = tokio::io::AsyncReadExt::read_to_end(&mut stranger, &mut answer).await;
    assert!(!answer.starts_with(b"HTTP"));
    let odd = Request::builder()
        .method("BREW")
        .uri("/api/v1/pods")
        .header("host", "x")
        .header("authorization", format!("Bearer {TOKEN}"));
    assert_eq!(server.send(odd.body(Body::empty()).unwrap()).await.code, 405);
    assert_eq!(server.get("/healthz").await.code, 200);
}

#[tokio::test]
async fn shutting_down_ends_open_watches() {
    let server = Server::start().await;
    let request = Request::get("/api/v1/namespaces?watch=true")
        .header("host", "x")
        .header("authorization", format!("Bearer {TOKEN}"));
    let response = server.open(request.body(Body::empty()).unwrap()).await;
    let mut chunks = Body::new(response.into_body()).into_data_stream();
    assert!(chunks.next().await.unwrap().unwrap().starts_with(b"{\"type\":\"ADDED\""));
    server.stop();
    // Whether it ends cleanly or is cut off, it ends.
    let deadline = std::time::Duration::from_secs(60);
    let rest = async { while let Some(Ok(_)) = chunks.next().await {} };
    assert!(tokio::time::timeout(deadline, rest).await.is_ok());
}
