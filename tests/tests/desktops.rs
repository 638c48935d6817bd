//! What happens to desktops besides dying: damaged files, full disks, stuck engines, other addresses, closed lids.

use anyhow::{Context, Result, ensure};
use gaggle_tests::bench::{Bench, Damage, Desktop, Up, on_bench};
use gaggle_tests::kube::{RECOVERS, SOON, deployment, is_ready, patient_deployment};
use nix::sys::signal::Signal;
use std::collections::BTreeMap;
use std::time::Duration;

/// The containers of a Deployment's pods on a desktop, with the moment of their start.
fn started(desktop: &Desktop) -> Result<BTreeMap<String, String>> {
    let running = desktop.docker(
        "ps -q --no-trunc --filter label=gaggle.dev/pod-name | xargs -r docker inspect -f '{{.Id}} {{.State.StartedAt}}'",
    )?;
    let lines = running.ok()?;
    let pairs = lines.lines().filter_map(|line| line.split_once(' '));
    Ok(pairs.map(|(id, at)| (id.to_owned(), at.to_owned())).collect())
}

/// What every desktop's API says of all ConfigMaps and Deployments: it must be the same everywhere.
fn one_state(bench: &Bench) -> Result<()> {
    bench.wait_until(SOON, "one state everywhere", || {
        let mut states = BTreeMap::new();
        for desktop in bench.desktops() {
            let said = desktop.kubectl(
                "get configmaps,deployments,pods -A -o jsonpath='{range .items[*]}{.kind} {.metadata.name} {.metadata.resourceVersion}{\"\\n\"}{end}'",
            )?;
            states.entry(said.ok()?).or_insert_with(Vec::new).push(desktop.name());
        }
        ensure!(states.len() == 1, "{states:#?}");
        Ok(Some(()))
    })
}

fn has(desktop: &Desktop, configmap: &str) -> Result<bool> {
    Ok(desktop
        .kubectl(&format!("get configmap {configmap} --ignore-not-found -o name"))?
        .ok()?
        .contains(configmap))
}

/// A voter's files are damaged while it is down; it has to come back as a voter, with everything that was
/// acknowledged, and under its running pods.
fn comes_back_from(files: &[(&str, Damage)], set_aside: Option<&str>) {
    on_bench(3, |bench| {
        let flock = bench.up()?;
        let (leader, others) = bench.leader_and_others(&flock)?;
        let victim = others[0];
        leader.apply(&patient_deployment("web", 6))?;
        leader.replicas("web", 6, SOON)?;
        leader.kubectl("create configmap before --from-literal=a=b")?.ok()?;
        let running = started(victim)?;
        ensure!(!running.is_empty(), "nothing runs on {}", victim.name());
        victim.kill_daemon()?;
        leader.kubectl("create configmap meanwhile --from-literal=a=b")?.ok()?;
        for (file, damage) in files {
            victim.damage(file, *damage)?;
        }
        victim.restart_daemon()?;
        let after = bench.assembled(&[1, 2, 3])?;
        ensure!(after.group == flock.group && after.epoch == flock.epoch, "{flock:?} became {after:?}");
        one_state(bench)?;
        ensure!(has(victim, "before")? && has(victim, "meanwhile")?, "something acknowledged is lost");
        ensure!(started(victim)? == running, "pods were restarted for it");
        let log = victim.daemon_log();
        ensure!(!log.contains("panicked"), "{log}");
        if let Some(place) = set_aside {
            ensure!(victim.data_dir().join(place).exists(), "{place} is not kept: {log}");
            ensure!(log.contains(place), "nobody is told of {place}: {log}");
        }
        // It votes again, and with what it has: it and one other go on without the leader.
        leader.power_cut()?;
        bench.wait_until(RECOVERS, "a leader among the two that are left", || {
            let now = victim.status()?;
            Ok((now.quorum && now.leader != after.leader).then_some(()))
        })?;
        victim.kubectl("create configmap after --from-literal=a=b")?.ok()?;
        ensure!(has(victim, "before")? && has(victim, "meanwhile")?, "something acknowledged is lost");
        Ok(())
    });
}

#[test]
fn a_voter_with_a_damaged_log_is_filled_anew_before_it_votes() {
    comes_back_from(&[("raft/raft.log", Damage::Flip(0))], Some("raft.damaged-1"));
}

#[test]
fn a_voter_whose_log_was_cut_short_is_filled_anew_before_it_votes() {
    comes_back_from(&[("raft/raft.log", Damage::Cut(5000))], Some("raft.damaged-1"));
}

#[test]
fn a_voter_whose_log_and_documents_are_gone_or_damaged_gets_them_back() {
    let files = [
        ("raft/raft.log", Damage::Remove),
        ("intent.redb", Damage::Cut(700)),
        ("remembered.json", Damage::Cut(9)),
    ];
    comes_back_from(&files, Some("intent.redb.damaged-1"));
}

#[test]
fn a_desktop_alone_with_a_damaged_log_says_what_is_lost_and_has_what_was_asked_for() {
    on_bench(1, |bench| {
        bench.up()?;
        let one = bench.desktop(1);
        one.apply(&deployment("web", 2))?;
        one.replicas("web", 2, SOON)?;
        one.kubectl("create configmap asked-for --from-literal=a=b")?.ok()?;
        // Its document follows what was ordered, and a second change waits for that.
        one.kubectl("label configmap asked-for second=change")?.ok()?;
        one.kill_daemon()?;
        one.damage("raft/raft.log", Damage::Flip(0))?;
        one.restart_daemon()?;
        bench.assembled(&[1])?;
        bench.wait_until(SOON, "what was asked for", || Ok(has(one, "asked-for")?.then_some(())))?;
        one.replicas("web", 2, RECOVERS)?;
        let log = one.daemon_log();
        ensure!(log.contains("no other desktop has a copy") && log.contains("raft.damaged-1"), "{log}");
        one.kubectl("create configmap after --from-literal=a=b")?.ok()?;
        Ok(())
    });
}

#[test]
fn every_address_changes_at_once_while_all_run() {
    on_bench(3, |bench| {
        let flock = bench.up()?;
        let one = bench.desktop(1);
        one.apply(&deployment("web", 6))?;
        one.replicas("web", 6, SOON)?;
        let running = each_started(bench)?;
        // Two of them even swap theirs, so that what was remembered leads to the wrong desktop.
        for (index, last_byte) in [(1, 99), (2, 3), (3, 2)] {
            bench.desktop(index).readdress(last_byte)?;
        }
        let after = bench.assembled(&[1, 2, 3])?;
        ensure!(after.group == flock.group, "{flock:?} became {after:?}");
        bench.wait_until(SOON, "the new addresses to be known everywhere", || {
            for desktop in bench.desktops() {
                for node in desktop.status()?.nodes {
                    let address = bench.named(&node.name)?.address().to_string();
                    ensure!(
                        node.addresses == [address.clone()],
                        "{} says {node:?}, not {address}",
                        desktop.name()
                    );
                }
            }
            Ok(Some(()))
        })?;
        // The API answers at the new addresses, with a certificate that names them.
        bench.desktop(2).kubectl("create configmap moved --from-literal=a=b")?.ok()?;
        one_state(bench)?;
        one.replicas("web", 6, SOON)?;
        let now = each_started(bench)?;
        let events = one.kubectl("get events --sort-by=.lastTimestamp")?;
        ensure!(now == running, "pods were restarted for it: {running:?} became {now:?}: {events}");
        Ok(())
    });
}

#[test]
fn all_are_off_at_once_and_come_back_in_any_order_at_other_addresses() {
    on_bench(5, |bench| {
        let flock = bench.up()?;
        let one = bench.desktop(1);
        one.apply(&deployment("web", 5))?;
        one.replicas("web", 5, SOON)?;
        let mut written = Vec::new();
        for (round, order) in [[5, 3, 1, 4, 2], [2, 1, 5, 3, 4]].into_iter().enumerate() {
            let name = format!("round-{round}");
            bench.desktop(order[0]).kubectl(&format!("create configmap {name} --from-literal=a=b"))?.ok()?;
            written.push(name);
            // The power fails in the whole building.
            bench.each(Desktop::power_cut)?;
            if round == 1 {
                for (index, desktop) in bench.desktops().iter().enumerate() {
                    desktop.readdress(100 + u8::try_from(index)?)?;
                }
            }
            for index in order {
                bench.desktop(index).on()?;
                bench.desktop(index).restart_daemon()?;
            }
            let after = bench.assembled(&[1, 2, 3, 4, 5])?;
            ensure!(after.group == flock.group, "{flock:?} became {after:?}");
            one_state(bench)?;
            for (desktop, name) in
                bench.desktops().iter().flat_map(|d| written.iter().map(move |name| (d, name)))
            {
                ensure!(has(desktop, name)?, "{} has lost {name}", desktop.name());
            }
            one.replicas("web", 5, RECOVERS)?;
        }
        Ok(())
    });
}

/// What runs where, and since when.
fn each_started(bench: &Bench) -> Result<Vec<BTreeMap<String, String>>> {
    bench.desktops().iter().map(started).collect()
}

/// Some desktops sleep for longer than anybody waits for them, and wake up.
fn sleepers(desktops: usize, choose: impl FnOnce(usize) -> Vec<usize>) {
    on_bench(desktops, |bench| {
        let flock = bench.up()?;
        let (leader, _) = bench.leader_and_others(&flock)?;
        let sleeping = choose(leader.index());
        let awake: Vec<&Desktop> =
            bench.desktops().iter().filter(|d| !sleeping.contains(&d.index())).collect();
        leader.apply(&deployment("web", 4))?;
        leader.replicas("web", 4, SOON)?;
        leader.kubectl("create configmap before --from-literal=a=b")?.ok()?;
        bench.each_of(&sleeping, Desktop::suspend)?;
        match awake.first() {
            Some(witness) => {
                bench.wait_until(RECOVERS, "the others to go on", || {
                    let flock = witness.status()?;
                    ensure!(flock.quorum && flock.ready().len() == awake.len(), "{flock:?}");
                    Ok(Some(()))
                })?;
                witness.kubectl("create configmap meanwhile --from-literal=a=b")?.ok()?;
            }
            // Nobody is there to see it: longer than every grace that a daemon has for another.
            None => std::thread::sleep(Duration::from_secs(20)),
        }
        bench.each_of(&sleeping, Desktop::resume)?;
        let all: Vec<usize> = (1..=desktops).collect();
        let after = bench.assembled(&all)?;
        ensure!(after.group == flock.group, "{flock:?} became {after:?}");
        one_state(bench)?;
        for desktop in bench.desktops() {
            ensure!(has(desktop, "before")?, "{} has lost what was acknowledged", desktop.name());
            ensure!(awake.is_empty() || has(desktop, "meanwhile")?, "{} does not follow", desktop.name());
        }
        leader.replicas("web", 4, RECOVERS)?;
        Ok(())
    });
}

#[test]
fn a_leader_whose_lid_is_closed_is_replaced_and_follows_when_it_wakes() {
    sleepers(3, |leader| vec![leader]);
}

#[test]
fn a_whole_room_that_slept_goes_on_where_it_was() {
    sleepers(3, |_| vec![1, 2, 3]);
}

#[test]
fn a_docker_that_is_stuck_makes_its_desktop_not_ready_and_costs_no_pod() {
    on_bench(2, |bench| {
        bench.up()?;
        let (one, two) = (bench.desktop(1), bench.desktop(2));
        one.apply(&deployment("web", 4))?;
        one.replicas("web", 4, SOON)?;
        let running = each_started(bench)?;
        two.engine().signal(Signal::SIGSTOP)?;
        bench.wait_until(SOON, "the stuck engine to be told of", || {
            let node = one.get("node", "d2")?;
            let conditions = node["status"]["conditions"].as_array().cloned().unwrap_or_default();
            let ready =
                conditions.iter().find(|condition| condition["type"] == "Ready").context("no condition")?;
            let why = ready["message"].as_str().unwrap_or_default();
            ensure!(ready["status"] == "False" && why.contains("has not answered"), "{ready}");
            Ok(Some(()))
        })?;
        // All else on that desktop goes on.
        two.kubectl("create configmap while-stuck --from-literal=a=b")?.ok()?;
        ensure!(has(one, "while-stuck")?, "the write got lost");
        // Pods for it wait; they are not given to an engine that does not answer.
        one.kubectl("scale deployment web --replicas=5")?.ok()?;
        bench.wait_until(SOON, "the fifth pod to run where Docker answers", || {
            let pods = one.list("pods", "-l app=web")?;
            let on_one = pods.iter().filter(|pod| is_ready(pod) && pod["spec"]["nodeName"] == "d1").count();
            Ok((on_one == 3 && pods.len() == 5).then_some(()))
        })?;
        two.engine().signal(Signal::SIGCONT)?;
        bench.assembled(&[1, 2])?;
        one.replicas("web", 5, SOON)?;
        ensure!(started(two)? == running[1], "pods were restarted for it");
        Ok(())
    });
}

#[test]
fn a_full_disk_refuses_writes_in_words_and_goes_on_when_there_is_room() {
    on_bench(1, |bench| {
        let one = bench.desktop(1);
        one.small_disk(48)?;
        bench.up()?;
        one.apply(&deployment("web", 2))?;
        one.replicas("web", 2, SOON)?;
        one.kubectl("create configmap before --from-literal=a=b")?.ok()?;
        let running = started(one)?;
        one.fill_disk()?;
        let big = "x".repeat(100_000);
        let refusal = bench.wait_until(SOON, "a write to be refused", || {
            let outcome = one.kubectl_with("create -f -", &config_map("refused", &big))?;
            ensure!(!outcome.success(), "it was written");
            ensure!(outcome.stderr.contains(&one.data_dir().display().to_string()), "{outcome}");
            ensure!(outcome.stderr.contains("No space left"), "{outcome}");
            Ok(Some(outcome))
        });
        let refusal = refusal?;
        // What is known can be read, and what runs goes on.
        ensure!(has(one, "before")?, "reads must go on; a write said {refusal}");
        ensure!(started(one)? == running, "pods were restarted for it");
        one.empty_disk()?;
        bench.wait_until(SOON, "writes to be taken again", || {
            let written = one.kubectl_with("apply -f -", &config_map("after", "a"))?;
            ensure!(written.success() && !written.stderr.contains("Warning"), "{written}");
            Ok(Some(()))
        })?;
        ensure!(has(one, "before")? && started(one)? == running, "something was lost");
        one.kill_daemon()?;
        one.restart_daemon()?;
        bench.assembled(&[1])?;
        ensure!(has(one, "before")? && has(one, "after")?, "what was acknowledged is lost");
        ensure!(!one.daemon_log().contains("damaged"), "a full disk has damaged files");
        Ok(())
    });
}

fn config_map(name: &str, value: &str) -> String {
    serde_json::json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}, "data": {"a": value}})
        .to_string()
}

#[test]
fn a_voter_with_a_full_disk_lets_others_lead_and_comes_back() {
    on_bench(3, |bench| {
        for desktop in bench.desktops() {
            desktop.small_disk(48)?;
        }
        let flock = bench.up()?;
        let (leader, others) = bench.leader_and_others(&flock)?;
        leader.kubectl("create configmap before --from-literal=a=b")?.ok()?;
        leader.fill_disk()?;
        let witness = others[0];
        let mut round = 0_usize;
        bench.wait_until(RECOVERS, "another one to lead", || {
            // Something has to be written for the disk to be noticed.
            round += 1;
            witness.kubectl_with("apply -f -", &config_map("probe", &"x".repeat(100_000 + round)))?;
            let now = witness.status()?;
            ensure!(now.quorum && now.leader.is_some() && now.leader != flock.leader, "{now:?}");
            Ok(Some(()))
        })?;
        witness.kubectl("create configmap meanwhile --from-literal=a=b")?.ok()?;
        leader.empty_disk()?;
        bench.assembled(&[1, 2, 3])?;
        one_state(bench)?;
        for desktop in bench.desktops() {
            ensure!(
                has(desktop, "before")? && has(desktop, "meanwhile")?,
                "{} lacks a write",
                desktop.name()
            );
        }
        Ok(())
    });
}

#[test]
fn a_disk_that_turned_read_only_is_told_of_and_loses_nothing() {
    on_bench(3, |bench| {
        let flock = bench.up()?;
        let (leader, others) = bench.leader_and_others(&flock)?;
        let witness = others[0];
        leader.kubectl("create configmap before --from-literal=a=b")?.ok()?;
        leader.kill_daemon()?;
        leader.failing_disk()?;
        leader.restart_daemon()?;
        bench.assembled(&[1, 2, 3])?;
        leader.fail_disk()?;
        let mut round = 0_usize;
        bench.wait_until(RECOVERS, "it to be no voter that counts", || {
            round += 1;
            witness.kubectl_with("apply -f -", &config_map("probe", &round.to_string()))?;
            let now = witness.status()?;
            let log = leader.daemon_log();
            ensure!(now.quorum && now.leader.as_deref() != Some(&leader.name()), "{now:?}");
            ensure!(log.contains("Read-only file system") && !log.contains("panicked"), "{log}");
            Ok(Some(()))
        })?;
        witness.kubectl("create configmap meanwhile --from-literal=a=b")?.ok()?;
        leader.kill_daemon()?;
        leader.mend_disk()?;
        leader.restart_daemon()?;
        bench.assembled(&[1, 2, 3])?;
        one_state(bench)?;
        ensure!(has(leader, "before")? && has(leader, "meanwhile")?, "{} lacks a write", leader.name());
        Ok(())
    });
}

/// People write through every desktop of a flock whose network has become bad, and scale; afterwards all of it is there.
fn slow_and_not_wrong<T>(
    worsen: impl FnOnce(&Bench) -> Result<T>,
    mend: impl FnOnce(&Bench, T) -> Result<()>,
) {
    on_bench(3, |bench| {
        let flock = bench.up()?;
        let one = bench.desktop(1);
        one.apply(&deployment("web", 3))?;
        one.replicas("web", 3, SOON)?;
        let bad = worsen(bench)?;
        let mut written = Vec::new();
        for round in 0..12_usize {
            let desktop = &bench.desktops()[round % 3];
            let name = format!("round-{round}");
            // An outcome that is not known is asked again, as the answer says.
            bench.wait_until(RECOVERS, "a write to be ordered", || {
                let outcome = desktop.kubectl_with("apply -f -", &config_map(&name, "a"))?;
                ensure!(outcome.success() && !outcome.stderr.contains("Warning"), "{outcome}");
                Ok(Some(()))
            })?;
            written.push(name);
        }
        one.kubectl("scale deployment web --replicas=6")?.ok()?;
        one.replicas("web", 6, RECOVERS)?;
        mend(bench, bad)?;
        let after = bench.assembled(&[1, 2, 3])?;
        ensure!(after.group == flock.group && after.epoch == flock.epoch, "{flock:?} became {after:?}");
        one_state(bench)?;
        for (desktop, name) in bench.desktops().iter().flat_map(|d| written.iter().map(move |name| (d, name)))
        {
            ensure!(has(desktop, name)?, "{} has lost {name}", desktop.name());
        }
        Ok(())
    });
}

#[test]
fn a_network_that_loses_every_fifth_packet_is_slow_and_not_wrong() {
    slow_and_not_wrong(|bench| bench.lose_packets(0.2), |bench, ()| bench.heal_cables());
}

/// As between two buildings with a bad radio link: an answer takes 400 ms.
#[test]
fn a_network_with_200_ms_of_delay_is_slow_and_not_wrong() {
    let worsen = |bench: &Bench| bench.lengthen_wires(Duration::from_millis(200));
    slow_and_not_wrong(worsen, |_, wires| {
        drop(wires);
        Ok(())
    });
}

/// With both at once a TCP connection carries some ten KiB/s (Mathis et al., 1997): leaders may not last. What is
/// written meanwhile is ordered or kept, and all of it is there when the network is good again.
#[test]
fn a_network_that_delays_and_loses_costs_no_write() {
    on_bench(3, |bench| {
        let flock = bench.up()?;
        let one = bench.desktop(1);
        one.apply(&patient_deployment("web", 3))?;
        one.replicas("web", 3, SOON)?;
        bench.lose_packets(0.2)?;
        let wires = bench.lengthen_wires(Duration::from_millis(200))?;
        let mut written = Vec::new();
        for (round, desktop) in bench.desktops().iter().cycle().take(9).enumerate() {
            let name = format!("round-{round}");
            bench.wait_until(RECOVERS, "a write to be ordered or kept", || {
                let outcome = desktop.kubectl_with("apply -f -", &config_map(&name, "a"))?;
                ensure!(outcome.success(), "{outcome}");
                Ok(Some(()))
            })?;
            written.push(name);
        }
        drop(wires);
        bench.heal_cables()?;
        let after = bench.assembled(&[1, 2, 3])?;
        ensure!(after.group == flock.group, "{flock:?} became {after:?}");
        bench.wait_until(SOON, "every write on every desktop", || {
            for (desktop, name) in
                bench.desktops().iter().flat_map(|d| written.iter().map(move |name| (d, name)))
            {
                ensure!(has(desktop, name)?, "{} has lost {name}", desktop.name());
            }
            Ok(Some(()))
        })?;
        one_state(bench)?;
        one.replicas("web", 3, RECOVERS)?;
        Ok(())
    });
}

#[test]
fn clocks_that_jump_by_hours_change_nothing() {
    on_bench(3, |bench| {
        bench.each(|desktop| desktop.start_daemon(&desktop.with_own_clock(Up::default())?))?;
        let flock = bench.assembled(&[1, 2, 3])?;
        let (leader, others) = bench.leader_and_others(&flock)?;
        leader.apply(&patient_deployment("web", 6))?;
        leader.replicas("web", 6, SOON)?;
        let running = each_started(bench)?;
        let hours = |hours: i64| hours * 3600;
        let jumps = [(leader, 6), (others[0], -6), (leader, -12), (others[1], 30 * 24), (leader, 0)];
        for (round, (desktop, by)) in jumps.into_iter().enumerate() {
            desktop.set_clock(hours(by))?;
            for writer in [leader, others[0], others[1]] {
                writer
                    .kubectl(&format!("create configmap jump-{round}-{} --from-literal=a=b", writer.name()))?
                    .ok()?;
            }
            let now = bench.assembled(&[1, 2, 3])?;
            ensure!(now.group == flock.group && now.leader == flock.leader, "{flock:?} became {now:?}");
        }
        // The jumps took place: what the leader made after its first one says so.
        let made = leader.get("configmap", &format!("jump-0-{}", leader.name()))?;
        let five_hours_on = leader.exec("date -u -d '+5 hours' +%Y-%m-%dT%H:%M:%SZ")?.ok()?;
        let made_at = made["metadata"]["creationTimestamp"].as_str().unwrap_or_default();
        ensure!(made_at > five_hours_on.trim(), "its clock has not jumped: {made_at}");
        one_state(bench)?;
        ensure!(each_started(bench)? == running, "pods were restarted for it");
        // A desktop whose clock has gone back since its last run is not taken for its own past.
        for (desktop, by) in [(others[0], -48), (leader, -1000)] {
            desktop.set_clock(hours(by))?;
            desktop.kill_daemon()?;
            desktop.start_daemon(&desktop.with_own_clock(Up::bare())?)?;
            bench.assembled(&[1, 2, 3])?;
        }
        // Pods are still made, on each, and jobs end.
        leader.kubectl("scale deployment web --replicas=9")?.ok()?;
        leader.replicas("web", 9, SOON)?;
        one_state(bench)
    });
}
