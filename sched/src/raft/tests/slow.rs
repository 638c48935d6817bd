//! A network on which answers take longer than a leader's beat and a voter's patience with one.

use super::*;
use std::sync::atomic::AtomicBool;

/// Each way takes this long: an answer takes more than two beats, and more than half of the lease.
const ONE_WAY: Duration = Duration::from_millis(200);

#[tokio::test(flavor = "multi_thread")]
async fn writes_are_ordered_and_a_leader_is_replaced_where_answers_are_slow() {
    let mut bench = Bench::new();
    let mut groups = bench.flock(&["b", "c"]).await;
    bench.hub.delay(ONE_WAY);
    for name in ["x", "y"] {
        write(&groups["a"], name).await;
    }
    let term = groups["a"].status().borrow().term;
    let beats = tokio::time::Instant::now() + Timings::lan().lease * 4;
    while tokio::time::Instant::now() < beats {
        assert!(
            groups.values().all(|group| group.status().borrow().term == term),
            "an election without need"
        );
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    bench.kill("a").await;
    groups.remove("a");
    let next = leader(groups.values()).await;
    assert!(next.status().borrow().term > term);
    write(next, "z").await;
    bench.end(groups.into_values()).await;
}

/// A megabyte takes a second and a half: ten times as long as a heartbeat.
const KILOBYTE: Duration = Duration::from_micros(1500);

fn large(name: &str, kilobytes: usize) -> Txn {
    put(name, &"x".repeat(kilobytes << 10))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_newcomer_on_a_slow_network_catches_up_and_large_objects_are_ordered() {
    let mut bench = Bench::new();
    let leader = bench.found("a").await;
    let voter = bench.join("b", "a").await;
    leader.set_voters(set(&["a", "b"])).await.unwrap();
    // Much more than what is sent at a time, and none of it in a snapshot.
    for n in 0..60 {
        leader.propose(large(&format!("x{n}"), 50)).await.unwrap().unwrap();
    }
    bench.hub.slow_down(KILOBYTE);
    let newcomer = bench.join("c", "a").await;
    leader.set_voters(set(&["a", "b", "c"])).await.unwrap();
    until(&newcomer, |status| status.role == Role::Voter && status.quorum).await;
    // One that takes longer than a heartbeat by itself holds up nothing for ever.
    let last = leader.propose(large("large", 600)).await.unwrap().unwrap();
    for peer in ["b", "c"] {
        reached(&bench.view(peer), last.revision).await;
        assert!(has(&bench.view(peer), "x59") && has(&bench.view(peer), "large"));
    }
    bench.end([leader, voter, newcomer]).await;
}

/// A batch takes so long that another group may have been founded: its writers are not told that it counts.
#[tokio::test(flavor = "multi_thread")]
async fn what_is_ordered_late_is_acknowledged_only_by_a_leader_that_may_still_act() {
    let mut bench = Bench::new();
    let (closes, begun) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicBool::new(false)));
    let gate = Gate::new({
        let (closes, begun) = (closes.clone(), begun.clone());
        // Open when a batch begins, and closed when it is there.
        move |_: &Lineage, _| !closes.load(Ordering::SeqCst) || !begun.swap(true, Ordering::SeqCst)
    });
    let config = GroupConfig { gate, ..bench.config("a") };
    let leader = Group::found(config, bench.hub.port("a"), bench.view("a"), group_id(), 1).await.unwrap();
    bench.hub.put("a", &leader);
    until(&leader, |status| status.quorum).await;
    let voter = bench.join("b", "a").await;
    leader.set_voters(set(&["a", "b"])).await.unwrap();
    bench.hub.slow_down(4 * KILOBYTE);
    let last = leader.propose(large("x", 320)).await.unwrap().unwrap();
    reached(&bench.view("b"), last.revision).await;
    closes.store(true, Ordering::SeqCst);
    let late = leader.propose(large("y", 320)).await.unwrap_err();
    assert!(begun.load(Ordering::SeqCst), "it was not even begun");
    assert!(late.to_string().contains("might no longer act"), "{late}");
    bench.end([leader, voter]).await;
}
