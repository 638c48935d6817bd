//! An API of a few kinds on loopback that remembers what it was asked.

mod tls;

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::ws::{Message, WebSocket, WebSocketUpgrade};
use axum::extract::{FromRequestParts, Request, State};
use axum::http::{HeaderMap, Method, StatusCode, header};
use axum::response::{IntoResponse, Response};
use base64::Engine;
use futures::stream;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::{Arc, Mutex};
use tokio::sync::oneshot;

#[derive(Clone, Debug)]
pub struct Asked {
    pub method: String,
    /// Path and query.
    pub target: String,
    pub content_type: String,
    pub body: Value,
    pub body_bytes: usize,
}

#[derive(Default)]
struct Kept {
    objects: BTreeMap<String, Value>,
    asked: Vec<Asked>,
    events: Vec<Value>,
    warning: Option<String>,
    version: u64,
}

type Shared = Arc<Mutex<Kept>>;

/// Stops when it is dropped.
pub struct FakeApi {
    kept: Shared,
    dir: tempfile::TempDir,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<std::thread::JoinHandle<()>>,
}

pub fn write_kubeconfig(dir: &Path, address: SocketAddr) {
    write_config(dir, json!({"server": format!("http://{address}")}));
}

fn write_config(dir: &Path, cluster: Value) {
    let config = json!({"apiVersion": "v1", "kind": "Config", "current-context": "gaggle",
        "clusters": [{"name": "gaggle", "cluster": cluster}],
        "users": [{"name": "gaggle", "user": {"token": "secret"}}],
        "contexts": [{"name": "gaggle", "context": {"cluster": "gaggle", "user": "gaggle"}}]});
    std::fs::write(dir.join("admin.kubeconfig"), config.to_string()).unwrap();
}

impl FakeApi {
    /// Without TLS, which one test is enough for.
    pub fn start() -> Self {
        Self::serve(write_kubeconfig, |router, listener| async {
            axum::serve(listener, router).await.unwrap()
        })
    }

    /// As a daemon serves it: a CA of its own, and a certificate for the name `gaggle` alone.
    pub fn start_with_tls() -> Self {
        let (ca, acceptor) = tls::identity();
        let ca = base64::engine::general_purpose::STANDARD.encode(ca);
        Self::serve(
            |dir, address| {
                let server = format!("https://{address}");
                let authority = "certificate-authority-data";
                write_config(dir, json!({"server": server, "tls-server-name": "gaggle", authority: ca}));
            },
            |router, listener| async {
                axum::serve(tls::TlsListener { listener, acceptor }, router).await.unwrap();
            },
        )
    }

    fn serve<S: Future<Output = ()>>(
        describe: impl FnOnce(&Path, SocketAddr),
        serve: impl FnOnce(Router, tokio::net::TcpListener) -> S + Send + 'static,
    ) -> Self {
        let kept = Shared::default();
        let dir = tempfile::tempdir().unwrap();
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        listener.set_nonblocking(true).unwrap();
        describe(dir.path(), listener.local_addr().unwrap());
        let (stop, stopped) = oneshot::channel();
        let router = Router::new().fallback(answer).with_state(kept.clone());
        let thread = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async move {
                let listener = tokio::net::TcpListener::from_std(listener).unwrap();
                tokio::select! {
                    () = serve(router, listener) => {}
                    _ = stopped => {}
                }
            });
        });
        Self { kept, dir, stop: Some(stop), thread: Some(thread) }
    }

    pub fn data_dir(&self) -> &Path {
        self.dir.path()
    }

    pub fn put(&self, path: &str, object: Value) {
        self.kept.lock().unwrap().objects.insert(path.to_owned(), object);
    }

    /// The next watch reports this.
    pub fn event(&self, event: Value) {
        self.kept.lock().unwrap().events.push(event);
    }

    pub fn warn(&self, warning: &str) {
        self.kept.lock().unwrap().warning = Some(warning.to_owned());
    }

    pub fn count(&self, method: &str) -> usize {
        self.kept.lock().unwrap().asked.iter().filter(|asked| asked.method == method).count()
    }

    pub fn last(&self, method: &str) -> Asked {
        let kept = self.kept.lock().unwrap();
        kept.asked.iter().rev().find(|asked| asked.method == method).unwrap().clone()
    }

    pub fn received_bytes(&self) -> usize {
        self.kept.lock().unwrap().asked.iter().map(|asked| asked.body_bytes).max().unwrap_or(0)
    }
}

impl Drop for FakeApi {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

async fn answer(State(shared): State<Shared>, request: Request) -> Response {
    let (mut parts, body) = request.into_parts();
    if let Ok(upgrade) = WebSocketUpgrade::from_request_parts(&mut parts, &()).await {
        let asked = parts.uri.to_string();
        return upgrade.protocols(["v5.channel.k8s.io"]).on_upgrade(|socket| exec(socket, asked));
    }
    let bytes = axum::body::to_bytes(body, usize::MAX).await.unwrap();
    let header_text = |headers: &HeaderMap, name| {
        headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default().to_owned()
    };
    let asked = Asked {
        method: parts.method.to_string(),
        target: parts.uri.to_string(),
        content_type: header_text(&parts.headers, header::CONTENT_TYPE),
        body: serde_json::from_slice(&bytes).unwrap_or(Value::Null),
        body_bytes: bytes.len(),
    };
    let table = header_text(&parts.headers, header::ACCEPT).contains("as=Table");
    let authorized = header_text(&parts.headers, header::AUTHORIZATION) == "Bearer secret";
    let mut kept = shared.lock().unwrap();
    kept.asked.push(asked.clone());
    if !authorized {
        return (StatusCode::UNAUTHORIZED, "no token").into_response();
    }
    let path = parts.uri.path();
    let query = parts.uri.query().unwrap_or_default();
    let mut response = match parts.method {
        Method::GET => read(&mut kept, path, query, table),
        method => write(&mut kept, &method, path, asked.body),
    };
    if let Some(warning) = kept.warning.as_ref().filter(|_| asked.method != "GET") {
        response.headers_mut().insert(header::WARNING, warning.parse().unwrap());
    }
    response
}

/// Says what was asked for, says again what is typed, and ends well, or with 7.
async fn exec(mut socket: WebSocket, asked: String) {
    let send = |channel: u8, text: &str| Message::Binary([&[channel], text.as_bytes()].concat().into());
    socket.send(send(1, &format!("{asked}\n"))).await.unwrap();
    while asked.contains("stdin=true") {
        let Some(Ok(Message::Binary(bytes))) = socket.recv().await else { return };
        match &bytes[..] {
            [255, 0] => break,
            [0, typed @ ..] => socket.send(send(1, std::str::from_utf8(typed).unwrap())).await.unwrap(),
            _ => {}
        }
    }
    let causes = json!([{"reason": "ExitCode", "message": "7"}]);
    let status = match asked.contains("command=fail") {
        true => json!({"status": "Failure", "details": {"causes": causes}}),
        false => json!({"status": "Success"}),
    };
    socket.send(send(3, &status.to_string())).await.unwrap();
}

fn read(kept: &mut Kept, path: &str, query: &str, table: bool) -> Response {
    if let Some(answer) = discovery(path) {
        return axum::Json(answer).into_response();
    }
    let last = path.rsplit('/').next().unwrap();
    if let "pods" | "deployments" | "jobs" | "events" | "replicasets" = last {
        if query.contains("watch=true") {
            return watch(kept);
        }
        let named =
            query.split("metadata.name%3D").nth(1).map(|rest| rest.split('&').next().unwrap().to_owned());
        let under = format!("{path}/");
        let items: Vec<Value> = kept
            .objects
            .iter()
            .filter(|(path, _)| path.strip_prefix(&under).is_some_and(|name| !name.contains('/')))
            .map(|(_, object)| object.clone())
            .filter(|object| named.as_ref().is_none_or(|name| object["metadata"]["name"] == **name))
            .collect();
        let metadata = json!({"resourceVersion": "1"});
        return axum::Json(match table {
            true => as_table(&items),
            false => json!({"kind": "PodList", "apiVersion": "v1", "metadata": metadata, "items": items}),
        })
        .into_response();
    }
    match kept.objects.get(path) {
        Some(Value::Array(pieces)) => {
            let pieces: Vec<Result<Bytes, std::io::Error>> =
                pieces.iter().map(|piece| Ok(Bytes::from(piece.as_str().unwrap().to_owned()))).collect();
            Body::from_stream(stream::iter(pieces)).into_response()
        }
        Some(object) if table => axum::Json(as_table(std::slice::from_ref(object))).into_response(),
        Some(object) => axum::Json(object).into_response(),
        None => {
            let kind = path.rsplit('/').nth(1).unwrap();
            not_found(&format!("{kind} \"{last}\" not found"))
        }
    }
}

fn not_found(message: &str) -> Response {
    let status = json!({"kind": "Status", "apiVersion": "v1", "status": "Failure", "reason": "NotFound",
        "code": 404, "message": message});
    (StatusCode::NOT_FOUND, axum::Json(status)).into_response()
}

/// The events that wait to be told, and then nothing for ever.
fn watch(kept: &mut Kept) -> Response {
    use futures::StreamExt;
    let lines: Vec<Result<Bytes, std::io::Error>> =
        kept.events.drain(..).map(|event| Ok(Bytes::from(format!("{event}\n")))).collect();
    Body::from_stream(stream::iter(lines).chain(stream::pending())).into_response()
}

fn as_table(items: &[Value]) -> Value {
    let rows: Vec<Value> = items
        .iter()
        .map(|item| json!({"cells": [item["metadata"]["name"], item["status"]["phase"]], "object": item}))
        .collect();
    json!({"kind": "Table", "columnDefinitions": [{"name": "Name", "format": "name"}, {"name": "Phase"}], "rows": rows})
}

fn write(kept: &mut Kept, method: &Method, path: &str, body: Value) -> Response {
    match path {
        "/gaggle/v1/leave" => return "handing over\nleft\n".into_response(),
        "/gaggle/v1/images" => return axum::Json(json!({"loaded": ["web:1"]})).into_response(),
        _ => {}
    }
    kept.version += 1;
    let version = json!(kept.version.to_string());
    if *method == Method::POST {
        let mut object = body;
        object["metadata"]["resourceVersion"] = version;
        let name = object["metadata"]["name"].as_str().unwrap().to_owned();
        kept.objects.insert(format!("{path}/{name}"), object.clone());
        return (StatusCode::CREATED, axum::Json(object)).into_response();
    }
    if *method == Method::DELETE {
        return match kept.objects.remove(path) {
            Some(_) => axum::Json(json!({"kind": "Status", "status": "Success"})).into_response(),
            None => not_found("it is not there"),
        };
    }
    let object = kept.objects.get_mut(path).unwrap();
    object["metadata"]["resourceVersion"] = version;
    axum::Json(&*object).into_response()
}

fn discovery(path: &str) -> Option<Value> {
    let list = |version: &str, resources: Value| {
        Some(json!({"kind": "APIResourceList", "groupVersion": version, "resources": resources}))
    };
    let resource = |name: &str, kind: &str, short: &str| {
        json!({"name": name, "singularName": kind.to_lowercase(), "namespaced": true, "kind": kind,
            "verbs": ["get"], "shortNames": [short], "categories": ["all"]})
    };
    let group = |name: &str| {
        let version = json!({"groupVersion": format!("{name}/v1"), "version": "v1"});
        json!({"name": name, "versions": [version], "preferredVersion": version})
    };
    match path {
        "/apis" => Some(json!({"kind": "APIGroupList", "groups": [group("apps"), group("batch")]})),
        "/api/v1" => list("v1", json!([resource("pods", "Pod", "po")])),
        "/apis/apps/v1" => list("apps/v1", json!([resource("deployments", "Deployment", "deploy")])),
        "/apis/batch/v1" => list("batch/v1", json!([resource("jobs", "Job", "j")])),
        _ => None,
    }
}
