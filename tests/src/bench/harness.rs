//! How a test gets its bench: with one where that is possible, said loudly where it is not.

use super::{Bench, BenchConfig, Image};
use anyhow::Result;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};

/// What a bench needs on the machine.
const PROGRAMS: [&str; 14] = [
    "dockerd",
    "docker",
    "docker-registry",
    "ip",
    "tc",
    "ebtables",
    "iptables",
    "mkfs.ext4",
    "losetup",
    "tini",
    "unshare",
    "nsenter",
    "setsid",
    "kubectl",
];

/// Runs a test on so many desktops, with busybox on their engines and the daemons not yet started.
///
/// # Panics
/// When the test fails, with the end of every daemon's log, after everything was taken away.
pub fn on_bench(desktops: usize, test: impl FnOnce(&Bench) -> Result<()>) {
    with_bench(BenchConfig::desktops(desktops), |bench| {
        let image = bench.image(&Image::busybox())?;
        bench.each(|desktop| desktop.load(&image))?;
        test(bench)
    });
}

/// Runs a test on a bench that is made to order.
///
/// # Panics
/// When the test fails, or when it cannot run although `CI` is `true`.
pub fn with_bench(config: BenchConfig, test: impl FnOnce(&Bench) -> Result<()>) {
    if let Some(reason) = missing() {
        let ci = std::env::var("CI").is_ok_and(|value| value == "true");
        assert!(!ci, "a bench is not possible here: {reason}");
        eprintln!("SKIPPED, a bench is not possible here: {reason}");
        return;
    }
    let bench = Bench::new(config).unwrap_or_else(|error| panic!("no bench: {error:#}"));
    match catch_unwind(AssertUnwindSafe(|| test(&bench))) {
        Ok(Ok(())) => {}
        Ok(Err(error)) => {
            let report = bench.report();
            drop(bench);
            // A wait that ran out has shown the logs already.
            let report = if format!("{error}").contains("--- d1") { "" } else { &report };
            panic!("{error:#}{report}");
        }
        Err(panic) => {
            eprintln!("{}", bench.report());
            drop(bench);
            resume_unwind(panic);
        }
    }
}

/// Why no bench can be made here, if so.
fn missing() -> Option<String> {
    if !nix::unistd::Uid::effective().is_root() {
        return Some("it needs root, for namespaces and engines".to_owned());
    }
    let path = std::env::var_os("PATH").unwrap_or_default();
    let lacking: Vec<_> = PROGRAMS
        .iter()
        .filter(|program| !std::env::split_paths(&path).any(|dir| dir.join(program).is_file()))
        .copied()
        .collect();
    (!lacking.is_empty()).then(|| format!("no {} on the PATH: run scripts/setup", lacking.join(", ")))
}
