//! What clients make, as the API stores it: defaults filled in.

use crate::random::Random;
use gaggle_sched::state::{Key, Resource};
use k8s_openapi::api::core::v1::Pod;
use serde_json::{Value, json};

pub const NAMESPACE: &str = "default";
pub const IMAGE: &str = "program:1";

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Deployment,
    StatefulSet,
    Job,
    IndexedJob,
    ConfigMap,
}

impl Kind {
    pub fn key(self, name: &str) -> Key {
        let resource = match self {
            Self::Deployment => Resource::new("apps", "deployments"),
            Self::StatefulSet => Resource::new("apps", "statefulsets"),
            Self::Job | Self::IndexedJob => Resource::new("batch", "jobs"),
            Self::ConfigMap => Resource::new("", "configmaps"),
        };
        Key::new(resource, NAMESPACE, name)
    }
}

pub fn object(kind: Kind, name: &str, uid: &str, born: &str, random: &mut Random) -> Value {
    let metadata = json!({
        "name": name, "namespace": NAMESPACE, "uid": uid, "creationTimestamp": born, "generation": 1,
        "annotations": {},
    });
    let replicas = random.within(1, 4);
    let labels = json!({"app": name});
    match kind {
        Kind::ConfigMap => json!({
            "apiVersion": "v1", "kind": "ConfigMap",
            "metadata": {"name": name, "namespace": NAMESPACE, "uid": uid, "creationTimestamp": born, "annotations": {}},
        }),
        Kind::Deployment => json!({
            "apiVersion": "apps/v1", "kind": "Deployment", "metadata": metadata,
            "spec": {
                "replicas": replicas, "revisionHistoryLimit": 2, "progressDeadlineSeconds": 600,
                "strategy": {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": "25%", "maxUnavailable": "25%"}},
                "selector": {"matchLabels": labels}, "template": template(&labels, "Always"),
            },
            "status": {},
        }),
        Kind::StatefulSet => json!({
            "apiVersion": "apps/v1", "kind": "StatefulSet", "metadata": metadata,
            "spec": {
                "replicas": replicas, "revisionHistoryLimit": 2, "podManagementPolicy": "Parallel", "serviceName": name,
                "updateStrategy": {"type": "RollingUpdate", "rollingUpdate": {"partition": 0}},
                "selector": {"matchLabels": labels}, "template": template(&labels, "Always"),
            },
            "status": {},
        }),
        Kind::Job | Kind::IndexedJob => {
            let labels = json!({
                "batch.kubernetes.io/controller-uid": uid, "controller-uid": uid,
                "batch.kubernetes.io/job-name": name, "job-name": name,
            });
            let mode = if kind == Kind::Job { "NonIndexed" } else { "Indexed" };
            json!({
                "apiVersion": "batch/v1", "kind": "Job", "metadata": metadata,
                "spec": {
                    "completions": random.within(1, 5), "parallelism": random.within(1, 4), "backoffLimit": 1_000,
                    "completionMode": mode, "suspend": false, "podReplacementPolicy": "TerminatingOrFailed",
                    "selector": {"matchLabels": {"batch.kubernetes.io/controller-uid": uid}},
                    "template": template(&labels, "Never"),
                },
                "status": {},
            })
        }
    }
}

fn template(labels: &Value, restart: &str) -> Value {
    json!({
        "metadata": {"labels": labels},
        "spec": {
            "restartPolicy": restart, "dnsPolicy": "ClusterFirst", "terminationGracePeriodSeconds": 2,
            "schedulerName": "default-scheduler", "securityContext": {},
            "containers": [{
                "name": "main", "image": IMAGE, "imagePullPolicy": "IfNotPresent", "resources": {},
                "terminationMessagePath": "/dev/termination-log", "terminationMessagePolicy": "File",
            }],
        },
    })
}

/// When a pod's program ends by itself, in milliseconds, and with which code.
pub fn program(pod: &Pod, random: &mut Random) -> Option<(u64, i32)> {
    let labels = pod.metadata.labels.as_ref();
    let of_job = labels.is_some_and(|labels| labels.contains_key("job-name"));
    match (of_job, random.permille(40)) {
        (true, fails) => Some((random.within(200, 4_000), i32::from(fails))),
        (false, true) => Some((random.within(200, 8_000), 1)),
        (false, false) => None,
    }
}
