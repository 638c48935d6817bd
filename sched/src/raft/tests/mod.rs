//! Several groups in one process, over a network that can be cut.

mod damage;
mod disk;
mod following;
mod guard;
mod quorum;
mod salvaging;
mod slow;

use super::*;
use crate::state::{Applied, Expect, Key, Lineage, Resource, Revision, Txn, TxnId, View, Write};
use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tempfile::TempDir;

/// For anything that should take well under a second, on a machine that is busy with other things.
const PATIENCE: Duration = Duration::from_secs(60);

pub(super) fn group_id() -> GroupId {
    "00112233aabbccdd".parse().unwrap()
}

pub(super) fn storage() -> Arc<dyn Storage> {
    Arc::new(FileSystem)
}

pub(super) fn set(peers: &[&str]) -> BTreeSet<String> {
    peers.iter().map(|peer| peer.to_string()).collect()
}

/// Delivers frames between the groups of one process.
#[derive(Default)]
pub(super) struct Hub {
    groups: Mutex<BTreeMap<String, Group>>,
    cut: Mutex<BTreeSet<String>>,
    /// How long a frame travels.
    delay: Mutex<Duration>,
    /// How long a kilobyte takes.
    pace: Mutex<Duration>,
}

pub(super) struct Port {
    hub: Arc<Hub>,
    me: String,
}

impl Hub {
    pub fn port(self: &Arc<Self>, me: &str) -> Arc<dyn Network> {
        Arc::new(Port { hub: self.clone(), me: me.into() })
    }

    pub fn put(&self, me: &str, group: &Group) {
        self.groups.lock().unwrap().insert(me.into(), group.clone());
    }

    pub fn take(&self, me: &str) -> Option<Group> {
        self.groups.lock().unwrap().remove(me)
    }

    /// Takes a node's cable out.
    pub fn cut(&self, peer: &str) {
        self.cut.lock().unwrap().insert(peer.into());
    }

    pub fn heal(&self, peer: &str) {
        self.cut.lock().unwrap().remove(peer);
    }

    /// From now on every frame travels for this long.
    pub fn delay(&self, one_way: Duration) {
        *self.delay.lock().unwrap() = one_way;
    }

    /// From now on a kilobyte takes so long.
    pub fn slow_down(&self, kilobyte: Duration) {
        *self.pace.lock().unwrap() = kilobyte;
    }

    async fn travel(&self, bytes: usize) {
        let (delay, pace) = (*self.delay.lock().unwrap(), *self.pace.lock().unwrap());
        tokio::time::sleep(delay + pace * u32::try_from(bytes / 1024).unwrap()).await;
    }

    fn reach(&self, from: &str, to: &str) -> Result<Group, String> {
        let cut = self.cut.lock().unwrap();
        if cut.contains(from) || cut.contains(to) {
            return Err("the cable is out".into());
        }
        self.groups.lock().unwrap().get(to).cloned().ok_or_else(|| "nobody is there".into())
    }
}

#[async_trait::async_trait]
impl Network for Port {
    async fn call(&self, to: &str, frame: Vec<u8>) -> Result<Vec<u8>, String> {
        assert!(frame.len() <= MAX_FRAME_BYTES);
        self.hub.travel(frame.len()).await;
        let group = self.hub.reach(&self.me, to)?;
        let reply = group.receive(&self.me, &frame).await;
        self.hub.travel(reply.len()).await;
        self.hub.reach(&self.me, to).map(|_| reply)
    }
}

/// Nodes by name, each with a directory and a view.
pub(super) struct Bench {
    pub hub: Arc<Hub>,
    dir: TempDir,
    pub views: BTreeMap<String, View>,
}

impl Bench {
    pub fn new() -> Self {
        Self { hub: Arc::default(), dir: tempfile::tempdir().unwrap(), views: BTreeMap::new() }
    }

    pub fn dir(&self, peer: &str) -> PathBuf {
        self.dir.path().join(peer)
    }

    pub fn config(&self, peer: &str) -> GroupConfig {
        let timings = Timings {
            propose_deadline: Duration::from_secs(20),
            change_deadline: PATIENCE,
            ..Timings::lan()
        };
        GroupConfig {
            dir: self.dir(peer),
            storage: storage(),
            me: peer.into(),
            timings,
            retention: Retention::default(),
            gate: Gate::default(),
        }
    }

    pub fn view(&mut self, peer: &str) -> View {
        self.views.entry(peer.into()).or_default().clone()
    }

    /// A founder that leads.
    pub async fn found(&mut self, peer: &str) -> Group {
        let (config, port, view) = (self.config(peer), self.hub.port(peer), self.view(peer));
        let group = Group::found(config, port, view, group_id(), 1).await.unwrap();
        self.hub.put(peer, &group);
        until(&group, |status| status.role == Role::Leader && status.quorum).await;
        group
    }

    pub async fn join(&mut self, peer: &str, leader: &str) -> Group {
        let (config, port, view) = (self.config(peer), self.hub.port(peer), self.view(peer));
        let group = Group::join(config, port, view, group_id(), 1, set(&[leader])).await.unwrap();
        self.hub.put(peer, &group);
        group
    }

    /// `a` and the others as voters, `a` leading.
    pub async fn flock(&mut self, others: &[&str]) -> BTreeMap<String, Group> {
        let leader = self.found("a").await;
        let mut groups = BTreeMap::from([("a".to_owned(), leader.clone())]);
        for peer in others {
            groups.insert(peer.to_string(), self.join(peer, "a").await);
        }
        leader.set_voters(groups.keys().cloned().collect()).await.unwrap();
        groups
    }

    /// Stops a node's group as if it had crashed, as far as the others can tell.
    pub async fn kill(&mut self, peer: &str) {
        self.hub.cut(peer);
        if let Some(group) = self.hub.take(peer) {
            group.stop().await;
        }
    }

    /// Starts it again with an empty view.
    pub async fn restart(&mut self, peer: &str) -> Group {
        self.views.insert(peer.into(), View::default());
        let (config, port, view) = (self.config(peer), self.hub.port(peer), self.view(peer));
        let group = Group::resume(config, port, view).await.unwrap().expect("a group is on the disk");
        self.hub.put(peer, &group);
        self.hub.heal(peer);
        group
    }

    pub async fn end(self, groups: impl IntoIterator<Item = Group>) {
        for group in groups {
            group.stop().await;
        }
    }
}

pub(super) async fn until(group: &Group, mut done: impl FnMut(&Status) -> bool) -> Status {
    let mut status = group.status();
    let reached = tokio::time::timeout(PATIENCE, status.wait_for(|status| done(status))).await;
    match reached {
        Ok(status) => status.unwrap().clone(),
        Err(_) => panic!("it did not come about: {:?}", *group.status().borrow()),
    }
}

/// The group among `groups` that leads a quorum.
pub(super) async fn leader<'a>(groups: impl IntoIterator<Item = &'a Group>) -> &'a Group {
    let waits = groups.into_iter().map(|group| {
        Box::pin(async move {
            until(group, |status| status.role == Role::Leader && status.quorum).await;
            group
        })
    });
    futures::future::select_all(waits).await.0
}

pub(super) fn key(name: &str) -> Key {
    Key::new(Resource::fixed("configmaps"), "default", name)
}

pub(super) fn put(name: &str, value: &str) -> Txn {
    let value = serde_json::json!({"metadata": {"name": name, "uid": name}, "data": {"v": value}});
    Write::Put { key: key(name), value, expect: Expect::Any, intent: None }.into()
}

/// Writes as a client does: what is not answered, because a busy disk held up the quorum, is sent again.
pub(super) async fn write(group: &Group, name: &str) -> Applied {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    let txn = Txn { id: Some(TxnId(0, NEXT.fetch_add(1, Ordering::Relaxed))), ..put(name, "1") };
    let written = async {
        loop {
            match group.propose(txn.clone()).await {
                Ok(outcome) => return outcome.unwrap(),
                Err(ProposeError::Unknown(_) | ProposeError::NoQuorum) => {
                    until(group, |status| status.role == Role::Leader && status.quorum).await;
                }
                Err(error) => panic!("{error}"),
            }
        }
    };
    tokio::time::timeout(PATIENCE, written).await.expect("the write is not answered")
}

pub(super) async fn reached(view: &View, revision: Revision) {
    tokio::time::timeout(PATIENCE, view.reached(revision)).await.expect("the view did not get there");
}

pub(super) fn has(view: &View, name: &str) -> bool {
    view.read(|store| store.get(&key(name)).is_some())
}
