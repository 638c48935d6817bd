//! A cluster without time: a store, all controllers, the scheduler and an agent that plays with the pods.
//!
//! It takes one small step after another, in any order that a seed gives, so that tests can ask after each step
//! whether anything is broken that a user relies on.

use super::node::{NodeConfig, NodeReport, reconcile_nodes};
use super::pods;
use super::{Controller, Note, Plan, Settings, controllers, deletion};
use crate::scheduler::{Fencing, schedule};
use crate::state::{Expect, Key, Revision, Store, Txn, Write, resource_of};
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use k8s_openapi::jiff::Timestamp;
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

/// What a pod's program does once it runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Act {
    Serve,
    Succeed,
    Fail(i32),
}

/// Numbers that look random and are the same for the same seed.
#[derive(Clone, Debug)]
pub struct Dice(pub u64);

impl Dice {
    pub fn roll(&mut self, sides: usize) -> usize {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) as usize % sides.max(1)
    }
}

pub struct World {
    pub store: Store,
    pub now: Time,
    pub notes: Vec<Note>,
    pub reports: BTreeMap<String, NodeReport>,
    pub dice: Dice,
    pub config: NodeConfig,
    controllers: Vec<Box<dyn Controller>>,
    queue: BTreeSet<(usize, Key)>,
    due: BTreeMap<(usize, Key), Time>,
    seen: Revision,
    nodes_dirty: bool,
    nodes_due: Option<Time>,
}

impl World {
    pub fn new(seed: u64) -> Self {
        let mut world = Self {
            store: Store::default(),
            now: Time(Timestamp::from_second(1_700_000_000).unwrap()),
            notes: Vec::new(),
            reports: BTreeMap::new(),
            dice: Dice(seed),
            config: NodeConfig::default(),
            controllers: controllers(&Settings::default()),
            queue: BTreeSet::new(),
            due: BTreeMap::new(),
            seen: Revision::default(),
            nodes_dirty: false,
            nodes_due: None,
        };
        for (index, controller) in world.controllers.iter().enumerate() {
            world.queue.extend(controller.all(&world.store).into_iter().map(|key| (index, key)));
        }
        world
    }

    pub fn with_nodes(seed: u64, count: usize) -> Self {
        let mut world = Self::new(seed);
        for number in 0..count {
            world.join(&format!("desk-{number}"));
        }
        world.reconcile_nodes();
        world
    }

    pub fn join(&mut self, name: &str) {
        let report = NodeReport {
            name: name.into(),
            peer: format!("peer-{name}"),
            alive: true,
            ready: true,
            cpu_millis: 16_000,
            memory_bytes: 64 << 30,
            pods: 110,
            arch: "amd64".into(),
            addresses: vec!["10.0.0.1".into()],
            ..NodeReport::default()
        };
        self.reports.insert(name.into(), report);
        self.nodes_dirty = true;
    }

    /// Switches a desktop off, long enough ago that its pods are given up.
    pub fn kill_node(&mut self, name: &str) {
        if let Some(report) = self.reports.get_mut(name) {
            report.alive = false;
            report.since = Duration::from_secs(5);
        }
        self.nodes_dirty = true;
    }

    pub fn revive_node(&mut self, name: &str) {
        if let Some(report) = self.reports.get_mut(name) {
            report.alive = true;
            report.since = Duration::ZERO;
        }
        self.nodes_dirty = true;
    }

    pub fn reconcile_nodes(&mut self) {
        let reports: Vec<NodeReport> = self.reports.values().cloned().collect();
        let plan = reconcile_nodes(&self.store, &reports, &self.now, &self.config);
        self.nodes_due = plan.requeue_after.map(|wait| Time(self.now.0.checked_add(wait).unwrap()));
        self.nodes_dirty = false;
        self.apply(plan);
    }

    /// Creates an object as the API would.
    pub fn create<T: k8s_openapi::Resource>(&mut self, namespace: &str, name: &str, rest: Value) -> Key {
        let key = Key::of::<T>(namespace, name);
        let mut value = rest;
        value["apiVersion"] = json!(T::API_VERSION);
        value["kind"] = json!(T::KIND);
        for (field, given) in [
            ("name", json!(name)),
            ("uid", json!(format!("uid-{}-{}", name, self.store.revision()))),
            ("creationTimestamp", serde_json::to_value(&self.now).unwrap()),
            ("generation", json!(1)),
        ] {
            value["metadata"][field] = given;
        }
        if !namespace.is_empty() {
            value["metadata"]["namespace"] = json!(namespace);
        }
        self.txn(Write::Put { key: key.clone(), value, expect: Expect::Absent, intent: None }.into());
        key
    }

    /// Changes an object as a client would.
    pub fn edit(&mut self, key: &Key, edit: impl FnOnce(&mut Value)) {
        let object = self.store.get(key).unwrap().clone();
        let write = super::loaded::edit_object(key, &object, |value| {
            edit(value);
            super::loaded::bump_generation(value);
        });
        self.txn(write.into());
    }

    pub fn delete(&mut self, key: &Key) {
        let object = self.store.get(key).unwrap().clone();
        if let Some(write) = deletion::delete(key, &object, deletion::Grace::AsSpecified, &self.now) {
            self.txn(write.into());
        }
    }

    pub fn txn(&mut self, txn: Txn) {
        // A refusal is part of the game: somebody was faster, and the key comes round again.
        if self.store.apply(&txn).is_err() {
            for (index, controller) in self.controllers.iter().enumerate() {
                self.queue.extend(controller.all(&self.store).into_iter().map(|key| (index, key)));
            }
        }
        let changes = self.store.changes_after(self.seen).unwrap();
        self.seen = self.store.revision();
        for change in changes {
            self.nodes_dirty |= change.key.resource.as_str() == "nodes";
            for (index, controller) in self.controllers.iter().enumerate() {
                self.queue
                    .extend(controller.concerned(&self.store, &change).into_iter().map(|key| (index, key)));
            }
        }
    }

    fn apply(&mut self, plan: Plan) {
        self.notes.extend(plan.events);
        plan.writes.into_iter().for_each(|txn| self.txn(txn));
    }

    /// One controller reconciles one key; `false` if none has anything to do.
    pub fn reconcile_one(&mut self) -> bool {
        let ready: Vec<_> = self.queue.iter().cloned().collect();
        if ready.is_empty() {
            return false;
        }
        let (index, key) = ready[self.dice.roll(ready.len())].clone();
        self.queue.remove(&(index, key.clone()));
        self.due.remove(&(index, key.clone()));
        let plan = self.controllers[index].reconcile(&self.store, &key, &self.now);
        let again = self.controllers[index].reconcile(&self.store, &key, &self.now);
        assert_eq!(plan, again, "the same input gives the same plan");
        if let Some(wait) = plan.requeue_after {
            let at = Time(self.now.0.checked_add(wait).unwrap());
            self.due.insert((index, key), at);
        }
        self.apply(plan);
        self.wake();
        true
    }

    fn wake(&mut self) {
        let now = self.now.clone();
        let (due, later) = std::mem::take(&mut self.due).into_iter().partition(|(_, at)| *at <= now);
        self.due = later;
        let due: BTreeMap<_, _> = due;
        self.queue.extend(due.into_keys());
        self.nodes_dirty |= self.nodes_due.as_ref().is_some_and(|due| *due <= self.now);
    }

    pub fn advance(&mut self, seconds: i64) {
        self.now = super::instant::after(&self.now, seconds);
        self.wake();
    }

    pub fn schedule(&mut self) {
        let fencing = Fencing { group: "g".into(), epoch: 1, term: 2 };
        let plan = schedule(&self.store, &BTreeMap::new(), &fencing, &self.now);
        self.apply(plan);
    }

    pub fn pods(&self) -> Vec<(Key, Pod)> {
        let pods = self.store.list(&resource_of::<Pod>(), None);
        pods.map(|(key, object)| (key, (*object.typed::<Pod>().unwrap()).clone())).collect()
    }

    /// The agent of one pod takes one step; `false` if no agent has anything to do.
    pub fn agent_one(&mut self, act: &mut dyn FnMut(&Pod) -> Act) -> bool {
        let alive = |pod: &Pod| {
            let node = pods::node_of(pod).and_then(|node| self.reports.get(node));
            node.is_some_and(|report| report.alive)
        };
        let mut open = Vec::new();
        for (key, pod) in self.pods().into_iter().filter(|(_, pod)| alive(pod)) {
            let act = act(&pod);
            let done = pods::is_finished(&pod) || (pods::phase(&pod) == "Running" && act == Act::Serve);
            let done = if pods::is_terminating(&pod) {
                deletion::finish(&key, self.store.get(&key).unwrap()).is_none()
            } else {
                done
            };
            if !done {
                open.push((key, pod, act));
            }
        }
        if open.is_empty() {
            return false;
        }
        let (key, pod, act) = open.swap_remove(self.dice.roll(open.len()));
        if pods::is_terminating(&pod) {
            let object = self.store.get(&key).unwrap().clone();
            deletion::finish(&key, &object).into_iter().for_each(|write| self.txn(write.into()));
            return true;
        }
        let now = serde_json::to_value(&self.now).unwrap();
        let mut status = serde_json::to_value(&pod.status).unwrap();
        if pods::phase(&pod) == "Pending" {
            status["phase"] = json!("Running");
            status["conditions"] = json!([{"type": "Ready", "status": "True", "lastTransitionTime": now}]);
        } else {
            let code = if let Act::Fail(code) = act { code } else { 0 };
            status["phase"] = json!(if code == 0 { "Succeeded" } else { "Failed" });
            status["conditions"] = json!([{"type": "Ready", "status": "False", "lastTransitionTime": now}]);
            let ended = json!({"exitCode": code, "finishedAt": now});
            status["containerStatuses"] = json!([{
                "name": "main", "image": "i", "imageID": "", "ready": false, "restartCount": 0,
                "state": {"terminated": ended}
            }]);
        }
        let uid = pod.metadata.uid.unwrap();
        self.txn(Write::Status { key, uid, status, seen: None }.into());
        true
    }

    /// One small step of whatever the dice choose; `false` when all is quiet.
    pub fn step(&mut self, act: &mut dyn FnMut(&Pod) -> Act) -> bool {
        if self.nodes_dirty {
            self.reconcile_nodes();
            return true;
        }
        let first = self.dice.roll(3);
        for turn in 0..3 {
            let did = match (first + turn) % 3 {
                0 => self.reconcile_one(),
                1 => {
                    let before = self.store.revision();
                    self.schedule();
                    self.store.revision() != before
                }
                _ => self.agent_one(act),
            };
            if did {
                return true;
            }
        }
        false
    }

    /// Steps until all is quiet, checking after each.
    pub fn settle(&mut self, act: &mut dyn FnMut(&Pod) -> Act, check: &mut dyn FnMut(&Self)) {
        for _ in 0..STEP_LIMIT {
            if !self.step(act) {
                return;
            }
            check(self);
        }
        panic!("the cluster does not come to rest");
    }

    pub fn run(&mut self) {
        self.settle(&mut |_| Act::Serve, &mut |_| ());
    }

    pub fn value(&self, key: &Key) -> &Value {
        self.store.get(key).unwrap().value()
    }

    pub fn said(&self, reason: &str) -> Vec<&str> {
        let notes = self.notes.iter().filter(|note| note.reason == reason);
        notes.map(|note| note.message.as_str()).collect()
    }
}

/// A cluster that takes more steps than this goes round in circles.
const STEP_LIMIT: usize = 20_000;
