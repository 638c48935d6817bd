//! What a history is made of: invocations, completions, watch events and faults, in the order in which they were
//! recorded, with monotonic times. One JSON object a line.

use anyhow::{Context, Result, ensure};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fs::File;
use std::io::{BufRead, BufReader, BufWriter, Write};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Instant;

/// Entries of one history. Half an hour makes a tenth of this; beyond it the clients stop, and the run says so.
pub const MAX_ENTRIES: usize = 2_000_000;

/// The data of a ConfigMap.
pub type Fields = BTreeMap<String, String>;

/// An object as somebody saw it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Version {
    pub uid: String,
    /// Its `resourceVersion`.
    pub revision: u64,
    pub fields: Fields,
}

/// What a client asked for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "verb", rename_all = "lowercase")]
pub enum Action {
    Create {
        name: String,
        fields: Fields,
    },
    /// Compare and set: the object must still be as it was seen.
    Replace {
        name: String,
        expects: Version,
        fields: Fields,
    },
    /// Adds these fields to whatever else there is.
    Merge {
        name: String,
        fields: Fields,
    },
    /// Compare and delete.
    Delete {
        name: String,
        expects: Version,
    },
    /// The object not older than this revision, if one is named.
    Get {
        name: String,
        at_least: Option<u64>,
    },
    List {
        at_least: Option<u64>,
    },
}

impl Action {
    /// The object that it is about; none for a list.
    #[must_use]
    pub fn name(&self) -> Option<&str> {
        match self {
            Self::Create { name, .. }
            | Self::Replace { name, .. }
            | Self::Merge { name, .. }
            | Self::Delete { name, .. }
            | Self::Get { name, .. } => Some(name),
            Self::List { .. } => None,
        }
    }

    /// What it writes; none for a deletion or a read.
    #[must_use]
    pub fn written(&self) -> Option<&Fields> {
        match self {
            Self::Create { fields, .. } | Self::Replace { fields, .. } | Self::Merge { fields, .. } => {
                Some(fields)
            }
            Self::Delete { .. } | Self::Get { .. } | Self::List { .. } => None,
        }
    }

    /// Whether it changes anything.
    #[must_use]
    pub fn writes(&self) -> bool {
        !matches!(self, Self::Get { .. } | Self::List { .. })
    }
}

/// What came of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "outcome", rename_all = "lowercase")]
pub enum Outcome {
    /// A write that was acknowledged as ordered. A deletion may tell no version.
    Ordered { version: Option<Version> },
    /// A write that was acknowledged with a `Warning:`: kept as intent, not ordered yet. `uid`: of which
    /// object, as the desktop that keeps it knows it.
    Kept {
        warning: String,
        #[serde(default)]
        uid: Option<String>,
    },
    /// A read that found the object.
    Found { version: Version },
    /// A read that was told that there is none.
    Absent,
    /// A list.
    Listed { revision: u64, items: BTreeMap<String, Version> },
    /// It did not happen, and the answer says so (or the request never left).
    Refused { code: u16, why: String },
    /// Nobody knows: 504, 500, or (code 0) no whole answer.
    Unknown { code: u16, why: String },
}

/// What a watch told.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "lowercase")]
pub enum Told {
    /// A new beginning: everything as it was listed at this revision.
    Listed {
        revision: u64,
        items: BTreeMap<String, Version>,
    },
    /// The stream was opened (again) behind this revision.
    Opened {
        after: u64,
    },
    Added {
        name: String,
        version: Version,
    },
    Modified {
        name: String,
        version: Version,
    },
    /// `version` holds the revision of the deletion, and the object as it was last.
    Deleted {
        name: String,
        version: Version,
    },
    /// 410: what follows is a new beginning.
    Expired,
    /// The stream broke or was not to be had.
    Ended {
        why: String,
    },
}

/// One line.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "entry", rename_all = "lowercase")]
pub enum Entry {
    Invoke {
        at_us: u64,
        op: usize,
        client: usize,
        desktop: usize,
        action: Action,
    },
    Complete {
        at_us: u64,
        op: usize,
        #[serde(flatten)]
        outcome: Outcome,
    },
    Watch {
        at_us: u64,
        watcher: usize,
        desktop: usize,
        #[serde(flatten)]
        told: Told,
    },
    /// What was done to the bench.
    Fault {
        at_us: u64,
        what: String,
    },
    /// What a desktop held when all was whole again.
    Final {
        at_us: u64,
        desktop: usize,
        items: BTreeMap<String, Version>,
    },
}

/// Everything recorded, in order.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct History {
    pub entries: Vec<Entry>,
}

impl History {
    /// Reads what a [`Recorder`] wrote.
    pub fn read(file: &Path) -> Result<Self> {
        let opened = File::open(file).with_context(|| format!("opening {}", file.display()))?;
        let mut entries = Vec::new();
        for (number, line) in BufReader::new(opened).lines().enumerate() {
            let place = || format!("line {} of {}", number + 1, file.display());
            ensure!(entries.len() < MAX_ENTRIES, "{}: more than {MAX_ENTRIES} entries", place());
            entries.push(serde_json::from_str(&line.with_context(place)?).with_context(place)?);
        }
        Ok(Self { entries })
    }
}

/// Takes down entries as they happen, in memory and in a file.
#[derive(Debug)]
pub struct Recorder {
    began: Instant,
    path: PathBuf,
    inner: Mutex<Inner>,
}

#[derive(Debug)]
struct Inner {
    file: BufWriter<File>,
    entries: Vec<Entry>,
    next_op: usize,
    failed: Option<std::io::Error>,
}

impl Recorder {
    /// Begins a history in this file.
    pub fn create(path: &Path) -> Result<Self> {
        let file = File::create(path).with_context(|| format!("creating {}", path.display()))?;
        let inner = Inner { file: BufWriter::new(file), entries: Vec::new(), next_op: 0, failed: None };
        Ok(Self { began: Instant::now(), path: path.to_owned(), inner: Mutex::new(inner) })
    }

    /// Notes that a client is about to ask, before anything is sent.
    pub fn invoke(&self, client: usize, desktop: usize, action: &Action) -> usize {
        let mut inner = self.lock();
        let op = inner.next_op;
        inner.next_op += 1;
        inner.push(Entry::Invoke { at_us: self.now_us(), op, client, desktop, action: action.clone() });
        op
    }

    /// Notes what a client was answered, after the answer was read.
    pub fn complete(&self, op: usize, outcome: &Outcome) {
        self.lock().push(Entry::Complete { at_us: self.now_us(), op, outcome: outcome.clone() });
    }

    /// Notes what a watch told.
    pub fn watched(&self, watcher: usize, desktop: usize, told: Told) {
        self.lock().push(Entry::Watch { at_us: self.now_us(), watcher, desktop, told });
    }

    /// Notes what was done to the bench.
    pub fn fault(&self, what: &str) {
        self.lock().push(Entry::Fault { at_us: self.now_us(), what: what.to_owned() });
    }

    /// Notes what a desktop holds at the end.
    pub fn last(&self, desktop: usize, items: BTreeMap<String, Version>) {
        self.lock().push(Entry::Final { at_us: self.now_us(), desktop, items });
    }

    /// Whether there is room for more.
    #[must_use]
    pub fn has_room(&self) -> bool {
        self.lock().entries.len() < MAX_ENTRIES
    }

    /// Since the beginning.
    #[must_use]
    pub fn now_us(&self) -> u64 {
        u64::try_from(self.began.elapsed().as_micros()).unwrap_or(u64::MAX)
    }

    /// Everything so far; the file holds it as well from now on.
    pub fn history(&self) -> Result<History> {
        let mut inner = self.lock();
        let failed = inner.failed.take().map_or_else(|| inner.file.flush(), Err);
        failed.with_context(|| format!("writing {}: make room on its disk", self.path.display()))?;
        Ok(History { entries: inner.entries.clone() })
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Inner {
    /// An error of the disk is told at the end: clients have better things to do.
    fn push(&mut self, entry: Entry) {
        let written = serde_json::to_writer(&mut self.file, &entry).map_err(std::io::Error::from);
        if let Err(error) = written.and_then(|()| self.file.write_all(b"\n")) {
            self.failed.get_or_insert(error);
        }
        self.entries.push(entry);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_history_is_read_as_it_was_recorded() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("history.jsonl");
        let recorder = Recorder::create(&file).unwrap();
        let version = Version { uid: "u".into(), revision: 1 << 60, fields: Fields::new() };
        let action = Action::Delete { name: "a".into(), expects: version.clone() };
        let op = recorder.invoke(3, 2, &action);
        recorder.complete(op, &Outcome::Ordered { version: None });
        recorder.complete(op, &Outcome::Kept { warning: "no quorum".into(), uid: None });
        recorder.watched(1, 1, Told::Added { name: "a".into(), version: version.clone() });
        recorder.watched(1, 1, Told::Expired);
        recorder.fault("d1 crashes");
        recorder.last(1, BTreeMap::from([("a".into(), version)]));
        let history = recorder.history().unwrap();
        assert_eq!(history.entries.len(), 7);
        assert_eq!(History::read(&file).unwrap(), history);
    }

    #[test]
    fn a_broken_line_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("history.jsonl");
        std::fs::write(&file, "{\"entry\":\"fault\",\"at_us\":1,\"what\":\"x\"}\n{\"entry\":\n").unwrap();
        let error = format!("{:#}", History::read(&file).unwrap_err());
        assert!(error.contains("line 2"), "{error}");
    }
}
