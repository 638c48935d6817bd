//! What a group needs to know before it starts: where it keeps its files, who it is, how patient it is.

use super::storage::Storage;
use super::types::{GroupId, NodeId};
use crate::state::Lineage;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

/// Entries between two snapshots: replaying them takes well under a second.
const ENTRIES_PER_SNAPSHOT: u64 = 2_000;

/// Entries kept after a snapshot, so that a voter that was away for a moment needs no whole snapshot.
const ENTRIES_KEPT: u64 = 256;

/// Behind by more than this, a voter gets a snapshot. openraft wants it above the distance of two snapshots.
const LAG_FOR_SNAPSHOT: u64 = 5_000;

/// Entries in one append at most (their bytes are bounded by the log's reader as well).
const ENTRIES_PER_APPEND: u64 = 256;

/// A voter that has not answered an append in this time is sent it again. Longer than that takes on a bad network, for a
/// large object, or on a slow disk: what is answered later than this is never learnt. A connection that is dead is found
/// so sooner, and ends the wait.
const APPEND_PATIENCE: Duration = Duration::from_secs(8);

/// One part of a snapshot on the wire.
const SNAPSHOT_PART_BYTES: u64 = 1 << 20;

/// A part of a snapshot, the last one with installing it, may take this long on a slow disk.
const SNAPSHOT_PART_TIME: Duration = Duration::from_secs(10);

/// How much of the log is kept beside the snapshots.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Retention {
    pub entries_per_snapshot: u64,
    pub entries_kept: u64,
    /// Behind by more than this, a voter gets a snapshot.
    pub lag_for_snapshot: u64,
}

impl Default for Retention {
    fn default() -> Self {
        Self {
            entries_per_snapshot: ENTRIES_PER_SNAPSHOT,
            entries_kept: ENTRIES_KEPT,
            lag_for_snapshot: LAG_FOR_SNAPSHOT,
        }
    }
}

#[derive(Clone, Debug)]
pub struct GroupConfig {
    /// The directory of the group's files; made if it is not there.
    pub dir: PathBuf,
    /// What keeps them.
    pub storage: Arc<dyn Storage>,
    /// This node's peer id.
    pub me: String,
    pub timings: Timings,
    pub retention: Retention,
    /// Whether this node, as the leader, may order anything now. Asked right before each batch.
    pub gate: Gate,
}

type MayOrder = dyn Fn(&Lineage, u64) -> bool + Send + Sync;

/// Whether the leader of a lineage in a term may order: a condition that is looked at when it matters, not when it
/// changed.
#[derive(Clone)]
pub struct Gate(Arc<MayOrder>);

impl Gate {
    pub fn new(may_order: impl Fn(&Lineage, u64) -> bool + Send + Sync + 'static) -> Self {
        Self(Arc::new(may_order))
    }

    pub(super) fn is_open(&self, lineage: &Lineage, term: u64) -> bool {
        (self.0)(lineage, term)
    }
}

impl Default for Gate {
    /// Always open: a group by itself.
    fn default() -> Self {
        Self::new(|_, _| true)
    }
}

impl std::fmt::Debug for Gate {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Gate")
    }
}

/// How long to wait for what.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Timings {
    /// How often a leader speaks to each voter that has answered what it said last.
    pub heartbeat: Duration,
    /// A voter that has heard its leader this recently votes for nobody else. On a network that lets it wait longer as a rule,
    /// it waits longer; see [`super::status::Pulse::patience`].
    pub lease: Duration,
    /// A voter that has heard no leader for the lease and a random part of this asks for votes.
    pub election_spread: Duration,
    /// Without a sign of a quorum for this long, there is none.
    pub quorum_timeout: Duration,
    /// How long a transaction waits to be committed.
    pub propose_deadline: Duration,
    /// How long a change of the voters may take, newcomers' catching up included.
    pub change_deadline: Duration,
}

impl Timings {
    /// For desktops on one network. A leader that dies is followed by another after about a second; a desktop whose
    /// owner is busy, and which therefore answers late, does not lose its leader for that.
    pub fn lan() -> Self {
        Self {
            heartbeat: Duration::from_millis(150),
            lease: Duration::from_millis(750),
            election_spread: Duration::from_millis(350),
            quorum_timeout: Duration::from_millis(1500),
            propose_deadline: Duration::from_secs(5),
            change_deadline: Duration::from_secs(10),
        }
    }

    /// For several nodes on one machine.
    pub fn local() -> Self {
        Self {
            heartbeat: Duration::from_millis(50),
            lease: Duration::from_millis(250),
            election_spread: Duration::from_millis(200),
            quorum_timeout: Duration::from_millis(600),
            ..Self::lan()
        }
    }
}

impl GroupConfig {
    /// openraft's settings. Its own election timer is off: [`super::election`] asks first whether an election
    /// could be won.
    pub(super) fn openraft(&self, group: &GroupId) -> Result<Arc<openraft::Config>, String> {
        let millis = |time: Duration| u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
        let config = openraft::Config {
            cluster_name: group.to_string(),
            heartbeat_interval: millis(self.timings.heartbeat),
            // openraft takes the upper bound for the lease and the lower one for the patience with a vote.
            election_timeout_min: millis(self.timings.lease).saturating_sub(1),
            election_timeout_max: millis(self.timings.lease),
            enable_elect: false,
            install_snapshot_timeout: millis(SNAPSHOT_PART_TIME),
            max_payload_entries: ENTRIES_PER_APPEND,
            replication_lag_threshold: self.retention.lag_for_snapshot,
            snapshot_policy: openraft::SnapshotPolicy::LogsSinceLast(self.retention.entries_per_snapshot),
            snapshot_max_chunk_size: SNAPSHOT_PART_BYTES,
            max_in_snapshot_log_to_keep: self.retention.entries_kept,
            purge_batch_size: 64,
            ..openraft::Config::default()
        };
        let config = config.validate().map_err(|error| error.to_string())?;
        // Not before: openraft wants it below its election timeout, for an election timer that is off here.
        Ok(Arc::new(openraft::Config { heartbeat_interval: millis(APPEND_PATIENCE), ..config }))
    }

    /// A voter's number for the log and the network.
    pub(super) fn id(&self) -> NodeId {
        super::types::node_id(&self.me)
    }
}
