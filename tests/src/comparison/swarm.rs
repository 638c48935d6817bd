//! Docker Swarm, as it is timed: every desktop a manager.

use super::{Contender, IMAGE};
use crate::bench::{Bench, Desktop, Engines};
use anyhow::{Context, Result, ensure};

/// Driven through Docker's command line.
pub struct Swarm;

impl Contender for Swarm {
    fn name(&self) -> &'static str {
        "Docker Swarm"
    }

    fn engines(&self) -> Engines {
        Engines::Swarm
    }

    fn assemble(&self, bench: &Bench) -> Result<()> {
        let first = bench.desktop(1);
        let at =
            |desktop: &Desktop| format!("--advertise-addr {0} --listen-addr {0}:2377", desktop.address());
        first.docker(&format!("swarm init {}", at(first)))?.ok()?;
        let token = first.docker("swarm join-token -q manager")?.ok()?;
        for desktop in &bench.desktops()[1..] {
            let join =
                format!("swarm join {} --token {} {}:2377", at(desktop), token.trim(), first.address());
            desktop.docker(&join)?.ok()?;
        }
        Ok(())
    }

    fn boot(&self, _: &Desktop) -> Result<()> {
        // The engine is all of it.
        Ok(())
    }

    fn leader(&self, ask: &Desktop) -> Result<String> {
        let nodes = ask.docker("node ls --format '{{.Hostname}} {{.ManagerStatus}}'")?.ok()?;
        let leader = nodes.lines().find_map(|line| line.strip_suffix(" Leader"));
        Ok(leader.with_context(|| format!("no leader: {nodes}"))?.to_owned())
    }

    fn is_ready(&self, ask: &Desktop, desktop: &Desktop) -> Result<bool> {
        let nodes = ask.docker("node ls --format '{{.Hostname}} {{.Status}} {{.ManagerStatus}}'")?.ok()?;
        let name = desktop.name();
        let line = nodes.lines().find(|line| line.split(' ').next() == Some(&name));
        let line = line.with_context(|| format!("no node {name}: {nodes}"))?;
        Ok(line.contains(" Ready ") && !line.contains("Unreachable"))
    }

    fn deploy(&self, ask: &Desktop, replicas: usize) -> Result<()> {
        let create = format!(
            "service create --detach --name web --replicas {replicas} --stop-grace-period 1s --no-resolve-image \
             {IMAGE} sleep 100000"
        );
        ask.docker(&create)?.ok().map(|_| ())
    }

    fn remove(&self, ask: &Desktop) -> Result<()> {
        ask.docker("service rm web")?.ok().map(|_| ())
    }

    fn write(&self, ask: &Desktop, name: &str) -> Result<()> {
        let written = ask.docker(&format!("config create {name} /etc/hostname"))?;
        // An attempt that was taken for failed may have gone through.
        ensure!(written.success() || written.stderr.contains("already exists"), "{written}");
        Ok(())
    }

    fn write_alone(&self, _: &Desktop, _: &str) -> Result<bool> {
        Ok(false)
    }

    fn written(&self, ask: &Desktop) -> Result<Vec<String>> {
        let names = ask.docker("config ls --format '{{.Name}}'")?.ok()?;
        Ok(names.lines().map(str::to_owned).collect())
    }

    fn knows_it_is_alone(&self, ask: &Desktop) -> Result<bool> {
        Ok(!ask.docker("node ls -q")?.success())
    }
}
