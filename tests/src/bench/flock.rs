//! What `gaggle status -o json` promises to scripts, and waiting for a flock to assemble.

use super::{Bench, Desktop, Up};
use anyhow::{Context, Result, ensure};
use serde::Deserialize;
use std::time::Duration;

/// Assembling takes seconds; this is for nine daemons on a machine that is busy with another bench.
pub const ASSEMBLES_WITHIN: Duration = Duration::from_secs(90);

/// The flock as one of its desktops sees it.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Flock {
    pub cluster: String,
    pub group: serde_json::Value,
    pub epoch: serde_json::Value,
    pub term: serde_json::Value,
    pub revision: serde_json::Value,
    /// The leader's name.
    pub leader: Option<String>,
    /// Whether more than half is there.
    pub quorum: bool,
    /// How many belong.
    pub roster: usize,
    /// The names of those who vote.
    pub voters: Vec<String>,
    pub nodes: Vec<NodeStatus>,
}

/// One desktop of the flock.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct NodeStatus {
    pub name: String,
    pub id: serde_json::Value,
    pub addresses: Vec<String>,
    pub ready: bool,
    pub role: String,
    pub revision: serde_json::Value,
}

impl Flock {
    /// The names of the desktops that are ready, in order.
    #[must_use]
    pub fn ready(&self) -> Vec<String> {
        let mut names: Vec<_> =
            self.nodes.iter().filter(|node| node.ready).map(|node| node.name.clone()).collect();
        names.sort();
        names
    }

    /// The voters in order.
    #[must_use]
    pub fn sorted_voters(&self) -> Vec<String> {
        let mut voters = self.voters.clone();
        voters.sort();
        voters
    }

    /// What all desktops must agree on, whatever the moment in which they are asked.
    fn agreed(&self) -> (&str, &serde_json::Value, Option<&str>, Vec<String>, Vec<String>) {
        (&self.cluster, &self.group, self.leader.as_deref(), self.sorted_voters(), self.ready())
    }
}

/// How many of so many desktops vote: the largest odd number up to seven that they can fill.
#[must_use]
pub fn electorate(desktops: usize) -> usize {
    match desktops {
        0..=2 => 1,
        3 | 4 => 3,
        5 | 6 => 5,
        _ => 7,
    }
}

impl Bench {
    /// The desktop of this name.
    pub fn named(&self, name: &str) -> Result<&Desktop> {
        self.desktops.iter().find(|desktop| desktop.name() == name).with_context(|| format!("no {name}"))
    }

    /// The leader of a flock, and the others in order.
    pub fn leader_and_others(&self, flock: &Flock) -> Result<(&Desktop, Vec<&Desktop>)> {
        let leader = self.named(flock.leader.as_deref().context("no leader")?)?;
        Ok((leader, self.desktops.iter().filter(|desktop| desktop.index != leader.index).collect()))
    }

    /// Starts all daemons at once and waits until they are one flock.
    pub fn up(&self) -> Result<Flock> {
        self.each(|desktop| desktop.start_daemon(&Up::default()))?;
        self.assembled(&(1..=self.desktops.len()).collect::<Vec<_>>())
    }

    /// Waits until exactly these desktops are one flock with a full electorate, as each of them sees it.
    pub fn assembled(&self, members: &[usize]) -> Result<Flock> {
        let mut names: Vec<_> = members.iter().map(|&index| self.desktop(index).name()).collect();
        names.sort();
        self.wait_until(ASSEMBLES_WITHIN, &format!("{names:?} to be one flock"), || {
            let mut first: Option<Flock> = None;
            for &index in members {
                let seen = self.desktop(index).status()?;
                ensure!(seen.quorum, "d{index} sees no quorum: {seen:?}");
                ensure!(seen.leader.is_some(), "d{index} sees no leader: {seen:?}");
                // Those who died still belong.
                ensure!(seen.roster >= members.len(), "d{index} counts {} who belong: {seen:?}", seen.roster);
                ensure!(seen.ready() == names, "d{index} sees {:?} ready", seen.ready());
                ensure!(
                    seen.voters.len() == electorate(members.len()),
                    "d{index} sees {} voters: {:?}",
                    seen.voters.len(),
                    seen.voters
                );
                match &first {
                    None => first = Some(seen),
                    Some(first) => {
                        ensure!(first.agreed() == seen.agreed(), "d{index} sees {seen:?}, another {first:?}");
                    }
                }
            }
            Ok(first)
        })
    }
}
