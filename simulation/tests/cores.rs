//! The simulation's short form: some hundred seeds with the rules as they are, and bent rules that must be noticed.
//!
//! The long form is `cargo run -p gaggle-simulation -- --seeds 10000`.

use gaggle_simulation::safety::{CLOCK_PPM, Mutation, Plan, Violation, run};
use gaggle_simulation::shrink::{report, shrink};
use gaggle_simulation::work::{Bend, Load};

/// Runs seeds until one fails.
fn first_violation(seeds: impl Iterator<Item = u64>, bend: impl Fn(&mut Plan)) -> Option<(Plan, Violation)> {
    seeds.into_iter().find_map(|seed| {
        let mut plan = Plan::of_seed(seed, None);
        bend(&mut plan);
        run(&plan, false).0.err().map(|violation| (plan, violation))
    })
}

fn holds(seeds: impl Iterator<Item = u64>) {
    if let Some((plan, violation)) = first_violation(seeds, |_| {}) {
        panic!("{}", report(&plan, &violation, 120));
    }
}

/// With a rule bent, two could act, or something seen could be lost: the checks must say so, and of these rules.
fn is_noticed(seeds: u64, bend: impl Fn(&mut Plan)) {
    let bend = |plan: &mut Plan| {
        plan.liveness = false;
        bend(plan);
    };
    let found = first_violation(0..seeds, bend);
    let (_, violation) = found.expect("a bent rule went unnoticed: the checks are worth nothing");
    let rules = [
        "a leader that acts has more than half of its roster behind it",
        "no two leaders act at once",
        "an epoch has one founder",
        "a founding holds what any of the pledged had seen",
    ];
    assert!(rules.contains(&violation.rule), "{violation:?}");
}

#[test]
fn no_two_act_and_nothing_seen_is_lost_and_the_flock_comes_together() {
    holds(0..200);
}

/// Seeds that found something once; what it was is in the history of the rules.
#[test]
fn seeds_that_failed_once_do_not_fail_again() {
    holds(
        [
            9, 18, 33, 34, 89, 126, 179, 305, 313, 350, 935, 2562, 2663, 2993, 3612, 4415, 5141, 5646, 5718,
            5891, 6358, 1810, 3990, 4110, 5166, 60496, 1982,
        ]
        .into_iter(),
    );
}

#[test]
fn the_same_seed_gives_the_same_run() {
    for seed in 0..5 {
        let plan = Plan::of_seed(seed, None);
        let (first, second) = (run(&plan, false).0, run(&plan, true).0);
        assert_eq!(format!("{first:?}"), format!("{second:?}"), "seed {seed}, also when it is traced");
    }
}

#[test]
fn faults_of_every_kind_are_met_and_survived() {
    let mut kinds = std::collections::BTreeMap::new();
    let (mut foundings, mut yields, mut roster_changes) = (0, 0, 0);
    for seed in 0..60 {
        let stats = run(&Plan::of_seed(seed, None), false).0.expect("checked elsewhere");
        for (kind, count) in stats.faults {
            *kinds.entry(kind).or_insert(0) += count;
        }
        foundings += stats.foundings;
        yields += stats.yields;
        roster_changes += stats.roster_changes;
    }
    assert!(kinds.len() == 12 && kinds.values().all(|count| *count > 0), "{kinds:?}");
    assert!(foundings > 0 && yields > 0 && roster_changes > 60, "{foundings} {yields} {roster_changes}");
}

#[test]
fn half_of_the_roster_is_not_enough() {
    is_noticed(50, |plan| plan.mutation = Mutation::HalfIsEnough);
}

#[test]
fn a_node_that_restarts_must_wait() {
    is_noticed(400, |plan| plan.mutation = Mutation::NoHoldAfterRestart);
}

#[test]
fn nobody_may_pledge_itself_to_who_holds_less() {
    is_noticed(400, |plan| plan.mutation = Mutation::PledgeToOlder);
}

#[test]
fn promises_must_be_on_the_disk_before_they_are_said() {
    is_noticed(50, |plan| plan.mutation = Mutation::WordNotSynced);
}

#[test]
fn who_leaves_must_keep_its_word() {
    is_noticed(400, |plan| plan.mutation = Mutation::LeaversForget);
}

#[test]
fn clocks_beyond_the_bound_are_beyond_it() {
    is_noticed(400, |plan| plan.clock_ppm = 2 * CLOCK_PPM);
}

#[test]
fn a_failure_is_told_with_fewer_faults_and_what_happened_last() {
    let bend = |plan: &mut Plan| (plan.mutation, plan.liveness) = (Mutation::NoHoldAfterRestart, false);
    let (plan, violation) = first_violation(0..400, bend).expect("it is noticed");
    let smaller = shrink(&plan, &violation);
    assert!(smaller.faults.len() < plan.faults.len(), "{} faults", smaller.faults.len());
    assert_eq!(run(&smaller, false).0.expect_err("it still fails").rule, violation.rule);
    let told = report(&plan, &violation, 20);
    assert!(told.contains(&format!("seed {}", plan.seed)) && told.contains(violation.rule), "{told}");
    assert!(told.contains("is switched on") || told.contains("leads") || told.contains("crashes"), "{told}");
}

/// A run in which what is ordered has a content.
fn with_work(seed: u64) -> Plan {
    Plan { work: Some(Load::default()), ..Plan::of_seed(seed, None) }
}

#[test]
fn what_is_ordered_and_kept_is_in_the_objects_and_pods_do_what_they_say() {
    for seed in [2, 5, 8, 12, 13, 14, 16] {
        let plan = with_work(seed);
        if let Err(violation) = run(&plan, false).0 {
            panic!("{}", report(&plan, &violation, 120));
        }
    }
}

#[test]
fn the_same_seed_gives_the_same_work() {
    for seed in 12..15 {
        let plan = with_work(seed);
        let (first, second) = (run(&plan, false).0, run(&plan, true).0);
        assert_eq!(format!("{first:?}"), format!("{second:?}"), "seed {seed}, also when it is traced");
    }
}

/// With a rule of the work bent, the check whose business it is must say so.
fn work_is_noticed(seeds: impl Iterator<Item = u64>, bend: Bend, rules: &[&str]) {
    let bent = |seed| Plan { work: Some(Load { bend, ..Load::default() }), ..with_work(seed) };
    let mut found = seeds.filter_map(|seed| run(&bent(seed), false).0.err());
    let violation = found.next().expect("a bent rule went unnoticed: the checks are worth nothing");
    assert!(rules.contains(&violation.rule), "{violation:?}");
}

#[test]
fn a_store_must_compare() {
    work_is_noticed(12..14, Bend::NoCompare, &["compare-and-set is linearizable"]);
}

#[test]
fn what_is_kept_without_an_order_must_be_on_the_disk() {
    work_is_noticed(0..4, Bend::NotKept, &["an acknowledged write is not lost"]);
}

#[test]
fn followers_must_miss_nothing() {
    // By whoever compares first: another machine, or a client that goes to one.
    let rules = ["views are equal at the same revision", "who goes from desktop to desktop misses nothing"];
    work_is_noticed(12..13, Bend::Gaps, &rules);
}

#[test]
fn who_was_shown_what_a_founding_was_without_must_be_told() {
    work_is_noticed(0..40, Bend::Believed, &["who goes from desktop to desktop misses nothing"]);
}
