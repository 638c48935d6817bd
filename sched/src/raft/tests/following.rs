use super::super::follow::{FollowError, follow, serve};
use super::*;
use crate::state::{HISTORY_LIMIT, Store};
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex};
use tokio::sync::watch;
use tokio::task::JoinHandle;

/// Follows `group`, whose state is in `voter`, until aborted or broken.
fn following(
    group: &Group,
    voter: &View,
    follower: &View,
) -> (JoinHandle<FollowError>, watch::Receiver<Option<Status>>) {
    let (ours, theirs) = duplex(64 << 10);
    tokio::spawn(serve(voter.clone(), group.status(), theirs));
    let (told, status) = watch::channel(None);
    let view = follower.clone();
    let task = tokio::spawn(async move {
        match follow(view, ours, |status| _ = told.send_replace(Some(status))).await {
            Err(error) => error,
            Ok(never) => match never {},
        }
    });
    (task, status)
}

fn content(view: &View) -> Vec<(Key, Revision, serde_json::Value)> {
    view.read(Store::snapshot).objects
}

#[tokio::test(flavor = "multi_thread")]
async fn a_follower_gets_the_state_and_then_every_change() {
    let mut bench = Bench::new();
    let group = bench.found("a").await;
    let voter = bench.view("a");
    let before = write(&group, "before").await;
    let follower = View::default();
    let (task, mut status) = following(&group, &voter, &follower);
    reached(&follower, before.revision).await;
    let told = tokio::time::timeout(PATIENCE, status.wait_for(Option::is_some))
        .await
        .unwrap()
        .unwrap()
        .clone()
        .unwrap();
    assert_eq!((told.leader.as_deref(), told.quorum), (Some("a"), true));
    let generation = follower.generation();
    for n in 0..100 {
        write(&group, &format!("x{n}")).await;
    }
    let gone = Write::Delete { key: key("x7"), expect: Expect::Any, intent: None };
    let mut last = group.propose(gone.into()).await.unwrap().unwrap();
    reached(&follower, last.revision).await;
    assert_eq!(content(&follower), content(&voter));
    assert_eq!(follower.generation(), generation, "watches go on");
    assert_eq!(follower.changes_after(follower.seen_until(before.revision)).unwrap().len(), 101);
    // Away for a while: only what is missing comes, so watches go on.
    task.abort();
    last = write(&group, "missed").await;
    let (task, _status) = following(&group, &voter, &follower);
    reached(&follower, last.revision).await;
    assert_eq!(follower.changes_after(follower.seen_until(before.revision)).unwrap().len(), 102);
    assert_eq!(follower.generation(), generation);
    // Away for too long: the state comes anew.
    task.abort();
    let writes: Vec<Write> =
        (0..HISTORY_LIMIT + 5).flat_map(|n| put(&format!("y{}", n % 50), &n.to_string()).writes).collect();
    last = group.propose(Txn::from(writes)).await.unwrap().unwrap();
    let (task, _status) = following(&group, &voter, &follower);
    reached(&follower, last.revision).await;
    assert_eq!(content(&follower), content(&voter));
    assert!(follower.changes_after(follower.seen_until(before.revision)).is_err());
    group.stop().await;
    assert!(matches!(task.await.unwrap(), FollowError::Refused(_)));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_follower_changes_voters_without_a_gap() {
    let mut bench = Bench::new();
    let mut groups = bench.flock(&["b", "c"]).await;
    let follower = View::default();
    let first = write(&groups["a"], "first").await;
    let (task, _status) = following(&groups["a"], &bench.views["a"], &follower);
    reached(&follower, first.revision).await;
    bench.kill("a").await;
    groups.remove("a");
    task.await.unwrap();
    let leader = leader(groups.values()).await.clone();
    let second = write(&leader, "second").await;
    // From any voter, also one that does not lead.
    for (peer, group) in &groups {
        let (task, _status) = following(group, &bench.views[peer], &follower);
        reached(&follower, second.revision).await;
        task.abort();
    }
    assert_eq!(follower.changes_after(follower.seen_until(first.revision)).unwrap().len(), 1);
    bench.end(groups.into_values()).await;
}

/// What a new leader's first entry commits counts for more than a tail that an older one left behind, so that copies must
/// know its term although it changes nothing.
#[tokio::test(flavor = "multi_thread")]
async fn a_new_leaders_first_entry_gives_its_term_to_every_copy() {
    let mut bench = Bench::new();
    let mut groups = bench.flock(&["b", "c"]).await;
    let last = write(&groups["a"], "x").await;
    bench.kill("a").await;
    groups.remove("a");
    let term = leader(groups.values()).await.status().borrow().term;
    let copies = [View::default(), View::default()];
    let tasks: Vec<_> = groups
        .iter()
        .zip(&copies)
        .map(|((peer, group), copy)| following(group, &bench.views[peer], copy).0)
        .collect();
    let learnt = async {
        for view in bench.views.iter().filter(|(peer, _)| *peer != "a").map(|(_, view)| view).chain(&copies) {
            while view.read(crate::state::Store::term) < term {
                tokio::task::yield_now().await;
            }
            assert_eq!(view.revision(), last.revision, "nothing has changed");
        }
    };
    tokio::time::timeout(PATIENCE, learnt).await.expect("a copy does not learn of the term");
    tasks.iter().for_each(|task| task.abort());
    bench.end(groups.into_values()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_follower_that_becomes_a_voter_keeps_its_view_and_applies_nothing_twice() {
    let mut bench = Bench::new();
    let leader = bench.found("a").await;
    for n in 0..50 {
        write(&leader, &format!("x{n}")).await;
    }
    let (voter, follower) = (bench.view("a"), bench.view("b"));
    let (task, _status) = following(&leader, &voter, &follower);
    reached(&follower, voter.revision()).await;
    let (base, generation) = (follower.revision(), follower.generation());
    let joined = bench.join("b", "a").await;
    assert!(has(&follower, "x49"), "joining takes nothing away from readers");
    leader.set_voters(set(&["a", "b"])).await.unwrap();
    let last = write(&leader, "as a voter").await;
    reached(&follower, last.revision).await;
    assert!(matches!(task.await.unwrap(), FollowError::Superseded), "the follower must stop writing");
    let (again, _status) = following(&leader, &voter, &follower);
    assert!(matches!(again.await.unwrap(), FollowError::Superseded));
    assert_eq!(content(&follower), content(&voter));
    assert_eq!(follower.generation(), generation);
    assert_eq!(
        follower.changes_after(follower.seen_until(base)).unwrap().len(),
        1,
        "watches go on across the promotion"
    );
    bench.end([leader, joined]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn another_groups_state_ends_every_watch() {
    let mut bench = Bench::new();
    let group = bench.found("a").await;
    let last = write(&group, "x").await;
    let other = View::default();
    other.write(|store| {
        store.found(crate::state::Lineage { group: "another".into(), epoch: 1 });
        store.apply(&put("theirs", "1")).unwrap();
        store.apply(&put("theirs", "2")).unwrap();
    });
    let generation = other.generation();
    let (task, mut status) = following(&group, &bench.views["a"], &other);
    tokio::time::timeout(PATIENCE, status.wait_for(Option::is_some)).await.unwrap().unwrap();
    assert_eq!(other.revision(), last.revision);
    assert!(has(&other, "x") && !has(&other, "theirs"));
    assert!(other.generation() > generation);
    task.abort();
    bench.end([group]).await;
}

/// Reads the hello, then says `bytes` and nothing more.
async fn hostile(mut stream: DuplexStream, bytes: Vec<u8>) -> DuplexStream {
    let len = stream.read_u32().await.unwrap();
    stream.read_exact(&mut vec![0; len as usize]).await.unwrap();
    stream.write_all(&bytes).await.unwrap();
    stream
}

#[tokio::test(flavor = "multi_thread")]
async fn nonsense_and_silence_end_a_follow_stream() {
    for bytes in
        [vec![], vec![0xff; 8], vec![0, 0, 0, 0], vec![0, 0, 0, 2, 9, 9], vec![0, 0, 0, 5, 1, 0xc1, 0, 0, 0]]
    {
        let (ours, theirs) = duplex(1 << 10);
        let (view, peer) = (View::default(), tokio::spawn(hostile(theirs, bytes.clone())));
        let ended =
            tokio::time::timeout(PATIENCE, follow(view, ours, |_| ())).await.expect("it waits for ever");
        assert!(matches!(ended, Err(FollowError::Stream(_))), "{bytes:?}");
        drop(peer.await);
    }
    let mut bench = Bench::new();
    let group = bench.found("a").await;
    for bytes in [vec![0xff; 8], vec![0, 0, 0, 1, 1], vec![]] {
        let (mut ours, theirs) = duplex(1 << 10);
        ours.write_all(&bytes).await.unwrap();
        let served = tokio::time::timeout(PATIENCE, serve(bench.view("a"), group.status(), theirs)).await;
        assert!(served.expect("it waits for ever").is_err(), "{bytes:?}");
    }
    bench.end([group]).await;
}
