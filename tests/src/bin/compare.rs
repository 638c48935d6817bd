//! `compare`: how long people wait after a fault, with gaggle and with Docker Swarm, on the same bench in the same run.

use anyhow::Result;
use clap::Parser;
use gaggle_tests::comparison::{Contender, Gaggle, Quantity, Swarm, Times, time};
use std::path::PathBuf;
use std::process::ExitCode;

/// Kills, cuts off and brings back desktops under gaggle and under Docker Swarm, and prints the medians.
#[derive(Parser)]
struct Arguments {
    /// The gaggle binary; by default the one built beside this program.
    #[arg(long)]
    binary: Option<PathBuf>,
    /// How often each fault is tried.
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u16).range(1..=100))]
    rounds: u16,
    /// Only gaggle: minutes less, and nothing to compare with.
    #[arg(long)]
    alone: bool,
    /// Exit with 1 when gaggle misses a figure that it promises.
    #[arg(long)]
    strict: bool,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    match compare(&arguments) {
        Ok(0) => ExitCode::SUCCESS,
        Ok(_) => ExitCode::from(u8::from(arguments.strict)),
        Err(error) => {
            eprintln!("compare: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// Prints the table, and returns how many promises gaggle missed.
fn compare(arguments: &Arguments) -> Result<usize> {
    let run = |contender: &dyn Contender| {
        let tell = |quantity: Quantity, seconds: f64| {
            eprintln!("{}: {}: {seconds:.2} s", contender.name(), quantity.what());
        };
        time(contender, arguments.binary.clone(), arguments.rounds.into(), &tell)
    };
    let gaggle = run(&Gaggle)?;
    let swarm = if arguments.alone { Times::new() } else { run(&Swarm)? };
    println!("seconds, medians (smallest to largest) of {} rounds or more", arguments.rounds);
    println!("{:<44} {:<24} {:>6}  {:<8}{}", "", "gaggle", "limit", "", Swarm.name());
    let mut missed = 0;
    for (quantity, seconds) in &gaggle {
        let met = median(seconds) <= quantity.limit();
        missed += usize::from(!met);
        let other = swarm.get(quantity).map_or_else(|| "-".to_owned(), |seconds| spread(seconds));
        let (own, verdict) = (spread(seconds), if met { "met" } else { "MISSED" });
        println!("{:<44} {own:<24} {:>6.1}  {verdict:<8}{other}", quantity.what(), quantity.limit());
    }
    Ok(missed)
}

fn spread(seconds: &[f64]) -> String {
    let mut sorted = seconds.to_vec();
    sorted.sort_by(f64::total_cmp);
    format!("{:.2} ({:.2} to {:.2})", median(seconds), sorted[0], sorted[sorted.len() - 1])
}

fn median(seconds: &[f64]) -> f64 {
    let mut sorted = seconds.to_vec();
    sorted.sort_by(f64::total_cmp);
    sorted[sorted.len() / 2]
}
