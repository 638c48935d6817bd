use super::*;

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
