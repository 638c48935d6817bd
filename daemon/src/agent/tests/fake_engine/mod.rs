//! The loop with an engine in memory: what must hold whatever an engine is.

mod identities;
mod pods;
mod yielding;

use super::group::{Group, NODE, NoPeers, NoTokens, within};
use crate::agent::engine::Engine;
use crate::agent::engine::fake::FakeEngine;
use crate::agent::shell::Connector;
use crate::agent::{Agent, AgentConfig, ImagePeers};
use crate::boottime::boottime_ms;
use futures::FutureExt;
use serde_json::{Value, json};
use std::sync::Arc;
use tokio::sync::watch;

struct Bench {
    group: Group,
    engine: FakeEngine,
    agent: Agent,
    current: watch::Sender<bool>,
    heard: watch::Sender<u64>,
    dir: tempfile::TempDir,
}

fn bench_with(peers: Arc<dyn ImagePeers>) -> Bench {
    let (group, engine) = (Group::default(), FakeEngine::default());
    engine.add_image("app:1");
    let dir = tempfile::tempdir().unwrap();
    let ((current, _), (heard, _)) = (watch::channel(true), watch::channel(boottime_ms()));
    let agent = start(&group, &engine, &dir, (&current, &heard), peers);
    Bench { group, engine, agent, current, heard, dir }
}

fn bench() -> Bench {
    bench_with(Arc::new(NoPeers))
}

fn start(
    group: &Group,
    engine: &FakeEngine,
    dir: &tempfile::TempDir,
    (current, heard): (&watch::Sender<bool>, &watch::Sender<u64>),
    peers: Arc<dyn ImagePeers>,
) -> Agent {
    let config = AgentConfig {
        node: NODE.into(),
        cluster: "lab".into(),
        docker_host: None,
        dir: dir.path().into(),
        dns: vec![],
        dns_search: vec![],
        api: None,
    };
    let engine = engine.clone();
    let connector: Connector = Arc::new(move || {
        let engine = engine.clone();
        async move {
            engine.ping().await?;
            Ok(Arc::new(engine) as Arc<dyn Engine>)
        }
        .boxed()
    });
    Agent::start_with(
        config,
        group.view.clone(),
        (current.subscribe(), heard.subscribe()),
        Arc::new(group.clone()),
        (peers, Arc::new(NoTokens)),
        connector,
    )
}

impl Bench {
    fn restart(&mut self) {
        self.agent =
            start(&self.group, &self.engine, &self.dir, (&self.current, &self.heard), Arc::new(NoPeers));
    }

    async fn until_engine(&self, what: &str, wanted: impl Fn(&FakeEngine) -> bool) {
        within(what, async {
            while !wanted(&self.engine) {
                tokio::task::yield_now().await;
            }
        })
        .await;
    }
}

fn one(image: &str) -> Value {
    json!({"containers": [{"name": "main", "image": image}]})
}

fn reason(status: &Value) -> &Value {
    &status["containerStatuses"][0]["state"]["waiting"]["reason"]
}

fn identity(image: &str) -> Value {
    let mut spec = one(image);
    spec["terminationGracePeriodSeconds"] = json!(30);
    spec
}

impl Bench {
    /// A pod of which at most one may run in the whole flock.
    fn single(&self, name: &str) {
        self.group.pod(name, identity("app:1"));
        self.group.change(name, |pod| {
            pod["metadata"]["annotations"] = json!({"gaggle.dev/at-most-once": "true"});
        });
    }

    fn runs(&self, name: &str) -> bool {
        let ids = self.engine.ids(name, "main");
        let state = self.engine.state();
        ids.iter()
            .any(|id| matches!(state.containers[id].state, crate::agent::engine::RunState::Running { .. }))
    }

    fn starts(&self, name: &str) -> usize {
        let start = format!("start gaggle_main_{name}_");
        self.engine.state().calls.iter().filter(|call| call.starts_with(&start)).count()
    }
}
