//! The group's housekeeping: publishes its status, keeps the log short, finishes what another leader began.

use super::change;
use super::config::Timings;
use super::log::{Identity, Log};
use super::status::{Pulse, Role, Status, derive};
use super::types::Raft;
use crate::state::View;
use std::sync::Arc;
use tokio::sync::{Mutex, watch};
use tokio::time::MissedTickBehavior;
use tokio_util::sync::CancellationToken;

/// Bytes of log after which a snapshot is taken, however few entries they are.
const LOG_BYTES: u64 = 64 << 20;

pub(super) struct Keeper {
    pub raft: Raft,
    pub log: Log,
    pub view: View,
    pub identity: Identity,
    pub pulse: Arc<Pulse>,
    pub timings: Timings,
    pub status: watch::Sender<Status>,
    /// Held while the voters are being changed.
    pub changing: Arc<Mutex<()>>,
}

impl Keeper {
    pub async fn run(self, stop: CancellationToken) {
        let mut metrics = self.raft.metrics();
        // Silence makes no event, so the clock has to look for it.
        let mut tick = tokio::time::interval(self.timings.heartbeat);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut shortened_at = None;
        loop {
            tokio::select! {
                () = stop.cancelled() => return,
                _ = tick.tick() => {}
                changed = metrics.changed() => if changed.is_err() { return },
            }
            let now = metrics.borrow_and_update().clone();
            let status = derive(&now, &self.identity, &self.pulse, &self.timings, self.view.revision());
            let leads = status.role == Role::Leader && status.quorum;
            self.status.send_if_modified(|last| {
                let changed = *last != status;
                *last = status;
                changed
            });
            if self.log.bytes() > LOG_BYTES && now.last_applied != shortened_at {
                shortened_at = now.last_applied;
                self.shorten(now.snapshot.map(|id| id.index)).await;
            }
            let joint = now.membership_config.membership().get_joint_config().len() > 1;
            if leads && joint {
                self.settle(&stop).await;
            }
        }
    }

    /// Drops what the last snapshot covers, and takes another.
    async fn shorten(&self, snapshot: Option<u64>) {
        if let Some(upto) = snapshot {
            _ = self.raft.trigger().purge_log(upto).await;
        }
        // A failure shows in the metrics, as the group's own.
        _ = self.raft.trigger().snapshot().await;
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
