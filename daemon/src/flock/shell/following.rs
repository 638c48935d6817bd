//! Whom this node's view follows.

use super::{STALE, Shell};
use crate::flock::follow::{self, Heard};
use gaggle_gossip::PeerId;
use gaggle_gossip::membership::{Member, Role as GossipRole};
use gaggle_sched::raft;
use gaggle_sched::state::{Lineage, Store, View};
use std::time::Duration;
use tokio::task::JoinHandle;
use tokio::time::Instant;

/// A stream that broke is not opened again sooner.
const FOLLOW_AGAIN: Duration = Duration::from_millis(100);

/// A voter that has known no leader with a quorum for this long is left for one that does: it may have been voted out,
/// together with those that it still hears, and was never told.
const LEADERLESS: Duration = Duration::from_secs(3);

/// A follow stream at work.
pub(super) struct Following {
    pub from: PeerId,
    pub task: JoinHandle<String>,
    /// Since when it has known no leader with a quorum.
    leaderless: Option<Instant>,
}

impl Following {
    fn heard(&mut self, status: &raft::Status, now: Instant) {
        let led = status.leader.is_some() && status.quorum;
        self.leaderless = if led { None } else { self.leaderless.or(Some(now)) };
    }

    fn is_left_for(&self, best: Option<(bool, PeerId)>, now: Instant) -> bool {
        let leaderless = self.leaderless.is_some_and(|since| now.duration_since(since) >= LEADERLESS);
        leaderless && best.is_some_and(|(quorum, peer)| quorum && peer != self.from)
    }
}

impl Shell {
    /// What is known of the group now: from our own part if it hears a leader, else from the voter that we follow.
    pub(super) fn known(&self) -> Option<raft::Status> {
        let me = self.me.to_string();
        let own = self.own_status().filter(|own| own.failed.is_none() && own.voters.contains(&me));
        if let Some(own) = own.as_ref().filter(|own| own.leader.is_some()) {
            return Some(own.clone());
        }
        let heard = self.heard.as_ref().filter(|(_, at)| at.elapsed() < STALE);
        heard.map(|(heard, _)| heard.status.clone()).or(own)
    }

    pub(super) async fn hear(&mut self, news: Heard) {
        let followed = self.following.as_mut().filter(|following| following.from == news.from);
        let followed = followed.map(|following| following.heard(&news.status, Instant::now())).is_some();
        let of = self.of.borrow().clone();
        let Some(of) = of.filter(|of| followed && of.group == news.status.group.as_str()) else { return };
        if news.status.epoch > of.epoch {
            let to = Lineage { epoch: news.status.epoch, ..of };
            self.yield_to(to, "the group was founded anew".into()).await;
            self.told_by = Some(news.from);
            return;
        }
        self.unfollowed = None;
        self.heard = Some((news, Instant::now()));
    }

    pub(super) fn stop_following(&mut self) {
        if let Some(following) = self.following.take() {
            following.task.abort();
        }
    }

    /// A voter's own state machine writes its view; everyone else's view follows a voter.
    pub(super) async fn keep_following(&mut self, members: &[Member]) {
        if let Some(ended) = self.following.take_if(|following| following.task.is_finished()) {
            if let Ok(why) = ended.task.await {
                let news = self.unfollowed.replace(why.clone()).is_none_or(|before| before != why);
                match news {
                    true => tracing::info!(peer = %ended.from, why, "following ended"),
                    false => tracing::debug!(peer = %ended.from, why, "following ended again"),
                }
            }
            self.follow_after = Instant::now() + FOLLOW_AGAIN;
        }
        let me = self.me.to_string();
        let own = self.own_status();
        if own.is_some_and(|own| own.failed.is_none() && own.voters.contains(&me) && own.leader.is_some()) {
            self.stop_following();
            return;
        }
        let now = Instant::now();
        let of = self.of.borrow().clone();
        let best = of.and_then(|of| self.best_source(&of, members));
        if let Some(left) = self.following.take_if(|following| following.is_left_for(best, now)) {
            tracing::info!(peer = %left.from, "it knows no leader, and others do: following another voter");
            left.task.abort();
        }
        if self.following.is_some() || now < self.follow_after {
            return;
        }
        let best = best.map(|(_, peer)| peer).or(self.told_by);
        let Some(from) = best.filter(|from| *from != self.me) else { return };
        // While our own part holds the view we only listen: it may have been voted out without being told.
        let view = if self.view.read(Store::is_owned) { View::default() } else { self.view.clone() };
        let task = follow::follow_peer(self.transport.clone(), from, view, self.heard_tx.clone());
        self.following = Some(Following { from, task: tokio::spawn(task), leaderless: None });
    }

    /// Whom to follow, and whether it hears a quorum: a voter that does first, the leader before others, then who is furthest.
    fn best_source(&self, of: &Lineage, members: &[Member]) -> Option<(bool, PeerId)> {
        let voters = members.iter().filter_map(|member| {
            let group = member.group.as_ref()?;
            let serves = matches!(group.role, GossipRole::Leader | GossipRole::Voter);
            let ours = group.group == of.group && group.epoch == of.epoch;
            let leads = group.role == GossipRole::Leader;
            (member.peer != self.me && member.connected && serves && ours).then_some((
                group.quorum,
                leads,
                group.revision,
                member.peer,
            ))
        });
        voters.max().map(|(quorum, .., peer)| (quorum, peer))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use gaggle_sched::raft::{GroupId, Role};
    use gaggle_sched::state::Revision;

    fn status(leader: Option<&str>, quorum: bool) -> raft::Status {
        raft::Status {
            group: GroupId::from_random([7; 8]),
            epoch: 1,
            term: 1,
            revision: Revision::default(),
            leader: leader.map(str::to_owned),
            voters: Default::default(),
            named_at: 0,
            role: Role::Voter,
            quorum,
            applied: 0,
            failed: None,
            caught_up: true,
        }
    }

    #[tokio::test]
    async fn a_voter_that_knows_no_leader_is_left_for_one_that_does_and_not_at_once() {
        let (from, other) = (PeerId::random(), PeerId::random());
        let task = tokio::spawn(async { String::new() });
        let mut following = Following { from, task, leaderless: None };
        let began = Instant::now();
        let after = |millis| began + Duration::from_millis(millis);
        following.heard(&status(None, false), began);
        following.heard(&status(None, false), after(2000));
        assert!(!following.is_left_for(Some((true, other)), after(2900)), "an election takes its time");
        assert!(following.is_left_for(Some((true, other)), after(3000)));
        for best in [None, Some((false, other)), Some((true, from))] {
            assert!(!following.is_left_for(best, after(3000)), "nobody knows more: {best:?}");
        }
        following.heard(&status(Some("a"), true), after(3100));
        // A leader that was voted out goes on taking itself for one.
        following.heard(&status(Some("a"), false), after(3200));
        assert!(!following.is_left_for(Some((true, other)), after(6100)));
        assert!(following.is_left_for(Some((true, other)), after(6200)));
    }
}
