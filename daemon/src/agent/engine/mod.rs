//! The border to a container engine: what the agent asks of it, and what it answers.
//!
//! The planner and the shell know this trait only. The one implementation that talks to a real engine is
//! `docker`; it must never know pods.

mod docker;
#[cfg(test)]
pub mod fake;
mod pause;

pub use docker::Docker;
pub use pause::{PAUSE_IMAGE, pause_image};

use crate::pods::{ByteStream, Process, Stdio};
use futures::stream::BoxStream;
use k8s_openapi::jiff::Timestamp;
use std::collections::BTreeMap;
use std::fmt;
use std::io;
use std::net::IpAddr;
use std::time::Duration;
use tokio::net::TcpStream;

/// Why the engine did not do what it was asked.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum EngineError {
    /// The engine cannot be reached, or did not answer in time.
    #[error("the Docker engine at {host} cannot be reached: {why}. Is it running (systemctl start docker)?")]
    Unreachable { host: String, why: String },
    #[error("{0}")]
    NotFound(String),
    /// A name is taken, or the container is in a state that does not allow it.
    #[error("{0}")]
    Conflict(String),
    /// The engine refused or failed.
    #[error("{0}")]
    Refused(String),
}

impl EngineError {
    pub fn is_unreachable(&self) -> bool {
        matches!(self, Self::Unreachable { .. })
    }
}

/// What an engine says of itself.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Facts {
    pub version: String,
    pub cpus: u32,
    pub memory_bytes: u64,
    pub os: String,
    pub kernel: String,
    /// As `uname -m` spells it: `x86_64`, `aarch64`.
    pub arch: String,
    /// The engine's own clock when it answered: events from then on complete a listing.
    pub clock: Option<Timestamp>,
    /// This desktop as containers with a network of their own reach it.
    pub gateway: Option<IpAddr>,
}

/// A container as the engine has it.
#[derive(Clone, Debug, PartialEq)]
pub struct Found {
    pub id: String,
    pub labels: BTreeMap<String, String>,
    /// The content id of its image, `sha256:...`.
    pub image_id: String,
    pub state: RunState,
    /// Its own addresses; empty when it shares another's network or does not run.
    pub ips: Vec<String>,
}

/// What the engine's own list says of a container that runs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Running {
    pub id: String,
    pub labels: BTreeMap<String, String>,
}

/// What has been taken of a processor since the beginning, and of memory now.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    pub cpu_nanos: u64,
    /// Without file pages that were not used lately.
    pub memory_bytes: u64,
}

#[derive(Clone, Debug, PartialEq)]
pub enum RunState {
    Created,
    Running { started_at: Timestamp },
    Exited(Exit),
}

/// How a container ended.
#[derive(Clone, Debug, PartialEq)]
pub struct Exit {
    pub code: i32,
    pub oom_killed: bool,
    /// `None` if its process never began.
    pub started_at: Option<Timestamp>,
    pub finished_at: Timestamp,
    /// The engine's reason when the process could not be started at all; else empty.
    pub error: String,
}

/// Something happened to a container or an image.
#[derive(Clone, Debug, PartialEq)]
pub enum EngineEvent {
    Started { id: String, labels: BTreeMap<String, String>, at: Timestamp },
    OutOfMemory { id: String },
    Died { id: String, labels: BTreeMap<String, String>, code: i32, at: Timestamp },
    Destroyed { id: String },
    ImagesChanged,
}

/// An image on this desktop: its content id and every name that it answers to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Image {
    pub id: String,
    pub names: Vec<String>,
    pub digests: Vec<String>,
    /// What its layers take on disk.
    pub bytes: u64,
}

/// How a container meets the network and IPC namespaces.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub enum Network {
    /// Its own namespace on the engine's default bridge.
    #[default]
    Own,
    Host,
    /// Those of the container with this id.
    Join(String),
}

/// A file system put into a container.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Mount {
    Bind {
        source: String,
        target: String,
        read_only: bool,
        propagation: Option<&'static str>,
    },
    /// A memory-backed volume of the engine's, shared by all containers that name it.
    Memory {
        name: String,
        target: String,
        read_only: bool,
        size_bytes: Option<u64>,
    },
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct PublishedPort {
    /// With the protocol: `80/tcp`.
    pub container: String,
    pub host_ip: String,
    pub host_port: u16,
}

/// Everything that makes a container.
#[derive(Clone, Default, PartialEq)]
pub struct ContainerSpec {
    pub name: String,
    pub image: String,
    pub labels: BTreeMap<String, String>,
    /// Empty: the image's own.
    pub entrypoint: Vec<String>,
    pub cmd: Vec<String>,
    pub env: Vec<String>,
    pub working_dir: Option<String>,
    /// `uid[:gid]`.
    pub user: Option<String>,
    pub groups: Vec<String>,
    pub hostname: Option<String>,
    pub tty: bool,
    pub stdin: bool,
    pub stdin_once: bool,
    pub mounts: Vec<Mount>,
    pub network: Network,
    /// `None`: private; `host`, or `container:ID` as the engine spells it.
    pub ipc: Option<String>,
    pub pid: Option<String>,
    pub ports: Vec<PublishedPort>,
    pub dns: Vec<String>,
    pub dns_search: Vec<String>,
    pub dns_options: Vec<String>,
    pub extra_hosts: Vec<String>,
    pub sysctls: BTreeMap<String, String>,
    pub cpu_shares: Option<i64>,
    /// CPU time per period of 100 ms, in microseconds.
    pub cpu_quota_us: Option<i64>,
    pub memory_bytes: Option<i64>,
    pub oom_score_adj: Option<i64>,
    pub privileged: bool,
    pub read_only_root: bool,
    pub no_new_privileges: bool,
    pub seccomp_unconfined: bool,
    pub capabilities_add: Vec<String>,
    pub capabilities_drop: Vec<String>,
    pub stop_signal: Option<String>,
}

/// Environment and arguments may hold secrets, so they are left out.
impl fmt::Debug for ContainerSpec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ContainerSpec")
            .field("name", &self.name)
            .field("image", &self.image)
            .finish_non_exhaustive()
    }
}

/// Which part of a container's log is read.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LogQuery {
    pub follow: bool,
    pub timestamps: bool,
    pub tail_lines: Option<u64>,
    /// Seconds since 1970.
    pub since_s: Option<i64>,
}

/// How a command that was run inside a container ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ExecResult {
    pub code: i64,
    /// The beginning of what it wrote.
    pub output: String,
}

/// What becomes of a process' input when a client has no more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EndOfInput {
    Closes,
    /// It stays open, for the next client.
    Stays,
}

/// How far a pull has come.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PullProgress {
    /// The layer that it is about; empty for the whole.
    pub layer: String,
    pub status: String,
    pub current_bytes: Option<u64>,
    pub total_bytes: Option<u64>,
}

/// A container engine.
#[async_trait::async_trait]
pub trait Engine: Send + Sync + 'static {
    /// Whether the engine answers at all: the lightest question that there is, and the only one with a short limit.
    async fn ping(&self) -> Result<(), EngineError>;
    async fn facts(&self) -> Result<Facts, EngineError>;
    /// The containers with all of these labels, in whatever state.
    async fn list(&self, labels: &[(String, String)]) -> Result<Vec<Found>, EngineError>;
    /// Those that run, by the engine's own list: none of them is asked about, so that one that hangs hides no other.
    async fn running(&self, labels: &[(String, String)]) -> Result<Vec<Running>, EngineError>;
    async fn inspect(&self, id: &str) -> Result<Found, EngineError>;
    /// What a running container has taken so far.
    async fn counters(&self, id: &str) -> Result<Counters, EngineError>;
    async fn create(&self, spec: &ContainerSpec) -> Result<String, EngineError>;
    async fn start(&self, id: &str) -> Result<(), EngineError>;
    /// The container's stop signal, then SIGKILL after `grace`. Returns once it has ended; one that does not run is no error.
    async fn stop(&self, id: &str, grace: Duration) -> Result<(), EngineError>;
    /// Kills it if it runs. One that is gone is no error.
    async fn remove(&self, id: &str) -> Result<(), EngineError>;
    async fn remove_volume(&self, name: &str) -> Result<(), EngineError>;
    async fn exec(&self, id: &str, command: &[String], timeout: Duration) -> Result<ExecResult, EngineError>;
    /// Runs a command in a container and talks with it, for as long as both sides like.
    async fn talk(&self, id: &str, command: &[String], stdio: Stdio) -> Result<Process, EngineError>;
    /// Talks with a container's own process. `stdio.tty` says what the container was made with.
    async fn attach(&self, id: &str, stdio: Stdio, end: EndOfInput) -> Result<Process, EngineError>;
    /// A connection to a port on a running container's own loopback.
    async fn connect_inside(&self, id: &str, port: u16) -> io::Result<TcpStream>;
    /// Events from `since` on; ends with an error when the engine goes away.
    fn events(&self, since: Option<Timestamp>) -> BoxStream<'static, Result<EngineEvent, EngineError>>;
    fn logs(&self, id: &str, query: &LogQuery) -> BoxStream<'static, Result<Vec<u8>, EngineError>>;
    async fn images(&self) -> Result<Vec<Image>, EngineError>;
    fn pull(&self, image: &str) -> BoxStream<'static, Result<PullProgress, EngineError>>;
    /// A `docker save` archive.
    fn export(&self, image: &str) -> ByteStream;
    /// Loads a `docker save` archive and returns the names in it.
    async fn load(&self, archive: ByteStream) -> Result<Vec<String>, EngineError>;
    /// Makes an image out of one layer.
    async fn import(&self, image: &str, layer: Vec<u8>, entrypoint: &str) -> Result<(), EngineError>;
}
