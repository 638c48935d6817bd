//! This node's part in the electorate: founding, being invited, being voted out, failing.

use super::{STALE, Shell, millis};
use crate::flock::raft_net::RaftNetwork;
use crate::flock::{FlockConfig, orphans};
use gaggle_gossip::PeerId;
use gaggle_sched::electorate::{Own, Tenure, TenureRules, Theirs};
use gaggle_sched::raft::{
    self, FileSystem, Gate, Group, GroupConfig, GroupError, GroupId, Retention, SetAside, Storage, Timings,
};
use gaggle_sched::state::{Lineage, Resource, View};
use rand::Rng;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::Instant;

/// A part whose core or files failed is taken up again from the disk after this.
const REVIVE_AFTER: Duration = Duration::from_secs(1);
/// After this if the disk refuses.
const REVIVE_AGAIN: Duration = Duration::from_secs(3);
/// First epochs are drawn below this: of two groups founded apart, one pair in millions has revisions that mean different
/// things and compare as equal. Revisions stay below 2^63, as etcd's do.
const FIRST_EPOCHS: u64 = 1 << 22;

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
        if status.voters.contains(&self.me.to_string()) {
            // It would be asked to go on with a log that is gone: it says so (see `lost`), and is voted out first.
            tracing::debug!(peer = %from, "this node is counted as a voter, and has no log");
            return None;
        }
        // What could not be taken up again is of no use any more: the group adds this node anew.
        self.revive_at = None;
        if let Err(error) = self.forget_part().await {
            tracing::warn!(error, "the files of an earlier part could not be removed");
        }
        let (network, view) = (self.network.clone(), self.view.clone());
        match Group::join(config, network, view, status.group.clone(), of.epoch, voters).await {
            Ok(group) => {
                tracing::info!(leader = %from, "joining the electorate");
                self.part.send_replace(Some(group.clone()));
                self.tenure = Tenure::default();
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
        orphans::keep_intent_of_view(&self.view, &self.intent).await;
        if let Some(left) = &self.aside {
            orphans::keep_intent(&left.store, &self.intent).await;
        }
        self.drop_part().await;
    }

    /// Ends this node's part in the electorate, also on disk.
    pub(super) async fn drop_part(&mut self) {
        self.aside = None;
        // The next part begins anew, perhaps before anybody looks again.
        self.tenure = Tenure::default();
        if let Some(group) = self.part.send_replace(None) {
            self.lead.send_replace(None);
            group.stop().await;
        }
        // The files are this node's memory of its flock. Without them, and before it has written down what it follows next,
        // it would come back as a stranger, and those who are left might be too few without it.
        if let Err(why) = self.save_now().await {
            tracing::warn!(why, "the view could not be saved");
        }
        if let Err(error) = self.forget_part().await {
            tracing::warn!(
                error,
                "the files of a group that this node no longer votes in could not be removed"
            );
        }
    }

    /// Removes what the disk holds of the part, beside the threads that serve the network.
    pub(super) async fn forget_part(&self) -> Result<(), String> {
        let dir = self.config.raft.clone();
        let forgotten = tokio::task::spawn_blocking(move || Group::forget(&storage(), &dir)).await;
        let forgotten = forgotten.map_err(|error| error.to_string())?;
        forgotten.map_err(|error| format!("{:#}", anyhow::Error::from(error)))
    }

    /// A voter that was voted out is not always told: it sees it when the leader's voters do not name it.
    pub(super) async fn drop_unnamed_part(&mut self) {
        let Some(own) = self.own_status() else {
            self.tenure = Tenure::default();
            return;
        };
        let me = self.me.to_string();
        let heard =
            self.heard.as_ref().filter(|(_, at)| at.elapsed() < STALE).map(|(heard, _)| &heard.status);
        let theirs = heard
            .filter(|status| status.leader.is_some())
            .map(|status| Theirs { names: status.voters.contains(&me), applied: status.applied });
        let (names, led) = (own.voters.contains(&me), own.leader.is_some());
        let learns = self.part.borrow().as_ref().is_some_and(Group::learns);
        let own = Own { names, learns, led, named_at: own.named_at };
        if self.tenure.is_over(own, theirs, &TenureRules::default(), millis(self.started)) {
            tracing::info!("no longer a voter");
            self.stop_following();
            self.drop_part().await;
        }
    }

    /// A group whose core failed on this node (a disk error, a bug) is taken up again from what is on the disk, as
    /// often as it takes: a full disk may have room again.
    pub(super) async fn revive_failed_part(&mut self) {
        let group = self.part.borrow().clone();
        let due = match &group {
            Some(group) => {
                let status = group.status();
                let failed = status.borrow().failed.clone();
                if failed.is_none() && status.has_changed().is_ok() {
                    self.revive_at = None;
                    self.trouble = None;
                    return;
                }
                *self.revive_at.get_or_insert_with(|| {
                    tracing::error!(why = failed, "this node's part in the group failed");
                    Instant::now() + REVIVE_AFTER
                })
            }
            None => match self.revive_at {
                Some(at) => at,
                None => return,
            },
        };
        if Instant::now() < due {
            return;
        }
        if let Some(group) = group {
            self.part.send_replace(None);
            self.lead.send_replace(None);
            group.stop().await;
        }
        match take_up(&self.config, self.me, self.leases.gate(), self.network.clone(), &self.view).await {
            Ok(group) => {
                tracing::info!("this node's part in the group is taken up again");
                self.revive_at = None;
                self.trouble = None;
                self.part.send_replace(group);
            }
            Err(error) => {
                let why = format!("{:#}", anyhow::Error::from(error));
                if self.trouble.as_ref() != Some(&why) {
                    tracing::error!(why, "this node's part in the group cannot be taken up again yet");
                }
                self.trouble = Some(why);
                self.revive_at = Some(Instant::now() + REVIVE_AGAIN);
            }
        }
    }

    /// The group counts this node as a voter, and there is no log here to vote with.
    pub(super) fn lost(&self) -> bool {
        let heard = self.heard.as_ref().filter(|(_, at)| at.elapsed() < STALE);
        let me = self.me.to_string();
        self.part.borrow().is_none() && heard.is_some_and(|(heard, _)| heard.status.voters.contains(&me))
    }

    /// Frames of newer voters are accepted although our own log, which may be behind, does not name them.
    pub(super) fn tell_part(&self) {
        let heard = self.heard.as_ref().filter(|(_, at)| at.elapsed() < STALE);
        if let (Some(group), Some((heard, _))) = (&*self.part.borrow(), heard) {
            group.tell(heard.status.voters.clone());
        }
    }
}

/// Takes this node's part up from the disk, if it has one. Files that cannot be believed go aside: then this node has
/// no part, and what they still say is in its view.
pub(in crate::flock) async fn take_up(
    config: &FlockConfig,
    me: PeerId,
    gate: Gate,
    network: Arc<RaftNetwork>,
    view: &View,
) -> Result<Option<Group>, GroupError> {
    let error = match Group::resume(raft_config(config, me, gate), network, view.clone()).await {
        Err(error) if error.is_damage() => error,
        other => return other,
    };
    let why = format!("{:#}", anyhow::Error::from(error));
    let SetAside { to, lineage, state } = Group::set_aside(&config.raft)?;
    let known = lineage.is_some();
    if let (Some(state), Some(lineage)) = (state, lineage) {
        view.write(|store| {
            if store.lineage() != Some(&lineage) || store.revision() < state.revision() {
                store.replace(state, lineage);
            }
        });
    }
    let set_aside = to.display();
    let others = view.read(|store| store.list(&Resource::fixed("nodes"), None).count()) > 1;
    if others || !known {
        tracing::error!(
            why, %set_aside,
            "this desktop's copy of the group's log is damaged and set aside; the group's other voters have what was \
             acknowledged, and this desktop follows them until they make it a voter again (if there are none, what \
             people asked for comes back from the documents, and the rest is lost)"
        );
    } else {
        tracing::error!(
            why, %set_aside,
            "the group's log is damaged and set aside, and no other desktop has a copy: what happened since its last \
             snapshot (statuses, bindings, events) is lost, what people asked for comes back from the documents; if \
             you have a backup of the data directory, stop gaggle and restore it instead"
        );
    }
    Ok(None)
}

/// What keeps the group's files.
pub(super) fn storage() -> Arc<dyn Storage> {
    Arc::new(FileSystem)
}

pub(in crate::flock) fn raft_config(config: &FlockConfig, me: PeerId, gate: Gate) -> GroupConfig {
    GroupConfig {
        dir: config.raft.clone(),
        storage: storage(),
        me: me.to_string(),
        timings: Timings::lan(),
        retention: Retention::default(),
        gate,
    }
}
