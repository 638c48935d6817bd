use super::super::types::{NodeId, node_id};
use super::super::wire::{self, Reply, Request};
use super::*;
use openraft::raft::{AppendEntriesRequest, AppendEntriesResponse, VoteRequest};
use openraft::{Entry, LogId, Vote};

async fn ask(to: &Group, from: &str, group: &GroupId, epoch: u64, request: Request) -> Reply {
    let frame = wire::encode(group, epoch, request).unwrap();
    let reply = to.receive(from, &frame).await;
    wire::decode(&group_id(), 1, &reply).unwrap()
}

fn refused(reply: Reply) -> String {
    match reply {
        Reply::Refused(why) => why,
        _ => panic!("it was listened to"),
    }
}

fn vote(peer: &str) -> Request {
    Request::Vote(VoteRequest::new(Vote::new(1_000, node_id(peer)), None))
}

fn append(peer: &str, committed: bool, entries: Vec<Entry<super::super::types::Types>>) -> Request {
    let vote: Vote<NodeId> = Vote { committed, ..Vote::new(1_000, node_id(peer)) };
    let rpc = AppendEntriesRequest { vote, prev_log_id: None, entries, leader_commit: None };
    Request::Append { rpc, quorum: true, counted: false }
}

#[tokio::test(flavor = "multi_thread")]
async fn only_members_of_this_group_are_listened_to() {
    let mut bench = Bench::new();
    let groups = bench.flock(&["b", "c"]).await;
    let (a, id) = (&groups["a"], group_id());
    let term = a.status().borrow().term;
    let other: GroupId = "ffffffffffffffff".parse().unwrap();
    let frame = wire::encode(&other, 1, vote("b")).unwrap();
    let reply = a.receive("b", &frame).await;
    assert!(refused(wire::decode(&id, 1, &reply).unwrap()).contains("ffffffffffffffff"));
    assert!(refused(ask(a, "b", &id, 2, vote("b")).await).contains("epoch 2"));
    assert!(refused(ask(a, "mallory", &id, 1, vote("mallory")).await).contains("mallory is not a member"));
    assert!(
        refused(ask(a, "mallory", &id, 1, append("mallory", true, vec![])).await).contains("not a member")
    );
    assert!(refused(ask(a, "b", &id, 1, vote("c")).await).contains("another node's name"));
    assert!(refused(ask(a, "b", &id, 1, append("b", false, vec![])).await).contains("another node's name"));
    let entry = Entry { log_id: LogId::new(openraft::LeaderId::new(1, 1), 7), ..Entry::default() };
    assert!(refused(ask(a, "b", &id, 1, append("b", true, vec![entry])).await).contains("not in order"));
    for bytes in [&b""[..], b"\x01", b"\x07abc", &[0xff; 64], &vec![1; MAX_FRAME_BYTES + 1]] {
        refused(wire::decode(&id, 1, &a.receive("b", bytes).await).unwrap());
    }
    write(a, "x").await;
    assert_eq!(a.status().borrow().term, term, "nothing of it had an effect");
    bench.end(groups.into_values()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_newcomer_listens_only_to_whom_it_was_told_of() {
    let mut bench = Bench::new();
    let leader = bench.found("a").await;
    let newcomer = bench.join("b", "somebody else").await;
    let id = group_id();
    assert!(refused(ask(&newcomer, "a", &id, 1, append("a", true, vec![])).await).contains("not a member"));
    newcomer.tell(set(&["a"]));
    leader.set_voters(set(&["a", "b"])).await.unwrap();
    until(&newcomer, |status| status.role == Role::Voter && status.quorum).await;
    bench.end([leader, newcomer]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_was_voted_out_follows_no_leader_of_an_earlier_term_when_it_is_invited_again() {
    let mut bench = Bench::new();
    let mut groups = bench.flock(&["b", "c"]).await;
    let early = groups["a"].status().borrow().term;
    bench.kill("a").await;
    groups.remove("a");
    let heir = leader(groups.values()).await.clone();
    let late = heir.status().borrow().term;
    let (stays, goes) =
        if heir.status().borrow().leader.as_deref() == Some("b") { ("b", "c") } else { ("c", "b") };
    heir.set_voters(set(&[stays])).await.unwrap();
    until(&groups[goes], |status| status.term == late).await;
    bench.kill(goes).await;
    groups.remove(goes);
    Group::forget(&storage(), &bench.dir(goes)).unwrap();
    // The deposed leader comes upon it, and takes it for a newcomer.
    let again = bench.join(goes, "a").await;
    bench.hub.heal(goes);
    assert!(early < late);
    until(&again, |status| status.term == late).await;
    let rpc =
        AppendEntriesRequest { vote: Vote { committed: true, ..Vote::new(early, node_id("a")) }, ..empty() };
    let request = Request::Append { rpc, quorum: true, counted: false };
    match ask(&again, "a", &group_id(), 1, request).await {
        Reply::Append(Ok(AppendEntriesResponse::HigherVote(vote))) => assert_eq!(vote.leader_id.term, late),
        _ => panic!("it was followed, or not told of the later term"),
    }
    // Whoever leads now may have it.
    again.tell(set(&[stays]));
    heir.set_voters(set(&["b", "c"])).await.unwrap();
    until(&again, |status| status.role == Role::Voter && status.quorum).await;
    groups.insert(goes.into(), again);
    bench.end(groups.into_values()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_voter_votes_once_in_a_term_whoever_else_stands() {
    let mut bench = Bench::new();
    let mut groups = bench.flock(&["b", "c"]).await;
    for gone in ["a", "c"] {
        bench.kill(gone).await;
        groups.remove(gone);
    }
    let stands = |peer: &str, term| {
        let last = LogId::new(openraft::LeaderId::new(term - 1, 1), 1_000);
        Request::Vote(VoteRequest::new(Vote::new(term, node_id(peer)), Some(last)))
    };
    let granted =
        async |peer: &str, term| match ask(&groups["b"], peer, &group_id(), 1, stands(peer, term)).await {
            Reply::Vote(Ok(answer)) => answer.vote_granted,
            _ => panic!("it was not listened to"),
        };
    // To openraft the larger number counts for more.
    let (first, second) = if node_id("a") < node_id("c") { ("a", "c") } else { ("c", "a") };
    let deadline = tokio::time::Instant::now() + PATIENCE;
    // The one that led it has a lease.
    while !granted(first, 1_000).await {
        assert!(tokio::time::Instant::now() < deadline, "nobody is voted for");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert!(!granted(second, 1_000).await, "it voted twice");
    assert!(granted(first, 1_000).await, "the answer may have been lost");
    assert!(granted(second, 1_001).await);
    assert!(!granted(first, 1_000).await && !granted(first, 1_001).await);
    bench.end(groups.into_values()).await;
}

/// What it is sent first is history: there it may be alone, or one of others that have gone since.
#[tokio::test(flavor = "multi_thread")]
async fn who_joined_does_not_lead_before_it_holds_what_is_committed_and_elects_nobody_who_lacks_it() {
    let mut bench = Bench::new();
    bench.join("b", "a").await;
    let id = |index| LogId::new(openraft::LeaderId::new(7, node_id("a")), index);
    let fill = |commit, prev_log_id, entries| {
        let vote = Vote { committed: true, ..Vote::new(9, node_id("a")) };
        let rpc = AppendEntriesRequest { vote, prev_log_id, entries, leader_commit: Some(id(commit)) };
        Request::Append { rpc, quorum: true, counted: false }
    };
    let members = BTreeMap::from([(node_id("b"), super::super::types::RaftPeer { peer: "b".into() })]);
    let alone = Entry {
        log_id: id(0),
        payload: openraft::EntryPayload::Membership(openraft::Membership::from(members)),
    };
    let b = bench.hub.groups.lock().unwrap()["b"].clone();
    let answer = ask(&b, "a", &group_id(), 1, fill(5, None, vec![alone])).await;
    assert!(matches!(answer, Reply::Append(Ok(AppendEntriesResponse::Success))));
    drop(b);
    bench.kill("b").await;
    let b = bench.restart("b").await;
    b.tell(set(&["a"]));
    for question in [vote("a"), Request::WouldVote { last_log_id: Some(id(4)) }] {
        assert!(refused(ask(&b, "a", &group_id(), 1, question).await).contains("only just joined"));
    }
    let question = Request::WouldVote { last_log_id: Some(id(5)) };
    assert!(
        matches!(ask(&b, "a", &group_id(), 1, question).await, Reply::WouldVote(_)),
        "it has what counts"
    );
    // Who is alone, and may stand, stands at once.
    tokio::time::sleep(Timings::lan().lease).await;
    assert_eq!(b.status().borrow().role, Role::Voter);
    assert_eq!(b.status().borrow().term, 9, "it stood for election");
    let rest =
        (1..=5).map(|index| Entry { log_id: id(index), payload: openraft::EntryPayload::Blank }).collect();
    let answer = ask(&b, "a", &group_id(), 1, fill(0, Some(id(0)), rest)).await;
    assert!(matches!(answer, Reply::Append(Ok(AppendEntriesResponse::Success))));
    until(&b, |status| status.role == Role::Leader).await;
    bench.end([b]).await;
}

fn empty() -> AppendEntriesRequest<super::super::types::Types> {
    AppendEntriesRequest { vote: Vote::default(), prev_log_id: None, entries: vec![], leader_commit: None }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_directory_holds_one_group() {
    let mut bench = Bench::new();
    let group = bench.found("a").await;
    let again =
        Group::join(bench.config("a"), bench.hub.port("a"), View::default(), group_id(), 1, set(&["b"]))
            .await;
    assert!(matches!(again.err().unwrap(), GroupError::Exists(_)));
    bench.end([group]).await;
}
