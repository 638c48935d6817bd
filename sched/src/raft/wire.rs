//! What voters say to each other: one frame there, one frame back, each naming its group and epoch.

use super::codec::{self, CodecError};
use super::log::Unwritten;
use super::types::{Ballot, GroupId, Id, Meta, NodeId, Types};
use openraft::error::{InstallSnapshotError, RaftError};
use openraft::raft::{
    AppendEntriesRequest, AppendEntriesResponse, InstallSnapshotRequest, InstallSnapshotResponse,
    VoteRequest, VoteResponse,
};
use serde::{Deserialize, Serialize};

/// The largest frame that is sent or looked at: one largest transaction beside a full batch, with room to spare.
pub const MAX_FRAME_BYTES: usize = 16 << 20;

/// How long a peer works on one request before it gives the asker up: the asker's own limits are far shorter,
/// except for the last part of a snapshot.
pub(super) const SERVE_LIMIT: std::time::Duration = std::time::Duration::from_secs(10);

#[derive(Serialize, Deserialize)]
pub(super) struct Frame<T> {
    pub group: GroupId,
    pub epoch: u64,
    pub body: T,
}

#[derive(Serialize, Deserialize)]
pub(super) enum Request {
    Append {
        rpc: AppendEntriesRequest<Types>,
        /// Whether the leader itself hears a quorum: one that is cut off with a minority goes on sending.
        quorum: bool,
        /// Whether the leader counts the peer that it sends this to among the voters.
        counted: bool,
    },
    Vote(VoteRequest<NodeId>),
    Snapshot {
        part: SnapshotPart,
        /// As in [`Self::Append`].
        counted: bool,
    },
    /// Would you vote for me, if I asked? Changes nothing, so that a node that was cut off does not depose a
    /// leader that everybody else hears.
    WouldVote {
        last_log_id: Option<Id>,
    },
    /// A leader that was not answered for a while lives, and asks whether the other one does: see [`super::heart`].
    Alive {
        vote: Ballot,
        /// As in [`Self::Append`].
        quorum: bool,
    },
}

/// openraft's request with the bytes as bytes: as a list of numbers they would take half as much again.
#[derive(Serialize, Deserialize)]
pub(super) struct SnapshotPart {
    pub vote: Ballot,
    meta: Meta,
    offset: u64,
    #[serde(with = "serde_bytes")]
    data: Vec<u8>,
    done: bool,
}

impl SnapshotPart {
    /// The last entry that the snapshot covers.
    pub fn last(&self) -> Option<Id> {
        self.meta.last_log_id
    }
}

impl From<InstallSnapshotRequest<Types>> for SnapshotPart {
    fn from(rpc: InstallSnapshotRequest<Types>) -> Self {
        Self { vote: rpc.vote, meta: rpc.meta, offset: rpc.offset, data: rpc.data, done: rpc.done }
    }
}

impl From<SnapshotPart> for InstallSnapshotRequest<Types> {
    fn from(part: SnapshotPart) -> Self {
        Self { vote: part.vote, meta: part.meta, offset: part.offset, data: part.data, done: part.done }
    }
}

#[derive(Serialize, Deserialize)]
pub(super) enum Reply {
    Append(Result<AppendEntriesResponse<NodeId>, RaftError<NodeId>>),
    Vote(Result<VoteResponse<NodeId>, RaftError<NodeId>>),
    Snapshot(Result<InstallSnapshotResponse<NodeId>, RaftError<NodeId, InstallSnapshotError>>),
    WouldVote(bool),
    /// Whether this node follows that leader, and its disk works.
    Alive(bool),
    /// The frame was not for this node; nothing was changed.
    Refused(String),
}

/// Why a frame is not acted on.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum Rejected {
    #[error("a frame of {0} bytes is larger than the limit of {MAX_FRAME_BYTES}")]
    TooLarge(usize),
    #[error("the frame does not decode: {0}")]
    Garbled(String),
    #[error("the frame is of group {group}, epoch {epoch}, this node is in another")]
    OtherGroup { group: GroupId, epoch: u64 },
    #[error("{0} is not a member of this group")]
    NotAMember(String),
    #[error("{0} speaks in another node's name")]
    Impostor(String),
    #[error("the entries are not in order")]
    Disorder,
    #[error("this node has no log yet: it does not vote")]
    Blank,
    #[error("this node has only just joined: it votes for nobody who lacks what is committed")]
    Filling,
    #[error("that this node holds what is committed cannot be noted: {0}")]
    Unfilled(String),
    #[error("this node is counted as a voter and has lost its log: vote it out, and in again")]
    Lost,
    #[error("the group is stopping")]
    Stopping,
    #[error("it took too long")]
    Slow,
    #[error(transparent)]
    Unwritten(#[from] Unwritten),
}

pub(super) fn encode<T: Serialize>(group: &GroupId, epoch: u64, body: T) -> Result<Vec<u8>, CodecError> {
    codec::encode(&Frame { group: group.clone(), epoch, body })
}

/// Decodes a frame of exactly this group and epoch.
pub(super) fn decode<T: serde::de::DeserializeOwned>(
    group: &GroupId,
    epoch: u64,
    frame: &[u8],
) -> Result<T, Rejected> {
    if frame.len() > MAX_FRAME_BYTES {
        return Err(Rejected::TooLarge(frame.len()));
    }
    let frame: Frame<T> = codec::decode(frame).map_err(|error| Rejected::Garbled(error.to_string()))?;
    if (&frame.group, frame.epoch) != (group, epoch) {
        return Err(Rejected::OtherGroup { group: frame.group, epoch: frame.epoch });
    }
    Ok(frame.body)
}

impl Request {
    /// In whose name the request speaks, where it says so.
    fn ballot(&self) -> Option<&Ballot> {
        match self {
            Self::Append { rpc, .. } => Some(&rpc.vote),
            Self::Vote(rpc) => Some(&rpc.vote),
            Self::Snapshot { part, .. } => Some(&part.vote),
            Self::Alive { vote, .. } => Some(vote),
            Self::WouldVote { .. } => None,
        }
    }

    /// Whether it comes from a leader (and not from one who would like to be).
    pub fn leads(&self) -> bool {
        matches!(self, Self::Append { .. } | Self::Snapshot { .. } | Self::Alive { .. })
    }

    /// Checks what openraft takes for granted: each speaks in its own name, only an elected leader sends
    /// entries, and they are in order.
    pub fn check(&self, from: &str, sender: NodeId) -> Result<(), Rejected> {
        if let Some(ballot) = self.ballot()
            && (ballot.leader_id().voted_for() != Some(sender) || ballot.is_committed() != self.leads())
        {
            return Err(Rejected::Impostor(from.to_owned()));
        }
        match self {
            Self::Append { rpc, .. } => {
                let mut last = rpc.prev_log_id;
                for entry in &rpc.entries {
                    let index = last.map_or(Some(0), |id| id.index.checked_add(1));
                    if Some(entry.log_id.index) != index || Some(entry.log_id) <= last {
                        return Err(Rejected::Disorder);
                    }
                    last = Some(entry.log_id);
                }
                let newest = last.map(|id| id.leader_id);
                if newest > Some(*rpc.vote.leader_id()) { Err(Rejected::Disorder) } else { Ok(()) }
            }
            Self::Snapshot { part, .. } => {
                let end = part.offset.saturating_add(part.data.len() as u64);
                if end > super::snapshot::MAX_SNAPSHOT_BYTES { Err(Rejected::Disorder) } else { Ok(()) }
            }
            Self::Vote(_) | Self::WouldVote { .. } | Self::Alive { .. } => Ok(()),
        }
    }
}
