//! The leader's queue: what arrives while one batch is being flushed goes into the next one.

use super::config::{Gate, Timings};
use super::status::{Role, Status};
use super::types::{Batch, Outcome, Raft};
use crate::state::{Applied, Lineage, Refused, Txn, Unavailable};
use openraft::error::{ClientWriteError, RaftError};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

/// Transactions waiting for their batch: some seconds of a busy flock's work. Beyond it the leader says so.
pub(super) const QUEUE: usize = 4096;

/// Transactions of one batch at most.
const BATCH_TXNS: usize = 1024;

/// Bytes of one batch at most, unless a single transaction is larger: it has to be answered while the leader waits for it.
const BATCH_BYTES: usize = 1 << 20;

/// Bytes of one transaction at most, so that every log entry fits a frame.
pub(super) const TXN_BYTES: usize = 8 << 20;

/// A batch that was begun while the leader might act, and takes no longer than this, was ordered before anybody else might:
/// the half second that the gate leaves, and the second by which others wait longer.
const ORDERED_WITHIN: Duration = Duration::from_millis(1500);

/// Why a transaction was not answered.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ProposeError {
    /// Nothing was written.
    #[error("this node does not lead; {}", match .0 { Some(peer) => format!("{peer} does"), None => "nobody is known to".into() })]
    NotLeader(Option<String>),
    /// Nothing was written.
    #[error("too few of the voters can be reached")]
    NoQuorum,
    /// Nothing was written.
    #[error("too few of the flock's desktops stand behind this leader")]
    NotActing,
    /// It may or may not be committed later.
    #[error("the outcome is not known: {0}")]
    Unknown(&'static str),
    /// Nothing was written.
    #[error("{0} transactions are waiting already")]
    Busy(usize),
    /// Nothing was written.
    #[error(
        "a transaction of {0} bytes is larger than the limit of {TXN_BYTES}: write fewer objects at once"
    )]
    TooLarge(usize),
    /// Nothing was written.
    #[error("the transaction does not encode: {0}")]
    Unencodable(String),
}

impl From<ProposeError> for Unavailable {
    fn from(error: ProposeError) -> Self {
        match error {
            ProposeError::Unknown(why) => Self::Unknown(why.into()),
            ProposeError::Busy(waiting) => Self::Busy(waiting),
            error => Self::NoQuorum(error.to_string()),
        }
    }
}

pub(super) type Answer = Result<Result<Applied, Refused>, ProposeError>;

pub(super) struct Proposal {
    pub txn: Txn,
    /// Encoded size.
    pub bytes: usize,
    pub answer: oneshot::Sender<Answer>,
}

/// Writes batch after batch, until the group stops or nobody can propose any more.
pub(super) async fn run(
    raft: Raft,
    mut queue: mpsc::Receiver<Proposal>,
    mut status: watch::Receiver<Status>,
    timings: Timings,
    (lineage, gate): (Lineage, Gate),
    stop: CancellationToken,
) {
    let mut held = None;
    loop {
        let first = match held.take() {
            Some(proposal) => proposal,
            None => tokio::select! {
                () = stop.cancelled() => return,
                proposal = queue.recv() => match proposal {
                    Some(proposal) => proposal,
                    None => return,
                },
            },
        };
        let batch = gather(first, &mut queue, &mut held);
        if batch.is_empty() {
            continue;
        }
        let (refusal, term) = {
            let status = status.borrow_and_update();
            (cannot_write(&status), status.term)
        };
        let refusal = refusal.or_else(|| (!gate.is_open(&lineage, term)).then_some(ProposeError::NotActing));
        if let Some(refusal) = refusal {
            answer_all(batch, &refusal);
            continue;
        }
        let (txns, answers): (Vec<_>, Vec<_>) =
            batch.into_iter().map(|proposal| (proposal.txn, proposal.answer)).unzip();
        let began = Instant::now();
        let write = raft.client_write(Batch { txns: Arc::new(txns) });
        let result = tokio::select! {
            result = write => result.map(|response| response.data).map_err(|error| lost(&error)),
            () = quorum_lost(&mut status) => Err(ProposeError::Unknown("the quorum was lost meanwhile")),
            () = tokio::time::sleep(timings.propose_deadline) => Err(ProposeError::Unknown("it took too long")),
            () = stop.cancelled() => Err(ProposeError::Unknown("this node is stopping")),
        };
        let late = began.elapsed() > ORDERED_WITHIN && !gate.is_open(&lineage, term);
        match result {
            // Another group may have been founded meanwhile, without these: whoever asked must not be told that they count.
            Ok(_) if late => {
                let error = ProposeError::Unknown("it was ordered when this leader might no longer act");
                answers.into_iter().for_each(|answer| _ = answer.send(Err(error.clone())));
            }
            // Each transaction has its own outcome; whoever does not wait for it any more does not hear it.
            Ok(Outcome(outcomes)) => answers.into_iter().zip(outcomes).for_each(|(answer, outcome)| {
                _ = answer.send(Ok(outcome));
            }),
            Err(error) => answers.into_iter().for_each(|answer| _ = answer.send(Err(error.clone()))),
        }
    }
}

/// Takes what is waiting, up to the bounds; one that does not fit any more is held for the next batch.
fn gather(
    first: Proposal,
    queue: &mut mpsc::Receiver<Proposal>,
    held: &mut Option<Proposal>,
) -> Vec<Proposal> {
    let mut bytes = first.bytes;
    let mut batch = vec![first];
    while batch.len() < BATCH_TXNS {
        let Ok(proposal) = queue.try_recv() else { break };
        if bytes + proposal.bytes > BATCH_BYTES {
            *held = Some(proposal);
            break;
        }
        bytes += proposal.bytes;
        batch.push(proposal);
    }
    // Nobody waits for those whose deadline passed in the queue: they were told nothing was written.
    batch.retain(|proposal| !proposal.answer.is_closed());
    batch
}

/// Why nothing can be written now.
pub(super) fn cannot_write(status: &Status) -> Option<ProposeError> {
    match status {
        Status { role: Role::Voter | Role::Learner, leader, .. } => {
            Some(ProposeError::NotLeader(leader.clone()))
        }
        Status { quorum: false, .. } => Some(ProposeError::NoQuorum),
        _ => None,
    }
}

fn answer_all(batch: Vec<Proposal>, error: &ProposeError) {
    for proposal in batch {
        _ = proposal.answer.send(Err(error.clone()));
    }
}

async fn quorum_lost(status: &mut watch::Receiver<Status>) {
    // An error means that the group's keeper is gone, and with it every hope of an answer.
    _ = status.wait_for(|status| cannot_write(status).is_some()).await;
}

/// The entry may have reached others before the leadership was lost: openraft answers alike in both cases.
fn lost<N: openraft::NodeId, P: openraft::Node>(
    error: &RaftError<N, ClientWriteError<N, P>>,
) -> ProposeError {
    match error {
        RaftError::APIError(ClientWriteError::ForwardToLeader(_)) => {
            ProposeError::Unknown("the leadership was lost meanwhile")
        }
        RaftError::APIError(_) => ProposeError::Unknown("the log refused it"),
        RaftError::Fatal(_) => ProposeError::Unknown("the group's log failed on this node"),
    }
}
