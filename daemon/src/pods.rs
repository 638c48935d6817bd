//! What the API asks of the agents: the streams of a pod on any desktop.

use futures::stream::BoxStream;
use serde::{Deserialize, Serialize};

/// Which part of a container's log is asked for; the fields are the query parameters of the Kubernetes
/// `pods/{name}/log` request.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct LogOptions {
    /// Empty: the only container, or the first.
    pub container: String,
    pub follow: bool,
    pub previous: bool,
    pub timestamps: bool,
    pub tail_lines: Option<u64>,
    pub limit_bytes: Option<u64>,
    /// Lines not older than this many seconds.
    pub since_seconds: Option<u64>,
    /// Lines not older than this time (RFC 3339).
    pub since_time: Option<String>,
}

/// One pod, named so that a new pod of the same name is not taken for it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PodRef {
    pub namespace: String,
    pub name: String,
    pub uid: String,
    /// The desktop it is bound to.
    pub node: String,
}

/// Why a stream could not be had; the API turns it into a Kubernetes `Status`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
pub enum StreamError {
    /// The request cannot be met as things are (container not started, unknown container): 400.
    #[error("{0}")]
    BadRequest(String),
    #[error("{0}")]
    NotFound(String),
    /// The desktop or its Docker cannot be reached: 503.
    #[error("{0}")]
    Unavailable(String),
}

pub type ByteStream = BoxStream<'static, Result<Vec<u8>, std::io::Error>>;

/// Streams of pods, wherever they run.
#[async_trait::async_trait]
pub trait PodStreams: Send + Sync + 'static {
    async fn logs(&self, pod: &PodRef, options: &LogOptions) -> Result<ByteStream, StreamError>;
}
