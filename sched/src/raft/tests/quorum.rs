use super::*;

#[tokio::test(flavor = "multi_thread")]
async fn what_was_acknowledged_survives_the_leader() {
    let mut bench = Bench::new();
    let mut groups = bench.flock(&["b", "c"]).await;
    let writes = (0..50).map(|n| {
        let group = groups["a"].clone();
        async move { group.propose(put(&format!("x{n}"), "1")).await.unwrap().unwrap() }
    });
    let last = futures::future::join_all(writes).await.into_iter().map(|a| a.revision).max().unwrap();
    bench.kill("a").await;
    groups.remove("a");
    let leader = leader(groups.values()).await.clone();
    let me = leader.status().borrow().leader.clone().unwrap();
    reached(&bench.views[&me], last).await;
    assert!((0..50).all(|n| has(&bench.views[&me], &format!("x{n}"))));
    let after = write(&leader, "after").await;
    assert!(after.revision > last);
    // The one that was away comes back as a voter and gets what it missed.
    groups.insert("a".into(), bench.restart("a").await);
    reached(&bench.views["a"], after.revision).await;
    assert!(has(&bench.views["a"], "after"));
    until(&groups["a"], |status| {
        status.role == Role::Voter && status.quorum && status.leader == Some(me.clone())
    })
    .await;
    bench.end(groups.into_values()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_electorate_grows_and_shrinks() {
    let mut bench = Bench::new();
    let mut groups = bench.flock(&["b", "c"]).await;
    for peer in ["d", "e"] {
        groups.insert(peer.into(), bench.join(peer, "a").await);
    }
    let leader = groups["a"].clone();
    write(&leader, "three").await;
    leader.set_voters(set(&["a", "b", "c", "d", "e"])).await.unwrap();
    let five = write(&leader, "five").await;
    for group in groups.values() {
        until(group, |status| status.voters.len() == 5 && status.role != Role::Learner).await;
    }
    for view in bench.views.values() {
        reached(view, five.revision).await;
        assert!(has(view, "three"), "a newcomer has what was there before it");
    }
    leader.set_voters(set(&["a", "d", "e"])).await.unwrap();
    write(&leader, "shrunk").await;
    let status = until(&leader, |status| status.voters.len() == 3).await;
    assert_eq!(status.voters, set(&["a", "d", "e"]));
    // Those who were removed do not matter any more.
    bench.kill("b").await;
    bench.kill("c").await;
    write(&leader, "without them").await;
    // A leader can hand over and leave.
    leader.set_voters(set(&["d"])).await.unwrap();
    let heir = super::leader([&groups["d"]]).await;
    write(heir, "handed over").await;
    assert_eq!(heir.status().borrow().voters, set(&["d"]));
    bench.end(groups.into_values()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_quorum_nothing_is_written_and_it_is_said_soon() {
    let mut bench = Bench::new();
    let groups = bench.flock(&["b", "c"]).await;
    write(&groups["a"], "before").await;
    bench.hub.cut("b");
    bench.hub.cut("c");
    until(&groups["a"], |status| !status.quorum).await;
    let refused = groups["a"].propose(put("lost", "1")).await;
    assert_eq!(refused, Err(ProposeError::NoQuorum));
    assert!(matches!(groups["a"].set_voters(set(&["a"])).await, Err(GroupError::Unavailable(_))));
    until(&groups["b"], |status| !status.quorum && status.leader.is_none()).await;
    let refused = groups["b"].propose(put("lost", "1")).await;
    assert_eq!(refused, Err(ProposeError::NotLeader(None)));
    bench.hub.heal("b");
    bench.hub.heal("c");
    let leader = leader(groups.values()).await;
    let after = write(leader, "after").await;
    for view in bench.views.values() {
        reached(view, after.revision).await;
        assert!(has(view, "before") && !has(view, "lost"));
    }
    bench.end(groups.into_values()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_transaction_in_flight_when_the_quorum_goes_is_of_unknown_outcome() {
    let mut bench = Bench::new();
    let groups = bench.flock(&["b", "c"]).await;
    bench.hub.cut("b");
    bench.hub.cut("c");
    // The loss has not been noticed yet, or just so.
    let answer = groups["a"].propose(put("x", "1")).await;
    assert!(matches!(answer, Err(ProposeError::Unknown(_) | ProposeError::NoQuorum)), "{answer:?}");
    bench.end(groups.into_values()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_voter_that_was_away_does_not_depose_the_leader() {
    let mut bench = Bench::new();
    let groups = bench.flock(&["b", "c"]).await;
    let term = until(&groups["a"], |status| status.quorum).await.term;
    bench.hub.cut("c");
    until(&groups["c"], |status| !status.quorum).await;
    // Long enough for several elections, if it held any.
    tokio::time::sleep(Duration::from_secs(3)).await;
    let missed = write(&groups["a"], "missed").await;
    bench.hub.heal("c");
    reached(&bench.views["c"], missed.revision).await;
    until(&groups["c"], |status| status.quorum && status.leader.as_deref() == Some("a")).await;
    assert_eq!(groups["c"].status().borrow().term, term, "it has asked for votes that it could not get");
    bench.end(groups.into_values()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn newcomers_that_are_not_there_leave_the_voters_as_they_were() {
    let mut bench = Bench::new();
    let (port, view) = (bench.hub.port("a"), bench.view("a"));
    let mut config = bench.config("a");
    config.timings.change_deadline = Duration::from_secs(2);
    let group = Group::found(config, port, view, group_id(), 1).await.unwrap();
    bench.hub.put("a", &group);
    until(&group, |status| status.quorum).await;
    let failed = group.set_voters(set(&["a", "ghost", "spectre"])).await.unwrap_err();
    assert!(matches!(&failed, GroupError::NotCaughtUp(who) if who.contains("ghost")), "{failed}");
    let status = until(&group, |status| status.quorum).await;
    assert_eq!(status.voters, set(&["a"]));
    write(&group, "still").await;
    bench.end([group]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refusal_is_an_answer_and_changes_nothing() {
    let mut bench = Bench::new();
    let group = bench.found("a").await;
    let first = write(&group, "x").await;
    let value = serde_json::json!({"metadata": {"name": "x"}});
    let again = Write::Put { key: key("x"), value, expect: Expect::Absent, intent: None };
    let refused = group.propose(again.into()).await.unwrap().unwrap_err();
    assert_eq!(refused, crate::state::Refused::AlreadyExists(key("x")));
    assert_eq!(bench.views["a"].revision(), first.revision);
    let huge = put("huge", &"x".repeat(9 << 20));
    assert!(matches!(group.propose(huge).await, Err(ProposeError::TooLarge(_))));
    bench.end([group]).await;
}
