//! A desktop's work: what its disk and its engine keep, and what its process knows.

use super::engine::Engine;
use super::lead::Duties;
use super::order::Archive;
use super::propose::Proposal;
use super::record::Record;
use super::{agent, clients, documents, watch};
use crate::random::Random;
use gaggle_gossip::intent::replica::Replica;
use gaggle_sched::state::{Seen, Store};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use k8s_openapi::jiff::Timestamp;
use std::collections::BTreeMap;
use std::rc::Rc;

/// The wall clock when a run begins: 2026-01-01.
const BEGAN_S: i64 = 1_767_225_600;

/// All desktops' work, and what only the simulation knows.
pub struct Work {
    pub desks: Vec<Desk>,
    pub archive: Archive,
    pub memo: documents::Memo,
    pub record: Record,
    /// Numbers of their own, so that a run without work has the same ones.
    pub random: Random,
    pub numbers: u64,
    /// Identities by namespace, name and group: where their containers run.
    pub identities: BTreeMap<String, BTreeMap<String, usize>>,
    pub settled_revision: u64,
    pub roamer: watch::Roamer,
}

/// What a machine keeps.
#[derive(Default)]
pub struct Desk {
    pub documents: Rc<Replica>,
    pub engine: Engine,
    /// How far its wall clock is off, in microseconds.
    pub wall_off: i64,
    pub woke_at: u64,
    /// How often it lost what it held of the group's order.
    pub forgot: u32,
    pub life: Option<Box<Life>>,
}

/// What a process knows, and forgets when it ends.
pub struct Life {
    pub store: Store,
    /// The store's ids of transactions are those of its whole lineage.
    pub knows_ordered: bool,
    pub documents_seen: Seen,
    /// Grows with every change of a document.
    pub documents_changed: u64,
    pub exchange_ms: u64,
    pub proposals: BTreeMap<u64, Proposal>,
    pub requests: Vec<clients::Request>,
    pub agent: agent::Agent,
    pub watch: watch::Watch,
    pub duties: Option<Duties>,
    /// Until when writes are brought to a leader although none acts.
    pub quorum_until_ms: u64,
}

impl Life {
    pub fn new(store: Store, now_ms: u64) -> Self {
        let seen = store.seen();
        Self {
            watch: watch::Watch::new(&store),
            store,
            knows_ordered: true,
            documents_seen: Seen { revision: Default::default(), ..seen },
            documents_changed: 0,
            exchange_ms: 0,
            proposals: BTreeMap::new(),
            requests: Vec::new(),
            agent: agent::Agent::new(now_ms),
            duties: None,
            quorum_until_ms: 0,
        }
    }
}

impl Work {
    pub fn new(nodes: usize, seed: u64) -> Self {
        let mut random = Random::new(seed ^ 0x1077_d0e5);
        let desks = (0..nodes).map(|_| {
            let wall_off = random.within(0, 4_000_000) as i64 - 2_000_000;
            Desk { wall_off, ..Desk::default() }
        });
        let desks = desks.collect();
        Self {
            desks,
            archive: Archive::default(),
            memo: documents::Memo::default(),
            record: Record::default(),
            random,
            numbers: 0,
            identities: BTreeMap::new(),
            settled_revision: 0,
            roamer: watch::Roamer::new(seed),
        }
    }

    pub fn random(&mut self) -> &mut Random {
        &mut self.random
    }

    pub fn number(&mut self) -> u64 {
        self.numbers += 1;
        self.numbers
    }

    /// A node's wall clock.
    pub fn wall(&self, node: usize, now: u64) -> Timestamp {
        let micros = BEGAN_S * 1_000_000 + now as i64 + self.desks[node].wall_off;
        Timestamp::from_microsecond(micros).unwrap_or_default()
    }

    pub fn time(&self, node: usize, now: u64) -> Time {
        Time(self.wall(node, now))
    }

    /// What a running process knows.
    pub fn life(&mut self, node: usize) -> &mut Life {
        self.desks[node].life.as_deref_mut().expect("only processes that run do work")
    }
}
