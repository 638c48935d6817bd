//! Leaving properly: out of the electorate, out of the roster, and no container left behind.

use super::eventually;
use crate::agent::Agent;
use crate::flock::{Flock, LeaveProgress};
use gaggle_sched::state::View;
use std::fmt;
use std::time::Duration;
use tokio::time::Instant;

/// How long the group may take to let a node go that runs nothing; after that it stops as a crashed one would.
const LET_GO_WITHIN: Duration = Duration::from_secs(20);
/// How long pods may take to end: their own grace periods are 30 s unless they say otherwise.
const PODS_WITHIN: Duration = Duration::from_secs(45);
/// The membership has no event for "the others have seen it": look again this often.
const LOOK_EVERY: Duration = Duration::from_millis(50);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Left {
    /// The group goes on without this node, and nothing of it stays here.
    Gone,
    /// This was the only node: its state stays on this disk.
    Last,
    /// The group did not let it go in time.
    TimedOut,
    Interrupted,
}

impl fmt::Display for Left {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Gone => "left the cluster; `gaggle up` rejoins it",
            Self::Last => "stopped; this was the last desktop, its state stays here and `gaggle up` goes on with it",
            Self::TimedOut => "stopped without having left: the others did not let it go in time, and will see this desktop as gone",
            Self::Interrupted => "stopped at once; nothing is lost, but the others will see this desktop as gone",
        })
    }
}

/// Waits for the group to let this node go; its facts already say that it is leaving.
pub async fn leave(flock: &Flock, agent: &Agent, view: &View, node: &str, tell: &impl Fn(String)) -> Left {
    let mut deadline = Instant::now() + LET_GO_WITHIN;
    let mut status = flock.status.clone();
    let mut revisions = view.subscribe();
    let (mut told, mut ending) = (None, false);
    loop {
        let progress = flock.leave_progress(node);
        match &progress {
            LeaveProgress::Last => return Left::Last,
            LeaveProgress::Left => break,
            // The group takes this node off the roster when its last pod has ended, which takes their grace periods.
            LeaveProgress::InRoster if !ending && status.borrow().quorum && *agent.pods().borrow() > 0 => {
                ending = true;
                deadline = Instant::now() + PODS_WITHIN;
                tell("ending the pods here".into());
            }
            LeaveProgress::Voting | LeaveProgress::InRoster if told.as_ref() == Some(&progress) => {}
            LeaveProgress::Voting => tell("handing its vote over".into()),
            LeaveProgress::InRoster => tell("waiting to be taken out of the roster".into()),
        }
        told = Some(progress);
        tokio::select! {
            _ = status.changed() => {}
            _ = revisions.changed() => {}
            () = tokio::time::sleep(LOOK_EVERY) => {}
            () = tokio::time::sleep_until(deadline) => return Left::TimedOut,
        }
    }
    clear(agent, tell).await;
    Left::Gone
}

/// Removes all containers of pods, within a time.
pub async fn clear(agent: &Agent, tell: &impl Fn(String)) {
    agent.clear();
    let mut pods = agent.pods();
    let count = *pods.borrow_and_update();
    if count > 0 {
        tell("removing containers".into());
        if !eventually(&mut pods, Instant::now() + PODS_WITHIN, |pods| *pods == 0).await {
            tell("some containers could not be removed in time; they are when this desktop rejoins".into());
        }
    }
}
