//! One file on the bench: what is done with it, and what is seen.

use super::Row;
use super::run::Cluster;
use crate::bench::{Desktop, Outcome, poll};
use anyhow::{Context, Result, ensure};
use serde_json::Value;
use std::time::Duration;

/// Longer than a pod takes to start while some dozen others do.
pub const STARTS: Duration = Duration::from_secs(100);
/// Probes that give up after half a minute, and a minute that has to begin.
pub const LATER: Duration = Duration::from_secs(130);

/// A file, applied in a namespace.
pub struct Case<'a> {
    pub row: &'a Row,
    pub namespace: &'a str,
    pub cluster: &'a Cluster<'a>,
    /// The longest that anything is waited for, if it is known not to come.
    pub patience: Option<Duration>,
    /// What was applied, as `kubectl -o name` writes it: `deployment.apps/web`.
    pub objects: Vec<String>,
}

impl Case<'_> {
    pub fn desktop(&self) -> &Desktop {
        self.cluster.desktop
    }

    /// A command in the case's namespace, whatever becomes of it.
    pub fn try_kubectl(&self, line: &str) -> Result<Outcome> {
        self.cluster.kubectl(&format!("-n {} {line}", self.namespace), "")
    }

    /// A command in the case's namespace that must succeed.
    pub fn kubectl(&self, line: &str) -> Result<String> {
        self.try_kubectl(line)?.ok()
    }

    /// Applies a manifest in the case's namespace.
    pub fn apply(&self, how: &str, manifest: &str) -> Result<Outcome> {
        // Who names a namespace himself must not be told of another one.
        let namespace = match self.row.own_namespace() {
            Some(_) => String::new(),
            None => format!("-n {}", self.namespace),
        };
        self.cluster.kubectl(&format!("{namespace} apply {how} -f -"), manifest)
    }

    /// The names of those objects of the file that are of this kind (`pod`, `deployment.apps`).
    pub fn named(&self, kind: &str) -> Vec<&str> {
        self.objects.iter().filter_map(|object| object.strip_prefix(kind)?.strip_prefix('/')).collect()
    }

    /// The only object of this kind in the file.
    pub fn one(&self, kind: &str) -> Result<&str> {
        let named = self.named(kind);
        named.first().copied().with_context(|| format!("no {kind} among {:?}", self.objects))
    }

    /// An object of the namespace, as the cluster was seen last.
    pub fn look(&self, resource: &str, name: &str) -> Result<Value> {
        let found = self.cluster.seen(resource).into_iter().find(|object| {
            object["metadata"]["name"] == name && object["metadata"]["namespace"] == self.namespace
        });
        found.with_context(|| format!("no {resource} {name} in {}", self.namespace))
    }

    /// The pods of the namespace whose labels are chosen so.
    pub fn pods(&self, chosen: impl Fn(&Value) -> bool) -> Vec<Value> {
        let mut pods = self.cluster.seen("pods");
        pods.retain(|pod| {
            pod["metadata"]["namespace"] == self.namespace && chosen(&pod["metadata"]["labels"])
        });
        pods
    }

    /// Waits until the cluster is seen to be so.
    pub fn until<T>(&self, deadline: Duration, what: &str, done: impl Fn() -> Result<T>) -> Result<T> {
        poll(self.within(deadline), what, || {
            self.cluster.fresh()?;
            done().map(Some)
        })
    }

    fn within(&self, deadline: Duration) -> Duration {
        self.patience.map_or(deadline, |patience| deadline.min(patience))
    }

    /// Waits for a pod that is thus.
    pub fn pod(
        &self,
        name: &str,
        deadline: Duration,
        what: &str,
        is: impl Fn(&Value) -> bool,
    ) -> Result<Value> {
        self.until(deadline, what, || {
            let pod = self.look("pods", name)?;
            ensure!(is(&pod), "{}", pod["status"]);
            Ok(pod)
        })
    }

    /// Waits until a pod's log holds all of these words.
    pub fn log(&self, pod: &str, words: &[&str]) -> Result<()> {
        poll(self.within(STARTS), &format!("{words:?} in the log of {pod}"), || {
            let log = self.kubectl(&format!("logs {pod}"))?;
            let missing: Vec<_> = words.iter().filter(|word| !log.contains(**word)).collect();
            ensure!(missing.is_empty(), "{missing:?} not in {log:?}");
            Ok(Some(()))
        })
    }

    /// Waits until a command in a pod prints these words.
    pub fn exec(&self, pod: &str, command: &str, words: &[&str]) -> Result<()> {
        poll(self.within(STARTS), &format!("{words:?} from {command:?} in {pod}"), || {
            let said = self.kubectl(&format!("exec {pod} -- {command}"))?;
            let missing: Vec<_> = words.iter().filter(|word| !said.contains(**word)).collect();
            ensure!(missing.is_empty(), "{missing:?} not in {said:?}");
            Ok(Some(()))
        })
    }

    /// A field of an object, as kubectl prints it.
    pub fn field(&self, object: &str, path: &str) -> Result<String> {
        self.kubectl(&format!("get {object} -o jsonpath='{{{path}}}'"))
    }

    /// Checks a field of an object.
    pub fn is(&self, object: &str, path: &str, wanted: &str) -> Result<()> {
        let is = self.field(object, path)?;
        ensure!(is == wanted, "{object} {path} is {is:?}, not {wanted:?}");
        Ok(())
    }

    /// Waits until a field of an object is so.
    pub fn becomes(&self, object: &str, path: &str, wanted: &str) -> Result<()> {
        poll(self.within(STARTS), &format!("{object} {path} to be {wanted}"), || {
            self.is(object, path, wanted).map(Some)
        })
    }
}

/// A condition of an object's status.
#[must_use]
pub fn condition<'a>(object: &'a Value, kind: &str) -> Option<&'a Value> {
    object["status"]["conditions"].as_array()?.iter().find(|condition| condition["type"] == kind)
}

/// Of a pod's containers: how many are ready, and how many there are, sidecars included.
#[must_use]
pub fn ready_of(pod: &Value) -> (usize, usize) {
    let list = |list: &str| pod["status"][list].as_array().cloned().unwrap_or_default();
    let sidecars: Vec<&str> = pod["spec"]["initContainers"]
        .as_array()
        .into_iter()
        .flatten()
        .filter(|container| container["restartPolicy"] == "Always")
        .filter_map(|container| container["name"].as_str())
        .collect();
    let mut statuses = list("containerStatuses");
    statuses.extend(
        list("initContainerStatuses")
            .into_iter()
            .filter(|status| status["name"].as_str().is_some_and(|name| sidecars.contains(&name))),
    );
    (statuses.iter().filter(|status| status["ready"] == true).count(), statuses.len())
}

/// How often a pod's containers were started again.
#[must_use]
pub fn restarts(pod: &Value) -> u64 {
    let statuses = pod["status"]["containerStatuses"].as_array().cloned().unwrap_or_default();
    statuses.iter().filter_map(|status| status["restartCount"].as_u64()).sum()
}
