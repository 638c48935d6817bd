//! This node's part in the electorate: founding, being invited, being voted out, failing.

use super::{STALE, Shell};
use crate::flock::{FlockConfig, orphans};
use gaggle_gossip::PeerId;
use gaggle_sched::raft::{self, Gate, Group, GroupConfig, GroupId, Timings};
use gaggle_sched::state::Lineage;
use rand::Rng;
use std::time::Duration;
use tokio::time::Instant;

/// A voter that is no longer named drops its part after this: the change may be one of several.
const VOTED_OUT_AFTER: Duration = Duration::from_millis(500);
/// A newcomer that was invited and is still not named gives up after this; it may be invited again.
const NEVER_VOTED_AFTER: Duration = Duration::from_secs(15);
/// A part whose core or files failed is taken up again from the disk after this.
const REVIVE_AFTER: Duration = Duration::from_secs(1);
/// First epochs are drawn below this, so that two groups founded apart have different revisions, and
/// revisions stay below 2^53 for clients that read them as floating-point numbers.
const FIRST_EPOCHS: u64 = 1 << 12;

impl Shell {
    pub(super) async fn found(&mut self, why: String) {
        let (id, epoch) = {
            let mut random = rand::rng();
            (GroupId::from_random(random.random()), random.random_range(1..FIRST_EPOCHS))
        };
        tracing::info!(group = %id, epoch, why, "founding a group");
        let config = raft_config(&self.config, self.me, self.leases.gate());
        match Group::found(config, self.network.clone(), self.view.clone(), id.clone(), epoch).await {
            Ok(group) => {
                self.of.send_replace(Some(Lineage { group: id.to_string(), epoch }));
                self.part.send_replace(Some(group));
            }
            Err(error) => {
                self.why = format!("cannot found a group: {error}");
                tracing::error!(%error, "cannot found a group");
            }
        }
    }

    /// Raft frames arrive although this node has no part: the leader that we follow makes us a voter.
    pub(super) async fn accept(&mut self, from: PeerId) -> Option<Group> {
        if let Some(group) = &*self.part.borrow() {
            return Some(group.clone());
        }
        let of = self.of.borrow().clone()?;
        if self.aside.is_some() || self.promises.has_passed(&of).await {
            tracing::debug!(peer = %from, "this desktop has promised not to go on with this epoch");
            return None;
        }
        let status = self.known()?;
        let leads = status.leader.as_deref() == Some(from.to_string().as_str());
        if !leads || status.group.as_str() != of.group {
            tracing::debug!(peer = %from, "Raft frames from a peer that is not the leader we follow");
            return None;
        }
        let config = raft_config(&self.config, self.me, self.leases.gate());
        let mut voters = status.voters.clone();
        voters.insert(from.to_string());
        let (network, view) = (self.network.clone(), self.view.clone());
        match Group::join(config, network, view, status.group.clone(), of.epoch, voters).await {
            Ok(group) => {
                tracing::info!(leader = %from, "joining the electorate");
                self.part.send_replace(Some(group.clone()));
                self.unnamed_since = None;
                Some(group)
            }
            Err(error) => {
                tracing::error!(%error, "cannot join the electorate");
                None
            }
        }
    }

    /// Takes no part in the electorate any more, for a founding or because another group is followed, and looks what the
    /// part's files hold. They stay until they are forgotten.
    pub(super) async fn set_aside(&mut self) {
        if let Some(group) = self.part.send_replace(None) {
            self.lead.send_replace(None);
            group.stop().await;
        }
        if self.aside.is_none() {
            self.aside = match raft::salvage(&self.config.raft).await {
                Ok(left) => left,
                Err(error) => {
                    let error = anyhow::Error::from(error);
                    tracing::error!(
                        error = format!("{error:#}"),
                        "what this desktop's log held beyond its view is lost"
                    );
                    None
                }
            };
        }
    }

    /// Takes the part up again that was set aside, unless that has been promised away.
    pub(super) async fn take_up_again(&mut self) {
        self.aside = None;
        let config = raft_config(&self.config, self.me, self.leases.gate());
        match Group::resume(config, self.network.clone(), self.view.clone()).await {
            Ok(group) => _ = self.part.send_replace(group),
            Err(error) => tracing::error!(%error, "this node's part cannot be taken up again"),
        }
    }

    /// Ends this node's part in the electorate, also on disk, but for what people wrote.
    pub(super) async fn give_up_part(&mut self) {
        self.set_aside().await;
        if let Some(left) = &self.aside {
            orphans::keep_intent(&left.store, &self.intent).await;
        }
        self.drop_part().await;
    }

    /// Ends this node's part in the electorate, also on disk.
    pub(super) async fn drop_part(&mut self) {
        self.aside = None;
        if let Some(group) = self.part.send_replace(None) {
            self.lead.send_replace(None);
            group.stop().await;
        }
        if let Err(error) = Group::forget(&self.config.raft) {
            tracing::warn!(%error, "the files of a group that this node no longer votes in could not be removed");
        }
    }

    /// A voter that was voted out is not always told: it sees it when the leader's voters do not name it.
    pub(super) async fn drop_unnamed_part(&mut self) {
        let Some(own) = self.own_status() else {
            self.has_voted = false;
            return;
        };
        let me = self.me.to_string();
        let own_names = own.voters.contains(&me);
        self.has_voted |= own_names;
        let heard =
            self.heard.as_ref().filter(|(heard, at)| at.elapsed() < STALE && heard.status.leader.is_some());
        let unnamed = match heard {
            Some((heard, _)) if own.leader.is_none() || !own_names => !heard.status.voters.contains(&me),
            _ => !own_names,
        };
        let patience = if self.has_voted { VOTED_OUT_AFTER } else { NEVER_VOTED_AFTER };
        if !unnamed {
            self.unnamed_since = None;
        } else if self.unnamed_since.get_or_insert_with(Instant::now).elapsed() > patience {
            tracing::info!("no longer a voter");
            self.unnamed_since = None;
            self.stop_following();
            self.drop_part().await;
        }
    }

    /// A group whose core failed on this node (a disk error, a bug) is taken up again from what is on the disk.
    pub(super) async fn revive_failed_part(&mut self) {
        let Some(group) = self.part.borrow().clone() else { return };
        let failed = group.status().borrow().failed.clone();
        let ended = group.status().has_changed().is_err();
        if failed.is_none() && !ended {
            self.failed_since = None;
            return;
        }
        if self.failed_since.get_or_insert_with(Instant::now).elapsed() < REVIVE_AFTER {
            return;
        }
        self.failed_since = None;
        tracing::error!(
            why = failed,
            "this node's part in the group failed; taking it up again from the disk"
        );
        self.part.send_replace(None);
        self.lead.send_replace(None);
        group.stop().await;
        let config = raft_config(&self.config, self.me, self.leases.gate());
        match Group::resume(config, self.network.clone(), self.view.clone()).await {
            Ok(group) => _ = self.part.send_replace(group),
            Err(error) => tracing::error!(%error, "this node's part cannot be taken up again"),
        }
    }

    /// Frames of newer voters are accepted although our own log, which may be behind, does not name them.
    pub(super) fn tell_part(&self) {
        let heard = self.heard.as_ref().filter(|(_, at)| at.elapsed() < STALE);
        if let (Some(group), Some((heard, _))) = (&*self.part.borrow(), heard) {
            group.tell(heard.status.voters.clone());
        }
    }
}

pub(in crate::flock) fn raft_config(config: &FlockConfig, me: PeerId, gate: Gate) -> GroupConfig {
    GroupConfig { dir: config.raft.clone(), me: me.to_string(), timings: Timings::lan(), gate }
}
