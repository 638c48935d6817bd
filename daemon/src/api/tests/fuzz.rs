//! Requests as nobody should send them, to everything that is served: objects made by the schemas of their kinds, wrong
//! here and there, and bytes of them changed; patches of each sort; selectors; protobuf. Whatever comes, the answer is one
//! that a client understands, nothing panics, and no small body becomes a large thing.
//!
//! A seed makes all choices. `GAGGLE_FUZZ_SEED` and `GAGGLE_FUZZ_CASES` go on where the tests end.

use super::server::{Server, TOKEN};
use crate::api::kinds::{self, Kind};
use crate::api::protobuf::tests::{enveloped, number, sized};
use crate::api::schema::{self, Definitions};
use axum::body::Body;
use axum::http::Request;
use gaggle_sched::state::Store;
use rand::rngs::StdRng;
use rand::seq::IndexedRandom;
use rand::{Rng, SeedableRng};
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;
use tower::ServiceExt;

const CONFIG_MAPS: &str = "/api/v1/namespaces/default/configmaps";
const CASES: u64 = 1_500;
/// What answers, and all that is kept, may take beside what is there when the first object was read: a bound that doubling
/// anything again and again goes past at once.
const GROWTH_KIB: u64 = 512 << 10;
/// Objects of Kubernetes' kinds are about so deep.
const DEPTH: usize = 9;

const WORDS: &[&str] = &[
    "",
    "a",
    "web",
    "busybox",
    "1",
    "0",
    "-1",
    "100m",
    "1Gi",
    "1e30",
    "10%",
    "101%",
    "default",
    "TCP",
    "UDP",
    "Always",
    "Never",
    "OnFailure",
    "RollingUpdate",
    "Recreate",
    "OnDelete",
    "In",
    "Exists",
    "DoesNotExist",
    "NotIn",
    "Pod",
    "Deployment",
    "v1",
    "apps/v1",
    "Opaque",
    "ClusterIP",
    "None",
    "$(X)",
    "$(",
    "{.status}",
    "{.a[?(@.b==1)]}",
    "2026-01-01T00:00:00Z",
    "* * * * *",
    "@daily",
    "61 * * * *",
    "TZ=UTC 1 1 1 1 1",
    "Europe/Paris",
    "kubernetes.io/x",
    "example.com/a.b",
    "/",
    "..",
    "/var/run",
    "a\u{0}b",
    "\u{e9}\u{1f980}",
    "10.0.0.1",
    "::1",
    "10.0.0.0/99",
    "AAAA",
    "not base64!",
    "object",
    "string",
    "array",
    "integer",
    "^(a+)+$",
    "[",
    "x-",
    "-x",
    "A",
    "$patch",
    "delete",
    "*",
];
const NUMBERS: &[i64] = &[-1, 0, 1, 2, 3, 80, 100, 65_535, 65_536, i32::MAX as i64, i64::MIN, i64::MAX];
const NAMES: &[&str] = &["a", "web", "web-0", "toys.example.com", "A b"];
const MEDIA: &[&str] = &[
    "application/merge-patch+json",
    "application/strategic-merge-patch+json",
    "application/apply-patch+yaml",
    "application/json-patch+json",
];

/// Objects that are there from the beginning, to be changed.
const GOOD: [(&str, &str); 8] = [
    (
        "/api/v1/namespaces/default/pods",
        r#"{"metadata":{"name":"web"},"spec":{"containers":[{"name":"c","image":"i"}]}}"#,
    ),
    ("/api/v1/namespaces/default/services", r#"{"metadata":{"name":"web"},"spec":{"ports":[{"port":80}]}}"#),
    ("/api/v1/namespaces/default/secrets", r#"{"metadata":{"name":"web"},"stringData":{"a":"b"}}"#),
    (
        "/apis/apps/v1/namespaces/default/deployments",
        r#"{"metadata":{"name":"web"},"spec":{"selector":{"matchLabels":{"a":"b"}},"template":{"metadata":{"labels":{"a":"b"}},"spec":{"containers":[{"name":"c","image":"i"}]}}}}"#,
    ),
    (
        "/apis/batch/v1/namespaces/default/cronjobs",
        r#"{"metadata":{"name":"web"},"spec":{"schedule":"@daily","jobTemplate":{"spec":{"template":{"spec":{"restartPolicy":"Never","containers":[{"name":"c","image":"i"}]}}}}}}"#,
    ),
    (
        "/apis/autoscaling/v2/namespaces/default/horizontalpodautoscalers",
        r#"{"metadata":{"name":"web"},"spec":{"maxReplicas":3,"scaleTargetRef":{"apiVersion":"apps/v1","kind":"Deployment","name":"web"}}}"#,
    ),
    (
        "/apis/networking.k8s.io/v1/namespaces/default/ingresses",
        r#"{"metadata":{"name":"web"},"spec":{"defaultBackend":{"service":{"name":"web","port":{"number":80}}}}}"#,
    ),
    (
        "/apis/apiextensions.k8s.io/v1/customresourcedefinitions",
        r#"{"metadata":{"name":"toys.example.com"},"spec":{"group":"example.com","scope":"Namespaced","names":{"plural":"toys","kind":"Toy"},"versions":[{"name":"v1","served":true,"storage":true,"schema":{"openAPIV3Schema":{"type":"object","properties":{"spec":{"type":"object","properties":{"n":{"type":"integer"}}}}}}}]}}"#,
    ),
];

/// Makes requests.
struct Source {
    random: StdRng,
    schemas: Map<String, Value>,
    kinds: Vec<(&'static Kind, String)>,
}

impl Source {
    fn chance(&mut self, percent: u32) -> bool {
        self.random.random_range(0..100) < percent
    }

    fn one<T: Copy>(&mut self, of: &[T]) -> T {
        *of.choose(&mut self.random).expect("there is something to choose from")
    }

    fn text(&mut self) -> String {
        match self.random.random_range(0..40) {
            0 => "x".repeat(self.random.random_range(60..300)),
            1 => (0..self.random.random_range(1..20)).map(|_| self.random.random::<char>()).collect(),
            _ => self.one(WORDS).to_owned(),
        }
    }

    fn rubbish(&mut self) -> Value {
        let text = self.text();
        let number = self.one(NUMBERS);
        match self.random.random_range(0..7) {
            0 => Value::Null,
            1 => json!({ text: number }),
            2 => json!([number, text]),
            3 => json!([]),
            4 => json!(1.5e300),
            5 => number.into(),
            _ => text.into(),
        }
    }

    /// A value as its schema has it, wrong now and then.
    fn value(&mut self, schema: &Value, depth: usize) -> Value {
        if self.random.random_range(0..120) == 0 {
            return self.rubbish();
        }
        if let Some(name) = schema::referred(schema) {
            let schema = self.schemas.get(name).cloned().unwrap_or_default();
            return self.value(&schema, depth);
        }
        for choice in ["anyOf", "oneOf", "allOf"] {
            if let Some(choices) = schema[choice].as_array().filter(|choices| !choices.is_empty()) {
                let index = self.random.random_range(0..choices.len());
                return self.value(&choices[index], depth);
            }
        }
        let types = match &schema["type"] {
            Value::Array(types) => types.iter().filter_map(Value::as_str).find(|of| *of != "null"),
            of => of.as_str(),
        };
        match types {
            Some("object") => self.object(schema, depth),
            Some("array") => {
                let count = if depth > DEPTH { 0 } else { self.random.random_range(0..3) };
                (0..count).map(|_| self.value(&schema["items"], depth + 1)).collect()
            }
            Some("boolean") => self.chance(50).into(),
            Some("integer" | "number") => self.one(NUMBERS).into(),
            Some("string") => self.text().into(),
            _ => self.rubbish(),
        }
    }

    fn object(&mut self, schema: &Value, depth: usize) -> Value {
        let required: Vec<&str> =
            schema["required"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
        let mut object = Map::new();
        for (name, schema) in schema["properties"].as_object().into_iter().flatten() {
            let percent = match (required.contains(&name.as_str()), depth) {
                (true, _) => 95,
                (false, 0..=1) => 60,
                (false, _) if depth > DEPTH => 0,
                (false, _) => 18,
            };
            if self.chance(percent) {
                object.insert(name.clone(), self.value(schema, depth + 1));
            }
        }
        if schema["additionalProperties"].is_object() && depth <= DEPTH {
            for _ in 0..self.random.random_range(0..3) {
                let key = self.text();
                object.insert(key, self.value(&schema["additionalProperties"], depth + 1));
            }
        }
        if self.chance(1) {
            let (key, value) = (self.text(), self.rubbish());
            object.insert(key, value);
        }
        Value::Object(object)
    }

    /// An object of a kind, under a name that others have as well.
    fn of_kind(&mut self, kind: &Kind, schema: &str) -> Value {
        let mut object = self.value(&json!({ "$ref": format!("{}{schema}", schema::REFERENCE) }), 0);
        if !object.is_object() {
            return object;
        }
        object["apiVersion"] = kind.api_version().into();
        object["kind"] = kind.kind.clone().into();
        if !object["metadata"].is_object() || self.chance(80) {
            object["metadata"] = json!({"labels": {"app": self.text()}});
        }
        object["metadata"]["name"] = self.one(NAMES).into();
        if kind.is_namespaced() {
            object["metadata"]["namespace"] = "default".into();
        }
        object
    }

    /// An object that is there, with some of its parts as another one has them.
    fn changed(&mut self, there: &Value, kind: &Kind, schema: &str) -> Value {
        let (mut changed, other) = (there.clone(), self.of_kind(kind, schema));
        for (field, value) in
            other.as_object().into_iter().flatten().filter(|(field, _)| *field != "metadata")
        {
            match (changed.get_mut(field).and_then(Value::as_object_mut), value) {
                (Some(parts), Value::Object(others)) => {
                    let others = others.iter().filter(|_| self.chance(25));
                    parts.extend(others.map(|(field, value)| (field.clone(), value.clone())));
                }
                _ if self.chance(25) => changed[field] = value.clone(),
                _ => {}
            }
        }
        changed
    }

    /// The bytes, some of them others.
    fn broken(&mut self, mut bytes: Vec<u8>) -> Vec<u8> {
        for _ in 0..self.random.random_range(1..6) {
            let place = self.random.random_range(0..=bytes.len());
            match self.random.random_range(0..4) {
                0 => bytes.truncate(place),
                1 => bytes.insert(place, self.random.random()),
                2 => bytes
                    .splice(place..place, *b"\"}]{[:,&*- ".first_chunk::<4>().unwrap_or(b"    "))
                    .for_each(drop),
                _ => {
                    if let Some(byte) = bytes.get_mut(place) {
                        *byte ^= 1 << self.random.random_range(0..8);
                    }
                }
            }
        }
        bytes
    }

    /// Messages within messages.
    fn message(&mut self, depth: usize) -> Vec<u8> {
        let mut message = Vec::new();
        for _ in 0..self.random.random_range(0..5) {
            let field = self.random.random_range(1..16);
            message.extend(match self.random.random_range(0..5) {
                0 => number(field, self.random.random_range(0..128)),
                1 => sized(field, self.text().as_bytes()),
                _ if depth > DEPTH => sized(field, b""),
                _ => {
                    let inner = self.message(depth + 1);
                    sized(field, &inner)
                }
            });
        }
        message
    }

    fn operations(&mut self) -> Value {
        let paths = [
            "",
            "/metadata",
            "/metadata/labels",
            "/metadata/labels/a~1b",
            "/spec",
            "/spec/-",
            "/data/a",
            "/status/x",
            "/x/0",
        ];
        let count = self.random.random_range(0..5);
        let one = |this: &mut Self| {
            let op = this.one(&["add", "remove", "replace", "move", "copy", "test", "nonsense"]);
            json!({"op": op, "path": this.one(&paths), "from": this.one(&paths), "value": this.rubbish()})
        };
        (0..count).map(|_| one(self)).collect()
    }

    fn query(&mut self) -> String {
        let names = [
            "labelSelector",
            "fieldSelector",
            "limit",
            "continue",
            "resourceVersion",
            "resourceVersionMatch",
            "dryRun",
            "fieldManager",
            "force",
            "fieldValidation",
            "propagationPolicy",
            "gracePeriodSeconds",
            "includeObject",
            "container",
            "tailLines",
            "sinceTime",
            "command",
            "ports",
            "pretty",
        ];
        let pairs = (0..self.random.random_range(0..4)).map(|_| {
            let value = match self.random.random_range(0..4) {
                0 => format!("{}={}", self.text(), self.text()),
                1 => format!("{} in ({},{}),!{}", self.text(), self.text(), self.text(), self.text()),
                2 => self
                    .one(&[
                        "Strict",
                        "Warn",
                        "All",
                        "Exact",
                        "NotOlderThan",
                        "Foreground",
                        "2",
                        "metadata.name=a",
                    ])
                    .into(),
                _ => self.text(),
            };
            format!("{}={}", self.one(&names), encoded(&value))
        });
        pairs.collect::<Vec<_>>().join("&")
    }

    /// `store`: what is there, of which most changes are made.
    fn request(&mut self, store: &Store) -> (String, Request<Body>) {
        let index = self.random.random_range(0..self.kinds.len());
        let (kind, schema) = self.kinds[index].clone();
        let namespace = kind.is_namespaced().then_some("default");
        let there: Vec<(String, Value)> = store
            .list(&kind.resource(), namespace)
            .map(|(key, object)| (key.name, object.value().clone()))
            .collect();
        let there = there.choose(&mut self.random).cloned().filter(|_| self.chance(90));
        let (name, there) = there.unwrap_or_else(|| (self.one(NAMES).to_owned(), json!({})));
        let group = if kind.group.is_empty() { "/api".to_owned() } else { format!("/apis/{}", kind.group) };
        let namespace = if kind.is_namespaced() { "/namespaces/default" } else { "" };
        let collection = format!("{group}/{}{namespace}/{}", kind.version, kind.plural);
        let part = self.one(&[
            "",
            "",
            "",
            "/status",
            "/scale",
            "/eviction",
            "/binding",
            "/ephemeralcontainers",
            "/token",
        ]);
        let object = format!("{collection}/{}{part}", encoded(&name));
        let (method, path, media, body) = match self.random.random_range(0..12) {
            0..=4 => {
                ("POST", collection, "application/json", self.of_kind(kind, &schema).to_string().into_bytes())
            }
            5 => {
                let yaml = serde_yaml_ng::to_string(&self.of_kind(kind, &schema)).unwrap_or_default();
                ("POST", collection, "application/yaml", yaml.into_bytes())
            }
            6 => {
                let message = self.message(0);
                let body = enveloped(&kind.api_version(), &kind.kind, &message);
                ("POST", collection, "application/vnd.kubernetes.protobuf", body)
            }
            7 => {
                let body = self.changed(&there, kind, &schema).to_string().into_bytes();
                ("PUT", object, "application/json", body)
            }
            8 | 9 => {
                let media = self.one(MEDIA);
                let patch = match media {
                    "application/json-patch+json" => self.operations(),
                    _ => {
                        let named = json!({"apiVersion": kind.api_version(), "kind": kind.kind});
                        self.changed(&named, kind, &schema)
                    }
                };
                ("PATCH", object, media, patch.to_string().into_bytes())
            }
            10 => {
                let path = if self.chance(30) { object } else { collection };
                ("GET", path, "", Vec::new())
            }
            _ => {
                let path = if self.chance(80) { object } else { collection };
                let options =
                    json!({"kind": "DeleteOptions", "apiVersion": "v1", self.text(): self.rubbish()});
                ("DELETE", path, "application/json", options.to_string().into_bytes())
            }
        };
        let body = if self.chance(15) { self.broken(body) } else { body };
        let uri = format!("{path}?{}", self.query());
        let accept = match self.random.random_range(0..40) {
            0 => "text/html",
            1..=10 => "application/json;as=Table;v=v1;g=meta.k8s.io",
            _ => "application/json",
        };
        let told = format!("{method} {uri} ({media})\n{}", String::from_utf8_lossy(&body));
        let request = Request::builder()
            .method(method)
            .uri(&uri)
            .header("authorization", format!("Bearer {TOKEN}"))
            .header("content-type", media)
            .header("accept", accept)
            .body(body.into());
        (told, request.unwrap())
    }
}

/// As it stands in an address.
fn encoded(text: &str) -> String {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-._".contains(&byte);
    text.bytes()
        .map(|byte| if plain(byte) { char::from(byte).to_string() } else { format!("%{byte:02X}") })
        .collect()
}

/// Says what was asked when a test ends with it.
struct Asked(u64, u64, String);

impl Drop for Asked {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("seed {}, case {}: {}", self.0, self.1, self.2);
        }
    }
}

/// The most memory that this process has had so far.
fn most_kib() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    line.trim().trim_end_matches(" kB").parse().unwrap()
}

fn chosen(variable: &str, otherwise: u64) -> u64 {
    std::env::var(variable).ok().map_or(otherwise, |value| value.parse().expect("a number"))
}

/// Sends it, and tells the code that it was answered with.
async fn is_understood(server: &Server, request: Request<Body>) -> u16 {
    let answer = server.router.clone().oneshot(request).await.unwrap();
    let code = answer.status().as_u16();
    let bytes = axum::body::to_bytes(answer.into_body(), 64 << 20).await.unwrap();
    assert!(
        (200..500).contains(&code) || code == 503 || code == 504,
        "{code}: {}",
        String::from_utf8_lossy(&bytes)
    );
    if code >= 400 {
        let status: Value = serde_json::from_slice(&bytes).expect("an error is a Status");
        assert_eq!((&status["kind"], &status["code"]), (&json!("Status"), &json!(code)), "{status}");
        assert!(status["message"].as_str().is_some_and(|message| !message.is_empty()), "{status}");
    }
    code
}

#[tokio::test]
async fn whatever_comes_is_answered_as_clients_understand_it() {
    let (first, cases) = (chosen("GAGGLE_FUZZ_SEED", 1), chosen("GAGGLE_FUZZ_CASES", CASES));
    let server = Server::start().await;
    let Definitions { schemas, kinds, .. } = schema::definitions();
    let mut source = Source { random: StdRng::seed_from_u64(first), schemas, kinds };
    assert_eq!(source.kinds.len(), kinds::all().count(), "every kind has a schema to make objects by");
    let before = most_kib();
    for (path, body) in GOOD {
        assert_eq!(server.call("POST", path, "application/json", body).await.code, 201, "{path}: {body}");
    }
    let mut answers: BTreeMap<(String, u16), u64> = BTreeMap::new();
    for case in 0..cases {
        // Without a quorum now and then: what is kept goes another way.
        server.quorum.send_replace(case % 10 != 9);
        let (told, request) = server.view.read(|store| source.request(store));
        let asked = Asked(first, case, told);
        let method = request.method().to_string();
        let code = is_understood(&server, request).await;
        *answers.entry((method, code)).or_default() += 1;
        drop(asked);
    }
    // Requests that are all refused at the door would show nothing.
    println!("{answers:#?}");
    for (method, code) in [("POST", 201), ("PUT", 200), ("PATCH", 200), ("GET", 200), ("DELETE", 200)] {
        assert!(answers.contains_key(&(method.to_owned(), code)), "no {method} was ever taken: {answers:?}");
    }
    let grown = most_kib() - before;
    assert!(grown < GROWTH_KIB, "{grown} KiB more");
}

#[tokio::test]
async fn small_bodies_that_become_large_ones_are_refused() {
    let server = Server::start().await;
    server.config_map("a", json!({"color": "red"})).await;
    let before = most_kib();
    let nested =
        |open: &str, close: &str| [open.repeat(400_000), close.repeat(400_000)].concat().into_bytes();
    let names = "bcdefghijk";
    let lists = names
        .chars()
        .zip("abcdefghij".chars())
        .map(|(this, last)| format!("{this}: &{this} [{}]\n", vec![format!("*{last}"); 9].join(", ")));
    let bomb = format!("a: &a [{}]\n{}", ["lol"; 9].join(", "), lists.collect::<String>());
    let doubled = json!(vec![json!({"op": "copy", "from": "", "path": "/data/x"}); 64]);
    let message = (0..2_000).fold(Vec::new(), |inner, _| sized(1, &inner));
    let one = format!("{CONFIG_MAPS}/a");
    for (method, path, media, body) in [
        ("POST", CONFIG_MAPS, "application/json", nested("[", "]")),
        ("POST", CONFIG_MAPS, "application/json", nested("{\"a\":", "}")),
        ("POST", CONFIG_MAPS, "application/yaml", nested("[", "]")),
        ("POST", CONFIG_MAPS, "application/yaml", bomb.clone().into_bytes()),
        ("POST", CONFIG_MAPS, "application/vnd.kubernetes.protobuf", enveloped("v1", "ConfigMap", &message)),
        ("PATCH", &one, "application/apply-patch+yaml", bomb.into_bytes()),
        ("PATCH", &one, "application/json-patch+json", doubled.to_string().into_bytes()),
        ("PATCH", &one, "application/merge-patch+json", nested("{\"a\":", "}")),
        ("PATCH", &one, "application/strategic-merge-patch+json", nested("{\"a\":", "}")),
    ] {
        let asked = Asked(0, 0, format!("{method} {path} {media}"));
        let answer = server.call(method, path, media, body).await;
        assert!((400..500).contains(&answer.code), "{method} {media}: {} {}", answer.code, answer.json());
        drop(asked);
    }
    let grown = most_kib() - before;
    assert!(grown < GROWTH_KIB, "{grown} KiB more");
}
