//! Who votes takes care of itself, whoever dies, joins, leaves or is restarted meanwhile.

use anyhow::{Context, Result, ensure};
use gaggle_tests::bench::{Desktop, Up, on_bench};
use gaggle_tests::kube::{RECOVERS, SOON, deployment};
use gaggle_tests::seed::Seed;

#[test]
fn a_dead_voter_is_replaced_one_joins_meanwhile_and_the_leader_leaves() {
    on_bench(5, |bench| {
        bench.each_of(&[1, 2, 3, 4], |desktop| desktop.start_daemon(&Up::default()))?;
        let flock = bench.assembled(&[1, 2, 3, 4])?;
        let leader = bench.leader_and_others(&flock)?.0.index();
        let voters =
            flock.voters.iter().map(|name| Ok(bench.named(name)?.index())).collect::<Result<Vec<_>>>()?;
        let dead = *voters.iter().find(|voter| **voter != leader).context("one voter alone")?;
        let mut names = vec!["before".to_owned()];
        bench.desktop(leader).write(&names[0])?;

        bench.desktop(dead).power_cut()?;
        let mut living: Vec<usize> = (1..=4).filter(|index| *index != dead).collect();
        bench.wait_until(SOON, "a spare to vote in the place of the dead one", || {
            let seen = bench.desktop(leader).status()?;
            ensure!(!seen.voters.contains(&bench.desktop(dead).name()), "the dead one still votes: {seen:?}");
            Ok(Some(()))
        })?;
        bench.assembled(&living)?;
        // A newcomer joins while that one is dead.
        bench.desktop(5).start_daemon(&Up::default())?;
        living.push(5);
        let after = bench.assembled(&living)?;
        ensure!(after.group == flock.group && after.epoch == flock.epoch, "{flock:?} became {after:?}");
        ensure!(!after.voters.contains(&bench.desktop(dead).name()), "the dead one still votes: {after:?}");
        bench.wait_until(SOON, "five to belong: who is dead for a while, and who joined", || {
            let seen = bench.desktop(5).status()?;
            ensure!(seen.roster == 5, "{seen:?}");
            Ok(Some(()))
        })?;
        for &index in &living {
            names.push(format!("meanwhile-{index}"));
            bench.desktop(index).write(&names[names.len() - 1])?;
        }

        // Now the leader leaves, as people do, while that one is still dead.
        let leader = bench.leader_and_others(&after)?.0.index();
        bench.desktop(leader).stop_daemon()?;
        let left: Vec<usize> = living.into_iter().filter(|index| *index != leader).collect();
        let later = bench.assembled(&left)?;
        ensure!(later.group == flock.group && later.epoch == flock.epoch, "{flock:?} became {later:?}");
        names.push("after".to_owned());
        bench.desktop(left[0]).write("after")?;

        for index in [dead, leader] {
            let desktop = bench.desktop(index);
            if !desktop.is_on() {
                desktop.on()?;
            }
            desktop.restart_daemon()?;
        }
        let whole = bench.assembled(&[1, 2, 3, 4, 5])?;
        ensure!(whole.group == flock.group && whole.epoch == flock.epoch, "{flock:?} became {whole:?}");
        bench.everywhere(&[1, 2, 3, 4, 5], &names)
    });
}

#[test]
fn nine_desktops_are_restarted_in_any_order_and_everything_is_there() {
    let all: Vec<usize> = (1..=9).collect();
    on_bench(9, |bench| {
        let flock = bench.up()?;
        let one = bench.desktop(1);
        one.apply(&deployment("web", 9))?;
        one.replicas("web", 9, SOON)?;
        let mut names = Vec::new();
        let mut seed = Seed::new(9).part("orders", 9);
        // One after the other without a pause, as by somebody who walks through the room; then three at a time.
        for (round, at_once) in [1, 3].into_iter().enumerate() {
            let order = seed.shuffled(all.clone());
            for (step, few) in order.chunks(at_once).enumerate() {
                bench.each_of(few, Desktop::crash)?;
                bench.each_of(few, |desktop| {
                    desktop.on()?;
                    desktop.restart_daemon()
                })?;
                let name = format!("round-{round}-step-{step}");
                let others: Vec<usize> = all.iter().copied().filter(|index| !few.contains(index)).collect();
                let asked = bench.desktop(others[seed.below(others.len())]);
                bench.wait_until(RECOVERS, &format!("a write in the order {order:?}"), || {
                    let outcome = asked.kubectl(&format!("create configmap {name} --from-literal=a=b"))?;
                    let there = outcome.stderr.contains("AlreadyExists") || outcome.success();
                    ensure!(there, "{outcome}");
                    Ok(Some(()))
                })?;
                names.push(name);
            }
            let after = bench.assembled(&all)?;
            ensure!(after.group == flock.group, "{flock:?} became {after:?}");
            bench.everywhere(&all, &names)?;
            one.replicas("web", 9, RECOVERS)?;
        }
        Ok(())
    });
}
