//! Documents on disk: one redb file with a record per key. Blocking; one thread writes, and others read meanwhile what
//! was committed last. Knows records and files, not what documents mean.

use super::document::Document;
use super::guard::caught;
use super::state::{Standing, State};
use super::{DocKey, Heads, mark};
use crate::Formats;
use redb::{Database, DatabaseError, ReadableDatabase, ReadableTable, StorageError, TableDefinition};
use serde::{Deserialize, Serialize};
use serde_bytes::{ByteBuf, Bytes};
use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::{PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

const DOCUMENTS: TableDefinition<&str, &[u8]> = TableDefinition::new("documents");
/// redb's page cache. Documents are small and the live ones are cached unpacked.
const CACHE_BYTES: usize = 8 * 1024 * 1024;

#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    #[error("cannot open {}: is another gaggle using it, or may this user not write there?", path.display())]
    Open { path: PathBuf, source: Box<redb::Error> },
    #[error(
        "{} is written in version {version}, and this program reads {}: use the newer program",
        path.display(),
        Formats::current()
    )]
    Version { path: PathBuf, version: u8 },
    #[error("{} is damaged and cannot be set aside", path.display())]
    SetAside { path: PathBuf, source: io::Error },
    #[error("{} is damaged ({why}): start gaggle again, and it sets the file aside and fetches every document \
             from the others", path.display())]
    Corrupt { path: PathBuf, why: String },
    #[error("cannot read or write {}: is the disk full, read-only or failing?", path.display())]
    Disk { path: PathBuf, source: Box<redb::Error> },
}

/// What the index holds of one key.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Summary {
    pub incarnation: u32,
    pub heads: Heads,
    pub standing: Standing,
    /// Of the saved document with all its history.
    pub saved_bytes: usize,
}

impl Summary {
    /// The heads as they leave the documents.
    pub fn marked_heads(&self) -> Heads {
        mark::marked(self.incarnation, self.heads.clone())
    }
}

#[derive(Serialize)]
struct RecordRef<'a> {
    summary: &'a Summary,
    saved: &'a Bytes,
    pending: Vec<&'a Bytes>,
}

#[derive(Deserialize)]
struct Record {
    summary: Summary,
    saved: ByteBuf,
    pending: Vec<ByteBuf>,
}

/// The open file.
struct Place {
    /// `None` after the disk refused: the engine gives up a file for good then, so it is opened anew when it is
    /// next asked for, as soon as nobody uses it any more.
    database: Option<Database>,
    /// How many times it was opened: who met an error closes what he met it in.
    opened: u64,
}

pub struct Store {
    place: RwLock<Place>,
    path: PathBuf,
}

impl Store {
    /// Opens the file, or begins it if there is none, and checks all of it. What is fsynced is there.
    pub fn open(path: &Path) -> Result<(Self, Vec<(DocKey, Summary)>), StoreError> {
        if !fs::exists(path).map_err(|source| open_error(path, source.into()))? {
            begin(path)?;
        }
        let database = open_database(path)?;
        let store =
            Self { place: RwLock::new(Place { database: Some(database), opened: 1 }), path: path.to_owned() };
        let summaries = store.guarded(|database| store.summaries(database))??;
        Ok((store, summaries))
    }

    /// Moves a damaged file to `PATH.damaged-1`, and an earlier such file on to `PATH.damaged-2`. Where it is now.
    pub fn set_aside(path: &Path) -> Result<PathBuf, StoreError> {
        let place = |number: u8| {
            let mut name = path.as_os_str().to_owned();
            name.push(format!(".damaged-{number}"));
            PathBuf::from(name)
        };
        let moved = || -> io::Result<()> {
            match fs::rename(place(1), place(2)) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                _ => {}
            }
            fs::rename(path, place(1))?;
            sync_parent(path)
        };
        moved().map_err(|source| StoreError::SetAside { path: path.to_owned(), source })?;
        Ok(place(1))
    }

    fn summaries(
        &self,
        database: &Database,
    ) -> Result<Result<Vec<(DocKey, Summary)>, StoreError>, redb::Error> {
        let reading = database.begin_read()?;
        let table = match reading.open_table(DOCUMENTS) {
            Ok(table) => table,
            Err(redb::TableError::TableDoesNotExist(_)) => return Ok(Ok(Vec::new())),
            Err(error) => return Err(error.into()),
        };
        let mut summaries = Vec::new();
        for entry in table.iter()? {
            let (key, record) = entry?;
            match decode(record.value()) {
                Ok(record) => summaries.push((key.value().to_owned(), record.summary)),
                Err(unread) => return Ok(Err(self.bad_record(key.value(), unread))),
            }
        }
        Ok(Ok(summaries))
    }

    pub fn read(&self, key: &str) -> Result<Option<State>, StoreError> {
        let bytes = self.guarded(|database| {
            let table = match database.begin_read()?.open_table(DOCUMENTS) {
                Ok(table) => table,
                Err(redb::TableError::TableDoesNotExist(_)) => return Ok(None),
                Err(error) => return Err(error.into()),
            };
            Ok(table.get(key)?.map(|record| record.value().to_vec()))
        })?;
        let Some(bytes) = bytes else { return Ok(None) };
        let record = decode(&bytes).map_err(|unread| self.bad_record(key, unread))?;
        let Summary { incarnation, standing, heads, .. } = record.summary;
        if let Standing::Buried { at_ms } = standing {
            return Ok(Some(State::Buried { incarnation, at_ms }));
        }
        let document = Document::load(incarnation, &record.saved, &record.pending);
        document
            .ok()
            .filter(|document| document.heads() == heads)
            .map(|document| Some(State::Document(Box::new(document))))
            .ok_or_else(|| self.bad_record(key, Unread::Damaged))
    }

    /// Writes all of it or nothing; on disk when it returns. `None` removes the record.
    pub fn write<'a>(
        &self,
        records: impl Iterator<Item = (&'a DocKey, Option<Vec<u8>>)>,
    ) -> Result<(), StoreError> {
        self.guarded(|database| {
            let writing = database.begin_write()?;
            {
                let mut table = writing.open_table(DOCUMENTS)?;
                for (key, record) in records {
                    match record {
                        Some(record) => table.insert(key.as_str(), record.as_slice())?,
                        None => table.remove(key.as_str())?,
                    };
                }
            }
            Ok(writing.commit()?)
        })
    }

    fn guarded<T>(&self, run: impl FnOnce(&Database) -> Result<T, redb::Error>) -> Result<T, StoreError> {
        let mut place = self.place.read().unwrap_or_else(PoisonError::into_inner);
        if place.database.is_none() {
            drop(place);
            place = self.reopened()?;
        }
        let opened = place.opened;
        let done = caught(|| place.database.as_ref().map_or(Err(redb::Error::DatabaseClosed), run));
        drop(place);
        match done {
            Some(Ok(done)) => Ok(done),
            None => Err(corrupt(&self.path, "its pages contradict each other")),
            Some(Err(redb::Error::Corrupted(why))) => Err(corrupt(&self.path, &why)),
            Some(Err(source)) => {
                if matches!(source, redb::Error::Io(_) | redb::Error::PreviousIo) {
                    let mut place = self.place.write().unwrap_or_else(PoisonError::into_inner);
                    if place.opened == opened {
                        place.database = None;
                    }
                }
                Err(StoreError::Disk { path: self.path.clone(), source: Box::new(source) })
            }
        }
    }

    /// Nobody closes it between its opening and its first use.
    fn reopened(&self) -> Result<RwLockReadGuard<'_, Place>, StoreError> {
        let mut place = self.place.write().unwrap_or_else(PoisonError::into_inner);
        if place.database.is_none() {
            place.database = Some(open_database(&self.path)?);
            place.opened += 1;
        }
        Ok(RwLockWriteGuard::downgrade(place))
    }

    fn bad_record(&self, key: &str, unread: Unread) -> StoreError {
        match unread {
            Unread::Version(version) => StoreError::Version { path: self.path.clone(), version },
            Unread::Damaged => corrupt(&self.path, &format!("the record of {key} cannot be read")),
        }
    }
}

/// Opens a file that is there and checks all of it.
fn open_database(path: &Path) -> Result<Database, StoreError> {
    let opened = caught(|| {
        fs::set_permissions(path, fs::Permissions::from_mode(0o600))?;
        let mut builder = Database::builder();
        builder.set_cache_size(CACHE_BYTES).set_check_integrity_on_open(true).open(path)
    });
    match opened {
        None => Err(corrupt(path, "its pages contradict each other")),
        Some(Ok(database)) => Ok(database),
        Some(Err(DatabaseError::Storage(StorageError::Corrupted(why)))) => Err(corrupt(path, &why)),
        // No gaggle wrote an older format of the engine's, so its number is what is damaged.
        Some(Err(DatabaseError::UpgradeRequired(format))) => {
            Err(corrupt(path, &format!("it says that its format is {format}")))
        }
        Some(Err(DatabaseError::Storage(StorageError::Io(error)))) if is_damage(&error) => {
            Err(corrupt(path, &error.to_string()))
        }
        Some(Err(source)) => Err(open_error(path, source)),
    }
}

/// Makes an empty file under another name and moves it into place, so that a file that is there was whole once.
fn begin(path: &Path) -> Result<(), StoreError> {
    let mut fresh = path.as_os_str().to_owned();
    fresh.push(".new");
    let fresh = PathBuf::from(fresh);
    let failed = |source: DatabaseError| open_error(&fresh, source);
    let options =
        || OpenOptions::new().read(true).write(true).create(true).truncate(true).mode(0o600).open(&fresh);
    let file = options().map_err(|error| failed(error.into()))?;
    drop(file);
    drop(Database::create(&fresh).map_err(failed)?);
    let moved = || {
        fs::rename(&fresh, path)?;
        sync_parent(path)
    };
    moved().map_err(|error: io::Error| open_error(path, error.into()))
}

/// Makes a name in a directory last.
fn sync_parent(path: &Path) -> io::Result<()> {
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => File::open(parent)?.sync_all(),
        _ => Ok(()),
    }
}

fn is_damage(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::InvalidData | io::ErrorKind::UnexpectedEof)
}

fn open_error(path: &Path, source: DatabaseError) -> StoreError {
    StoreError::Open { path: path.to_owned(), source: Box::new(source.into()) }
}

fn corrupt(path: &Path, why: &str) -> StoreError {
    StoreError::Corrupt { path: path.to_owned(), why: why.to_owned() }
}

/// The record of a state.
pub fn encode(state: &State, summary: &Summary) -> Result<Vec<u8>, rmp_serde::encode::Error> {
    let record = match state {
        State::Buried { .. } => RecordRef { summary, saved: Bytes::new(&[]), pending: Vec::new() },
        State::Document(document) => RecordRef {
            summary,
            saved: Bytes::new(document.saved()),
            pending: document.pending().map(Bytes::new).collect(),
        },
    };
    let mut bytes = vec![Formats::current().written];
    rmp_serde::encode::write(&mut bytes, &record)?;
    Ok(bytes)
}

/// The first byte of each record is its version.
fn decode(bytes: &[u8]) -> Result<Record, Unread> {
    let (&version, record) = bytes.split_first().ok_or(Unread::Damaged)?;
    if !Formats::current().reads(version) {
        return Err(Unread::Version(version));
    }
    rmp_serde::from_slice(record).map_err(|_| Unread::Damaged)
}

enum Unread {
    Version(u8),
    Damaged,
}

#[cfg(test)]
mod tests;
