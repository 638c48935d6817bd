//! A watch tells every change once, in order, without a gap, until it says 410; what it tells makes sense (nothing
//! is added that is there, nothing changed or deleted that is not).

use super::Violation;
use super::operations::{Operations, Stream};
use crate::history::record::Told;
use std::collections::{BTreeMap, BTreeSet};

/// Every watcher's stream against every change that anybody knows of.
#[must_use]
pub fn check(operations: &Operations) -> Vec<Violation> {
    // What is known of all changes: (revision, name).
    let mut known: BTreeMap<(u64, &str), Option<usize>> = BTreeMap::new();
    for sighting in &operations.sightings {
        let known = known.entry((sighting.version.revision, sighting.name)).or_default();
        *known = known.or(sighting.op);
    }
    let streams = operations.streams.iter();
    streams.flat_map(|(watcher, stream)| one(*watcher, stream, &known)).collect()
}

/// What a watcher has been told since its last new beginning.
struct Since<'a> {
    begun: u64,
    last: u64,
    told: BTreeSet<(u64, &'a str)>,
    /// Whether an object is there, as far as it was told.
    there: BTreeMap<&'a str, bool>,
}

fn one<'a>(
    watcher: usize,
    stream: &Stream<'a>,
    known: &BTreeMap<(u64, &'a str), Option<usize>>,
) -> Vec<Violation> {
    let mut violations = Vec::new();
    let mut since: Option<Since> = None;
    for (at_us, desktop, told) in stream {
        let place = format!("watcher {watcher} through d{desktop} at {:.3} s", *at_us as f64 / 1e6);
        let mut wrong = |what: String| violations.push(Violation::new(format!("{place}: {what}"), []));
        match told {
            Told::Listed { revision, items } => {
                let there = items.keys().map(|name| (name.as_str(), true)).collect();
                if let Some(before) = &since
                    && *revision < before.last
                {
                    wrong(format!("listed {revision} after it had told {}: it went back", before.last));
                }
                violations.extend(since.take().and_then(|since| gaps(watcher, &since, known)));
                since = Some(Since { begun: *revision, last: *revision, told: BTreeSet::new(), there });
            }
            Told::Opened { .. } | Told::Ended { .. } => {}
            // The beginning that follows may be at an older revision: another group's are not compared.
            Told::Expired => violations.extend(since.take().and_then(|since| gaps(watcher, &since, known))),
            Told::Added { name, version }
            | Told::Modified { name, version }
            | Told::Deleted { name, version } => {
                let Some(since) = &mut since else {
                    wrong("told a change before any list".into());
                    continue;
                };
                let revision = version.revision;
                if revision < since.last || since.told.contains(&(revision, name.as_str())) {
                    wrong(format!("told {name} at {revision} after {}", since.last));
                }
                let there = since.there.get(name.as_str()).copied().unwrap_or(false);
                if there == matches!(told, Told::Added { .. }) {
                    let state = if there { "there already" } else { "not there" };
                    wrong(format!("told {told:?}, but {name} is {state}"));
                }
                since.there.insert(name, !matches!(told, Told::Deleted { .. }));
                since.last = since.last.max(revision);
                since.told.insert((revision, name));
            }
        }
    }
    violations.extend(since.and_then(|since| gaps(watcher, &since, known)));
    violations
}

/// The changes between beginning and end that it was not told of.
fn gaps(watcher: usize, since: &Since, known: &BTreeMap<(u64, &str), Option<usize>>) -> Option<Violation> {
    // Of the last revision itself another change may have been on its way.
    let missed: Vec<_> = known
        .range((since.begun + 1, "")..(since.last.max(since.begun + 1), ""))
        .filter(|((revision, name), _)| !since.told.contains(&(*revision, *name)))
        .collect();
    let ((revision, name), _) = missed.first()?;
    let what = format!(
        "watcher {watcher}, told everything from {} to {}, was never told of {name} at {revision} ({} changes are \
         missing)",
        since.begun,
        since.last,
        missed.len()
    );
    Some(Violation::new(what, missed.iter().filter_map(|(_, op)| **op)))
}
