//! The task around a WebSocket that carries channels: a queue for each channel that the client sends on, and lanes for
//! what it is sent.

use super::LINGER;
use super::lane::{Act, COMMANDS_WAITING, Command, Lane};
use super::protocol::{self, Protocol, Written};
use axum::extract::ws::{Message, WebSocket};
use futures::stream::{SplitSink, SplitStream};
use futures::{SinkExt, StreamExt};
use std::collections::BTreeMap;
use std::time::Duration;
use tokio::sync::{SemaphorePermit, mpsc};
use tokio_util::sync::CancellationToken;

/// Pieces that wait on one channel. Beyond them the socket is not read.
const PIECES_WAITING: usize = 8;
/// So often an idle client is asked whether it is there; the network finds out if it is not.
const HEARTBEAT: Duration = Duration::from_secs(30);

/// A WebSocket that is served. It is closed when the last lane is dropped and all that was said has been sent.
pub struct Channels {
    pieces: BTreeMap<u8, mpsc::Receiver<Vec<u8>>>,
    commands: mpsc::Sender<Command>,
    /// The client is gone.
    pub gone: CancellationToken,
}

impl Channels {
    /// Serves a socket in a task. What comes on other channels than `incoming` is dropped.
    pub fn serve(
        socket: WebSocket,
        protocol: Protocol,
        incoming: impl IntoIterator<Item = u8>,
        place: SemaphorePermit<'static>,
    ) -> Self {
        let (mut queues, mut pieces) = (BTreeMap::new(), BTreeMap::new());
        for channel in incoming {
            let (queue, receiver) = mpsc::channel(PIECES_WAITING);
            queues.insert(channel, queue);
            pieces.insert(channel, receiver);
        }
        let (commands, commanded) = mpsc::channel(COMMANDS_WAITING);
        let gone = CancellationToken::new();
        let guard = gone.clone().drop_guard();
        tokio::spawn(async move {
            let (_place, _gone) = (place, guard);
            let (sink, stream) = socket.split();
            let reading = read(stream, protocol, queues);
            tokio::pin!(reading);
            tokio::select! {
                () = &mut reading => {}
                // Closed with something unread, the connection would be reset, and the last words lost on their way.
                () = write(sink, protocol, commanded) => {
                    let _ = tokio::time::timeout(LINGER, reading).await;
                }
            }
        });
        Self { pieces, commands, gone }
    }

    /// What the client sends on a channel; once.
    pub fn take(&mut self, channel: u8) -> Option<mpsc::Receiver<Vec<u8>>> {
        self.pieces.remove(&channel)
    }

    pub fn lane(&self, channel: u8) -> Lane {
        Lane::new(u32::from(channel), self.commands.clone())
    }
}

/// Takes in what the client sends, until it is gone.
async fn read(
    mut stream: SplitStream<WebSocket>,
    protocol: Protocol,
    mut queues: BTreeMap<u8, mpsc::Sender<Vec<u8>>>,
) {
    while let Some(Ok(message)) = stream.next().await {
        let read = match &message {
            Message::Binary(bytes) => protocol.read(bytes),
            Message::Text(text) => protocol.read(text.as_bytes()),
            // Answered below us.
            Message::Ping(_) | Message::Pong(_) | Message::Close(_) => continue,
        };
        match read {
            Some(protocol::Message::Data { channel, bytes }) => {
                let Some(queue) = queues.get(&channel) else { continue };
                // The other end may have been dropped: what comes then is nobody's.
                if !bytes.is_empty() && queue.send(bytes).await.is_err() {
                    queues.remove(&channel);
                }
            }
            Some(protocol::Message::End { channel }) => drop(queues.remove(&channel)),
            None => return tracing::debug!("a client does not speak its own protocol"),
        }
    }
}

/// Sends what the lanes are given, until all of them are dropped or the client is gone.
async fn write(
    mut sink: SplitSink<WebSocket, Message>,
    protocol: Protocol,
    mut commands: mpsc::Receiver<Command>,
) {
    let mut heartbeat = tokio::time::interval(HEARTBEAT);
    heartbeat.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    heartbeat.reset();
    loop {
        let message = tokio::select! {
            command = commands.recv() => match command {
                Some((channel, Act::Send(bytes))) => {
                    match protocol.write(u8::try_from(channel).unwrap_or(u8::MAX), &bytes) {
                        Written::Binary(message) => Message::Binary(message.into()),
                        Written::Text(message) => Message::Text(message.into()),
                    }
                }
                // The protocol has no word for it towards clients.
                Some((_, Act::End | Act::Reset)) => continue,
                None => break,
            },
            _ = heartbeat.tick() => Message::Ping(Default::default()),
        };
        if sink.send(message).await.is_err() {
            return;
        }
    }
    let _ = sink.close().await;
}
