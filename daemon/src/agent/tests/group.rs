//! A group of one: proposals are applied to the view at once.

use crate::agent::{Agent, ImagePeers, PodTokens, TokenWish};
use crate::pods::{ByteStream, LogOptions, PodRef};
use futures::TryStreamExt;
use gaggle_sched::state::{Applied, Expect, Key, Object, Propose, Refused, Txn, Unavailable, View, Write};
use k8s_openapi::api::core::v1::Pod;
use serde_json::{Value, json};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

/// Generous: the machine may be busy. Nothing waits for it unless something is broken.
const DEADLINE: Duration = Duration::from_secs(60);

pub const NODE: &str = "ada";

#[derive(Clone, Default)]
pub struct Group {
    pub view: View,
    away: Arc<AtomicBool>,
    uids: Arc<AtomicU64>,
}

#[async_trait::async_trait]
impl Propose for Group {
    async fn propose(&self, txn: Txn) -> Result<Result<Applied, Refused>, Unavailable> {
        if self.away.load(Ordering::SeqCst) {
            return Err(Unavailable::NoQuorum("cut off".into()));
        }
        Ok(self.view.write(|store| store.apply(&txn)))
    }
}

impl Group {
    /// Without a quorum proposals fail.
    pub fn set_away(&self, away: bool) {
        self.away.store(away, Ordering::SeqCst);
    }

    pub fn put(&self, kind: &str, namespace: &str, name: &str, value: Value) {
        let key = Key::new(gaggle_sched::state::Resource::new("", kind), namespace, name);
        let write = Write::Put { key, value, expect: Expect::Any, intent: None };
        self.view.write(|store| store.apply(&write.into())).unwrap();
    }

    /// A pod bound to this node, with a uid of its own.
    pub fn pod(&self, name: &str, spec: Value) -> PodRef {
        let unique = self.uids.fetch_add(1, Ordering::SeqCst);
        let uid = format!("{unique:04x}{}-{name}", std::process::id());
        let mut spec = spec;
        spec["nodeName"] = json!(NODE);
        let value = json!({
            "apiVersion": "v1", "kind": "Pod",
            "metadata": {"name": name, "namespace": "default", "uid": uid, "labels": {"app": name}},
            "spec": spec,
            "status": {"phase": "Pending", "conditions": [
                {"type": "PodScheduled", "status": "True", "lastTransitionTime": "2026-01-01T00:00:00Z"}]},
        });
        self.put("pods", "default", name, value);
        PodRef { namespace: "default".into(), name: name.into(), uid, node: NODE.into() }
    }

    pub fn change(&self, name: &str, change: impl FnOnce(&mut Value)) {
        let key = Key::of::<Pod>("default", name);
        let mut value = self.view.read(|store| store.get(&key).unwrap().value().clone());
        change(&mut value);
        self.put("pods", "default", name, value);
    }

    pub fn delete(&self, name: &str, grace_s: i64) {
        self.change(name, |pod| {
            pod["metadata"]["deletionTimestamp"] = json!("2026-01-01T00:00:00Z");
            pod["metadata"]["deletionGracePeriodSeconds"] = json!(grace_s);
        });
    }

    /// Removes the object at once, as `kubectl delete --force` does.
    pub fn vanish(&self, name: &str) {
        let write =
            Write::Delete { key: Key::of::<Pod>("default", name), expect: Expect::Present, intent: None };
        self.view.write(|store| store.apply(&write.into())).unwrap();
    }

    pub fn object(&self, name: &str) -> Option<Arc<Object>> {
        self.view.read(|store| store.get(&Key::of::<Pod>("default", name)).cloned())
    }

    /// Waits until the pod's status is as wanted and returns it.
    pub async fn until(&self, name: &str, what: &str, wanted: impl Fn(&Value) -> bool) -> Value {
        let mut revision = self.view.subscribe();
        let wait = async {
            loop {
                let status =
                    self.object(name).map(|object| object.value()["status"].clone()).unwrap_or_default();
                if wanted(&status) {
                    return status;
                }
                revision.changed().await.unwrap();
            }
        };
        match tokio::time::timeout(DEADLINE, wait).await {
            Ok(status) => status,
            Err(_) => panic!("{name} never was {what}: {:#}", self.object(name).unwrap().value()["status"]),
        }
    }

    pub async fn until_phase(&self, name: &str, phase: &str) -> Value {
        self.until(name, phase, |status| status["phase"] == phase).await
    }

    pub async fn until_gone(&self, name: &str) {
        self.until(name, "gone", Value::is_null).await;
    }
}

/// Other desktops that have nothing.
/// Signs nothing.
pub struct NoTokens;

impl PodTokens for NoTokens {
    fn sign(&self, _: &TokenWish) -> String {
        String::new()
    }
}

pub struct NoPeers;

#[async_trait::async_trait]
impl ImagePeers for NoPeers {
    async fn fetch(&self, _: &str) -> Result<Option<ByteStream>, String> {
        Ok(None)
    }
}

pub async fn log_of(agent: &Agent, pod: &PodRef, options: LogOptions) -> String {
    let parts: Vec<Vec<u8>> = agent.logs(pod, &options).await.unwrap().try_collect().await.unwrap();
    String::from_utf8(parts.concat()).unwrap()
}

pub async fn within<T>(what: &str, wait: impl Future<Output = T>) -> T {
    match tokio::time::timeout(DEADLINE, wait).await {
        Ok(done) => done,
        Err(_) => panic!("waited too long for {what}"),
    }
}
