//! What desktops and pods take, as `kubectl top` shows it from any desktop.

use anyhow::{Context, Result, ensure};
use gaggle_tests::bench::{Desktop, on_bench, poll};
use gaggle_tests::kube::{RECOVERS, SOON};
use serde_json::json;

/// The columns of a line that `kubectl top` prints about `name`: its name, thousandths of a processor, MiB.
fn taken(desktop: &Desktop, what: &str, name: &str) -> Result<(u64, u64)> {
    let printed = desktop.kubectl(&format!("top {what}"))?.ok()?;
    let line = printed.lines().find(|line| line.split_whitespace().any(|word| word == name));
    let line = line.with_context(|| format!("{name} is missing: {printed}"))?;
    let number = |unit: &str| {
        let found = line.split_whitespace().find_map(|word| word.strip_suffix(unit)?.parse().ok());
        found.with_context(|| format!("no number of {unit}: {line}"))
    };
    Ok((number("m")?, number("Mi")?))
}

#[test]
fn what_pods_and_desktops_take_is_seen_from_any_desktop() {
    on_bench(2, |bench| {
        bench.up()?;
        let (one, two) = (bench.desktop(1), bench.desktop(2));
        let busy = "dd if=/dev/zero of=/dev/shm/held bs=1M count=40; while :; do :; done";
        let pod = json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "busy", "labels": {"app": "busy"}},
            "spec": {"nodeName": "d2", "terminationGracePeriodSeconds": 0, "containers": [
                {"name": "loop", "image": "busybox", "imagePullPolicy": "IfNotPresent", "command": ["sh", "-c", busy],
                 "resources": {"limits": {"cpu": "200m"}}},
                {"name": "rest", "image": "busybox", "imagePullPolicy": "IfNotPresent", "command": ["sleep", "100000"]}]}});
        one.apply(&pod.to_string())?;
        one.pod_in("busy", &["Running"])?;
        for desktop in [one, two] {
            poll(SOON, "a busy container to be seen as such", || {
                let (millis, mebibytes) = taken(desktop, "pods --containers", "loop")?;
                // A fifth of a processor by its limit, on a machine that may be busy with others.
                ensure!((50..=300).contains(&millis), "{millis} thousandths of a processor");
                ensure!((40..=60).contains(&mebibytes), "{mebibytes} MiB");
                let (millis, _) = taken(desktop, "pods --containers", "rest")?;
                ensure!(millis < 50, "one that sleeps takes {millis}");
                let (millis, _) = taken(desktop, "pods -l app=busy", "busy")?;
                ensure!(millis >= 50, "the pod takes {millis}");
                Ok(Some(()))
            })?;
            for node in ["d1", "d2"] {
                let (_, mebibytes) = taken(desktop, "nodes", node)?;
                ensure!(mebibytes > 40, "{node} takes {mebibytes} MiB");
            }
        }
        two.crash()?;
        poll(RECOVERS, "a desktop that is gone to be left out", || {
            let printed = one.kubectl("top nodes")?.ok()?;
            ensure!(printed.contains("d1"), "{printed}");
            let of_gone = printed.lines().find(|line| line.contains("d2"));
            ensure!(of_gone.is_none_or(|line| line.contains("unknown")), "{printed}");
            Ok(Some(()))
        })
    });
}
