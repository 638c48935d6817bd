//! The file of a log against a map, through restarts, power cuts and being written anew.

use super::super::codec::seal;
use super::super::storage::FileSystem;
use super::super::types::Batch;
use super::disk::{COMMITTED, PURGED, record};
use super::*;
use crate::state::{Expect, Key, Resource, Write};
use openraft::{CommittedLeaderId, EntryPayload};
use proptest::prelude::*;
use redb::{Database, TableDefinition};
use std::collections::BTreeMap;
use std::fs;

/// Of a file that may stay as it is.
const SMALL_BYTES: u64 = 64 << 10;

fn storage() -> Arc<dyn Storage> {
    Arc::new(FileSystem)
}

fn id(index: u64) -> Id {
    Id::new(CommittedLeaderId::new(1, 0), index)
}

fn entry(index: u64, bytes: usize) -> Entry {
    let key = Key::new(Resource::fixed("configmaps"), "default", "x");
    let value = serde_json::json!({"data": "x".repeat(bytes)});
    let put = Write::Put { key, value, expect: Expect::Any, intent: None };
    Entry { log_id: id(index), payload: EntryPayload::Normal(Batch { txns: Arc::new(vec![put.into()]) }) }
}

fn identity() -> Identity {
    Identity { group: "00112233aabbccdd".parse().unwrap(), epoch: 3, me: "a".into(), founder: true }
}

fn create(path: &Path) -> Disk {
    let first = || -> Result<Change, LogFault> {
        let mut first = Change::default();
        first.record(IDENTITY, &identity())?;
        Ok(first)
    };
    Disk::create(&storage(), path, |put| put(first()?)).unwrap()
}

#[derive(Clone, Debug)]
enum Step {
    Append(usize),
    Truncate(u64),
    Purge(u64),
    Vote(u64),
    Restart,
    /// The last write reached the disk in part; nobody had been told of it.
    PowerCut(usize),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        6 => (0usize..60_000).prop_map(Step::Append),
        1 => (0u64..10).prop_map(Step::Truncate),
        3 => (0u64..10).prop_map(Step::Purge),
        1 => any::<u64>().prop_map(Step::Vote),
        1 => Just(Step::Restart),
        1 => (0usize..600).prop_map(Step::PowerCut),
    ];
    prop::collection::vec(step, 1..80)
}

/// What a log ought to hold.
#[derive(Default)]
struct Model {
    entries: BTreeMap<u64, Entry>,
    purged: Option<Id>,
    vote: Option<Ballot>,
}

impl Model {
    fn next(&self) -> u64 {
        let last = self.entries.keys().next_back().copied();
        last.max(self.purged.map(|id| id.index)).map_or(0, |last| last + 1)
    }

    fn check(&self, disk: &Disk) {
        let entries: Vec<Entry> = self.entries.values().cloned().collect();
        assert!(disk.read(0, u64::MAX, u64::MAX).unwrap() == entries);
        let state = disk.state().unwrap();
        let last = self.entries.values().next_back().map(|entry| entry.log_id);
        assert_eq!((state.last_purged_log_id, state.last_log_id), (self.purged, last.or(self.purged)));
        assert_eq!(disk.get_meta::<Ballot>(VOTE).unwrap(), self.vote);
        assert_eq!(disk.get_meta::<Identity>(IDENTITY).unwrap(), Some(identity()));
        if let [first, .., last] = entries.as_slice() {
            let (first, last) = (first.log_id.index, last.log_id.index);
            assert_eq!(disk.read(first, last, 1).unwrap(), entries[..1]);
            assert_eq!(disk.read(first + 1, last, u64::MAX).unwrap(), entries[1..entries.len() - 1]);
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn a_log_holds_what_was_put_into_it_and_its_file_stays_small(steps in steps()) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("raft.log");
        let mut model = Model::default();
        let mut disk = create(&path);
        for step in steps {
            match step {
                Step::Append(bytes) => {
                    let entries = [entry(model.next(), bytes), entry(model.next() + 1, 3)];
                    let records: Result<Records, LogFault> = entries.iter().map(record).collect();
                    disk.append(&records.unwrap(), None).unwrap();
                    model.entries.extend(entries.map(|entry| (entry.log_id.index, entry)));
                }
                Step::Truncate(back) => {
                    let since = model.next().saturating_sub(back);
                    disk.remove((Bound::Included(since), Bound::Unbounded), None).unwrap();
                    model.entries.split_off(&since);
                }
                Step::Purge(back) => {
                    let upto = model.next().saturating_sub(back);
                    let upto = id(upto.max(model.purged.map_or(0, |id| id.index)));
                    disk.remove((Bound::Unbounded, Bound::Included(upto.index)), Some(upto)).unwrap();
                    disk.tidy(SMALL_BYTES).unwrap();
                    model.entries = model.entries.split_off(&(upto.index + 1));
                    model.purged = Some(upto);
                    let bytes: usize = model.entries.values().map(|entry| record(entry).unwrap().1.len()).sum();
                    // What is small, or so many times what counts; and what is written ahead.
                    let file = fs::metadata(&path).unwrap().len();
                    prop_assert!(file < SMALL_BYTES + 3 * bytes as u64 + (512 << 10), "{file} for {bytes}");
                }
                Step::Vote(term) => {
                    let vote = Ballot::new(term, 7);
                    disk.put_meta(VOTE, &vote).unwrap();
                    model.vote = Some(vote);
                }
                Step::Restart => {
                    drop(disk);
                    disk = Disk::open(&storage(), &path).unwrap();
                    prop_assert_eq!(disk.verify().unwrap(), identity());
                }
                Step::PowerCut(kept) => {
                    let mark = fs::read(Log::mark_file(&path)).unwrap();
                    let before = disk.file_bytes();
                    disk.put_meta(VOTE, &Ballot::new(1, 1)).unwrap();
                    let after = disk.file_bytes();
                    drop(disk);
                    let mut bytes = fs::read(&path).unwrap();
                    let kept = before + kept as u64 % (after - before);
                    bytes[kept as usize..after as usize].fill(0);
                    fs::write(&path, bytes).unwrap();
                    fs::write(Log::mark_file(&path), mark).unwrap();
                    disk = Disk::open(&storage(), &path).unwrap();
                }
            }
            model.check(&disk);
        }
        let names = fs::read_dir(dir.path()).unwrap().count();
        prop_assert_eq!(names, 2, "the log and its mark");
    }
}

const OLDER_LOG: TableDefinition<u64, &[u8]> = TableDefinition::new("log");
const OLDER_META: TableDefinition<&str, &[u8]> = TableDefinition::new("meta");

/// A log as it was kept in redb, with entries 4 to 9.
fn older(path: &Path, commits: u64) {
    let sealed =
        |name: &str, value: &dyn Fn() -> Result<Vec<u8>, CodecError>| (name.to_owned(), value().unwrap());
    let vote = Ballot::new(5, 7);
    let records = [
        sealed(IDENTITY, &|| seal(IDENTITY.as_bytes(), &identity())),
        sealed(VOTE, &|| seal(VOTE.as_bytes(), &vote)),
        sealed(PURGED, &|| seal(PURGED.as_bytes(), &id(3))),
        sealed(COMMITTED, &|| seal(COMMITTED.as_bytes(), &id(8))),
        sealed("commits", &|| seal(b"commits", &commits)),
    ];
    let txn = Database::create(path).unwrap().begin_write().unwrap();
    for (name, bytes) in &records {
        txn.open_table(OLDER_META).unwrap().insert(name.as_str(), bytes.as_slice()).unwrap();
    }
    for index in 4..10 {
        let (index, bytes) = record(&entry(index, 300_000)).unwrap();
        txn.open_table(OLDER_LOG).unwrap().insert(index, bytes.as_slice()).unwrap();
    }
    txn.commit().unwrap();
}

#[tokio::test]
async fn a_log_that_an_older_version_kept_goes_on() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("raft.log");
    let redb = dir.path().join("raft.redb");
    Log::convert(&storage(), &path).unwrap();
    assert!(!path.exists(), "there was nothing");
    older(&redb, 12);
    let left = fs::read(&redb).unwrap();
    for round in 0..2 {
        Log::convert(&storage(), &path).unwrap();
        assert!(!redb.exists());
        let (mut log, found) = Log::open(&storage(), &path).unwrap();
        assert_eq!(found, identity());
        let state = log.get_log_state().await.unwrap();
        assert_eq!((state.last_purged_log_id, state.last_log_id), (Some(id(3)), Some(id(9))));
        assert_eq!(log.read_vote().await.unwrap(), Some(Ballot::new(5, 7)));
        assert_eq!(log.read_committed().await.unwrap(), Some(id(8)));
        assert_eq!(log.try_get_log_entries(0..u64::MAX).await.unwrap().len(), 6);
        log.close().await;
        // It was written anew, and the older one not yet removed.
        if round == 0 {
            fs::write(&redb, &left).unwrap();
        }
    }
}

/// A node looks into it before it takes part again: it may have promised not to go on with its epoch.
#[tokio::test]
async fn who_looks_for_a_part_that_was_given_away_finds_it_in_an_older_log() {
    let dir = tempfile::tempdir().unwrap();
    older(&dir.path().join("raft.redb"), 12);
    let salvaged = super::super::salvage::salvage(dir.path()).await.unwrap().unwrap();
    assert_eq!(salvaged.lineage, identity().lineage());
    assert!(dir.path().join("raft.log").exists());
}

#[test]
fn an_older_log_that_is_damaged_is_refused_and_stays() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("raft.log");
    let redb = dir.path().join("raft.redb");
    older(&redb, 12);
    let (mark, _) = mark::Mark::open(&*storage(), &path).unwrap();
    mark.set(13);
    let error = Log::convert(&storage(), &path).unwrap_err();
    assert!(matches!(error.source, LogFault::WentBack { changes: 12, marked: 13 }), "{error:?}");
    let error = Log::convert(&storage(), &path).unwrap_err();
    assert!(matches!(error.source, LogFault::WentBack { .. }), "asked again: {error:?}");
    mark.set(12);
    let whole = fs::read(&redb).unwrap();
    for damaged in [b"nonsense".to_vec(), whole[..whole.len() / 2].to_vec()] {
        fs::write(&redb, &damaged).unwrap();
        let error = Log::convert(&storage(), &path).unwrap_err();
        assert!(error.source.is_damage() && error.path == redb, "{error:?}");
        assert!(redb.exists() && !path.exists());
    }
}

#[test]
fn an_older_log_that_an_earlier_version_went_on_with_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("raft.log");
    let redb = dir.path().join("raft.redb");
    older(&redb, 12);
    let left = fs::read(&redb).unwrap();
    Log::convert(&storage(), &path).unwrap();
    fs::write(&redb, left).unwrap();
    let vote = seal(VOTE.as_bytes(), &Ballot::new(6, 8)).unwrap();
    let txn = Database::open(&redb).unwrap().begin_write().unwrap();
    txn.open_table(OLDER_META).unwrap().insert(VOTE, vote.as_slice()).unwrap();
    txn.commit().unwrap();
    let error = Log::convert(&storage(), &path).unwrap_err();
    assert!(error.source.is_damage() && redb.exists() && path.exists(), "{error:?}");
}

/// What an earlier process left of a copy that it did not finish; users' secrets are in it.
#[test]
fn an_unfinished_copy_is_removed() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("raft.log");
    drop(create(&path));
    let unnamed = path.with_extension("new");
    fs::write(&unnamed, b"half").unwrap();
    drop(Disk::open(&storage(), &path).unwrap());
    assert!(!unnamed.exists());
    let refuse = |_: &mut disk::Put| Err(LogFault::Anonymous);
    assert!(Disk::create(&storage(), &path, refuse).is_err());
    assert!(!unnamed.exists() && path.exists());
}
