use super::super::log::Log;
use super::*;
use openraft::RaftLogReader;
use openraft::storage::RaftLogStorage;
use std::fs;
use std::path::Path;

/// Everything that a log says.
async fn content(log: &mut Log) -> String {
    let state = log.get_log_state().await.unwrap();
    let (vote, committed) = (log.read_vote().await.unwrap(), log.read_committed().await.unwrap());
    let entries = log.try_get_log_entries(0..u64::MAX).await.unwrap();
    format!("{state:?} {vote:?} {committed:?} {entries:?}")
}

/// A group of one with a log and a snapshot, stopped.
async fn stopped_group() -> Bench {
    let mut bench = Bench::new();
    let group = bench.found("a").await;
    for n in 0..10 {
        write(&group, &format!("x{n}")).await;
    }
    group.inner.raft.trigger().snapshot().await.unwrap();
    let mut metrics = group.inner.raft.metrics();
    tokio::time::timeout(PATIENCE, metrics.wait_for(|m| m.snapshot.is_some())).await.unwrap().unwrap();
    write(&group, "last").await;
    bench.kill("a").await;
    bench
}

/// Every byte where files keep their structure, and a sample of the rest.
fn sample(len: usize) -> impl Iterator<Item = usize> {
    (0..len.min(400)).chain((400..len).step_by(1 + len / 400)).chain(len.saturating_sub(3)..len)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_log_that_was_damaged_anywhere_is_whole_or_refused() {
    let bench = stopped_group().await;
    let path = bench.dir("a").join("raft.log");
    let (mut log, _) = Log::open(&storage(), &path).unwrap();
    let expected = content(&mut log).await;
    log.close().await;
    let mark = fs::read(Log::mark_file(&path)).unwrap();
    let whole = fs::read(&path).unwrap();
    let dir = tempfile::tempdir().unwrap();
    let copy = dir.path().join("raft.log");
    let mut refused = 0;
    for at in sample(whole.len()) {
        for bytes in [whole[..at].to_vec(), flipped(&whole, at)] {
            fs::write(&copy, bytes).unwrap();
            fs::write(Log::mark_file(&copy), &mark).unwrap();
            match Log::open(&storage(), &copy) {
                Ok((mut log, _)) => {
                    assert_eq!(content(&mut log).await, expected, "damage at {at} is believed");
                    log.close().await;
                }
                Err(error) => {
                    assert!(GroupError::from(error).is_damage(), "at {at}");
                    refused += 1;
                }
            }
        }
    }
    assert!(refused > 400, "only {refused} were noticed at all");
}

fn flipped(whole: &[u8], at: usize) -> Vec<u8> {
    let mut bytes = whole.to_vec();
    bytes[at] ^= 0x01;
    bytes
}

#[tokio::test(flavor = "multi_thread")]
async fn a_log_that_went_back_in_time_is_refused() {
    let mut bench = Bench::new();
    let group = bench.found("a").await;
    bench.kill("a").await;
    drop(group);
    let path = bench.dir("a").join("raft.log");
    let earlier = fs::read(&path).unwrap();
    let group = bench.restart("a").await;
    until(&group, |status| status.role == Role::Leader && status.quorum).await;
    write(&group, "acknowledged").await;
    bench.kill("a").await;
    drop(group);
    let later = fs::read(&path).unwrap();
    fs::write(&path, earlier).unwrap();
    let error = Group::resume(bench.config("a"), bench.hub.port("a"), View::default()).await.err().unwrap();
    assert!(error.is_damage(), "{error}");
    // A mark that is damaged itself, or was never written, says nothing about the log.
    fs::write(&path, later).unwrap();
    let mark = Log::mark_file(&path);
    let bytes = fs::read(&mark).unwrap();
    for damaged in [flipped(&bytes, 3), bytes[..5].to_vec()] {
        fs::write(&mark, damaged).unwrap();
        Log::open(&storage(), &path).unwrap().0.close().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_snapshot_that_was_damaged_anywhere_is_refused_and_so_is_one_that_is_gone() {
    let bench = stopped_group().await;
    let path = bench.dir("a").join("raft.snapshot");
    let whole = fs::read(&path).unwrap();
    let resume = || Group::resume(bench.config("a"), bench.hub.port("a"), View::default());
    for at in 0..whole.len() {
        let cuts = at % 7 == 0;
        for bytes in [Some(flipped(&whole, at)), cuts.then(|| whole[..at].to_vec())].into_iter().flatten() {
            fs::write(&path, bytes).unwrap();
            let error = super::super::snapshot::salvage(&path);
            assert!(error.is_none(), "damage at {at} is believed");
        }
    }
    let error = resume().await.err().unwrap();
    assert!(error.is_damage() && error.to_string().contains("raft.snapshot"), "{error}");
    fs::remove_file(&path).unwrap();
    assert!(resume().await.err().unwrap().is_damage(), "the founder's first state was in it");
    fs::write(&path, whole).unwrap();
    resume().await.unwrap().unwrap().stop().await;
}

fn names(dir: &Path) -> Vec<String> {
    let names = fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let mut names: Vec<String> = names.collect();
    names.sort();
    names
}

#[tokio::test(flavor = "multi_thread")]
async fn damaged_files_are_set_aside_and_say_what_they_still_know() {
    let mut bench = stopped_group().await;
    let dir = bench.dir("a");
    fs::write(dir.join("raft.log"), b"not a log").unwrap();
    let aside = Group::set_aside(&dir).unwrap();
    assert_eq!(aside.to, dir.with_extension("damaged-1"));
    assert_eq!(aside.lineage.unwrap().group, group_id().to_string());
    let state = aside.state.expect("the snapshot is whole");
    assert!(state.get(&key("x9")).is_some() && state.get(&key("last")).is_none());
    assert_eq!(fs::read(aside.to.join("raft.log")).unwrap(), b"not a log");
    let nothing = Group::resume(bench.config("a"), bench.hub.port("a"), View::default()).await.unwrap();
    assert!(nothing.is_none());
    // With the snapshot gone, the log still says whose it was; and what is kept is bounded.
    for round in 0..4 {
        bench.found("a").await;
        bench.kill("a").await;
        fs::write(dir.join("raft.snapshot"), [round]).unwrap();
        let aside = Group::set_aside(&dir).unwrap();
        assert!(aside.state.is_none() && aside.lineage.is_some());
    }
    assert_eq!(names(dir.parent().unwrap()), ["a", "a.damaged-1", "a.damaged-2"]);
    assert_eq!(names(&dir), ["raft.left"], "the term that the log still named goes on");
    assert_eq!(fs::read(dir.with_extension("damaged-1").join("raft.snapshot")).unwrap(), [3]);
}

/// Loses a voter's files, and lets it take part with an empty log as if it were new.
async fn lose(bench: &mut Bench, peer: &str, leader: &str) -> Group {
    bench.kill(peer).await;
    fs::remove_dir_all(bench.dir(peer)).unwrap();
    bench.views.remove(peer);
    let group = bench.join(peer, leader).await;
    bench.hub.heal(peer);
    group
}

#[tokio::test(flavor = "multi_thread")]
async fn a_voter_that_lost_its_log_is_not_counted_before_it_was_voted_out_and_in() {
    let mut bench = Bench::new();
    let mut groups = bench.flock(&["b", "c"]).await;
    let leader = groups["a"].clone();
    // b and the leader have it; c will have forgotten.
    let kept = write(&leader, "kept").await;
    let lost = lose(&mut bench, "c", "a").await;
    bench.kill("b").await;
    let refused = leader.propose(put("one-of-three", "1")).await;
    assert!(refused.is_err(), "an amnesiac was counted: {refused:?}");
    assert_eq!(lost.status().borrow().applied, 0, "it has let itself be filled as a voter");
    // Nor does it vote: neither for b, which could not win without it, nor in the leader's place.
    bench.kill("a").await;
    groups.insert("b".into(), bench.restart("b").await);
    let elected = until(&groups["b"], |status| status.leader.is_some() && status.quorum);
    assert!(tokio::time::timeout(Duration::from_secs(4), elected).await.is_err(), "it has voted");
    groups.insert("a".into(), bench.restart("a").await);
    let leader = super::leader([&groups["a"], &groups["b"]]).await.clone();
    leader.set_voters(set(&["a", "b"])).await.unwrap();
    leader.set_voters(set(&["a", "b", "c"])).await.unwrap();
    until(&lost, |status| status.role == Role::Voter && status.quorum).await;
    reached(&bench.views["c"], kept.revision).await;
    assert!(has(&bench.views["c"], "kept"));
    groups.insert("c".into(), lost);
    bench.end(groups.into_values()).await;
}
