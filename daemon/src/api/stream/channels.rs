//! The task around a WebSocket that carries channels: a queue for each channel that the client sends on, and lanes for
//! what it is sent.

use super::lane::{Act, COMMANDS_WAITING, Command, Lane};
use super::protocol::{self, Protocol, Written};
use super::{LINGER, upgrade};
use crate::pods::PIECE_BYTES;
use axum::extract::ws::{Message, WebSocket, close_code};
use futures::stream::{SplitSink, SplitStream};
use futures::{FutureExt, SinkExt, StreamExt};
use std::collections::BTreeMap;
use std::time::Duration;
use tokio::sync::{SemaphorePermit, mpsc};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

/// Pieces that wait on one channel. Beyond them the socket is not read.
const PIECES_WAITING: usize = 8;
/// kubectl gives up a connection on which it has heard no Pong for a minute, and ours are not answered while the
/// socket is not read: it is sent one without having asked, so often. The network finds out if it is not there.
pub const HEARTBEAT: Duration = Duration::from_secs(if cfg!(test) { 1 } else { 20 });
/// So long is a client waited for that is there and reads nothing: as long as Kubernetes keeps what is idle.
const UNREAD: Duration = Duration::from_hours(4);

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
            let _place = place;
            let (mut sink, stream) = socket.split();
            let reading = read(stream, protocol, queues).fuse();
            tokio::pin!(reading);
            let close = tokio::select! {
                close = &mut reading => close,
                close = write(&mut sink, protocol, commanded) => close,
            };
            drop(guard);
            let Some(close) = close else { return };
            let last_words = async {
                if sink.send(close).await.is_ok() {
                    // Closed with something unread, the connection would be reset, and the last words lost on their way.
                    reading.await;
                }
            };
            let _ = tokio::time::timeout(LINGER, last_words).await;
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

/// Takes in what the client sends, until it is gone; what it is told if it is not, and cannot be heard any longer.
async fn read(
    mut stream: SplitStream<WebSocket>,
    protocol: Protocol,
    mut queues: BTreeMap<u8, mpsc::Sender<Vec<u8>>>,
) -> Option<Message> {
    loop {
        let message = match stream.next().await? {
            Ok(message) => message,
            Err(error) => return upgrade::too_large(error),
        };
        let read = match &message {
            Message::Binary(bytes) => protocol.read(bytes),
            Message::Text(text) => protocol.read(text.as_bytes()),
            // Answered below us.
            Message::Ping(_) | Message::Pong(_) | Message::Close(_) => continue,
        };
        match read {
            Some(protocol::Message::Data { channel, bytes }) => {
                // A message may be larger than the pieces by which queues are bounded.
                for piece in bytes.chunks(PIECE_BYTES) {
                    let Some(queue) = queues.get(&channel) else { break };
                    // The other end may have been dropped: what comes then is nobody's.
                    if queue.send(piece.to_vec()).await.is_err() {
                        queues.remove(&channel);
                    }
                }
            }
            Some(protocol::Message::End { channel }) => drop(queues.remove(&channel)),
            None => {
                return Some(upgrade::close(
                    close_code::PROTOCOL,
                    "a message of no channel of this protocol",
                ));
            }
        }
    }
}

/// Sends what the lanes are given, until all of them are dropped; the end that the client is told then.
async fn write(
    sink: &mut SplitSink<WebSocket, Message>,
    protocol: Protocol,
    mut commands: mpsc::Receiver<Command>,
) -> Option<Message> {
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
                None => return Some(upgrade::close(close_code::NORMAL, "")),
            },
            _ = heartbeat.tick() => Message::Pong(Default::default()),
        };
        tokio::select! {
            sent = sink.send(message) => sent.ok()?,
            () = waited_enough(&commands) => return None,
        }
    }
}

/// For a client that reads nothing: once nobody is left who could say more, or in the end.
async fn waited_enough(commands: &mpsc::Receiver<Command>) {
    let since = Instant::now();
    loop {
        tokio::time::sleep(LINGER).await;
        if commands.sender_strong_count() == 0 || since.elapsed() > UNREAD {
            return;
        }
    }
}
