//! Memberships over transports in memory: what everybody comes to know, and how soon they know better.

use std::collections::BTreeSet;

use tokio::time::timeout;

use super::*;
use crate::identity::{ClusterKey, NodeKey};
use crate::transport::{MemoryHub, TransportConfig};

/// Generous: the tests share their machine with a build.
const PATIENCE: Duration = Duration::from_secs(60);

async fn join(hub: &MemoryHub, peer: PeerId, generation: u64) -> Membership {
    Membership::start(hub.transport(peer), generation, MembershipConfig::local()).await.unwrap()
}

async fn until(membership: &Membership, what: &str, check: impl FnMut(&Members) -> bool) -> Members {
    let mut members = membership.members();
    let found = timeout(PATIENCE, members.wait_for(check)).await;
    found.unwrap_or_else(|_| panic!("{what}: {:#?}", membership.members().borrow())).unwrap().clone()
}

fn named(name: &str) -> NodeFacts {
    NodeFacts { name: name.to_owned(), ready: true, ..NodeFacts::default() }
}

fn alive(members: &Members) -> BTreeSet<PeerId> {
    members.iter().filter(|member| member.alive && member.connected).map(|member| member.peer).collect()
}

fn find(members: &Members, peer: PeerId) -> Option<&Member> {
    members.iter().find(|member| member.peer == peer)
}

#[tokio::test]
async fn everybody_comes_to_know_everybody_and_what_they_say() {
    let hub = MemoryHub::new();
    let peers: BTreeSet<PeerId> = (0..5).map(|_| PeerId::random()).collect();
    let mut all = Vec::new();
    for (index, peer) in peers.iter().enumerate() {
        let membership = join(&hub, *peer, 1).await;
        membership.publish_node(named(&format!("lab-{index}")));
        all.push(membership);
    }
    for membership in &all {
        until(membership, "all alive", |members| alive(members) == peers).await;
        let complete = |members: &Members| members.iter().filter(|member| member.node.is_some()).count() == 5;
        let members = until(membership, "all facts", complete).await;
        let names: Vec<&str> =
            members.iter().filter_map(|member| Some(member.node.as_ref()?.name.as_str())).collect();
        assert_eq!(names, ["lab-0", "lab-1", "lab-2", "lab-3", "lab-4"], "sorted by id");
    }
    let (teller, listener) = (*peers.first().unwrap(), &all[4]);
    all[0].publish_group(GroupFacts {
        group: "g1".to_owned(),
        term: 3,
        role: Role::Leader,
        ..GroupFacts::default()
    });
    all[0].publish_images((0..5000).map(|n| format!("image-{n}")).collect());
    let members = until(listener, "group and images", |members| {
        find(members, teller).is_some_and(|member| member.group.is_some() && !member.images.is_empty())
    })
    .await;
    let told = find(&members, teller).unwrap();
    assert_eq!((told.group.as_ref().unwrap().role, told.images[0].as_str()), (Role::Leader, "image-0"));
}

#[tokio::test]
async fn who_stops_is_dead_and_who_starts_again_is_alive_with_new_facts() {
    let hub = MemoryHub::new();
    let (stays, goes) = (PeerId::random(), PeerId::random());
    let here = join(&hub, stays, 1).await;
    let transport = hub.transport(goes);
    let there = Membership::start(transport.clone(), 1, MembershipConfig::local()).await.unwrap();
    there.publish_node(named("before"));
    until(&here, "met", |members| {
        find(members, goes).is_some_and(|member| member.alive && member.node.is_some())
    })
    .await;
    there.shutdown().await;
    transport.shutdown().await;
    let dead =
        |members: &Members| find(members, goes).is_some_and(|member| !member.alive && !member.connected);
    let members = until(&here, "dead", dead).await;
    assert_eq!(
        find(&members, goes).unwrap().node.as_ref().unwrap().name,
        "before",
        "the dead stay on the roll"
    );

    let again = join(&hub, goes, 2).await;
    again.publish_node(named("after"));
    let back = |members: &Members| {
        let name = |member: &Member| member.node.as_ref().map(|node| node.name.clone());
        find(members, goes).is_some_and(|member| member.alive && name(member).as_deref() == Some("after"))
    };
    let members = until(&here, "back", back).await;
    assert_eq!(members.len(), 2, "one line a node");
    assert_eq!(find(&members, goes).unwrap().generation, 2);
}

#[tokio::test]
async fn a_clock_that_went_back_does_not_hide_a_node_behind_its_own_past() {
    let hub = MemoryHub::new();
    let (stays, goes) = (PeerId::random(), PeerId::random());
    let here = join(&hub, stays, 1).await;
    let first = join(&hub, goes, 1_000).await;
    until(&here, "met", |members| find(members, goes).is_some_and(|member| member.alive)).await;
    first.shutdown().await;
    let again = join(&hub, goes, 7).await;
    again.publish_node(named("after"));
    let seen = |members: &Members| {
        find(members, goes)
            .is_some_and(|member| member.alive && member.generation > 1_000 && member.node.is_some())
    };
    until(&here, "seen again", seen).await;
}

#[tokio::test]
async fn alive_and_connected_are_two_things_and_a_cut_heals() {
    let hub = MemoryHub::new();
    let [a, b, c] = [PeerId::random(), PeerId::random(), PeerId::random()];
    let (one, _two, _three) = (join(&hub, a, 1).await, join(&hub, b, 1).await, join(&hub, c, 1).await);
    until(&one, "all alive", |members| alive(members).len() == 3).await;
    hub.cut(a, b);
    // The heartbeat still arrives by way of the third.
    let relayed =
        |members: &Members| find(members, b).is_some_and(|member| member.alive && !member.connected);
    until(&one, "alive though not connected", relayed).await;
    hub.cut(a, c);
    until(&one, "alone", |members| members.iter().filter(|member| member.alive).count() == 1).await;
    hub.heal(a, b);
    hub.heal(a, c);
    until(&one, "together again", |members| alive(members).len() == 3).await;
}

#[tokio::test]
async fn a_goodbye_is_heard_before_the_node_is_gone() {
    let hub = MemoryHub::new();
    let (stays, goes) = (PeerId::random(), PeerId::random());
    let (here, there) = (join(&hub, stays, 1).await, join(&hub, goes, 1).await);
    there.publish_node(named("lab"));
    until(&here, "met", |members| find(members, goes).is_some_and(|member| member.node.is_some())).await;
    there.leave().await;
    there.shutdown().await;
    let leaving = |members: &Members| {
        find(members, goes)
            .and_then(|member| member.node.as_ref())
            .is_some_and(|node| node.leaving && !node.ready)
    };
    until(&here, "leaving", leaving).await;
}

#[tokio::test]
async fn a_shutdown_frees_the_protocol_and_ends_the_roll() {
    let hub = MemoryHub::new();
    let transport = hub.transport(PeerId::random());
    let first = Membership::start(transport.clone(), 1, MembershipConfig::local()).await.unwrap();
    let taken = Membership::start(transport.clone(), 1, MembershipConfig::local()).await.unwrap_err();
    assert!(matches!(taken, MembershipError::Accept(AcceptError::Taken { .. })), "{taken}");
    first.shutdown().await;
    let mut members = first.members();
    members.mark_unchanged();
    assert!(members.changed().await.is_err());
    let again = Membership::start(transport, 2, MembershipConfig::local()).await.unwrap();
    until(&again, "oneself", |members| members.len() == 1 && members[0].alive && members[0].connected).await;
}

#[tokio::test]
async fn over_real_connections_a_node_learns_of_peers_that_nobody_named_to_it() {
    let cluster = ClusterKey::from_bytes([3; 32]);
    let start = |peers: Vec<String>| {
        let config =
            TransportConfig { listen: vec!["127.0.0.1:0".parse().unwrap()], peers, ..Default::default() };
        Transport::start(config, &cluster, NodeKey::ephemeral()).unwrap()
    };
    let hub = start(Vec::new());
    let address = hub.listening().wait_for(|all| !all.is_empty()).await.unwrap()[0].to_string();
    let transports = [hub, start(vec![address.clone()]), start(vec![address])];
    let mut all = Vec::new();
    for transport in &transports {
        all.push(Membership::start(transport.clone(), 1, MembershipConfig::lan()).await.unwrap());
    }
    for membership in &all {
        // The two that were named nobody but the first are connected as well.
        until(membership, "a full mesh", |members| alive(members).len() == 3).await;
    }
}

#[tokio::test]
async fn whoever_is_evicted_is_told_so_and_is_no_member_any_more() {
    let hub = MemoryHub::new();
    let [a, b, c] = [PeerId::random(), PeerId::random(), PeerId::random()];
    let transport = hub.transport(a);
    let one = Membership::start(transport.clone(), 1, MembershipConfig::local()).await.unwrap();
    let two = join(&hub, b, 1).await;
    let leaving = hub.transport(c);
    let three = Membership::start(leaving.clone(), 1, MembershipConfig::local()).await.unwrap();
    until(&one, "all alive", |members| alive(members).len() == 3).await;
    transport.refuse(BTreeSet::from([c]));
    // The second still gossips about it.
    until(&one, "two", |members| members.len() == 2).await;
    until(&two, "all alive", |members| alive(members).len() == 3).await;
    let mut told = leaving.evicted();
    assert_eq!(*timeout(PATIENCE, told.wait_for(Option::is_some)).await.unwrap().unwrap(), Some(a));
    let refused = transport.open(c, "/test/1").await.unwrap_err();
    assert_eq!(refused.to_string(), format!("{c} was evicted from the cluster"));
    three.shutdown().await;
    until(&two, "dead", |members| find(members, c).is_some_and(|member| !member.alive)).await;
    assert!(find(&one.members().borrow(), c).is_none(), "hearsay does not bring it back");
}
