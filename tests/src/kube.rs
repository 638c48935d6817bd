//! What suites ask of the Kubernetes API, through kubectl on a desktop.

use crate::bench::{Bench, Desktop, poll};
use anyhow::{Context, Result, bail, ensure};
use serde_json::Value;
use std::collections::BTreeSet;
use std::time::Duration;

/// Long enough for any change to show on a machine that runs two benches at once.
pub const SOON: Duration = Duration::from_secs(60);
/// Long enough for a dead desktop to be noticed and its pods to be made again elsewhere.
pub const RECOVERS: Duration = Duration::from_secs(150);

/// A pod that runs this shell line.
#[must_use]
pub fn pod(name: &str, line: &str) -> String {
    pod_on(name, None, "busybox", line)
}

/// A pod that runs this shell line, on one desktop if it is named.
#[must_use]
pub fn pod_on(name: &str, node: Option<&str>, image: &str, line: &str) -> String {
    serde_json::json!({
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": { "name": name, "labels": { "app": name } },
        "spec": {
            "nodeSelector": node.map(|node| serde_json::json!({ "kubernetes.io/hostname": node })),
            "restartPolicy": "Never",
            "terminationGracePeriodSeconds": 1,
            "containers": [{
                "name": "main", "image": image, "imagePullPolicy": "IfNotPresent", "command": ["sh", "-c", line],
            }],
        },
    })
    .to_string()
}

/// A Deployment of so many replicas that do nothing for long.
#[must_use]
pub fn deployment(name: &str, replicas: usize) -> String {
    serde_json::json!({
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": { "name": name },
        "spec": {
            "replicas": replicas,
            "selector": { "matchLabels": { "app": name } },
            "template": {
                "metadata": { "labels": { "app": name } },
                "spec": {
                    "terminationGracePeriodSeconds": 1,
                    "containers": [{
                        "name": "main", "image": "busybox", "imagePullPolicy": "IfNotPresent",
                        "command": ["sleep", "100000"],
                    }],
                },
            },
        },
    })
    .to_string()
}

/// A Deployment whose pods wait five minutes for a desktop that does not answer, as Kubernetes' own do: for what must
/// outlive the restart of a daemon, however slow the machine is.
#[must_use]
pub fn patient_deployment(name: &str, replicas: usize) -> String {
    let tolerations = serde_json::json!([{
        "key": "node.kubernetes.io/unreachable", "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": 300,
    }]);
    deployment(name, replicas).replacen(
        r#""containers":"#,
        &format!(r#""tolerations":{tolerations},"containers":"#),
        1,
    )
}

/// A manifest that kubectl reads as YAML: what begins with a brace it takes for JSON, also where it is YAML's flow
/// style.
#[must_use]
pub fn as_yaml(manifest: &str) -> String {
    format!("---\n{manifest}")
}

impl Desktop {
    /// Applies a manifest.
    pub fn apply(&self, manifest: &str) -> Result<String> {
        self.kubectl_with("apply -f -", &as_yaml(manifest))?.ok()
    }

    /// An object as it is now, as this desktop's daemon serves it.
    pub fn get(&self, kind: &str, name: &str) -> Result<Value> {
        self.kubectl(&format!("get {kind} {name} -o json"))?.json()
    }

    /// The objects of a kind that a selector (`-l app=x`, or nothing) chooses.
    pub fn list(&self, kind: &str, selector: &str) -> Result<Vec<Value>> {
        let list = self.kubectl(&format!("get {kind} {selector} -o json"))?.json()?;
        list["items"].as_array().cloned().with_context(|| format!("a list without items: {list}"))
    }

    /// Waits until a pod has one of these phases, and returns it.
    pub fn pod_in(&self, name: &str, phases: &[&str]) -> Result<Value> {
        poll(SOON, &format!("pod {name} to be {phases:?}"), || {
            let pod = self.get("pod", name)?;
            let phase = pod["status"]["phase"].as_str().unwrap_or_default();
            if phases.contains(&phase) {
                return Ok(Some(pod));
            }
            bail!("it is {phase}: {}", pod["status"])
        })
    }

    /// Waits until exactly so many pods of a Deployment are ready and no other is left, and returns them.
    pub fn replicas(&self, app: &str, wanted: usize, deadline: Duration) -> Result<Vec<Value>> {
        poll(deadline, &format!("{wanted} replicas of {app}"), || {
            let pods = self.list("pods", &format!("-l app={app}"))?;
            let ready = pods.iter().filter(|pod| is_ready(pod)).count();
            ensure!(
                ready == wanted && pods.len() == wanted,
                "{ready} ready of {}: {}",
                pods.len(),
                summary(&pods)
            );
            Ok(Some(pods))
        })
    }

    /// Makes a config map, which must be ordered: with a quorum, not kept.
    pub fn write(&self, name: &str) -> Result<()> {
        let made = self.kubectl(&format!("create configmap {name} --from-literal=a={name}"))?;
        ensure!(made.success() && !made.stderr.contains("Warning"), "{name} was not ordered: {made}");
        Ok(())
    }

    /// Waits until this exists no more.
    pub fn gone(&self, kind: &str, selector: &str) -> Result<()> {
        poll(SOON, &format!("{kind} {selector} to be gone"), || {
            let left = self.kubectl(&format!("get {kind} {selector} -o name --ignore-not-found"))?.ok()?;
            ensure!(left.trim().is_empty(), "there is still {left}");
            Ok(Some(()))
        })
    }
}

impl Bench {
    /// Waits until each of these config maps is on each of these desktops.
    pub fn everywhere(&self, members: &[usize], names: &[String]) -> Result<()> {
        self.wait_until(SOON, "everything written to be on every desktop", || {
            for &index in members {
                let listed = self.desktop(index).kubectl("get configmaps -o name")?.ok()?;
                let there: BTreeSet<&str> =
                    listed.lines().filter_map(|line| line.strip_prefix("configmap/")).collect();
                let missing: Vec<_> = names.iter().filter(|name| !there.contains(name.as_str())).collect();
                ensure!(missing.is_empty(), "d{index} lacks {missing:?}");
            }
            Ok(Some(()))
        })
    }
}

/// Whether a pod is ready and not on its way out.
#[must_use]
pub fn is_ready(pod: &Value) -> bool {
    let conditions = pod["status"]["conditions"].as_array().cloned().unwrap_or_default();
    pod["metadata"]["deletionTimestamp"].is_null()
        && conditions.iter().any(|condition| condition["type"] == "Ready" && condition["status"] == "True")
}

/// Which desktop a pod is on.
#[must_use]
pub fn node_of(pod: &Value) -> String {
    pod["spec"]["nodeName"].as_str().unwrap_or_default().to_owned()
}

/// Where pods are and how they do, for messages.
#[must_use]
pub fn summary(pods: &[Value]) -> String {
    let line = |pod: &Value| {
        format!("{} {} on {:?}", pod["metadata"]["name"], pod["status"]["phase"], pod["spec"]["nodeName"])
    };
    pods.iter().map(line).collect::<Vec<_>>().join(", ")
}
