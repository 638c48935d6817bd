//! Three nodes, a network that loses and reorders, and a peer that lies.

use crate::intent::samples::{deployment, with};
use crate::intent::wire::{Answer, Question, decode, encode};
use crate::intent::{Intent, Keeper, KubernetesLists, Peers, Syncer};
use proptest::prelude::*;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tempfile::TempDir;
use tokio::sync::watch;

/// All nodes and who is cut off; may lose a quarter of all calls, before or after they are served.
struct Network {
    nodes: Mutex<BTreeMap<String, Intent>>,
    cut: watch::Sender<Vec<String>>,
    calls: AtomicU64,
    lossy: bool,
}

struct Link {
    from: String,
    network: Arc<Network>,
    cut: tokio::sync::Mutex<watch::Receiver<Vec<String>>>,
}

#[async_trait::async_trait]
impl Peers for Link {
    fn connected(&self) -> Vec<String> {
        let cut = self.network.cut.borrow().clone();
        let names = self.network.nodes.lock().unwrap().keys().cloned().collect::<Vec<_>>();
        let reachable =
            |name: &String| *name != self.from && !cut.contains(name) && !cut.contains(&self.from);
        names.into_iter().filter(reachable).collect()
    }

    async fn changed(&self) {
        if self.cut.lock().await.changed().await.is_err() {
            std::future::pending().await
        }
    }

    async fn call(&self, peer: &str, request: Vec<u8>) -> Result<Vec<u8>, String> {
        let number = self.network.calls.fetch_add(1, Ordering::Relaxed);
        // By hash and not by turns, which could fall into step with the sequence of the questions.
        let fate = Sha256::digest(number.to_be_bytes())[0] % 8;
        let lost = |when| self.network.lossy && fate == when;
        if !self.connected().contains(&peer.to_owned()) || lost(0) {
            return Err("lost".to_owned());
        }
        let node = self.network.nodes.lock().unwrap().get(peer).cloned().unwrap();
        let answer = node.answer(&request).await;
        if lost(1) { Err("lost on the way back".to_owned()) } else { Ok(answer) }
    }
}

struct Bench {
    _dir: TempDir,
    network: Arc<Network>,
    keepers: BTreeMap<String, Keeper>,
    tasks: tokio::task::JoinSet<()>,
}

impl Bench {
    fn new(names: &[&str], lossy: bool) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let nodes = names.iter().map(|name| {
            let intent = Intent::open(&dir.path().join(name), name, KubernetesLists).unwrap();
            (name.to_string(), intent)
        });
        let nodes: BTreeMap<String, Intent> = nodes.collect();
        let cut = names.iter().map(|name| name.to_string()).collect();
        let network = Arc::new(Network {
            nodes: Mutex::new(nodes.clone()),
            cut: watch::channel(cut).0,
            calls: AtomicU64::new(0),
            lossy,
        });
        let mut tasks = tokio::task::JoinSet::new();
        let keepers = nodes.into_iter().map(|(name, intent)| {
            let cut = tokio::sync::Mutex::new(network.cut.subscribe());
            let link = Arc::new(Link { from: name.clone(), network: network.clone(), cut });
            let (keeper, syncer) = Syncer::new(intent, link, Duration::from_millis(50));
            tasks.spawn(syncer.run());
            (name, keeper)
        });
        Self { _dir: dir, keepers: keepers.collect(), network, tasks }
    }

    fn node(&self, name: &str) -> Intent {
        self.network.nodes.lock().unwrap()[name].clone()
    }

    async fn set(&self, name: &str, key: &str, object: Option<&Value>) {
        let change = self.node(name).prepare(key, object).await.unwrap();
        self.keepers[name].keep(key, &change.bytes).await.unwrap();
    }

    fn heal(&self) {
        self.network.cut.send_replace(vec![]);
    }

    async fn alike(&self) -> Vec<(String, u32, crate::intent::Heads)> {
        let nodes: Vec<Intent> = self.network.nodes.lock().unwrap().values().cloned().collect();
        let mut bells: Vec<_> = nodes.iter().map(Intent::changed).collect();
        let alike = async {
            loop {
                bells.iter_mut().for_each(watch::Receiver::mark_unchanged);
                let digests: Vec<_> = nodes.iter().map(Intent::digest).collect();
                if digests.windows(2).all(|pair| pair[0] == pair[1]) {
                    return digests[0].clone();
                }
                let rung = bells.iter_mut().map(|bell| Box::pin(bell.changed()));
                futures::future::select_all(rung).await.0.unwrap();
            }
        };
        tokio::time::timeout(Duration::from_secs(60), alike).await.expect("nodes come to hold the same")
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn three_nodes_with_a_lossy_network_come_to_hold_the_same() {
    let bench = Bench::new(&["a", "b", "c"], true);
    for n in 0..60 {
        let object = with(&deployment(), "/spec/replicas", json!(n));
        bench.set(["a", "b", "c"][n % 3], &format!("key-{n}"), Some(&object)).await;
    }
    bench.set("a", "shared", Some(&deployment())).await;
    bench.set("b", "shared", Some(&with(&deployment(), "/metadata/labels/b", json!("1")))).await;
    bench.set("c", "key-2", None).await;
    bench.heal();
    let digest = bench.alike().await;
    assert_eq!(digest.len(), 61);
    for name in ["a", "b", "c"] {
        let node = bench.node(name);
        assert!(node.is_deleted("key-2"));
        assert_eq!(node.value("shared").await.unwrap().unwrap()["metadata"]["labels"]["b"], json!("1"));
    }

    // Cut off again: two sides edit one object, and one of them a great deal.
    bench.network.cut.send_replace(vec!["c".to_owned()]);
    for n in 0..90 {
        bench.set("c", "shared", Some(&with(&deployment(), "/spec/replicas", json!(n)))).await;
    }
    bench.set("a", "shared", Some(&with(&deployment(), "/metadata/labels/a", json!("1")))).await;
    bench.heal();
    bench.alike().await;
    let merged = bench.node("b").value("shared").await.unwrap().unwrap();
    assert_eq!((&merged["spec"]["replicas"], &merged["metadata"]["labels"]["a"]), (&json!(89), &json!("1")));
    drop(bench.tasks);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn objects_of_megabytes_and_burials_arrive_too() {
    let bench = Bench::new(&["a", "b"], false);
    for n in 0..3 {
        let object = json!({"data": {"big": format!("{n}").repeat(2 << 20)}});
        bench.set("a", &format!("big-{n}"), Some(&object)).await;
    }
    bench.set("a", "dead", Some(&deployment())).await;
    bench.set("b", "dead", Some(&deployment())).await;
    bench.set("a", "dead", None).await;
    let in_two_days = crate::intent::now_ms() + 2 * 24 * 60 * 60 * 1000;
    assert_eq!(bench.node("a").compact(in_two_days).await.unwrap(), 1);
    bench.heal();
    assert_eq!(bench.alike().await.len(), 4);
    assert!(bench.node("b").is_deleted("dead"));
    drop(bench.tasks);
}

#[tokio::test]
async fn hostile_questions_get_a_refusal() {
    let dir = tempfile::tempdir().unwrap();
    let intent = Intent::open(&dir.path().join("x"), "x", KubernetesLists).unwrap();
    let frames = vec![("k".to_owned(), vec![1u8, 0, 0, 0, 0, 1, 0, 0, 0, 1, 9].into())];
    let refused = intent.answer(&encode(&Question::Push { frames }).unwrap()).await;
    assert_eq!(decode::<Answer>(&refused).unwrap(), Answer::Taken { refused: 1 });
    for bytes in [&[][..], &[9], &[1], &[1, 0xff], &[1, 0x91, 0x91, 0x91, 0x91]] {
        let answer = intent.answer(bytes).await;
        assert!(matches!(decode(&answer).unwrap(), Answer::Refused(_)));
    }
    assert_eq!(intent.digest(), []);
}

proptest! {
    #[test]
    fn any_message_is_judged_without_a_panic(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
        let mut message = vec![1];
        message.extend(&bytes);
        let _ = decode::<Question>(&message);
        let _ = decode::<Answer>(&message);
    }
}
