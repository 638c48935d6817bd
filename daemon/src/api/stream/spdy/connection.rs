//! One connection as the server sees it: which streams there are, and what is answered by itself. Pure.

use super::SpdyError;
use super::frame::{self, Decoder, Frame, Reset};
use super::headers::{Headers, Reader, Writer};
use std::collections::BTreeMap;

/// Streams open at once: a forwarded connection takes two.
pub const STREAMS: usize = 1024;

/// What the client did.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// A stream, accepted already. `ended`: nothing will come on it.
    Opened {
        id: u32,
        headers: Headers,
        ended: bool,
    },
    Data {
        id: u32,
        bytes: Vec<u8>,
    },
    /// Nothing more comes on this stream.
    Ended {
        id: u32,
    },
    /// Nothing more comes or goes on it.
    Reset {
        id: u32,
    },
    /// The client opens no more streams.
    GoingAway,
}

/// What a frame came to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    Event(Event),
    /// Nothing for anybody: answered by itself, or for a stream that is over.
    Quiet,
    /// There is no whole frame.
    Starved,
}

/// Which sides of a stream are over; one whose both are is forgotten.
#[derive(Debug, Default)]
struct Sides {
    ours: bool,
    theirs: bool,
}

#[derive(Default)]
pub struct Connection {
    decoder: Decoder,
    reader: Reader,
    writer: Writer,
    streams: BTreeMap<u32, Sides>,
    /// The highest id that was accepted; a new one must be higher.
    newest: u32,
    pings: u32,
    going_away: bool,
    out: Vec<u8>,
}

impl Connection {
    pub fn feed(&mut self, bytes: &[u8]) {
        self.decoder.feed(bytes);
    }

    /// Takes one frame, so that the caller can bound what is answered. After an error nothing more may be asked.
    pub fn step(&mut self) -> Result<Step, SpdyError> {
        let Some(frame) = self.decoder.next().inspect_err(|_| self.break_off())? else {
            return Ok(Step::Starved);
        };
        let event = self.take(frame).inspect_err(|_| self.break_off())?;
        Ok(event.map_or(Step::Quiet, Step::Event))
    }

    /// What is to be sent, which is a few bytes for each frame that arrived, and what was said.
    pub fn out(&mut self) -> &mut Vec<u8> {
        &mut self.out
    }

    /// The client opens no more streams, and none is left.
    pub fn is_over(&self) -> bool {
        self.going_away && self.streams.is_empty()
    }

    /// Whether a stream is open, on either side.
    pub fn has(&self, id: u32) -> bool {
        self.streams.contains_key(&id)
    }

    fn break_off(&mut self) {
        frame::write_go_away(&mut self.out, self.newest);
    }

    fn take(&mut self, frame: Frame) -> Result<Option<Event>, SpdyError> {
        Ok(match frame {
            Frame::SynStream { id, fin, block } => {
                // Read in any case: the next block builds on it.
                let headers = self.reader.read(&block)?;
                self.open(id, fin, headers)
            }
            // We open no streams that could be replied to, and expect no more headers.
            Frame::SynReply { id, fin, block } | Frame::Headers { id, fin, block } => {
                self.reader.read(&block)?;
                if fin { self.ended(id) } else { None }
            }
            Frame::RstStream { id } => self.streams.remove(&id).map(|_| Event::Reset { id }),
            Frame::Ping { id } => {
                // Even ids are those of our own pings, which came back.
                if id % 2 == 1 {
                    frame::write_ping(&mut self.out, id);
                }
                None
            }
            Frame::GoAway => {
                self.going_away = true;
                Some(Event::GoingAway)
            }
            // What comes for a stream that is over may have been under way, and is nobody's.
            Frame::Data { id, bytes } => {
                let open = self.streams.get(&id).is_some_and(|sides| !sides.theirs);
                open.then_some(Event::Data { id, bytes })
            }
            Frame::End { id } => self.ended(id),
            Frame::Other => None,
        })
    }

    fn open(&mut self, id: u32, fin: bool, headers: Headers) -> Option<Event> {
        if id <= self.newest || id.is_multiple_of(2) {
            frame::write_reset(&mut self.out, id, Reset::Protocol);
            return self.streams.remove(&id).map(|_| Event::Reset { id });
        }
        self.newest = id;
        if self.going_away || self.streams.len() >= STREAMS {
            frame::write_reset(&mut self.out, id, Reset::Refused);
            return None;
        }
        self.streams.insert(id, Sides { ours: false, theirs: fin });
        let block = self.writer.write(&Headers::new());
        frame::write_reply(&mut self.out, id, &block);
        Some(Event::Opened { id, headers, ended: fin })
    }

    fn ended(&mut self, id: u32) -> Option<Event> {
        let sides = self.streams.get_mut(&id).filter(|sides| !sides.theirs)?;
        sides.theirs = true;
        self.forget(id);
        Some(Event::Ended { id })
    }

    fn forget(&mut self, id: u32) {
        if self.streams.get(&id).is_some_and(|sides| sides.ours && sides.theirs) {
            self.streams.remove(&id);
        }
    }

    /// Sends on a stream that is open on our side; nothing otherwise.
    pub fn send(&mut self, id: u32, bytes: &[u8]) {
        if self.streams.get(&id).is_some_and(|sides| !sides.ours) {
            frame::write_data(&mut self.out, id, bytes);
        }
    }

    /// Nothing more will be sent on this stream.
    pub fn end(&mut self, id: u32) {
        if let Some(sides) = self.streams.get_mut(&id).filter(|sides| !sides.ours) {
            sides.ours = true;
            frame::write_end(&mut self.out, id);
            self.forget(id);
        }
    }

    pub fn reset(&mut self, id: u32, why: Reset) {
        if self.streams.remove(&id).is_some() {
            frame::write_reset(&mut self.out, id, why);
        }
    }

    /// Asks whether the client is there; the network finds out if nothing comes back.
    pub fn ping(&mut self) {
        self.pings = self.pings.wrapping_add(2);
        frame::write_ping(&mut self.out, self.pings);
    }
}
