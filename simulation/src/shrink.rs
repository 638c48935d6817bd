//! The same failure with less around it.

use super::safety::{Plan, Violation, run};
use std::fmt::Write;

/// Runs that may be spent on it; a run with work takes longer.
const TRIES: usize = 400;
const TRIES_WITH_WORK: usize = 60;

/// Takes faults away for as long as the same rule is violated: halves first, then smaller pieces, then single ones.
pub fn shrink(plan: &Plan, violation: &Violation) -> Plan {
    let mut smallest = plan.clone();
    let mut tries = 0;
    let bound = if plan.work.is_some() { TRIES_WITH_WORK } else { TRIES };
    // What comes after the violation had no part in it.
    let mut shorter = smallest.clone();
    shorter.faults.retain(|fault| fault.at <= violation.at_us);
    if fails(&shorter, violation) {
        smallest = shorter;
    }
    let mut piece = smallest.faults.len().div_ceil(2).max(1);
    loop {
        let mut at = 0;
        while at < smallest.faults.len() && tries < bound {
            tries += 1;
            let mut without = smallest.clone();
            let end = (at + piece).min(without.faults.len());
            without.faults.drain(at..end);
            match fails(&without, violation) {
                true => smallest = without,
                false => at += piece,
            }
        }
        if piece == 1 || tries >= bound {
            return smallest;
        }
        piece = piece.div_ceil(2);
    }
}

fn fails(plan: &Plan, violation: &Violation) -> bool {
    matches!(run(plan, false).0, Err(other) if other.rule == violation.rule)
}

/// What a person needs: the seed, the rule, the faults that are enough, and what happened last.
pub fn report(plan: &Plan, violation: &Violation, lines: usize) -> String {
    told(plan, &shrink(plan, violation), violation, lines)
}

/// The same of a plan with fewer faults.
pub fn told(plan: &Plan, smallest: &Plan, violation: &Violation, lines: usize) -> String {
    let (result, trace) = run(smallest, true);
    let shown = result.err().unwrap_or_else(|| violation.clone());
    let mut text = String::new();
    let _ = writeln!(text, "seed {} with {} machines violates: {}", plan.seed, plan.nodes, shown.rule);
    let _ = writeln!(text, "  {}", shown.what);
    let _ = writeln!(text, "{} of {} faults are enough:", smallest.faults.len(), plan.faults.len());
    for fault in &smallest.faults {
        let _ =
            writeln!(text, "  at {} ms for {} ms: {:?}", fault.at / 1_000, fault.lasts / 1_000, fault.what);
    }
    let _ = writeln!(text, "what happened last:");
    for line in trace.last(lines) {
        let _ = writeln!(text, "  {line}");
    }
    text
}
