//! Pods, Deployments and Jobs, driven with kubectl from any desktop.

use anyhow::{Context, Result, ensure};
use gaggle_tests::bench::{Bench, on_bench, poll};
use gaggle_tests::kube::{RECOVERS, SOON, deployment, node_of, pod, pod_on};
use std::time::Duration;

/// A flock of three, all of them ready.
fn on_flock(test: impl FnOnce(&Bench) -> Result<()>) {
    on_bench(3, |bench| {
        bench.up()?;
        test(bench)
    });
}

#[test]
fn every_desktop_serves_the_same_pods_and_their_logs() {
    on_flock(|bench| {
        for (index, desktop) in bench.desktops().iter().enumerate() {
            // Written here, placed on the next one, read on all.
            let target = bench.desktop((index + 1) % 3 + 1);
            let name = format!("from-{}", desktop.name());
            let line = format!("echo hello from $(hostname); echo to-stderr >&2; exit {index}");
            desktop.apply(&pod_on(&name, Some(&target.name()), "busybox", &line))?;
            for reader in bench.desktops() {
                let phase = if index == 0 { "Succeeded" } else { "Failed" };
                let seen = reader.pod_in(&name, &[phase])?;
                ensure!(node_of(&seen) == target.name(), "placed on {}", node_of(&seen));
                let code = &seen["status"]["containerStatuses"][0]["state"]["terminated"]["exitCode"];
                ensure!(code == index, "exit code {code}");
                let log = reader.kubectl(&format!("logs {name}"))?.ok()?;
                ensure!(
                    log.contains(&format!("hello from {name}")) && log.contains("to-stderr"),
                    "log: {log:?}"
                );
            }
        }
        Ok(())
    });
}

#[test]
fn logs_are_followed_across_desktops() {
    on_flock(|bench| {
        let (one, three) = (bench.desktop(1), bench.desktop(3));
        let line = "echo first; while [ ! -e /tmp/go ]; do sleep 0.1; done; echo last";
        one.apply(&pod_on("talker", Some("d3"), "busybox", line))?;
        let running = one.pod_in("talker", &["Running"])?;
        one.make_kubeconfig()?;
        let follower = one.start("kubectl logs -f talker")?;
        follower.wait_for("first", SOON)?;
        ensure!(!follower.stdout().contains("last"), "it cannot have been said yet");
        let id =
            running["status"]["containerStatuses"][0]["containerID"].as_str().context("no container id")?;
        let id = id.rsplit('/').next().unwrap_or(id);
        three.docker(&format!("exec {id} touch /tmp/go"))?.ok()?;
        follower.wait_for("last", SOON)?;
        // It ends by itself with the container.
        let outcome = follower.wait(SOON)?.context("logs -f goes on after the container's end")?;
        ensure!(outcome.success(), "{outcome}");
        let tail = one.kubectl("logs --tail=1 talker")?.ok()?;
        ensure!(tail.trim() == "last", "tail: {tail:?}");
        Ok(())
    });
}

#[test]
fn the_environment_is_what_the_manifest_says() {
    on_flock(|bench| {
        let desktop = bench.desktop(2);
        desktop
            .kubectl("create configmap settings --from-literal=COLOUR=blue --from-literal=size=XL")?
            .ok()?;
        desktop.apply(
            r#"
apiVersion: v1
kind: Pod
metadata: {name: env, labels: {team: muon}}
spec:
  restartPolicy: Never
  containers:
    - name: main
      image: busybox
      imagePullPolicy: IfNotPresent
      workingDir: /tmp
      command: [sh, -c, 'echo "$PLAIN|$COLOUR|$SIZE|$WHERE|$WHO|$TEAM|$BOTH|$1|$(pwd)"', sh]
      args: [$(PLAIN)-argument]
      envFrom: [{configMapRef: {name: settings}}]
      env:
        - {name: PLAIN, value: "a b"}
        - {name: BOTH, value: "$(PLAIN)$(WHO) $$(PLAIN)"}
        - {name: SIZE, valueFrom: {configMapKeyRef: {name: settings, key: size}}}
        - {name: WHERE, valueFrom: {fieldRef: {fieldPath: spec.nodeName}}}
        - {name: WHO, valueFrom: {fieldRef: {fieldPath: metadata.name}}}
        - {name: TEAM, valueFrom: {fieldRef: {fieldPath: "metadata.labels['team']"}}}
"#,
        )?;
        let pod = desktop.pod_in("env", &["Succeeded"])?;
        let log = desktop.kubectl("logs env")?.ok()?;
        // A reference to a variable that is defined later stays as it is written.
        let wanted = format!("a b|blue|XL|{}|env|muon|a b$(WHO) $(PLAIN)|a b-argument|/tmp", node_of(&pod));
        ensure!(log.trim() == wanted, "\n{log}{wanted}");
        Ok(())
    });
}

#[test]
fn containers_of_a_pod_share_its_network_and_an_empty_dir() {
    on_flock(|bench| {
        let desktop = bench.desktop(1);
        desktop.apply(
            r#"
apiVersion: v1
kind: Pod
metadata: {name: pair}
spec:
  restartPolicy: Never
  volumes: [{name: shared, emptyDir: {}}]
  containers:
    - name: writer
      image: busybox
      imagePullPolicy: IfNotPresent
      command: [sh, -c, 'echo from-writer > /out/file; mkdir /www; echo over-http > /www/x; timeout 60 httpd -f -p 8081 -h /www; exit 0']
      volumeMounts: [{name: shared, mountPath: /out}]
    - name: reader
      image: busybox
      imagePullPolicy: IfNotPresent
      command: [sh, -c, 'until wget -q -O - http://127.0.0.1:8081/x; do sleep 0.2; done; cat /in/file; echo x > /in/y']
      volumeMounts: [{name: shared, mountPath: /in, readOnly: true}]
"#,
        )?;
        poll(SOON, "the reader's words", || {
            let log = desktop.kubectl("logs pair -c reader")?.ok()?;
            ensure!(log.contains("over-http") && log.contains("from-writer"), "log: {log:?}");
            ensure!(log.contains("Read-only"), "the mount is not read-only: {log:?}");
            Ok(Some(()))
        })?;
        desktop.kubectl("delete pod pair --grace-period=1")?.ok()?;
        Ok(())
    });
}

#[test]
fn restart_policies_and_reasons_of_death() {
    on_flock(|bench| {
        let desktop = bench.desktop(3);
        let manifest = |name: &str, policy: &str, line: &str, limit: &str| {
            format!(
                "{{apiVersion: v1, kind: Pod, metadata: {{name: {name}}}, spec: {{restartPolicy: {policy}, containers: \
                 [{{name: main, image: busybox, imagePullPolicy: IfNotPresent, command: [sh, -c, {line:?}], \
                 resources: {{limits: {{memory: {limit}}}}}}}]}}}}"
            )
        };
        desktop.apply(&manifest("always", "Always", "exit 0", "64Mi"))?;
        desktop.apply(&manifest("on-failure", "OnFailure", "exit 3", "64Mi"))?;
        desktop.apply(&manifest("done", "OnFailure", "exit 0", "64Mi"))?;
        desktop.apply(&manifest("greedy", "Never", "x=a; while true; do x=$x$x; done", "16Mi"))?;

        let done = desktop.pod_in("done", &["Succeeded"])?;
        ensure!(done["status"]["containerStatuses"][0]["restartCount"] == 0, "{done}");
        let greedy = desktop.pod_in("greedy", &["Failed"])?;
        let terminated = &greedy["status"]["containerStatuses"][0]["state"]["terminated"];
        ensure!(terminated["reason"] == "OOMKilled" && terminated["exitCode"] == 137, "{terminated}");
        for name in ["always", "on-failure"] {
            poll(SOON, &format!("{name} to be restarted with a pause"), || {
                let pod = desktop.get("pod", name)?;
                let status = &pod["status"]["containerStatuses"][0];
                ensure!(status["restartCount"].as_u64().unwrap_or(0) >= 1, "{status}");
                ensure!(status["state"]["waiting"]["reason"] == "CrashLoopBackOff", "{status}");
                Ok(Some(()))
            })?;
        }
        let last = desktop.get("pod", "on-failure")?;
        let code = &last["status"]["containerStatuses"][0]["lastState"]["terminated"]["exitCode"];
        ensure!(code == 3, "{last}");
        Ok(())
    });
}

#[test]
fn a_deployment_scales_rolls_out_and_back() {
    on_flock(|bench| {
        let (one, two, three) = (bench.desktop(1), bench.desktop(2), bench.desktop(3));
        one.apply(&deployment("web", 3))?;
        one.kubectl("rollout status deployment/web --timeout=60s")?.ok()?;
        let pods = two.replicas("web", 3, SOON)?;
        let mut nodes: Vec<_> = pods.iter().map(node_of).collect();
        nodes.sort();
        ensure!(nodes == ["d1", "d2", "d3"], "replicas are spread over the desktops: {nodes:?}");

        two.kubectl("scale deployment/web --replicas=5")?.ok()?;
        three.replicas("web", 5, SOON)?;
        three.kubectl("scale deployment/web --replicas=2")?.ok()?;
        let before = one.replicas("web", 2, SOON)?;

        two.kubectl("set env deployment/web VERSION=2")?.ok()?;
        three.kubectl("rollout status deployment/web --timeout=90s")?.ok()?;
        let after = one.replicas("web", 2, SOON)?;
        let names = |pods: &[serde_json::Value]| -> Vec<_> {
            pods.iter().map(|pod| pod["metadata"]["name"].to_string()).collect()
        };
        ensure!(names(&before).iter().all(|name| !names(&after).contains(name)), "all were replaced");
        let history = one.kubectl("rollout history deployment/web")?.ok()?;
        ensure!(history.contains('1') && history.contains('2'), "{history}");

        one.kubectl("rollout undo deployment/web")?.ok()?;
        one.kubectl("rollout status deployment/web --timeout=90s")?.ok()?;
        let undone = two.get("deployment", "web")?;
        ensure!(undone["spec"]["template"]["spec"]["containers"][0]["env"].is_null(), "{undone}");

        two.kubectl("rollout restart deployment/web")?.ok()?;
        two.kubectl("rollout status deployment/web --timeout=90s")?.ok()?;
        let restarted = one.replicas("web", 2, SOON)?;
        ensure!(names(&restarted).iter().all(|name| !names(&after).contains(name)), "all were restarted");

        three.kubectl("delete deployment/web")?.ok()?;
        one.gone("replicasets,pods", "-l app=web")?;
        for desktop in bench.desktops() {
            poll(SOON, "the containers to be removed", || {
                let left = desktop.docker("ps -aq")?.ok()?;
                ensure!(left.trim().is_empty(), "{} still has {left}", desktop.name());
                Ok(Some(()))
            })?;
        }
        Ok(())
    });
}

#[test]
fn a_broken_rollout_keeps_the_old_replicas() {
    on_flock(|bench| {
        let desktop = bench.desktop(2);
        desktop.apply(&deployment("web", 3))?;
        desktop.replicas("web", 3, SOON)?;
        desktop.kubectl("set image deployment/web main=nobody-has-this:1")?.ok()?;
        let stuck = desktop.kubectl("rollout status deployment/web --timeout=8s")?;
        ensure!(!stuck.success(), "it cannot have succeeded: {stuck}");
        let deployment = desktop.get("deployment", "web")?;
        ensure!(
            deployment["status"]["availableReplicas"].as_u64().unwrap_or(0) >= 2,
            "{}",
            deployment["status"]
        );
        desktop.kubectl("rollout undo deployment/web")?.ok()?;
        desktop.kubectl("rollout status deployment/web --timeout=90s")?.ok()?;
        desktop.replicas("web", 3, SOON)?;
        Ok(())
    });
}

#[test]
fn jobs_complete_and_fail_as_they_should() {
    on_flock(|bench| {
        let (one, two) = (bench.desktop(1), bench.desktop(2));
        let job = |name: &str, spec: &str, line: &str| {
            format!(
                "{{apiVersion: batch/v1, kind: Job, metadata: {{name: {name}}}, spec: {{{spec}, template: {{spec: \
                 {{restartPolicy: Never, containers: [{{name: main, image: busybox, imagePullPolicy: IfNotPresent, \
                 command: [sh, -c, {line:?}]}}]}}}}}}}}"
            )
        };
        one.apply(&job(
            "squares",
            "completionMode: Indexed, completions: 8, parallelism: 3",
            "echo index $JOB_COMPLETION_INDEX",
        ))?;
        two.kubectl("wait --for=condition=complete job/squares --timeout=90s")?.ok()?;
        let done = two.get("job", "squares")?;
        ensure!(
            done["status"]["succeeded"] == 8 && done["status"]["completedIndexes"] == "0-7",
            "{}",
            done["status"]
        );
        let pods = two.list("pods", "-l job-name=squares")?;
        let mut seen: Vec<String> = Vec::new();
        for pod in &pods {
            let name = pod["metadata"]["name"].as_str().context("a pod without a name")?;
            seen.push(two.kubectl(&format!("logs {name}"))?.ok()?.trim().to_owned());
        }
        seen.sort();
        ensure!(seen == (0..8).map(|index| format!("index {index}")).collect::<Vec<_>>(), "{seen:?}");

        one.apply(&job("failing", "backoffLimit: 1", "exit 7"))?;
        one.kubectl("wait --for=condition=failed job/failing --timeout=90s")?.ok()?;
        let failed = one.get("job", "failing")?;
        ensure!(failed["status"]["failed"] == 2, "{}", failed["status"]);
        ensure!(failed["status"].to_string().contains("BackoffLimitExceeded"), "{}", failed["status"]);

        one.apply(&job("slow", "activeDeadlineSeconds: 3", "sleep 1000"))?;
        one.kubectl("wait --for=condition=failed job/slow --timeout=90s")?.ok()?;
        ensure!(one.get("job", "slow")?["status"].to_string().contains("DeadlineExceeded"), "the reason");

        one.apply(&job("short-lived", "ttlSecondsAfterFinished: 1", "exit 0"))?;
        one.gone("jobs", "short-lived")?;
        two.kubectl("delete job squares failing slow")?.ok()?;
        one.gone("pods", "")
    });
}

#[test]
fn kubectl_shows_labels_waits_and_watches() {
    on_flock(|bench| {
        let (one, two, three) = (bench.desktop(1), bench.desktop(2), bench.desktop(3));
        two.make_kubeconfig()?;
        let watcher = two.start("kubectl get pods -w --no-headers")?;
        three.apply(&pod("watched", "sleep 1000"))?;
        watcher.wait_for("Running", SOON)?;
        one.kubectl("wait --for=condition=Ready pod/watched --timeout=60s")?.ok()?;
        one.kubectl("label pod watched tier=front")?.ok()?;
        let chosen = three.kubectl("get pods -l tier=front -o name")?.ok()?;
        ensure!(chosen.trim() == "pod/watched", "{chosen:?}");
        ensure!(three.kubectl("get pods -l 'tier notin (front)' -o name")?.ok()?.trim().is_empty(), "notin");
        let by_field = two.kubectl("get pods --field-selector status.phase=Running -o name")?.ok()?;
        ensure!(by_field.trim() == "pod/watched", "{by_field:?}");
        let wide = two.kubectl("get pods -o wide")?.ok()?;
        ensure!(wide.contains("NODE") && wide.contains("watched") && wide.contains("1/1"), "{wide}");
        ensure!(two.kubectl("get pod watched -o yaml")?.ok()?.contains("kind: Pod"), "yaml");
        let described = three.kubectl("describe pod watched")?.ok()?;
        for word in ["Scheduled", "Started", "Node:", "Container ID:"] {
            ensure!(described.contains(word), "describe lacks {word}: {described}");
        }
        let node = three.kubectl("describe node d1")?.ok()?;
        ensure!(node.contains("Allocatable") && node.contains("cpu"), "{node}");

        three.kubectl("delete pod watched --grace-period=1")?.ok()?;
        ensure!(!one.kubectl("get pod watched")?.success(), "deleted");
        // What is not there is said in Kubernetes' words, with its exit code.
        let missing = one.kubectl("get pod watched")?;
        ensure!(missing.code == 1 && missing.stderr.contains("pods \"watched\" not found"), "{missing}");
        Ok(())
    });
}

#[test]
fn a_cordoned_desktop_gets_no_pods_and_pending_ones_say_why() {
    on_flock(|bench| {
        let desktop = bench.desktop(1);
        desktop.kubectl("cordon d2")?.ok()?;
        desktop.apply(&deployment("spread", 4))?;
        let pods = desktop.replicas("spread", 4, SOON)?;
        ensure!(pods.iter().all(|pod| node_of(pod) != "d2"), "a cordoned desktop got a pod");
        desktop.apply(&pod_on("waits", Some("d2"), "busybox", "sleep 1000"))?;
        poll(SOON, "the reason why it is pending", || {
            let described = desktop.kubectl("describe pod waits")?.ok()?;
            ensure!(
                described.contains("FailedScheduling") && described.contains("unschedulable"),
                "{described}"
            );
            ensure!(described.contains("0/3 nodes are available"), "{described}");
            Ok(Some(()))
        })?;
        desktop.kubectl("uncordon d2")?.ok()?;
        desktop.pod_in("waits", &["Running"])?;

        desktop.apply(
            "{apiVersion: v1, kind: Pod, metadata: {name: huge}, spec: {containers: [{name: main, image: busybox, \
             resources: {requests: {cpu: 1000}}}]}}",
        )?;
        poll(SOON, "the reason why it does not fit", || {
            let described = desktop.kubectl("describe pod huge")?.ok()?;
            ensure!(described.contains("3 Insufficient cpu"), "{described}");
            Ok(Some(()))
        })
    });
}

#[test]
fn a_namespace_takes_what_is_in_it_along() {
    on_flock(|bench| {
        let (one, two) = (bench.desktop(1), bench.desktop(2));
        one.kubectl("create ns lab")?.ok()?;
        two.kubectl_with("apply -n lab -f -", &deployment("web", 2))?.ok()?;
        two.kubectl("rollout status -n lab deployment/web --timeout=60s")?.ok()?;
        ensure!(
            two.kubectl("get pods -o name")?.ok()?.trim().is_empty(),
            "the default namespace holds none of it"
        );
        one.kubectl("delete ns lab --timeout=60s")?.ok()?;
        two.gone("deployments,replicasets,pods", "-A")?;
        let again = two.kubectl_with("apply -n lab -f -", &deployment("web", 2))?;
        ensure!(!again.success() && again.stderr.contains("namespaces \"lab\" not found"), "{again}");
        Ok(())
    });
}

#[test]
fn gaggle_does_what_kubectl_does() {
    on_flock(|bench| {
        let (one, two) = (bench.desktop(1), bench.desktop(2));
        one.gaggle_with("apply -f -", &deployment("web", 2))?.ok()?;
        poll(RECOVERS, "two replicas", || {
            let pods = two.gaggle("get pods -o json")?.json()?;
            let running = pods["items"]
                .as_array()
                .map_or(0, |pods| pods.iter().filter(|pod| pod["status"]["phase"] == "Running").count());
            Ok((running == 2).then_some(()))
        })?;
        two.gaggle("scale deployment/web --replicas=3")?.ok()?;
        one.replicas("web", 3, SOON)?;
        one.gaggle_with("apply -f -", &pod("talks", "echo hello"))?.ok()?;
        one.pod_in("talks", &["Succeeded"])?;
        ensure!(two.gaggle("logs talks")?.ok()?.contains("hello"), "logs");
        ensure!(two.gaggle("describe pod talks")?.ok()?.contains("Scheduled"), "describe");
        ensure!(two.gaggle("get pods")?.ok()?.contains("talks"), "get");
        two.gaggle("delete pod talks")?.ok()?;
        two.gaggle("delete deployment web")?.ok()?;
        one.gone("pods", "")?;
        let missing = two.gaggle("get pod talks")?;
        ensure!(missing.code == 1 && missing.stderr.contains("not found"), "{missing}");
        Ok(())
    });
}

#[test]
fn a_pod_gets_its_grace() {
    on_flock(|bench| {
        let desktop = bench.desktop(1);
        let dir = bench.layout().dir.join("grace");
        std::fs::create_dir_all(&dir)?;
        desktop.apply(&format!(
            "{{apiVersion: v1, kind: Pod, metadata: {{name: polite}}, spec: {{terminationGracePeriodSeconds: 30, \
             volumes: [{{name: host, hostPath: {{path: {dir:?}, type: Directory}}}}], \
             containers: [{{name: main, image: busybox, imagePullPolicy: IfNotPresent, \
             command: [sh, -c, \"trap 'echo bye > /host/said; exit 0' TERM; touch /host/ready; while true; do sleep 0.1; done\"], \
             volumeMounts: [{{name: host, mountPath: /host}}]}}]}}}}"
        ))?;
        poll(SOON, "the trap to be set", || Ok(dir.join("ready").exists().then_some(())))?;
        let began = std::time::Instant::now();
        desktop.kubectl("delete pod polite")?.ok()?;
        ensure!(dir.join("said").exists(), "it was not asked to stop");
        ensure!(
            began.elapsed() < Duration::from_secs(25),
            "it stopped at once, yet the delete took {:?}",
            began.elapsed()
        );
        Ok(())
    });
}
