//! Who belongs, who is alive, and who is removed for good.

use anyhow::{Result, ensure};
use gaggle_tests::bench::{Bench, Desktop, Flock, on_bench};
use gaggle_tests::kube::{RECOVERS, SOON, deployment, node_of, summary};
use std::time::{Duration, Instant};

/// What a daemon logs when it takes another one for dead.
const DEAD: &str = "a member is not heard of any more";

/// How often this desktop has taken another one for dead since it was started.
fn deaths(desktop: &Desktop) -> usize {
    desktop.daemon_log().matches(DEAD).count()
}

fn follower(bench: &Bench, flock: &Flock) -> Result<usize> {
    let found = bench.desktops().iter().find(|desktop| Some(desktop.name()) != flock.leader);
    found.map(Desktop::index).ok_or_else(|| anyhow::anyhow!("everybody leads: {flock:?}"))
}

#[test]
fn a_starved_desktop_is_not_taken_for_dead_and_takes_nobody_for_dead() {
    const STARVES: Duration = Duration::from_secs(20);
    on_bench(3, |bench| {
        let flock = bench.up()?;
        let victim = follower(bench, &flock)?;
        let witness = bench.desktop(if victim == 1 { 2 } else { 1 });
        let before: Vec<usize> = bench.desktops().iter().map(deaths).collect();
        // What is left of one processor is fought over.
        let starved = bench.desktop(victim);
        let busy = [starved.start("while :; do :; done")?, starved.start("while :; do :; done")?];
        let waited = starved.throttled()?;
        starved.starve(3)?;
        let end = Instant::now() + STARVES;
        while Instant::now() < end {
            let seen = witness.status()?;
            ensure!(seen.ready().len() == 3, "while it starves: {seen:?}");
        }
        let waited = starved.throttled()? - waited;
        ensure!(waited > STARVES.as_millis() as u64 / 200, "it was not starved: it waited {waited} times");
        starved.feed()?;
        drop(busy);
        bench.assembled(&[1, 2, 3])?;
        let after: Vec<usize> = bench.desktops().iter().map(deaths).collect();
        ensure!(after == before, "somebody was taken for dead: {before:?}, then {after:?}");
        Ok(())
    });
}

#[test]
fn a_suspended_desktop_is_dead_to_others_and_takes_nobody_for_dead_when_it_wakes() {
    on_bench(3, |bench| {
        let flock = bench.up()?;
        let victim = follower(bench, &flock)?;
        let witness = bench.desktop(if victim == 1 { 2 } else { 1 });
        let (sleeper, before) = (bench.desktop(victim), deaths(bench.desktop(victim)));
        sleeper.suspend()?;
        bench.wait_until(SOON, "the others to miss it", || {
            let seen = witness.status()?;
            Ok((seen.ready().len() == 2).then_some(()))
        })?;
        sleeper.resume()?;
        bench.assembled(&[1, 2, 3])?;
        ensure!(deaths(sleeper) == before, "it took others for dead: {}", sleeper.daemon_log());
        Ok(())
    });
}

#[test]
fn a_dead_desktop_and_a_living_one_are_evicted_for_good() {
    on_bench(4, |bench| {
        let flock = bench.up()?;
        let leader = bench.desktops().iter().find(|desktop| Some(desktop.name()) == flock.leader);
        let leader = leader.map(Desktop::index).unwrap_or(1);
        let others: Vec<usize> = (1..=4).filter(|index| *index != leader).collect();
        let (dead, living, witness) =
            (bench.desktop(others[0]), bench.desktop(others[1]), bench.desktop(others[2]));
        witness.apply(&deployment("web", 6))?;
        witness.replicas("web", 6, SOON)?;

        let asked = witness.gaggle(&format!("evict {}", dead.name()))?;
        ensure!(asked.code == 2, "nobody can be asked: {asked:?}");
        dead.power_cut()?;
        witness.gaggle(&format!("evict --yes {}", dead.name()))?.ok()?;
        runs_without(bench, witness, &dead.name())?;
        dead.on()?;
        dead.restart_daemon()?;
        dead.daemon().wait_end(SOON)?;
        let log = dead.daemon_log();
        ensure!(log.contains("was evicted from the cluster") && log.contains("--data-dir"), "{log}");

        // Its pods' containers are gone, and so is it, without anybody touching it.
        bench.assembled(&[leader, living.index(), witness.index()])?;
        witness.gaggle(&format!("evict --yes {}", living.name()))?.ok()?;
        living.daemon().wait_end(RECOVERS)?;
        let log = living.daemon_log();
        ensure!(log.contains("was evicted from the cluster"), "{log}");
        runs_without(bench, witness, &living.name())?;
        let left = living.docker("ps --format '{{.Command}}'")?.ok()?;
        ensure!(!left.contains("sleep 100000"), "its containers still run: {left}");

        // With a new key it is a new node.
        std::fs::remove_dir_all(living.data_dir())?;
        std::fs::create_dir_all(living.data_dir())?;
        living.start_daemon(&gaggle_tests::bench::Up::default())?;
        bench.assembled(&[leader, living.index(), witness.index()])?;
        Ok(())
    });
}

/// Six replicas run, none on the evicted desktop, which is on no list.
fn runs_without(bench: &Bench, witness: &Desktop, name: &str) -> Result<()> {
    let nodes = witness.kubectl("get nodes --no-headers")?.ok()?;
    ensure!(!nodes.contains(name), "{name} is still on the roster: {nodes}");
    bench.wait_until(RECOVERS, "six replicas on the others", || {
        let pods = witness.list("pods", "-l app=web")?;
        let ready =
            pods.iter().filter(|pod| gaggle_tests::kube::is_ready(pod) && node_of(pod) != name).count();
        ensure!(ready == 6, "{ready}: {}", summary(&pods));
        Ok(Some(()))
    })
}
