//! Whether a node is one that a DaemonSet's pod belongs on, by the same filters that bind it there later.

use super::cluster::Machine;
use super::demand::Demand;
use super::filter;
use crate::state::Key;
use k8s_openapi::api::core::v1::{Node, Pod};
use std::sync::Arc;

/// What a node and a daemon's pod are to each other. Room is no question here: a pod without room waits for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hosting {
    /// The pod is to run there.
    Wanted,
    /// It is not to be started there; one that runs may stay (a taint `NoSchedule` came later).
    Kept,
    Unwanted,
}

/// A daemon's pod, prepared once to be held against many nodes.
#[derive(Debug)]
pub struct Daemon(Demand);

impl Daemon {
    pub fn new(pod: Pod) -> Self {
        Self(Demand::new(Key::of::<Pod>("", ""), Arc::new(pod)))
    }

    pub fn hosting(&self, name: &str, node: &Node) -> Hosting {
        let machine = Machine::bare(name.to_owned(), node);
        if !filter::is_chosen(&self.0, &machine) {
            return Hosting::Unwanted;
        }
        match filter::strongest_objection(&self.0, &machine) {
            None => Hosting::Wanted,
            Some("NoExecute") => Hosting::Unwanted,
            Some(_) => Hosting::Kept,
        }
    }
}
