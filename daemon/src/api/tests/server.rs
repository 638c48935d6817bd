//! A served API for tests, with everything behind it in memory.

use crate::api::{ApiState, Tokens, User, router, serve};
use crate::documents::{DocumentError, Documents};
use crate::pods::{
    ByteStream, Connection, LogOptions, PodRef, PodStreams, Process, ProcessOptions, StreamError, fake,
};
use crate::tokens::{Revocations, SigningKey, TokenKeeper};
use crate::usage::{ContainerUsage, Measured, Usage, Usages};
use futures::StreamExt;
use gaggle_gossip::identity::ClusterKey;
use gaggle_sched::controller::definition::DefinitionController;
use gaggle_sched::controller::namespace::NamespaceController;
use gaggle_sched::controller::{AccessController, Controller};
use gaggle_sched::state::{
    Adopted, Applied, Expect, Key, Propose, Refused, Resource, Txn, Unavailable, View, Write,
};
use serde_json::Value;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::{Arc, Mutex};
use tokio::io::AsyncWriteExt;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

pub const TOKEN: &str = "a-token-for-tests";
/// Users beside the administrator, who may nothing that they are not given.
pub const PEOPLE: [&str; 2] = ["ann", "ben"];

pub fn token_of(name: &str) -> String {
    format!("a-token-of-{name}")
}

/// Orders writes by applying them at once.
pub struct Direct {
    view: View,
    pub quorum: watch::Receiver<bool>,
}

#[async_trait::async_trait]
impl Propose for Direct {
    async fn propose(&self, txn: Txn) -> Result<Result<Applied, Refused>, Unavailable> {
        if !*self.quorum.borrow() {
            return Err(Unavailable::NoQuorum("this test has none".into()));
        }
        Ok(self.view.write(|store| store.apply(&txn)))
    }
}

/// Remembers what was prepared and kept.
#[derive(Default)]
pub struct Memory {
    pub kept: Mutex<Vec<(Key, Option<Value>)>>,
    pub prepared: Mutex<Vec<(Key, Option<Value>)>>,
    /// What edits were made from, where nobody ordered them.
    pub edited: Mutex<Vec<(Key, Value)>>,
}

#[async_trait::async_trait]
impl Documents for Memory {
    async fn prepare(&self, key: &Key, object: Option<&Value>) -> Result<Adopted, DocumentError> {
        let change = object.map(Value::to_string).unwrap_or_default().into_bytes();
        self.prepared.lock().unwrap().push((key.clone(), object.cloned()));
        Ok(Adopted { change, heads: vec![[0; 32]], base: None })
    }

    async fn prepare_edit(&self, key: &Key, before: &Value, after: &Value) -> Result<Adopted, DocumentError> {
        self.edited.lock().unwrap().push((key.clone(), before.clone()));
        self.prepare(key, Some(after)).await
    }

    async fn prepare_made(&self, key: &Key, object: &Value) -> Result<Adopted, DocumentError> {
        self.prepare(key, Some(object)).await
    }

    async fn keep(&self, key: &Key, adopted: &Adopted) -> Result<(), DocumentError> {
        self.kept.lock().unwrap().push((key.clone(), serde_json::from_slice(&adopted.change).ok()));
        Ok(())
    }
}

/// Says what it was asked for.
struct Echo;

#[async_trait::async_trait]
impl PodStreams for Echo {
    async fn logs(&self, pod: &PodRef, options: &LogOptions) -> Result<ByteStream, StreamError> {
        let line = format!("{} {} tail={:?}\n", pod.name, options.container, options.tail_lines);
        Ok(futures::stream::iter([Ok(line.into_bytes())]).boxed())
    }

    async fn process(&self, pod: &PodRef, options: &ProcessOptions) -> Result<Process, StreamError> {
        match pod.name.as_str() {
            "starting" => {
                Err(StreamError::NotFound(format!("container not found (\"{}\")", options.container)))
            }
            _ => Ok(fake::process(options)),
        }
    }

    /// Says each thing again, and what the port is before it.
    async fn port(&self, _: &PodRef, port: u16) -> Result<Box<dyn Connection>, StreamError> {
        if port == CLOSED {
            return Err(StreamError::BadRequest("connection refused".into()));
        }
        let (near, far) = tokio::io::duplex(1 << 10);
        tokio::spawn(async move {
            let (mut reading, mut writing) = tokio::io::split(far);
            writing.write_all(format!("port {port}\n").as_bytes()).await.unwrap();
            let _ = tokio::io::copy(&mut reading, &mut writing).await;
            let _ = writing.shutdown().await;
        });
        Ok(Box::new(near))
    }
}

/// What each of the desktop's pods takes; the desktop `away` does not say.
#[async_trait::async_trait]
impl Usages for Echo {
    async fn measured(&self, node: &str) -> Result<Measured, StreamError> {
        if node == "away" {
            return Err(StreamError::Unavailable("it is not there".into()));
        }
        let container = |pod: &str, name: &str, nanocores| ContainerUsage {
            namespace: "default".into(),
            pod: pod.into(),
            uid: format!("uid-{pod}"),
            container: name.into(),
            usage: Usage { nanocores, memory_bytes: 8 << 20 },
        };
        Ok(Measured {
            at: "2026-01-02T03:04:05.678Z".parse().unwrap(),
            window_ms: 1500,
            node: Usage { nanocores: 1_500_000_000, memory_bytes: 3 << 30 },
            containers: vec![
                container("web", "main", 250_000_000),
                container("web", "side", 1),
                container("a-past-one", "main", 1),
            ],
        })
    }
}

/// Nobody listens there.
pub const CLOSED: u16 = 9;

pub struct Server {
    pub address: SocketAddr,
    pub ca_pem: String,
    pub view: View,
    pub documents: Arc<Memory>,
    pub quorum: watch::Sender<bool>,
    pub revoked: Revocations,
    /// What is served, to be asked without a connection.
    pub router: axum::Router,
    stop: CancellationToken,
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

impl Server {
    pub async fn start() -> Self {
        let view = View::default();
        let now = k8s_openapi::apimachinery::pkg::apis::meta::v1::Time(crate::api::now());
        let controllers: [&dyn Controller; 2] = [&NamespaceController, &AccessController];
        // Roles are made of others that are made of others.
        for controller in std::iter::repeat_n(controllers, 4).flatten() {
            for key in view.read(|store| controller.all(store)) {
                let plan = view.read(|store| controller.reconcile(store, &key, &now));
                for txn in plan.writes {
                    view.write(|store| store.apply(&txn)).unwrap();
                }
            }
        }
        let (quorum, has_quorum) = watch::channel(true);
        let documents = Arc::new(Memory::default());
        let groups = vec!["system:masters".into()];
        let user = User { name: "admin".into(), groups, ..User::default() };
        let revoked = Revocations::default();
        let people = PEOPLE.iter().map(|name| {
            let groups = vec!["system:authenticated".into()];
            (token_of(name), User { name: (*name).into(), groups, ..User::default() })
        });
        let state = ApiState {
            view: view.clone(),
            kinds: crate::api::kinds::Kinds::new(view.clone()),
            propose: Arc::new(Direct { view: view.clone(), quorum: has_quorum.clone() }),
            documents: documents.clone(),
            pods: Arc::new(Echo),
            usages: Arc::new(Echo),
            tokens: Arc::new(TokenKeeper::new(
                Tokens::new(people.chain([(TOKEN.to_owned(), user)])),
                SigningKey::of(&ClusterKey::from_bytes([7; 32])),
                view.clone(),
                revoked.clone(),
            )),
            node: "desktop".into(),
            quorum: has_quorum,
        };
        let (tls, ca_pem) = certificate();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let stop = CancellationToken::new();
        let router = router(state);
        tokio::spawn(serve(listener, Arc::new(tls), router.clone(), stop.clone()));
        Self { address, ca_pem, view, documents, quorum, revoked, router, stop }
    }

    pub fn stop(&self) {
        self.stop.cancel();
    }

    /// Writes a kubeconfig into `home`.
    pub fn write_kubeconfig(&self, home: &Path) {
        std::fs::write(home.join("ca.pem"), &self.ca_pem).unwrap();
        let config = format!(
            "apiVersion: v1\nkind: Config\ncurrent-context: t\n\
             contexts: [{{name: t, context: {{cluster: t, user: t}}}}]\n\
             users: [{{name: t, user: {{token: {TOKEN}}}}}]\n\
             clusters: [{{name: t, cluster: {{server: 'https://{}', certificate-authority: ca.pem}}}}]\n",
            self.address
        );
        std::fs::write(home.join("config"), config).unwrap();
    }

    /// Plays a controller or an agent: writes an object's status.
    pub fn set_status(&self, key: &Key, status: Value) {
        let uid = self.view.read(|store| store.get(key).unwrap().uid().to_owned());
        let write = Write::Status { key: key.clone(), uid, status, seen: None };
        self.view.write(|store| store.apply(&write.into())).unwrap();
    }
}

impl Server {
    /// Plays the leader where it judges definitions.
    pub fn play_definitions(&self) -> tokio::task::JoinHandle<()> {
        let view = self.view.clone();
        tokio::spawn(async move {
            let mut bell = view.subscribe();
            loop {
                bell.mark_unchanged();
                let now = k8s_openapi::apimachinery::pkg::apis::meta::v1::Time(crate::api::now());
                for key in view.read(|store| DefinitionController.all(store)) {
                    let plan = view.read(|store| DefinitionController.reconcile(store, &key, &now));
                    for txn in plan.writes {
                        // A refusal comes round again.
                        let _ = view.write(|store| store.apply(&txn));
                    }
                }
                if bell.changed().await.is_err() {
                    return;
                }
            }
        })
    }

    /// Plays the agents: pods that are to end do so at once.
    pub fn play_agent(&self) -> tokio::task::JoinHandle<()> {
        let view = self.view.clone();
        tokio::spawn(async move {
            let mut bell = view.subscribe();
            loop {
                bell.mark_unchanged();
                let pods = Resource::fixed("pods");
                let ended: Vec<Key> = view.read(|store| {
                    let pods = store.list(&pods, None).filter(|(_, pod)| pod.is_terminating());
                    pods.map(|(key, _)| key).collect()
                });
                for key in ended {
                    let write = Write::Delete { key, expect: Expect::Present, intent: None };
                    view.write(|store| store.apply(&write.into())).unwrap();
                }
                if bell.changed().await.is_err() {
                    return;
                }
            }
        })
    }
}

fn certificate() -> (rustls::ServerConfig, String) {
    let signed = rcgen::generate_simple_self_signed(vec!["127.0.0.1".to_owned()]).unwrap();
    let key = rustls::pki_types::PrivateKeyDer::try_from(signed.signing_key.serialize_der()).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![signed.cert.der().clone()], key)
        .unwrap();
    config.alpn_protocols = crate::api::serve::alpn();
    (config, signed.cert.pem())
}
