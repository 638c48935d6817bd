//! The words in which many expectations are said: `Running, Ready`, `3/3`, `Forbidden: ...`, `Pending: ...`.

use super::Row;
use super::case::{Case, LATER, STARTS, condition, ready_of, restarts};
use anyhow::{Result, bail, ensure};
use serde_json::Value;

/// What the API must say if it is to refuse the file.
#[must_use]
pub fn refusal(row: &Row) -> Option<Vec<&str>> {
    // One line is about four services: those that ask for addresses of the other family are refused.
    if row.says("IPv6-only rejected") && row.text.contains("IPv6") {
        return Some(vec!["spec.ipFamil"]);
    }
    let (first, why) = row.expected.split_once(": ")?;
    if !matches!(first, "Forbidden" | "Invalid") {
        return None;
    }
    Some(why.split("; ").map(|part| part.trim_end_matches([' ', '.'])).collect())
}

/// Whether a refusal says these words: as they are, or each in its turn, where the expectation has put them in other marks.
#[must_use]
pub fn is_said(said: &str, words: &str) -> bool {
    let bare = |word: &str| word.trim_matches(['"', '(', ')', ':', ',', '.']).to_owned();
    let mut heard = said.split_whitespace().map(bare);
    said.contains(words) || words.split_whitespace().map(bare).all(|word| heard.any(|other| other == word))
}

/// Whether the file is only to be kept, and nothing to come of it.
#[must_use]
pub fn is_only_kept(row: &Row) -> bool {
    const ALIVE: [&str; 8] = [
        "CronJob",
        "DaemonSet",
        "Deployment",
        "Job",
        "Pod",
        "ReplicaSet",
        "ReplicationController",
        "StatefulSet",
    ];
    !row.kinds.iter().any(|kind| ALIVE.contains(&kind.as_str()))
}

/// Waits until everything that the file makes is as is said of it.
pub fn check(case: &Case) -> Result<()> {
    let row = case.row;
    for (kind, resource) in [
        ("deployment.apps", "deployments"),
        ("replicaset.apps", "replicasets"),
        ("replicationcontroller", "replicationcontrollers"),
        ("statefulset.apps", "statefulsets"),
    ] {
        for name in case.named(kind) {
            replicas(case, resource, name)?;
        }
    }
    for name in case.named("daemonset.apps") {
        daemons(case, name)?;
    }
    for name in case.named("job.batch") {
        job(case, name)?;
    }
    for name in case.named("pod") {
        pod(case, name)?;
    }
    for name in case.named("persistentvolumeclaim") {
        if row.says("Bound") {
            case.becomes(&format!("pvc/{name}"), ".status.phase", "Bound")?;
        }
    }
    for name in case.named("customresourcedefinition.apiextensions.k8s.io") {
        case.kubectl(&format!("wait crd/{name} --for=condition=Established --timeout=30s"))?;
    }
    Ok(())
}

/// The pairs of numbers in the words, such as 3/3, and the word before each.
fn pairs(row: &Row) -> Vec<(&str, usize, usize)> {
    let (mut found, mut before) = (Vec::new(), "");
    for word in row.expected.split([' ', ';', ',']).filter(|word| !word.is_empty()) {
        let pair = word.split_once('/').map(|(one, two)| (one.parse(), two.parse()));
        if let Some((Ok(one), Ok(two))) = pair {
            found.push((before, one, two));
        }
        before = word;
    }
    found
}

/// How many of a pod's containers are to be ready.
fn containers(row: &Row) -> Option<(usize, usize)> {
    let is_pod = row.has("Pod");
    let of_pods = |(before, ..): &(&str, usize, usize)| {
        before.eq_ignore_ascii_case("ready") || (is_pod && *before == "Running")
    };
    pairs(row).into_iter().find(of_pods).map(|(_, ready, all)| (ready, all))
}

fn replicas(case: &Case, resource: &str, name: &str) -> Result<()> {
    let told = pairs(case.row).into_iter().find(|(before, ..)| !before.eq_ignore_ascii_case("ready"));
    // Of ReplicationControllers the list says 3/3, and the files ask for five.
    let told = told.filter(|_| resource != "replicationcontrollers");
    case.until(STARTS, &format!("the replicas of {name}"), || {
        let object = case.look(resource, name)?;
        let (spec, status) = (&object["spec"], &object["status"]);
        let asked = spec["replicas"].as_u64().unwrap_or(1);
        let wanted = told.map_or(asked, |(_, ready, _)| ready as u64);
        let count = |field: &str| status[field].as_u64().unwrap_or(0);
        ensure!(status["observedGeneration"] == object["metadata"]["generation"], "it was not seen yet");
        ensure!(count("readyReplicas") == wanted && count("replicas") == wanted, "{wanted} wanted: {status}");
        if resource == "deployments" {
            ensure!(count("updatedReplicas") == wanted, "{status}");
        }
        Ok(())
    })?;
    if let Some(wanted) = containers(case.row) {
        let pods = case.pods(|_| true);
        ensure!(pods.iter().all(|pod| ready_of(pod) == wanted), "{wanted:?} containers are to be ready");
    }
    Ok(())
}

fn daemons(case: &Case, name: &str) -> Result<()> {
    case.until(STARTS, &format!("the daemons of {name}"), || {
        let status = case.look("daemonsets", name)?["status"].clone();
        let nodes = case.cluster.nodes;
        ensure!(
            status["numberReady"] == nodes && status["desiredNumberScheduled"] == nodes,
            "{nodes} wanted: {status}"
        );
        Ok(())
    })
}

fn job(case: &Case, name: &str) -> Result<()> {
    let row = case.row;
    let wanted = match (row.says("Complete"), row.says("Failed")) {
        (true, _) => "Complete",
        (false, true) => "Failed",
        (false, false) => bail!("nobody says what becomes of the Job: {}", row.expected),
    };
    case.until(LATER, &format!("Job {name} to be {wanted}"), || {
        let job = case.look("jobs", name)?;
        let Some(end) = condition(&job, wanted).filter(|end| end["status"] == "True") else {
            bail!("{}", job["status"]);
        };
        if row.says("(PodFailurePolicy)") {
            ensure!(end["reason"] == "PodFailurePolicy", "{end}");
        }
        if let Some((_, done, _)) = pairs(row).into_iter().find(|(before, ..)| *before == "Complete") {
            ensure!(job["status"]["succeeded"] == done, "{}", job["status"]);
        }
        Ok(())
    })
}

fn pod(case: &Case, name: &str) -> Result<()> {
    let row = case.row;
    if row.says("restarts") || row.says("RESTARTS>=1") {
        case.pod(name, LATER, "a restart", |pod| restarts(pod) >= 1)?;
    } else if row.says("Running") {
        let wanted = containers(row);
        let ready = row.says("Ready") || wanted.is_some();
        case.pod(name, STARTS, "it to run", |pod| {
            let (is, all) = ready_of(pod);
            let enough = wanted.map_or(is == all, |wanted| wanted == (is, all));
            pod["status"]["phase"] == "Running" && (!ready || enough)
        })?;
    } else if row.says("Succeeded") {
        case.pod(name, STARTS, "it to succeed", |pod| pod["status"]["phase"] == "Succeeded")?;
    } else if row.says("Pending") {
        let why = row.expected.strip_prefix("Pending: ").unwrap_or_default();
        pending(case, name, why)?;
    }
    Ok(())
}

/// Waits until the scheduler says that a pod has no place, in these words.
pub fn pending(case: &Case, name: &str, why: &str) -> Result<Value> {
    case.pod(name, STARTS, &format!("it to find no place: {why}"), |pod| {
        let told = condition(pod, "PodScheduled").filter(|condition| condition["status"] == "False");
        let message = told.and_then(|told| told["message"].as_str()).unwrap_or_default();
        pod["status"]["phase"] == "Pending" && told.is_some() && message.contains(why)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(expected: &str, kinds: &[&str]) -> Row {
        Row {
            file: String::new(),
            bundle: String::new(),
            order: 1,
            expected: expected.to_owned(),
            kinds: kinds.iter().map(|&kind| kind.to_owned()).collect(),
            features: Vec::new(),
            images: Vec::new(),
            text: String::new(),
        }
    }

    #[test]
    fn words_are_read_as_people_mean_them() {
        let deployment = row("1/1 Ready 2/2; `logs` streams", &["Deployment"]);
        assert_eq!(containers(&deployment), Some((2, 2)));
        assert_eq!(pairs(&deployment), [("", 1, 1), ("Ready", 2, 2)]);
        assert_eq!(containers(&row("Running 2/2; shell sees nginx", &["Pod"])), Some((2, 2)));
        assert_eq!(containers(&row("phase Running, READY 1/2", &["Pod"])), Some((1, 2)));
        assert_eq!(pairs(&row("1Gi/1Gi", &["Pod"])), []);
        let refused = row("Forbidden: maximum is 2; memory is 2Gi ...", &["Pod"]);
        assert_eq!(refusal(&refused), Some(vec!["maximum is 2", "memory is 2Gi"]));
        assert_eq!(refusal(&row("Pending: Insufficient cpu", &["Pod"])), None);
        assert!(is_only_kept(&row("created", &["Service"])) && !is_only_kept(&deployment));
    }
}
