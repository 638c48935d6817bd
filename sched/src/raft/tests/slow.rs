//! A network on which answers take longer than a leader's beat and a voter's patience with one.

use super::*;

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
