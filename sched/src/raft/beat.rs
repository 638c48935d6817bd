//! When a leader speaks.
//!
//! openraft ties two times together that have nothing to do with each other: how often a leader speaks, and how long it waits
//! for the answer to an append. On a network where an answer takes 400 ms, a leader that speaks every 150 ms and waits no
//! longer than that would never learn that anything was appended. So openraft's interval is the patience, and the beat is here.

use super::types::Raft;
use openraft::ServerState;
use std::time::Duration;
use tokio::time::MissedTickBehavior;
use tokio_util::sync::CancellationToken;

/// Lets the leader speak once every `every` until the group stops. To a voter that has not answered yet nothing is sent.
pub(super) async fn run(raft: Raft, every: Duration, stop: CancellationToken) {
    let mut tick = tokio::time::interval(every);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            _ = tick.tick() => {}
        }
        let leads = raft.metrics().borrow().state == ServerState::Leader;
        if leads && raft.trigger().heartbeat().await.is_err() {
            return;
        }
    }
}
