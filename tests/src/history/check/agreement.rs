//! One revision of an object is the same wherever it is read, and everything in it was written by somebody: by a
//! write that was not refused, and before it was read.

use super::Violation;
use super::operations::{Operation, Operations, Sighting};
use std::collections::BTreeMap;

/// Both rules.
#[must_use]
pub fn check(operations: &Operations) -> Vec<Violation> {
    let mut violations = same_everywhere(operations);
    violations.extend(from_somebody(operations));
    violations
}

fn same_everywhere(operations: &Operations) -> Vec<Violation> {
    let mut first: BTreeMap<(&str, u64), &Sighting> = BTreeMap::new();
    let mut violations = Vec::new();
    for sighting in &operations.sightings {
        let seen = first.entry((sighting.name, sighting.version.revision)).or_insert(sighting);
        if seen.version != sighting.version || seen.deleted != sighting.deleted {
            let what = format!(
                "revision {} of {} is one thing to {} ({:?}, deleted: {}) and another to {} ({:?}, deleted: {})",
                sighting.version.revision,
                sighting.name,
                seen.by,
                seen.version.fields,
                seen.deleted,
                sighting.by,
                sighting.version.fields,
                sighting.deleted,
            );
            violations.push(Violation::new(what, seen.op.into_iter().chain(sighting.op)));
        }
    }
    violations
}

fn from_somebody(operations: &Operations) -> Vec<Violation> {
    let mut writers: BTreeMap<(&str, &str, &str), &Operation> = BTreeMap::new();
    for operation in &operations.all {
        let (Some(name), Some(fields)) = (operation.action.name(), operation.action.written()) else {
            continue;
        };
        for (field, value) in fields {
            writers.insert((name, field, value), operation);
        }
    }
    let mut told = std::collections::BTreeSet::new();
    let mut violations = Vec::new();
    for sighting in &operations.sightings {
        for (field, value) in &sighting.version.fields {
            let place = (sighting.name, field.as_str(), value.as_str());
            let why = match writers.get(&place) {
                None => "that nobody wrote".to_owned(),
                Some(writer) if writer.is_refused() => format!("of #{}, which was refused", writer.id),
                Some(writer) if writer.invoked_us > sighting.at_us => {
                    format!("of #{}, which was not yet made", writer.id)
                }
                Some(_) => continue,
            };
            if told.insert(place) {
                let what = format!(
                    "{} holds {field}={value} {why}: seen by {} at revision {}",
                    sighting.name, sighting.by, sighting.version.revision
                );
                let writer = writers.get(&place).map(|writer| writer.id);
                violations.push(Violation::new(what, writer.into_iter().chain(sighting.op)));
            }
        }
    }
    violations
}
