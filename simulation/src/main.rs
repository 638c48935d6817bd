//! Runs the simulation over many seeds: `cargo run -p gaggle-simulation -- --seeds 1000`.

use clap::{Parser, ValueEnum};
use gaggle_simulation::safety::{self, CLOCK_PPM, Mutation, Plan, Stats, Violation};
use gaggle_simulation::work::{Bend, Load};
use gaggle_simulation::{raft, shrink};
use std::process::ExitCode;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Instant;

#[derive(Parser)]
struct Arguments {
    /// What is simulated.
    #[arg(long, value_enum, default_value_t = What::Safety)]
    what: What,
    /// How many seeds.
    #[arg(long, default_value_t = 100)]
    seeds: u64,
    /// The first one.
    #[arg(long, default_value_t = 0)]
    from: u64,
    /// Machines in a run, 2 to 500; by seed if not given.
    #[arg(long, value_parser = clap::value_parser!(u64).range(2..=500))]
    nodes: Option<u64>,
    /// Writes of clients in a run with work.
    #[arg(long)]
    writes: Option<usize>,
    /// End each run after so many events.
    #[arg(long)]
    steps: Option<u64>,
    /// Threads.
    #[arg(long, default_value_t = 1)]
    jobs: u64,
    /// Bend a rule, to see that it is noticed.
    #[arg(long, value_enum, default_value_t = Bent::None)]
    bend: Bent,
    /// Lines of the trace to print when a run fails.
    #[arg(long, default_value_t = 80)]
    lines: usize,
    /// Tell a run that fails as it was, without looking for fewer faults.
    #[arg(long)]
    whole: bool,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum What {
    /// Who may act.
    Safety,
    /// And what becomes of what is ordered: stores, documents, controllers, pods.
    Work,
    /// The real Raft part. No rule is bent there from here, and machines are not counted.
    Raft,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Bent {
    None,
    /// Half of the roster counts as more than half.
    Half,
    /// Who restarts does not wait.
    NoHold,
    /// Who holds less may found.
    Older,
    /// Promises are not flushed.
    Unsynced,
    /// The roster changes in one step.
    OneStep,
    /// Who leaves forgets its word.
    Forget,
    /// A new leader's first entry does not make a log newer.
    Blanks,
    /// Joint stages end early.
    Unnoted,
    /// Clocks beyond the bound.
    Clocks,
    /// Voters that gave up their log vote with a blank one.
    BlankVotes,
    /// Work: the store takes every write, whatever it was made for.
    NoCompare,
    /// Work: what a document says is adopted on top of whatever was adopted meanwhile.
    NoBase,
    /// Work: what was kept without an order is not on the disk.
    NotKept,
    /// Work: finished indexes of a Job are forgotten.
    Rerun,
    /// Work: identities go on although no leader is heard.
    NoHeed,
    /// Work: now and then a follower misses a change.
    Gaps,
    /// Work: agents start what older bindings say.
    AnyAttempt,
    /// Work: desktops go on from a revision that a founding anew was without.
    Believed,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    if arguments.what == What::Raft {
        return raft(&arguments);
    }
    let began = Instant::now();
    let (next, done, failed) = (AtomicU64::new(0), AtomicU64::new(0), AtomicBool::new(false));
    let found: Mutex<Option<(Plan, Violation)>> = Mutex::new(None);
    let total: Mutex<Stats> = Mutex::default();
    std::thread::scope(|scope| {
        for _ in 0..arguments.jobs.max(1) {
            scope.spawn(|| {
                while !failed.load(Ordering::Relaxed) {
                    let number = next.fetch_add(1, Ordering::Relaxed);
                    if number >= arguments.seeds {
                        break;
                    }
                    let plan = plan(&arguments, arguments.from + number);
                    match safety::run(&plan, false).0 {
                        Ok(stats) => add(&mut total.lock().unwrap_or_else(|e| e.into_inner()), &stats),
                        Err(violation) => {
                            failed.store(true, Ordering::Relaxed);
                            found.lock().unwrap_or_else(|e| e.into_inner()).get_or_insert((plan, violation));
                        }
                    }
                    done.fetch_add(1, Ordering::Relaxed);
                }
            });
        }
    });
    let (seconds, done) = (began.elapsed().as_secs_f64(), done.load(Ordering::Relaxed));
    let total = total.into_inner().unwrap_or_else(|e| e.into_inner());
    println!(
        "{done} seeds in {seconds:.1} s ({:.0} a minute), {} steps, {} messages, {} s of virtual time",
        done as f64 * 60.0 / seconds,
        total.steps,
        total.messages,
        total.virtual_ms / 1_000
    );
    println!("{total:?}");
    match found.into_inner().unwrap_or_else(|e| e.into_inner()) {
        None => ExitCode::SUCCESS,
        Some((plan, violation)) => {
            println!("{violation:?}");
            let told = match arguments.whole {
                true => shrink::told(&plan, &plan, &violation, arguments.lines),
                false => shrink::report(&plan, &violation, arguments.lines),
            };
            println!("{told}");
            ExitCode::FAILURE
        }
    }
}

fn raft(arguments: &Arguments) -> ExitCode {
    let began = Instant::now();
    let seeds = arguments.from..arguments.from + arguments.seeds;
    for seed in seeds {
        let plan = raft::Plan::of_seed(seed);
        match raft::run(&plan) {
            Ok(stats) => println!("seed {seed}: {stats:?}"),
            Err(failure) => {
                println!("{}", raft::report(&plan, &failure, arguments.lines));
                return ExitCode::FAILURE;
            }
        }
    }
    println!("{} seeds in {:.1} s", arguments.seeds, began.elapsed().as_secs_f64());
    ExitCode::SUCCESS
}

fn plan(arguments: &Arguments, seed: u64) -> Plan {
    let mut plan = Plan::of_seed(seed, arguments.nodes.map(|nodes| nodes as usize));
    plan.max_steps = arguments.steps.unwrap_or(u64::MAX);
    plan.mutation = match arguments.bend {
        Bent::Half => Mutation::HalfIsEnough,
        Bent::NoHold => Mutation::NoHoldAfterRestart,
        Bent::Older => Mutation::PledgeToOlder,
        Bent::Unsynced => Mutation::WordNotSynced,
        Bent::OneStep => Mutation::NoJointRoster,
        Bent::Forget => Mutation::LeaversForget,
        Bent::Blanks => Mutation::BlanksDoNotCount,
        Bent::Unnoted => Mutation::NobodyNotes,
        _ => Mutation::None,
    };
    if arguments.bend == Bent::Clocks {
        plan.clock_ppm = 2 * CLOCK_PPM;
    }
    // What a bent rule must not do is let two act, or lose what was seen.
    plan.liveness = arguments.bend == Bent::None;
    if arguments.what == What::Work {
        let bend = match arguments.bend {
            Bent::NoCompare => Bend::NoCompare,
            Bent::NoBase => Bend::NoBase,
            Bent::NotKept => Bend::NotKept,
            Bent::Rerun => Bend::Rerun,
            Bent::NoHeed => Bend::NoHold,
            Bent::Gaps => Bend::Gaps,
            Bent::AnyAttempt => Bend::AnyAttempt,
            Bent::Believed => Bend::Believed,
            _ => Bend::None,
        };
        let load = Load { bend, ..Load::default() };
        plan.work = Some(Load { writes: arguments.writes.unwrap_or(load.writes), ..load });
        // Some of these are seen only in the end.
        plan.liveness |= bend != Bend::None;
    }
    plan.remembers_votes = arguments.bend != Bent::BlankVotes;
    plan
}

fn add(total: &mut Stats, run: &Stats) {
    total.steps += run.steps;
    total.messages += run.messages;
    total.virtual_ms += run.virtual_ms;
    for (kind, count) in &run.faults {
        *total.faults.entry(kind).or_default() += count;
    }
    total.elections += run.elections;
    total.ordered += run.ordered;
    total.checked += run.checked;
    total.voter_changes += run.voter_changes;
    total.roster_changes += run.roster_changes;
    total.pledges += run.pledges;
    total.foundings += run.foundings;
    total.yields += run.yields;
    total.left += run.left;
    total.evicted += run.evicted;
    total.brought += run.brought;
    for (reason, count) in &run.needs_people {
        *total.needs_people.entry(reason).or_default() += count;
    }
    total.came_together_with_few += run.came_together_with_few;
    total.steps_aside += run.steps_aside;
    total.healed_ms = total.healed_ms.max(run.healed_ms);
    total.changes += run.changes;
    total.acknowledged += run.acknowledged;
    total.kept += run.kept;
    total.adopted += run.adopted;
    total.conflicts += run.conflicts;
    total.started += run.started;
    total.offered += run.offered;
}
