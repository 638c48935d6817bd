//! The kinds beyond those that every manifest has: daemons on every desktop, Jobs by the clock, the rules of a namespace,
//! and budgets that a drain respects.

use anyhow::{Result, ensure};
use gaggle_tests::bench::{Bench, Desktop, Up, on_bench, poll};
use gaggle_tests::kube::{SOON, deployment, is_ready, node_of, summary};
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::time::Duration;

/// A minute has to begin, and its Job to be made and to end.
const NEXT_MINUTE: Duration = Duration::from_secs(130);

fn pod_spec(line: &str) -> Value {
    json!({"terminationGracePeriodSeconds": 1, "containers": [{
        "name": "main", "image": "busybox", "imagePullPolicy": "IfNotPresent", "command": ["sh", "-c", line],
    }]})
}

fn daemon_set(line: &str) -> String {
    json!({
        "apiVersion": "apps/v1", "kind": "DaemonSet", "metadata": {"name": "probe"},
        "spec": {"selector": {"matchLabels": {"app": "probe"}},
            "template": {"metadata": {"labels": {"app": "probe"}}, "spec": pod_spec(line)}},
    })
    .to_string()
}

fn cron_job() -> String {
    let mut spec = pod_spec("echo tick");
    spec["restartPolicy"] = json!("Never");
    json!({
        "apiVersion": "batch/v1", "kind": "CronJob", "metadata": {"name": "tick"},
        "spec": {"schedule": "* * * * *", "timeZone": "Europe/Berlin",
            "jobTemplate": {"spec": {"template": {"spec": spec}}}},
    })
    .to_string()
}

/// Waits until each of these desktops, and no other, has one daemon that is ready and runs this line.
fn daemons(desktop: &Desktop, nodes: &[&str], line: &str) -> Result<()> {
    let wanted: BTreeSet<String> = nodes.iter().map(|node| (*node).to_owned()).collect();
    poll(SOON, &format!("a daemon with {line:?} on each of {nodes:?}"), || {
        let pods = desktop.list("pods", "-l app=probe")?;
        let new = |pod: &&Value| is_ready(pod) && pod["spec"]["containers"][0]["command"][2] == line;
        let there: BTreeSet<String> = pods.iter().filter(new).map(node_of).collect();
        ensure!(there == wanted && pods.len() == wanted.len(), "{}", summary(&pods));
        Ok(Some(()))
    })
}

#[test]
fn daemons_jobs_by_the_clock_quotas_and_budgets_do_what_their_manifests_say() {
    on_bench(4, |bench| {
        for index in 1..=3 {
            bench.desktop(index).start_daemon(&Up::default())?;
        }
        bench.assembled(&[1, 2, 3])?;
        let (one, two) = (bench.desktop(1), bench.desktop(2));
        one.apply(&cron_job())?;
        every_desktop_has_its_daemon(bench)?;
        rules_are_kept(two)?;
        a_drain_waits_for_the_budget(two)?;
        jobs_come_by_the_clock(one)
    });
}

fn every_desktop_has_its_daemon(bench: &Bench) -> Result<()> {
    let (one, three) = (bench.desktop(1), bench.desktop(3));
    let (first, second) = ("exec sleep 100000", "exec sleep 200000");
    one.apply(&daemon_set(first))?;
    daemons(three, &["d1", "d2", "d3"], first)?;
    bench.desktop(4).start_daemon(&Up::default())?;
    bench.assembled(&[1, 2, 3, 4])?;
    let all = ["d1", "d2", "d3", "d4"];
    daemons(three, &all, first)?;
    three.apply(&daemon_set(second))?;
    one.kubectl("rollout status daemonset/probe --timeout=60s")?.ok()?;
    daemons(one, &all, second)?;
    let history = one.kubectl("rollout history daemonset/probe")?.ok()?;
    ensure!(history.lines().filter(|line| line.starts_with(['1', '2'])).count() == 2, "{history}");
    let said = three.kubectl("rollout undo daemonset/probe")?.ok()?;
    ensure!(said.contains("rolled back"), "{said}");
    one.kubectl("rollout status daemonset/probe --timeout=60s")?.ok()?;
    daemons(one, &all, first)
}

/// What a namespace's LimitRange and ResourceQuota allow, at whichever desktop one asks.
fn rules_are_kept(desktop: &Desktop) -> Result<()> {
    desktop.kubectl("create namespace lab")?.ok()?;
    let range = json!({"apiVersion": "v1", "kind": "LimitRange", "metadata": {"name": "r", "namespace": "lab"},
        "spec": {"limits": [{"type": "Container", "max": {"cpu": "800m"}, "default": {"cpu": "50m"}}]}});
    desktop.apply(&range.to_string())?;
    desktop.kubectl("create quota q -n lab --hard=pods=2,requests.cpu=1")?.ok()?;
    let pod = |name: &str, cpu: &str| {
        let mut spec = pod_spec("exec sleep 100000");
        spec["containers"][0]["resources"] = json!({"limits": {"cpu": cpu}});
        json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, "namespace": "lab"}, "spec": spec})
            .to_string()
    };
    let refused = |manifest: &str| desktop.kubectl_with("create -f -", manifest)?.refused();
    let said = refused(&pod("large", "1500m"))?;
    ensure!(said.contains("maximum cpu usage per Container is 800m, but limit is 1500m"), "{said}");
    let mut replicas: Value = serde_json::from_str(&deployment("many", 3))?;
    replicas["metadata"]["namespace"] = json!("lab");
    desktop.apply(&replicas.to_string())?;
    poll(SOON, "two of three, and a word about the third", || {
        let pods = desktop.list("pods", "-n lab")?;
        let events = desktop.list("events", "-n lab")?;
        let told = events.iter().any(|event| {
            event["reason"] == "FailedCreate"
                && event["message"]
                    .as_str()
                    .is_some_and(|text| text.contains("exceeded quota: q, requested: pods=1"))
        });
        ensure!(pods.len() == 2 && told, "{}, told: {told}", summary(&pods));
        Ok(Some(()))
    })?;
    let said = refused(&pod("third", "100m"))?;
    ensure!(said.contains("exceeded quota: q, requested: pods=1, used: pods=2, limited: pods=2"), "{said}");
    let used = desktop.get("quota -n lab", "q")?["status"]["used"].clone();
    ensure!(used == json!({"pods": "2", "requests.cpu": "100m"}), "{used}");
    desktop.kubectl("delete namespace lab --wait=false")?.ok()?;
    Ok(())
}

fn a_drain_waits_for_the_budget(desktop: &Desktop) -> Result<()> {
    desktop.apply(&deployment("web", 2))?;
    let pods = desktop.replicas("web", 2, SOON)?;
    desktop.kubectl("create pdb web --selector=app=web --min-available=2")?.ok()?;
    poll(SOON, "the budget to be counted", || {
        let budget = desktop.get("pdb", "web")?;
        let (status, generation) = (&budget["status"], &budget["metadata"]["generation"]);
        ensure!(status["observedGeneration"] == *generation && status["currentHealthy"] == 2, "{status}");
        Ok(Some(()))
    })?;
    let node = node_of(&pods[0]);
    let drain = |seconds: u32| {
        desktop.kubectl(&format!("drain {node} --ignore-daemonsets --force --timeout={seconds}s"))
    };
    let stopped = drain(3)?;
    let word = "Cannot evict pod as it would violate the pod's disruption budget.";
    ensure!(!stopped.success() && stopped.stderr.contains(word), "{stopped}");
    desktop.replicas("web", 2, SOON)?;
    desktop.kubectl(r#"patch pdb web --type=merge -p '{"spec":{"minAvailable":1}}'"#)?.ok()?;
    drain(60)?.ok()?;
    let pods = desktop.replicas("web", 2, SOON)?;
    ensure!(pods.iter().all(|pod| node_of(pod) != node), "{}", summary(&pods));
    desktop.kubectl(&format!("uncordon {node}"))?.ok()?;
    Ok(())
}

fn jobs_come_by_the_clock(desktop: &Desktop) -> Result<()> {
    let said = desktop.kubectl("create job by-hand --from=cronjob/tick")?.ok()?;
    ensure!(said.contains("job.batch/by-hand created"), "{said}");
    poll(NEXT_MINUTE, "a Job by the clock and one by hand to be complete", || {
        let jobs = desktop.list("jobs", "")?;
        let done = |job: &&Value| job["status"]["succeeded"] == 1;
        let names: Vec<&str> =
            jobs.iter().filter(done).filter_map(|job| job["metadata"]["name"].as_str()).collect();
        ensure!(
            names.contains(&"by-hand") && names.iter().any(|name| name.starts_with("tick-")),
            "{names:?}"
        );
        let last = desktop.get("cronjob", "tick")?["status"]["lastScheduleTime"].clone();
        ensure!(last.is_string(), "no time is noted");
        Ok(Some(()))
    })
}
