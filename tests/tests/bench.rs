//! The bench itself, without gaggle: what the other suites take for granted.

use anyhow::{Result, ensure};
use gaggle_tests::bench::{Bench, BenchConfig, Image, poll, with_bench};
use std::path::PathBuf;
use std::time::Duration;

/// The engines alone; any file stands in for the binary.
fn engines(desktops: usize) -> BenchConfig {
    BenchConfig { binary: Some(PathBuf::from("/bin/true")), ..BenchConfig::desktops(desktops) }
}

fn reaches(bench: &Bench, from: usize, to: usize) -> Result<bool> {
    let address = bench.desktop(to).address();
    Ok(bench
        .desktop(from)
        .exec(&format!("ip neigh flush dev eth0; busybox ping -c 1 -W 1 {address}"))?
        .success())
}

#[test]
fn cuts_and_heals() {
    with_bench(engines(3), |bench| {
        ensure!(reaches(bench, 1, 2)? && reaches(bench, 2, 3)?, "all hear each other at first");
        bench.cut(&[&[1, 2], &[3]])?;
        ensure!(reaches(bench, 1, 2)?, "the same side");
        ensure!(!reaches(bench, 1, 3)? && !reaches(bench, 3, 2)?, "the other side");
        bench.heal()?;
        ensure!(reaches(bench, 3, 1)? && reaches(bench, 1, 3)?, "healed");
        bench.cut_one_way(1, 2)?;
        ensure!(!reaches(bench, 1, 2)?, "one way");
        bench.heal()?;
        ensure!(reaches(bench, 1, 2)?, "healed");
        Ok(())
    });
}

#[test]
fn containers_live_and_die_with_their_desktop() {
    with_bench(engines(2), |bench| {
        let image = bench.image(&Image::named(&["busybox:latest", "nginx:1.14.2"]))?;
        bench.each(|desktop| desktop.load(&image))?;
        let (one, two) = (bench.desktop(1), bench.desktop(2));
        one.docker("run -d --name gone busybox sleep 1000")?.ok()?;
        two.docker("run -d --name stays --restart always nginx:1.14.2 sleep 1000")?.ok()?;

        // The engine alone may die and come back under its containers.
        one.kill_engine()?;
        one.start_engine()?;
        ensure!(one.docker("inspect -f '{{.State.Running}}' gone")?.ok()?.trim() == "true", "live restore");

        one.crash()?;
        ensure!(!one.is_on() && two.is_on(), "only the one that crashed");
        two.power_cut()?;
        ensure!(!two.is_on(), "off");
        bench.each(gaggle_tests::bench::Desktop::on)?;
        ensure!(one.docker("inspect -f '{{.State.Running}}' gone")?.ok()?.trim() == "false", "it died");
        bench.wait_until(Duration::from_secs(30), "the container to come back by itself", || {
            let state = two.docker("inspect -f '{{.State.Running}}' stays")?.ok()?;
            Ok((state.trim() == "true").then_some(()))
        })?;
        ensure!(reaches(bench, 1, 2)?, "the cable is back");

        two.suspend()?;
        ensure!(!reaches(bench, 1, 2)?, "silent");
        two.resume()?;
        ensure!(reaches(bench, 1, 2)?, "awake");
        Ok(())
    });
}

#[test]
fn a_name_nobody_answers_fails_at_once() {
    with_bench(engines(1), |bench| {
        let began = std::time::Instant::now();
        let said = bench.desktop(1).docker("pull registry.example/none:1")?.refused()?;
        ensure!(began.elapsed() < Duration::from_secs(10), "took {:?}: {said}", began.elapsed());
        Ok(())
    });
}

#[test]
fn nothing_stays_behind() {
    let mut left = None;
    let panicked = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        with_bench(engines(2), |bench| {
            bench.desktop(1).exec("setsid sleep 1000 > /dev/null 2>&1 &")?.ok()?;
            left =
                Some((bench.layout().name.clone(), bench.layout().dir.clone(), bench.desktop(1).processes()));
            panic!("on purpose");
        });
    }));
    let Some((name, dir, processes)) = left else {
        assert!(panicked.is_ok(), "it was skipped");
        return;
    };
    assert!(panicked.is_err(), "the panic must reach the test");
    assert!(!dir.exists(), "{} is still there", dir.display());
    // Dead at once; a parent's note of it may follow a moment later.
    let gone = poll(Duration::from_secs(5), "the processes to be gone", || {
        Ok(processes.iter().all(|pid| !PathBuf::from(format!("/proc/{pid}")).exists()).then_some(()))
    });
    assert!(gone.is_ok(), "some of {processes:?} still run");
    let names = |dir: &str| -> Vec<String> {
        let entries = std::fs::read_dir(dir).into_iter().flatten().flatten();
        entries.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect()
    };
    for dir in ["/run/netns", "/sys/fs/cgroup", "/sys/fs/cgroup/unified", "/sys/fs/cgroup/memory"] {
        let found: Vec<_> = names(dir).into_iter().filter(|found| found.starts_with(&name)).collect();
        assert!(found.is_empty(), "{dir} still holds {found:?}");
    }
}

#[test]
fn a_desktop_sees_itself_and_not_the_machine() {
    with_bench(engines(2), |bench| {
        let desktop = bench.desktop(2);
        ensure!(desktop.exec("hostname")?.ok()?.trim() == "d2", "its name");
        let addresses = desktop.exec("ip -4 -o addr show scope global dev eth0")?.ok()?;
        ensure!(addresses.contains(&desktop.address().to_string()), "its address: {addresses}");
        ensure!(!desktop.exec("ps -e -o comm")?.ok()?.contains("cargo"), "other people's processes");
        let pair = gaggle_tests::engine::Engine::at(desktop.engine_socket());
        desktop.load(&bench.image(&Image::busybox())?)?;
        pair.run_pair_to_end(&["true"])?;
        pair.run_pair(&["sleep", "1000"])?;
        let running = desktop.docker("ps -q")?.ok()?;
        ensure!(running.lines().count() == 2, "a pause and its companion: {running}");
        ensure!(
            bench.desktop(1).docker("ps -aq")?.ok()?.trim().is_empty(),
            "the neighbour's engine is its own"
        );
        Ok(())
    });
}
