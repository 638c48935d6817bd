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

/// Whose ports are meant.
#[derive(Clone)]
pub struct Forwarder {
    pub pods: Arc<dyn PodStreams>,
    pub pod: PodRef,
}

/// The two streams of one forwarded connection.
struct Pair {
    pieces: mpsc::Receiver<Vec<u8>>,
    data: Lane,
    error: Lane,
    broken: CancellationToken,
}

/// The first stream of a pair.
struct Half {
    stream: Opened,
    since: Instant,
}

impl Forwarder {
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
                        half.stream.lane.reset().await;
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
        let forwarded = async {
            match self.pods.port(&self.pod, port).await {
                Ok(connection) => copy(connection, &mut pair).await,
                Err(error) => {
                    let why = format!("error forwarding port {port} to pod {pod}, uid {uid}: {error}");
                    _ = pair.error.send(why.into_bytes()).await;
                }
            }
            pair.error.end().await;
            pair.data.end().await;
        };
        tokio::select! {
            () = forwarded => {}
            () = broken.cancelled() => {}
        }
    }
}

/// The data and error channels of the first, second ... port.
pub fn port_channels() -> impl Iterator<Item = (u8, u8)> {
    (0..u8::MAX / 2).map(|place| (2 * place, 2 * place + 1))
}

/// The whole pair if the other stream is here already. What cannot be part of one is reset.
async fn pair_up(stream: Opened, halves: &mut BTreeMap<String, Half>) -> Option<(u16, Pair)> {
    let port = request::port(stream.header("port")).ok();
    let kind = stream.header("streamtype").to_owned();
    let (Some(port), "data" | "error") = (port, kind.as_str()) else {
        stream.lane.reset().await;
        return None;
    };
    // Old clients send no id: their data stream is the one after the error stream.
    let id = match (stream.header("requestid"), kind.as_str()) {
        ("", "error") => format!("stream {}", stream.id),
        ("", _) => format!("stream {}", stream.id.saturating_sub(2)),
        (id, _) => id.to_owned(),
    };
    let Some(half) = halves.remove(&id) else {
        halves.insert(id, Half { stream, since: Instant::now() });
        return None;
    };
    let (data, error) = match (half.stream.header("streamtype") == "error", kind == "error") {
        (true, false) => (stream, half.stream),
        (false, true) => (half.stream, stream),
        _ => {
            stream.lane.reset().await;
            halves.insert(id, half);
            return None;
        }
    };
    let Opened { pieces, lane, broken, .. } = data;
    Some((port, Pair { pieces, data: lane, error: error.lane, broken }))
}

/// Copies both ways until the pod has nothing more to say.
async fn copy(connection: Box<dyn Connection>, pair: &mut Pair) {
    let (reading, writing) = tokio::io::split(connection);
    let up = send(writing, &mut pair.pieces);
    tokio::select! {
        // The client is gone, or the pod's side ended, well or badly: its data ends with it.
        _ = receive(reading, &pair.data) => {}
        () = async { up.await; std::future::pending::<()>().await } => {}
    }
}

async fn send(mut writing: WriteHalf<Box<dyn Connection>>, pieces: &mut mpsc::Receiver<Vec<u8>>) {
    while let Some(bytes) = pieces.recv().await {
        if writing.write_all(&bytes).await.is_err() || writing.flush().await.is_err() {
            return;
        }
    }
    let _ = writing.shutdown().await;
}

async fn receive(mut reading: ReadHalf<Box<dyn Connection>>, data: &Lane) -> Result<(), Gone> {
    let mut buffer = vec![0; PIECE_BYTES];
    while let Ok(length @ 1..) = reading.read(&mut buffer).await {
        data.send(buffer[..length].to_vec()).await?;
    }
    Ok(())
}
