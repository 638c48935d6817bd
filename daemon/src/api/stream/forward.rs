//! `port-forward`: a client's streams, and connections to a pod's ports.

use super::channels::Channels;
use super::lane::{Gone, Lane};
use super::request;
use super::spdy::{Opened, Session};
use crate::pods::{Connection, PIECE_BYTES, PodRef, PodStreams};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt, ReadHalf, WriteHalf};
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

/// How long one stream of a pair may wait for the other.
const PAIR_WITHIN: Duration = Duration::from_secs(30);
/// How often it is looked for those that wait in vain.
const LOOK_EVERY: Duration = Duration::from_secs(10);

/// First streams that wait for their second. Clients open both at once.
const HALVES: usize = 64;
/// Where a pod's port takes nothing, all connections of the client stand still: with others beside it, it is broken
/// off after so long.
const TAKEN_WITHIN: Duration = Duration::from_secs(60);

/// Whose ports are meant.
#[derive(Clone)]
pub struct Forwarder {
    pods: Arc<dyn PodStreams>,
    pod: PodRef,
    /// Held once by the session, and once for each of its connections.
    connections: Arc<()>,
}

/// The two streams of one forwarded connection.
struct Pair {
    pieces: mpsc::Receiver<Vec<u8>>,
    data: Lane,
    error: Lane,
    broken: CancellationToken,
}

/// What a stream of a pair is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Purpose {
    Data,
    Error,
}

/// The first stream of a pair.
struct Half {
    purpose: Purpose,
    pieces: mpsc::Receiver<Vec<u8>>,
    lane: Lane,
    broken: CancellationToken,
    since: Instant,
}

impl Forwarder {
    pub fn new(pods: Arc<dyn PodStreams>, pod: PodRef) -> Self {
        Self { pods, pod, connections: Arc::default() }
    }

    /// Forwards as many connections as the client likes, one after the other and at once.
    pub async fn over_spdy(self, mut session: Session) {
        let mut halves: BTreeMap<String, Half> = BTreeMap::new();
        let mut look = tokio::time::interval(LOOK_EVERY);
        // Dropped with the session: nothing is forwarded for a client who is gone.
        let mut connections = JoinSet::new();
        loop {
            tokio::select! {
                stream = session.streams.recv() => {
                    let Some(stream) = stream else { return };
                    if let Some((port, pair)) = pair_up(stream, &mut halves).await {
                        connections.spawn(self.clone().forward(port, pair));
                    }
                }
                Some(_) = connections.join_next() => {}
                now = look.tick() => {
                    let waits_in_vain = |half: &Half| now.saturating_duration_since(half.since) > PAIR_WITHIN;
                    let late: Vec<_> = halves.extract_if(.., |_, half| waits_in_vain(half)).collect();
                    for (_, half) in late {
                        half.lane.reset().await;
                    }
                }
            }
        }
    }

    /// Forwards one connection to each port, as the older protocol has it.
    pub async fn over_channels(self, mut channels: Channels, ports: Vec<u16>) {
        let mut connections = JoinSet::new();
        for (port, (data, error)) in ports.into_iter().zip(port_channels()) {
            let Some(pieces) = channels.take(data) else { continue };
            let (data, error) = (channels.lane(data), channels.lane(error));
            // Each channel begins with the port that it is for.
            let said = port.to_le_bytes().to_vec();
            if data.send(said.clone()).await.is_err() || error.send(said).await.is_err() {
                return;
            }
            let pair = Pair { pieces, data, error, broken: channels.gone.clone() };
            connections.spawn(self.clone().forward(port, pair));
        }
        drop(channels);
        connections.join_all().await;
    }

    async fn forward(self, port: u16, mut pair: Pair) {
        let (pod, uid) = (&self.pod.name, &self.pod.uid);
        let broken = pair.broken.clone();
        let alone = || Arc::strong_count(&self.connections) <= 2;
        let forwarded = async {
            match self.pods.port(&self.pod, port).await {
                Ok(connection) => copy(connection, &mut pair, alone).await,
                Err(error) => {
                    let why = format!("error forwarding port {port} to pod {pod}, uid {uid}: {error}");
                    _ = pair.error.send(why.into_bytes()).await;
                }
            }
        };
        tokio::select! {
            () = forwarded => {}
            () = broken.cancelled() => {}
        }
        // Also where the client broke its data off: it waits for the end of the errors.
        pair.error.end().await;
        pair.data.end().await;
    }
}

/// The data and error channels of the first, second ... port.
pub fn port_channels() -> impl Iterator<Item = (u8, u8)> {
    (0..u8::MAX / 2).map(|place| (2 * place, 2 * place + 1))
}

/// The whole pair if the other stream is here already. What cannot be part of one is reset.
async fn pair_up(stream: Opened, halves: &mut BTreeMap<String, Half>) -> Option<(u16, Pair)> {
    let port = request::port(stream.header("port")).ok();
    let purpose = match stream.header("streamtype") {
        "data" => Some(Purpose::Data),
        "error" => Some(Purpose::Error),
        _ => None,
    };
    let (Some(port), Some(purpose)) = (port, purpose) else {
        stream.lane.reset().await;
        return None;
    };
    // Old clients send no id: their data stream is the one after the error stream.
    let id = match (stream.header("requestid"), purpose) {
        ("", Purpose::Error) => format!("stream {}", stream.id),
        ("", Purpose::Data) => format!("stream {}", stream.id.saturating_sub(2)),
        (id, _) => id.to_owned(),
    };
    let Opened { pieces, lane, broken, .. } = stream;
    let half = Half { purpose, pieces, lane, broken, since: Instant::now() };
    // One whose stream the client broke off waits for nothing.
    halves.retain(|_, half| !half.broken.is_cancelled());
    match halves.remove(&id) {
        Some(first) if first.purpose != purpose => {
            let (data, error) = if purpose == Purpose::Data { (half, first) } else { (first, half) };
            let Half { pieces, lane, broken, .. } = data;
            Some((port, Pair { pieces, data: lane, error: error.lane, broken }))
        }
        None if halves.len() < HALVES => {
            halves.insert(id, half);
            None
        }
        first => {
            half.lane.reset().await;
            halves.extend(first.map(|first| (id, first)));
            None
        }
    }
}

/// Copies both ways until the pod has nothing more to say, or takes nothing while others wait for it.
async fn copy(connection: Box<dyn Connection>, pair: &mut Pair, alone: impl Fn() -> bool) {
    let (reading, writing) = tokio::io::split(connection);
    let up = async {
        match send(writing, &mut pair.pieces, alone).await {
            Ok(()) => std::future::pending().await,
            Err(Stuck) => pair.data.reset().await,
        }
    };
    tokio::select! {
        // The client is gone, or the pod's side ended, well or badly: its data ends with it.
        _ = receive(reading, &pair.data) => {}
        () = up => {}
    }
}

/// The pod took nothing for too long.
struct Stuck;

async fn send(
    mut writing: WriteHalf<Box<dyn Connection>>,
    pieces: &mut mpsc::Receiver<Vec<u8>>,
    alone: impl Fn() -> bool,
) -> Result<(), Stuck> {
    while let Some(bytes) = pieces.recv().await {
        let taken = async { writing.write_all(&bytes).await.is_ok() && writing.flush().await.is_ok() };
        tokio::pin!(taken);
        let taken = loop {
            match tokio::time::timeout(TAKEN_WITHIN, &mut taken).await {
                Ok(taken) => break taken,
                // It holds nobody up.
                Err(_) if alone() => {}
                Err(_) => return Err(Stuck),
            }
        };
        if !taken {
            // What comes now is dropped, and holds nobody up.
            pieces.close();
            return Ok(());
        }
    }
    let _ = writing.shutdown().await;
    Ok(())
}

async fn receive(mut reading: ReadHalf<Box<dyn Connection>>, data: &Lane) -> Result<(), Gone> {
    let mut buffer = vec![0; PIECE_BYTES];
    while let Ok(length @ 1..) = reading.read(&mut buffer).await {
        data.send(buffer[..length].to_vec()).await?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicBool, Ordering};

    #[tokio::test(start_paused = true)]
    async fn a_port_that_takes_nothing_is_waited_for_while_it_holds_nobody_up() {
        let (near, far) = tokio::io::duplex(16);
        let (_, writing) = tokio::io::split(Box::new(near) as Box<dyn Connection>);
        let (to, mut pieces) = mpsc::channel(1);
        to.send(vec![0; 100]).await.unwrap();
        let alone = AtomicBool::new(true);
        let sending = send(writing, &mut pieces, || alone.load(Ordering::Relaxed));
        tokio::pin!(sending);
        assert!(tokio::time::timeout(5 * TAKEN_WITHIN, &mut sending).await.is_err(), "it is not waited for");
        alone.store(false, Ordering::Relaxed);
        let sent = tokio::time::timeout(2 * TAKEN_WITHIN, sending).await.expect("the others wait for ever");
        assert!(sent.is_err());
        drop(far);
    }

    #[tokio::test]
    async fn what_a_port_takes_no_more_holds_nobody_up() {
        let (near, far) = tokio::io::duplex(16);
        drop(far);
        let (_, writing) = tokio::io::split(Box::new(near) as Box<dyn Connection>);
        let (to, mut pieces) = mpsc::channel(1);
        to.send(vec![0; 100]).await.unwrap();
        assert!(send(writing, &mut pieces, || false).await.is_ok());
        assert!(to.is_closed());
    }
}
