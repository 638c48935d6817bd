//! Founding anew from what is left, a leader that is not allowed to act, and one that resigns.

use super::*;
use crate::electorate::founding::Position;
use std::sync::atomic::{AtomicBool, Ordering};

#[tokio::test(flavor = "multi_thread")]
async fn what_a_quorum_acknowledged_is_in_each_voters_files_and_founds_the_next_epoch() {
    let mut bench = Bench::new();
    let mut groups = bench.flock(&["b", "c"]).await;
    write(&groups["a"], "early").await;
    bench.hub.cut("c");
    let mut last = Revision::default();
    for n in 0..10 {
        last = write(&groups["a"], &format!("x{n}")).await.revision;
    }
    // No moment in between: that the last one is committed, b may not know yet.
    bench.hub.cut("b");
    let term = groups["a"].status().borrow().term;
    let b = groups.remove("b").unwrap();
    b.stop().await;
    let left = salvage(&bench.dir("b")).await.unwrap().expect("b voted");
    assert_eq!(left.lineage, Lineage { group: group_id().to_string(), epoch: 1 });
    assert_eq!(left.position(), Position { epoch: 1, term, revision: last });
    let again = salvage(&bench.dir("b")).await.unwrap().unwrap();
    assert_eq!(again.position(), left.position(), "looking changes nothing");

    let view = bench.view("b");
    view.write(|store| store.replace(left.store, left.lineage));
    // From here on the saved view holds it all, should the node be interrupted before the next epoch is on the disk.
    let saved = bench.dir("b").join("view");
    save_view(&saved, &view).unwrap();
    Group::forget(&bench.config("b").storage, &bench.dir("b")).unwrap();
    let interrupted = load_view(&saved).unwrap().unwrap();
    assert_eq!((interrupted.term(), interrupted.revision()), (term, last));
    assert_eq!(interrupted.lineage().map(|lineage| lineage.epoch), Some(1));
    let (config, port) = (bench.config("b"), bench.hub.port("b"));
    let anew = Group::found(config, port, view.clone(), group_id(), 2).await.unwrap();
    until(&anew, |status| status.role == Role::Leader && status.caught_up).await;
    assert!((0..10).all(|n| has(&view, &format!("x{n}"))) && has(&view, "early"));
    let after = write(&anew, "after").await;
    assert!(after.revision > last);
    // Interrupted right here, it goes on from its own files.
    anew.stop().await;
    bench.views.insert("b".into(), View::default());
    let (config, port, view) = (bench.config("b"), bench.hub.port("b"), bench.view("b"));
    let resumed = Group::resume(config, port, view.clone()).await.unwrap().expect("epoch 2 is on the disk");
    assert_eq!(resumed.epoch(), 2);
    reached(&view, after.revision).await;
    assert!(has(&view, "x9") && has(&view, "after"));
    groups.insert("b".into(), resumed);
    bench.end(groups.into_values()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_running_voters_log_holds_beyond_its_view_counts() {
    let mut bench = Bench::new();
    let groups = bench.flock(&["b", "c"]).await;
    let seen = write(&groups["a"], "seen").await;
    assert_eq!(groups["a"].has_tail(), None);
    assert_eq!(groups["a"].salvage().await.unwrap().position().revision, seen.revision);
    bench.hub.cut("b");
    bench.hub.cut("c");
    let answer = groups["a"].propose(put("unseen", "1")).await;
    assert!(matches!(answer, Err(ProposeError::Unknown(_))), "{answer:?}");
    let tail = groups["a"].has_tail();
    assert!(tail.is_some() && tail == groups["a"].has_tail());
    let held = groups["a"].salvage().await.unwrap();
    assert_eq!(held.position().revision, seen.revision.next());
    assert!(held.store.get(&key("unseen")).is_some() && !has(&bench.views["a"], "unseen"));
    bench.end(groups.into_values()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_never_voted_has_nothing_to_salvage_and_damage_is_said() {
    let mut bench = Bench::new();
    assert!(salvage(&bench.dir("a")).await.unwrap().is_none());
    let group = bench.found("a").await;
    write(&group, "x").await;
    bench.kill("a").await;
    let file = bench.dir("a").join("raft.snapshot");
    std::fs::write(&file, b"not a snapshot").unwrap();
    let error = salvage(&bench.dir("a")).await.unwrap_err();
    assert!(error.to_string().contains("raft.snapshot"), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_leader_behind_a_closed_gate_orders_nothing() {
    let mut bench = Bench::new();
    let open = Arc::new(AtomicBool::new(true));
    let gate = Gate::new({
        let open = open.clone();
        move |_, _| open.load(Ordering::SeqCst)
    });
    let (port, view) = (bench.hub.port("a"), bench.view("a"));
    let config = GroupConfig { gate, ..bench.config("a") };
    let group = Group::found(config, port, view.clone(), group_id(), 1).await.unwrap();
    until(&group, |status| status.role == Role::Leader && status.quorum).await;
    write(&group, "open").await;
    open.store(false, Ordering::SeqCst);
    assert_eq!(group.propose(put("closed", "1")).await, Err(ProposeError::NotActing));
    open.store(true, Ordering::SeqCst);
    write(&group, "again").await;
    assert!(has(&view, "open") && has(&view, "again") && !has(&view, "closed"));
    bench.end([group]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_leader_that_resigns_is_followed_by_another_and_alone_goes_on() {
    let mut bench = Bench::new();
    let groups = bench.flock(&["b", "c"]).await;
    write(&groups["a"], "before").await;
    groups["a"].resign(PATIENCE);
    let others = [groups["b"].clone(), groups["c"].clone()];
    let heir = leader(&others).await;
    let after = write(heir, "after").await;
    // It hears the others, and follows.
    reached(&bench.views["a"], after.revision).await;
    until(&groups["a"], |status| status.role == Role::Voter && status.quorum).await;
    bench.end(groups.into_values()).await;

    let mut bench = Bench::new();
    let groups = bench.flock(&["b", "c"]).await;
    let term = until(&groups["a"], |status| status.quorum).await.term;
    // Too short for anybody to miss it.
    groups["a"].resign(Duration::from_millis(200));
    write(&groups["a"], "still").await;
    assert_eq!(groups["a"].status().borrow().term, term);
    bench.end(groups.into_values()).await;
}
