//! What becomes of pods when desktops go silent and come back: what was moved ends, what stays is not touched, and a
//! pod that has a name of its own never runs twice.

use anyhow::{Context, Result, ensure};
use gaggle_tests::bench::{Bench, Desktop, on_bench};
use gaggle_tests::kube::{RECOVERS, SOON, is_ready, node_of, summary};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// A directory that every desktop of the bench sees under the same path.
fn shared(bench: &Bench, name: &str) -> Result<PathBuf> {
    let dir = bench.layout().dir.join(name);
    std::fs::create_dir_all(&dir)?;
    Ok(dir)
}

/// A StatefulSet whose pods say, five times a second, which container they are and what the machine's clock shows.
fn stateful_set(name: &str, replicas: usize, out: &Path) -> String {
    format!(
        r#"
apiVersion: apps/v1
kind: StatefulSet
metadata: {{name: {name}}}
spec:
  serviceName: {name}
  replicas: {replicas}
  podManagementPolicy: Parallel
  selector: {{matchLabels: {{app: {name}}}}}
  template:
    metadata: {{labels: {{app: {name}}}}}
    spec:
      terminationGracePeriodSeconds: 1
      affinity:
        podAntiAffinity:
          preferredDuringSchedulingIgnoredDuringExecution:
          - weight: 100
            podAffinityTerm: {{labelSelector: {{matchLabels: {{app: {name}}}}}, topologyKey: kubernetes.io/hostname}}
      volumes: [{{name: out, hostPath: {{path: "{}", type: Directory}}}}]
      containers:
      - name: main
        image: busybox
        imagePullPolicy: IfNotPresent
        command:
        - sh
        - -c
        - |
          self=$(cat /proc/sys/kernel/random/uuid)
          while true; do echo "$self $(cut -d' ' -f1 /proc/uptime)" >> /out/$(hostname); sleep 0.2; done
        volumeMounts: [{{name: out, mountPath: /out}}]
"#,
        out.display()
    )
}

/// By container, when it first and last said that it runs.
fn lives(file: &Path) -> Result<Vec<(String, f64, f64)>> {
    let mut lives: BTreeMap<String, (f64, f64)> = BTreeMap::new();
    for line in std::fs::read_to_string(file).with_context(|| file.display().to_string())?.lines() {
        let (container, at) = line.split_once(' ').with_context(|| format!("{line:?}"))?;
        let at: f64 = at.parse()?;
        let life = lives.entry(container.to_owned()).or_insert((at, at));
        *life = (life.0.min(at), life.1.max(at));
    }
    let mut lives: Vec<_> = lives.into_iter().map(|(container, (from, to))| (container, from, to)).collect();
    lives.sort_by(|a, b| a.1.total_cmp(&b.1));
    Ok(lives)
}

/// No container of an identity began before the one before it had ended. Returns how many there were in all.
fn never_twice(out: &Path) -> Result<usize> {
    let mut count = 0;
    for entry in std::fs::read_dir(out)? {
        let file = entry?.path();
        let lives = lives(&file)?;
        for pair in lives.windows(2) {
            ensure!(
                pair[0].2 < pair[1].1,
                "{} ran twice: one until {}, the next from {}",
                file.display(),
                pair[0].2,
                pair[1].1
            );
        }
        count += lives.len();
    }
    Ok(count)
}

/// Waits until an identity is ready on another desktop than this one.
fn moved(bench: &Bench, asked: &Desktop, pod: &str, from: &str) -> Result<()> {
    bench.wait_until(RECOVERS, &format!("{pod} to be ready on another desktop than {from}"), || {
        let found = asked.get("pod", pod)?;
        ensure!(is_ready(&found) && node_of(&found) != from, "{}", summary(&[found]));
        Ok(Some(()))
    })
}

fn on_desktop(pods: &[serde_json::Value], desktop: &str) -> Result<String> {
    let pod = pods.iter().find(|pod| node_of(pod) == desktop);
    let pod = pod.with_context(|| format!("no pod on {desktop}: {}", summary(pods)))?;
    Ok(pod["metadata"]["name"].as_str().unwrap_or_default().to_owned())
}

#[test]
fn an_identity_never_runs_on_both_sides_of_a_cut() {
    on_bench(3, |bench| {
        bench.up()?;
        let one = bench.desktop(1);
        let out = shared(bench, "identities")?;
        one.apply(&stateful_set("db", 3, &out))?;
        let pods = one.replicas("db", 3, SOON)?;
        let alone = on_desktop(&pods, "d3")?;
        bench.cut(&[&[1, 2], &[3]])?;
        bench.wait_until(SOON, "it to be said why the pod waits", || {
            let said = one.kubectl(&format!("describe pod {alone}"))?.ok()?;
            ensure!(said.contains("IdentityHeld") && said.contains("may still run it"), "{said}");
            Ok(Some(()))
        })?;
        moved(bench, one, &alone, "d3")?;
        never_twice(&out)?;
        bench.heal()?;
        bench.assembled(&[1, 2, 3])?;
        one.replicas("db", 3, SOON)?;
        ensure!(never_twice(&out)? == 4, "only the one that was cut off was made again");
        Ok(())
    });
}

#[test]
fn a_desktop_that_slept_stops_its_identity_before_anything_else() {
    on_bench(3, |bench| {
        let flock = bench.up()?;
        let (awake, others) = bench.leader_and_others(&flock)?;
        let sleeper = others[0];
        let out = shared(bench, "identities")?;
        awake.apply(&stateful_set("db", 3, &out))?;
        let pods = awake.replicas("db", 3, SOON)?;
        let asleep = on_desktop(&pods, &sleeper.name())?;
        sleeper.suspend()?;
        moved(bench, awake, &asleep, &sleeper.name())?;
        let woken: f64 =
            std::fs::read_to_string("/proc/uptime")?.split(' ').next().context("no uptime")?.parse()?;
        sleeper.resume()?;
        bench.assembled(&[1, 2, 3])?;
        awake.replicas("db", 3, SOON)?;
        let lives = lives(&out.join(&asleep))?;
        ensure!(lives.len() == 2, "{lives:?}");
        // Whoever wakes up runs on until it has been told: no longer than it takes to look at a clock and to kill.
        ensure!(lives[0].2 - woken < 3.0, "it ran on for {} s", lives[0].2 - woken);
        Ok(())
    });
}

#[test]
fn a_desktop_that_was_cut_off_keeps_what_is_still_its_own_and_ends_the_rest_gently() {
    on_bench(3, |bench| {
        bench.up()?;
        let (one, three) = (bench.desktop(1), bench.desktop(3));
        let out = shared(bench, "ends")?;
        let gentle = format!(
            r#"
        volumes: [{{name: out, hostPath: {{path: "{}", type: Directory}}}}]
        terminationGracePeriodSeconds: 20
        containers:
        - name: main
          image: busybox
          imagePullPolicy: IfNotPresent
          command: [sh, -c, 'trap "echo bye >> /out/$(hostname); exit 0" TERM; while true; do sleep 0.1; done']
          volumeMounts: [{{name: out, mountPath: /out}}]
"#,
            out.display()
        );
        one.apply(&format!(
            r#"
apiVersion: apps/v1
kind: Deployment
metadata: {{name: web}}
spec:
  replicas: 6
  selector: {{matchLabels: {{app: web}}}}
  template:
    metadata: {{labels: {{app: web}}}}
    spec:{}"#,
            gentle.replace("\n        ", "\n      ")
        ))?;
        one.apply(&format!(
            r#"
apiVersion: v1
kind: Pod
metadata: {{name: patient, labels: {{app: patient}}}}
spec:
  nodeSelector: {{kubernetes.io/hostname: d3}}
  tolerations: [{{key: node.kubernetes.io/unreachable, operator: Exists, effect: NoExecute}}]{}"#,
            gentle.replace("\n        ", "\n  ")
        ))?;
        let before = one.replicas("web", 6, SOON)?;
        one.pod_in("patient", &["Running"])?;
        let lost: Vec<String> = before
            .iter()
            .filter(|pod| node_of(pod) == "d3")
            .map(|pod| pod["metadata"]["name"].as_str().unwrap_or_default().to_owned())
            .collect();
        ensure!(!lost.is_empty(), "nothing to lose: {}", summary(&before));
        let inspect = |desktop: &Desktop| -> Result<String> {
            let id = desktop.docker("ps -q --no-trunc --filter name=gaggle_main_patient")?.ok()?;
            desktop.docker(&format!("inspect -f '{{{{.Id}}}} {{{{.State.StartedAt}}}}' {}", id.trim()))?.ok()
        };
        let patient = inspect(three)?;

        bench.cut(&[&[1, 2], &[3]])?;
        bench.wait_until(RECOVERS, "six replicas on the two that are left", || {
            let pods = one.list("pods", "-l app=web")?;
            let ready = pods.iter().filter(|pod| is_ready(pod) && node_of(pod) != "d3").count();
            ensure!(ready == 6, "{ready}: {}", summary(&pods));
            Ok(Some(()))
        })?;
        ensure!(inspect(three)? == patient, "what was cut off goes on");
        bench.heal()?;
        bench.assembled(&[1, 2, 3])?;
        bench.wait_until(SOON, "what was moved to end on the desktop that came back", || {
            let left = three.docker("ps -q --filter name=gaggle_main_web")?.ok()?;
            let pods = one.list("pods", "-l app=web")?;
            let bound = pods.iter().filter(|pod| node_of(pod) == "d3").count();
            ensure!(left.lines().count() == bound, "{left}");
            Ok(Some(()))
        })?;
        for pod in &lost {
            ensure!(out.join(pod).exists(), "{pod} was not asked to end");
        }
        ensure!(inspect(three)? == patient, "what stayed was touched");
        let after = one.get("pod", "patient")?;
        ensure!(after["status"]["containerStatuses"][0]["restartCount"] == 0, "{}", after["status"]);
        one.replicas("web", 6, SOON)?;
        Ok(())
    });
}

#[test]
fn a_power_cut_costs_an_identity_no_more_than_the_hold() {
    on_bench(3, |bench| {
        let flock = bench.up()?;
        let (asked, others) = bench.leader_and_others(&flock)?;
        let victim = others[0];
        let out = shared(bench, "identities")?;
        asked.apply(&stateful_set("db", 3, &out))?;
        let pods = asked.replicas("db", 3, SOON)?;
        let lost = on_desktop(&pods, &victim.name())?;
        victim.power_cut()?;
        let began = std::time::Instant::now();
        moved(bench, asked, &lost, &victim.name())?;
        let took = began.elapsed();
        ensure!(
            took > Duration::from_secs(12),
            "it was made again after {took:?}: nobody knew that it had stopped"
        );
        // When it comes back, its disk still says that the pod is its own.
        victim.on()?;
        victim.restart_daemon()?;
        bench.assembled(&[1, 2, 3])?;
        asked.replicas("db", 3, SOON)?;
        ensure!(never_twice(&out)? == 4, "nothing was started by an old memory");
        Ok(())
    });
}

/// The daemon of a desktop stops doing its work, alone: its engine lives, and its containers go on by themselves.
fn never_twice_although(fails: fn(&Desktop) -> Result<()>, comes_back: fn(&Desktop) -> Result<()>) {
    on_bench(3, |bench| {
        let flock = bench.up()?;
        let (asked, others) = bench.leader_and_others(&flock)?;
        let victim = others[0];
        let out = shared(bench, "identities")?;
        asked.apply(&stateful_set("db", 3, &out))?;
        let pods = asked.replicas("db", 3, SOON)?;
        let lost = on_desktop(&pods, &victim.name())?;
        fails(victim)?;
        moved(bench, asked, &lost, &victim.name())?;
        never_twice(&out)?;
        let log = victim.daemon_log();
        ensure!(log.contains("the guard kills") && log.contains(&lost), "its guard did not do it");
        comes_back(victim)?;
        bench.assembled(&[1, 2, 3])?;
        asked.replicas("db", 3, SOON)?;
        ensure!(never_twice(&out)? == 4, "only the one whose daemon failed was made again");
        Ok(())
    });
}

#[test]
fn an_identity_whose_daemon_is_killed_under_a_living_engine_never_runs_twice() {
    never_twice_although(Desktop::kill_daemon, Desktop::restart_daemon);
}

#[test]
fn an_identity_whose_daemon_is_stuck_under_a_living_engine_never_runs_twice() {
    never_twice_although(
        |desktop| desktop.daemon().signal(Signal::SIGSTOP),
        |desktop| desktop.daemon().signal(Signal::SIGCONT),
    );
}

/// The guards on a desktop, by the machine's ids.
fn guards(desktop: &Desktop) -> Vec<u32> {
    let is_guard = |pid: &u32| {
        let line = std::fs::read_to_string(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        let mut words = line.split('\0');
        words.next().is_some_and(|program| program.ends_with("gaggle")) && words.next() == Some("guard")
    };
    desktop.processes().into_iter().filter(is_guard).collect()
}

#[test]
fn a_daemon_that_is_soon_back_keeps_its_identity_and_has_one_guard() {
    on_bench(3, |bench| {
        let flock = bench.up()?;
        let (asked, others) = bench.leader_and_others(&flock)?;
        let victim = others[0];
        let out = shared(bench, "identities")?;
        asked.apply(&stateful_set("db", 3, &out))?;
        let pods = asked.replicas("db", 3, SOON)?;
        let kept = on_desktop(&pods, &victim.name())?;
        let one_guard = |why: &str| {
            bench.wait_until(SOON, why, || {
                let guards = guards(victim);
                ensure!(guards.len() == 1, "{guards:?}");
                Ok(Some(guards[0]))
            })
        };
        let first = one_guard("a guard beside the daemon")?;
        victim.kill_daemon()?;
        victim.restart_daemon()?;
        let second = one_guard("the dead daemon's guard to stand down")?;
        ensure!(first != second, "the new daemon has none of its own");
        // One that is killed by itself is started again.
        kill(Pid::from_raw(i32::try_from(second)?), Signal::SIGKILL)?;
        let third = one_guard("another guard in place of the one that was killed")?;
        ensure!(second != third, "it is still there");
        bench.assembled(&[1, 2, 3])?;
        // For longer than the leader waits before it frees the identity of a silent desktop.
        let now = || lives(&out.join(&kept)).map(|lives| lives.iter().map(|life| life.2).fold(0.0, f64::max));
        let until = now()? + 15.0;
        bench.wait_until(SOON, "the identity to run on", || Ok((now()? > until).then_some(())))?;
        ensure!(never_twice(&out)? == 3, "a container was started anew: {:?}", lives(&out.join(&kept))?);
        victim.down()?;
        bench.wait_until(SOON, "the guard to end with its daemon", || {
            Ok(guards(victim).is_empty().then_some(()))
        })
    });
}
