//! The task around a connection: bytes in and out, and a queue for each stream.

use super::connection::{Connection, Event, Step};
use super::frame::Reset;
use super::headers::{self, Headers};
use crate::api::stream::LINGER;
use crate::api::stream::lane::{Act, COMMANDS_WAITING, Command, Lane};
use futures::FutureExt;
use futures::stream::{BoxStream, StreamExt};
use std::collections::BTreeMap;
use std::io;
use std::time::Duration;
use tokio::sync::mpsc;
use tokio_util::sync::{CancellationToken, DropGuard};

/// Pieces that wait on one stream, of which there may be many. Beyond them the connection is not read, as its
/// clients expect.
const PIECES_WAITING: usize = 2;
/// After so many frames others have their turn.
const FRAMES_AT_ONCE: u32 = 64;
/// New streams that wait to be taken.
const OPENED_WAITING: usize = 16;
/// What waits to be written before no more is taken in: answers to pings, mostly.
const OUT_BYTES: usize = 128 << 10;
/// So often an idle client is asked whether it is there.
const HEARTBEAT: Duration = Duration::from_secs(30);

/// A stream that the client opened.
#[derive(Debug)]
pub struct Opened {
    pub id: u32,
    headers: Headers,
    /// What comes on it, to its end.
    pub pieces: mpsc::Receiver<Vec<u8>>,
    pub lane: Lane,
    /// The client or the connection has broken it off.
    pub broken: CancellationToken,
}

impl Opened {
    /// The value of a header, whose name is in lower case; empty if there is none.
    pub fn header(&self, name: &str) -> &str {
        headers::value(&self.headers, name)
    }
}

/// A connection that is served. It ends when this is dropped and all that was said has been sent.
pub struct Session {
    /// The streams that the client opens, until it is gone.
    pub streams: mpsc::Receiver<Opened>,
    /// The connection has ended.
    pub ended: CancellationToken,
    _end: DropGuard,
}

/// What the task keeps of a stream.
struct Kept {
    /// `None`: nothing more comes, or nobody takes it.
    pieces: Option<mpsc::Sender<Vec<u8>>>,
    /// Ends the stream's users with the connection.
    _broken: DropGuard,
}

/// Serves a connection in a task. `writing` takes what goes to the client.
pub fn serve(reading: BoxStream<'static, io::Result<Vec<u8>>>, writing: mpsc::Sender<Vec<u8>>) -> Session {
    let (opened, streams) = mpsc::channel(OPENED_WAITING);
    let (end, ended) = (CancellationToken::new(), CancellationToken::new());
    let session = Session { streams, ended: ended.clone(), _end: end.clone().drop_guard() };
    tokio::spawn(async move {
        let _ended = ended.drop_guard();
        let (lanes, commands) = mpsc::channel(COMMANDS_WAITING);
        let connection = Connection::default();
        let kept = BTreeMap::new();
        let mut shell = Shell { connection, kept, lanes, opened, waiting: None, fed: false, end };
        shell.run(reading, writing, commands).await;
    });
    session
}

/// What was taken from the client and has no room yet.
enum Waiting {
    Opened(Opened),
    Piece { to: mpsc::Sender<Vec<u8>>, bytes: Vec<u8> },
}

struct Shell {
    connection: Connection,
    kept: BTreeMap<u32, Kept>,
    lanes: mpsc::Sender<Command>,
    opened: mpsc::Sender<Opened>,
    waiting: Option<Waiting>,
    /// There may be more in what was fed.
    fed: bool,
    /// Nobody uses the connection any more.
    end: CancellationToken,
}

impl Shell {
    async fn run(
        &mut self,
        mut reading: BoxStream<'static, io::Result<Vec<u8>>>,
        writing: mpsc::Sender<Vec<u8>>,
        mut commands: mpsc::Receiver<Command>,
    ) {
        let mut heartbeat = tokio::time::interval(HEARTBEAT);
        heartbeat.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        heartbeat.reset();
        // A client that does not read is waited for while there is somebody to say more, and a little longer.
        let end = self.end.clone();
        let late = end.cancelled().then(|()| tokio::time::sleep(LINGER));
        tokio::pin!(late);
        let mut frames = 0u32;
        loop {
            let out = self.connection.out().len();
            if self.fed && self.waiting.is_none() && out < OUT_BYTES {
                if self.step().is_err() {
                    break;
                }
                frames = frames.wrapping_add(1);
                if frames.is_multiple_of(FRAMES_AT_ONCE) {
                    tokio::task::yield_now().await;
                }
                continue;
            }
            let said = out == 0 && commands.is_empty();
            if said && self.connection.is_over() {
                return;
            }
            // Each branch is on only while it has something to do, so that one direction never waits for the other.
            tokio::select! {
                room = writing.reserve(), if out > 0 => match room {
                    Ok(room) => room.send(std::mem::take(self.connection.out())),
                    Err(_) => return,
                },
                Some((id, act)) = commands.recv(), if out < OUT_BYTES => self.act(id, act),
                () = has_room(&mut self.waiting, &self.opened), if self.waiting.is_some() => self.waiting = None,
                bytes = reading.next(), if !self.fed && self.waiting.is_none() && out < OUT_BYTES => match bytes {
                    Some(Ok(bytes)) => {
                        self.connection.feed(&bytes);
                        self.fed = true;
                    }
                    Some(Err(_)) | None => return,
                },
                _ = heartbeat.tick(), if out < OUT_BYTES => self.connection.ping(),
                () = writing.closed() => return,
                () = self.end.cancelled(), if said => return,
                () = &mut late => return,
            }
        }
        // The client is told why; it may have gone, or not listen.
        let last = writing.send(std::mem::take(self.connection.out()));
        let _ = tokio::time::timeout(LINGER, last).await;
    }

    /// Takes in one thing that the client did.
    fn step(&mut self) -> Result<(), ()> {
        let step = self.connection.step().map_err(|error| {
            tracing::debug!(%error, "a client's SPDY connection is broken off");
        })?;
        match step {
            Step::Starved => self.fed = false,
            Step::Quiet | Step::Event(Event::GoingAway) => {}
            Step::Event(Event::Opened { id, headers, ended }) => {
                let (to, pieces) = mpsc::channel(PIECES_WAITING);
                let broken = CancellationToken::new();
                let kept = Kept { pieces: (!ended).then_some(to), _broken: broken.clone().drop_guard() };
                self.kept.insert(id, kept);
                let lane = Lane::new(id, self.lanes.clone());
                self.waiting = Some(Waiting::Opened(Opened { id, headers, pieces, lane, broken }));
            }
            Step::Event(Event::Data { id, bytes }) => {
                // Who does not listen any more has what came before.
                let to = self.kept.get(&id).and_then(|kept| kept.pieces.clone());
                self.waiting = to.map(|to| Waiting::Piece { to, bytes });
            }
            Step::Event(Event::Ended { id }) => {
                if let Some(kept) = self.kept.get_mut(&id) {
                    kept.pieces = None;
                }
                self.forget(id);
            }
            Step::Event(Event::Reset { id }) => drop(self.kept.remove(&id)),
        }
        Ok(())
    }

    fn act(&mut self, id: u32, act: Act) {
        match act {
            Act::Send(bytes) => self.connection.send(id, &bytes),
            Act::End => self.connection.end(id),
            Act::Reset => self.connection.reset(id, Reset::Cancel),
        }
        self.forget(id);
    }

    fn forget(&mut self, id: u32) {
        if !self.connection.has(id) {
            self.kept.remove(&id);
        }
    }
}

/// Delivers what waits. Cancelled before that, it has done nothing.
async fn has_room(waiting: &mut Option<Waiting>, opened: &mpsc::Sender<Opened>) {
    // Where nobody takes it any more it is dropped, with its stream.
    match waiting {
        None => std::future::pending().await,
        Some(Waiting::Opened(_)) => {
            let room = opened.reserve().await;
            if let (Ok(room), Some(Waiting::Opened(stream))) = (room, waiting.take()) {
                room.send(stream);
            }
        }
        Some(Waiting::Piece { to, .. }) => {
            let room = to.clone().reserve_owned().await;
            if let (Ok(room), Some(Waiting::Piece { bytes, .. })) = (room, waiting.take()) {
                room.send(bytes);
            }
        }
    }
}
