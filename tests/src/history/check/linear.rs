//! Whether the compare-and-sets of one object can have happened in one order, each between its request and its
//! answer (Wing and Gong's search, with what has been visited remembered as Lowe does). Knows nothing of revisions.
//!
//! What was kept as intent, or lost with its connection, may take effect at any later moment, without comparing, or
//! never. What was answered with 504 may have happened at any later moment, comparing, or not at all.

use super::Violation;
use super::operations::{Operation, Operations};
use crate::history::record::{Action, Fields, Outcome};
use std::collections::{BTreeMap, BTreeSet, HashSet};

/// Arrangements of one object's operations that are tried at most; beyond it the history is too wide to be judged,
/// which is no pass.
pub const MAX_ARRANGEMENTS: usize = 100_000;
/// How many of the operations before the one that does not fit are told.
const TOLD_BEFORE: usize = 12;

/// A number for each value that an object has had; 0 is absence.
type State = usize;
const ABSENT: State = 0;

/// One operation as the search sees it.
#[derive(Debug, Clone, Copy)]
struct Step {
    id: usize,
    from_us: u64,
    until_us: u64,
    /// `None`: whatever was there.
    needs: Option<State>,
    sets: State,
}

/// Every object that is only written whole.
#[must_use]
pub fn check(operations: &Operations) -> Vec<Violation> {
    let whole =
        |name: &&str| !operations.writes(name).any(|write| matches!(write.action, Action::Merge { .. }));
    operations.names().into_iter().filter(whole).filter_map(|name| one(operations, name)).collect()
}

fn one(operations: &Operations, name: &str) -> Option<Violation> {
    let mut values: BTreeMap<&Fields, State> = BTreeMap::new();
    let mut number = |fields| -> State {
        let next = values.len() + 1;
        *values.entry(fields).or_insert(next)
    };
    let (mut must, mut may) = (Vec::new(), Vec::new());
    for write in operations.writes(name) {
        let (needs, sets) = match write.action {
            Action::Create { fields, .. } => (ABSENT, number(fields)),
            Action::Replace { expects, fields, .. } => (number(&expects.fields), number(fields)),
            Action::Delete { expects, .. } => (number(&expects.fields), ABSENT),
            Action::Merge { .. } | Action::Get { .. } | Action::List { .. } => continue,
        };
        let compares =
            write.is_ordered() || matches!(write.outcome, Some(Outcome::Unknown { code: 504, .. }));
        let (id, from_us, until_us) = (write.id, write.invoked_us, write.completed_us);
        let step = Step { id, from_us, until_us, needs: compares.then_some(needs), sets };
        match () {
            () if write.is_refused() => {}
            () if write.is_ordered() => must.push(step),
            () => may.push(Step { until_us: u64::MAX, ..step }),
        }
    }
    // What is there at the end is a read that everybody agrees on.
    if let Some((_, at_us, items)) = operations.finals.first() {
        let there = items.get(name).map_or(ABSENT, |version| number(&version.fields));
        let id = usize::MAX;
        must.push(Step { id, from_us: *at_us, until_us: u64::MAX, needs: Some(there), sets: there });
    }
    search(&must, &useful(&must, may)).err().map(|stuck| stuck.tell(operations, name, &must))
}

/// Of the steps that may have happened, those whose outcome anybody depends on. The others change nothing that was
/// seen, so that leaving them out loses no order.
fn useful(must: &[Step], may: Vec<Step>) -> Vec<Step> {
    let mut wanted: BTreeSet<State> = must.iter().filter_map(|step| step.needs).collect();
    let (mut kept, mut rest) = (Vec::new(), may);
    loop {
        let (more, left): (Vec<_>, Vec<_>) = rest.into_iter().partition(|step| wanted.contains(&step.sets));
        if more.is_empty() {
            kept.sort_by_key(|step: &Step| step.from_us);
            return kept;
        }
        wanted.extend(more.iter().filter_map(|step| step.needs));
        kept.extend(more);
        rest = left;
    }
}

/// How far an arrangement has come.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Reached {
    state: State,
    /// All steps that must have happened before this one have.
    prefix: usize,
    /// And these behind it.
    beyond: Vec<usize>,
    /// Those of the others that have, in order.
    taken: Vec<usize>,
}

/// Why there is no order.
enum Stuck {
    /// The furthest that any arrangement came, and what did not fit there.
    NoOrder {
        reached: Reached,
        waiting: Vec<usize>,
    },
    TooWide,
}

fn search(must: &[Step], may: &[Step]) -> Result<(), Stuck> {
    let must: Vec<Step> = {
        let mut sorted = must.to_vec();
        sorted.sort_by_key(|step| step.from_us);
        sorted
    };
    let start = Reached { state: ABSENT, prefix: 0, beyond: Vec::new(), taken: Vec::new() };
    let mut furthest = (0, start.clone(), Vec::new());
    let mut visited = HashSet::from([start.clone()]);
    let mut stack = vec![start];
    while let Some(reached) = stack.pop() {
        if reached.prefix == must.len() {
            return Ok(());
        }
        if visited.len() > MAX_ARRANGEMENTS {
            return Err(Stuck::TooWide);
        }
        let (open, deadline_us) = open(&must, &reached);
        let progress = reached.prefix + reached.beyond.len();
        if progress >= furthest.0 {
            let ids = open.iter().map(|&index| must[index].id).collect();
            furthest = (progress, reached.clone(), ids);
        }
        // What is pushed last is tried first: what must have happened, before what may have.
        for next in perhaps(&must, may, &reached, &open, deadline_us) {
            if visited.insert(next.clone()) {
                stack.push(next);
            }
        }
        for &index in &open {
            let step = must[index];
            if step.needs.is_none_or(|needs| needs == reached.state) {
                let next = reached.after(index, step.sets);
                if visited.insert(next.clone()) {
                    stack.push(next);
                }
            }
        }
    }
    Err(Stuck::NoOrder { reached: furthest.1, waiting: furthest.2 })
}

/// The steps that may come next: those that were asked for before any of the others was answered; and until when.
fn open(must: &[Step], reached: &Reached) -> (Vec<usize>, u64) {
    let mut open = Vec::new();
    let mut deadline_us = u64::MAX;
    for (index, step) in must.iter().enumerate().skip(reached.prefix) {
        if step.from_us > deadline_us {
            break;
        }
        if !reached.beyond.contains(&index) {
            deadline_us = deadline_us.min(step.until_us);
            open.push(index);
        }
    }
    open.retain(|&index| must[index].from_us <= deadline_us);
    (open, deadline_us)
}

/// The steps that may have happened just now. Since they may have happened at any later moment as well, only those
/// count whose outcome the very next step needs.
fn perhaps(must: &[Step], may: &[Step], reached: &Reached, open: &[usize], deadline_us: u64) -> Vec<Reached> {
    let free: Vec<usize> = (0..may.len())
        .filter(|index| may[*index].from_us <= deadline_us && !reached.taken.contains(index))
        .collect();
    let mut wanted: BTreeSet<State> = open.iter().filter_map(|&index| must[index].needs).collect();
    wanted.extend(free.iter().filter_map(|&index| may[index].needs));
    let fits = |index: &&usize| {
        let step = may[**index];
        wanted.contains(&step.sets)
            && step.sets != reached.state
            && step.needs.is_none_or(|needs| needs == reached.state)
    };
    let after = |index: &usize| {
        let mut next = Reached { state: may[*index].sets, ..reached.clone() };
        let place = next.taken.partition_point(|taken| taken < index);
        next.taken.insert(place, *index);
        next
    };
    free.iter().filter(fits).map(after).collect()
}

impl Reached {
    fn after(&self, index: usize, state: State) -> Self {
        let mut next = Self { state, ..self.clone() };
        let place = next.beyond.partition_point(|beyond| *beyond < index);
        next.beyond.insert(place, index);
        while next.beyond.first() == Some(&next.prefix) {
            next.beyond.remove(0);
            next.prefix += 1;
        }
        next
    }
}

impl Stuck {
    fn tell(self, operations: &Operations, name: &str, must: &[Step]) -> Violation {
        match self {
            Self::TooWide => Violation::new(
                format!(
                    "the history of {name} is too wide to be judged: more than {MAX_ARRANGEMENTS} arrangements of \
                     its {} writes; run it shorter or with fewer clients",
                    must.len()
                ),
                [],
            ),
            Self::NoOrder { reached, waiting } => {
                let until =
                    waiting.iter().filter_map(|id| operations.all.get(*id)).map(|op| op.invoked_us).max();
                let ends = waiting.contains(&usize::MAX);
                let until = if ends { u64::MAX } else { until.unwrap_or(u64::MAX) };
                let before: Vec<&Operation> = operations
                    .writes(name)
                    .filter(|write| !write.is_refused() && write.invoked_us <= until)
                    .collect();
                let shown = before.iter().rev().take(TOLD_BEFORE).map(|write| write.id);
                let what = format!(
                    "the writes of {name} can not have happened in any one order: {} fit, then none of {:?} does{}",
                    reached.prefix + reached.beyond.len(),
                    waiting.iter().filter(|id| **id != usize::MAX).collect::<Vec<_>>(),
                    if ends { ", nor what is there at the end" } else { "" },
                );
                let waiting = waiting.iter().copied().filter(|id| *id != usize::MAX);
                Violation::new(what, shown.chain(waiting))
            }
        }
    }
}
