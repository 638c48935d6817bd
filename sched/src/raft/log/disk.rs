//! What the log keeps in its file: entries and a few named records, each sealed. Blocking; [`super::Log`] calls it off the
//! async threads.
//!
//! Every change is a frame of the [`Journal`]; where everything is now is known in memory, and read from the frames when the
//! file is opened. Frames of which nothing counts any more are left behind when the file is written anew.
//!
//! The number of the last frame is in the [`Mark`] beside it, too. A last frame that is broken was broken off by a power cut
//! and never counted, or a bit of the disk has turned in a vote or an entry that did: the number tells the two apart.

use super::super::codec::{self, CodecError, seal, unseal};
use super::super::files;
use super::super::storage::Storage;
use super::super::types::{Ballot, Entry, Id, Types};
use super::journal::{Frame, Journal, Opened};
use super::mark::Mark;
use super::{Filling, Identity, LogFault};
use openraft::LogState;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::io;
use std::ops::Bound;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

pub(super) const IDENTITY: &str = "identity";
pub(super) const VOTE: &str = "vote";
/// See [`super::Filling`].
pub(super) const FILLING: &str = "filling";
pub(super) const PURGED: &str = "purged";
pub(super) const COMMITTED: &str = "committed";

/// Of a file that is not small, what counts is at least one part in so many.
const SPARSENESS: u64 = 3;
/// A frame of this size is no faster for more in it.
const FRAME_BYTES: usize = 1 << 20;

pub(super) struct Disk {
    storage: Arc<dyn Storage>,
    path: PathBuf,
    /// Taken for each change from its beginning to its end.
    changing: Mutex<()>,
    held: RwLock<Held>,
    mark: Mark,
    /// See [`super::Log::appended`].
    appended: AtomicU64,
}

/// The file, and what of it counts.
struct Held {
    journal: Journal,
    index: Index,
}

#[derive(Default)]
struct Index {
    records: BTreeMap<String, Vec<u8>>,
    entries: BTreeMap<u64, Place>,
    /// Of the entries.
    bytes: u64,
}

/// Where an entry's record is in the file.
#[derive(Clone, Copy)]
struct Place {
    offset: u64,
    len: u32,
}

/// What a frame changes. The bytes of records and entries follow in the same order.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
enum Item {
    Record {
        name: String,
        len: u32,
    },
    Entry {
        index: u64,
        len: u32,
    },
    /// Entries from the first to the last of these.
    Removed {
        first: u64,
        last: u64,
    },
}

impl Item {
    fn len(&self) -> u32 {
        match self {
            Self::Record { len, .. } | Self::Entry { len, .. } => *len,
            Self::Removed { .. } => 0,
        }
    }
}

/// Takes a change into a file.
pub(super) type Put<'a> = dyn FnMut(Change) -> Result<(), LogFault> + 'a;

/// A change that is put together.
#[derive(Default)]
pub(super) struct Change {
    items: Vec<Item>,
    bytes: Vec<u8>,
}

impl Change {
    pub fn record<T: Serialize>(&mut self, name: &str, value: &T) -> Result<(), LogFault> {
        self.sealed(name, &seal(name.as_bytes(), value).map_err(damaged(name))?);
        Ok(())
    }

    /// A record as [`seal`] makes it of its name.
    pub fn sealed(&mut self, name: &str, record: &[u8]) {
        self.items.push(Item::Record { name: name.to_owned(), len: record.len() as u32 });
        self.bytes.extend_from_slice(record);
    }

    /// An entry as [`record`] makes it.
    pub fn entry(&mut self, index: u64, record: &[u8]) {
        self.items.push(Item::Entry { index, len: record.len() as u32 });
        self.bytes.extend_from_slice(record);
    }

    /// Whether what else there is goes into the next one.
    pub fn is_large(&self) -> bool {
        self.bytes.len() >= FRAME_BYTES
    }

    /// A frame's body.
    fn encode(&self) -> Result<Vec<u8>, LogFault> {
        let items = codec::encode(&self.items).map_err(damaged("of a change"))?;
        Ok([&(items.len() as u32).to_be_bytes(), items.as_slice(), &self.bytes].concat())
    }
}

impl Index {
    /// What a frame of these items, whose records begin there in the file, changes. `bytes` are those records.
    fn apply(&mut self, items: Vec<Item>, mut offset: u64, mut bytes: &[u8]) {
        for item in items {
            let len = item.len();
            let record = bytes.split_off(..len as usize).unwrap_or_default();
            match item {
                Item::Record { name, .. } => {
                    self.records.insert(name, record.to_vec());
                }
                Item::Entry { index, .. } => {
                    let before = self.entries.insert(index, Place { offset, len });
                    self.bytes += u64::from(len);
                    self.bytes -= before.map_or(0, |before| u64::from(before.len));
                }
                Item::Removed { first, last } => {
                    while let Some((index, place)) = self.entries.range(first..=last).next() {
                        let (index, len) = (*index, place.len);
                        self.entries.remove(&index);
                        self.bytes -= u64::from(len);
                    }
                }
            }
            offset += u64::from(len);
        }
    }

    fn apply_frame(&mut self, frame: &Frame) -> Result<(), LogFault> {
        let short = || LogFault::Damaged(format!("frame {} is short of what it announces", frame.number));
        let (items, rest) = frame.body.split_first_chunk::<4>().ok_or_else(short)?;
        let len = u32::from_be_bytes(*items) as usize;
        let (items, bytes) = rest.split_at_checked(len).ok_or_else(short)?;
        let items: Vec<Item> = codec::decode(items).map_err(damaged(format!("of frame {}", frame.number)))?;
        let announced: u64 = items.iter().map(|item| u64::from(item.len())).sum();
        if announced != bytes.len() as u64 {
            return Err(short());
        }
        self.apply(items, frame.offset + 4 + len as u64, bytes);
        Ok(())
    }

    fn get<T: serde::de::DeserializeOwned>(&self, name: &str) -> Result<Option<T>, LogFault> {
        let record = self.records.get(name);
        record.map(|record| unseal(name.as_bytes(), record).map_err(damaged(name))).transpose()
    }

    fn last(&self) -> Option<(u64, Place)> {
        self.entries.last_key_value().map(|(index, place)| (*index, *place))
    }
}

impl Held {
    /// What the file says, the file itself left as it is.
    fn open(storage: &dyn Storage, path: &Path) -> Result<(Self, Option<u64>), LogFault> {
        let mut index = Index::default();
        let Opened { journal, damaged } = Journal::open(storage, path, |frame| index.apply_frame(&frame))?;
        Ok((Self { journal, index }, damaged))
    }

    /// A new file in place of one at `path`, with the changes that `fill` makes, numbered after `number`. All of it is on the
    /// disk, and its name is not.
    fn create(
        storage: &dyn Storage,
        path: &Path,
        number: u64,
        fill: impl FnOnce(&mut Put) -> Result<(), LogFault>,
    ) -> Result<Self, LogFault> {
        storage.remove(path).map_err(LogFault::Io)?;
        let journal = Journal::create(storage, path, number).map_err(LogFault::Io)?;
        let mut held = Self { journal, index: Index::default() };
        fill(&mut |change| {
            let body = change.encode()?;
            let offset = held.journal.append_unflushed(&body).map_err(fault)?;
            held.learn(change, &body, offset);
            Ok(())
        })?;
        held.journal.settle().map_err(fault)?;
        Ok(held)
    }

    fn entry(&self, place: Place) -> Result<Vec<u8>, LogFault> {
        self.journal.read(place.offset, place.len as usize).map_err(fault)
    }

    /// Puts what counts into another file.
    fn copy(&self, put: &mut Put) -> Result<(), LogFault> {
        let mut change = Change::default();
        for (name, record) in &self.index.records {
            change.sealed(name, record);
        }
        for (index, place) in &self.index.entries {
            let record = self.entry(*place)?;
            codec::check(&index.to_be_bytes(), &record).map_err(damaged(format!("of entry {index}")))?;
            change.entry(*index, &record);
            if change.is_large() {
                put(std::mem::take(&mut change))?;
            }
        }
        put(change)
    }

    /// What has just been appended.
    fn learn(&mut self, change: Change, body: &[u8], offset: u64) {
        let records = body.len() - change.bytes.len();
        self.index.apply(change.items, offset + records as u64, &change.bytes);
    }
}

impl Disk {
    /// A new file, with the changes that `fill` makes. It has its name when it has all of them.
    pub fn create(
        storage: &Arc<dyn Storage>,
        path: &Path,
        fill: impl FnOnce(&mut Put) -> Result<(), LogFault>,
    ) -> Result<Self, LogFault> {
        let unnamed = unnamed(path);
        // What an earlier log of the name has left goes on counting.
        let (mark, marked) = Mark::open(&**storage, path).map_err(LogFault::Io)?;
        let made = Held::create(&**storage, &unnamed, marked.unwrap_or_default(), fill);
        let held = made.inspect_err(|_| _ = storage.remove(&unnamed))?;
        storage.rename(&unnamed, path).map_err(LogFault::Io)?;
        mark.set(held.journal.number());
        Ok(Self::new(storage, path, held, mark))
    }

    pub fn open(storage: &Arc<dyn Storage>, path: &Path) -> Result<Self, LogFault> {
        let (held, damaged) = Held::open(&**storage, path)?;
        if let Some(offset) = damaged {
            return Err(LogFault::Damaged(format!("what is at {offset} is not what was written there")));
        }
        let (mark, marked) = Mark::open(&**storage, path).map_err(LogFault::Io)?;
        let changes = held.journal.number();
        if let Some(marked) = marked.filter(|marked| *marked > changes) {
            return Err(LogFault::WentBack { changes, marked });
        }
        held.journal.settle().map_err(fault)?;
        mark.set(changes);
        // Of a copy that was not finished.
        storage.remove(&unnamed(path)).map_err(LogFault::Io)?;
        Ok(Self::new(storage, path, held, mark))
    }

    fn new(storage: &Arc<dyn Storage>, path: &Path, held: Held, mark: Mark) -> Self {
        Self {
            storage: storage.clone(),
            path: path.to_owned(),
            changing: Mutex::default(),
            held: RwLock::new(held),
            mark,
            appended: AtomicU64::new(0),
        }
    }

    /// Whose log this is and its last vote, as far as a damaged one still says. Nothing is written.
    pub fn salvage(
        storage: &dyn Storage,
        path: &Path,
    ) -> Result<(Option<Identity>, Option<Ballot>), LogFault> {
        let (held, _) = Held::open(storage, path)?;
        Ok((held.index.get(IDENTITY)?, held.index.get(VOTE)?))
    }

    fn held(&self) -> RwLockReadGuard<'_, Held> {
        self.held.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn held_mut(&self) -> RwLockWriteGuard<'_, Held> {
        self.held.write().unwrap_or_else(PoisonError::into_inner)
    }

    /// On the disk when it returns. Who reads need not wait for that.
    fn change(&self, change: Change) -> Result<(), LogFault> {
        let body = change.encode()?;
        let offset = self.held().journal.append(&body).map_err(fault)?;
        let mut held = self.held_mut();
        held.learn(change, &body, offset);
        self.mark.set(held.journal.number());
        Ok(())
    }

    fn turn(&self) -> MutexGuard<'_, ()> {
        self.changing.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn appended(&self) -> u64 {
        self.appended.load(Ordering::Relaxed)
    }

    pub fn committed(&self) -> Result<Option<Id>, LogFault> {
        self.get_meta(COMMITTED)
    }

    pub fn get_meta<T: serde::de::DeserializeOwned>(&self, name: &str) -> Result<Option<T>, LogFault> {
        self.held().index.get(name)
    }

    pub fn put_meta<T: Serialize>(&self, name: &str, value: &T) -> Result<(), LogFault> {
        let _turn = self.turn();
        let mut change = Change::default();
        change.record(name, value)?;
        self.change(change)
    }

    /// Adds encoded entries and the commit mark, on the disk when it returns.
    pub fn append(&self, records: &[(u64, Vec<u8>)], committed: Option<Id>) -> Result<(), LogFault> {
        let _turn = self.turn();
        let mut change = Change::default();
        for (index, record) in records {
            change.entry(*index, record);
        }
        let bytes = change.bytes.len() as u64;
        let last = self.last().max(records.last().map(|(index, _)| *index));
        // What a snapshot brought is committed, and may not be in the log yet.
        if let Some(id) = committed.filter(|id| Some(id.index) <= last) {
            change.record(COMMITTED, &id)?;
        }
        self.change(change)?;
        self.appended.fetch_add(bytes, Ordering::Relaxed);
        Ok(())
    }

    /// Removes the entries in `range` and sets the purge mark, if given, in one change.
    pub fn remove(&self, range: (Bound<u64>, Bound<u64>), purged: Option<Id>) -> Result<(), LogFault> {
        let _turn = self.turn();
        let mut change = Change::default();
        {
            let held = self.held();
            let mut indices = held.index.entries.range(range).map(|(index, _)| *index);
            if let Some(first) = indices.next() {
                change.items.push(Item::Removed { first, last: indices.next_back().unwrap_or(first) });
            }
        }
        if let Some(id) = purged {
            change.record(PURGED, &id)?;
        }
        self.change(change)
    }

    /// Writes the file anew where most of it does not count any more, unless it has less than `small_bytes`. What is written
    /// is bounded by what counts, so that a log costs at most half as much again.
    pub fn tidy(&self, small_bytes: u64) -> Result<(), LogFault> {
        let _turn = self.turn();
        let unnamed = unnamed(&self.path);
        let copy = {
            let held = self.held();
            let bytes = held.journal.bytes();
            if bytes < small_bytes || bytes < SPARSENESS * held.index.bytes {
                return Ok(());
            }
            Held::create(&*self.storage, &unnamed, held.journal.number(), |put| held.copy(put))
        };
        let copy = match copy {
            Ok(copy) => copy,
            Err(error) => {
                _ = self.storage.remove(&unnamed);
                // There may be no room for two. The old file has everything, and the next time is soon.
                let LogFault::Io(full) = &error else { return Err(error) };
                if !matches!(full.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded) {
                    return Err(error);
                }
                tracing::warn!(path = %self.path.display(), error = %full, "the log cannot be written anew");
                return Ok(());
            }
        };
        let mut held = self.held_mut();
        if let Err(error) = self.storage.rename(&unnamed, &self.path) {
            // Either of them may be the one that is found next time.
            held.journal.give_up();
            return Err(LogFault::Io(error));
        }
        *held = copy;
        self.mark.set(held.journal.number());
        Ok(())
    }

    /// A record as it is stored.
    pub fn sealed(&self, name: &str) -> Option<Vec<u8>> {
        self.held().index.records.get(name).cloned()
    }

    /// Index of the last entry.
    pub fn last(&self) -> Option<u64> {
        self.held().index.last().map(|(index, _)| index)
    }

    /// Where the last frame ends.
    #[cfg(test)]
    pub fn file_bytes(&self) -> u64 {
        self.held().journal.bytes()
    }

    /// Entries of a half-open range, at least one if there is one, until `limit_bytes`.
    pub fn read(&self, start: u64, end: u64, limit_bytes: u64) -> Result<Vec<Entry>, LogFault> {
        if start >= end {
            return Ok(Vec::new());
        }
        let held = self.held();
        let (mut entries, mut bytes) = (Vec::new(), 0);
        for (index, place) in held.index.entries.range(start..end) {
            bytes += u64::from(place.len);
            if bytes > limit_bytes && !entries.is_empty() {
                break;
            }
            entries.push(open_entry(*index, &held.entry(*place)?)?);
        }
        Ok(entries)
    }

    pub fn state(&self) -> Result<LogState<Types>, LogFault> {
        let held = self.held();
        let last_purged_log_id: Option<Id> = held.index.get(PURGED)?;
        let last =
            held.index.last().map(|(index, place)| open_entry(index, &held.entry(place)?)).transpose()?;
        let last_log_id = last.map(|entry| entry.log_id).or(last_purged_log_id);
        Ok(LogState { last_purged_log_id, last_log_id })
    }

    /// Reads everything once: records whole, no hole between the purge mark and the end, nothing committed beyond it.
    pub fn verify(&self) -> Result<Identity, LogFault> {
        let identity: Identity = self.get_meta(IDENTITY)?.ok_or(LogFault::Anonymous)?;
        self.get_meta::<Ballot>(VOTE)?;
        self.get_meta::<Filling>(FILLING)?;
        let committed: Option<Id> = self.get_meta(COMMITTED)?;
        let purged: Option<Id> = self.get_meta(PURGED)?;
        {
            let held = self.held();
            let first = purged.map_or(0, |id| id.index + 1);
            for (next, (index, place)) in (first..).zip(&held.index.entries) {
                if *index != next {
                    return Err(LogFault::Hole(next));
                }
                open_entry(next, &held.entry(*place)?)?;
            }
            self.appended.store(held.index.bytes, Ordering::Relaxed);
        }
        // The mark is written with its entry or after it.
        match committed {
            Some(id) if Some(id.index) > self.state()?.last_log_id.map(|last| last.index) => {
                Err(LogFault::Hole(id.index))
            }
            _ => Ok(identity),
        }
    }
}

/// Where a file is until it is whole.
pub(super) fn unnamed(path: &Path) -> PathBuf {
    path.with_extension("new")
}

/// An entry as it is stored.
pub(super) fn record(entry: &Entry) -> Result<(u64, Vec<u8>), LogFault> {
    let index = entry.log_id.index;
    let record = seal(&index.to_be_bytes(), entry).map_err(damaged(format!("of entry {index}")))?;
    Ok((index, record))
}

fn open_entry(index: u64, record: &[u8]) -> Result<Entry, LogFault> {
    let entry: Entry = unseal(&index.to_be_bytes(), record).map_err(damaged(format!("of entry {index}")))?;
    if entry.log_id.index == index { Ok(entry) } else { Err(LogFault::Hole(index)) }
}

/// What the disk refuses, or what is not there where it should be.
fn fault(error: io::Error) -> LogFault {
    match files::is_damage(&error) {
        true => LogFault::Damaged(error.to_string()),
        false => LogFault::Io(error),
    }
}

pub(super) fn damaged(record: impl ToString) -> impl FnOnce(CodecError) -> LogFault {
    move |source| LogFault::Record { record: record.to_string(), source }
}
