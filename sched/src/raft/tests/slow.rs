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
