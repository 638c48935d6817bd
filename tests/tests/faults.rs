//! What goes on when desktops, daemons and engines die.

use anyhow::{Context, Result, ensure};
use gaggle_tests::bench::{Bench, BenchConfig, Desktop, Flock, Image, Up, on_bench, poll, with_bench};
use gaggle_tests::kube::{RECOVERS, SOON, deployment, node_of, pod_on, summary};
use std::collections::BTreeMap;
use std::time::Duration;

/// A desktop that is not the leader, and the leader, by their numbers.
fn follower_and_leader(bench: &Bench, flock: &Flock) -> Result<(usize, usize)> {
    let (leader, others) = bench.leader_and_others(flock)?;
    Ok((others.first().context("no follower")?.index(), leader.index()))
}

/// Kills one of three desktops under six replicas; they must run again on the two others.
fn replicas_are_replaced(
    victim: impl FnOnce(usize, usize) -> usize,
    kill: impl FnOnce(&Desktop) -> Result<()>,
) {
    on_bench(3, |bench| {
        let flock = bench.up()?;
        let (follower, leader) = follower_and_leader(bench, &flock)?;
        let victim = victim(follower, leader);
        let survivor = bench.desktop(if victim == 1 { 2 } else { 1 });
        survivor.apply(&deployment("web", 6))?;
        let before = survivor.replicas("web", 6, SOON)?;
        let name = bench.desktop(victim).name();
        ensure!(
            before.iter().any(|pod| node_of(pod) == name),
            "nothing to lose on {name}: {}",
            summary(&before)
        );

        kill(bench.desktop(victim))?;
        bench.wait_until(RECOVERS, "six replicas on the two that are left", || {
            let pods = survivor.list("pods", "-l app=web")?;
            let ready =
                pods.iter().filter(|pod| gaggle_tests::kube::is_ready(pod) && node_of(pod) != name).count();
            ensure!(ready == 6, "{ready}: {}", summary(&pods));
            Ok(Some(()))
        })?;
        let nodes = survivor.kubectl("get nodes --no-headers")?.ok()?;
        ensure!(nodes.lines().any(|line| line.starts_with(&name) && line.contains("NotReady")), "{nodes}");

        // It comes back, and holds nothing that is not its own any more.
        bench.desktop(victim).on()?;
        bench.desktop(victim).restart_daemon()?;
        bench.assembled(&[1, 2, 3])?;
        survivor.replicas("web", 6, SOON)?;
        bench.wait_until(SOON, "containers and pods to agree everywhere", || {
            let pods = survivor.list("pods", "-l app=web")?;
            for desktop in bench.desktops() {
                let bound = pods.iter().filter(|pod| node_of(pod) == desktop.name()).count();
                let sleeping = desktop.docker("ps --no-trunc --format '{{.Command}}'")?.ok()?;
                let running = sleeping.lines().filter(|line| line.contains("sleep 100000")).count();
                ensure!(running == bound, "{} runs {running} of {bound}", desktop.name());
            }
            Ok(Some(()))
        })
    });
}

#[test]
fn a_worker_that_loses_its_power_is_replaced() {
    replicas_are_replaced(|follower, _| follower, Desktop::power_cut);
}

#[test]
fn a_leader_that_loses_its_power_is_replaced() {
    replicas_are_replaced(|_, leader| leader, Desktop::power_cut);
}

#[test]
fn a_leader_that_crashes_is_replaced() {
    replicas_are_replaced(|_, leader| leader, Desktop::crash);
}

/// Kills the leader while writes go through another desktop, one after the other: each is answered, none is lost or made
/// twice, and nobody is told that nobody knows.
fn writes_are_answered_while_the_leader_dies(kill: impl FnOnce(&Desktop) -> Result<()>) {
    const WRITES: usize = 40;
    on_bench(3, |bench| {
        let flock = bench.up()?;
        let (follower, leader) = follower_and_leader(bench, &flock)?;
        let survivor = bench.desktop(follower);
        survivor.make_kubeconfig()?;
        let kubectl = "kubectl create configmap written-$i --from-literal=n=$i";
        let writer = survivor.start(&format!("for i in $(seq {WRITES}); do {kubectl} || exit 1; done"))?;
        writer.wait_for("configmap/written-5 created", SOON)?;
        kill(bench.desktop(leader))?;
        let outcome = writer.wait(RECOVERS)?.context("the writes did not end")?;
        ensure!(outcome.success(), "{outcome}");

        bench.desktop(leader).on()?;
        bench.desktop(leader).restart_daemon()?;
        bench.assembled(&[1, 2, 3])?;
        for desktop in bench.desktops() {
            let names = desktop.kubectl("get configmaps -o name")?.ok()?;
            let written = names.lines().filter(|name| name.starts_with("configmap/written-")).count();
            ensure!(written == WRITES, "{} shows {written} of {WRITES}", desktop.name());
        }
        Ok(())
    });
}

#[test]
fn writes_are_answered_while_the_leader_loses_its_power() {
    writes_are_answered_while_the_leader_dies(Desktop::power_cut);
}

#[test]
fn writes_are_answered_while_the_leader_crashes() {
    writes_are_answered_while_the_leader_dies(Desktop::crash);
}

#[test]
fn a_job_goes_on_without_doing_finished_work_again() {
    on_bench(3, |bench| {
        let flock = bench.up()?;
        let (victim, leader) = follower_and_leader(bench, &flock)?;
        let survivor = bench.desktop(leader);
        let dir = bench.layout().dir.join("indexes");
        std::fs::create_dir_all(&dir)?;
        survivor.apply(&format!(
            r#"
apiVersion: batch/v1
kind: Job
metadata: {{name: long}}
spec:
  completionMode: Indexed
  completions: 18
  parallelism: 6
  backoffLimit: 30
  template:
    spec:
      restartPolicy: Never
      terminationGracePeriodSeconds: 1
      volumes: [{{name: out, hostPath: {{path: "{}", type: Directory}}}}]
      containers:
        - name: main
          image: busybox
          imagePullPolicy: IfNotPresent
          command: [sh, -c, 'sleep 3; echo done >> /out/$JOB_COMPLETION_INDEX']
          volumeMounts: [{{name: out, mountPath: /out}}]
"#,
            dir.display()
        ))?;
        let finished = |job: &serde_json::Value| -> Vec<usize> {
            expand(job["status"]["completedIndexes"].as_str().unwrap_or_default())
        };
        let before = poll(RECOVERS, "some indexes to finish", || {
            let job = survivor.get("job", "long")?;
            Ok(Some(finished(&job)).filter(|indexes| indexes.len() >= 4))
        })?;
        bench.desktop(victim).power_cut()?;
        survivor.kubectl("wait --for=condition=complete job/long --timeout=110s")?.ok()?;
        let job = survivor.get("job", "long")?;
        ensure!(finished(&job) == (0..18).collect::<Vec<_>>(), "{}", job["status"]);
        for index in 0..18 {
            let times = std::fs::read_to_string(dir.join(index.to_string()))?.lines().count();
            ensure!(times >= 1, "index {index} was never done");
            ensure!(
                !before.contains(&index) || times == 1,
                "index {index} was finished, and done {times} times"
            );
        }
        Ok(())
    });
}

/// `0-2,5` as the indexes it stands for.
fn expand(ranges: &str) -> Vec<usize> {
    let bounds = ranges.split(',').filter(|range| !range.is_empty()).filter_map(|range| {
        let (first, last) = range.split_once('-').unwrap_or((range, range));
        Some((first.parse::<usize>().ok()?, last.parse::<usize>().ok()?))
    });
    bounds.flat_map(|(first, last)| first..=last).collect()
}

/// All running containers of a desktop with the moment of their start.
fn containers(desktop: &Desktop) -> Result<BTreeMap<String, String>> {
    let ids = desktop.docker("ps -q --no-trunc")?.ok()?;
    if ids.trim().is_empty() {
        return Ok(BTreeMap::new());
    }
    let ids = ids.split_whitespace().collect::<Vec<_>>().join(" ");
    let lines = desktop.docker(&format!("inspect -f '{{{{.Id}}}} {{{{.State.StartedAt}}}}' {ids}"))?.ok()?;
    Ok(lines
        .lines()
        .filter_map(|line| line.split_once(' '))
        .map(|(id, at)| (id.to_owned(), at.to_owned()))
        .collect())
}

#[test]
fn a_killed_daemon_finds_its_containers_again() {
    on_bench(3, |bench| {
        bench.up()?;
        let (one, two) = (bench.desktop(1), bench.desktop(2));
        one.apply(&deployment("web", 6))?;
        one.replicas("web", 6, SOON)?;
        one.apply(&pod_on("doomed", Some("d2"), "busybox", "sleep 1000"))?;
        one.apply(&pod_on(
            "ends-meanwhile",
            Some("d2"),
            "busybox",
            "while [ ! -e /tmp/go ]; do sleep 0.1; done; exit 9",
        ))?;
        one.pod_in("doomed", &["Running"])?;
        let ending = one.pod_in("ends-meanwhile", &["Running"])?;
        let id = ending["status"]["containerStatuses"][0]["containerID"].as_str().unwrap_or_default();
        let id = id.rsplit('/').next().unwrap_or_default().to_owned();

        let before = containers(two)?;
        two.kill_daemon()?;
        ensure!(containers(two)? == before, "the daemon's death has touched containers");
        // What happens while nobody looks must show afterwards.
        two.docker(&format!("exec {id} touch /tmp/go"))?.ok()?;
        one.kubectl("delete pod doomed --wait=false")?.ok()?;
        two.restart_daemon()?;
        bench.assembled(&[1, 2, 3])?;
        let ended = one.pod_in("ends-meanwhile", &["Failed"])?;
        ensure!(ended["status"]["containerStatuses"][0]["state"]["terminated"]["exitCode"] == 9, "{ended}");
        one.gone("pod", "doomed")?;
        bench.wait_until(SOON, "the deleted pod's containers to be removed", || {
            let after = containers(two)?;
            // Two of `doomed` and two of `ends-meanwhile` may go; the replicas' stay as they are.
            let web: BTreeMap<_, _> = after.iter().filter(|(id, _)| before.contains_key(*id)).collect();
            ensure!(web.len() == after.len(), "something was started anew: {before:?} {after:?}");
            ensure!(after.iter().all(|(id, at)| before.get(id) == Some(at)), "something was restarted");
            let sleeping = two.docker("ps --no-trunc --format '{{.Command}}'")?.ok()?;
            ensure!(!sleeping.contains("sleep 1000\""), "doomed still runs: {sleeping}");
            Ok(Some(()))
        })?;
        let pods = one.replicas("web", 6, SOON)?;
        for pod in pods {
            ensure!(pod["status"]["containerStatuses"][0]["restartCount"] == 0, "{}", pod["status"]);
        }
        Ok(())
    });
}

#[test]
fn acknowledged_writes_survive_the_death_of_all_daemons() {
    on_bench(3, |bench| {
        bench.up()?;
        let mut written = Vec::new();
        for round in 0..8 {
            for desktop in bench.desktops() {
                let name = format!("kept-{}-{round}", desktop.name());
                let made = desktop
                    .kubectl(&format!("create configmap {name} --from-literal=round={round} -o json"))?
                    .json()?;
                written.push((
                    name,
                    made["metadata"]["uid"].clone(),
                    made["metadata"]["resourceVersion"].clone(),
                ));
            }
        }
        // No moment in between: what was answered must be on disks already.
        bench.each(Desktop::kill_daemon)?;
        bench.each(Desktop::restart_daemon)?;
        bench.assembled(&[1, 2, 3])?;
        for desktop in bench.desktops() {
            for (name, uid, version) in &written {
                let metadata = desktop.get("configmap", name)?["metadata"].clone();
                ensure!(metadata["uid"] == *uid, "{name} has another uid on {}", desktop.name());
                ensure!(
                    metadata["resourceVersion"] == *version,
                    "{name} has another revision on {}",
                    desktop.name()
                );
            }
        }
        Ok(())
    });
}

#[test]
fn a_minority_reads_keeps_writes_and_schedules_nothing() {
    on_bench(3, |bench| {
        bench.up()?;
        let three = bench.desktop(3);
        three.apply(&deployment("web", 3))?;
        three.replicas("web", 3, SOON)?;
        bench.cut(&[&[1, 2], &[3]])?;
        bench.wait_until(SOON, "the minority to notice", || {
            let flock = three.status()?;
            ensure!(!flock.quorum, "{flock:?}");
            Ok(Some(()))
        })?;
        ensure!(three.kubectl("get pods -o name")?.ok()?.lines().count() >= 3, "reads go on");
        let kept = three.kubectl("create configmap kept --from-literal=a=b")?;
        ensure!(kept.success() && kept.stderr.contains("Warning:"), "kept, and said to be: {kept}");
        bench.desktop(1).kubectl("create configmap ordered --from-literal=a=b")?.ok()?;
        bench.heal()?;
        bench.assembled(&[1, 2, 3])?;
        for desktop in bench.desktops() {
            bench.wait_until(SOON, "both writes to be everywhere", || {
                let names = desktop.kubectl("get configmap kept ordered -o name")?.ok()?;
                Ok((names.lines().count() == 2).then_some(()))
            })?;
        }
        three.replicas("web", 3, RECOVERS)?;
        Ok(())
    });
}

#[test]
fn containers_of_others_are_never_touched() {
    on_bench(2, |bench| {
        let mut foreign = Vec::new();
        for desktop in bench.desktops() {
            desktop.docker("run -d --name somebodys busybox sleep 5000")?.ok()?;
            // Names are anybody's to choose.
            desktop.docker("run -d --name k8s_POD_x_default_0 busybox sleep 5000")?.ok()?;
            desktop.docker("run -d --name gaggle-x --label app=web busybox sleep 5000")?.ok()?;
            desktop.docker("create --name not-started busybox true")?.ok()?;
            foreign.push(containers(desktop)?);
        }
        bench.up()?;
        let one = bench.desktop(1);
        one.apply(&deployment("web", 4))?;
        one.replicas("web", 4, SOON)?;
        bench.desktop(2).kill_daemon()?;
        bench.desktop(2).restart_daemon()?;
        bench.assembled(&[1, 2])?;
        one.kubectl("delete deployment web")?.ok()?;
        one.gone("pods", "")?;
        bench.desktop(2).down()?;
        bench.desktop(1).down()?;
        for (desktop, before) in bench.desktops().iter().zip(&foreign) {
            ensure!(containers(desktop)? == *before, "{} lost or restarted a container", desktop.name());
            desktop.docker("inspect not-started")?.ok()?;
        }
        Ok(())
    });
}

#[test]
fn an_engine_may_be_absent_at_the_start() {
    let config = BenchConfig { switched_on: false, ..BenchConfig::desktops(2) };
    with_bench(config, |bench| {
        let image = bench.image(&Image::busybox())?;
        let (one, two) = (bench.desktop(1), bench.desktop(2));
        one.on()?;
        one.load(&image)?;
        two.on_without_engine()?;
        bench.each(|desktop| desktop.start_daemon(&Up::default()))?;
        bench.wait_until(SOON, "the second one to be there, but not ready", || {
            let flock = one.status()?;
            let node = flock.nodes.iter().find(|node| node.name == "d2").context("it is not there")?;
            ensure!(!node.ready, "ready without an engine");
            Ok(Some(()))
        })?;
        let log = two.daemon_log();
        ensure!(
            log.contains("docker.sock") || log.to_lowercase().contains("docker"),
            "it must say what it lacks: {log}"
        );
        two.start_engine()?;
        two.load(&image)?;
        bench.assembled(&[1, 2])?;
        one.apply(&pod_on("late", Some("d2"), "busybox", "echo ran"))?;
        one.pod_in("late", &["Succeeded"])?;
        Ok(())
    });
}

#[test]
fn an_engine_may_die_and_come_back() {
    on_bench(2, |bench| {
        bench.up()?;
        let (one, two) = (bench.desktop(1), bench.desktop(2));
        one.apply(&deployment("web", 4))?;
        one.replicas("web", 4, SOON)?;
        let before = containers(two)?;
        two.kill_engine()?;
        bench.wait_until(SOON, "the desktop without an engine to be said not ready", || {
            let flock = one.status()?;
            Ok(flock.nodes.iter().any(|node| node.name == "d2" && !node.ready).then_some(()))
        })?;
        two.start_engine()?;
        bench.assembled(&[1, 2])?;
        one.replicas("web", 4, SOON)?;
        ensure!(containers(two)? == before, "a short absence of the engine has cost containers");
        Ok(())
    });
}

#[test]
fn a_suspended_desktop_comes_back() {
    on_bench(3, |bench| {
        let flock = bench.up()?;
        let (sleeper, leader) = follower_and_leader(bench, &flock)?;
        let awake = bench.desktop(leader);
        awake.apply(&deployment("web", 3))?;
        awake.replicas("web", 3, SOON)?;
        bench.desktop(sleeper).suspend()?;
        let name = bench.desktop(sleeper).name();
        bench.wait_until(RECOVERS, "the sleeper to be missed", || {
            let flock = awake.status()?;
            Ok(flock.nodes.iter().any(|node| node.name == name && !node.ready).then_some(()))
        })?;
        bench.desktop(sleeper).resume()?;
        bench.assembled(&[1, 2, 3])?;
        awake.replicas("web", 3, RECOVERS)?;
        Ok(())
    });
}

#[test]
fn a_data_directory_of_another_cluster_is_refused() {
    on_bench(2, |bench| {
        let (one, two) = (bench.desktop(1), bench.desktop(2));
        two.start_daemon(&Up::phrase("velvet-thunder-orchid-basalt-nimble-harbor"))?;
        bench.assembled(&[2])?;
        two.kill_daemon()?;
        one.start_daemon(&Up::default())?;
        bench.assembled(&[1])?;
        two.start_daemon(&Up::default())?;
        let code = bench.wait_until(SOON, "the refusal", || Ok(two.daemon().exit_code()))?;
        let log = two.daemon_log();
        ensure!(code != 0 && code < 128 && !log.contains("panicked"), "exit code {code}: {log}");
        ensure!(
            log.contains(&two.data_dir().display().to_string()),
            "the error must name the directory: {log}"
        );
        // It changed nothing: with its own phrase it is what it was.
        two.restart_daemon()?;
        bench.assembled(&[2])?;
        Ok(())
    });
}

#[test]
fn a_corrupt_data_directory_gives_an_error_and_no_panic() {
    on_bench(1, |bench| {
        let desktop = bench.desktop(1);
        bench.up()?;
        desktop.kubectl("create configmap some --from-literal=a=b")?.ok()?;
        desktop.stop_daemon()?;
        let data = desktop.data_dir();
        let saved = desktop.dir().join("saved");
        desktop.exec(&format!("cp -a '{}' '{}'", data.display(), saved.display()))?.ok()?;
        let files = desktop.exec(&format!("cd '{}' && find . -type f -size +0", saved.display()))?.ok()?;
        ensure!(!files.trim().is_empty(), "the daemon has written nothing");
        for file in files.lines() {
            for damage in ["dd if=/dev/urandom bs=1 count=512 conv=notrunc of=", "truncate -s 7 "] {
                let (data, saved) = (data.display(), saved.display());
                desktop
                    .exec(&format!("rm -rf '{data}' && cp -a '{saved}' '{data}' && {damage}'{data}/{file}'"))?
                    .ok()?;
                let logged = desktop.daemon_log().len();
                desktop.restart_daemon()?;
                // Either it can do without that file, or it says which one it cannot do without.
                let ended = bench.wait_until(
                    SOON,
                    &format!("a start with a damaged {file} to succeed or end"),
                    || match desktop.daemon().exit_code() {
                        Some(code) => Ok(Some(Some(code))),
                        None => Ok(desktop.status()?.quorum.then_some(None)),
                    },
                )?;
                let said = desktop.daemon_log().split_off(logged);
                ensure!(!said.contains("panicked"), "a damaged {file} makes it panic: {said}");
                match ended {
                    Some(code) => {
                        ensure!(code != 0 && code < 128, "exit code {code} for a damaged {file}: {said}");
                        ensure!(said.contains(&data.to_string()), "the error must name {file}: {said}");
                    }
                    None => desktop.kill_daemon()?,
                }
            }
        }
        Ok(())
    });
}

#[test]
fn a_daemon_leaves_when_it_is_asked_to() {
    on_bench(3, |bench| {
        bench.up()?;
        let (one, three) = (bench.desktop(1), bench.desktop(3));
        one.apply(&deployment("web", 3))?;
        one.replicas("web", 3, SOON)?;
        let began = std::time::Instant::now();
        three.stop_daemon()?;
        ensure!(three.daemon().exit_code() == Some(0), "exit code {:?}", three.daemon().exit_code());
        ensure!(began.elapsed() < Duration::from_secs(60), "leaving took {:?}", began.elapsed());
        bench.assembled(&[1, 2])?;
        let pods = one.replicas("web", 3, RECOVERS)?;
        ensure!(pods.iter().all(|pod| node_of(pod) != "d3"), "{}", summary(&pods));
        ensure!(three.docker("ps -q")?.ok()?.trim().is_empty(), "who leaves takes its pods' containers away");
        Ok(())
    });
}
