//! A disk in memory: slow, full of what was not flushed, and without power when it hurts.
//!
//! What was written and not flushed is lost with the power, or not, or half of it is, in any order. When only the process
//! ends, the operating system still has it.

use super::super::random::Random;
use gaggle_sched::raft::{Pages, Storage};
use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::Notify;

/// The unit that a power cut leaves whole.
const SECTOR: usize = 512;
/// Writes at one place between two flushes of which any may be the one that is left.
const VERSIONS: usize = 4;
/// A disk that lies tells the truth every so many flushes.
const TRUTH_EVERY: u32 = 12;

/// How an end comes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    Process,
    Power,
}

/// A machine's disk. It outlives the processes that use it, each through a [`Mount`] of its own.
#[derive(Clone)]
pub struct Disk {
    shared: Arc<Shared>,
}

struct Shared {
    state: Mutex<State>,
    /// One flush after the other.
    turn: tokio::sync::Mutex<()>,
    /// Rings when the power goes in the middle of something.
    dark: Notify,
}

impl std::fmt::Debug for Shared {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Disk")
    }
}

struct State {
    names: BTreeMap<PathBuf, Inode>,
    files: BTreeMap<Inode, Content>,
    made: Inode,
    random: Random,
    life: u64,
    powered: bool,
    /// The power goes at so many flushes from now.
    dark_after: Option<u32>,
    /// How long work on it takes.
    latency: (Duration, Duration),
    /// It says that it has flushed, and has not.
    lies: bool,
    flushes: u32,
}

type Inode = u64;

#[derive(Default)]
struct Content {
    live: Vec<u8>,
    flushed: Vec<u8>,
    pending: Vec<Pending>,
}

/// Bytes that were written at a place, and not flushed.
struct Pending(usize, Vec<u8>);

impl Disk {
    pub fn new(random: Random, lies: bool) -> Self {
        let state = State {
            names: BTreeMap::new(),
            files: BTreeMap::new(),
            made: 0,
            random,
            life: 0,
            powered: true,
            dark_after: None,
            latency: NORMAL,
            lies,
            flushes: 0,
        };
        let turn = tokio::sync::Mutex::new(());
        Self { shared: Arc::new(Shared { state: Mutex::new(state), turn, dark: Notify::new() }) }
    }

    /// The machine is switched on.
    pub fn power_on(&self) {
        self.shared.lock().powered = true;
    }

    /// As the process that runs now has it.
    pub fn mount(&self) -> Mount {
        Mount { shared: self.shared.clone(), life: self.shared.lock().life }
    }

    /// The process that uses it is gone: whatever it still does no longer reaches the disk.
    pub fn end(&self, how: End) {
        let mut state = self.shared.lock();
        state.life += 1;
        state.dark_after = None;
        if how == End::Power {
            state.lose();
        }
    }

    /// The power goes in the middle of what the disk does then.
    pub fn dark_after(&self, flushes: u32) {
        self.shared.lock().dark_after = Some(flushes);
    }

    pub async fn until_dark(&self) {
        self.shared.dark.notified().await;
    }

    pub fn set_latency(&self, latency: (Duration, Duration)) {
        self.shared.lock().latency = latency;
    }
}

/// A desktop's SSD.
pub const NORMAL: (Duration, Duration) = (Duration::from_micros(200), Duration::from_millis(4));

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn make(&mut self, path: &Path, content: Content) -> Inode {
        self.made += 1;
        self.remove(path);
        self.names.insert(path.to_owned(), self.made);
        self.files.insert(self.made, content);
        self.made
    }

    fn remove(&mut self, path: &Path) {
        if let Some(inode) = self.names.remove(path) {
            self.files.remove(&inode);
        }
    }

    fn flush(&mut self, inode: Inode) {
        self.flushes += 1;
        if !self.lies {
            if let Some(content) = self.files.get_mut(&inode) {
                content.flush();
            }
        } else if self.flushes.is_multiple_of(TRUTH_EVERY) {
            self.files.values_mut().for_each(Content::flush);
        }
    }

    fn lose(&mut self) {
        let how = if self.lies { 0 } else { self.random.below(3) };
        for content in self.files.values_mut() {
            content.live = content.flushed.clone();
            for pending in std::mem::take(&mut content.pending) {
                match how {
                    0 => {}
                    1 => pending.apply(&mut content.live),
                    _ if self.random.permille(500) => {
                        let Pending(at, bytes) = pending;
                        let mut from = 0;
                        while from < bytes.len() {
                            let end = bytes.len().min(from + SECTOR - (at + from) % SECTOR);
                            if self.random.permille(500) {
                                Pending(at + from, bytes[from..end].to_vec()).apply(&mut content.live);
                            }
                            from = end;
                        }
                    }
                    _ => {}
                }
            }
            content.flushed = content.live.clone();
        }
    }
}

impl Content {
    fn flush(&mut self) {
        for pending in std::mem::take(&mut self.pending) {
            pending.apply(&mut self.flushed);
        }
    }

    fn write(&mut self, pending: Pending) {
        pending.apply(&mut self.live);
        // A few bytes that are written again and again, and never flushed.
        let same = |other: &Pending| other.0 == pending.0 && other.1.len() == pending.1.len();
        let run = self.pending.iter().rev().take_while(|other| same(other)).count();
        if run >= VERSIONS {
            self.pending.remove(self.pending.len() - run);
        }
        self.pending.push(pending);
    }
}

impl Pending {
    fn apply(&self, bytes: &mut Vec<u8>) {
        let Self(at, new) = self;
        let end = at + new.len();
        if bytes.len() < end {
            bytes.resize(end, 0);
        }
        bytes[*at..end].copy_from_slice(new);
    }
}

/// A disk as one process has it.
#[derive(Clone, Debug)]
pub struct Mount {
    shared: Arc<Shared>,
    life: u64,
}

impl Mount {
    fn state(&self) -> io::Result<MutexGuard<'_, State>> {
        let state = self.shared.lock();
        match state.life == self.life && state.powered {
            true => Ok(state),
            false => Err(io::Error::other("the power is off")),
        }
    }

    /// Something is about to be made to last: where the power may go.
    fn reach(&self) -> io::Result<MutexGuard<'_, State>> {
        let mut state = self.state()?;
        match &mut state.dark_after {
            Some(0) => {
                state.powered = false;
                state.dark_after = None;
                self.shared.dark.notify_one();
                return Err(io::Error::other("the power went off"));
            }
            Some(left) => *left -= 1,
            None => {}
        }
        Ok(state)
    }

    async fn pause(&self) {
        let pause = {
            let mut state = self.shared.lock();
            let (low, high) = state.latency;
            let (low, high) = (low.as_micros() as u64, high.as_micros() as u64);
            Duration::from_micros(state.random.within(low, high + 1))
        };
        tokio::time::sleep(pause).await;
    }
}

#[async_trait::async_trait]
impl Storage for Mount {
    fn make_dir(&self, _path: &Path) -> io::Result<()> {
        self.state().map(drop)
    }

    fn exists(&self, path: &Path) -> io::Result<bool> {
        Ok(self.state()?.names.contains_key(path))
    }

    fn create(&self, path: &Path) -> io::Result<()> {
        let mut state = self.state()?;
        if state.names.contains_key(path) {
            return Err(io::ErrorKind::AlreadyExists.into());
        }
        state.make(path, Content::default());
        Ok(())
    }

    fn open(&self, path: &Path) -> io::Result<Box<dyn Pages>> {
        let mut state = self.state()?;
        let inode = match state.names.get(path) {
            Some(inode) => *inode,
            None => state.make(path, Content::default()),
        };
        drop(state);
        Ok(Box::new(OpenFile { mount: self.clone(), inode }))
    }

    fn open_alone(&self, path: &Path) -> io::Result<Box<dyn Pages>> {
        let inode = *self.state()?.names.get(path).ok_or(io::ErrorKind::NotFound)?;
        Ok(Box::new(OpenFile { mount: self.clone(), inode }))
    }

    fn read(&self, path: &Path, limit_bytes: u64) -> io::Result<Option<Vec<u8>>> {
        let state = self.state()?;
        let content = state.names.get(path).and_then(|inode| state.files.get(inode));
        let Some(content) = content else { return Ok(None) };
        match content.live.len() as u64 > limit_bytes {
            true => Err(io::ErrorKind::InvalidData.into()),
            false => Ok(Some(content.live.clone())),
        }
    }

    fn write_atomically(&self, path: &Path, bytes: &[u8]) -> io::Result<()> {
        let content = Content { live: bytes.to_vec(), flushed: bytes.to_vec(), pending: Vec::new() };
        self.reach()?.make(path, content);
        Ok(())
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        let mut state = self.reach()?;
        let inode = state.names.remove(from).ok_or(io::ErrorKind::NotFound)?;
        state.remove(to);
        state.names.insert(to.to_owned(), inode);
        Ok(())
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        self.state()?.remove(path);
        Ok(())
    }

    async fn work(&self, work: Box<dyn FnOnce() + Send>) -> io::Result<()> {
        let _turn = self.shared.turn.lock().await;
        self.pause().await;
        self.state().map(drop)?;
        work();
        // Done, and nobody knows yet.
        self.pause().await;
        self.state().map(drop)
    }
}

#[derive(Debug)]
struct OpenFile {
    mount: Mount,
    inode: Inode,
}

impl OpenFile {
    fn with<T>(&self, look: impl FnOnce(&mut Content) -> io::Result<T>) -> io::Result<T> {
        let mut state = self.mount.state()?;
        // One that was removed is gone with whoever still has it open.
        look(state.files.entry(self.inode).or_default())
    }
}

impl Pages for OpenFile {
    fn len(&self) -> io::Result<u64> {
        self.with(|content| Ok(content.live.len() as u64))
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        self.with(|content| {
            let at = offset as usize;
            let bytes = content.live.get(at..at + out.len()).ok_or(io::ErrorKind::UnexpectedEof)?;
            out.copy_from_slice(bytes);
            Ok(())
        })
    }

    fn write(&self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        self.with(|content| {
            content.write(Pending(offset as usize, bytes.to_vec()));
            Ok(())
        })
    }

    fn sync(&self) -> io::Result<()> {
        let mut state = self.mount.reach()?;
        state.flush(self.inode);
        Ok(())
    }
}
