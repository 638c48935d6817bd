//! Real transports on loopback, and the promises that a user would miss: they find each other, stay joined, carry
//! every stream, and keep strangers out.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::time::Duration;

use libp2p::PeerId;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::timeout;

use super::*;
use crate::identity::{ClusterKey, NodeKey};

const ECHO: &str = "/test/echo/1";
/// Generous: the tests share their machine with a build.
const PATIENCE: Duration = Duration::from_secs(60);

fn any() -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], 0))
}

fn start_with(config: TransportConfig, phrase: u8, key: NodeKey) -> Transport {
    Transport::start(config, &ClusterKey::from_bytes([phrase; 32]), key).unwrap()
}

fn start(peers: &[String], phrase: u8) -> Transport {
    let config = TransportConfig { listen: vec![any()], peers: peers.to_vec(), ..TransportConfig::default() };
    start_with(config, phrase, NodeKey::ephemeral())
}

async fn address(transport: &Transport) -> SocketAddr {
    let mut listening = transport.listening();
    let listening = timeout(PATIENCE, listening.wait_for(|all| !all.is_empty())).await.unwrap().unwrap();
    listening[0]
}

async fn sees(transport: &Transport, expected: &[&Transport]) {
    let expected: BTreeSet<PeerId> = expected.iter().map(|other| other.local()).collect();
    let mut connected = transport.connected();
    timeout(PATIENCE, connected.wait_for(|peers| peers.keys().copied().collect::<BTreeSet<_>>() == expected))
        .await
        .expect("connected in time")
        .unwrap();
}

/// Sends back what comes, for ever.
fn echo(transport: &Transport) {
    let mut acceptor = transport.accept(ECHO, 16).unwrap();
    tokio::spawn(async move {
        while let Some((_, stream)) = acceptor.next().await {
            tokio::spawn(async move {
                let (mut read, mut write) = tokio::io::split(stream);
                let _ = tokio::io::copy(&mut read, &mut write).await;
                let _ = write.shutdown().await;
            });
        }
    });
}

async fn round_trip(transport: &Transport, peer: PeerId, text: &[u8]) {
    let stream = timeout(PATIENCE, transport.open(peer, ECHO)).await.unwrap().unwrap();
    let (mut read, mut write) = tokio::io::split(stream);
    let mut back = Vec::new();
    // Both at once: an echo stops reading while nobody reads what it sends.
    let send = async {
        write.write_all(text).await?;
        write.shutdown().await
    };
    let both = async { tokio::try_join!(send, read.read_to_end(&mut back)) };
    timeout(PATIENCE, both).await.unwrap().unwrap();
    assert_eq!(back, text);
}

#[tokio::test]
async fn two_nodes_meet_and_carry_bytes_both_ways() {
    let first = start(&[], 1);
    let second = start(&[address(&first).await.to_string()], 1);
    sees(&first, &[&second]).await;
    sees(&second, &[&first]).await;
    echo(&first);
    echo(&second);
    let long: Vec<u8> = (0..1_000_000u32).map(|n| n as u8).collect();
    round_trip(&first, second.local(), &long).await;
    round_trip(&second, first.local(), b"").await;
    assert!(second.known().borrow().iter().any(|known| known.ends_with(&first.local().to_string())));
}

#[tokio::test]
async fn five_nodes_that_know_one_of_them_all_meet_when_addresses_are_told() {
    let first = start(&[], 1);
    let named = vec![address(&first).await.to_string()];
    let others: Vec<Transport> = (0..4).map(|_| start(&named, 1)).collect();
    for other in &others {
        let at = address(other).await;
        for told in others.iter().chain([&first]) {
            told.add_address(other.local(), at).await;
        }
    }
    let all: Vec<&Transport> = others.iter().chain([&first]).collect();
    for one in &all {
        let rest: Vec<&Transport> =
            all.iter().copied().filter(|other| other.local() != one.local()).collect();
        sees(one, &rest).await;
    }
}

#[tokio::test]
async fn two_hundred_streams_at_once_all_get_through() {
    let first = start(&[], 1);
    let second = start(&[address(&first).await.to_string()], 1);
    sees(&second, &[&first]).await;
    echo(&first);
    let streams = (0..200u32).map(|n| {
        let (second, peer) = (second.clone(), first.local());
        tokio::spawn(async move { round_trip(&second, peer, &n.to_be_bytes()).await })
    });
    for stream in futures::future::join_all(streams).await {
        stream.unwrap();
    }
}

#[tokio::test]
async fn another_phrase_gets_no_stream_and_both_users_hear_of_it() {
    let ours = start(&[], 1);
    echo(&ours);
    let at = address(&ours).await;
    let stranger = start(&[at.to_string()], 2);
    let mut told = stranger.refusals();
    let outbound = timeout(PATIENCE, told.wait_for(Option::is_some)).await.unwrap().unwrap().clone().unwrap();
    assert_eq!((outbound.address, outbound.direction), (at, Direction::Outbound));
    assert!(outbound.to_string().contains("another phrase"), "{outbound}");
    let mut told = ours.refusals();
    let inbound = timeout(PATIENCE, told.wait_for(Option::is_some)).await.unwrap().unwrap().clone().unwrap();
    assert_eq!(inbound.direction, Direction::Inbound);
    assert!(ours.connected().borrow().is_empty() && stranger.connected().borrow().is_empty());
    stranger.add_address(ours.local(), at).await;
    let error = stranger.open(ours.local(), ECHO).await.unwrap_err();
    assert!(matches!(error, OpenError::Unreachable { .. }), "{error}");
}

#[tokio::test]
async fn a_program_that_is_no_node_learns_nothing() {
    let ours = start(&[], 1);
    let mut socket = TcpStream::connect(address(&ours).await).await.unwrap();
    socket.write_all(&[b'x'; 40]).await.unwrap();
    let mut heard = Vec::new();
    let _ = timeout(PATIENCE, socket.read_to_end(&mut heard)).await.unwrap();
    // A nonce and the encrypted mark, and then the end.
    assert!(heard.len() <= 40, "{}", heard.len());
}

#[tokio::test]
async fn a_node_that_restarts_elsewhere_is_found_at_its_old_address_or_by_its_own_memory() {
    let key = NodeKey::ephemeral();
    let first = start(&[], 1);
    let config =
        |remembered: Vec<String>| TransportConfig { listen: vec![any()], remembered, ..Default::default() };
    let second = start_with(config(Vec::new()), 1, key.clone());
    second.dial(&address(&first).await.to_string()).await.unwrap();
    sees(&first, &[&second]).await;
    let mut known = second.known();
    let remembered =
        timeout(PATIENCE, known.wait_for(|all| !all.is_empty())).await.unwrap().unwrap().to_vec();
    second.shutdown().await;
    sees(&first, &[]).await;
    let again = start_with(config(remembered), 1, key);
    sees(&first, &[&again]).await;
    sees(&again, &[&first]).await;
}

#[tokio::test]
async fn a_peer_that_comes_up_later_is_found_without_being_told_again() {
    // A port that is free, for a node that is not there yet.
    let port = TcpListener::bind(any()).await.unwrap().local_addr().unwrap();
    let early = start(&[port.to_string()], 1);
    let config = TransportConfig { listen: vec![port], ..TransportConfig::default() };
    let late = start_with(config, 1, NodeKey::ephemeral());
    sees(&early, &[&late]).await;
}

#[tokio::test]
async fn what_cannot_be_opened_says_why_at_once() {
    let first = start(&[], 1);
    let second = start(&[address(&first).await.to_string()], 1);
    sees(&second, &[&first]).await;
    let stranger = PeerId::random();
    assert_eq!(second.open(stranger, ECHO).await.unwrap_err(), OpenError::Unknown { peer: stranger });
    let missing = second.open(first.local(), ECHO).await.unwrap_err();
    assert_eq!(missing, OpenError::Unsupported { peer: first.local(), protocol: ECHO });
    let _held = second.accept(ECHO, 1).unwrap();
    assert_eq!(second.accept(ECHO, 1).unwrap_err(), AcceptError::Taken { protocol: ECHO });
    second.shutdown().await;
    assert_eq!(second.open(stranger, ECHO).await.unwrap_err(), OpenError::Closed);
}

#[tokio::test]
async fn an_acceptor_ends_with_its_transport() {
    let first = start(&[], 1);
    let mut acceptor = first.accept(ECHO, 1).unwrap();
    first.shutdown().await;
    assert!(timeout(PATIENCE, acceptor.next()).await.unwrap().is_none());
}

#[tokio::test]
async fn a_port_in_use_is_named() {
    let taken = TcpListener::bind(any()).await.unwrap();
    let at = taken.local_addr().unwrap();
    let config = TransportConfig { listen: vec![at], ..TransportConfig::default() };
    let error = Transport::start(config, &ClusterKey::from_bytes([1; 32]), NodeKey::ephemeral()).unwrap_err();
    assert!(error.to_string().contains(&at.to_string()), "{error}");
}

#[tokio::test]
async fn the_twin_in_memory_joins_cuts_and_heals() {
    let hub = MemoryHub::new();
    let (first, second) = (hub.transport(PeerId::random()), hub.transport(PeerId::random()));
    sees(&first, &[&second]).await;
    echo(&second);
    round_trip(&first, second.local(), b"geese").await;
    let mut stream = first.open(second.local(), ECHO).await.unwrap();
    hub.cut(first.local(), second.local());
    sees(&first, &[]).await;
    assert!(timeout(PATIENCE, stream.read_u8()).await.unwrap().is_err(), "a cut breaks streams");
    assert!(first.open(second.local(), ECHO).await.is_err());
    hub.heal(first.local(), second.local());
    round_trip(&first, second.local(), b"geese").await;
    second.shutdown().await;
    sees(&first, &[]).await;
    assert_eq!(
        first.open(second.local(), ECHO).await.unwrap_err(),
        OpenError::Unknown { peer: second.local() }
    );
}

/// Carries bytes between whoever connects and `target` until it is told to fall silent; then it holds the
/// connections open and carries nothing, as a desktop does whose plug was pulled.
async fn cable(target: SocketAddr, silent: tokio_util::sync::CancellationToken) -> SocketAddr {
    let listener = TcpListener::bind(any()).await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        let mut held = Vec::new();
        while let Ok((mut near, _)) = listener.accept().await {
            let mut far = TcpStream::connect(target).await.unwrap();
            let silent = silent.clone();
            held.push(tokio::spawn(async move {
                tokio::select! {
                    _ = tokio::io::copy_bidirectional(&mut near, &mut far) => {}
                    () = silent.cancelled() => std::future::pending().await,
                }
            }));
        }
    });
    address
}

#[tokio::test]
async fn a_peer_whose_plug_is_pulled_is_noticed_and_its_streams_end() {
    let unplugged = tokio_util::sync::CancellationToken::new();
    let first = start(&[], 1);
    echo(&first);
    let second = start(&[cable(address(&first).await, unplugged.clone()).await.to_string()], 1);
    sees(&second, &[&first]).await;
    let mut stream = second.open(first.local(), ECHO).await.unwrap();
    unplugged.cancel();
    sees(&second, &[]).await;
    assert!(timeout(PATIENCE, stream.read_u8()).await.unwrap().is_err());
}

#[tokio::test]
async fn an_evicted_peer_is_told_so_and_gets_no_stream_either_way_nor_after_a_restart() {
    let ours = start(&[], 1);
    echo(&ours);
    let at = address(&ours).await.to_string();
    let key = NodeKey::ephemeral();
    let again = key.clone();
    let config =
        || TransportConfig { listen: vec![any()], peers: vec![at.clone()], ..TransportConfig::default() };
    let theirs = start_with(config(), 1, key);
    echo(&theirs);
    sees(&ours, &[&theirs]).await;
    sees(&theirs, &[&ours]).await;

    ours.refuse(BTreeSet::from([theirs.local()]));
    let told = |transport: &Transport| {
        let mut told = transport.evicted();
        async move { *timeout(PATIENCE, told.wait_for(Option::is_some)).await.unwrap().unwrap() }
    };
    assert_eq!(told(&theirs).await, Some(ours.local()));
    sees(&ours, &[]).await;
    let error = ours.open(theirs.local(), ECHO).await.unwrap_err();
    assert!(matches!(error, OpenError::Refused { .. }), "{error}");
    assert!(theirs.open(ours.local(), ECHO).await.is_err(), "a stream that nobody takes");
    assert!(ours.known().borrow().is_empty(), "not remembered");
    theirs.shutdown().await;

    // Switched on again, it knocks, hears why nobody answers, and never counts as connected.
    let restarted = start_with(config(), 1, again);
    assert_eq!(told(&restarted).await, Some(ours.local()));
    assert!(ours.connected().borrow().is_empty());
}
