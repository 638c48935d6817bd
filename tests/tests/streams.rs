//! Streams into pods: exec, attach, cp and port-forward, with kubectl and gaggle, to pods on any desktop.

use anyhow::{Context, Result, ensure};
use gaggle_tests::bench::{Desktop, Image, on_bench, poll};
use gaggle_tests::kube::{RECOVERS, SOON, pod_on};
use serde_json::{Value, json};
use std::time::Duration;

/// A file of so many MiB that no compression makes small, and its checksum.
fn noise(desktop: &Desktop, mebibytes: usize) -> Result<(String, String)> {
    let file = desktop.dir().join("noise").display().to_string();
    desktop.exec(&format!("dd if=/dev/urandom of='{file}' bs=1M count={mebibytes}"))?.ok()?;
    let sum = checksum(desktop, &file)?;
    Ok((file, sum))
}

fn checksum(desktop: &Desktop, file: &str) -> Result<String> {
    first_word(&desktop.exec(&format!("sha256sum '{file}'"))?.ok()?)
}

fn first_word(text: &str) -> Result<String> {
    text.split_whitespace().next().map(str::to_owned).context("it printed nothing")
}

#[test]
fn commands_run_in_pods_of_any_desktop() {
    on_bench(2, |bench| {
        bench.up()?;
        let (one, two) = (bench.desktop(1), bench.desktop(2));
        one.apply(&pod_on("here", Some("d1"), "busybox", "sleep 100000"))?;
        one.apply(&pod_on("there", Some("d2"), "busybox", "sleep 100000"))?;
        let (file, sum) = noise(one, 24)?;
        for pod in ["here", "there"] {
            one.pod_in(pod, &["Running"])?;
            let exec = |line: &str| one.kubectl(&format!("exec {line}"));
            ensure!(exec(&format!("{pod} -- hostname"))?.ok()?.trim() == pod, "another pod's name");
            let both = exec(&format!("{pod} -- sh -c 'echo out; echo err >&2; exit 42'"))?;
            ensure!(both.code == 42 && both.stdout == "out\n", "{both}");
            ensure!(both.stderr.starts_with("err\n") && both.stderr.contains("exit code 42"), "{both}");
            let typed = one.kubectl_with(&format!("exec -i {pod} -- wc -c"), &"x".repeat(100_000))?.ok()?;
            ensure!(typed.trim() == "100000", "it counted {typed}");
            // A terminal: one output, the size of the one outside, and what is typed comes back.
            let inside = "tty; until [ \"$(stty size)\" = \"33 111\" ]; do sleep 0.1; done; read x; echo got $x; exit 3";
            let script = one.dir().join("terminal.sh");
            std::fs::write(
                &script,
                format!("stty rows 33 cols 111\nkubectl exec -it {pod} -- sh -c '{inside}'\necho code $?\n"),
            )?;
            let line = format!("script -qec 'sh {}' /dev/null", script.display());
            let outer = one.exec_with(&line, "word\n")?;
            for wanted in ["/dev/pts", "got word", "code 3"] {
                ensure!(outer.stdout.contains(wanted), "{wanted} is missing: {outer}");
            }
            // Large, both ways, by stream and by file.
            one.kubectl(&format!("exec -i {pod} -- sh -c 'cat > /tmp/sent' < '{file}'"))?.ok()?;
            let back = exec(&format!("{pod} -- cat /tmp/sent | sha256sum"))?.ok()?;
            ensure!(first_word(&back)? == sum, "{pod} sends something else");
            one.kubectl(&format!("cp '{file}' {pod}:/tmp/copied"))?.ok()?;
            let inside = exec(&format!("{pod} -- sha256sum /tmp/copied"))?.ok()?;
            ensure!(first_word(&inside)? == sum, "{pod} holds something else");
            let returned = one.dir().join("returned").display().to_string();
            one.kubectl(&format!("cp {pod}:/tmp/copied '{returned}'"))?.ok()?;
            ensure!(checksum(one, &returned)? == sum, "{pod} gives something else back");
            let own = one.gaggle_with(&format!("exec -i {pod} -- sh -c 'cat; exit 5'"), "through gaggle")?;
            ensure!(own.code == 5 && own.stdout == "through gaggle", "{own}");
            // As clients do that know no WebSockets.
            let spdy = one.exec_with(
                &format!(
                    "KUBECTL_REMOTE_COMMAND_WEBSOCKETS=false kubectl exec -i {pod} -- sh -c 'cat; exit 6'"
                ),
                "by spdy",
            )?;
            ensure!(spdy.code == 6 && spdy.stdout == "by spdy", "{spdy}");
        }
        // A command does not outlive its client.
        one.make_kubeconfig()?;
        let left = one.start("kubectl exec there -- sh -c 'echo begun; exec sleep 4321'")?;
        left.wait_for("begun", SOON)?;
        drop(left);
        poll(SOON, "the command to end with its client", || {
            let running = one.kubectl("exec there -- ps")?.ok()?;
            Ok((!running.contains("sleep 4321")).then_some(()))
        })?;
        let missing = one.kubectl("exec there -- no-such-command")?;
        ensure!(!missing.success() && missing.to_string().contains("no-such-command"), "{missing}");
        let wrong = one.kubectl("exec there -c other -- true")?.refused()?;
        ensure!(wrong.contains("container other is not valid for pod there"), "{wrong}");

        // What ends meanwhile: the command's container, then its desktop.
        let killed = one.start("kubectl exec here -- sh -c 'echo begun; sleep 100000'")?;
        killed.wait_for("begun", SOON)?;
        one.kubectl("delete pod here --grace-period=1 --wait=false")?.ok()?;
        let outcome = killed.wait(SOON)?.context("exec goes on after its container's end")?;
        ensure!(outcome.code == 137, "{outcome}");
        let lost = one.start("kubectl exec there -- sh -c 'echo begun; sleep 100000'")?;
        lost.wait_for("begun", SOON)?;
        two.power_cut()?;
        let outcome = lost.wait(RECOVERS)?.context("exec goes on after its desktop's end")?;
        ensure!(!outcome.success() && outcome.stderr.contains("d2"), "{outcome}");
        Ok(())
    });
}

/// A pod whose own process reads what is typed.
fn listener(name: &str, node: &str, tty: bool) -> String {
    let mut pod: Value = serde_json::from_str(&pod_on(name, Some(node), "busybox", "")).unwrap_or_default();
    let container = &mut pod["spec"]["containers"][0];
    container["command"] =
        json!(["sh", "-c", "while read line; do echo said $line; done; echo over; exit 4"]);
    container["stdin"] = true.into();
    container["tty"] = tty.into();
    pod.to_string()
}

#[test]
fn people_attach_to_what_runs() {
    on_bench(2, |bench| {
        bench.up()?;
        let one = bench.desktop(1);
        one.apply(&listener("plain", "d2", false))?;
        one.apply(&listener("terminal", "d2", true))?;
        one.pod_in("plain", &["Running"])?;
        one.pod_in("terminal", &["Running"])?;
        // Its input stays open for the next one.
        for (typed, said) in [("one", "said one"), ("two", "said two")] {
            let attached = one.start(&format!("(echo {typed}; sleep 1000) | kubectl attach -i plain"))?;
            attached.wait_for(said, SOON)?;
        }
        // At a terminal, one thing after the other: what is typed too early is not for the process.
        let keyboard = one.dir().join("keyboard").display().to_string();
        let terminal = one.start(&format!(
            "mkfifo '{keyboard}'; exec 3<>'{keyboard}'; script -qec 'kubectl attach -it terminal' /dev/null <&3"
        ))?;
        terminal.wait_for("press", SOON)?;
        for (typed, said) in [("four\\n", "said four"), ("\\004", "over")] {
            one.exec(&format!("printf '{typed}' > '{keyboard}'"))?.ok()?;
            terminal.wait_for(said, SOON)?;
        }
        ensure!(terminal.wait(SOON)?.is_some(), "kubectl stays attached to what has ended");
        one.pod_in("terminal", &["Failed"])?;

        // A pod for one command: its input, its output, its exit code, and nothing of it left.
        let overrides = json!({"spec": {"nodeSelector": {"kubernetes.io/hostname": "d2"}}});
        let run = format!(
            "run once --rm -i --restart=Never --image=busybox --image-pull-policy=IfNotPresent --overrides='{overrides}' \
             -- sh -c 'read x; echo got $x; exit 9'"
        );
        let ran = one.kubectl_with(&run, "it\n")?;
        ensure!(ran.stdout.contains("got it") && ran.code == 9, "{ran}");
        one.gone("pods", "-l run=once")?;
        Ok(())
    });
}

#[test]
fn ports_of_pods_are_forwarded() {
    on_bench(2, |bench| {
        let web = bench.image(&Image::web())?;
        bench.each(|desktop| desktop.load(&web))?;
        bench.up()?;
        let (one, two) = (bench.desktop(1), bench.desktop(2));
        let (_, sum) = noise(one, 4)?;
        // One server for all, and one for the pod's own loopback.
        let line =
            "mkdir /www; echo hello > /www/hello; httpd -p 127.0.0.1:82 -h /www; httpd -f -p 80 -h /www";
        one.apply(&pod_on("web", Some("d2"), "busybox", line))?;
        one.pod_in("web", &["Running"])?;
        let noise = one.dir().join("noise");
        one.kubectl(&format!("cp '{}' web:/www/noise", noise.display()))?.ok()?;
        one.kubectl("expose pod web --port 8080 --target-port 80")?.ok()?;
        for (what, port, environment) in [
            ("pod/web 18080:80", 18080, ""),
            ("service/web 18081:8080", 18081, ""),
            ("pod/web 18082:80", 18082, "KUBECTL_PORT_FORWARD_WEBSOCKETS=false "),
            ("pod/web 18085:82", 18085, ""),
        ] {
            let forward = one.start(&format!("{environment}kubectl port-forward {what}"))?;
            forward.wait_for("Forwarding from", SOON)?;
            let url = format!("http://127.0.0.1:{port}");
            let hello = one.exec(&format!("curl -sSf --max-time 20 {url}/hello"))?.ok()?;
            ensure!(hello == "hello\n", "{what}: {hello}");
            // One after the other and many at once, each its own connection.
            let many = format!(
                "for n in $(seq 20); do curl -sSf --max-time 60 {url}/hello; done; \
                 seq 30 | xargs -P 10 -I N curl -sSf --max-time 60 {url}/hello"
            );
            let many = one.exec(&many)?.ok()?;
            ensure!(many.lines().filter(|line| *line == "hello").count() == 50, "{what}: {many}");
            let large = one.exec(&format!("curl -sSf --max-time 60 {url}/noise | sha256sum"))?.ok()?;
            ensure!(first_word(&large)? == sum, "{what}: something else came");
        }
        // A port that nobody listens on, and then no desktop: said, and not waited for.
        let closed = one.start("kubectl port-forward pod/web 18083:81")?;
        closed.wait_for("Forwarding from", SOON)?;
        one.exec("curl -s --max-time 20 http://127.0.0.1:18083/")?.refused()?;
        let outcome = closed.wait(SOON)?.context("kubectl goes on although the port is closed")?;
        ensure!(outcome.stderr.contains("error forwarding port 81 to pod web"), "{outcome}");
        let forward = one.start("kubectl port-forward pod/web 18084:80")?;
        forward.wait_for("Forwarding from", SOON)?;
        two.power_cut()?;
        poll(RECOVERS, "the loss of the desktop to be said", || {
            one.exec("curl -s --max-time 10 http://127.0.0.1:18084/hello")?.refused()?;
            ensure!(forward.stderr().contains("d2"), "it says {:?}", forward.stderr());
            Ok(Some(()))
        })?;
        ensure!(forward.wait(Duration::from_secs(20))?.is_some(), "kubectl goes on without the pod");
        Ok(())
    });
}

#[test]
fn a_running_pod_is_looked_into() {
    on_bench(2, |bench| {
        bench.up()?;
        let one = bench.desktop(1);
        one.apply(&pod_on("there", Some("d2"), "busybox", "sleep 98765"))?;
        one.pod_in("there", &["Running"])?;
        let debug = |line: &str| format!("debug --image=busybox --image-pull-policy=IfNotPresent {line}");
        // Someone beside it, who sees the processes of the one that is looked at.
        one.kubectl(&debug("there -c look --target=main -- sh -c 'ps; hostname'"))?.ok()?;
        let seen = poll(SOON, "the container to have looked", || {
            let logs = one.kubectl("logs there -c look")?.ok()?;
            Ok(Some(logs).filter(|logs| logs.contains("there")))
        })?;
        ensure!(seen.contains("sleep 98765"), "it sees other processes: {seen}");
        let talked =
            one.kubectl_with(&debug("-i there -c talk -- sh -c 'read line; echo heard $line'"), "me\n")?;
        ensure!(talked.stdout.contains("heard me"), "{talked}");
        let pod = one.get("pod", "there")?;
        let ended = poll(SOON, "their ends to be told", || {
            let pod = one.get("pod", "there")?;
            let all = pod["status"]["ephemeralContainerStatuses"].as_array().cloned().unwrap_or_default();
            let codes = all.iter().map(|one| one["state"]["terminated"]["exitCode"].as_i64());
            Ok(codes.collect::<Option<Vec<_>>>().filter(|codes| codes.len() == 2))
        })?;
        ensure!(ended == [0, 0], "they ended with {ended:?}");
        ensure!(pod["status"]["containerStatuses"][0]["restartCount"] == 0, "the pod was disturbed: {pod}");
        let taken = one.kubectl(&debug("there -c main -- true"))?;
        ensure!(taken.code != 0 && taken.stderr.contains("main"), "a name twice: {taken}");
        let described = one.kubectl("describe pod there")?.ok()?;
        ensure!(described.contains("Ephemeral Containers:"), "{described}");
        // A copy that can be tried out, and the desktop itself.
        one.kubectl(&debug("there --copy-to=copy --container=main -- sh -c 'echo copied; sleep 100000'"))?
            .ok()?;
        one.pod_in("copy", &["Running"])?;
        ensure!(one.kubectl("logs copy -c main")?.ok()?.contains("copied"), "the copy does something else");
        let made = one.kubectl(&debug("node/d2 -- ls /host"))?;
        let said = format!("{}{}", made.stdout, made.stderr);
        let name = said.split_whitespace().find(|word| word.starts_with("node-debugger-d2-"));
        let name = name.with_context(|| format!("no pod was made: {made}"))?.to_owned();
        one.pod_in(&name, &["Succeeded"])?;
        let listed = one.kubectl(&format!("logs {name}"))?.ok()?;
        ensure!(listed.contains("proc") && listed.contains("etc"), "the desktop's own files: {listed}");
        Ok(())
    });
}
