//! Who votes takes care of itself, whoever dies, joins, leaves or is restarted meanwhile.

use anyhow::{Context, Result, ensure};
use gaggle_tests::bench::{Bench, Desktop, Flock, Up, on_bench};
use gaggle_tests::kube::{RECOVERS, SOON, deployment};
use gaggle_tests::seed::Seed;
use std::collections::BTreeSet;

/// A write that must be ordered, and not only kept.
fn write(desktop: &Desktop, name: &str) -> Result<()> {
    let outcome = desktop.kubectl(&format!("create configmap {name} --from-literal=a=b"))?;
    ensure!(outcome.success() && !outcome.stderr.contains("Warning"), "{outcome}");
    Ok(())
}

/// Every desktop has all of these.
fn everywhere(bench: &Bench, members: &[usize], names: &[String]) -> Result<()> {
    bench.wait_until(SOON, "every write on every desktop", || {
        for &index in members {
            let listed = bench.desktop(index).kubectl("get configmaps -o name")?.ok()?;
            let there: BTreeSet<&str> =
                listed.lines().filter_map(|line| line.strip_prefix("configmap/")).collect();
            let missing: Vec<_> = names.iter().filter(|name| !there.contains(name.as_str())).collect();
            ensure!(missing.is_empty(), "d{index} lacks {missing:?}");
        }
        Ok(Some(()))
    })
}

fn index_of(bench: &Bench, name: &str) -> Result<usize> {
    let found = bench.desktops().iter().find(|desktop| desktop.name() == name);
    found.map(Desktop::index).with_context(|| format!("no desktop {name}"))
}

fn leader_of(bench: &Bench, flock: &Flock) -> Result<usize> {
    index_of(bench, flock.leader.as_deref().context("nobody leads")?)
}

#[test]
fn a_dead_voter_is_replaced_while_one_joins_and_then_the_leader_leaves() {
    on_bench(5, |bench| {
        bench.each_of(&[1, 2, 3, 4], |desktop| desktop.start_daemon(&Up::default()))?;
        let flock = bench.assembled(&[1, 2, 3, 4])?;
        let leader = leader_of(bench, &flock)?;
        let voters = flock.voters.iter().map(|name| index_of(bench, name)).collect::<Result<Vec<_>>>()?;
        let dead = *voters.iter().find(|voter| **voter != leader).context("one voter alone")?;
        let mut names = vec!["before".to_owned()];
        write(bench.desktop(leader), &names[0])?;

        // The newcomer comes while the dead one is still counted among the voters.
        bench.desktop(dead).power_cut()?;
        bench.desktop(5).start_daemon(&Up::default())?;
        let living: Vec<usize> = (1..=5).filter(|index| *index != dead).collect();
        let after = bench.assembled(&living)?;
        ensure!(after.group == flock.group && after.epoch == flock.epoch, "{flock:?} became {after:?}");
        ensure!(!after.voters.contains(&bench.desktop(dead).name()), "the dead one still votes: {after:?}");
        ensure!(after.roster == 5, "who is dead belongs for a while, and who joined does: {after:?}");
        for &index in &living {
            names.push(format!("meanwhile-{index}"));
            write(bench.desktop(index), &names[names.len() - 1])?;
        }

        // Now the leader leaves, as people do, while that one is still dead.
        let leader = leader_of(bench, &after)?;
        bench.desktop(leader).stop_daemon()?;
        let left: Vec<usize> = living.into_iter().filter(|index| *index != leader).collect();
        let later = bench.assembled(&left)?;
        ensure!(later.group == flock.group && later.epoch == flock.epoch, "{flock:?} became {later:?}");
        names.push("after".to_owned());
        write(bench.desktop(left[0]), "after")?;

        for index in [dead, leader] {
            let desktop = bench.desktop(index);
            if !desktop.is_on() {
                desktop.on()?;
            }
            desktop.restart_daemon()?;
        }
        let whole = bench.assembled(&[1, 2, 3, 4, 5])?;
        ensure!(whole.group == flock.group && whole.epoch == flock.epoch, "{flock:?} became {whole:?}");
        everywhere(bench, &[1, 2, 3, 4, 5], &names)
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
            everywhere(bench, &all, &names)?;
            one.replicas("web", 9, RECOVERS)?;
        }
        Ok(())
    });
}
