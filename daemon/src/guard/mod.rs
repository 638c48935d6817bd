//! The guard: a second, small process beside the daemon, for what must happen also when the daemon cannot do it.
//!
//! An identity may run only for so long after a leader was heard ([`gaggle_sched::controller::identity`]), and the agent
//! sees to that while its daemon lives. A daemon that is killed, out of memory, or stuck leaves its containers running
//! under an engine that knows of no such rule. So the daemon tells this process through a pipe when the flock was heard,
//! and when that has become too long ago, it kills the identities itself, whatever became of the daemon.
//!
//! `watch` decides (pure), `process` is the guard's whole life, `keeper` is the daemon's side, `duty` tells a guard that a
//! newer daemon of the same desktop has one of its own. A guard knows no secret, speaks to nobody but the engine, and
//! does nothing for as long as the flock is heard. It must never know pods, views or the network.

mod duty;
mod keeper;
mod pipe;
mod process;
mod watch;

pub use keeper::Guard;
pub use process::run;

use std::path::{Path, PathBuf};

/// Whose containers are guarded, and where.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GuardConfig {
    pub data_dir: PathBuf,
    /// As [`crate::agent::AgentConfig::docker_host`].
    pub docker_host: String,
    pub cluster: String,
    pub node: String,
}

impl GuardConfig {
    /// Where the agent notes when the flock was heard.
    fn heard_file(&self) -> PathBuf {
        crate::agent::heard_file(&agent_dir(&self.data_dir))
    }

    fn duty_file(&self) -> PathBuf {
        self.data_dir.join("guard")
    }
}

/// Where the agent of a data directory keeps what it needs.
pub fn agent_dir(data_dir: &Path) -> PathBuf {
    data_dir.join("pods")
}
