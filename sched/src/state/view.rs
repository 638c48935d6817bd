//! The shared handle on a node's store: many readers, one writer, and a bell that rings at every revision.

use super::{Change, Expired, Revision, Store};
use std::sync::{Arc, PoisonError, RwLock};
use tokio::sync::watch;

/// How far a reader of changes has come. Revisions of two groups may overlap, so a revision alone does not say it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Seen {
    /// See [`Store::generation`].
    pub generation: u64,
    pub revision: Revision,
}

/// A node's copy of the scheduling state. Cheap to clone. Reads are short and never await.
#[derive(Clone)]
pub struct View {
    store: Arc<RwLock<Store>>,
    revision: Arc<watch::Sender<Revision>>,
}

impl Default for View {
    fn default() -> Self {
        Self::new(Store::default())
    }
}

impl View {
    pub fn new(store: Store) -> Self {
        let revision = watch::Sender::new(store.revision());
        Self { store: Arc::new(RwLock::new(store)), revision: Arc::new(revision) }
    }

    pub fn read<R>(&self, read: impl FnOnce(&Store) -> R) -> R {
        read(&self.store.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Changes the store and wakes whoever waits for a revision. For the state machine and the follower only.
    pub fn write<R>(&self, write: impl FnOnce(&mut Store) -> R) -> R {
        let mut store = self.store.write().unwrap_or_else(PoisonError::into_inner);
        let generation = store.generation();
        let result = write(&mut store);
        let (revision, replaced) = (store.revision(), store.generation() != generation);
        // With the store still locked: who has read a change reads its revision too, and of two writers the later
        // one is heard last.
        self.revision.send_if_modified(|last| std::mem::replace(last, revision) != revision || replaced);
        result
    }

    pub fn revision(&self) -> Revision {
        *self.revision.borrow()
    }

    /// See [`Store::generation`]: a watch ends (and lists again) when this changes.
    pub fn generation(&self) -> u64 {
        self.read(Store::generation)
    }

    /// A receiver that is woken when the revision changes.
    pub fn subscribe(&self) -> watch::Receiver<Revision> {
        self.revision.subscribe()
    }

    /// Waits until the view has reached `revision`.
    pub async fn reached(&self, revision: Revision) {
        // The sender lives in `self`, so waiting cannot fail.
        let _ = self.subscribe().wait_for(|now| *now >= revision).await;
    }

    /// Where a reader stands that has seen everything so far.
    pub fn seen(&self) -> Seen {
        self.read(Store::seen)
    }

    /// Where a reader stands that has seen everything up to `revision`, which it got from this view just now.
    pub fn seen_until(&self, revision: Revision) -> Seen {
        Seen { generation: self.generation(), revision }
    }

    /// The changes after what was seen, oldest first, or `Expired` when history no longer reaches back to it, or the
    /// view has turned to another group since.
    ///
    /// # Errors
    /// The reader has to begin anew.
    pub fn changes_after(&self, seen: Seen) -> Result<Vec<Arc<Change>>, Expired> {
        self.read(|store| store.changes_since(seen))
    }
}
