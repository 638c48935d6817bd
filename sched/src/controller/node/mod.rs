//! Nodes: what membership reports becomes Node objects, and the pods of dead desktops become free to run
//! elsewhere.
//!
//! This is no [`super::Controller`], because its input is not in the store: the runner calls
//! [`reconcile_nodes`] when membership or a Node changes, and again after `requeue_after`. It must be called
//! only while the leader hears from more than half of the roster: a leader that is cut off would take all the
//! others for dead.

mod eviction;
mod object;

use super::identity::{self, IDENTITY_FREED_AFTER};
use super::instant::elapsed;
use super::loaded::{Loaded, create, edit_object};
use super::{Note, Plan, pods};
use crate::electorate::roster::Roster;
use crate::state::{Expect, Key, Resource, Store, Write};
use eviction::Eviction;
use k8s_openapi::api::core::v1::{Node, Pod};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

const NAME: &str = "node-controller";
const NODES: Resource = Resource::fixed("nodes");
const PODS: Resource = Resource::fixed("pods");
/// Which peer a Node object stands for.
pub const PEER: &str = "gaggle.dev/peer";
/// How often dead nodes are looked at again: a pod may have been bound to one, or deleted on one, a moment
/// after its pods were given up.
const SWEEP_INTERVAL: Duration = Duration::from_secs(2);
/// A name's bound in Kubernetes (a DNS subdomain).
const NAME_LENGTH_LIMIT: usize = 253;

/// What membership knows of one desktop.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NodeReport {
    pub name: String,
    /// The peer's id: a name may change hands, an id never does.
    pub peer: String,
    pub alive: bool,
    /// How long it has been alive, or dead.
    pub since: Duration,
    /// It is going, or has gone, on purpose.
    pub leaving: bool,
    /// It can run pods.
    pub ready: bool,
    /// Why it cannot, for people; empty if it can.
    pub problem: String,
    pub addresses: Vec<String>,
    pub labels: BTreeMap<String, String>,
    pub cpu_millis: u64,
    pub memory_bytes: u64,
    /// How many pods it takes.
    pub pods: u32,
    pub kernel: String,
    pub os_image: String,
    /// As Kubernetes writes it: `amd64`.
    pub arch: String,
    /// The container engine and its version: `docker://28.0.1`.
    pub engine: String,
    pub version: String,
    pub api_port: u16,
}

/// How patient to be with desktops that do not answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NodeConfig {
    /// How long after gossip found a desktop dead its pods are made again elsewhere.
    pub dead_grace: Duration,
    /// How long a desktop may be alive and unable to run pods (its engine restarts) before they move.
    pub not_ready_grace: Duration,
    /// How long a dead desktop stays on the list.
    pub forget_after: Duration,
    /// How old a pod must be before the absence of its node means anything.
    pub missing_grace: Duration,
    /// How long the leader that asks has been acting: before it did, another may have heard what it has not.
    pub acting_for: Duration,
}

impl Default for NodeConfig {
    fn default() -> Self {
        Self {
            dead_grace: Duration::from_secs(1),
            not_ready_grace: Duration::from_secs(300),
            forget_after: Duration::from_secs(24 * 3600),
            missing_grace: Duration::from_secs(40),
            acting_for: Duration::ZERO,
        }
    }
}

/// Brings Node objects and the pods on them in line with what membership reports.
pub fn reconcile_nodes(store: &Store, reports: &[NodeReport], now: &Time, config: &NodeConfig) -> Plan {
    let mut plan = Plan::default();
    let mut by_name: BTreeMap<&str, Vec<&NodeReport>> = BTreeMap::new();
    let evicted = Roster::of(store).map(|(roster, _)| roster.evicted).unwrap_or_default();
    let belongs = |report: &&NodeReport| is_valid_name(&report.name) && !evicted.contains_key(&report.peer);
    for report in reports.iter().filter(belongs) {
        by_name.entry(&report.name).or_default().push(report);
    }
    let known: BTreeSet<String> = store.list(&NODES, None).map(|(key, _)| key.name).collect();
    for (name, claimants) in &by_name {
        let key = Key::new(NODES, "", *name);
        let node = Loaded::<Node>::get(store, &key);
        let Some(holder) = holder(node.as_ref(), claimants) else { continue };
        for other in claimants.iter().filter(|other| other.alive && other.peer != holder.peer) {
            let message = format!(
                "the name {name} belongs to peer {}; peer {} must take another one (gaggle up --name)",
                holder.peer, other.peer
            );
            plan.events.push(Note::warning(&key, NAME, "NodeNameTaken", message));
        }
        plan.merge(reconcile(store, &key, node, holder, claimants, now, config));
    }
    for name in known.iter().filter(|name| !by_name.contains_key(name.as_str())) {
        let Some(node) = Loaded::<Node>::get(store, &Key::new(NODES, "", name.clone())) else { continue };
        let is_evicted = node.object.annotation(PEER).is_some_and(|peer| evicted.contains_key(peer));
        plan.merge(unreported(store, &node, is_evicted, now, config));
    }
    plan.merge(collect_pods_of_no_node(store, &known, &by_name, now, config));
    plan
}

/// Who has the name: whoever had it, while it lives; otherwise whoever lives longest.
fn holder<'a>(node: Option<&Loaded<Node>>, claimants: &[&'a NodeReport]) -> Option<&'a NodeReport> {
    let had = node.and_then(|node| node.object.annotation(PEER)).unwrap_or_default();
    let rank = |report: &&&NodeReport| {
        let present = report.alive && !report.leaving;
        (present, report.peer == had, report.alive, report.since, std::cmp::Reverse(report.peer.clone()))
    };
    claimants.iter().max_by_key(rank).copied()
}

fn reconcile(
    store: &Store,
    key: &Key,
    node: Option<Loaded<Node>>,
    report: &NodeReport,
    claimants: &[&NodeReport],
    now: &Time,
    config: &NodeConfig,
) -> Plan {
    let mut plan = Plan::default();
    let gone = !report.alive && (report.leaving || report.since >= config.forget_after);
    let Some(node) = node else {
        if report.alive && !report.leaving {
            plan.write(create(&object::new_node(store, report, now)));
            let message = format!("Node {} joined the cluster", report.name);
            plan.events.push(Note::normal(key, NAME, "RegisteredNode", message));
        }
        return plan;
    };
    // One that is leaving waits to be taken off the list, which is when its last pod has ended.
    let left = report.leaving && !runs_pods(store, &report.name);
    if gone || left {
        let why = if report.leaving { "left the cluster" } else { "has been dead for too long" };
        return remove(store, &node, why, silence(report), now, config);
    }
    if is_held_by_another(store, &node, report, claimants, config) {
        plan.requeue(SWEEP_INTERVAL);
        return plan;
    }
    let updated = object::updated(&node, report, now);
    if updated != *node.object.value() {
        note_transition(&node, report, &mut plan);
        plan.write(edit_object(key, &node.object, |value| *value = updated));
    }
    if !report.alive {
        let eviction = Eviction::dead(report.since, config);
        plan.merge(eviction.run(store, &node, now));
        plan.requeue(SWEEP_INTERVAL);
    } else if report.leaving {
        plan.merge(Eviction::leaving().run(store, &node, now));
    } else if !report.ready {
        let since = object::not_ready_for(&node, now);
        plan.merge(Eviction::not_ready(since, config.not_ready_grace).run(store, &node, now));
    } else {
        eviction::release_held(store, &node.key.name).for_each(|write| plan.write(write));
        // What was being stopped when the last desktop of this name died has nobody to wait for.
        let took_over = node.object.annotation(PEER).is_some_and(|peer| peer != report.peer);
        if took_over {
            plan.merge(Eviction::replaced(config).run(store, &node, now));
        }
    }
    plan
}

/// A Node that membership has never heard of since this leader began, or that nobody listens to any more: it is as dead
/// as it looks.
fn unreported(store: &Store, node: &Loaded<Node>, is_evicted: bool, now: &Time, config: &NodeConfig) -> Plan {
    let mut plan = Plan::default();
    let updated = object::unreachable(node, now);
    let dead_for =
        if updated == *node.object.value() { object::not_ready_for(node, now) } else { Duration::ZERO };
    if updated != *node.object.value() {
        let message = format!("Node {} status is now: NodeNotReady", node.key.name);
        plan.events.push(Note::normal(&node.key, NAME, "NodeNotReady", message));
        plan.write(edit_object(&node.key, &node.object, |value| *value = updated));
    }
    if is_evicted || dead_for >= config.forget_after {
        let why = if is_evicted { "was evicted" } else { "has been dead for too long" };
        plan.merge(remove(store, node, why, dead_for, now, config));
        return plan;
    }
    plan.merge(Eviction::dead(dead_for, config).run(store, node, now));
    plan.requeue(SWEEP_INTERVAL);
    plan
}

/// How long nothing was heard of a desktop.
fn silence(report: &NodeReport) -> Duration {
    if report.alive { Duration::ZERO } else { report.since }
}

/// Whether the name is about to change hands while its last holder may still run an identity.
fn is_held_by_another(
    store: &Store,
    node: &Loaded<Node>,
    report: &NodeReport,
    claimants: &[&NodeReport],
    config: &NodeConfig,
) -> bool {
    let Some(had) = node.object.annotation(PEER).filter(|had| *had != report.peer) else { return false };
    // A peer that nobody reports any more has been silent for longer than gossip remembers the dead.
    let last = claimants.iter().find(|claimant| claimant.peer == had);
    let silent_for = last.map_or(config.acting_for, |last| silence(last)).min(config.acting_for);
    silent_for < IDENTITY_FREED_AFTER
        && store.on_node(&node.key.name).any(|key| {
            Loaded::<Pod>::get(store, key)
                .is_some_and(|pod| identity::is_single(&pod) && !pods::is_finished(&pod))
        })
}

fn runs_pods(store: &Store, node: &str) -> bool {
    store.on_node(node).any(|key| Loaded::<Pod>::get(store, key).is_some_and(|pod| !pods::is_finished(&pod)))
}

fn note_transition(node: &Loaded<Node>, report: &NodeReport, plan: &mut Plan) {
    let ready = object::is_ready(node);
    let becomes = report.alive && report.ready && !report.leaving;
    if ready != becomes {
        let reason = if becomes { "NodeReady" } else { "NodeNotReady" };
        let message = format!("Node {} status is now: {reason}", node.key.name);
        plan.events.push(Note::normal(&node.key, NAME, reason, message));
    }
}

/// What removes a node and its pods for good. Nothing when the name is not (any more) that peer's. Where an identity may
/// still run on it, its Node goes when that is over, by [`reconcile_nodes`].
pub fn evicted(store: &Store, name: &str, peer: &str, now: &Time) -> Plan {
    let node = Loaded::<Node>::get(store, &Key::new(NODES, "", name));
    let node = node.filter(|node| node.object.annotation(PEER) == Some(peer));
    node.map_or_else(Plan::default, |node| {
        remove(store, &node, "was evicted", Duration::ZERO, now, &NodeConfig::default())
    })
}

/// Takes a Node off the list, after its pods.
fn remove(
    store: &Store,
    node: &Loaded<Node>,
    why: &str,
    silent_for: Duration,
    now: &Time,
    config: &NodeConfig,
) -> Plan {
    let mut plan = Eviction::gone(silent_for, config).run(store, node, now);
    if plan.requeue_after.is_some() {
        // An identity on it is not free yet, and its Node says where it may still run.
        return plan;
    }
    let expect = Expect::Uid(node.object.uid().to_owned());
    plan.write(Write::Delete { key: node.key.clone(), expect, intent: None });
    let message = format!("Node {} {why}", node.key.name);
    plan.events.push(Note::normal(&node.key, NAME, "RemovingNode", message));
    plan
}

/// Pods bound to what is no Node. Only membership can tell a Node that was removed from one that has yet to be
/// made, so this is here and not with the other garbage.
fn collect_pods_of_no_node(
    store: &Store,
    known: &BTreeSet<String>,
    reported: &BTreeMap<&str, Vec<&NodeReport>>,
    now: &Time,
    config: &NodeConfig,
) -> Plan {
    let mut plan = Plan::default();
    for (key, object) in store.list(&PODS, None) {
        let Some(pod) = Loaded::<Pod>::from_object(key, object) else { continue };
        let Some(node) = pods::node_of(&pod) else { continue };
        let settled = pods::is_finished(&pod) && !pods::is_terminating(&pod);
        if settled || known.contains(node) || reported.contains_key(node) {
            continue;
        }
        let age = pod.metadata.creation_timestamp.as_ref().map_or(Duration::MAX, |born| elapsed(now, born));
        if age < config.missing_grace {
            plan.requeue(config.missing_grace - age);
            continue;
        }
        let why = format!("node {node} does not exist");
        plan.merge(eviction::lose(&pod, "DeletionByPodGC", &why, now));
    }
    plan
}

/// Names come from peers: one that Kubernetes would not accept makes no Node.
fn is_valid_name(name: &str) -> bool {
    let plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit();
    let ends = name.starts_with(plain) && name.ends_with(plain);
    ends && name.len() <= NAME_LENGTH_LIMIT && name.chars().all(|c| plain(c) || c == '-' || c == '.')
}

#[cfg(test)]
mod tests;
