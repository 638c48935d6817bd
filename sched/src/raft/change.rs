//! Changing the voters: newcomers catch up first, then all of the change happens at once, or none.

use super::group::GroupError;
use super::types::{NodeId, Raft, RaftPeer, node_id};
use openraft::{ChangeMembers, RaftMetrics};
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;
use tokio::time::Instant;

/// Time to take newcomers that did not catch up back out of the membership.
const CLEAN_UP: Duration = Duration::from_secs(1);

/// Makes exactly `voters` the voters. Only on a leader that hears a quorum.
pub(super) async fn set_voters(
    raft: &Raft,
    voters: &BTreeSet<String>,
    limit: Duration,
) -> Result<(), GroupError> {
    let wanted: BTreeMap<NodeId, RaftPeer> =
        voters.iter().map(|peer| (node_id(peer), RaftPeer { peer: peer.clone() })).collect();
    if wanted.is_empty() || wanted.len() != voters.len() {
        return Err(GroupError::BadVoters);
    }
    let deadline = Instant::now() + limit;
    let present = members(raft);
    let newcomers: BTreeMap<NodeId, RaftPeer> =
        wanted.iter().filter(|(id, _)| !present.contains(id)).map(|(id, node)| (*id, node.clone())).collect();
    let changed = async {
        if !newcomers.is_empty() {
            hide_origin(raft, deadline).await?;
            for (id, node) in &newcomers {
                within(deadline, "adding a learner", raft.add_learner(*id, node.clone(), false)).await?;
            }
            caught_up(raft, &newcomers, deadline).await?;
        }
        let ids: BTreeSet<NodeId> = wanted.keys().copied().collect();
        within(deadline, "changing the voters", raft.change_membership(ids, false)).await
    };
    let changed = changed.await;
    drop_learners(raft).await;
    changed
}

/// Finishes a change that the leader before this one left half-done.
pub(super) async fn settle(raft: &Raft, limit: Duration) -> Result<(), GroupError> {
    let joint = raft.metrics().borrow().membership_config.membership().get_joint_config().clone();
    match joint.as_slice() {
        [_, .., target] => {
            let change = raft.change_membership(target.clone(), false);
            within(Instant::now() + limit, "finishing a change of the voters", change).await
        }
        _ => Ok(()),
    }
}

fn members(raft: &Raft) -> BTreeSet<NodeId> {
    raft.metrics().borrow().membership_config.voter_ids().collect()
}

/// Makes sure that the log no longer reaches back to the founding. What the founder's view held before its first
/// entry is in snapshots only, so a newcomer must begin with one.
async fn hide_origin(raft: &Raft, deadline: Instant) -> Result<(), GroupError> {
    if raft.metrics().borrow().purged.is_some() {
        return Ok(());
    }
    raft.trigger().snapshot().await.map_err(GroupError::fatal)?;
    let metrics = wait(raft, deadline, "taking a snapshot", |metrics| metrics.snapshot.is_some()).await?;
    let upto = metrics.snapshot.map_or(0, |id| id.index);
    raft.trigger().purge_log(upto).await.map_err(GroupError::fatal)?;
    wait(raft, deadline, "purging the log", |metrics| metrics.purged.is_some()).await?;
    Ok(())
}

/// Waits until each newcomer has what the log held when it was added.
async fn caught_up(
    raft: &Raft,
    newcomers: &BTreeMap<NodeId, RaftPeer>,
    deadline: Instant,
) -> Result<(), GroupError> {
    let goal = raft.metrics().borrow().last_log_index;
    let matched = |metrics: &RaftMetrics<NodeId, RaftPeer>, id: &NodeId| {
        let matched = metrics.replication.as_ref().and_then(|all| *all.get(id)?);
        matched.map(|id| id.index) >= goal
    };
    let all = |metrics: &RaftMetrics<NodeId, RaftPeer>| newcomers.keys().all(|id| matched(metrics, id));
    if wait(raft, deadline, "catching up", all).await.is_ok() {
        return Ok(());
    }
    let metrics = raft.metrics().borrow().clone();
    let behind = newcomers.iter().filter(|(id, _)| !matched(&metrics, id)).map(|(_, node)| node.peer.clone());
    Err(GroupError::NotCaughtUp(behind.collect::<Vec<_>>().join(", ")))
}

async fn drop_learners(raft: &Raft) {
    let metrics = raft.metrics().borrow().clone();
    let learners: BTreeSet<NodeId> = metrics.membership_config.membership().learner_ids().collect();
    if learners.is_empty() || metrics.state != openraft::ServerState::Leader {
        return;
    }
    let removal = raft.change_membership(ChangeMembers::RemoveNodes(learners), true);
    if !matches!(tokio::time::timeout(CLEAN_UP, removal).await, Ok(Ok(_))) {
        tracing::warn!("learners that did not catch up could not be taken out of the membership yet");
    }
}

async fn wait(
    raft: &Raft,
    deadline: Instant,
    what: &'static str,
    done: impl Fn(&RaftMetrics<NodeId, RaftPeer>) -> bool,
) -> Result<RaftMetrics<NodeId, RaftPeer>, GroupError> {
    let mut metrics = raft.metrics();
    let reached = tokio::time::timeout_at(deadline, metrics.wait_for(done)).await;
    match reached {
        Ok(Ok(metrics)) => Ok(metrics.clone()),
        Ok(Err(_)) => Err(GroupError::Stopped),
        Err(_) => Err(GroupError::Deadline(what)),
    }
}

async fn within<T, E: std::error::Error>(
    deadline: Instant,
    what: &'static str,
    step: impl Future<Output = Result<T, E>>,
) -> Result<(), GroupError> {
    match tokio::time::timeout_at(deadline, step).await {
        Ok(Ok(_)) => Ok(()),
        Ok(Err(error)) => Err(GroupError::Step { what, why: error.to_string() }),
        Err(_) => Err(GroupError::Deadline(what)),
    }
}
