//! The short form of the Raft part's simulation: some seeds with the rules as they are, and bent rules that must be noticed.
//!
//! The long form is `cargo run -p gaggle-simulation -- --what raft --seeds 1000`.

use gaggle_simulation::raft::{Bend, Fault, Plan, Stats, What, report, run};
use std::time::Duration;

fn holds(plan: &Plan) -> Stats {
    run(plan).unwrap_or_else(|failure| panic!("{}", report(plan, &failure, 150)))
}

#[test]
fn what_is_acknowledged_stays_and_everybody_sees_it_in_one_order() {
    let mut total = Stats::default();
    for seed in 0..8 {
        let stats = holds(&Plan::of_seed(seed));
        total.acknowledged += stats.acknowledged;
        total.voter_changes += stats.voter_changes;
        total.whole_states += stats.whole_states;
        total.terms += stats.terms;
    }
    assert!(total.acknowledged > 200 && total.voter_changes > 8, "hardly anything happened: {total:?}");
    assert!(total.whole_states > 8 && total.terms > 16, "hardly anything happened: {total:?}");
}

/// Bent rules, and what must be said of them.
fn is_noticed(bend: Bend, seeds: u64, rules: &[&str]) {
    let found = (0..seeds).find_map(|seed| run(&Plan { bend, ..Plan::of_seed(seed) }).err());
    let rule = found.expect("a bent rule went unnoticed: the checks are worth nothing").violation.rule;
    assert!(rules.contains(&rule), "{rule}");
}

#[test]
fn votes_and_entries_must_be_on_the_disk_before_they_are_answered() {
    let lost = [
        "every machine applies the same in the same order",
        "what was acknowledged is in the order",
        "what was said not to be written is not",
        "a voter's term never goes back",
        "a term has one leader",
        "a view shows every change once, in order",
        "a write comes after what was acknowledged before it",
        "a group whose disk works does not fail",
        "what a crash leaves is whole",
    ];
    is_noticed(Bend::LyingDisk, 10, &lost);
}

#[test]
fn leaders_must_ask_whether_they_may_order() {
    is_noticed(Bend::GateIgnored, 30, &["a leader orders only while it may"]);
}

#[test]
fn who_gives_up_its_part_must_remember_the_term() {
    is_noticed(Bend::TermForgotten, 30, &["a voter's term never goes back"]);
}

/// Disks on which a flush takes up to two seconds, as spinning ones do under load.
#[test]
fn slow_disks_cost_time_and_no_leader() {
    let all = (0..6).collect();
    let voters = What::Voters((0..3).collect());
    let at = |ms: u64, lasts_ms: u64, what: What| Fault {
        at: Duration::from_millis(ms),
        lasts: Duration::from_millis(lasts_ms),
        what,
    };
    let faults = vec![at(1_500, 0, voters), at(6_000, 60_000, What::SlowDisks(all, 1_000))];
    let until = Duration::from_secs(40);
    let stats = holds(&Plan { faults, until, ..Plan::of_seed(1) });
    assert_eq!(stats.terms, 1, "a leader was deposed for its slow disk: {stats:?}");
    assert_eq!(stats.unknown, 0, "writes were given up: {stats:?}");
    assert!(stats.acknowledged > 15, "{stats:?}");
}
