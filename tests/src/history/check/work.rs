//! What containers left behind outside of the product, against what the product says that it ran.

use super::Violation;
use super::lives::{self, Lives};
use std::collections::{BTreeMap, BTreeSet};

/// What is known of the work that went along with a history.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Evidence {
    /// By which bindings each pod that must not run twice has begun, as its containers wrote down: `EPOCH.TERM` of the
    /// leader that chose the desktop.
    pub starts: BTreeMap<String, Vec<String>>,
    /// The pods that finished each index of the Job, as their containers wrote down.
    pub finished: BTreeMap<usize, BTreeSet<String>>,
    /// How many indexes the Job has.
    pub completions: usize,
    /// The indexes that the Job says are completed: each must be named once.
    pub completed: Vec<usize>,
    /// How many of its pods the Job says succeeded.
    pub succeeded: usize,
    /// The revision at which the Job first said that an index is completed.
    pub completed_at: BTreeMap<usize, u64>,
    /// The Job's pods as they were made: index and revision.
    pub born: BTreeMap<String, (usize, u64)>,
    /// When the containers of each identity ran, as they wrote down.
    pub identities: BTreeMap<String, Lives>,
    /// How many identities there are.
    pub members: usize,
}

/// Everything that is wrong with it.
#[must_use]
pub fn check(evidence: &Evidence) -> Vec<Violation> {
    let mut wrong = Vec::new();
    for (pod, bindings) in &evidence.starts {
        // A binding that only voters knew who were all lost at once is made again by the next epoch. Whatever must not run
        // twice even then is an identity.
        let epochs: BTreeSet<&str> =
            bindings.iter().filter_map(|binding| binding.split('.').next()).collect();
        if epochs.len() < bindings.len() {
            wrong.push(format!(
                "the container of {pod} must run at most once in an epoch, and began {} times: {bindings:?}",
                bindings.len()
            ));
        }
    }
    let mut named = BTreeSet::new();
    for index in &evidence.completed {
        if !named.insert(*index) {
            wrong.push(format!("the Job names index {index} as completed twice"));
        }
        if !evidence.finished.contains_key(index) {
            wrong.push(format!("the Job says that index {index} is completed, but no container finished it"));
        }
    }
    if named != (0..evidence.completions).collect() || evidence.succeeded != evidence.completions {
        wrong.push(format!(
            "the Job has {} indexes; it says {} succeeded and these are completed: {named:?}",
            evidence.completions, evidence.succeeded
        ));
    }
    for (pod, (index, born)) in &evidence.born {
        if let Some(completed) = evidence.completed_at.get(index)
            && born > completed
        {
            wrong.push(format!(
                "index {index} was completed at revision {completed}, and {pod} made for it at {born}"
            ));
        }
    }
    if evidence.identities.len() != evidence.members {
        wrong.push(format!("of {} identities {} ever ran", evidence.members, evidence.identities.len()));
    }
    let mut violations: Vec<_> = wrong.into_iter().map(|what| Violation::new(what, [])).collect();
    violations.extend(lives::check(&evidence.identities));
    violations
}

/// `0-2,5` as the indexes it stands for, as often as it names them.
#[must_use]
pub fn expand(ranges: &str) -> Vec<usize> {
    let bounds = ranges.split(',').filter(|range| !range.is_empty()).filter_map(|range| {
        let (first, last) = range.split_once('-').unwrap_or((range, range));
        Some((first.parse::<usize>().ok()?, last.parse::<usize>().ok()?))
    });
    bounds.flat_map(|(first, last)| first..=last).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn good() -> Evidence {
        let finished = |pod: &str| BTreeSet::from([pod.to_owned()]);
        Evidence {
            starts: ["a", "b", "c"].map(|pod| (pod.to_owned(), vec!["3.1".to_owned()])).into(),
            finished: BTreeMap::from([(0, finished("a")), (1, finished("b"))]),
            completions: 2,
            completed: vec![0, 1],
            succeeded: 2,
            completed_at: BTreeMap::from([(0, 10), (1, 20)]),
            born: BTreeMap::from([("a".into(), (0, 5)), ("b".into(), (1, 6)), ("c".into(), (1, 19))]),
            identities: BTreeMap::from([("db-0".into(), lives::lives("x 1\nx 2\n").unwrap())]),
            members: 1,
        }
    }

    fn wrong(change: impl FnOnce(&mut Evidence)) -> String {
        let mut evidence = good();
        change(&mut evidence);
        check(&evidence).into_iter().map(|violation| violation.what).collect::<Vec<_>>().join("; ")
    }

    #[test]
    fn work_done_once_is_fine() {
        assert_eq!(wrong(|_| {}), "");
    }

    #[test]
    fn a_container_that_begins_twice_is_seen() {
        let again =
            |binding: &str| wrong(|work| work.starts.entry("a".into()).or_default().push(binding.to_owned()));
        assert!(again("3.1").contains("began 2 times"), "by the same binding");
        assert!(again("3.2").contains("began 2 times"), "by another one that cannot have lost the first");
        assert_eq!(again("4.1"), "", "the binding was lost with those who knew it");
    }

    #[test]
    fn an_index_that_is_completed_twice_or_never_is_seen() {
        assert!(wrong(|work| work.completed = vec![0, 0, 1]).contains("index 0 as completed twice"));
        assert!(wrong(|work| work.completed = vec![0]).contains("these are completed: {0}"));
        assert!(wrong(|work| work.succeeded = 3).contains("it says 3 succeeded"));
    }

    #[test]
    fn an_index_that_nobody_ran_is_seen() {
        assert!(wrong(|work| drop(work.finished.remove(&1))).contains("no container finished it"));
    }

    #[test]
    fn a_pod_for_a_completed_index_is_seen() {
        let again = |work: &mut Evidence| work.born.extend([("d".into(), (1, 21))]);
        assert!(wrong(again).contains("d made for it at 21"));
    }

    #[test]
    fn an_identity_that_runs_twice_or_never_is_seen() {
        let twice = |work: &mut Evidence| {
            work.identities.insert("db-0".into(), lives::lives("x 1\ny 2\nx 3\n").unwrap_or_default());
        };
        assert!(wrong(twice).contains("ran twice at once"));
        assert!(wrong(|work| work.identities.clear()).contains("of 1 identities 0 ever ran"));
    }

    #[test]
    fn ranges_are_expanded() {
        assert_eq!(expand("0-2,5,5"), [0, 1, 2, 5, 5]);
        assert_eq!(expand(""), [0; 0]);
    }
}
