//! The one loop that acts: watch → reconcile → propose, on the leader alone.
//!
//! What is due when, and what becomes of a plan that was refused, is [`Turn`]'s, which is pure; here is what waits.
//! It owns no decisions. Which keys a change concerns and what they need is the controllers'; where a pod goes is
//! the scheduler's; whether this node may act at all is [`Lead`]'s. What it owns is order: it never reconciles
//! a key on a view older than its own last write.

mod queue;
mod turn;

pub use turn::{Origin, Planned, Proposal, Turn};

use crate::controller::node::{NodeConfig, NodeReport};
use crate::controller::{Note, Settings, notes};
use crate::state::{Propose, Store, Txn, Unavailable, View};
use futures::StreamExt;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use tokio::sync::watch;
use tokio::time::Instant;

/// Transactions in flight at once; the group batches them.
const PROPOSALS_IN_FLIGHT: usize = 128;

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
    pub settings: Settings,
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
        let mut turn = Acting::new(&view, &propose, &inputs, &lead);
        let mut ends = inputs.lead.clone();
        tokio::select! {
            () = turn.run() => return,
            _ = ends.wait_for(|now| now.as_ref() != Some(&lead)) => {
                tracing::info!(term = lead.term, "no longer acting");
            }
        }
    }
}

/// One term of acting, as it waits and proposes.
struct Acting<'a> {
    view: &'a View,
    propose: &'a Arc<dyn Propose>,
    inputs: Inputs,
    turn: Turn,
    began: Instant,
}

impl<'a> Acting<'a> {
    fn new(view: &'a View, propose: &'a Arc<dyn Propose>, inputs: &Inputs, lead: &Lead) -> Self {
        let turn = view.read(|store| Turn::new(store, lead, &inputs.settings));
        Self { view, propose, inputs: inputs.clone(), turn, began: Instant::now() }
    }

    async fn run(&mut self) {
        // A write of this term tells that everything of the terms before is in the view.
        if let Err(error) = self.propose.propose(Txn::default()).await {
            tracing::debug!(%error, "the first write of the term did not happen");
        }
        let mut changed = self.view.subscribe();
        self.view.read(|store| self.turn.start_over(store, self.began.elapsed()));
        loop {
            changed.mark_unchanged();
            self.view.read(|store| self.turn.take_changes(store, self.began.elapsed()));
            self.nodes().await;
            self.reconcile().await;
            self.place().await;
            if self.turn.has_ready(self.began.elapsed()) {
                continue;
            }
            let wake = self.began + self.turn.next_due();
            tokio::select! {
                result = changed.changed() => if result.is_err() { return },
                result = self.inputs.nodes.changed() => match result {
                    Ok(()) => self.turn.nodes_changed(self.began.elapsed()),
                    Err(_) => return,
                },
                () = tokio::time::sleep_until(wake) => {}
            }
        }
    }

    async fn nodes(&mut self) {
        let now = self.began.elapsed();
        if !self.turn.nodes_are_due(now) {
            return;
        }
        let reports = self.inputs.nodes.borrow_and_update().clone();
        let (time, config) = ((self.inputs.now)(), self.inputs.node_config);
        let planned = self.view.read(|store| self.turn.nodes(store, &reports, &config, &time, now));
        self.carry_out(planned).await;
    }

    async fn reconcile(&mut self) {
        let time = (self.inputs.now)();
        let planned = self.view.read(|store| self.turn.reconcile(store, &time, self.began.elapsed()));
        self.carry_out(planned).await;
    }

    async fn place(&mut self) {
        let now = self.began.elapsed();
        if !self.turn.placement_is_due(now) {
            return;
        }
        let images = self.inputs.images.borrow().clone();
        let time = (self.inputs.now)();
        let planned = self.view.read(|store| self.turn.place(store, &images, &time, now));
        self.carry_out(planned).await;
    }

    /// Proposes what was planned, all at once, and tells of what has happened.
    async fn carry_out(&mut self, planned: Planned) {
        let Planned { proposals, mut notes } = planned;
        let propose = self.propose.clone();
        let mut outcomes = futures::stream::iter(proposals)
            .map(|Proposal { origin, txns, notes }| {
                let propose = propose.clone();
                async move { (origin, in_order(&*propose, txns).await.map(|()| notes)) }
            })
            .buffer_unordered(PROPOSALS_IN_FLIGHT);
        while let Some((origin, outcome)) = outcomes.next().await {
            match outcome {
                Ok(happened) => {
                    notes.extend(happened);
                    self.turn.happened(&origin);
                }
                Err(why) => {
                    tracing::debug!(%why, ?origin, "a planned write did not happen");
                    self.turn.refused(origin, self.began.elapsed());
                }
            }
        }
        drop(outcomes);
        self.tell(&notes).await;
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
