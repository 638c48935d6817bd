//! What single files need beforehand, and what is promised of them beyond the words that many share.

use super::case::{Case, LATER, STARTS, condition, restarts};
use super::said::pending;
use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};

/// Something to be done with a file.
type Act = fn(&Case) -> Result<()>;

/// A file, by the end of its name, and what belongs to it.
struct Story {
    file: &'static str,
    before: Act,
    after: Act,
    /// Whether `after` says all, and the shared words nothing.
    whole: bool,
}

const fn story(file: &'static str, before: Act, after: Act) -> Story {
    Story { file, before, after, whole: false }
}

const fn whole(file: &'static str, before: Act, after: Act) -> Story {
    Story { file, before, after, whole: true }
}

fn nothing(_: &Case) -> Result<()> {
    Ok(())
}

/// The story of a file; most have none.
fn find(case: &Case) -> Option<&'static Story> {
    STORIES.iter().find(|story| case.row.file.ends_with(story.file))
}

pub fn before(case: &Case) -> Result<()> {
    find(case).map_or(Ok(()), |story| (story.before)(case))
}

pub fn after(case: &Case) -> Result<()> {
    find(case).map_or(Ok(()), |story| (story.after)(case))
}

/// Whether the words that many share do not tell this file's outcome.
#[must_use]
pub fn is_whole(case: &Case) -> bool {
    find(case).is_some_and(|story| story.whole)
}

/// Stories of no file at all, which would never be told.
#[must_use]
pub fn untold(files: &[&str]) -> Vec<&'static str> {
    let is_told = |story: &&Story| files.iter().any(|file| file.ends_with(story.file));
    STORIES.iter().filter(|story| !is_told(story)).map(|story| story.file).collect()
}

static STORIES: &[Story] = &[
    story("admin/dns/busybox.yaml", nothing, |case| {
        case.exec("busybox", "nslookup kubernetes.default", &["kubernetes.default.svc.cluster.local"])
    }),
    story("two-files-counter-pod-streaming-sidecar.yaml", nothing, |case| {
        case.log("counter -c count-log-1", &["0: "])
    }),
    story("cpu-constraints-pod-4.yaml", nothing, |case| {
        resources(case, &[json!({"limits": {"cpu": "800m"}, "requests": {"cpu": "800m"}})])
    }),
    story("memory-defaults-pod.yaml", nothing, |case| memory(case, "512Mi", "256Mi")),
    story("memory-defaults-pod-2.yaml", nothing, |case| memory(case, "1Gi", "1Gi")),
    story("memory-defaults-pod-3.yaml", nothing, |case| memory(case, "512Mi", "128Mi")),
    story("limit-range-pod-1.yaml", nothing, |case| {
        let amounts = |limit: (&str, &str), request: (&str, &str)| json!({"limits": {"cpu": limit.0, "memory": limit.1}, "requests": {"cpu": request.0, "memory": request.1}});
        let wanted = [
            amounts(("500m", "200Mi"), ("100m", "100Mi")),
            amounts(("700m", "900Mi"), ("100m", "100Mi")),
            amounts(("500m", "200Mi"), ("500m", "200Mi")),
            amounts(("700m", "900Mi"), ("110m", "111Mi")),
        ];
        resources(case, &wanted)
    }),
    story("quota-mem-cpu-pod.yaml", nothing, |case| {
        case.becomes("quota/mem-cpu-demo", ".status.used.requests\\.memory", "600Mi")?;
        case.is("quota/mem-cpu-demo", ".status.used.requests\\.cpu", "400m")
    }),
    story("basic-daemonset.yaml", nothing, |case| {
        let noted = std::fs::read_to_string(case.cluster.scratch.join("machine-id.log"))?;
        let own = std::fs::read_to_string(case.cluster.scratch.join("machine-id"))?;
        ensure!(noted == own, "the init container read {noted:?}, the desktop has {own:?}");
        Ok(())
    }),
    story("deployment-update.yaml", nothing, |case| {
        case.kubectl("rollout status deployment/nginx-deployment --timeout=60s")?;
        let sets = case.kubectl("get rs -o jsonpath='{range .items[*]}{..image} {.spec.replicas};{end}'")?;
        let sets: Vec<&str> = sets.split(';').filter(|set| !set.is_empty()).collect();
        ensure!(
            sets.len() == 2 && sets.contains(&"nginx:1.14.2 0") && sets.contains(&"nginx:1.16.1 2"),
            "{sets:?}"
        );
        Ok(())
    }),
    story("deployment-sidecar.yaml", nothing, |case| {
        case.log("deployment/myapp -c logshipper", &["logging"])
    }),
    story("ssa/nginx-deployment.yaml", nothing, |case| {
        let owned = replicas_owner(case)?;
        ensure!(owned == ["kubectl Apply"], "replicas are managed by {owned:?}");
        Ok(())
    }),
    story(
        "ssa/nginx-deployment-no-replicas.yaml",
        |case| {
            let other = "apiVersion: apps/v1\nkind: Deployment\nmetadata: {name: nginx-deployment}\nspec: {replicas: 3}\n";
            case.apply("--server-side --field-manager=scaler", other)?.ok()?;
            Ok(())
        },
        |case| {
            let owned = replicas_owner(case)?;
            ensure!(owned == ["scaler Apply"], "replicas are managed by {owned:?}");
            case.is("deployment/nginx-deployment", ".spec.replicas", "3")
        },
    ),
    story("job/cronjob.yaml", nothing, |case| {
        case.until(LATER, "a Job of a minute, complete", || {
            let mut jobs = case.cluster.seen("jobs");
            jobs.retain(|job| job["metadata"]["namespace"] == case.namespace);
            let done = |job: &&Value| condition(job, "Complete").is_some();
            ensure!(jobs.iter().any(|job| done(&job)), "{} Jobs, none complete", jobs.len());
            Ok(())
        })?;
        case.is("cronjob/hello", ".spec.suspend", "false")?;
        ensure!(!case.field("cronjob/hello", ".status.lastScheduleTime")?.is_empty(), "no time is noted");
        Ok(())
    }),
    story("indexed-job.yaml", nothing, |case| {
        let third = case.kubectl("get pods -l batch.kubernetes.io/job-completion-index=3 -o name")?;
        case.log(third.trim(), &["xuq"])
    }),
    story("job-sidecar.yaml", nothing, |case| {
        let pods = case.pods(|labels| labels["job-name"] == "myjob");
        let ended =
            |pod: &Value| pod["status"]["initContainerStatuses"][0]["state"]["terminated"].is_object();
        ensure!(!pods.is_empty() && pods.iter().all(ended), "the sidecar still runs");
        Ok(())
    }),
    story("mongo-service.yaml", nothing, |case| {
        let line = format!("kubectl -n {} port-forward service/mongo 37017:27017", case.namespace);
        let forward = case.desktop().start(&line)?;
        forward.wait_for("Forwarding from", STARTS)?;
        let said = case.desktop().exec_with("busybox nc -w 5 127.0.0.1 37017", "hello\n")?;
        ensure!(said.stdout.contains("hello"), "nothing came back: {said}");
        Ok(())
    }),
    story("mysql-deployment.yaml", nothing, |case| {
        case.is("deployment/mysql", ".spec.strategy.type", "Recreate")?;
        case.is("service/mysql", ".spec.clusterIP", "None")
    }),
    story("pod-single-configmap-env-variable.yaml", nothing, |case| {
        case.log("dapi-test-pod", &["SPECIAL_LEVEL_KEY=very"])
    }),
    story("pod-multiple-configmap-env-variable.yaml", nothing, |case| {
        case.log("dapi-test-pod", &["SPECIAL_LEVEL_KEY=very", "LOG_LEVEL=INFO"])
    }),
    whole("configmap/configure-pod.yaml", nothing, |case| {
        let pod = "configmap-demo-pod";
        // Without its volumes a pod of the real kubelet does not come as far as to miss a variable.
        case.pod(pod, STARTS, "it to say what it lacks", |pod| {
            let waiting = &pod["status"]["containerStatuses"][0]["state"]["waiting"]["reason"];
            waiting == "CreateContainerConfigError" || waiting == "ContainerCreating"
        })?;
        case.kubectl(
            "create configmap game-demo --from-literal=player_initial_lives=3 \
             --from-literal=ui_properties_file_name=user-interface.properties \
             --from-literal=game.properties=lives=3 --from-literal=user-interface.properties=color=purple",
        )?;
        case.pod(pod, STARTS, "it to run", |pod| pod["status"]["phase"] == "Running")?;
        case.exec(pod, "sh -c 'echo $PLAYER_INITIAL_LIVES; cat /config/*'", &["3\n", "lives=3", "purple"])
    }),
    story(
        "env-configmap.yaml",
        |case| case.kubectl("create configmap myconfigmap --from-literal=mood=good").map(drop),
        |case| case.log("env-configmap", &["mood=good"]),
    ),
    story(
        "deployment-with-configmap-as-volume.yaml",
        |case| case.kubectl("create configmap sport --from-literal=sport=football").map(drop),
        |case| {
            case.kubectl(r#"patch configmap sport -p '{"data":{"sport":"cricket"}}'"#)?;
            case.exec("deployment/configmap-volume", "cat /etc/config/sport", &["cricket"])
        },
    ),
    story(
        "deployment-with-configmap-as-envvar.yaml",
        |case| case.kubectl("create configmap fruits --from-literal=fruits=apples").map(drop),
        |case| {
            case.log("deployment/configmap-env-var", &["The basket is full of apples"])?;
            case.kubectl(r#"patch configmap fruits -p '{"data":{"fruits":"mangoes"}}'"#)?;
            case.kubectl("rollout restart deployment/configmap-env-var")?;
            case.kubectl("rollout status deployment/configmap-env-var --timeout=90s")?;
            case.exec("deployment/configmap-env-var", "printenv FRUITS", &["mangoes"])
        },
    ),
    story(
        "deployment-with-configmap-two-containers.yaml",
        |case| case.kubectl("create configmap color --from-literal=color=red").map(drop),
        |case| {
            let page = "-c nginx -- wget -qO- http://127.0.0.1/";
            let pod = "deployment/configmap-two-containers";
            case.until(STARTS, "the colour on the page", || {
                let said = case.kubectl(&format!("exec {pod} {page}"))?;
                ensure!(said.contains("My preferred color is red"), "{said}");
                Ok(())
            })
        },
    ),
    whole("pods/pod-rs.yaml", nothing, |case| {
        case.until(STARTS, "both pods to go again", || {
            let pods = case.pods(|labels| labels["tier"] == "frontend");
            let names: Vec<&str> = pods.iter().filter_map(|pod| pod["metadata"]["name"].as_str()).collect();
            ensure!(names.len() == 3 && !names.contains(&"pod1") && !names.contains(&"pod2"), "{names:?}");
            Ok(())
        })
    }),
    story("controllers/job.yaml", nothing, |case| case.log("job/pi", &["3.14159265358979"])),
    story("job-backoff-limit-per-index-failindex.yaml", nothing, |case| {
        let job = "job/job-backoff-limit-per-index-failindex";
        case.is(job, ".status.failedIndexes", "0,1")?;
        case.is(job, ".status.completedIndexes", "2,3")
    }),
    whole("job-pod-failure-policy-config-issue.yaml", nothing, |case| {
        let job = "job-pod-failure-policy-config-issue";
        let stuck = case.until(STARTS, "pods that lack their image", || {
            let pods = case.pods(|labels| labels["job-name"] == job);
            let waits = |pod: &&Value| {
                let reason = &pod["status"]["containerStatuses"][0]["state"]["waiting"]["reason"];
                pod["status"]["phase"] == "Pending"
                    && (reason == "ErrImagePull" || reason == "ImagePullBackOff")
            };
            pods.iter().find(waits).cloned().context("none says so yet")
        })?;
        let name = stuck["metadata"]["name"].as_str().unwrap_or_default();
        let issue = r#"{"status":{"conditions":[{"type":"ConfigIssue","status":"True","reason":"NonExistingImage"}]}}"#;
        case.kubectl(&format!("patch pod {name} --subresource=status -p '{issue}'"))?;
        // As the example's own page goes on: a pod that is only waiting has not failed yet.
        case.kubectl(&format!("delete pod {name} --wait=false"))?;
        case.until(STARTS, "the Job to fail for it", || {
            let found = case.look("jobs", job)?;
            let end = condition(&found, "Failed").context("it has not failed")?;
            ensure!(end["reason"] == "PodFailurePolicy", "{end}");
            Ok(())
        })
    }),
    story("job-success-policy.yaml", nothing, |case| {
        let job = case.look("jobs", "job-success")?;
        ensure!(condition(&job, "SuccessCriteriaMet").is_some(), "{}", job["status"]);
        Ok(())
    }),
    story("debug/counter-pod.yaml", nothing, |case| case.log("counter", &["0: ", "1: "])),
    story("debug/termination.yaml", nothing, |case| {
        case.pod("termination-demo", STARTS, "its last words", |pod| {
            let last = &pod["status"]["containerStatuses"][0]["lastState"]["terminated"]["message"];
            last.as_str().is_some_and(|message| message.trim() == "Sleep expired")
        })?;
        Ok(())
    }),
    story("pods/config/redis-pod.yaml", nothing, |case| {
        case.exec("redis", "cat /redis-master/redis.conf", &["maxmemory-policy allkeys-lru"])
    }),
    story("pods/init-containers.yaml", nothing, |case| {
        case.exec("init-demo", "wget -qO- http://127.0.0.1/", &["from afar"])
    }),
    story("dapi-envars-container.yaml", nothing, |case| {
        case.log("dapi-envars-resourcefieldref", &["\n1\n1\n33554432\n67108864\n"])
    }),
    story("dapi-envars-pod.yaml", nothing, |case| {
        let pod = case.look("pods", "dapi-envars-fieldref")?;
        let node = pod["spec"]["nodeName"].as_str().unwrap_or_default();
        let address = pod["status"]["podIP"].as_str().context("it has no address")?;
        let account = pod["spec"]["serviceAccountName"].as_str().unwrap_or("default");
        case.log("dapi-envars-fieldref", &[node, "dapi-envars-fieldref", case.namespace, address, account])
    }),
    story("dapi-volume-resources.yaml", nothing, |case| {
        case.exec(
            "kubernetes-downwardapi-volume-example-2",
            "sh -c 'for f in /etc/podinfo/*; do echo \"$(basename $f)=$(cat $f)\"; done'",
            &["cpu_limit=250", "cpu_request=125", "mem_limit=64", "mem_request=32"],
        )
    }),
    story("pods/inject/envars.yaml", nothing, |case| {
        let both = ["Hello from the environment", "Such a sweet sorrow"];
        case.exec("envar-demo", "printenv DEMO_GREETING DEMO_FAREWELL", &both)
    }),
    story("pods/inject/secret-pod.yaml", nothing, |case| {
        case.exec("secret-test-pod", "cat /etc/secret-volume/username", &["my-app"])
    }),
    story("secret-envars-pod.yaml", nothing, |case| {
        case.exec("secret-envars-test-pod", "printenv SECRET_USERNAME", &["my-app"])
    }),
    story("pod-secret-envFrom.yaml", nothing, |case| {
        case.exec("envfrom-secret", "printenv username password", &["my-app", "39528"])
    }),
    whole("pods/pod-nginx.yaml", nothing, on_an_ssd),
    whole("pod-nginx-required-affinity.yaml", nothing, on_an_ssd),
    story(
        "pod-nginx-preferred-affinity.yaml",
        |case| label(case, 2, "disktype=ssd"),
        |case| {
            case.is("pod/nginx", ".spec.nodeName", "d2")?;
            label(case, 2, "disktype-")
        },
    ),
    whole("pod-nginx-specific-node.yaml", nothing, |case| {
        case.pod("nginx", STARTS, "it to wait for its node", |pod| {
            pod["status"]["phase"] == "Pending" && pod["spec"]["nodeName"] == "foo-node"
        })?;
        Ok(())
    }),
    story(
        "pod-projected-svc-token.yaml",
        |case| case.kubectl("create serviceaccount build-robot").map(drop),
        |case| {
            case.exec("nginx", "sh -c 'test -s /var/run/secrets/tokens/vault-token && echo yes'", &["yes"])
        },
    ),
    story(
        "pod-with-toleration.yaml",
        |case| taint(case, "example-key=yes:NoSchedule"),
        |case| taint(case, "example-key-"),
    ),
    story("pod-with-http-healthcheck.yaml", nothing, |case| {
        let events = case.kubectl("get events --field-selector=reason=Unhealthy -o jsonpath={..message}")?;
        ensure!(events.contains("404"), "nothing was told of a 404: {events}");
        Ok(())
    }),
    story("resource/cpu-request-limit.yaml", nothing, |case| {
        let cpu = inspect(
            case,
            "cpu-demo",
            "{{.HostConfig.CpuQuota}}/{{.HostConfig.CpuPeriod}}/{{.HostConfig.NanoCpus}}",
        )?;
        ensure!(cpu == "100000/100000/0" || cpu.ends_with("/1000000000"), "the engine caps it at {cpu}");
        Ok(())
    }),
    whole("memory-request-limit-2.yaml", nothing, |case| {
        case.pod("memory-demo-2", LATER, "it to be killed for its memory", |pod| {
            let status = &pod["status"]["containerStatuses"][0];
            let ends = [&status["state"]["terminated"], &status["lastState"]["terminated"]];
            ends.iter().any(|end| end["reason"] == "OOMKilled" && end["exitCode"] == 137)
                && restarts(pod) >= 1
        })?;
        case.pod("memory-demo-2", LATER, "it to be held back", |pod| {
            pod["status"]["containerStatuses"][0]["state"]["waiting"]["reason"] == "CrashLoopBackOff"
        })?;
        Ok(())
    }),
    story("seccomp/ga/default-pod.yaml", nothing, |case| {
        case.exec("default-pod", "grep Seccomp: /proc/1/status", &["2"])
    }),
    story("pods/security/security-context.yaml", nothing, |case| {
        let inside = "sh -c 'id -u; id -g; id -G; touch /data/demo/f; stat -c %g /data/demo/f'";
        case.exec("security-context-demo", inside, &["1000\n3000\n", "4000", "2000"])
    }),
    story("pods/security/security-context-2.yaml", nothing, |case| {
        case.exec("security-context-demo-2", "id -u", &["2000"])
    }),
    story("share-process-namespace.yaml", nothing, |case| case.exec("nginx -c shell", "ps", &["httpd"])),
    story(
        "pods/storage/projected.yaml",
        |case| {
            case.kubectl("create secret generic user --from-literal=username.txt=admin")?;
            case.kubectl("create secret generic pass --from-literal=password.txt=hidden").map(drop)
        },
        |case| {
            let both = "sh -c 'cat /projected-volume/username.txt /projected-volume/password.txt'";
            case.exec("test-projected-volume", both, &["adminhidden"])
        },
    ),
    story("pods/storage/redis.yaml", nothing, |case| {
        case.exec("redis", "sh -c 'echo kept > /data/redis/f; cat /data/redis/f'", &["kept"])?;
        // The command may end with its container.
        case.try_kubectl("exec redis -- sh -c 'kill -TERM 1'")?;
        case.pod("redis", STARTS, "it to start again", |pod| restarts(pod) == 1)?;
        case.exec("redis", "cat /data/redis/f", &["kept"])
    }),
    story("one-constraint.yaml", |case| zones(case, Zones::Set), |case| zones(case, Zones::Removed)),
    story("two-constraints.yaml", conflict, |case| {
        pending(case, "mypod", "topology spread constraints")?;
        zones(case, Zones::Removed)
    }),
    story("pods/two-container-pod.yaml", nothing, |case| {
        case.pod("two-containers", STARTS, "one of them to end", |pod| {
            let statuses = pod["status"]["containerStatuses"].as_array().cloned().unwrap_or_default();
            statuses.iter().any(|status| status["state"]["terminated"]["exitCode"] == 0)
        })?;
        Ok(())
    }),
    story("hostaliases-pod.yaml", nothing, |case| {
        case.log("hostaliases-pod", &["foo.local", "bar.local", "foo.remote", "bar.remote"])
    }),
    story("shirt-resources.yaml", nothing, |case| {
        let blue = case.kubectl("get shirts --field-selector spec.color=blue -o name")?;
        ensure!(blue.lines().count() == 2, "{blue}");
        Ok(())
    }),
];

/// The resources of the only pod's containers.
fn resources(case: &Case, wanted: &[Value]) -> Result<()> {
    let pod: Value = serde_json::from_str(&case.kubectl(&format!("get pod {} -o json", case.one("pod")?))?)?;
    let containers = pod["spec"]["containers"].as_array().context("no containers")?;
    let is: Vec<&Value> = containers.iter().map(|container| &container["resources"]).collect();
    ensure!(is.iter().copied().eq(wanted), "{is:?}");
    Ok(())
}

fn memory(case: &Case, limit: &str, request: &str) -> Result<()> {
    resources(case, &[json!({"limits": {"memory": limit}, "requests": {"memory": request}})])
}

/// Who manages the replicas of the Deployment.
fn replicas_owner(case: &Case) -> Result<Vec<String>> {
    let text = case.kubectl("get deployment nginx-deployment -o json --show-managed-fields")?;
    let object: Value = serde_json::from_str(&text)?;
    let managers = object["metadata"]["managedFields"].as_array().cloned().unwrap_or_default();
    let owns = |entry: &&Value| entry["fieldsV1"]["f:spec"]["f:replicas"].is_object();
    let name = |entry: &Value| format!("{} {}", entry["manager"], entry["operation"]).replace('"', "");
    Ok(managers.iter().filter(owns).map(name).collect())
}

fn label(case: &Case, node: usize, label: &str) -> Result<()> {
    case.kubectl(&format!("label node d{node} {label} --overwrite")).map(drop)
}

fn taint(case: &Case, taint: &str) -> Result<()> {
    case.kubectl(&format!("taint nodes --all {taint}")).map(drop)
}

fn on_an_ssd(case: &Case) -> Result<()> {
    pending(case, "nginx", "node affinity/selector")?;
    label(case, 2, "disktype=ssd")?;
    let pod =
        case.pod("nginx", STARTS, "it to run where the disk is", |pod| pod["status"]["phase"] == "Running");
    label(case, 2, "disktype-")?;
    ensure!(pod?["spec"]["nodeName"] == "d2", "it runs elsewhere");
    Ok(())
}

/// What the engine of a pod's desktop says of its container.
fn inspect(case: &Case, pod: &str, format: &str) -> Result<String> {
    let seen = case.look("pods", pod)?;
    let id = seen["status"]["containerStatuses"][0]["containerID"].as_str().context("no container")?;
    let id = id.rsplit('/').next().unwrap_or(id);
    let desktop = case.cluster.bench.named(seen["spec"]["nodeName"].as_str().unwrap_or_default())?;
    Ok(desktop.docker(&format!("inspect -f '{format}' {id}"))?.ok()?.trim().to_owned())
}

enum Zones {
    Set,
    Removed,
}

/// Two zones: the first two desktops, and the third.
fn zones(case: &Case, zones: Zones) -> Result<()> {
    for (node, zone) in [(1, "a"), (2, "a"), (3, "b")] {
        match zones {
            Zones::Set => label(case, node, &format!("zone={zone} node=node{node}"))?,
            Zones::Removed => label(case, node, "zone- node-")?,
        }
    }
    Ok(())
}

/// Pods in such places that the zones ask for another desktop than the desktops do.
fn conflict(case: &Case) -> Result<()> {
    zones(case, Zones::Set)?;
    let pods: Vec<Value> = [1, 1, 2, 3, 3]
        .iter()
        .enumerate()
        .map(|(index, node)| {
            json!({"apiVersion": "v1", "kind": "Pod",
                "metadata": {"name": format!("there-{index}"), "labels": {"foo": "bar"}},
                "spec": {"nodeName": format!("d{node}"), "containers": [{
                    "name": "pause", "image": "registry.k8s.io/pause:3.1"}]}})
        })
        .collect();
    let list = json!({"apiVersion": "v1", "kind": "List", "items": pods});
    case.apply("", &list.to_string())?.ok()?;
    Ok(())
}
