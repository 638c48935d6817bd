//! A flock acts when more than half of it is there, whoever votes; and with less when people say so.

use anyhow::{Context, Result, ensure};
use gaggle_tests::bench::{Bench, Desktop, Flock, Up, on_bench};
use gaggle_tests::kube::{RECOVERS, SOON, deployment, is_ready, node_of, summary};
use std::time::{Duration, Instant};

/// Three voters of five desktops: two of them can be lost while more than half is there.
fn up() -> Up {
    Up::default().arg("--voters=3")
}

fn again() -> Up {
    Up::bare().arg("--voters=3")
}

/// Waits until these desktops are one acting flock with so many voters, as each of them sees it.
fn together(bench: &Bench, members: &[usize], voters: usize, deadline: Duration) -> Result<Flock> {
    let mut names: Vec<_> = members.iter().map(|&index| bench.desktop(index).name()).collect();
    names.sort();
    bench.wait_until(deadline, &format!("{names:?} to be one flock"), || {
        let mut first: Option<Flock> = None;
        for &index in members {
            let seen = bench.desktop(index).status()?;
            // One that has just died may be taken for the leader for as long as a lease lasts.
            let leader = seen.leader.as_ref().filter(|leader| names.contains(leader));
            ensure!(seen.quorum && leader.is_some(), "d{index} sees none of them act: {seen:?}");
            ensure!(seen.ready() == names, "d{index} sees {:?} ready", seen.ready());
            ensure!(seen.voters.len() == voters, "d{index} sees other voters: {:?}", seen.voters);
            if let Some(first) = &first {
                ensure!(
                    (&first.group, &first.epoch, &first.leader) == (&seen.group, &seen.epoch, &seen.leader),
                    "d{index} sees {seen:?}, another {first:?}"
                );
            }
            first.get_or_insert(seen);
        }
        Ok(first)
    })
}

fn five_with_three_voters(bench: &Bench) -> Result<Flock> {
    bench.each(|desktop| desktop.start_daemon(&up()))?;
    let flock = together(bench, &[1, 2, 3, 4, 5], 3, Duration::from_secs(90))?;
    // While the roster grows, more than half of the smaller one is needed as well: each is to know that this is over.
    bench.wait_until(SOON, "a roster of five", || {
        let over = |desktop: &Desktop| desktop.daemon_log().contains("5 desktops belong, and enough know it");
        Ok(bench.desktops().iter().any(over).then_some(()))
    })?;
    bench.desktop(1).write("five")?;
    bench.everywhere(&[1, 2, 3, 4, 5], &["five".to_owned()])?;
    Ok(flock)
}

/// The numbers of the leader and another voter, and of the other three.
fn two_voters(bench: &Bench, flock: &Flock) -> Result<([usize; 2], [usize; 3])> {
    let leader = flock.leader.as_deref().context("no leader")?;
    let second = flock.voters.iter().find(|voter| *voter != leader).context("no other voter")?;
    let (leader, second) = (bench.named(leader)?.index(), bench.named(second)?.index());
    let rest: Vec<usize> = (1..=5).filter(|index| *index != leader && *index != second).collect();
    Ok(([leader, second], rest.try_into().map_err(|rest| anyhow::anyhow!("{rest:?}"))?))
}

/// Waits until each desktop runs as many containers of these pods as are bound to it: nothing runs twice.
fn nothing_runs_twice(bench: &Bench, asked: &Desktop, app: &str, replicas: usize) -> Result<()> {
    bench.wait_until(RECOVERS, "containers and pods to agree everywhere", || {
        let pods = asked.list("pods", &format!("-l app={app}"))?;
        ensure!(pods.len() == replicas && pods.iter().all(is_ready), "{}", summary(&pods));
        for desktop in bench.desktops() {
            let bound = pods.iter().filter(|pod| node_of(pod) == desktop.name()).count();
            let running = sleeping(desktop)?;
            ensure!(running == bound, "{} runs {running} of {bound}: {}", desktop.name(), summary(&pods));
        }
        Ok(Some(()))
    })
}

/// Waits until Kubernetes' events say that somebody began the group's next epoch, why, and without whom.
fn told(bench: &Bench, asked: &Desktop, reason: &str, missing: &[usize]) -> Result<()> {
    bench.wait_until(SOON, &format!("an event {reason}"), || {
        let events = asked.kubectl("get events -A")?.ok()?;
        let line = events.lines().find(|line| line.contains(reason)).with_context(|| events.clone())?;
        let names = missing.iter().map(|&index| bench.desktop(index).name());
        ensure!(line.contains("node/") && names.clone().all(|name| line.contains(&name)), "{line}");
        let node = line.split_whitespace().find_map(|word| word.strip_prefix("node/")).context("no node")?;
        let described = asked.kubectl(&format!("describe node {node}"))?.ok()?;
        ensure!(described.contains(reason), "{described}");
        Ok(Some(()))
    })
}

fn sleeping(desktop: &Desktop) -> Result<usize> {
    let commands = desktop.docker("ps --no-trunc --format '{{.Command}}'")?.ok()?;
    Ok(commands.lines().filter(|line| line.contains("sleep 100000")).count())
}

/// Two of three voters, the leader among them, die at once; the other three of five found the group anew.
fn lost_voters(kill: impl Fn(&Desktop) -> Result<()>) {
    on_bench(5, |bench| {
        let before = five_with_three_voters(bench)?;
        let (lost, rest) = two_voters(bench, &before)?;
        let survivor = bench.desktop(rest[0]);
        survivor.apply(&deployment("web", 5))?;
        survivor.replicas("web", 5, SOON)?;
        let mut names = Vec::new();
        for round in 0..6 {
            for &index in &rest[..2] {
                names.push(format!("kept-{index}-{round}"));
                bench.desktop(index).write(&names[names.len() - 1])?;
            }
        }

        let killed = Instant::now();
        for index in lost {
            kill(bench.desktop(index))?;
        }
        let after = together(bench, &rest, 3, RECOVERS)?;
        eprintln!(
            "three of five acted again {:.1} s after the death of two of three voters",
            killed.elapsed().as_secs_f64()
        );
        ensure!(after.group == before.group, "another group: {before:?}, then {after:?}");
        ensure!(after.epoch.as_u64() > before.epoch.as_u64(), "no new epoch: {before:?}, then {after:?}");
        bench.everywhere(&rest, &names)?;
        told(bench, survivor, "GroupFoundedAnew", &lost)?;
        names.push("after".into());
        survivor.write("after")?;
        bench.wait_until(RECOVERS, "five replicas on the three that are left", || {
            let pods = survivor.list("pods", "-l app=web")?;
            let here = |node: String| rest.iter().any(|&index| bench.desktop(index).name() == node);
            let ready = pods.iter().filter(|pod| is_ready(pod) && here(node_of(pod))).count();
            ensure!(ready == 5, "{ready}: {}", summary(&pods));
            Ok(Some(()))
        })?;
        eprintln!("and all ran again after {:.1} s", killed.elapsed().as_secs_f64());

        for index in lost {
            bench.desktop(index).on()?;
            bench.desktop(index).start_daemon(&again())?;
        }
        let whole = together(bench, &[1, 2, 3, 4, 5], 3, RECOVERS)?;
        ensure!((&whole.group, &whole.epoch) == (&after.group, &after.epoch), "{after:?}, then {whole:?}");
        bench.everywhere(&[1, 2, 3, 4, 5], &names)?;
        nothing_runs_twice(bench, survivor, "web", 5)
    });
}

#[test]
fn two_of_three_voters_crash_and_the_rest_founds_anew() {
    lost_voters(Desktop::crash);
}

#[test]
fn two_of_three_voters_lose_their_power_and_the_rest_founds_anew() {
    lost_voters(Desktop::power_cut);
}

#[test]
fn a_leader_that_is_cut_off_with_the_voters_schedules_nothing_and_the_larger_side_goes_on() {
    on_bench(5, |bench| {
        let before = five_with_three_voters(bench)?;
        let (cut, rest) = two_voters(bench, &before)?;
        let (old_leader, survivor) = (bench.desktop(cut[0]), bench.desktop(rest[0]));
        survivor.apply(&deployment("web", 5))?;
        survivor.replicas("web", 5, SOON)?;
        survivor.write("before")?;
        bench.cut(&[&cut, &rest])?;
        // While its leases last it may still order, with two of three voters and nobody who survives it.
        let last = old_leader.kubectl("create configmap of-the-last-moment --from-literal=a=b")?;
        ensure!(last.success(), "{last}");
        eprintln!("the last moment's write was {}", if last.stderr.is_empty() { "ordered" } else { "kept" });
        bench.wait_until(SOON, "the smaller side to notice", || {
            for index in cut {
                let seen = bench.desktop(index).status()?;
                ensure!(!seen.quorum, "{seen:?}");
            }
            Ok(Some(()))
        })?;
        // It still has two of three voters, and must not use them.
        old_leader.apply(&deployment("minor", 3))?;
        let kept = old_leader.kubectl("create configmap of-the-few --from-literal=a=b")?;
        ensure!(kept.success() && kept.stderr.contains("Warning"), "kept, and said to be: {kept}");
        let stopped_at = old_leader.status()?.revision;
        let after = together(bench, &rest, 3, RECOVERS)?;
        ensure!(
            after.group == before.group && after.epoch.as_u64() > before.epoch.as_u64(),
            "{before:?}, {after:?}"
        );
        survivor.write("of-the-many")?;
        survivor.kubectl("scale deployment web --replicas=4")?.ok()?;
        survivor.replicas("web", 4, RECOVERS)?;
        for index in cut {
            let desktop = bench.desktop(index);
            let pods = desktop.kubectl("get pods -l app=minor -o name")?.ok()?;
            ensure!(pods.trim().is_empty(), "{} has made pods without the flock: {pods}", desktop.name());
            let revision = desktop.status()?.revision;
            ensure!(revision == stopped_at, "{} has gone on to {revision}", desktop.name());
        }
        bench.heal()?;
        let whole = together(bench, &[1, 2, 3, 4, 5], 3, RECOVERS)?;
        ensure!((&whole.group, &whole.epoch) == (&after.group, &after.epoch), "{after:?}, then {whole:?}");
        let names = ["before", "of-the-last-moment", "of-the-few", "of-the-many"].map(str::to_owned);
        bench.everywhere(&[1, 2, 3, 4, 5], &names)?;
        survivor.replicas("minor", 3, RECOVERS)?;
        survivor.kubectl("delete deployment minor --wait=true")?.ok()?;
        survivor.gone("pods", "-l app=minor")?;
        nothing_runs_twice(bench, survivor, "web", 4)
    });
}

#[test]
fn one_of_three_waits_until_people_say_go_on() {
    on_bench(3, |bench| {
        let before = bench.up()?;
        let one = bench.desktop(1);
        one.apply(&deployment("web", 3))?;
        one.replicas("web", 3, SOON)?;
        let refused = one.gaggle("recover --yes")?;
        ensure!(!refused.success() && refused.stderr.contains("nothing to recover"), "{refused}");
        bench.desktop(2).power_cut()?;
        bench.desktop(3).power_cut()?;
        bench.wait_until(SOON, "the one that is left to notice", || {
            let seen = one.status()?;
            ensure!(!seen.quorum, "{seen:?}");
            Ok(Some(()))
        })?;
        let kept = one.kubectl("create configmap kept --from-literal=a=b")?;
        ensure!(kept.success() && kept.stderr.contains("Warning"), "kept, and said to be: {kept}");
        bench.wait_until(SOON, "status to say what is missing and what can be done", || {
            let table = one.gaggle("status")?.ok()?;
            ensure!(table.contains("1 of 3 desktops") && table.contains("gaggle recover"), "{table}");
            Ok(Some(()))
        })?;
        let pods = one.list("pods", "-l app=web")?;
        ensure!(
            pods.len() == 3 && pods.iter().any(|pod| node_of(pod) != "d1"),
            "rescheduled: {}",
            summary(&pods)
        );
        let asked = one.gaggle("recover")?;
        ensure!(!asked.success() && asked.stderr.contains("--yes"), "it must ask: {asked}");

        let told = one.gaggle("recover --yes")?.ok()?;
        ensure!(told.contains("1 of 3") && told.contains("may run on both sides"), "{told}");
        let alone = together(bench, &[1], 1, RECOVERS)?;
        ensure!(alone.group != before.group, "{alone:?}");
        self::told(bench, one, "GroupFoundedApart", &[2, 3])?;
        bench.wait_until(RECOVERS, "all replicas on the one that is left", || {
            let pods = one.list("pods", "-l app=web")?;
            let here = pods.iter().filter(|pod| is_ready(pod) && node_of(pod) == "d1").count();
            ensure!(here == 3, "{}", summary(&pods));
            Ok(Some(()))
        })?;
        one.write("alone")?;

        for index in [2, 3] {
            bench.desktop(index).on()?;
            bench.desktop(index).restart_daemon()?;
        }
        bench.assembled(&[1, 2, 3])?;
        bench.everywhere(&[1, 2, 3], &["kept".to_owned(), "alone".to_owned()])?;
        nothing_runs_twice(bench, one, "web", 3)
    });
}

#[test]
fn with_autonomy_two_of_five_go_on_by_themselves_after_the_time() {
    on_bench(5, |bench| {
        bench.each(|desktop| desktop.start_daemon(&Up::default().arg("--autonomy=30s")))?;
        let before = bench.assembled(&[1, 2, 3, 4, 5])?;
        bench.desktop(1).write("before")?;
        let died = Instant::now();
        for index in [3, 4, 5] {
            bench.desktop(index).crash()?;
        }
        let alone = together(bench, &[1, 2], 1, RECOVERS)?;
        ensure!(died.elapsed() > Duration::from_secs(29), "too soon: {:?}", died.elapsed());
        ensure!(alone.group != before.group, "{alone:?}");
        bench.desktop(2).write("alone")?;
        bench.everywhere(&[1, 2], &["before".to_owned(), "alone".to_owned()])
    });
}

#[test]
fn a_leader_that_hears_nobody_is_replaced_and_one_that_a_single_desktop_does_not_hear_is_not() {
    on_bench(3, |bench| {
        let before = bench.up()?;
        let (leader, others) = bench.leader_and_others(&before)?;
        let (leader, others) = (leader.index(), others.iter().map(|other| other.index()).collect::<Vec<_>>());
        // A desktop that flaps: it hears the leader no more, then again, three times.
        for round in 0..3 {
            bench.cut_one_way(leader, others[0])?;
            let name = bench.desktop(others[0]).name();
            bench.wait_until(SOON, "the deaf desktop to notice", || {
                Ok((!bench.desktop(others[0]).status()?.quorum).then_some(()))
            })?;
            bench.desktop(leader).write(&format!("without-{name}-{round}"))?;
            bench.heal()?;
            let healed = bench.assembled(&[1, 2, 3])?;
            ensure!(
                (&healed.leader, &healed.term, &healed.epoch)
                    == (&before.leader, &before.term, &before.epoch),
                "a good leader was unseated by {name}: {before:?}, then {healed:?}"
            );
        }
        for &other in &others {
            bench.cut_one_way(other, leader)?;
        }
        together(bench, &others, 3, RECOVERS)?;
        bench.desktop(others[0]).write("without-the-deaf")?;
        bench.heal()?;
        bench.assembled(&[1, 2, 3])?;
        bench.everywhere(&[1, 2, 3], &["without-the-deaf".to_owned()])
    });
}

/// What a founder says when it has taken a step: the others were asked, its own word is on the disk, it has the word of
/// more than half, and the group's next epoch is begun and announced to nobody yet.
const STEPS: [&str; 4] = [
    "asking whether the group should be founded anew",
    "pledged to founding the group anew, and asking the others",
    "founding the group anew: its voters are lost",
    "following a group group=",
];

/// The one of these desktops that has said, after so many bytes of its log, that it has taken a step.
fn founder_after(bench: &Bench, rest: &[usize], logs: &[usize], step: &str) -> Result<usize> {
    let end = Instant::now() + RECOVERS;
    while Instant::now() < end {
        for (&index, &seen) in rest.iter().zip(logs) {
            let log = bench.desktop(index).daemon_log();
            // Those that follow say the last of these, too.
            let founded =
                log.get(seen..).is_some_and(|log| log.contains(STEPS[2]) || !step.starts_with("following"));
            if founded && log.get(seen..).is_some_and(|log| log.contains(step)) {
                return Ok(index);
            }
        }
        std::thread::sleep(Duration::from_millis(2));
    }
    anyhow::bail!("nobody said {step:?}: {}", bench.report())
}

#[test]
fn a_founder_that_is_killed_after_any_of_its_steps_loses_nothing() {
    on_bench(5, |bench| {
        let mut flock = five_with_three_voters(bench)?;
        let mut names = Vec::new();
        for (round, step) in STEPS.into_iter().enumerate() {
            let (lost, rest) = two_voters(bench, &flock)?;
            for &index in &rest[..2] {
                names.push(format!("kept-{index}-{round}"));
                bench.desktop(index).write(&names[names.len() - 1])?;
            }
            let logs: Vec<usize> =
                rest.iter().map(|&index| bench.desktop(index).daemon_log().len()).collect();
            bench.each_of(&lost, Desktop::kill_daemon)?;
            let founder = founder_after(bench, &rest, &logs, step)?;
            bench.desktop(founder).kill_daemon()?;
            eprintln!("d{founder} was killed after {step:?}");
            bench.desktop(founder).start_daemon(&again())?;
            let after = together(bench, &rest, 3, RECOVERS)?;
            ensure!(after.group == flock.group, "another group: {flock:?}, then {after:?}");
            ensure!(after.epoch.as_u64() > flock.epoch.as_u64(), "no new epoch: {flock:?}, then {after:?}");
            bench.everywhere(&rest, &names)?;
            names.push(format!("after-{round}"));
            bench.desktop(founder).write(&names[names.len() - 1])?;
            bench.each_of(&lost, |desktop| desktop.start_daemon(&again()))?;
            flock = together(bench, &[1, 2, 3, 4, 5], 3, RECOVERS)?;
            ensure!(
                (&flock.group, &flock.epoch) == (&after.group, &after.epoch),
                "{after:?}, then {flock:?}"
            );
        }
        bench.everywhere(&[1, 2, 3, 4, 5], &names)
    });
}
