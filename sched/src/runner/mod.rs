//! The one loop that acts: watch → reconcile → propose, on the leader alone.
//!
//! It owns no decisions. Which keys a change concerns and what they need is the controllers'; where a pod goes is
//! the scheduler's; whether this node may act at all is [`Lead`]'s. What it owns is order: it never reconciles
//! a key on a view older than its own last write.

mod queue;

use crate::controller::node::{NodeConfig, NodeReport, reconcile_nodes};
use crate::controller::{self, Controller, Note, Plan, notes};
use crate::scheduler::{self, Fencing};
use crate::state::{Change, Expired, Key, Propose, Seen, Store, Txn, Unavailable, View};
use futures::StreamExt;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use queue::Queue;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;
use tokio::time::Instant;

/// Keys reconciled between two looks at what changed: enough to fill a batch, few enough to stay responsive.
const KEYS_PER_ROUND: usize = 256;
/// Transactions in flight at once; the group batches them.
const PROPOSALS_IN_FLIGHT: usize = 128;
/// After a refused or unanswered write a key is tried again after this, doubling to `RETRY_MAX`.
const RETRY_MIN: Duration = Duration::from_millis(20);
const RETRY_MAX: Duration = Duration::from_secs(5);
/// Node reports carry times that pass without any event: look at least this often.
const NODES_EVERY: Duration = Duration::from_millis(500);
/// Unschedulable pods are looked at again when something changed, and at least this often.
const PENDING_EVERY: Duration = Duration::from_secs(30);

/// The right to act, as the leader of a group in one term, with more than half of the roster behind it. Every write is
/// checked against that once more when it is ordered; see [`crate::raft::Gate`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lead {
    pub group: String,
    pub epoch: u64,
    pub term: u64,
}

/// What the runner reads besides the store.
#[derive(Clone)]
pub struct Inputs {
    /// `Some` while this node leads and may act.
    pub lead: watch::Receiver<Option<Lead>>,
    /// What gossip says of every member.
    pub nodes: watch::Receiver<Arc<Vec<NodeReport>>>,
    /// Which images each node (by name) holds.
    pub images: watch::Receiver<Arc<BTreeMap<String, BTreeSet<String>>>>,
    /// The present; injected so that the cores stay without a clock.
    pub now: fn() -> Time,
    pub node_config: NodeConfig,
}

/// Runs until the senders of its inputs are gone.
pub async fn run(view: View, propose: Arc<dyn Propose>, mut inputs: Inputs) {
    loop {
        let lead = match inputs.lead.wait_for(Option::is_some).await {
            Ok(lead) => lead.clone(),
            Err(_) => return,
        };
        let Some(lead) = lead else { continue };
        tracing::info!(group = lead.group, epoch = lead.epoch, term = lead.term, "acting as the leader");
        let mut turn = Turn::new(&view, &propose, &inputs, lead.clone());
        let mut ends = inputs.lead.clone();
        tokio::select! {
            () = turn.run() => return,
            _ = ends.wait_for(|now| now.as_ref() != Some(&lead)) => {
                tracing::info!(term = lead.term, "no longer acting");
            }
        }
    }
}

/// The controller (by index) and the key that a plan is of; `None` where no key is to be looked at again.
type Origin = Option<(usize, Key)>;

/// One term of acting.
struct Turn<'a> {
    view: &'a View,
    propose: &'a Arc<dyn Propose>,
    inputs: Inputs,
    fencing: Fencing,
    controllers: Vec<Box<dyn Controller>>,
    queue: Queue,
    seen: Seen,
    /// Something changed that may let a pending pod be placed.
    placement_stale: bool,
    next_placement: Instant,
    next_nodes: Instant,
    /// Since when this leader has been acting without a break.
    acting_since: Instant,
}

impl<'a> Turn<'a> {
    fn new(view: &'a View, propose: &'a Arc<dyn Propose>, inputs: &Inputs, lead: Lead) -> Self {
        Self {
            view,
            propose,
            inputs: inputs.clone(),
            fencing: Fencing { group: lead.group, epoch: lead.epoch, term: lead.term },
            controllers: controller::controllers(),
            queue: Queue::default(),
            seen: view.seen(),
            placement_stale: true,
            next_placement: Instant::now(),
            next_nodes: Instant::now(),
            acting_since: Instant::now(),
        }
    }

    async fn run(&mut self) {
        // A write of this term tells that everything of the terms before is in the view.
        if let Err(error) = self.propose.propose(Txn::default()).await {
            tracing::debug!(%error, "the first write of the term did not happen");
        }
        let mut changed = self.view.subscribe();
        self.start_over();
        loop {
            changed.mark_unchanged();
            self.take_changes();
            self.nodes().await;
            self.reconcile().await;
            self.place().await;
            if self.queue.has_ready(Instant::now()) {
                continue;
            }
            let wake = self
                .queue
                .next_due()
                .unwrap_or(self.next_nodes)
                .min(self.next_nodes)
                .min(self.next_placement);
            tokio::select! {
                result = changed.changed() => if result.is_err() { return },
                result = self.inputs.nodes.changed() => match result {
                    Ok(()) => self.next_nodes = Instant::now(),
                    Err(_) => return,
                },
                () = tokio::time::sleep_until(wake) => {}
            }
        }
    }

    /// Every key of every controller: at the start of a term, and when history was lost.
    fn start_over(&mut self) {
        let now = Instant::now();
        self.seen = self.view.seen();
        self.view.read(|store| {
            for (index, controller) in self.controllers.iter().enumerate() {
                for key in controller.all(store) {
                    self.queue.add(index, key, now);
                }
            }
        });
        self.placement_stale = true;
    }

    fn take_changes(&mut self) {
        let changes = match self.view.changes_after(self.seen) {
            Ok(changes) => changes,
            Err(Expired { .. }) => return self.start_over(),
        };
        let Some(last) = changes.last() else { return };
        self.seen.revision = last.revision;
        let now = Instant::now();
        self.view.read(|store| {
            for change in &changes {
                self.placement_stale |= concerns_placement(change);
                for (index, controller) in self.controllers.iter().enumerate() {
                    for key in controller.concerned(store, change) {
                        self.queue.add(index, key, now);
                    }
                }
            }
        });
    }

    async fn nodes(&mut self) {
        let now = Instant::now();
        if now < self.next_nodes {
            return;
        }
        self.next_nodes = now + NODES_EVERY;
        let reports = self.inputs.nodes.borrow_and_update().clone();
        let time = (self.inputs.now)();
        let acting_for = self.acting_since.elapsed();
        let config = NodeConfig { acting_for, ..self.inputs.node_config };
        let plan = self.view.read(|store| reconcile_nodes(store, &reports, &time, &config));
        if let Some(after) = plan.requeue_after {
            self.next_nodes = self.next_nodes.min(now + after);
        }
        self.carry_out(vec![(None, plan)]).await;
    }

    async fn reconcile(&mut self) {
        let due = self.queue.take(KEYS_PER_ROUND, Instant::now());
        if due.is_empty() {
            return;
        }
        let time = (self.inputs.now)();
        let plans = due
            .into_iter()
            .map(|(index, key)| {
                let plan = self.view.read(|store| self.controllers[index].reconcile(store, &key, &time));
                (Some((index, key)), plan)
            })
            .collect();
        self.carry_out(plans).await;
    }

    async fn place(&mut self) {
        let now = Instant::now();
        if !self.placement_stale && now < self.next_placement {
            return;
        }
        self.take_changes();
        self.placement_stale = false;
        self.next_placement = now + PENDING_EVERY;
        let images = self.inputs.images.borrow().clone();
        let time = (self.inputs.now)();
        let plan = self.view.read(|store| scheduler::schedule(store, &images, &self.fencing, &time));
        let refused = self.carry_out(one_by_one(plan)).await;
        if refused {
            self.next_placement = now + RETRY_MIN;
        }
    }

    /// Proposes what the plans want, all at once, and tells of what has happened; whether any write was refused.
    async fn carry_out(&mut self, plans: Vec<(Origin, Plan)>) -> bool {
        let now = Instant::now();
        let mut notes: Vec<Note> = Vec::new();
        let mut proposals: Vec<(Origin, Vec<Txn>, Vec<Note>)> = Vec::new();
        for (origin, plan) in plans {
            if let (Some((index, key)), Some(after)) = (&origin, plan.requeue_after) {
                self.queue.add(*index, key.clone(), now + after);
            }
            if !plan.writes.is_empty() {
                proposals.push((origin, plan.writes, plan.events));
                continue;
            }
            notes.extend(plan.events);
            if let Some((index, key)) = origin {
                self.queue.settled(index, &key);
            }
        }
        let propose = self.propose.clone();
        let mut outcomes = futures::stream::iter(proposals)
            .map(|(origin, txns, events)| {
                let propose = propose.clone();
                async move { (origin, in_order(&*propose, txns).await.map(|()| events)) }
            })
            .buffer_unordered(PROPOSALS_IN_FLIGHT);
        let mut refused = false;
        while let Some((origin, outcome)) = outcomes.next().await {
            match (outcome, origin) {
                (Ok(events), origin) => {
                    notes.extend(events);
                    if let Some((index, key)) = origin {
                        self.queue.settled(index, &key);
                    }
                }
                (Err(why), origin) => {
                    refused = true;
                    tracing::debug!(%why, key = ?origin.as_ref().map(|(_, key)| key.to_string()), "a planned write did not happen");
                    if let Some((index, key)) = origin {
                        self.queue.retry(index, key, Instant::now(), RETRY_MIN, RETRY_MAX);
                    }
                }
            }
        }
        drop(outcomes);
        self.tell(&notes).await;
        refused
    }

    /// Stores notes as events. One that is not stored is lost: the objects themselves say the same.
    async fn tell(&self, notes: &[Note]) {
        let time = (self.inputs.now)();
        let events = self.view.read(|store: &Store| notes::record(store, notes, &time, "leader"));
        let mut outcomes = futures::stream::iter(events)
            .map(|txn| self.propose.propose(txn))
            .buffer_unordered(PROPOSALS_IN_FLIGHT);
        while let Some(outcome) = outcomes.next().await {
            if !matches!(outcome, Ok(Ok(_))) {
                tracing::debug!(?outcome, "an event was not stored");
            }
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
        plans.push((None, Plan { writes: vec![txn], events: told, requeue_after: None }));
    }
    let rest = events.into_values().flatten().collect();
    plans.push((None, Plan { writes: Vec::new(), events: rest, requeue_after: None }));
    plans
}

/// Proposes transactions one after the other; stops at the first that does not happen, since later ones may
/// rest on it.
async fn in_order(propose: &dyn Propose, txns: Vec<Txn>) -> Result<(), String> {
    for txn in txns {
        match propose.propose(txn).await {
            Ok(Ok(_)) => {}
            Ok(Err(refused)) => return Err(refused.to_string()),
            Err(
                unavailable @ (Unavailable::NoQuorum(_) | Unavailable::Unknown(_) | Unavailable::Busy(_)),
            ) => {
                return Err(unavailable.to_string());
            }
        }
    }
    Ok(())
}

fn concerns_placement(change: &Change) -> bool {
    matches!(change.key.resource.as_str(), "pods" | "nodes")
}
