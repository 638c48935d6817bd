//! A history put together again: each invocation with its outcome, and every version of every object that anybody
//! was ever shown.

use super::Violation;
use crate::history::record::{Action, Entry, History, Outcome, Told, Version};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

/// A request and what came of it.
#[derive(Debug, Clone, Copy)]
pub struct Operation<'a> {
    pub id: usize,
    pub client: usize,
    pub desktop: usize,
    pub action: &'a Action,
    pub invoked_us: u64,
    /// `u64::MAX` for what was never answered.
    pub completed_us: u64,
    /// `None`: never answered, which is to say unknown.
    pub outcome: Option<&'a Outcome>,
}

impl<'a> Operation<'a> {
    /// Whether it was acknowledged as ordered.
    #[must_use]
    pub fn is_ordered(&self) -> bool {
        matches!(self.outcome, Some(Outcome::Ordered { .. }))
    }

    /// Whether it was acknowledged with a warning.
    #[must_use]
    pub fn is_kept(&self) -> bool {
        matches!(self.outcome, Some(Outcome::Kept { .. }))
    }

    /// Whether it is a write that certainly did not happen.
    #[must_use]
    pub fn is_refused(&self) -> bool {
        matches!(self.outcome, Some(Outcome::Refused { .. }))
    }

    /// Whether it is a write of which nobody knows.
    #[must_use]
    pub fn is_unknown(&self) -> bool {
        matches!(self.outcome, None | Some(Outcome::Unknown { .. }))
    }

    /// The version that it was answered.
    #[must_use]
    pub fn version(&self) -> Option<&'a Version> {
        match self.outcome? {
            Outcome::Ordered { version } => version.as_ref(),
            Outcome::Found { version } => Some(version),
            _ => None,
        }
    }
}

impl fmt::Display for Operation<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let until = match self.completed_us {
            u64::MAX => "never".to_owned(),
            at_us => format!("{:.3}", at_us as f64 / 1e6),
        };
        write!(
            f,
            "[{:.3} - {until} s] #{} client {} through d{}: {} -> {}",
            self.invoked_us as f64 / 1e6,
            self.id,
            self.client,
            self.desktop,
            brief_action(self.action),
            self.outcome.map_or_else(|| "never answered".to_owned(), brief_outcome)
        )
    }
}

/// Objects can be large and only their ends tell: this much of one is shown.
const BRIEF: usize = 160;

fn brief(text: &str) -> String {
    match text.char_indices().nth(BRIEF) {
        Some((cut, _)) => format!("{}...", &text[..cut]),
        None => text.to_owned(),
    }
}

fn brief_version(version: &Version) -> String {
    brief(&format!("@{} {:?}", version.revision, version.fields))
}

fn brief_action(action: &Action) -> String {
    match action {
        Action::Create { name, fields } => brief(&format!("create {name} {fields:?}")),
        Action::Replace { name, expects, fields } => {
            brief(&format!("set {name} to {fields:?} if still {}", brief_version(expects)))
        }
        Action::Merge { name, fields } => brief(&format!("merge {fields:?} into {name}")),
        Action::Delete { name, expects } => {
            brief(&format!("delete {name} if still {}", brief_version(expects)))
        }
        Action::Get { name, at_least: None } => format!("get {name}"),
        Action::Get { name, at_least: Some(revision) } => format!("get {name} not older than {revision}"),
        Action::List { at_least: None } => "list".to_owned(),
        Action::List { at_least: Some(revision) } => format!("list not older than {revision}"),
    }
}

fn brief_outcome(outcome: &Outcome) -> String {
    match outcome {
        Outcome::Ordered { version: None } => "ordered".to_owned(),
        Outcome::Ordered { version: Some(version) } => format!("ordered {}", brief_version(version)),
        Outcome::Kept { .. } => "kept as intent".to_owned(),
        Outcome::Found { version } => brief_version(version),
        Outcome::Absent => "absent".to_owned(),
        Outcome::Listed { revision, items } => format!("{} objects @{revision}", items.len()),
        Outcome::Refused { code, why } => brief(&format!("refused ({code}): {why}")),
        Outcome::Unknown { code, why } => brief(&format!("unknown ({code}): {why}")),
    }
}

/// Somebody was shown this version of an object.
#[derive(Debug, Clone)]
pub struct Sighting<'a> {
    pub name: &'a str,
    pub version: &'a Version,
    /// When the answer was complete.
    pub at_us: u64,
    /// The request, where it was one.
    pub op: Option<usize>,
    /// Whether the object was gone with this revision, and `version` is what it was last.
    pub deleted: bool,
    /// Who was shown it, for messages.
    pub by: String,
}

/// What one watcher was told, in order.
pub type Stream<'a> = Vec<(u64, usize, &'a Told)>;

/// A whole history.
#[derive(Default)]
pub struct Operations<'a> {
    /// In the order of their ids, which is that of their invocations.
    pub all: Vec<Operation<'a>>,
    /// In the order in which they were recorded.
    pub sightings: Vec<Sighting<'a>>,
    pub streams: BTreeMap<usize, Stream<'a>>,
    /// What each desktop held at the end, and when it was asked.
    pub finals: Vec<(usize, u64, &'a BTreeMap<String, Version>)>,
}

impl<'a> Operations<'a> {
    /// # Errors
    /// When the recording itself makes no sense: an answer to nothing, two answers.
    pub fn of(history: &'a History) -> Result<Self, Violation> {
        let mut this = Self::default();
        for entry in &history.entries {
            match entry {
                Entry::Invoke { at_us, op, client, desktop, action } => {
                    this.invoked(*at_us, *op, *client, *desktop, action)?;
                }
                Entry::Complete { at_us, op, outcome } => this.completed(*at_us, *op, outcome)?,
                Entry::Watch { at_us, watcher, desktop, told } => {
                    this.told(*at_us, *watcher, *desktop, told);
                    this.streams.entry(*watcher).or_default().push((*at_us, *desktop, told));
                }
                Entry::Fault { .. } => {}
                Entry::Final { at_us, desktop, items } => {
                    for (name, version) in items {
                        this.see(*at_us, None, name, version, false, format!("the end on d{desktop}"));
                    }
                    this.finals.push((*desktop, *at_us, items));
                }
            }
        }
        Ok(this)
    }

    /// The writes of one object, in the order of their invocations.
    pub fn writes<'s>(&'s self, name: &'s str) -> impl Iterator<Item = &'s Operation<'a>> {
        self.all.iter().filter(move |op| op.action.writes() && op.action.name() == Some(name))
    }

    /// The names of all objects that anybody wrote.
    #[must_use]
    pub fn names(&self) -> BTreeSet<&'a str> {
        self.all.iter().filter(|op| op.action.writes()).filter_map(|op| op.action.name()).collect()
    }

    fn invoked(
        &mut self,
        invoked_us: u64,
        id: usize,
        client: usize,
        desktop: usize,
        action: &'a Action,
    ) -> Result<(), Violation> {
        if id != self.all.len() {
            return Err(broken(format!("operation {id} is out of order")));
        }
        let completed_us = u64::MAX;
        self.all.push(Operation { id, client, desktop, action, invoked_us, completed_us, outcome: None });
        Ok(())
    }

    fn completed(&mut self, at_us: u64, op: usize, outcome: &'a Outcome) -> Result<(), Violation> {
        let Some(operation) = self.all.get_mut(op) else {
            return Err(broken(format!("operation {op} was answered and never made")));
        };
        if operation.outcome.is_some() {
            return Err(broken(format!("operation {op} was answered twice")));
        }
        operation.outcome = Some(outcome);
        // A write of which nobody knows may still be under way.
        operation.completed_us =
            if operation.is_unknown() && operation.action.writes() { u64::MAX } else { at_us };
        let operation = *operation;
        let by = format!("d{} in #{op}", operation.desktop);
        match (outcome, operation.version(), operation.action.name()) {
            (Outcome::Listed { items, .. }, ..) => {
                for (name, version) in items {
                    self.see(at_us, Some(op), name, version, false, by.clone());
                }
            }
            (_, Some(version), Some(name)) => {
                let deleted = matches!(operation.action, Action::Delete { .. });
                self.see(at_us, Some(op), name, version, deleted, by);
            }
            _ => {}
        }
        Ok(())
    }

    fn told(&mut self, at_us: u64, watcher: usize, desktop: usize, told: &'a Told) {
        let by = format!("watcher {watcher} through d{desktop}");
        match told {
            Told::Listed { items, .. } => {
                for (name, version) in items {
                    self.see(at_us, None, name, version, false, by.clone());
                }
            }
            Told::Added { name, version } | Told::Modified { name, version } => {
                self.see(at_us, None, name, version, false, by);
            }
            Told::Deleted { name, version } => self.see(at_us, None, name, version, true, by),
            Told::Opened { .. } | Told::Expired | Told::Ended { .. } => {}
        }
    }

    fn see(
        &mut self,
        at_us: u64,
        op: Option<usize>,
        name: &'a str,
        version: &'a Version,
        deleted: bool,
        by: String,
    ) {
        self.sightings.push(Sighting { name, version, at_us, op, deleted, by });
    }
}

fn broken(why: String) -> Violation {
    Violation::new(format!("the recording is broken: {why}"), [])
}
