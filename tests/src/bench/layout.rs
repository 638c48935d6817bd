//! The names of everything that a bench makes, so that any process can find it or take it away.

use super::address::Subnet;
use super::{BenchConfig, Engines};
use anyhow::{Context, Result, bail, ensure};
use serde::{Deserialize, Serialize};
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};

/// Every name that a bench uses begins with this, and nothing else is ever swept away.
pub const PREFIX: &str = "gagglebench-";

/// Desktops of one bench: their addresses must fit into one subnet beside the gateway.
const MAX_DESKTOPS: usize = 200;

/// Where a bench is, and how its parts are called.
#[derive(Debug, Serialize, Deserialize)]
pub struct Layout {
    /// `gagglebench-PID-COUNTER`.
    pub name: String,
    /// The directory that holds everything of this bench.
    pub dir: PathBuf,
    /// How many desktops there are.
    pub desktops: usize,
    /// The binary under test.
    pub binary: PathBuf,
    pub engines: Engines,
    subnet: Subnet,
}

impl Layout {
    /// Picks a name that no other bench has and makes the directory.
    pub fn create(config: &BenchConfig) -> Result<Self> {
        static COUNTER: AtomicU32 = AtomicU32::new(0);
        ensure!(
            (1..=MAX_DESKTOPS).contains(&config.desktops),
            "a bench has 1 to {MAX_DESKTOPS} desktops, not {}",
            config.desktops
        );
        let (pid, counter) = (std::process::id(), COUNTER.fetch_add(1, Ordering::Relaxed));
        let name = format!("{PREFIX}{pid}-{counter}");
        let dir = base().join(&name);
        let binary = match &config.binary {
            Some(binary) => binary.clone(),
            None => default_binary()?,
        };
        let (desktops, engines) = (config.desktops, config.engines);
        let layout = Self { name, dir, desktops, binary, engines, subnet: Subnet::pick(pid, counter) };
        for index in 1..=layout.desktops {
            let desktop = layout.desktop(index);
            for part in ["docker", "home", "data"] {
                std::fs::create_dir_all(desktop.join(part))
                    .with_context(|| format!("making {}", desktop.join(part).display()))?;
            }
        }
        let file = layout.dir.join("bench.json");
        std::fs::write(&file, serde_json::to_vec(&layout)?)
            .with_context(|| format!("writing {}", file.display()))?;
        Ok(layout)
    }

    /// Reads what [`Layout::create`] wrote.
    pub fn read(dir: &Path) -> Result<Self> {
        let file = dir.join("bench.json");
        let text = std::fs::read(&file).with_context(|| format!("no bench in {}", dir.display()))?;
        serde_json::from_slice(&text).with_context(|| format!("reading {}", file.display()))
    }

    /// The network namespace that is the switch.
    #[must_use]
    pub fn switch(&self) -> String {
        format!("{}-sw", self.name)
    }

    /// A desktop's network namespace.
    #[must_use]
    pub fn namespace(&self, index: usize) -> String {
        format!("{}-d{index}", self.name)
    }

    /// The switch's end of a desktop's cable.
    #[must_use]
    pub fn port(index: usize) -> String {
        format!("d{index}")
    }

    /// A desktop's address on the bench's network.
    #[must_use]
    pub fn address(&self, index: usize) -> Ipv4Addr {
        self.subnet.desktop(index)
    }

    /// The switch's own address.
    #[must_use]
    pub fn gateway(&self) -> Ipv4Addr {
        self.subnet.gateway()
    }

    /// All addresses of the bench, as address/length.
    #[must_use]
    pub fn cidr(&self) -> String {
        self.subnet.cidr()
    }

    /// A desktop's directory.
    #[must_use]
    pub fn desktop(&self, index: usize) -> PathBuf {
        self.dir.join(format!("d{index}"))
    }
}

/// Where benches are kept: on disk, since engines cannot stack their layers on every tmpfs.
#[must_use]
pub fn base() -> PathBuf {
    std::env::var_os("GAGGLE_BENCH_BASE")
        .map_or_else(|| PathBuf::from("/var/tmp/gaggle-bench"), PathBuf::from)
}

/// `GAGGLE_BINARY`, or the one that cargo put beside this test or tool.
fn default_binary() -> Result<PathBuf> {
    if let Some(binary) = std::env::var_os("GAGGLE_BINARY") {
        return Ok(PathBuf::from(binary));
    }
    let own = std::env::current_exe().context("finding the running program")?;
    for dir in own.ancestors().skip(1).take(2) {
        let binary = dir.join("gaggle");
        if binary.is_file() {
            return Ok(binary);
        }
    }
    bail!("no gaggle binary beside {}: build it (cargo build -p gaggle) or set GAGGLE_BINARY", own.display())
}
