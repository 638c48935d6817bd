//! What a group needs to know before it starts: where it keeps its files, who it is, how patient it is.

use super::storage::Storage;
use super::types::{GroupId, NodeId};
use crate::state::Lineage;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

/// Bytes of log between two snapshots, at least: replaying them takes well under a second.
const LOG_BYTES: u64 = 4 << 20;

/// The same for each byte of the snapshot before: to write all of a large state down costs more than a small part of what its
/// log has cost, and whoever replays the log reads not much more than the state itself.
const LOG_PER_SNAPSHOT: u64 = 3;

/// Entries kept after a snapshot, so that a voter that was away for a moment needs no whole snapshot.
const ENTRIES_KEPT: u64 = 256;

/// Fewer where they are longer than this together, about.
const KEPT_BYTES: u64 = 64 << 20;

/// Behind by no more than this, a newcomer has caught up.
const LAG: u64 = 5_000;

/// Entries in one append at most (their bytes are bounded by the log's reader as well).
const ENTRIES_PER_APPEND: u64 = 256;

/// A voter that has not answered an append in this time is sent it again. Longer than an answer takes on a bad network, and
/// than a flush on a slow disk: what comes later than this is never learnt.
const APPEND_PATIENCE: Duration = Duration::from_secs(3);

/// One part of a snapshot on the wire.
const SNAPSHOT_PART_BYTES: u64 = 1 << 20;

/// A part of a snapshot, the last one with installing it, may take this long on a slow disk.
const SNAPSHOT_PART_TIME: Duration = Duration::from_secs(10);

/// How much of the log is kept beside the snapshots.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Retention {
    /// Bytes of log between two snapshots, at least.
    pub log_bytes: u64,
    /// The same, for each byte of the last snapshot.
    pub log_per_snapshot: u64,
    /// Entries that stay in the log behind a snapshot.
    pub entries_kept: u64,
}

impl Retention {
    /// How many bytes of log follow a snapshot of so many.
    pub(super) fn log_after(&self, snapshot_bytes: u64) -> u64 {
        self.log_bytes.max(self.log_per_snapshot.saturating_mul(snapshot_bytes))
    }

    /// How many entries stay in the log behind a snapshot, where so many have had so many bytes.
    pub(super) fn kept(&self, entries: u64, bytes: u64) -> u64 {
        let each = bytes / entries.max(1);
        self.entries_kept.min(KEPT_BYTES / each.max(1))
    }
}

impl Default for Retention {
    fn default() -> Self {
        Self { log_bytes: LOG_BYTES, log_per_snapshot: LOG_PER_SNAPSHOT, entries_kept: ENTRIES_KEPT }
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
            replication_lag_threshold: LAG,
            // Bytes count, and not entries: the keeper asks for snapshots, and purges behind them.
            snapshot_policy: openraft::SnapshotPolicy::Never,
            snapshot_max_chunk_size: SNAPSHOT_PART_BYTES,
            max_in_snapshot_log_to_keep: u64::MAX,
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_snapshot_follows_more_log_the_larger_the_state_is_and_what_is_kept_is_bounded() {
        let retention = Retention::default();
        assert_eq!(retention.log_after(0), LOG_BYTES);
        assert_eq!(retention.log_after(100 << 20), LOG_PER_SNAPSHOT * (100 << 20));
        assert_eq!(retention.kept(10_000, 10 << 20), ENTRIES_KEPT);
        assert_eq!(retention.kept(16, 16 * KEPT_BYTES / 8), 8);
        assert_eq!((retention.kept(1, 2 * KEPT_BYTES), retention.kept(0, 0)), (0, ENTRIES_KEPT));
    }
}
