//! What must be true, whatever breaks: judged from what clients were answered and from what every view showed.

use super::super::trace::Trace;
use super::name;
use gaggle_sched::raft::{Role, Status};
use gaggle_sched::state::{Expect, Key, Resource, Revision, Store, View};
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::time::Instant;

const CONFIG_MAPS: Resource = Resource::fixed("configmaps");

/// What must not be was.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation {
    pub rule: &'static str,
    pub what: String,
    pub at: Duration,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Stats {
    pub virtual_ms: u64,
    pub faults: BTreeMap<&'static str, u64>,
    pub acknowledged: u64,
    pub refused: u64,
    pub unknown: u64,
    pub not_written: u64,
    pub terms: u64,
    pub voter_changes: u64,
    pub parts_taken: u64,
    pub parts_dropped: u64,
    pub whole_states: u64,
    pub listed_again: u64,
    pub healed_ms: u64,
}

/// What a client was told in the end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Told {
    Acknowledged(Revision),
    /// Something else was there: the revision at which it was.
    Refused(Option<Revision>),
    /// It may have happened.
    Unknown,
    /// It has not.
    NotWritten,
}

/// A client's write.
#[derive(Clone, Debug)]
pub struct Operation {
    pub key: Key,
    /// No two writes write the same.
    pub value: u64,
    pub expect: Expect,
    pub began: Instant,
    pub ended: Instant,
    pub told: Told,
}

/// What one view showed without a gap.
#[derive(Debug)]
struct Span {
    who: usize,
    after: Revision,
    seen: Vec<Revision>,
}

#[derive(Clone)]
pub struct Judge {
    shared: Arc<Mutex<Record>>,
    began: Instant,
}

struct Record {
    trace: Trace,
    stats: Stats,
    violation: Option<Violation>,
    /// The order, as the first view showed it that got there.
    order: BTreeMap<Revision, (Key, Option<u64>)>,
    spans: Vec<Span>,
    operations: Vec<Operation>,
    terms: BTreeMap<usize, u64>,
    leaders: BTreeMap<u64, usize>,
    closed: bool,
}

impl Judge {
    pub fn new() -> Self {
        let record = Record {
            trace: Trace::new(true),
            stats: Stats::default(),
            violation: None,
            order: BTreeMap::new(),
            spans: Vec::new(),
            operations: Vec::new(),
            terms: BTreeMap::new(),
            leaders: BTreeMap::new(),
            closed: false,
        };
        Self { shared: Arc::new(Mutex::new(record)), began: Instant::now() }
    }

    fn lock(&self) -> MutexGuard<'_, Record> {
        self.shared.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn note(&self, who: &str, what: impl FnOnce() -> String) {
        let now = self.began.elapsed().as_micros() as u64;
        self.lock().trace.note(now, who, what);
    }

    pub fn count(&self, count: impl FnOnce(&mut Stats)) {
        count(&mut self.lock().stats);
    }

    pub fn violated(&self, rule: &'static str, what: String) {
        let at = self.began.elapsed();
        self.lock().violation.get_or_insert(Violation { rule, what, at });
    }

    pub fn failed(&self) -> bool {
        self.lock().violation.is_some()
    }

    pub fn did(&self, operation: Operation) {
        let Operation { key, value, expect, told, .. } = &operation;
        self.note("-", || format!("{value} to {}, expecting {expect:?}: {told:?}", key.name));
        let mut record = self.lock();
        let stats = &mut record.stats;
        *match told {
            Told::Acknowledged(_) => &mut stats.acknowledged,
            Told::Refused(_) => &mut stats.refused,
            Told::Unknown => &mut stats.unknown,
            Told::NotWritten => &mut stats.not_written,
        } += 1;
        record.operations.push(operation);
    }

    /// A machine says something about its part in the group.
    pub fn hears(&self, who: usize, status: &Status) {
        let (term, leads) = (status.term, status.role == Role::Leader);
        let known =
            *self.lock().terms.entry(who).and_modify(|known| *known = term.max(*known)).or_insert(term);
        if known > term {
            self.violated(
                "a voter's term never goes back",
                format!("{} was in term {known}, now in {term}", name(who)),
            );
        }
        if leads {
            let first = *self.lock().leaders.entry(term).or_insert(who);
            if first != who {
                let both = format!("{} and {} lead in term {term}", name(first), name(who));
                self.violated("a term has one leader", both);
            }
        }
    }

    /// Watches a view until it is dropped by whoever writes it.
    pub async fn watch(self, who: usize, view: View) {
        let mut bell = view.subscribe();
        let mut seen = view.seen();
        let mut span = None;
        loop {
            match view.changes_after(seen) {
                Ok(changes) => {
                    for change in changes {
                        let value = change.object.as_ref().and_then(|object| value_of(object.value()));
                        let at = *span.get_or_insert_with(|| self.begin_span(who, seen.revision));
                        self.sees(who, Some(at), change.revision, &change.key, value);
                        seen.revision = change.revision;
                    }
                }
                Err(_) => {
                    let before = seen;
                    seen = view.seen();
                    if seen.generation == before.generation && seen.revision < before.revision {
                        let (old, new) = (before.revision, seen.revision);
                        self.violated("a view never goes back", format!("{} from {old} to {new}", name(who)));
                    }
                    self.count(|stats| stats.whole_states += 1);
                    for (key, revision, value) in content(&view) {
                        self.sees(who, None, revision, &key, Some(value));
                    }
                    span = None;
                }
            }
            if bell.changed().await.is_err() || self.lock().closed {
                return;
            }
        }
    }

    pub fn begin_span(&self, who: usize, after: Revision) -> usize {
        let mut record = self.lock();
        record.spans.push(Span { who, after, seen: Vec::new() });
        record.spans.len() - 1
    }

    pub fn sees(&self, who: usize, span: Option<usize>, revision: Revision, key: &Key, value: Option<u64>) {
        let known = {
            let mut record = self.lock();
            if let Some(span) = span {
                record.spans[span].seen.push(revision);
            }
            record.order.entry(revision).or_insert_with(|| (key.clone(), value)).clone()
        };
        if known != (key.clone(), value) {
            let what = format!(
                "at revision {revision} {} shows {} = {value:?}, another {} = {:?}",
                name(who),
                key.name,
                known.0.name,
                known.1
            );
            self.violated("every machine applies the same in the same order", what);
        }
    }

    /// A watcher was told that its revision is valid no more, and lists again.
    pub fn lists(&self, who: usize, through: usize, seen: Option<Revision>, listed: Revision) {
        self.count(|stats| stats.listed_again += 1);
        if seen.is_some_and(|seen| listed < seen) {
            let what =
                format!("watcher {who} had seen {seen:?}, and lists {listed} through {}", name(through));
            self.violated("a watch never goes back", what);
        }
    }

    /// In the end all show the same.
    pub fn all_see(&self, contents: &[(usize, Contents)]) {
        for pair in contents.windows(2) {
            let [(one, mine), (other, theirs)] = pair else { continue };
            if mine != theirs {
                let what = format!("{}: {mine:?}\n    {}: {theirs:?}", name(*one), name(*other));
                self.violated("in the end all views are equal", what);
            }
        }
    }

    /// Nothing more is watched; what was recorded is judged.
    pub fn close(&self) {
        let violation = {
            let mut record = self.lock();
            record.closed = true;
            record.stats.terms = record.leaders.len() as u64;
            record.stats.virtual_ms = self.began.elapsed().as_millis() as u64;
            record.judge()
        };
        if let Some((rule, what)) = violation {
            self.violated(rule, what);
        }
    }

    pub fn result(&self) -> Result<Stats, Box<super::Failure>> {
        let record = self.lock();
        match &record.violation {
            None => Ok(record.stats.clone()),
            Some(violation) => {
                let trace = record.trace.last(usize::MAX).cloned().collect();
                Err(Box::new(super::Failure { violation: violation.clone(), trace }))
            }
        }
    }
}

type Broken = (&'static str, String);

impl Record {
    fn judge(&self) -> Option<Broken> {
        self.gaps().or_else(|| self.durable()).or_else(|| self.linear())
    }

    /// What a view showed in one go is all that there was.
    fn gaps(&self) -> Option<Broken> {
        self.spans.iter().find_map(|span| {
            let last = *span.seen.last()?;
            let all = self.order.range(span.after..=last).map(|(revision, _)| *revision);
            let all: Vec<Revision> = all.filter(|revision| *revision > span.after).collect();
            let what = || format!("{} showed {:?} of {all:?}", name(span.who), span.seen);
            (all != span.seen).then(|| ("a view shows every change once, in order", what()))
        })
    }

    /// What was acknowledged is there, where it was said to be; what was not written is not; nothing is there twice.
    fn durable(&self) -> Option<Broken> {
        let mut written = BTreeMap::new();
        for (revision, (key, value)) in &self.order {
            let Some(value) = value else { continue };
            if let Some(before) = written.insert(*value, (*revision, key)) {
                return Some((
                    "a transaction happens once at most",
                    format!("{value} at {} and {revision}", before.0),
                ));
            }
        }
        self.operations.iter().find_map(|operation| {
            let found = written.get(&operation.value).map(|(revision, _)| *revision);
            let what = || format!("{operation:?}, found at {found:?}");
            match operation.told {
                Told::Acknowledged(revision) if found != Some(revision) => {
                    Some(("what was acknowledged is in the order", what()))
                }
                Told::NotWritten | Told::Refused(_) if found.is_some() => {
                    Some(("what was said not to be written is not", what()))
                }
                _ => None,
            }
        })
    }

    /// Whoever began after another one had its answer comes after it; nobody replaced what he had not seen.
    fn linear(&self) -> Option<Broken> {
        let mut versions: BTreeMap<&Key, BTreeSet<Revision>> = BTreeMap::new();
        for (revision, (key, _)) in &self.order {
            versions.entry(key).or_default().insert(*revision);
        }
        let acknowledged = self.operations.iter().filter_map(|operation| match operation.told {
            Told::Acknowledged(revision) => Some((operation, revision)),
            _ => None,
        });
        let mut by_end: Vec<_> = acknowledged.collect();
        by_end.sort_by_key(|(operation, revision)| (operation.ended, *revision));
        // The highest revision that anybody had been told of by then.
        let mut highest = Revision::default();
        let told: Vec<(Instant, Revision)> = by_end
            .iter()
            .map(|(operation, revision)| {
                highest = highest.max(*revision);
                (operation.ended, highest)
            })
            .collect();
        let known_at = |began: Instant| {
            let upto = told.partition_point(|(ended, _)| *ended < began);
            upto.checked_sub(1).map(|last| told[last].1)
        };
        self.operations.iter().find_map(|operation| {
            let all = versions.get(&operation.key);
            let before = |revision: Revision| all.and_then(|all| all.range(..revision).next_back().copied());
            match (operation.told, &operation.expect) {
                (Told::Acknowledged(revision), _) if known_at(operation.began) >= Some(revision) => {
                    Some(("a write comes after what was acknowledged before it", format!("{operation:?}")))
                }
                (Told::Acknowledged(revision), Expect::Revision(expected))
                    if before(revision) != Some(*expected) =>
                {
                    let what = format!("{operation:?}, and before it there was {:?}", before(revision));
                    Some(("a compare-and-set replaces what it was made for", what))
                }
                (Told::Acknowledged(revision), Expect::Absent) if before(revision).is_some() => {
                    Some(("a compare-and-set replaces what it was made for", format!("{operation:?}")))
                }
                (Told::Refused(Some(current)), Expect::Revision(expected)) => {
                    let known =
                        all.is_some_and(|all| all.contains(&current)) || current == Revision::default();
                    let wrong = current == *expected || !known;
                    wrong.then(|| ("a refusal names what is there", format!("{operation:?}")))
                }
                _ => None,
            }
        })
    }
}

/// The registers of a view: their keys, revisions and values, in the order of the keys.
pub type Contents = Vec<(Key, Revision, u64)>;

/// The registers that a view shows.
pub fn content(view: &View) -> Contents {
    let registers = |store: &Store| {
        let all = store.list(&CONFIG_MAPS, None);
        all.filter_map(|(key, object)| Some((key.clone(), object.revision(), value_of(object.value())?)))
            .collect()
    };
    view.read(registers)
}

pub fn key(number: usize) -> Key {
    Key::new(CONFIG_MAPS, "default", format!("r{number}"))
}

pub fn value_of(value: &Value) -> Option<u64> {
    value.get("data")?.get("v")?.as_str()?.parse().ok()
}
