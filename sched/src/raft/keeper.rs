//! The group's housekeeping: publishes its status, keeps the log short, finishes what another leader began.

use super::change;
use super::config::{Retention, Timings};
use super::log::{Identity, Log};
use super::snapshot::SnapshotFile;
use super::status::{Pulse, Role, Status, derive};
use super::types::{Id, Raft};
use crate::state::View;
use std::sync::Arc;
use tokio::sync::{Mutex, watch};
use tokio::time::MissedTickBehavior;
use tokio_util::sync::CancellationToken;

pub(super) struct Keeper {
    pub raft: Raft,
    pub log: Log,
    pub view: View,
    pub identity: Identity,
    pub pulse: Arc<Pulse>,
    pub timings: Timings,
    pub retention: Retention,
    pub snapshot: SnapshotFile,
    pub status: watch::Sender<Status>,
    /// Held while the voters are being changed.
    pub changing: Arc<Mutex<()>>,
}

/// How far the log has been shortened.
#[derive(Default)]
struct Shortening {
    /// Bytes that had gone into the log when the last snapshot was asked for.
    at: u64,
    /// What the last one covers of which anything was dropped.
    covered: Option<Id>,
    /// Entries to keep behind the next one.
    keep: u64,
}

impl Keeper {
    pub async fn run(self, stop: CancellationToken) {
        let (mut metrics, flushed) = (self.raft.metrics(), self.log.flushed());
        // Silence makes no event, so the clock has to look for it.
        let mut tick = tokio::time::interval(self.timings.heartbeat);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut shortening = Shortening { keep: self.retention.entries_kept, ..Shortening::default() };
        loop {
            let ticked = tokio::select! {
                () = stop.cancelled() => return,
                _ = tick.tick() => true,
                changed = metrics.changed() => match changed {
                    Ok(()) => false,
                    Err(_) => return,
                },
            };
            let now = metrics.borrow_and_update().clone();
            let status =
                derive(&now, &self.identity, &self.pulse, &self.timings, self.view.revision(), &flushed);
            let leads = status.role == Role::Leader && status.quorum;
            self.status.send_if_modified(|last| {
                let changed = *last != status;
                *last = status;
                changed
            });
            self.shorten(&mut shortening, now.last_applied, now.snapshot).await;
            let joint = now.membership_config.membership().get_joint_config().len() > 1;
            // Each attempt is itself a change of the metrics, also one that has to wait for the change before it.
            if leads && joint && ticked {
                self.settle(&stop).await;
            }
        }
    }

    /// Drops what a new snapshot covers, and takes another one as soon as the log has grown enough.
    async fn shorten(&self, state: &mut Shortening, applied: Option<Id>, snapshot: Option<Id>) {
        // A failure shows in the metrics, as the group's own.
        if snapshot > state.covered {
            state.covered = snapshot;
            let upto = snapshot.and_then(|id| id.index.checked_sub(state.keep));
            if let Some(upto) = upto {
                _ = self.raft.trigger().purge_log(upto).await;
            }
        }
        let bytes = self.log.appended() - state.at;
        if applied > snapshot && bytes >= self.retention.log_after(self.snapshot.bytes()) {
            let entries = [applied, snapshot].map(|id| id.map_or(0, |id| id.index));
            state.keep = self.retention.kept(entries[0] - entries[1], bytes);
            state.at += bytes;
            _ = self.raft.trigger().snapshot().await;
        }
    }

    async fn settle(&self, stop: &CancellationToken) {
        // While the lock is taken, whoever holds it is changing the voters and will finish.
        let Ok(_changing) = self.changing.try_lock() else { return };
        let settled = tokio::select! {
            () = stop.cancelled() => return,
            settled = change::settle(&self.raft, self.timings.quorum_timeout) => settled,
        };
        if let Err(error) = settled {
            tracing::warn!(%error, group = %self.identity.group, "a change of the voters is still half-done");
        }
    }
}
