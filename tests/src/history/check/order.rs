//! The order that the product itself claims: ordered writes have revisions, those agree with real time, and nothing
//! stands between a compare-and-set and the revision that it compared with.
//!
//! [`super::linear`] finds out without the revisions whether there is an order at all; this finds out whether the
//! revisions tell it.

use super::Violation;
use super::operations::{Operation, Operations};
use crate::history::record::Action;
use std::collections::{BTreeMap, BTreeSet};

/// All three rules.
#[must_use]
pub fn check(operations: &Operations) -> Vec<Violation> {
    let mut violations = real_time(operations);
    violations.extend(nothing_between(operations));
    violations
}

/// The ordered writes that were told their revision.
fn ordered<'s>(operations: &'s Operations) -> impl Iterator<Item = (u64, &'s Operation<'s>)> {
    let writes = operations.all.iter().filter(|op| op.action.writes() && op.is_ordered());
    writes.filter_map(|op| Some((op.version()?.revision, op)))
}

/// What was answered before another write was asked for has the smaller revision, whichever objects they are of.
fn real_time(operations: &Operations) -> Vec<Violation> {
    let mut by_revision: Vec<_> = ordered(operations).collect();
    by_revision.sort_by_key(|(revision, _)| *revision);
    let mut violations = Vec::new();
    // From the newest revision down: the earliest completion among all newer writes.
    let mut earliest: Option<(u64, &Operation)> = None;
    for &(revision, write) in by_revision.iter().rev() {
        if let Some((newer, other)) = earliest
            && other.completed_us < write.invoked_us
        {
            if newer == revision {
                continue;
            }
            let what = format!(
                "#{} was answered with revision {newer} before #{} was asked for, which got the older {revision}",
                other.id, write.id
            );
            violations.push(Violation::new(what, [other.id, write.id]));
        }
        if earliest.is_none_or(|(_, other)| write.completed_us < other.completed_us) {
            earliest = Some((revision, write));
        }
    }
    violations
}

/// Between the revision that was compared with and the one that was set, the object had no other.
fn nothing_between(operations: &Operations) -> Vec<Violation> {
    let mut known: BTreeMap<&str, BTreeSet<u64>> = BTreeMap::new();
    for sighting in &operations.sightings {
        known.entry(sighting.name).or_default().insert(sighting.version.revision);
    }
    let mut violations = Vec::new();
    for (revision, write) in ordered(operations) {
        let (Action::Replace { name, expects, .. } | Action::Delete { name, expects }) = write.action else {
            continue;
        };
        if revision <= expects.revision {
            let what = format!("#{} compared with a revision that is not older than its own", write.id);
            violations.push(Violation::new(what, [write.id]));
            continue;
        }
        let between = known
            .get(name.as_str())
            .and_then(|known| known.range(expects.revision + 1..revision).next().copied());
        if let Some(between) = between {
            let culprits = operations
                .sightings
                .iter()
                .filter(|sighting| sighting.name == name && sighting.version.revision == between);
            let what = format!(
                "an update of {name} is lost: #{} compared with revision {} and became {revision}, but {between} \
                 stood between",
                write.id, expects.revision
            );
            let shown = culprits.filter_map(|sighting| sighting.op).chain([write.id]);
            violations.push(Violation::new(what, shown));
        }
    }
    violations
}
