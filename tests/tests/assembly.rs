//! Desktops become a flock: at once, one by one, apart and together again, and only those who know the phrase.

use anyhow::{Context, Result, ensure};
use gaggle_tests::bench::{Bench, Desktop, Flock, Up, on_bench};
use gaggle_tests::kube::pod_on;
use std::time::Duration;

const SOON: Duration = Duration::from_secs(60);

/// All at once, and every command answers on every desktop.
fn at_once(desktops: usize) {
    on_bench(desktops, |bench| {
        let flock = bench.up()?;
        ensure!(flock.nodes.len() == desktops, "{flock:?}");
        for desktop in bench.desktops() {
            let node = flock
                .nodes
                .iter()
                .find(|node| node.name == desktop.name())
                .context("a desktop is missing")?;
            let address = desktop.address().to_string();
            ensure!(
                node.addresses.iter().any(|known| known.contains(&address)),
                "{address} is not in {node:?}"
            );
            let table = desktop.gaggle("status")?.ok()?;
            ensure!(
                table.contains(&desktop.name()),
                "the table for people lacks {}: {table}",
                desktop.name()
            );
            let nodes = desktop.kubectl("get nodes --no-headers")?.ok()?;
            ensure!(nodes.lines().filter(|line| line.contains(" Ready")).count() == desktops, "{nodes}");
        }
        Ok(())
    });
}

#[test]
fn one_desktop_is_a_flock() {
    at_once(1);
}

#[test]
fn two_desktops_at_once() {
    at_once(2);
}

#[test]
fn three_desktops_at_once() {
    at_once(3);
}

#[test]
fn five_desktops_at_once() {
    at_once(5);
}

#[test]
fn nine_desktops_at_once() {
    at_once(9);
}

#[test]
fn desktops_join_one_by_one_and_leave_one_by_one() {
    on_bench(5, |bench| {
        let mut members = Vec::new();
        let mut group = None;
        for desktop in bench.desktops() {
            desktop.start_daemon(&Up::default())?;
            members.push(desktop.index());
            let flock = bench.assembled(&members)?;
            let first = group.get_or_insert_with(|| flock.group.clone());
            ensure!(*first == flock.group, "joining founded another group: {flock:?}");
        }
        bench.desktop(1).kubectl("create configmap kept --from-literal=a=b")?.ok()?;
        // The first one is as free to leave as any other.
        for index in [1, 4, 5, 2] {
            bench.desktop(index).down()?;
            members.retain(|&member| member != index);
            bench.assembled(&members)?;
        }
        let kept = bench.desktop(3).get("configmap", "kept")?;
        ensure!(kept["data"]["a"] == "b", "leaving lost what was written: {kept}");
        Ok(())
    });
}

#[test]
fn leaving_waits_for_pods_that_end_slowly_and_leaves_no_container() {
    on_bench(3, |bench| {
        bench.up()?;
        let two = bench.desktop(2);
        two.apply(&pod_on("done", Some("d2"), "busybox", "echo done"))?;
        two.pod_in("done", &["Succeeded"])?;
        // Its shell does not hear SIGTERM, so that it takes all of its grace period.
        let mut stubborn: serde_json::Value =
            serde_json::from_str(&pod_on("stubborn", Some("d2"), "busybox", "trap '' TERM; sleep 100000"))?;
        stubborn["spec"]["terminationGracePeriodSeconds"] = serde_json::json!(25);
        two.apply(&stubborn.to_string())?;
        two.pod_in("stubborn", &["Running"])?;

        two.down()?;
        let left = two.docker("ps -a --format '{{.Names}}'")?.ok()?;
        ensure!(left.trim().is_empty(), "containers stay behind: {left}");
        bench.assembled(&[1, 3])?;
        Ok(())
    });
}

#[test]
fn a_bare_up_rejoins() {
    on_bench(3, |bench| {
        let before = bench.up()?;
        bench.desktop(2).kill_daemon()?;
        bench.desktop(2).restart_daemon()?;
        same_group(&before, &bench.assembled(&[1, 2, 3])?)?;

        bench.desktop(3).power_cut()?;
        bench.desktop(3).on()?;
        bench.desktop(3).restart_daemon()?;
        same_group(&before, &bench.assembled(&[1, 2, 3])?)?;

        bench.each(Desktop::crash)?;
        bench.each(Desktop::on)?;
        bench.each(Desktop::restart_daemon)?;
        same_group(&before, &bench.assembled(&[1, 2, 3])?)
    });
}

fn same_group(before: &Flock, after: &Flock) -> Result<()> {
    ensure!(before.group == after.group, "another group: {before:?}, then {after:?}");
    for node in &before.nodes {
        let again = after.nodes.iter().find(|other| other.name == node.name);
        ensure!(again.is_some_and(|again| again.id == node.id), "{} has another id", node.name);
    }
    Ok(())
}

#[test]
fn groups_that_were_founded_apart_become_one() {
    on_bench(3, |bench| {
        // The switch works, but not yet between the rooms.
        bench.cut(&[&[1, 2], &[3]])?;
        bench.each(|desktop| desktop.start_daemon(&Up::default()))?;
        let large = bench.assembled(&[1, 2])?;
        let small = bench.assembled(&[3])?;
        ensure!(large.group != small.group, "two groups: {large:?}, {small:?}");
        bench.desktop(1).kubectl("create configmap of-two --from-literal=a=1")?.ok()?;
        bench.desktop(3).kubectl("create configmap of-one --from-literal=b=2")?.ok()?;
        bench.heal()?;
        let whole = bench.assembled(&[1, 2, 3])?;
        ensure!(whole.group == large.group, "the smaller one must yield: {whole:?}");
        for desktop in bench.desktops() {
            bench.wait_until(SOON, "both sides' objects to be everywhere", || {
                let there = desktop.kubectl("get configmap of-two of-one -o name")?.ok()?;
                Ok((there.lines().count() == 2).then_some(()))
            })?;
        }
        Ok(())
    });
}

#[test]
fn a_remembered_or_named_peer_needs_no_multicast() {
    on_bench(2, |bench| {
        for desktop in bench.desktops() {
            desktop.exec("iptables -A OUTPUT -d 224.0.0.0/4 -j DROP")?.ok()?;
        }
        bench.desktop(1).start_daemon(&Up::default())?;
        bench.assembled(&[1])?;
        let peer = format!("--peer={}:7474", bench.desktop(1).address());
        bench.desktop(2).start_daemon(&Up::default().arg(peer))?;
        bench.assembled(&[1, 2])?;
        bench.desktop(2).kill_daemon()?;
        bench.desktop(2).restart_daemon()?;
        bench.assembled(&[1, 2])?;
        Ok(())
    });
}

#[test]
fn a_wrong_phrase_gets_nothing_and_is_told_so() {
    on_bench(2, |bench| {
        let (one, two) = (bench.desktop(1), bench.desktop(2));
        one.start_daemon(&Up::default())?;
        bench.assembled(&[1])?;
        one.kubectl("create configmap private --from-literal=a=b")?.ok()?;
        let peer = format!("--peer={}:7474", one.address());
        two.start_daemon(&Up::phrase("velvet-thunder-orchid-basalt-nimble-harbor").arg(peer))?;
        bench.wait_until(SOON, "the stranger to be told that its phrase differs", || {
            let log = two.daemon_log();
            let told = log.lines().any(|line| {
                let line = line.to_lowercase();
                line.contains("phrase")
                    && ["differ", "wrong", "another", "not the same"].iter().any(|w| line.contains(w))
            });
            Ok(told.then_some(()))
        })?;
        let flock = bench.assembled(&[1])?;
        ensure!(flock.nodes.len() == 1, "the stranger got in: {flock:?}");
        // What it may have founded alone holds nothing of the flock's.
        if let Ok(seen) = two.status() {
            ensure!(seen.cluster != flock.cluster && seen.nodes.len() <= 1, "{seen:?}");
            let outcome = two.kubectl("get configmap private")?;
            ensure!(!outcome.success(), "the stranger reads: {outcome}");
        }
        Ok(())
    });
}

#[test]
fn a_weak_or_empty_phrase_is_refused() {
    on_bench(1, |bench| {
        let desktop = bench.desktop(1);
        for phrase in ["password", "", "   ", "abc123"] {
            desktop.start_daemon(&Up::phrase(phrase))?;
            ended_with_error(bench, desktop, "phrase")?;
        }
        let files = desktop.exec(&format!("find '{}' -type f", desktop.data_dir().display()))?.ok()?;
        ensure!(files.trim().is_empty(), "a refused start left {files}");
        Ok(())
    });
}

/// The daemon has ended by itself, with an error that holds this word.
fn ended_with_error(bench: &Bench, desktop: &Desktop, word: &str) -> Result<()> {
    let code = bench.wait_until(SOON, "the refused daemon to end", || Ok(desktop.daemon().exit_code()))?;
    let log = desktop.daemon_log();
    ensure!(code != 0 && code < 128, "exit code {code}: {log}");
    ensure!(
        log.to_lowercase().contains(word) && !log.contains("panicked"),
        "the error must name the {word}: {log}"
    );
    Ok(())
}

#[test]
fn a_node_without_a_phrase_makes_one_and_says_what_to_type() {
    on_bench(2, |bench| {
        let (one, two) = (bench.desktop(1), bench.desktop(2));
        one.start_daemon(&Up::bare())?;
        let phrase = bench.wait_until(SOON, "the line to type on the other desktops", || {
            let log = one.daemon_log();
            let typed = log.lines().find_map(|line| line.split_once("gaggle up "));
            Ok(typed.map(|(_, phrase)| phrase.trim().trim_matches(['"', '\'', '`']).to_owned()))
        })?;
        ensure!(phrase.split(['-', ' ']).count() >= 5, "too short a phrase: {phrase:?}");
        two.start_daemon(&Up::bare().arg(phrase))?;
        bench.assembled(&[1, 2])?;
        Ok(())
    });
}

#[test]
fn a_phrase_given_as_argument_leaves_the_process_list() {
    on_bench(1, |bench| {
        let desktop = bench.desktop(1);
        let phrase = "quiver-marble-sunset-octopus-granite-willow";
        desktop.start_daemon(&Up::bare().arg(phrase))?;
        bench.assembled(&[1])?;
        let seen = desktop.exec("for f in /proc/[0-9]*/cmdline; do tr '\\0' ' ' < $f; echo; done")?;
        ensure!(seen.stdout.contains("gaggle"), "the process list is not readable: {seen}");
        ensure!(!seen.stdout.contains("quiver-marble"), "the phrase is in the process list: {}", seen.stdout);
        ensure!(!desktop.daemon_log().contains(phrase), "the phrase that was given is in the log");
        let readable =
            desktop.exec(&format!("find '{}' -type f -perm /077", desktop.data_dir().display()))?.ok()?;
        ensure!(readable.trim().is_empty(), "others can read {readable}");
        Ok(())
    });
}
