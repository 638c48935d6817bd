//! What desktops and their pods take of processors and memory, as the agents measure it.

use crate::pods::StreamError;
use k8s_openapi::jiff::Timestamp;
use serde::{Deserialize, Serialize};

/// Containers of one desktop that are told of at most: more than any desktop runs, and an answer stays small.
pub const CONTAINERS: usize = 4096;

/// Processor time and memory.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Usage {
    /// Billionths of one processor, on average over the window.
    pub nanocores: u64,
    /// What is in use and cannot be taken away at once: file pages that were not used lately do not count.
    pub memory_bytes: u64,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ContainerUsage {
    pub namespace: String,
    pub pod: String,
    /// The pod's.
    pub uid: String,
    pub container: String,
    pub usage: Usage,
}

/// One desktop at one time.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Measured {
    /// By the clock of the desktop that was measured.
    pub at: Timestamp,
    /// Over which time processors were measured.
    pub window_ms: u64,
    pub node: Usage,
    /// Of the containers that run.
    pub containers: Vec<ContainerUsage>,
}

/// What desktops take, wherever they are.
#[async_trait::async_trait]
pub trait Usages: Send + Sync + 'static {
    /// Of the desktop of this name.
    async fn measured(&self, node: &str) -> Result<Measured, StreamError>;
}
