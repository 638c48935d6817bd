//! One term of acting, without waiting: what is due when, and what becomes of plans. Pure.
//!
//! Times are counted from when the turn began. Whoever calls brings the store, what gossip says and the wall clock, and
//! says what became of each proposal.

use super::Lead;
use super::queue::Queue;
use crate::controller::node::{NodeConfig, NodeReport, reconcile_nodes};
use crate::controller::{self, Controller, Note, Plan, Settings};
use crate::scheduler::{self, Fencing};
use crate::state::{Change, Expired, Key, Seen, Store, Txn, resource_of};
use k8s_openapi::api::core::v1::ResourceQuota;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

/// Keys reconciled between two looks at what changed: enough to fill a batch, few enough to stay responsive.
const KEYS_PER_ROUND: usize = 256;
/// After a refused or unanswered write a key is tried again after this, doubling to `RETRY_MAX`.
const RETRY_MIN: Duration = Duration::from_millis(20);
const RETRY_MAX: Duration = Duration::from_secs(5);
/// Node reports carry times that pass without any event: look at least this often.
const NODES_EVERY: Duration = Duration::from_millis(500);
/// Unschedulable pods are looked at again when something changed, and at least this often.
const PENDING_EVERY: Duration = Duration::from_secs(30);

/// What a plan is of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Origin {
    /// The controller (by index) and the key, which is to be looked at again.
    Key(usize, Key),
    /// One placement of a pod.
    Placement,
    /// What membership reports: looked at again soon anyhow.
    Nodes,
}

/// Transactions that rest on each other, to be proposed in order until one does not happen.
#[derive(Debug)]
pub struct Proposal {
    pub origin: Origin,
    pub txns: Vec<Txn>,
    /// What to tell of when all of them have happened.
    pub notes: Vec<Note>,
}

/// What is to be proposed, and what to tell of anyhow.
#[derive(Debug, Default)]
pub struct Planned {
    pub proposals: Vec<Proposal>,
    pub notes: Vec<Note>,
}

pub struct Turn {
    fencing: Fencing,
    controllers: Vec<Box<dyn Controller>>,
    queue: Queue,
    seen: Seen,
    /// Something changed that may let a pending pod be placed.
    placement_stale: bool,
    next_placement: Duration,
    next_nodes: Duration,
}

impl Turn {
    /// A turn that begins now.
    pub fn new(store: &Store, lead: &Lead, settings: &Settings) -> Self {
        Self {
            fencing: Fencing { group: lead.group.clone(), epoch: lead.epoch, term: lead.term },
            controllers: controller::controllers(settings),
            queue: Queue::default(),
            seen: store.seen(),
            placement_stale: true,
            next_placement: Duration::ZERO,
            next_nodes: Duration::ZERO,
        }
    }

    /// Every key of every controller: at the start of a term, and when history was lost.
    pub fn start_over(&mut self, store: &Store, now: Duration) {
        self.seen = store.seen();
        for (index, controller) in self.controllers.iter().enumerate() {
            for key in controller.all(store) {
                self.queue.add(index, key, now);
            }
        }
        self.placement_stale = true;
    }

    pub fn take_changes(&mut self, store: &Store, now: Duration) {
        let changes = match store.changes_since(self.seen) {
            Ok(changes) => changes,
            Err(Expired { .. }) => return self.start_over(store, now),
        };
        let Some(last) = changes.last() else { return };
        self.seen.revision = last.revision;
        for change in &changes {
            self.placement_stale |= concerns_placement(change);
            for (index, controller) in self.controllers.iter().enumerate() {
                for key in controller.concerned(store, change) {
                    self.queue.add(index, key, now);
                }
            }
        }
    }

    /// Gossip says something new of the members.
    pub fn nodes_changed(&mut self, now: Duration) {
        self.next_nodes = now;
    }

    pub fn nodes_are_due(&self, now: Duration) -> bool {
        now >= self.next_nodes
    }

    /// What the members need.
    pub fn nodes(
        &mut self,
        store: &Store,
        reports: &[NodeReport],
        config: &NodeConfig,
        time: &Time,
        now: Duration,
    ) -> Planned {
        self.next_nodes = now + NODES_EVERY;
        // This turn has been acting without a break.
        let config = NodeConfig { acting_for: now, ..*config };
        let plan = reconcile_nodes(store, reports, time, &config);
        if let Some(after) = plan.requeue_after {
            self.next_nodes = self.next_nodes.min(now + after);
        }
        self.sort(vec![(Origin::Nodes, plan)], now)
    }

    /// What the keys need that are due. Of plans that charge the same quota one goes on: the others were made from the
    /// same count, would be refused, and would back off together; they are made anew in the next round.
    pub fn reconcile(&mut self, store: &Store, time: &Time, now: Duration) -> Planned {
        let mut charged = BTreeSet::new();
        let mut plans = Vec::new();
        for (index, key) in self.queue.take(KEYS_PER_ROUND, now) {
            let plan = self.controllers[index].reconcile(store, &key, time);
            let charges = quotas_of(&plan);
            if charges.iter().any(|quota| charged.contains(quota)) {
                self.queue.add(index, key, now);
                continue;
            }
            charged.extend(charges);
            plans.push((Origin::Key(index, key), plan));
        }
        self.sort(plans, now)
    }

    pub fn placement_is_due(&self, now: Duration) -> bool {
        self.placement_stale || now >= self.next_placement
    }

    /// Where pending pods go.
    pub fn place(
        &mut self,
        store: &Store,
        images: &BTreeMap<String, BTreeSet<String>>,
        time: &Time,
        now: Duration,
    ) -> Planned {
        self.take_changes(store, now);
        self.placement_stale = false;
        self.next_placement = now + PENDING_EVERY;
        let plan = scheduler::schedule(store, images, &self.fencing, time);
        self.sort(one_by_one(plan), now)
    }

    pub fn has_ready(&self, now: Duration) -> bool {
        self.queue.has_ready(now)
    }

    /// When to go on at the latest although nothing changes.
    pub fn next_due(&self) -> Duration {
        let due = self.queue.next_due().unwrap_or(self.next_nodes);
        due.min(self.next_nodes).min(self.next_placement)
    }

    fn sort(&mut self, plans: Vec<(Origin, Plan)>, now: Duration) -> Planned {
        let mut planned = Planned::default();
        for (origin, plan) in plans {
            if let (Origin::Key(index, key), Some(after)) = (&origin, plan.requeue_after) {
                self.queue.add(*index, key.clone(), now + after);
            }
            if !plan.writes.is_empty() {
                planned.proposals.push(Proposal { origin, txns: plan.writes, notes: plan.events });
                continue;
            }
            planned.notes.extend(plan.events);
            self.happened(&origin);
        }
        planned
    }

    /// All that a plan wanted has happened.
    pub fn happened(&mut self, origin: &Origin) {
        if let Origin::Key(index, key) = origin {
            self.queue.settled(*index, key);
        }
    }

    /// A write was refused (somebody was faster) or not answered: it is planned again.
    pub fn refused(&mut self, origin: Origin, now: Duration) {
        match origin {
            Origin::Key(index, key) => self.queue.retry(index, key, now, RETRY_MIN, RETRY_MAX),
            Origin::Placement => self.next_placement = now + RETRY_MIN,
            Origin::Nodes => {}
        }
    }
}

/// Placements do not rest on each other: each is proposed, and told of, by itself, so that they share a batch and
/// one that is refused holds up no other.
fn one_by_one(plan: Plan) -> Vec<(Origin, Plan)> {
    let mut events: BTreeMap<Key, Vec<Note>> = BTreeMap::new();
    for note in plan.events {
        events.entry(note.about.clone()).or_default().push(note);
    }
    let mut plans: Vec<(Origin, Plan)> = Vec::with_capacity(plan.writes.len());
    for txn in plan.writes {
        let told = txn.writes.iter().filter_map(|write| events.remove(write.key())).flatten().collect();
        plans.push((Origin::Placement, Plan { writes: vec![txn], events: told, requeue_after: None }));
    }
    let rest = events.into_values().flatten().collect();
    plans.push((Origin::Placement, Plan { writes: Vec::new(), events: rest, requeue_after: None }));
    plans
}

/// The quotas that a plan writes to.
fn quotas_of(plan: &Plan) -> BTreeSet<Key> {
    let quotas = resource_of::<ResourceQuota>();
    let writes = plan.writes.iter().flat_map(|txn| &txn.writes);
    writes.map(|write| write.key()).filter(|key| key.resource == quotas).cloned().collect()
}

fn concerns_placement(change: &Change) -> bool {
    matches!(change.key.resource.as_str(), "pods" | "nodes")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::controller::harness::World;
    use k8s_openapi::api::apps::v1::ReplicaSet;
    use serde_json::json;

    #[test]
    fn one_quota_is_charged_by_one_plan_in_a_round() {
        let mut world = World::new(1);
        let quota = json!({"metadata": {}, "spec": {"hard": {"pods": "50"}}});
        let quota = world.create::<ResourceQuota>("default", "q", quota);
        world.run();
        let lead = Lead { group: "g".into(), epoch: 1, term: 1 };
        let mut turn = Turn::new(&world.store, &lead, &Settings::default());
        for name in ["a", "b", "c"] {
            let template =
                json!({"metadata": {"labels": {"app": name}}, "spec": {"containers": [{"name": "m"}]}});
            let selector = json!({"matchLabels": {"app": name}});
            let spec = json!({"replicas": 2, "selector": selector, "template": template});
            world.create::<ReplicaSet>("default", name, json!({"metadata": {}, "spec": spec}));
        }
        for round in 1..=3 {
            turn.take_changes(&world.store, Duration::ZERO);
            let planned = turn.reconcile(&world.store, &world.now.clone(), Duration::ZERO);
            let charging = planned.proposals.iter().flat_map(|proposal| &proposal.txns);
            let charging = charging.filter(|txn| txn.writes.iter().any(|write| *write.key() == quota));
            assert_eq!(charging.count(), 1, "round {round}");
            for proposal in planned.proposals {
                for txn in &proposal.txns {
                    world.store.apply(txn).unwrap();
                }
                turn.happened(&proposal.origin);
            }
        }
        assert_eq!(world.pods().len(), 6);
        assert_eq!(world.value(&quota)["status"]["used"]["pods"], "6");
    }
}
