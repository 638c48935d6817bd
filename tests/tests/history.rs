//! Short trials with fixed seeds: what clients were answered while desktops died, judged. The long form is
//! `cargo run -p gaggle-tests --bin torture`.

use anyhow::ensure;
use gaggle_tests::bench::on_bench;
use gaggle_tests::history::run::{Trial, run};
use std::path::Path;
use std::time::Duration;

/// How long the faults of a short trial go on.
const SHORT: Duration = Duration::from_secs(25);

fn promises_are_kept(desktops: usize, seed: u64) {
    on_bench(desktops, |bench| {
        let name = format!("history-{desktops}-{seed}-{}", std::process::id());
        let dir = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
        let tally = run(bench, &Trial { seed, time: SHORT, dir: dir.clone() })?;
        println!("{tally}");
        // A trial in which little happened shows little; a machine that does much besides makes it slow.
        ensure!(tally.ordered > 40 && tally.reads > 40 && tally.events > 100, "too quiet: {tally}");
        std::fs::remove_dir_all(&dir)?;
        Ok(())
    });
}

#[test]
fn three_desktops_keep_their_promises() {
    promises_are_kept(3, 9);
}

#[test]
fn five_desktops_keep_their_promises() {
    promises_are_kept(5, 7);
}
