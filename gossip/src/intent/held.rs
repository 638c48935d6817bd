//! The documents that are committed: the file, what is known of every key, and those that were used last, unpacked. Any
//! thread reads them, also while the [`Writer`](super::writer::Writer), the only one that changes them, waits for the disk.

use super::cache::Cache;
use super::index::Index;
use super::state::State;
use super::store::{Store, StoreError, Summary};
use super::{DocKey, IntentError, store};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// What a key is to hold, and what is to be known of it.
pub type Dirty = (DocKey, Option<(Arc<State>, Summary)>);

pub struct Held {
    pub(super) store: Store,
    index: Mutex<Index>,
    /// Who takes both locks takes this one first.
    cache: Mutex<Cache>,
}

impl Held {
    pub fn new(store: Store, summaries: Vec<(DocKey, Summary)>) -> Self {
        Self { store, index: Mutex::new(Index::new(summaries)), cache: Mutex::default() }
    }

    pub fn index(&self) -> MutexGuard<'_, Index> {
        lock(&self.index)
    }

    /// What the key holds.
    pub fn state(&self, key: &str) -> Result<Option<Arc<State>>, StoreError> {
        let changes = {
            let index = self.index();
            if index.get(key).is_none() {
                return Ok(None);
            }
            index.changes()
        };
        if let Some(state) = lock(&self.cache).get(key) {
            return Ok(Some(state));
        }
        let Some(state) = self.store.read(key)?.map(Arc::new) else { return Ok(None) };
        let mut cache = lock(&self.cache);
        // Something newer may have been written since it was read.
        if self.index().changed_since(changes).is_some_and(|mut changed| changed.all(|other| other != key)) {
            cache.put(key.to_owned(), state.clone());
        }
        Ok(Some(state))
    }

    /// Writes all of it or nothing; on disk when it returns, and seen from then on. `None` is forgotten.
    pub fn write(&self, dirty: Vec<Dirty>) -> Result<(), IntentError> {
        let record = |next: &Option<(Arc<State>, Summary)>| {
            next.as_ref().map(|(state, summary)| store::encode(state, summary)).transpose()
        };
        let records = dirty.iter().map(|(_, next)| record(next)).collect::<Result<Vec<_>, _>>();
        let records = records.map_err(|_| IntentError::Stopped)?;
        self.store.write(dirty.iter().map(|(key, _)| key).zip(records))?;
        let (mut cache, mut index) = (lock(&self.cache), self.index());
        for (key, next) in dirty {
            match next {
                Some((state, summary)) => {
                    index.set(key.clone(), Some(summary));
                    cache.put(key, state);
                }
                None => {
                    cache.remove(&key);
                    index.set(key, None);
                }
            }
        }
        Ok(())
    }
}

/// A panic elsewhere leaves both whole: each change of them is one insertion.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
