//! Two groups that were founded apart, each with running pods, become one.

use anyhow::{Context, Result, ensure};
use gaggle_tests::bench::{Bench, Desktop, Up, on_bench};
use gaggle_tests::kube::{RECOVERS, SOON, deployment, is_ready, node_of, pod_on, summary};
use std::collections::{BTreeMap, BTreeSet};

/// The containers of pods with this in their name, with the moments of their starts.
fn containers(desktop: &Desktop, part: &str) -> Result<BTreeMap<String, String>> {
    let ids = desktop.docker(&format!("ps -q --no-trunc --filter name=gaggle_main_{part}"))?.ok()?;
    if ids.trim().is_empty() {
        return Ok(BTreeMap::new());
    }
    let ids = ids.split_whitespace().collect::<Vec<_>>().join(" ");
    let lines = desktop.docker(&format!("inspect -f '{{{{.Id}}}} {{{{.State.StartedAt}}}}' {ids}"))?.ok()?;
    let pairs = lines.lines().filter_map(|line| line.split_once(' '));
    Ok(pairs.map(|(id, at)| (id.to_owned(), at.to_owned())).collect())
}

fn of_both(bench: &Bench, side: [usize; 2], part: &str) -> Result<BTreeMap<String, String>> {
    let mut all = containers(bench.desktop(side[0]), part)?;
    all.extend(containers(bench.desktop(side[1]), part)?);
    Ok(all)
}

#[test]
fn what_runs_in_two_groups_goes_on_in_one() {
    on_bench(4, |bench| {
        bench.cut(&[&[1, 2], &[3, 4]])?;
        bench.each(|desktop| desktop.start_daemon(&Up::default()))?;
        let sides = [[1, 2], [3, 4]];
        let mut groups = Vec::new();
        for side in sides {
            groups.push(bench.assembled(&side)?.group);
            let first = bench.desktop(side[0]);
            first.apply(&deployment("both", 4))?;
            first.apply(&deployment(&format!("only{}", side[0]), 3))?;
            first.apply(&pod_on(&format!("alone{}", side[0]), None, "busybox", "sleep 100000"))?;
            first.replicas("both", 4, SOON)?;
            first.replicas(&format!("only{}", side[0]), 3, SOON)?;
            first.pod_in(&format!("alone{}", side[0]), &["Running"])?;
        }
        ensure!(groups[0] != groups[1], "they were to be founded apart: {groups:?}");
        let mut before = Vec::new();
        for side in sides {
            before.push((of_both(bench, side, "only")?, of_both(bench, side, "alone")?));
        }
        bench.heal()?;
        let group = bench.assembled(&[1, 2, 3, 4])?.group;
        let yielded = groups.iter().position(|old| *old != group).context("no group has yielded")?;
        let (one, stayed) = (bench.desktop(1), 1 - yielded);
        one.replicas("both", 4, RECOVERS)?;
        for side in sides {
            one.replicas(&format!("only{}", side[0]), 3, RECOVERS)?;
            one.pod_in(&format!("alone{}", side[0]), &["Running"])?;
        }
        for (index, side) in sides.into_iter().enumerate() {
            let after = (of_both(bench, side, "only")?, of_both(bench, side, "alone")?);
            ensure!(
                after == before[index],
                "group {index} ({stayed} went on): before {:?}, after {after:?}",
                before[index]
            );
        }
        bench.wait_until(SOON, "containers and pods to agree everywhere", || {
            let pods = one.list("pods", "")?;
            ensure!(pods.iter().all(is_ready), "{}", summary(&pods));
            for desktop in bench.desktops() {
                let bound = pods.iter().filter(|pod| node_of(pod) == desktop.name()).count();
                let running = containers(desktop, "")?.len();
                ensure!(running == bound, "{} runs {running} of {bound}", desktop.name());
            }
            Ok(Some(()))
        })
    });
}

#[test]
fn five_who_each_founded_a_group_of_their_own_become_one() {
    on_bench(5, |bench| {
        bench.cut(&[&[1], &[2], &[3], &[4], &[5]])?;
        bench.each(|desktop| desktop.start_daemon(&Up::default()))?;
        let mut groups = BTreeSet::new();
        for desktop in bench.desktops() {
            groups.insert(bench.assembled(&[desktop.index()])?.group.to_string());
            desktop.kubectl(&format!("create configmap of-{} --from-literal=a=b", desktop.name()))?.ok()?;
        }
        ensure!(groups.len() == 5, "they were to be founded apart: {groups:?}");
        bench.heal()?;
        let group = bench.assembled(&[1, 2, 3, 4, 5])?.group.to_string();
        ensure!(groups.contains(&group), "{group} is none of {groups:?}");
        for desktop in bench.desktops() {
            bench.wait_until(SOON, "what each had written to be everywhere", || {
                let here = desktop.list("configmaps", "")?;
                let here: BTreeSet<_> =
                    here.iter().filter_map(|map| map["metadata"]["name"].as_str()).collect();
                ensure!((1..=5).all(|n| here.contains(format!("of-d{n}").as_str())), "{here:?}");
                Ok(Some(()))
            })?;
        }
        Ok(())
    });
}

#[test]
fn whom_one_group_has_evicted_the_other_one_loses_too() {
    on_bench(5, |bench| {
        bench.cut(&[&[1, 2, 3], &[4, 5]])?;
        bench.each(|desktop| desktop.start_daemon(&Up::default()))?;
        let ours = bench.assembled(&[1, 2, 3])?.group;
        let theirs = bench.assembled(&[4, 5])?.group;
        // The third one is out of reach when the others remove it, and does not hear of it.
        bench.cut(&[&[1, 2], &[3], &[4, 5]])?;
        let (witness, evicted) = (bench.desktop(1), bench.desktop(3));
        bench.wait_until(SOON, "the others to go on without the third", || {
            let done = witness.gaggle(&format!("evict --yes {}", evicted.name()))?;
            ensure!(done.code == 0, "{done:?}");
            Ok(Some(()))
        })?;
        bench.wait_until(SOON, "the third to know that it is alone", || {
            Ok((!evicted.status()?.quorum).then_some(()))
        })?;
        bench.cut(&[&[1, 2], &[3, 4, 5]])?;
        let joined = bench.assembled(&[3, 4, 5])?.group;
        ensure!(joined == theirs, "its own group {ours} is out of its reach, and it went to {joined}");
        bench.heal()?;
        evicted.daemon().wait_end(RECOVERS)?;
        let log = evicted.daemon_log();
        ensure!(log.contains("was evicted from the cluster"), "{log}");
        let group = bench.assembled(&[1, 2, 4, 5])?.group;
        ensure!(group == theirs, "the larger one goes on: {group}");
        let nodes = bench.desktop(5).kubectl("get nodes --no-headers")?.ok()?;
        ensure!(!nodes.contains(&evicted.name()), "{} is still on the roster: {nodes}", evicted.name());
        // It comes back in vain, to those as well who never decided it.
        bench.cut(&[&[1, 2], &[3, 4, 5]])?;
        evicted.restart_daemon()?;
        evicted.daemon().wait_end(RECOVERS)
    });
}
