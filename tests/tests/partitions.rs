//! Five desktops, cut apart in every way that matters, and healed.

use anyhow::{Context, Result, ensure};
use gaggle_tests::bench::{Bench, Desktop, on_bench};
use gaggle_tests::kube::{RECOVERS, SOON, as_yaml, deployment, is_ready, node_of, summary};
use std::collections::BTreeSet;

const REPLICAS: usize = 5;

/// The leader's number first, then the others'.
fn leader_first(bench: &Bench) -> Result<Vec<usize>> {
    let leader = bench.desktop(1).status()?.leader.context("no leader")?;
    let mut order: Vec<usize> = bench.desktops().iter().map(Desktop::index).collect();
    order.sort_by_key(|index| (bench.desktop(*index).name() != leader, *index));
    Ok(order)
}

/// The ids of the containers that do the Deployment's work on a desktop.
fn containers(desktop: &Desktop) -> Result<BTreeSet<String>> {
    let ids = desktop.docker("ps -q --no-trunc --filter ancestor=busybox")?.ok()?;
    Ok(ids.lines().map(str::to_owned).collect())
}

/// A side with more than half of the desktops: goes on as if nothing else had ever been there.
fn goes_on(bench: &Bench, side: &[usize], round: usize) -> Result<()> {
    let names: Vec<String> = side.iter().map(|index| bench.desktop(*index).name()).collect();
    for index in side {
        let desktop = bench.desktop(*index);
        bench.wait_until(RECOVERS, &format!("{} to act", desktop.name()), || {
            let flock = desktop.status()?;
            ensure!(
                flock.quorum && flock.leader.as_ref().is_some_and(|leader| names.contains(leader)),
                "{flock:?}"
            );
            Ok(Some(()))
        })?;
    }
    let desktop = bench.desktop(side[0]);
    let ordered = desktop.kubectl(&format!("create configmap many-{round} --from-literal=a=b"))?;
    ensure!(
        ordered.success() && !ordered.stderr.contains("Warning:"),
        "ordered, without a warning: {ordered}"
    );
    desktop.kubectl(&format!("annotate --overwrite deployment web many={round}"))?.ok()?;
    // What ran on the other side is replaced on this one.
    bench.wait_until(RECOVERS, "the replicas on the side that acts", || {
        let pods = desktop.list("pods", "-l app=web")?;
        let here = pods.iter().filter(|pod| is_ready(pod) && names.contains(&node_of(pod))).count();
        ensure!(here == REPLICAS, "{here} run: {}", summary(&pods));
        Ok(Some(()))
    })
}

/// A side with half of the desktops or less: keeps what runs, answers, and keeps what is written, but decides nothing.
fn holds_still(bench: &Bench, side: &[usize], round: usize) -> Result<()> {
    let before: Vec<_> = side.iter().map(|index| containers(bench.desktop(*index))).collect::<Result<_>>()?;
    for index in side {
        let desktop = bench.desktop(*index);
        bench.wait_until(SOON, &format!("{} to notice", desktop.name()), || {
            let flock = desktop.status()?;
            ensure!(!flock.quorum, "{flock:?}");
            Ok(Some(()))
        })?;
    }
    let desktop = bench.desktop(side[0]);
    let few = format!("few-{round}-{}", desktop.name());
    ensure!(!desktop.list("pods", "-l app=web")?.is_empty(), "reads are answered");
    for (write, manifest) in [
        (format!("create configmap {few} --from-literal=a=b"), String::new()),
        (format!("label --overwrite deployment web {}={round}", desktop.name()), String::new()),
        ("apply -f -".into(), as_yaml(&deployment(&few, 3))),
    ] {
        let kept = desktop.kubectl_with(&write, &manifest)?;
        ensure!(kept.success() && kept.stderr.contains("Warning:"), "kept, and said to be: {kept}");
    }
    let after: Vec<_> = side.iter().map(|index| containers(bench.desktop(*index))).collect::<Result<_>>()?;
    ensure!(before == after, "what ran has changed: {before:?}, {after:?}");
    Ok(())
}

/// After the cable is back: one flock, both sides' edits, each pod's container once and no other.
fn is_whole(bench: &Bench, sides: &[&[usize]], round: usize) -> Result<()> {
    bench.assembled(&[1, 2, 3, 4, 5])?;
    let acted = sides.iter().find(|side| side.len() * 2 > bench.desktops().len());
    let held: Vec<String> =
        sides.iter().filter(|side| Some(*side) != acted).map(|side| bench.desktop(side[0]).name()).collect();
    let wanted = round.to_string();
    for desktop in bench.desktops() {
        bench.wait_until(SOON, &format!("all edits on {}", desktop.name()), || {
            let web = &desktop.get("deployment", "web")?["metadata"];
            if acted.is_some() {
                desktop.get("configmap", &format!("many-{round}"))?;
                ensure!(web["annotations"]["many"] == wanted.as_str(), "{web}");
            }
            for name in &held {
                desktop.get("configmap", &format!("few-{round}-{name}"))?;
                ensure!(web["labels"][name] == wanted.as_str(), "the edit of {name} is missing: {web}");
            }
            Ok(Some(()))
        })?;
    }
    let one = bench.desktop(1);
    one.replicas("web", REPLICAS, RECOVERS)?;
    for name in &held {
        one.replicas(&format!("few-{round}-{name}"), 3, RECOVERS)?;
        one.kubectl(&format!("delete deployment few-{round}-{name}"))?.ok()?;
    }
    bench.wait_until(RECOVERS, "containers and pods to agree everywhere", || {
        let pods = one.list("pods", "")?;
        for desktop in bench.desktops() {
            let bound = pods.iter().filter(|pod| node_of(pod) == desktop.name()).count();
            let running = containers(desktop)?.len();
            ensure!(running == bound, "{} runs {running} of {bound}: {}", desktop.name(), summary(&pods));
        }
        ensure!(pods.len() == REPLICAS, "{}", summary(&pods));
        Ok(Some(()))
    })
}

#[test]
fn any_cut_of_five_desktops_heals() {
    on_bench(5, |bench| {
        bench.up()?;
        bench.desktop(1).apply(&deployment("web", REPLICAS))?;
        bench.desktop(1).replicas("web", REPLICAS, SOON)?;
        type Cut = fn(&[usize]) -> Vec<Vec<usize>>;
        let cuts: [(&str, Cut); 4] = [
            ("the leader with the many", |five| vec![five[..3].to_vec(), five[3..].to_vec()]),
            ("the leader with the few", |five| vec![five[2..].to_vec(), five[..2].to_vec()]),
            ("the leader alone", |five| vec![five[1..].to_vec(), five[..1].to_vec()]),
            ("nobody has more than half", |five| {
                vec![five[..2].to_vec(), five[2..4].to_vec(), five[4..].to_vec()]
            }),
        ];
        for (round, (what, cut)) in cuts.into_iter().enumerate() {
            let sides = cut(&leader_first(bench)?);
            let sides: Vec<&[usize]> = sides.iter().map(Vec::as_slice).collect();
            let run = || -> Result<()> {
                bench.cut(&sides)?;
                for side in &sides {
                    match side.len() * 2 > 5 {
                        true => goes_on(bench, side, round)?,
                        false => holds_still(bench, side, round)?,
                    }
                }
                bench.heal()?;
                is_whole(bench, &sides, round)
            };
            run().context(what)?;
        }
        Ok(())
    });
}

#[test]
fn a_desktop_that_flaps_does_not_unseat_the_leader() {
    const FLAPS: usize = 6;
    on_bench(3, |bench| {
        bench.up()?;
        let order = leader_first(bench)?;
        let leader = bench.desktop(order[0]);
        let before = leader.status()?;
        for flap in 0..FLAPS {
            bench.cut(&[&order[..2], &order[2..]])?;
            bench.wait_until(SOON, "the one to be missed", || {
                let flock = bench.desktop(order[2]).status()?;
                ensure!(!flock.quorum, "{flock:?}");
                Ok(Some(()))
            })?;
            bench.heal()?;
            bench.wait_until(SOON, "the one to be back", || {
                let flock = bench.desktop(order[2]).status()?;
                ensure!(flock.quorum, "{flock:?}");
                Ok(Some(()))
            })?;
            leader.kubectl(&format!("create configmap flap-{flap} --from-literal=a=b"))?.ok()?;
        }
        let after = bench.assembled(&[1, 2, 3])?;
        ensure!(
            (&after.leader, &after.term) == (&before.leader, &before.term),
            "the leader changed: {before:?}, {after:?}"
        );
        Ok(())
    });
}

#[test]
fn a_leader_that_is_not_heard_gives_way_to_one_that_is() {
    on_bench(3, |bench| {
        bench.up()?;
        let order = leader_first(bench)?;
        let deaf = bench.desktop(order[0]).name();
        // The leader hears the others, and they do not hear it.
        bench.cut_one_way(order[0], order[1])?;
        bench.cut_one_way(order[0], order[2])?;
        bench.wait_until(RECOVERS, "another leader", || {
            let flock = bench.desktop(order[1]).status()?;
            ensure!(flock.quorum && flock.leader.as_ref().is_some_and(|leader| *leader != deaf), "{flock:?}");
            Ok(Some(()))
        })?;
        bench.desktop(order[1]).kubectl("create configmap heard --from-literal=a=b")?.ok()?;
        bench.heal()?;
        bench.assembled(&[1, 2, 3])?;
        bench.wait_until(SOON, "the write to be everywhere", || {
            bench.desktop(order[0]).get("configmap", "heard").map(Some)
        })?;
        Ok(())
    });
}
