//! A client that says which revision it has been shown is never shown anything older, through whichever desktop, or is told
//! that its revision is valid no more (410), and begins anew.

use super::Violation;
use super::operations::Operations;
use crate::history::record::{Action, Outcome};
use std::collections::BTreeMap;

/// Per client and object: an answer not older than the last one. An object that was there is absent only if somebody
/// may have deleted it.
#[must_use]
pub fn check(operations: &Operations) -> Vec<Violation> {
    let mut violations = Vec::new();
    // The newest revision of an object that a client was shown, and the operation that showed it.
    let mut shown: BTreeMap<(usize, &str), (u64, usize)> = BTreeMap::new();
    for operation in &operations.all {
        let client = operation.client;
        if let Some(Outcome::Refused { code: 410, .. }) = operation.outcome {
            shown.retain(|(whose, _), _| *whose != client);
        }
        let (at_least, listed) = match operation.action {
            Action::Get { at_least, .. } => (*at_least, None),
            Action::List { at_least } => (*at_least, operation.outcome),
            _ => (None, None),
        };
        if let (Some(asked), Some(Outcome::Listed { revision, .. })) = (at_least, listed)
            && *revision < asked
        {
            let what = format!("client {client} asked for a list not older than {asked} and got {revision}");
            violations.push(Violation::new(what, [operation.id]));
        }
        let items: Vec<_> = match (operation.outcome, operation.action.name()) {
            (Some(Outcome::Listed { items, .. }), _) => {
                items.iter().map(|(name, version)| (name.as_str(), version.revision)).collect()
            }
            (_, Some(name)) => {
                operation.version().map(|version| (name, version.revision)).into_iter().collect()
            }
            _ => Vec::new(),
        };
        for (name, revision) in items {
            let before = shown.entry((client, name)).or_insert((revision, operation.id));
            if revision < before.0 && at_least.is_some() {
                let what = format!(
                    "client {client} was shown {name} at revision {} and later, though it said so, at {revision}",
                    before.0
                );
                violations.push(Violation::new(what, [before.1, operation.id]));
            }
            if revision >= before.0 {
                *before = (revision, operation.id);
            }
        }
        if let (Action::Get { name, at_least: Some(_) }, Some(Outcome::Absent)) =
            (operation.action, operation.outcome)
            && let Some((revision, by)) = shown.get(&(client, name.as_str()))
            && !operations.writes(name).any(|write| {
                matches!(write.action, Action::Delete { .. })
                    && !write.is_refused()
                    && write.invoked_us < operation.completed_us
            })
        {
            let what = format!(
                "client {client} was shown {name} at revision {revision}, and later that there is none, though \
                 nobody deleted it"
            );
            violations.push(Violation::new(what, [*by, operation.id]));
        }
    }
    violations
}
