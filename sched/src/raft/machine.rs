//! The state machine: committed entries go into the node's view.
//!
//! It is in memory; what it was at the last snapshot is on disk, and the log replays the rest after a restart.

use super::snapshot::{Record, SnapshotError, SnapshotFile, blank};
use super::storage::{Storage, off_thread};
use super::types::{Entry, Failure, Id, Meta, Outcome, StoredMembers, Types, voters};
use crate::state::{Frozen, Lineage, Store, View};
use openraft::storage::RaftStateMachine;
use openraft::{
    AnyError, EntryPayload, OptionalSend, RaftSnapshotBuilder, Snapshot, SnapshotMeta, StorageIOError,
};
use std::collections::BTreeSet;
use std::io::Cursor;
use std::time::Instant;
use tokio::sync::watch;

pub(super) struct Machine {
    view: View,
    lineage: Lineage,
    file: SnapshotFile,
    applied: Option<Id>,
    members: StoredMembers,
    /// The state while it is older than what the view already got by following: readers never go back in time.
    /// Gone as soon as it has caught up; from then on this machine is the view's only writer.
    staging: Option<Store>,
}

impl Machine {
    /// A machine whose first state is what the view holds: the founder's.
    pub fn of_view(view: View, lineage: Lineage, file: SnapshotFile) -> Self {
        view.write(Store::own);
        Self { view, lineage, file, applied: None, members: StoredMembers::default(), staging: None }
    }

    /// A machine that goes on from a snapshot, or from nothing.
    pub fn from_snapshot(view: View, lineage: Lineage, file: SnapshotFile, newest: Option<Record>) -> Self {
        let (store, meta) = match newest {
            Some(record) => (Store::from_snapshot(record.state), record.meta),
            None => (blank(lineage.epoch), Meta::default()),
        };
        let mut machine = Self {
            view,
            lineage,
            file,
            applied: meta.last_log_id,
            members: meta.last_membership,
            staging: Some(store),
        };
        machine.show_if_caught_up();
        machine
    }

    /// The last entry that the snapshot on the disk covers, from now on.
    pub fn covers(&self) -> watch::Receiver<Option<Id>> {
        self.file.covers()
    }

    /// Where its snapshots are kept.
    pub fn file(&self) -> &SnapshotFile {
        &self.file
    }

    /// Who votes by what is applied.
    pub fn voters(&self) -> BTreeSet<String> {
        voters(self.members.membership())
    }

    /// Hands the state to the view unless the view is ahead of it.
    fn show_if_caught_up(&mut self) {
        let Some(staging) = self.staging.take() else { return };
        let (lineage, revision) = (&self.lineage, staging.revision());
        self.staging = self.view.write(|store| {
            let ours = store.lineage() == Some(lineage);
            if ours && store.revision() > revision {
                return Some(staging);
            }
            // Equal revisions of one lineage are equal states: then the view keeps its history for its watches.
            if !ours || store.revision() < revision {
                store.replace(staging, lineage.clone());
            } else {
                store.learn_ordered(staging);
            }
            store.own();
            None
        });
    }

    fn apply_entry(&mut self, entry: Entry) -> Outcome {
        let apply = |store: &mut Store| apply(store, &entry);
        let outcome = match &mut self.staging {
            Some(staging) => apply(staging),
            None => self.view.write(apply),
        };
        self.applied = Some(entry.log_id);
        if let EntryPayload::Membership(members) = entry.payload {
            self.members = StoredMembers::new(Some(entry.log_id), members);
        }
        outcome
    }

    fn freeze(&self) -> Frozen {
        match &self.staging {
            Some(staging) => staging.freeze(),
            None => self.view.read(Store::freeze),
        }
    }
}

/// What an entry does to a state.
pub(super) fn apply(store: &mut Store, entry: &Entry) -> Outcome {
    let outcome = match &entry.payload {
        EntryPayload::Normal(batch) => Outcome(batch.txns.iter().map(|txn| store.apply(txn)).collect()),
        EntryPayload::Blank | EntryPayload::Membership(_) => Outcome::default(),
    };
    // Also one that changes nothing: a new leader's first entry commits what earlier terms left.
    store.set_term(entry.log_id.leader_id.term);
    outcome
}

fn unreadable(error: SnapshotError) -> Failure {
    StorageIOError::read_snapshot(None, AnyError::new(&error)).into()
}

fn unwritable(error: SnapshotError) -> Failure {
    StorageIOError::write_snapshot(None, AnyError::new(&error)).into()
}

/// Work on whole snapshots takes tens of milliseconds and the disk: not on a thread that serves the network.
async fn blocking<T: Send + 'static>(
    storage: &dyn Storage,
    work: impl FnOnce() -> Result<T, SnapshotError> + Send + 'static,
    failed: fn(SnapshotError) -> Failure,
) -> Result<T, Failure> {
    match off_thread(storage, work).await {
        Ok(result) => result.map_err(failed),
        Err(error) => Err(StorageIOError::write_snapshot(None, AnyError::new(&error)).into()),
    }
}

impl RaftStateMachine<Types> for Machine {
    type SnapshotBuilder = Builder;

    async fn applied_state(&mut self) -> Result<(Option<Id>, StoredMembers), Failure> {
        Ok((self.applied, self.members.clone()))
    }

    async fn apply<I>(&mut self, entries: I) -> Result<Vec<Outcome>, Failure>
    where
        I: IntoIterator<Item = Entry> + OptionalSend,
        I::IntoIter: OptionalSend,
    {
        let outcomes = entries.into_iter().map(|entry| self.apply_entry(entry)).collect();
        self.show_if_caught_up();
        Ok(outcomes)
    }

    async fn get_snapshot_builder(&mut self) -> Builder {
        let id = self.applied.map(|id| format!("{}-{}", id.leader_id, id.index)).unwrap_or_default();
        let meta = SnapshotMeta {
            last_log_id: self.applied,
            last_membership: self.members.clone(),
            snapshot_id: id,
        };
        Builder { file: self.file.clone(), meta, state: self.freeze() }
    }

    async fn begin_receiving_snapshot(&mut self) -> Result<Box<Cursor<Vec<u8>>>, Failure> {
        Ok(Box::new(Cursor::new(Vec::new())))
    }

    async fn install_snapshot(&mut self, meta: &Meta, data: Box<Cursor<Vec<u8>>>) -> Result<(), Failure> {
        let (file, covers) = (self.file.clone(), meta.last_log_id);
        let install = move || {
            let bytes = data.into_inner();
            let record = file.decode(&bytes)?;
            file.write(covers, &bytes)?;
            Ok(Store::from_snapshot(record.state))
        };
        let store = blocking(&*self.file.storage, install, unwritable).await?;
        self.applied = meta.last_log_id;
        self.members = meta.last_membership.clone();
        self.staging = Some(store);
        self.show_if_caught_up();
        Ok(())
    }

    async fn get_current_snapshot(&mut self) -> Result<Option<Snapshot<Types>>, Failure> {
        let file = self.file.clone();
        let found = blocking(&*self.file.storage, move || file.read(), unreadable).await?;
        // The founder's origin covers no entry: it is where a replay begins, not a snapshot of the log.
        let found = found.filter(|(record, _)| record.meta.last_log_id.is_some());
        Ok(found
            .map(|(record, bytes)| Snapshot { meta: record.meta, snapshot: Box::new(Cursor::new(bytes)) }))
    }
}

/// Writes down the state of one moment, while the machine goes on.
pub(super) struct Builder {
    file: SnapshotFile,
    meta: Meta,
    state: Frozen,
}

impl RaftSnapshotBuilder<Types> for Builder {
    async fn build_snapshot(&mut self) -> Result<Snapshot<Types>, Failure> {
        let (file, meta, state) = (self.file.clone(), self.meta.clone(), self.state.clone());
        let build = move || {
            let began = Instant::now();
            let bytes = file.encode(&meta, &state)?;
            let encoded = began.elapsed();
            file.write(meta.last_log_id, &bytes)?;
            let (total, len) = (began.elapsed(), bytes.len());
            tracing::debug!(bytes = len, ?encoded, ?total, upto = ?meta.last_log_id, "the state is written down");
            Ok(bytes)
        };
        let bytes = blocking(&*self.file.storage, build, unwritable).await?;
        Ok(Snapshot { meta: self.meta.clone(), snapshot: Box::new(Cursor::new(bytes)) })
    }
}
