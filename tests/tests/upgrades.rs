//! Desktops that run different versions: daemons that pretend to be the build before or after this one.
//!
//! A format changes in two steps (ARCHITECTURE.md, "Versions"): the next build reads old and new and writes the old
//! form, the one after it writes the new one.

use anyhow::{Context, Result, ensure};
use gaggle_tests::bench::{Bench, Desktop, Up, on_bench};
use gaggle_tests::kube::{RECOVERS, SOON, patient_deployment};

const THIS: &str = "1-1/1";
const NEXT: &str = "1-2/1";
const AFTER_NEXT: &str = "1-2/2";
const FAR: &str = "2-2/2";

/// Starts a daemon as the build that knows these formats; with a phrase where it has none yet.
fn start(desktop: &Desktop, formats: &str) -> Result<()> {
    let mut up = if desktop.data_dir().join("cluster.json").exists() { Up::bare() } else { Up::default() };
    up.environment.push(("GAGGLE_FORMATS".to_owned(), formats.to_owned()));
    desktop.start_daemon(&up)
}

fn installs(desktop: &Desktop, formats: &str) -> Result<()> {
    desktop.kill_daemon()?;
    start(desktop, formats)
}

fn write_through_each(bench: &Bench, name: &str) -> Result<()> {
    for desktop in bench.desktops() {
        let made = format!("{name}-{}", desktop.name());
        desktop.kubectl(&format!("create configmap {made} --from-literal=a=b"))?.ok()?;
        for other in bench.desktops() {
            bench.wait_until(SOON, &format!("{made} on {}", other.name()), || {
                Ok(other.kubectl(&format!("get configmap {made} -o name"))?.success().then_some(()))
            })?;
        }
    }
    Ok(())
}

#[test]
fn a_flock_is_upgraded_desktop_by_desktop_under_its_pods() {
    on_bench(3, |bench| {
        bench.each(|desktop| start(desktop, THIS))?;
        let flock = bench.assembled(&[1, 2, 3])?;
        let one = bench.desktop(1);
        one.apply(&patient_deployment("web", 3))?;
        let pods = one.replicas("web", 3, SOON)?;
        for (step, formats) in [("next", NEXT), ("after-next", AFTER_NEXT)] {
            for desktop in bench.desktops() {
                installs(desktop, formats)?;
                let after = bench.assembled(&[1, 2, 3])?;
                ensure!(after.group == flock.group, "{flock:?} became {after:?}");
                write_through_each(bench, &format!("{step}-on-{}", desktop.name()))?;
            }
        }
        // Whoever leads: each of the new ones is elected by the others and elects them.
        let leader = bench.assembled(&[1, 2, 3])?.leader.context("no leader")?;
        let leads =
            bench.desktops().iter().find(|desktop| desktop.name() == leader).context("no such desktop")?;
        installs(leads, AFTER_NEXT)?;
        bench.assembled(&[1, 2, 3])?;
        let names = |pods: &[serde_json::Value]| -> Vec<String> {
            let mut names: Vec<_> = pods.iter().map(|pod| pod["metadata"]["uid"].to_string()).collect();
            names.sort();
            names
        };
        let events = one.kubectl("get events --sort-by=.lastTimestamp")?;
        ensure!(
            names(&one.replicas("web", 3, SOON)?) == names(&pods),
            "pods were made anew for an upgrade: {events}"
        );
        Ok(())
    });
}

#[test]
fn versions_that_do_not_know_each_other_say_so_on_both_sides_and_harm_nothing() {
    on_bench(2, |bench| {
        let (one, two) = (bench.desktop(1), bench.desktop(2));
        start(one, THIS)?;
        bench.assembled(&[1])?;
        start(two, FAR)?;
        bench.wait_until(RECOVERS, "the newer one to say what is wrong", || {
            let log = two.daemon_log();
            let says = log.contains("version 1") && log.contains("reads version 2: update the older one");
            ensure!(says && !log.contains("panicked"), "{log}");
            Ok(Some(()))
        })?;
        bench.wait_until(SOON, "the older one to say it too", || {
            let log = one.daemon_log();
            let says = log.contains("version 2") && log.contains("update the older one");
            ensure!(says && !log.contains("panicked"), "{log}");
            Ok(Some(()))
        })?;
        ensure!(
            !two.daemon_log().contains("founding a group"),
            "it must not go its own way: {}",
            two.daemon_log()
        );
        one.kubectl("create configmap still --from-literal=a=b")?.ok()?;
        installs(two, THIS)?;
        bench.assembled(&[1, 2])?;
        Ok(())
    });
}

#[test]
fn a_disk_of_another_version_is_refused_and_left_as_it_is() {
    on_bench(1, |bench| {
        let one = bench.desktop(1);
        start(one, THIS)?;
        bench.assembled(&[1])?;
        one.kubectl("create configmap kept --from-literal=a=b")?.ok()?;
        let logged = one.daemon_log().len();
        installs(one, FAR)?;
        let code = bench.wait_until(SOON, "the refusal", || Ok(one.daemon().exit_code()))?;
        let said = one.daemon_log().split_off(logged);
        ensure!(code != 0 && code < 128 && !said.contains("panicked"), "exit code {code}: {said}");
        ensure!(said.contains("version 1") && said.contains(&one.data_dir().display().to_string()), "{said}");
        ensure!(!said.contains("set aside"), "another version is no damage: {said}");
        start(one, THIS)?;
        bench.assembled(&[1])?;
        one.kubectl("get configmap kept")?.ok()?;
        Ok(())
    });
}
