use super::*;
use openraft::storage::RaftLogStorage;
use std::fs;

#[tokio::test(flavor = "multi_thread")]
async fn a_restart_keeps_everything() {
    let mut bench = Bench::new();
    let group = bench.found("a").await;
    let mut last = Revision::default();
    for n in 0..20 {
        last = write(&group, &format!("x{n}")).await.revision;
    }
    for round in 0..3 {
        bench.kill("a").await;
        let group = bench.restart("a").await;
        reached(&bench.views["a"], last).await;
        assert!((0..20).all(|n| has(&bench.views["a"], &format!("x{n}"))));
        until(&group, |status| status.role == Role::Leader && status.quorum).await;
        last = write(&group, &format!("round{round}")).await.revision;
    }
    let group = bench.hub.take("a").unwrap();
    group.stop().await;
    Group::forget(&bench.config("a").storage, &bench.dir("a")).unwrap();
    let resumed = Group::resume(bench.config("a"), bench.hub.port("a"), View::default()).await.unwrap();
    assert!(resumed.is_none());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_flock_that_was_switched_off_comes_back() {
    let mut bench = Bench::new();
    let groups = bench.flock(&["b", "c"]).await;
    let last = write(&groups["a"], "x").await;
    for peer in ["a", "b", "c"] {
        bench.kill(peer).await;
    }
    let mut groups = BTreeMap::new();
    for peer in ["c", "b", "a"] {
        groups.insert(peer, bench.restart(peer).await);
    }
    let after = write(leader(groups.values()).await, "after").await;
    assert!(after.revision > last.revision);
    for view in bench.views.values() {
        reached(view, after.revision).await;
        assert!(has(view, "x"));
    }
    bench.end(groups.into_values()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_long_log_becomes_a_snapshot_and_a_laggard_gets_it() {
    let mut bench = Bench::new();
    let mut groups = bench.flock(&["b", "c"]).await;
    bench.kill("c").await;
    groups.remove("c");
    let mut last = Revision::default();
    // One entry each, and more of them than lead to two snapshots.
    let much = "x".repeat(16 << 10);
    for n in 0..800 {
        last = groups["a"]
            .propose(put(&format!("x{}", n % 10), &format!("{n} {much}")))
            .await
            .unwrap()
            .unwrap()
            .revision;
    }
    let purged = |metrics: &openraft::RaftMetrics<_, _>| metrics.purged.is_some_and(|id| id.index > 100);
    let mut metrics = groups["a"].inner.raft.metrics();
    tokio::time::timeout(PATIENCE, metrics.wait_for(purged)).await.unwrap().unwrap();
    groups.insert("c".into(), bench.restart("c").await);
    reached(&bench.views["c"], last).await;
    let snapshot = |peer: &str| bench.views[peer].read(crate::state::Store::snapshot).objects;
    assert_eq!(snapshot("c"), snapshot("a"));
    // And a restart from a snapshot and the rest of the log.
    bench.kill("a").await;
    groups.insert("a".into(), bench.restart("a").await);
    reached(&bench.views["a"], last).await;
    bench.end(groups.into_values()).await;
}

/// openraft orders the purge right behind a snapshot that it received, and does not wait for it.
#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_purged_before_the_snapshot_that_covers_it_is_on_the_disk() {
    let bench = Bench::new();
    let identity =
        super::super::log::Identity { group: group_id(), epoch: 1, me: "a".into(), founder: false };
    fs::create_dir_all(bench.dir("a")).unwrap();
    let (storage, path) = (bench.config("a").storage, bench.dir("a").join("raft.log"));
    let mut log = super::super::log::Log::create(&storage, &path, &identity).unwrap();
    let (covers, covered) = tokio::sync::watch::channel(None);
    log.purge_behind(covered, 0);
    let purged =
        async |log: &super::super::log::Log| log.clone().get_log_state().await.unwrap().last_purged_log_id;
    let upto = |index| openraft::LogId::new(openraft::CommittedLeaderId::new(1, 0), index);
    {
        let mut purge = Box::pin(log.purge(upto(5)));
        for short in [None, Some(upto(4))] {
            covers.send_replace(short);
            assert!(futures::poll!(&mut purge).is_pending(), "purged up to 5 with {short:?} in the snapshot");
        }
        covers.send_replace(Some(upto(6)));
        purge.await.unwrap();
    }
    assert_eq!(purged(&log).await, Some(upto(5)));
    // The part ended before its snapshot was there.
    drop(covers);
    log.purge(upto(9)).await.unwrap_err();
    assert_eq!(purged(&log).await, Some(upto(5)));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_group_founded_anew_keeps_the_view_and_goes_on_above_it() {
    let mut bench = Bench::new();
    let group = bench.found("a").await;
    let before = write(&group, "old").await;
    bench.kill("a").await;
    Group::forget(&bench.config("a").storage, &bench.dir("a")).unwrap();
    let (config, port, view) = (bench.config("a"), bench.hub.port("a"), bench.view("a"));
    let generation = view.generation();
    let group = Group::found(config, port, view.clone(), group_id(), 2).await.unwrap();
    bench.hub.put("a", &group);
    bench.hub.heal("a");
    until(&group, |status| status.quorum).await;
    assert!(has(&view, "old") && view.revision() >= Revision::first_of(2));
    assert!(
        view.changes_after(view.seen_until(before.revision)).is_err(),
        "a watch must not go on across a founding"
    );
    assert_eq!(view.generation(), generation, "it is the same group");
    // Newcomers get what was there before the first entry; so does a restart.
    let (config, port, other) = (bench.config("b"), bench.hub.port("b"), bench.view("b"));
    let joined = Group::join(config, port, other.clone(), group_id(), 2, set(&["a"])).await.unwrap();
    bench.hub.put("b", &joined);
    group.set_voters(set(&["a", "b"])).await.unwrap();
    let after = write(&group, "new").await;
    reached(&other, after.revision).await;
    assert!(has(&other, "old") && has(&other, "new"));
    bench.kill("a").await;
    let group = bench.restart("a").await;
    reached(&bench.views["a"], after.revision).await;
    assert!(has(&bench.views["a"], "old"));
    bench.end([group, joined]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_interrupted_founding_is_finished_by_resuming() {
    let mut bench = Bench::new();
    let identity = super::super::log::Identity { group: group_id(), epoch: 1, me: "a".into(), founder: true };
    fs::create_dir_all(bench.dir("a")).unwrap();
    let log = super::super::log::Log::create(
        &bench.config("a").storage,
        &bench.dir("a").join("raft.log"),
        &identity,
    )
    .unwrap();
    log.close().await;
    use std::os::unix::fs::PermissionsExt;
    let mode = fs::metadata(bench.dir("a").join("raft.log")).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600, "users' secrets are in the log");
    let group = bench.restart("a").await;
    until(&group, |status| status.role == Role::Leader && status.quorum).await;
    write(&group, "x").await;
    bench.end([group]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn damaged_files_are_named_and_never_a_panic() {
    let mut bench = Bench::new();
    let group = bench.found("a").await;
    for n in 0..30 {
        write(&group, &format!("x{n}")).await;
    }
    group.inner.raft.trigger().snapshot().await.unwrap();
    let mut metrics = group.inner.raft.metrics();
    tokio::time::timeout(PATIENCE, metrics.wait_for(|m| m.snapshot.is_some())).await.unwrap().unwrap();
    let revision = bench.views["a"].revision();
    bench.kill("a").await;
    for name in ["raft.log", "raft.snapshot"] {
        let whole = fs::read(bench.dir("a").join(name)).unwrap();
        let len = whole.len();
        for (cut, flip) in
            [(0, None), (1, None), (len / 3, None), (len - 1, None), (len, Some(len / 2)), (len, Some(20))]
        {
            let dir = tempfile::tempdir().unwrap();
            for file in ["raft.log", "raft.snapshot"] {
                fs::copy(bench.dir("a").join(file), dir.path().join(file)).unwrap();
            }
            let mut bytes = whole[..cut].to_vec();
            if let Some(at) = flip {
                bytes[at] ^= 0x55;
            }
            fs::write(dir.path().join(name), bytes).unwrap();
            let config = GroupConfig { dir: dir.path().into(), ..bench.config("a") };
            let view = View::default();
            match Group::resume(config, bench.hub.port("a"), view.clone()).await {
                Err(error) => {
                    let text = error.to_string();
                    assert!(text.contains(name), "{name} cut at {cut}, flipped at {flip:?}: {text}");
                }
                Ok(group) => {
                    // What is written ahead may be damaged: then nothing was lost.
                    reached(&view, revision).await;
                    group.unwrap().stop().await;
                }
            }
        }
    }
    let other = GroupConfig { me: "b".into(), ..bench.config("a") };
    let error = Group::resume(other, bench.hub.port("b"), View::default()).await.err().unwrap();
    assert!(matches!(error, GroupError::OtherNode { .. }), "{error}");
}

#[test]
fn a_saved_view_comes_back_whole_or_not_at_all() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("view.state");
    assert!(load_view(&path).unwrap().is_none());
    let view = View::default();
    view.write(|store| {
        store.found(crate::state::Lineage { group: group_id().to_string(), epoch: 3 });
        store.apply(&put("x", "1")).unwrap();
    });
    save_view(&path, &view).unwrap();
    let loaded = load_view(&path).unwrap().unwrap();
    assert_eq!(loaded.lineage(), view.read(|store| store.lineage().cloned()).as_ref());
    assert_eq!(loaded.snapshot().objects, view.read(crate::state::Store::snapshot).objects);
    let whole = fs::read(&path).unwrap();
    for len in 0..whole.len() {
        fs::write(&path, &whole[..len]).unwrap();
        assert!(load_view(&path).is_err(), "{len} of {} bytes were believed", whole.len());
    }
}

/// What it had sent may be gone from its log: the same place of the same term must not get something else.
#[tokio::test(flavor = "multi_thread")]
async fn a_leader_that_was_restarted_leads_only_in_a_later_term() {
    let mut bench = Bench::new();
    let group = bench.found("a").await;
    let mut term = group.status().borrow().term;
    for round in 0..3 {
        bench.kill("a").await;
        let group = bench.restart("a").await;
        let leads = until(&group, |status| status.role == Role::Leader && status.quorum).await;
        assert!(leads.term > term, "{} after {term}", leads.term);
        term = leads.term;
        write(&group, &format!("round{round}")).await;
    }
    let group = bench.hub.take("a");
    bench.end(group).await;
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Does {
    #[default]
    Work,
    /// Nothing ends.
    Hang,
    Fail,
}

/// A file system whose disk hangs or fails from some moment on.
#[derive(Debug, Default)]
struct Failing {
    does: tokio::sync::watch::Sender<Does>,
    /// Bytes that were written to a log, and flushed.
    flushed: Arc<AtomicU64>,
}

/// Counts what is flushed.
#[derive(Debug)]
struct Counted {
    pages: Box<dyn Pages>,
    written: AtomicU64,
    flushed: Arc<AtomicU64>,
}

impl Pages for Counted {
    fn len(&self) -> std::io::Result<u64> {
        self.pages.len()
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> std::io::Result<()> {
        self.pages.read(offset, out)
    }

    fn write(&self, offset: u64, bytes: &[u8]) -> std::io::Result<()> {
        self.written.fetch_add(bytes.len() as u64, Ordering::Relaxed);
        self.pages.write(offset, bytes)
    }

    fn sync(&self) -> std::io::Result<()> {
        self.flushed.fetch_add(self.written.swap(0, Ordering::Relaxed), Ordering::Relaxed);
        self.pages.sync()
    }
}

#[async_trait::async_trait]
impl Storage for Failing {
    fn make_dir(&self, path: &std::path::Path) -> std::io::Result<()> {
        FileSystem.make_dir(path)
    }

    fn exists(&self, path: &std::path::Path) -> std::io::Result<bool> {
        FileSystem.exists(path)
    }

    fn create(&self, path: &std::path::Path) -> std::io::Result<()> {
        FileSystem.create(path)
    }

    fn open(&self, path: &std::path::Path) -> std::io::Result<Box<dyn Pages>> {
        FileSystem.open(path)
    }

    fn open_alone(&self, path: &std::path::Path) -> std::io::Result<Box<dyn Pages>> {
        let pages = FileSystem.open_alone(path)?;
        Ok(Box::new(Counted { pages, written: AtomicU64::new(0), flushed: self.flushed.clone() }))
    }

    fn read(&self, path: &std::path::Path, limit_bytes: u64) -> std::io::Result<Option<Vec<u8>>> {
        FileSystem.read(path, limit_bytes)
    }

    fn write_atomically(&self, path: &std::path::Path, bytes: &[u8]) -> std::io::Result<()> {
        FileSystem.write_atomically(path, bytes)
    }

    fn rename(&self, from: &std::path::Path, to: &std::path::Path) -> std::io::Result<()> {
        FileSystem.rename(from, to)
    }

    fn remove(&self, path: &std::path::Path) -> std::io::Result<()> {
        FileSystem.remove(path)
    }

    async fn work(&self, work: Box<dyn FnOnce() + Send>) -> std::io::Result<()> {
        let does = *self.does.subscribe().wait_for(|does| *does != Does::Hang).await.unwrap();
        match does {
            Does::Fail => Err(std::io::Error::other("no space left")),
            _ => FileSystem.work(work).await,
        }
    }
}

/// The process that wrote it may have ended between its write and its flush, or that flush may have failed, after which the
/// system flushes only what is written anew: the power must not take what others were told.
#[tokio::test]
async fn what_a_log_is_found_to_hold_is_flushed_before_it_counts() {
    let bench = Bench::new();
    let disk = Arc::new(Failing::default());
    let storage: Arc<dyn Storage> = disk.clone();
    let identity = super::super::log::Identity { group: group_id(), epoch: 1, me: "a".into(), founder: true };
    fs::create_dir_all(bench.dir("a")).unwrap();
    let path = bench.dir("a").join("raft.log");
    super::super::log::Log::create(&storage, &path, &identity).unwrap().close().await;
    let flushed = || disk.flushed.swap(0, Ordering::Relaxed);
    let (whole, file) = (flushed(), fs::metadata(&path).unwrap().len());
    assert_eq!(whole, 2 * file - 32, "the one frame is written, and settled like any other");
    super::super::log::Log::open(&storage, &path).unwrap().0.close().await;
    assert_eq!(flushed(), file - 32, "the last frame, which is all behind the file's header");
}

/// Its followers have what it sent, and nothing asks its own core for anything.
#[tokio::test(flavor = "multi_thread")]
async fn a_leader_whose_disk_fails_says_so_and_another_one_leads() {
    let mut bench = Bench::new();
    let disk = Arc::new(Failing::default());
    let config = GroupConfig { storage: disk.clone(), ..bench.config("a") };
    let failing = Group::found(config, bench.hub.port("a"), bench.view("a"), group_id(), 1).await.unwrap();
    bench.hub.put("a", &failing);
    until(&failing, |status| status.quorum).await;
    let others = [bench.join("b", "a").await, bench.join("c", "a").await];
    failing.set_voters(set(&["a", "b", "c"])).await.unwrap();
    let kept = write(&failing, "kept").await;
    disk.does.send_replace(Does::Fail);
    failing.propose(put("lost", "in between")).await.unwrap_err();
    let failed = until(&failing, |status| status.failed.is_some()).await;
    assert!(failed.failed.unwrap().contains("no space left") && !failed.quorum);
    let after = write(leader(others.iter()).await, "after").await;
    assert!(after.revision > kept.revision);
    bench.end(others.into_iter().chain([failing])).await;
}

/// Whoever's disk it is: the voter's, without which there is no quorum, or the leader's, which has the other's word.
#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_acknowledged_that_two_of_two_disks_do_not_hold() {
    let mut bench = Bench::new();
    let disks = [Arc::new(Failing::default()), Arc::new(Failing::default())];
    let config = |bench: &Bench, peer, disk: &Arc<Failing>| GroupConfig {
        storage: disk.clone(),
        ..bench.config(peer)
    };
    let (port, view) = (bench.hub.port("a"), bench.view("a"));
    let leader = Group::found(config(&bench, "a", &disks[0]), port, view, group_id(), 1).await.unwrap();
    bench.hub.put("a", &leader);
    until(&leader, |status| status.quorum).await;
    let (port, view) = (bench.hub.port("b"), bench.view("b"));
    let joined = Group::join(config(&bench, "b", &disks[1]), port, view, group_id(), 1, set(&["a"])).await;
    let voter = joined.unwrap();
    bench.hub.put("b", &voter);
    leader.set_voters(set(&["a", "b"])).await.unwrap();
    for (n, disk) in disks.iter().enumerate() {
        let before = leader.inner.raft.data_metrics().borrow().last_log;
        disk.does.send_replace(Does::Hang);
        let mut proposal = Box::pin(leader.propose(put(&format!("x{n}"), "held")));
        let taken = async |group: &Group| {
            let mut metrics = group.inner.raft.data_metrics();
            metrics.wait_for(|metrics| metrics.last_log > before).await.unwrap();
        };
        let both = async { tokio::join!(taken(&leader), taken(&voter)) };
        tokio::select! {
            answer = &mut proposal => panic!("{n}: {answer:?} before both had it"),
            taken = tokio::time::timeout(PATIENCE, both) => { taken.unwrap(); }
        }
        // An answer that did not wait would be there by now.
        let early = tokio::time::timeout(Timings::lan().heartbeat * 3, &mut proposal).await;
        assert!(early.is_err(), "{n}: {early:?} while a disk hangs");
        assert!(bench.views.values().all(|view| !has(view, &format!("x{n}"))), "it was applied");
        disk.does.send_replace(Does::Work);
        proposal.await.unwrap().unwrap();
    }
    bench.end([leader, voter]).await;
}
