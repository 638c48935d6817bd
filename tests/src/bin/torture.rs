//! `torture`: clients, watchers and work on a flock while a nemesis does its worst to it, and the judgement of what
//! was answered. A trial a seed, until the time is over.

use anyhow::{Context, Result, ensure};
use clap::Parser;
use gaggle_tests::bench::{Bench, BenchConfig, Image};
use gaggle_tests::history::check::{describe, judge};
use gaggle_tests::history::record::History;
use gaggle_tests::history::run::{Tally, Trial, run};
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

/// The most desktops that a cut can name, and the longest trial whose history one wants to read.
const DESKTOPS: std::ops::RangeInclusive<usize> = 3..=9;
const MINUTES: std::ops::RangeInclusive<u64> = 1..=120;

/// Tries a flock with faults by a seed and checks that it kept what it promised.
#[derive(Parser)]
struct Arguments {
    /// How many desktops: 3 to 9.
    #[arg(long, default_value_t = 5)]
    desktops: usize,
    /// How long the faults go on: 1 to 120.
    #[arg(long, default_value_t = 30)]
    minutes: u64,
    /// What decides on faults and requests; another number is another trial.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// The gaggle binary; by default the one built beside this program.
    #[arg(long)]
    binary: Option<PathBuf>,
    /// Where the history and, of a bad one, the daemons' logs go.
    #[arg(long, default_value = "target/torture")]
    dir: PathBuf,
    /// Judges a history that was recorded before, and tries nothing.
    #[arg(long, conflicts_with_all = ["desktops", "minutes", "seed", "binary", "dir"])]
    judge: Option<PathBuf>,
}

fn main() -> ExitCode {
    match torture(&Arguments::parse()) {
        Ok(tally) => {
            println!("every promise was kept: {tally}");
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("torture: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn torture(arguments: &Arguments) -> Result<Tally> {
    if let Some(file) = &arguments.judge {
        let history = History::read(file)?;
        let violations = judge(&history);
        ensure!(violations.is_empty(), "{}", describe(&history, &violations));
        return Ok(Tally::of(&history));
    }
    ensure!(DESKTOPS.contains(&arguments.desktops), "--desktops must be {DESKTOPS:?}");
    ensure!(MINUTES.contains(&arguments.minutes), "--minutes must be {MINUTES:?}");
    let dir = arguments.dir.join(format!("{}-desktops-seed-{}", arguments.desktops, arguments.seed));
    let time = Duration::from_secs(60 * arguments.minutes);
    println!(
        "seed {}: {} desktops, {} minutes; the history goes to {}",
        arguments.seed,
        arguments.desktops,
        arguments.minutes,
        dir.display()
    );
    let config =
        BenchConfig { binary: arguments.binary.clone(), ..BenchConfig::desktops(arguments.desktops) };
    let bench = Bench::new(config).context("no bench")?;
    let image = bench.image(&Image::busybox())?;
    bench.each(|desktop| desktop.load(&image))?;
    run(&bench, &Trial { seed: arguments.seed, time, dir })
}
