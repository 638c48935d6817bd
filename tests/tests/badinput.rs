//! Whatever is sent: an error that names it, nothing changed, and the daemon lives on.

use anyhow::{Context, Result, ensure};
use gaggle_tests::bench::{Bench, Desktop, on_bench};
use gaggle_tests::kube::{as_yaml, pod};

/// A flock of two; afterwards the same daemons must still be one, without a panic and without swollen memory.
fn unharmed(test: impl FnOnce(&Bench) -> Result<()>) {
    on_bench(2, |bench| {
        bench.up()?;
        let daemons: Vec<_> = bench.desktops().iter().map(|desktop| desktop.daemon().pid()).collect();
        test(bench)?;
        for (desktop, daemon) in bench.desktops().iter().zip(daemons) {
            ensure!(desktop.daemon().pid() == daemon, "the daemon of {} was replaced", desktop.name());
            let log = desktop.daemon_log();
            ensure!(!log.contains("panicked"), "{} has panicked: {log}", desktop.name());
            ensure!(
                resident_mib(desktop)? < 400,
                "{} has swollen to {} MiB",
                desktop.name(),
                resident_mib(desktop)?
            );
        }
        bench.assembled(&[1, 2])?;
        // It does not just live, it works.
        bench.desktop(2).apply(&pod("afterwards", "echo fine"))?;
        bench.desktop(1).pod_in("afterwards", &["Succeeded"])?;
        Ok(())
    });
}

fn resident_mib(desktop: &Desktop) -> Result<u64> {
    let pid = desktop.daemon().pid().context("no daemon")?;
    let status = std::fs::read_to_string(format!("/proc/{pid}/status"))?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).context("no VmRSS")?;
    Ok(line.trim().trim_end_matches(" kB").parse::<u64>()? / 1024)
}

/// An object that must be refused, and the words that the refusal must hold.
const OBJECTS: [(&str, &[&str]); 19] = [
    ("apiVersion: v1\nkind: Pod\nmetadata: {name: a\n", &["yaml"]),
    ("{apiVersion: v1, kind: Pod", &["yaml"]),
    ("apiVersion: v1\nkind: Podd\nmetadata: {name: a}\n", &["Podd"]),
    ("apiVersion: v9\nkind: Pod\nmetadata: {name: a}\n", &["v9"]),
    ("apiVersion: v1\nkind: Pod\nmetadata: {name: a}\nspec: {}\n", &["spec.containers"]),
    (
        "{apiVersion: v1, kind: Pod, metadata: {name: A_b}, spec: {containers: [{name: m, image: i}]}}",
        &["metadata.name"],
    ),
    ("{apiVersion: v1, kind: Pod, metadata: {}, spec: {containers: [{name: m, image: i}]}}", &["name"]),
    (
        "{apiVersion: v1, kind: Pod, metadata: {name: a}, spec: {containers: [{name: m}]}}",
        &["spec.containers[0].image"],
    ),
    (
        "{apiVersion: v1, kind: Pod, metadata: {name: a}, spec: {containers: [{name: m, image: i}, {name: m, image: i}]}}",
        &["spec.containers[1].name", "Duplicate"],
    ),
    (
        "{apiVersion: v1, kind: Pod, metadata: {name: a}, spec: {colour: blue, containers: [{name: m, image: i}]}}",
        &["unknown field", "spec.colour"],
    ),
    (
        "{apiVersion: v1, kind: Pod, metadata: {name: a}, spec: {restartPolicy: Sometimes, containers: [{name: m, image: i}]}}",
        &["spec.restartPolicy", "Sometimes"],
    ),
    (
        "{apiVersion: v1, kind: Pod, metadata: {name: a}, spec: {containers: [{name: m, image: i, resources: {requests: {memory: lots}}}]}}",
        &["quantit"],
    ),
    (
        "{apiVersion: v1, kind: Pod, metadata: {name: a}, spec: {containers: [{name: m, image: i, volumeMounts: [{name: v, mountPath: /v}]}]}}",
        &["volumeMounts[0].name"],
    ),
    (
        "{apiVersion: v1, kind: Pod, metadata: {name: a, labels: {'not a key!': b}}, spec: {containers: [{name: m, image: i}]}}",
        &["metadata.labels"],
    ),
    (
        "{apiVersion: apps/v1, kind: Deployment, metadata: {name: a}, spec: {replicas: -1, selector: {matchLabels: {x: one}}, \
      template: {metadata: {labels: {x: one}}, spec: {containers: [{name: m, image: i}]}}}}",
        &["spec.replicas"],
    ),
    (
        "{apiVersion: apps/v1, kind: Deployment, metadata: {name: a}, spec: {selector: {matchLabels: {x: one}}, \
      template: {metadata: {labels: {x: two}}, spec: {containers: [{name: m, image: i}]}}}}",
        &["spec.template.metadata.labels", "selector"],
    ),
    (
        "{apiVersion: batch/v1, kind: Job, metadata: {name: a}, spec: {template: {spec: {containers: [{name: m, image: i}]}}}}",
        &["spec.template.spec.restartPolicy"],
    ),
    (
        "{apiVersion: batch/v1, kind: Job, metadata: {name: a}, spec: {completionMode: Indexed, parallelism: 2, template: {spec: \
      {restartPolicy: Never, containers: [{name: m, image: i}]}}}}",
        &["spec.completions"],
    ),
    ("{apiVersion: v1, kind: ConfigMap, metadata: {name: a}, data: {'no spaces': b}}", &["data"]),
];

#[test]
fn objects_that_make_no_sense_are_refused_by_name() {
    unharmed(|bench| {
        let desktop = bench.desktop(1);
        let before = everything(desktop)?;
        for (object, words) in OBJECTS {
            let object = &as_yaml(object);
            for (how, said) in [
                ("kubectl", desktop.kubectl_with("create -f -", object)?.refused()?),
                ("gaggle", desktop.gaggle_with("apply -f -", object)?.refused()?),
            ] {
                for word in words {
                    let found = said.to_lowercase().contains(&word.to_lowercase());
                    ensure!(found, "{how}: the refusal must name {word}\nof {object}\nbut says {said}");
                }
            }
        }
        ensure!(everything(desktop)? == before, "something that was refused has been kept");
        Ok(())
    });
}

fn everything(desktop: &Desktop) -> Result<String> {
    desktop.kubectl("get pods,deployments,jobs,configmaps -A -o name")?.ok()
}

#[test]
fn bodies_that_are_no_objects_are_refused() {
    unharmed(|bench| {
        let desktop = bench.desktop(2);
        let path = "/api/v1/namespaces/default/configmaps";
        let deep = "[".repeat(200_000);
        let nested = format!("{}1{}", "{\"a\":".repeat(50_000), "}".repeat(50_000));
        let wrong = r#"{"apiVersion":"v1","kind":"ConfigMap","metadata":{"name":5}}"#.to_owned();
        let other_kind = r#"{"apiVersion":"v1","kind":"Pod","metadata":{"name":"a"}}"#.to_owned();
        let other_namespace =
            r#"{"apiVersion":"v1","kind":"ConfigMap","metadata":{"name":"a","namespace":"kube-system"}}"#
                .to_owned();
        for body in [
            String::new(),
            "null".to_owned(),
            "[]".to_owned(),
            "{".to_owned(),
            deep,
            nested,
            wrong,
            other_kind,
            other_namespace,
        ] {
            let outcome = desktop.kubectl_with(&format!("create --raw {path} -f -"), &body)?;
            let start: String = body.chars().take(80).collect();
            ensure!(!outcome.success(), "accepted {start}");
            ensure!(!outcome.stderr.contains("InternalError"), "{start}: {outcome}");
        }
        // Far beyond what an object may be, in one body and in one value.
        let file = bench.layout().dir.join("huge");
        let huge = format!(
            "{{\"apiVersion\":\"v1\",\"kind\":\"ConfigMap\",\"metadata\":{{\"name\":\"huge\"}},\"data\":{{\"a\":\"{}\"}}}}",
            "x".repeat(64 << 20)
        );
        std::fs::write(&file, huge)?;
        let said = desktop.kubectl(&format!("create --raw {path} -f '{}'", file.display()))?.refused()?;
        ensure!(said.to_lowercase().contains("too large") || said.contains("limit"), "{said}");
        ensure!(!desktop.kubectl("get configmap huge")?.success(), "it was kept");
        Ok(())
    });
}

#[test]
fn a_stale_write_conflicts() {
    unharmed(|bench| {
        let (one, two) = (bench.desktop(1), bench.desktop(2));
        one.kubectl("create configmap shared --from-literal=a=1")?.ok()?;
        let read = bench.wait_until(gaggle_tests::kube::SOON, "the other desktop to see it", || {
            two.kubectl("get configmap shared -o json")?.ok().map(Some)
        })?;
        two.kubectl_with("replace -f -", &read.replace("\"1\"", "\"2\""))?.ok()?;
        let stale = one.kubectl_with("replace -f -", &read.replace("\"1\"", "\"3\""))?;
        ensure!(stale.code == 1 && stale.stderr.contains("Conflict"), "{stale}");
        ensure!(stale.stderr.contains("shared"), "the conflict must name the object: {stale}");
        let again = one.kubectl("create configmap shared --from-literal=a=4")?;
        ensure!(again.code == 1 && again.stderr.contains("configmaps \"shared\" already exists"), "{again}");
        let now = bench.wait_until(gaggle_tests::kube::SOON, "the write that was first", || {
            let now = one.get("configmap", "shared")?;
            Ok((now["data"]["a"] == "2").then_some(now))
        });
        now.map(|_| ())
    });
}

#[test]
fn hostile_bytes_on_any_port_harm_nothing() {
    unharmed(|bench| {
        // From another desktop, as a stranger on the same network would.
        let attacker = bench.desktop(2);
        let target = bench.desktop(1).address();
        for port in [7474, 6443] {
            for bytes in [
                "head -c 3000000 /dev/urandom",
                "head -c 3000000 /dev/zero",
                "printf 'GET / HTTP/1.1\\r\\nHost: x\\r\\n\\r\\n'",
                "printf '\\026\\003\\001\\377\\377'; sleep 1",
                "yes 'X-Header: x' | head -c 2000000",
                "true",
            ] {
                // What it answers does not matter, but it must not wait for more for ever.
                attacker.exec(&format!(
                    "{{ {bytes}; }} | timeout 15 busybox nc -w 5 {target} {port} > /dev/null"
                ))?;
            }
            // Many who connect and say nothing.
            let silent = format!(
                "for i in $(seq 300); do exec 3<> /dev/tcp/{target}/{port} && eval \"exec $((i + 10))<&3\"; done; sleep 3"
            );
            let _crowd = attacker.start(&format!("ulimit -n 4096; exec bash -c '{silent}'"))?;
            bench.desktop(1).kubectl("get nodes")?.ok()?;
            bench.desktop(1).gaggle("status")?.ok()?;
        }
        // Multicast is anybody's too.
        attacker.exec("head -c 1400 /dev/urandom | timeout 5 busybox nc -u -w 1 224.0.0.251 5353")?;
        Ok(())
    });
}

#[test]
fn without_the_token_the_api_says_nothing() {
    unharmed(|bench| {
        let desktop = bench.desktop(2);
        bench.desktop(1).kubectl("create configmap private --from-literal=word=geheim")?.ok()?;
        let server = format!("https://{}:6443", bench.desktop(1).address());
        let path = "/api/v1/namespaces/default/configmaps/private";
        for header in
            ["", "-H 'Authorization: Bearer wrong'", "-H 'Authorization: Basic YTpi'", "-H 'Authorization:'"]
        {
            for method in ["GET", "POST", "DELETE", "PATCH"] {
                let asked = format!(
                    "curl -sk -m 20 -o /dev/stdout -w '%{{http_code}}' -X {method} {header} {server}{path}"
                );
                let answer = desktop.exec(&asked)?.stdout;
                ensure!(answer.ends_with("401"), "{method} with {header:?} is answered {answer}");
                ensure!(!answer.contains("geheim"), "it was told anyway: {answer}");
            }
        }
        let plain =
            desktop.exec(&format!("curl -s -m 20 http://{}:6443{path}", bench.desktop(1).address()))?;
        ensure!(!plain.stdout.contains("geheim"), "{plain}");
        bench.desktop(1).get("configmap", "private")?;
        Ok(())
    });
}

#[test]
fn commands_say_what_is_wrong_with_them() {
    unharmed(|bench| {
        let desktop = bench.desktop(1);
        for (line, word) in [
            ("get nonsense", "nonsense"),
            ("get pod no-such", "no-such"),
            ("apply -f /no/such/file", "/no/such/file"),
            ("scale deployment/none --replicas=2", "none"),
            ("scale deployment/none --replicas=many", "many"),
            ("logs no-such", "no-such"),
            ("delete pod no-such", "no-such"),
            ("wait --for=condition=Ready pod/no-such --timeout=1s", "no-such"),
        ] {
            let said = desktop.gaggle(line)?.refused()?;
            ensure!(
                said.contains(word) && !said.contains("panicked"),
                "`gaggle {line}` must name {word}: {said}"
            );
        }
        let elsewhere = desktop
            .exec(&format!("'{}' status --data-dir=/no/daemon/here", bench.layout().binary.display()))?;
        let said = elsewhere.refused()?;
        ensure!(said.contains("/no/daemon/here"), "{said}");
        Ok(())
    });
}
