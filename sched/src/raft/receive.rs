//! The way in for other voters' frames: who may speak, and what is done with what they say.
//!
//! A node that has only just joined votes for nobody who lacks what it has heard to be committed, and one whose log is empty
//! lets nobody count it as a voter before it was filled as a learner's. A newcomer is never asked otherwise; a voter that lost its log is, and would put forgotten votes
//! and entries into a quorum.

use super::Group;
use super::heart::BUSY_LIMIT;
use super::log::Log;
use super::types::{Ballot, Id, NodeId, names, node_id};
use super::wire::{self, Rejected, Reply, Request, SERVE_LIMIT};
use openraft::error::RaftError;
use openraft::raft::{AppendEntriesResponse, VoteRequest, VoteResponse};
use std::sync::PoisonError;
use std::sync::atomic::Ordering;

impl Group {
    /// Answers a frame that the network brought from `from` (authenticated by the network). Never fails: whatever
    /// is wrong with the frame is in the answer, and has changed nothing.
    pub async fn receive(&self, from: &str, frame: &[u8]) -> Vec<u8> {
        let reply = match self.handle(from, frame).await {
            Ok(reply) => reply,
            Err(rejected) => {
                tracing::debug!(peer = from, %rejected, "a frame was rejected");
                Reply::Refused(rejected.to_string())
            }
        };
        let identity = &self.inner.identity;
        // An answer is small and plain; one that did not encode would be no answer, as the asker can bear.
        wire::encode(&identity.group, identity.epoch, reply).unwrap_or_default()
    }

    async fn handle(&self, from: &str, frame: &[u8]) -> Result<Reply, Rejected> {
        if self.inner.stop.is_cancelled() {
            return Err(Rejected::Stopping);
        }
        let identity = &self.inner.identity;
        let request: Request = wire::decode(&identity.group, identity.epoch, frame)?;
        self.authorise(from, &request)?;
        request.check(from, node_id(from))?;
        self.fill(&request)?;
        tokio::select! {
            () = self.inner.stop.cancelled() => Err(Rejected::Stopping),
            reply = tokio::time::timeout(SERVE_LIMIT, self.act(request)) => reply.map_err(|_| Rejected::Slow)?,
        }
    }

    /// Raft is spoken only among those whom the membership names, the leader that this node already follows (it
    /// may just have left the membership), and those whom [`Group::tell`] named.
    fn authorise(&self, from: &str, request: &Request) -> Result<(), Rejected> {
        let named = {
            let metrics = self.inner.raft.metrics();
            let metrics = metrics.borrow();
            let leads = request.leads() && metrics.current_leader == Some(node_id(from));
            leads || names(metrics.membership_config.membership(), from)
        };
        if named || self.inner.told.lock().unwrap_or_else(PoisonError::into_inner).contains(from) {
            Ok(())
        } else {
            Err(Rejected::NotAMember(from.to_owned()))
        }
    }

    /// Sees that an empty log is first filled as a learner's, and that half of one elects nobody who knows less.
    fn fill(&self, request: &Request) -> Result<(), Rejected> {
        let candidate = match request {
            Request::Vote(rpc) => Some(rpc.last_log_id),
            Request::WouldVote { last_log_id } => Some(*last_log_id),
            Request::Append { .. } | Request::Snapshot { .. } | Request::Alive { .. } => None,
        };
        let may_elect = |last| self.inner.log().is_some_and(|log| log.may_elect(last));
        if candidate.is_some_and(|last| !may_elect(last)) {
            return Err(Rejected::Filling);
        }
        let blank = &self.inner.blank;
        if !blank.load(Ordering::Relaxed) {
            return Ok(());
        }
        match request {
            Request::Append { counted: true, .. } | Request::Snapshot { counted: true, .. } => {
                Err(Rejected::Lost)
            }
            Request::Append { .. } | Request::Snapshot { .. } => {
                blank.store(false, Ordering::Relaxed);
                Ok(())
            }
            Request::Vote(_) | Request::WouldVote { .. } | Request::Alive { .. } => Err(Rejected::Blank),
        }
    }

    /// Whether a vote is that of a leader that this node follows, or would as soon as it has the time.
    fn follows(&self, vote: &Ballot) -> bool {
        let metrics = self.inner.raft.metrics();
        let metrics = metrics.borrow();
        metrics.running_state.is_ok() && *vote >= metrics.vote
    }

    /// One that has worked on one thing for too long is taken for dead.
    fn disk_works(&self) -> bool {
        self.inner.log().is_some_and(|log| log.busy_for() <= BUSY_LIMIT)
    }

    async fn filled(&self, end: Option<Id>, committed: Option<Id>) -> Result<(), Rejected> {
        let Some(log) = self.inner.log().filter(Log::is_filling) else { return Ok(()) };
        log.filled(end, committed).await.map_err(|error| Rejected::Unfilled(error.to_string()))
    }

    /// Votes once in a term. To openraft a candidate with a larger number counts for more than one that it has voted for in
    /// the same term, so that of two who stand at the same time both could be elected, one after the other.
    async fn vote(&self, rpc: VoteRequest<NodeId>) -> Result<VoteResponse<NodeId>, RaftError<NodeId>> {
        let mut given = self.inner.given.lock().await;
        let known = self.inner.raft.metrics().borrow().vote;
        let voted = given.unwrap_or(known).leader_id.max(known.leader_id);
        if rpc.vote.leader_id.term == voted.term && rpc.vote.leader_id != voted {
            // Told of the other one, it would give up, and may have a majority without this vote.
            return Ok(VoteResponse::new(Ballot::default(), None, false));
        }
        let vote = rpc.vote;
        let answer = self.inner.raft.vote(rpc).await?;
        if answer.vote_granted {
            *given = Some(vote);
        }
        Ok(answer)
    }

    async fn act(&self, request: Request) -> Result<Reply, Rejected> {
        let (raft, pulse) = (&self.inner.raft, &self.inner.links.pulse);
        Ok(match request {
            Request::Append { rpc, quorum, .. } => {
                let term = rpc.vote.leader_id().term;
                let end = rpc.entries.last().map(|entry| entry.log_id).or(rpc.prev_log_id);
                let committed = rpc.leader_commit;
                // It lives, however long this node's disk takes for what it brings.
                if self.follows(&rpc.vote) {
                    pulse.heard_leader(term, quorum);
                }
                let result = raft.append_entries(rpc).await;
                if !matches!(result, Err(_) | Ok(AppendEntriesResponse::HigherVote(_))) {
                    pulse.heard_leader(term, quorum);
                }
                // It speaks of what this node holds, also of what it appended as a leader.
                self.inner.links.flushed.all().await?;
                if matches!(result, Ok(AppendEntriesResponse::Success)) {
                    self.filled(end, committed).await?;
                }
                Reply::Append(result)
            }
            Request::Snapshot { part, .. } => {
                let (vote, covered) = (part.vote, part.last());
                let result = raft.install_snapshot(part.into()).await;
                if result.as_ref().is_ok_and(|response| response.vote <= vote) {
                    pulse.heard_leader(vote.leader_id().term, true);
                    self.filled(None, covered).await?;
                }
                Reply::Snapshot(result)
            }
            Request::Alive { vote, quorum } => {
                let follows = self.follows(&vote) && self.disk_works();
                if follows {
                    pulse.heard_leader(vote.leader_id().term, quorum);
                }
                Reply::Alive(follows)
            }
            Request::Vote(rpc) => Reply::Vote(self.vote(rpc).await),
            Request::WouldVote { last_log_id } => {
                let patience = pulse.patience(self.inner.config.timings.lease);
                let unheard = pulse.silence().is_none_or(|silence| silence >= patience);
                let mine = raft.data_metrics().borrow().last_log;
                Reply::WouldVote(unheard && !pulse.leads_with_quorum() && last_log_id >= mine)
            }
        })
    }
}
