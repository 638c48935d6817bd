//! An image registry on the bench's switch, as one would stand in a lab: plain HTTP, nobody logs in.

use super::outcome::{self, Running};
use super::{Bench, switch};
use anyhow::{Context, Result, bail};
use std::net::SocketAddrV4;
use std::time::Duration;

/// Every bench has a network of its own, so the usual port is always free.
const PORT: u16 = 5000;
/// It answers in a tenth of a second; this is for a machine that starts many engines at once.
const ANSWERS_WITHIN: Duration = Duration::from_secs(30);

/// A registry that runs. Dropping it ends it; what was pushed stays for the next one of the same bench.
#[derive(Debug)]
pub struct Registry {
    address: SocketAddrV4,
    _running: Running,
}

impl Registry {
    /// What the names of its images begin with, before the slash.
    #[must_use]
    pub fn address(&self) -> SocketAddrV4 {
        self.address
    }
}

impl Bench {
    /// Starts a registry at the switch's own address and waits until it answers.
    pub fn registry(&self) -> Result<Registry> {
        let address = SocketAddrV4::new(self.layout().gateway(), PORT);
        let dir = self.layout().dir.join("registry");
        std::fs::create_dir_all(&dir).with_context(|| format!("making {}", dir.display()))?;
        // YAML takes JSON.
        let config = serde_json::json!({
            "version": 0.1,
            "log": { "level": "warn" },
            "storage": { "filesystem": { "rootdirectory": dir.join("images") } },
            "http": { "addr": address.to_string() },
        });
        let file = dir.join("config.yml");
        std::fs::write(&file, config.to_string()).with_context(|| format!("writing {}", file.display()))?;
        let running =
            Running::start(self.visitor(&format!("exec docker-registry serve '{}'", file.display()))?)?;
        super::poll(ANSWERS_WITHIN, "the registry to answer", || {
            let ask = self.visitor(&format!("curl --silent --fail --noproxy '*' http://{address}/v2/"))?;
            if outcome::run(ask, b"", ANSWERS_WITHIN)?.success() {
                return Ok(Some(()));
            }
            bail!("it said {:?}", running.stderr())
        })?;
        Ok(Registry { address, _running: running })
    }

    /// Makes what comes from the switch's own address, such as a registry's images, as slow as a line of so many
    /// kilobits in a second. Desktops among themselves stay as fast as they are.
    pub fn slow_gateway(&self, kilobits: u32) -> Result<()> {
        switch::slow_gateway(self.layout(), kilobits)
    }
}
