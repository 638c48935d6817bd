//! The Raft group that orders the scheduling state, and how every other node follows it.
//!
//! Nothing outside this module knows openraft. In here nobody knows sockets or libp2p (frames go through
//! [`Network`], follow streams are any `AsyncRead + AsyncWrite`), nor what an object means.
//!
//! ```text
//! propose ─▶ proposer ─▶ openraft ─▶ log (file, fsync) ─▶ network ─▶ receive (other voters)
//!                            └─ committed ─▶ machine ─▶ View ─▶ follow::serve ─▶ follow::follow (other nodes)
//! ```

mod change;
mod codec;
mod config;
mod damage;
mod election;
mod files;
pub mod follow;
mod group;
mod heart;
mod keeper;
mod left;
mod log;
mod machine;
mod network;
mod persist;
mod proposer;
mod receive;
mod salvage;
mod snapshot;
mod status;
mod storage;
mod types;
mod wire;

pub use codec::CodecError;
pub use config::{Gate, GroupConfig, Retention, Timings};
pub use damage::SetAside;
pub use group::{Group, GroupError};
pub use log::{LogError, LogFault};
pub use network::Network;
pub use persist::{PersistError, WordError, load_view, load_word, save_view, save_word};
pub use proposer::ProposeError;
pub use salvage::{Salvaged, Tail, salvage};
pub use snapshot::{SnapshotError, SnapshotFault};
pub use status::{Role, Status};
pub use storage::{FileSystem, Pages, Storage};
pub use types::{BadGroupId, GroupId};
pub use wire::MAX_FRAME_BYTES;

#[cfg(test)]
mod tests;
