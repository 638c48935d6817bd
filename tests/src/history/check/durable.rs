//! What was acknowledged is there: in every later revision that anybody was shown, and on every desktop at the end.

use super::Violation;
use super::operations::{Operation, Operations};
use crate::history::record::{Action, Fields, Outcome, Version};
use gaggle_sched::state::Revision;
use std::collections::{BTreeMap, BTreeSet};

/// All three rules.
#[must_use]
pub fn check(operations: &Operations) -> Vec<Violation> {
    let mut violations = one_state(operations);
    for name in operations.names() {
        let writes: Vec<&Operation> = operations.writes(name).collect();
        let shared = writes.iter().all(|write| matches!(write.action, Action::Merge { .. }));
        let owners: BTreeSet<usize> = writes.iter().map(|write| write.client).collect();
        // What several set as a whole, [`super::linear`] judges.
        let owned =
            owners.len() == 1 && !writes.iter().any(|write| matches!(write.action, Action::Replace { .. }));
        if shared {
            violations.extend(never_missing(operations, name, &writes));
        }
        if shared || owned {
            violations.extend(there_at_the_end(operations, name, &writes));
        }
    }
    violations
}

/// Every desktop holds the same.
fn one_state(operations: &Operations) -> Vec<Violation> {
    let Some((first, _, items)) = operations.finals.first() else {
        return vec![Violation::new("nobody looked at what is there at the end".into(), [])];
    };
    let others = operations.finals.iter().skip(1);
    others
        .filter_map(|(desktop, _, others)| {
            let names: BTreeSet<&String> = items.keys().chain(others.keys()).collect();
            let name = names.into_iter().find(|name| items.get(*name) != others.get(*name))?;
            let what = format!(
                "desktops do not agree at the end: of {name} d{first} holds {:?} and d{desktop} {:?}",
                items.get(name),
                others.get(name)
            );
            Some(Violation::new(what, []))
        })
        .collect()
}

/// In an object that only grows, a field that was ordered, or once seen, is in every later revision of the same epoch. A
/// group that is founded anew, because most of its voters are lost, does without what only they had acknowledged until they
/// return; who was shown that is told so ([`super::sessions`]), and at the end it has to be there.
fn never_missing(operations: &Operations, name: &str, writes: &[&Operation]) -> Vec<Violation> {
    let writers: BTreeMap<&str, usize> = writes
        .iter()
        .flat_map(|write| {
            write.action.written().into_iter().flatten().map(|(field, _)| (field.as_str(), write.id))
        })
        .collect();
    let mut versions: BTreeMap<u64, &Version> = BTreeMap::new();
    for sighting in operations.sightings.iter().filter(|sighting| sighting.name == name) {
        versions.insert(sighting.version.revision, sighting.version);
    }
    let mut violations = Vec::new();
    let mut before: Option<&Version> = None;
    for version in versions.into_values() {
        if let Some(before) = before
            && Revision(before.revision).epoch() == Revision(version.revision).epoch()
            && let Some(lost) = before.fields.keys().find(|field| !version.fields.contains_key(*field))
        {
            let what = format!(
                "{lost} was in {name} at revision {} and is not at {}",
                before.revision, version.revision
            );
            violations.push(Violation::new(what, writers.get(lost.as_str()).copied()));
        }
        before = Some(version);
    }
    violations
}

/// What the acknowledged writes come to.
#[derive(Default)]
struct Owed {
    fields: Fields,
    /// Acknowledged as made, and not acknowledged as deleted.
    there: bool,
    /// Acknowledged as deleted.
    gone: bool,
    /// A deletion or creation of which nobody knows.
    open: bool,
}

impl Owed {
    /// By writes of which each was asked for after the one before was answered, or which only add fields.
    fn by(writes: &[&Operation]) -> Self {
        let mut owed = Self::default();
        let mut deleted: BTreeSet<&str> = BTreeSet::new();
        for write in writes {
            // A desktop that was away shows, and edits, what was deleted before. That deletion wins.
            if let (Some(Outcome::Kept { uid: Some(uid), .. }), Action::Merge { .. }) =
                (write.outcome, write.action)
                && deleted.contains(uid.as_str())
            {
                continue;
            }
            let acknowledged = write.is_ordered() || write.is_kept();
            match (write.action, write.action.written()) {
                (_, Some(fields)) if acknowledged => {
                    (owed.there, owed.gone) = (true, false);
                    owed.fields.extend(fields.clone());
                }
                (Action::Delete { expects, .. }, _) if acknowledged => {
                    deleted.insert(&expects.uid);
                    owed = Self { gone: true, ..Self::default() };
                }
                (Action::Delete { .. }, _) if write.is_unknown() => owed.open = true,
                (Action::Create { .. }, _) if write.is_unknown() => owed.gone = false,
                _ => {}
            }
        }
        owed
    }
}

fn there_at_the_end(operations: &Operations, name: &str, writes: &[&Operation]) -> Vec<Violation> {
    let owed = Owed::by(writes);
    let mut violations = Vec::new();
    for (desktop, _, items) in &operations.finals {
        let what = match items.get(name) {
            None if owed.there && !owed.open => "it is not there".to_owned(),
            Some(version) if owed.gone => format!("it was deleted, but there it is: {:?}", version.fields),
            Some(version) => {
                let lost: Vec<_> = owed
                    .fields
                    .iter()
                    .filter(|(field, value)| version.fields.get(*field) != Some(value))
                    .map(|(field, value)| format!("{field}={value}"))
                    .collect();
                if lost.is_empty() {
                    continue;
                }
                format!("these are missing: {}", lost.join(", "))
            }
            None => continue,
        };
        let what = format!("acknowledged writes of {name} are lost on d{desktop}: {what}");
        let concerned = writes.iter().filter(|write| {
            let fields = write.action.written();
            let lost = |fields: &Fields| {
                let there = items.get(name).map(|version| &version.fields);
                fields.iter().any(|(field, value)| there.and_then(|there| there.get(field)) != Some(value))
            };
            fields.is_none_or(lost) && !write.is_refused()
        });
        violations.push(Violation::new(what, concerned.map(|write| write.id)));
        // The others hold the same, or `one_state` says so.
        break;
    }
    violations
}
