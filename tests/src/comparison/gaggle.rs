//! gaggle, as it is timed.

use super::Contender;
use crate::bench::{Bench, Desktop, Engines};
use crate::kube::deployment;
use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};

const CONFIG_MAPS: &str = "/api/v1/namespaces/default/configmaps";

/// Driven through its Kubernetes API.
pub struct Gaggle;

impl Contender for Gaggle {
    fn name(&self) -> &'static str {
        "gaggle"
    }

    fn engines(&self) -> Engines {
        Engines::LiveRestore
    }

    fn assemble(&self, bench: &Bench) -> Result<()> {
        bench.up()?;
        // What is timed later begins with no first visit to a desktop.
        bench.each(|desktop| desktop.fetch("/version").map(|_| ()))
    }

    fn boot(&self, desktop: &Desktop) -> Result<()> {
        desktop.restart_daemon()
    }

    fn leader(&self, ask: &Desktop) -> Result<String> {
        ask.status()?.leader.context("no leader")
    }

    fn is_ready(&self, ask: &Desktop, desktop: &Desktop) -> Result<bool> {
        let node = ask.fetch(&format!("/api/v1/nodes/{}", desktop.name()))?;
        let conditions = node["status"]["conditions"].as_array().cloned().unwrap_or_default();
        Ok(conditions.iter().any(|condition| condition["type"] == "Ready" && condition["status"] == "True"))
    }

    fn deploy(&self, ask: &Desktop, replicas: usize) -> Result<()> {
        ask.apply(&deployment("web", replicas)).map(|_| ())
    }

    fn remove(&self, ask: &Desktop) -> Result<()> {
        ask.kubectl("delete deployment web --cascade=foreground")?.ok().map(|_| ())
    }

    fn write(&self, ask: &Desktop, name: &str) -> Result<()> {
        let answer = post_config_map(ask, name)?;
        ensure!(!is_kept_only(&answer), "kept, not ordered: {answer}");
        Ok(())
    }

    fn write_alone(&self, ask: &Desktop, name: &str) -> Result<bool> {
        let answer = post_config_map(ask, name)?;
        ensure!(is_kept_only(&answer), "ordered by a desktop that is alone: {answer}");
        Ok(true)
    }

    fn written(&self, ask: &Desktop) -> Result<Vec<String>> {
        let list = ask.fetch(CONFIG_MAPS)?;
        let name = |item: &Value| item["metadata"]["name"].as_str().map(str::to_owned);
        Ok(list["items"].as_array().context("a list without items")?.iter().filter_map(name).collect())
    }

    fn knows_it_is_alone(&self, ask: &Desktop) -> Result<bool> {
        Ok(!ask.status()?.quorum)
    }
}

fn post_config_map(ask: &Desktop, name: &str) -> Result<String> {
    let object =
        json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}, "data": {"a": "b"}});
    ask.post(CONFIG_MAPS, &object.to_string())?.ok()
}

/// The answer to a write that no quorum ordered carries a warning.
fn is_kept_only(answer: &str) -> bool {
    answer.lines().any(|line| line.to_lowercase().starts_with("warning:"))
}
