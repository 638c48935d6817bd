//! Frames: bytes to frames and back. Pure.
//!
//! Data is given out in the pieces in which it arrives, so that only control frames, which are bounded, are ever
//! waited for.

use super::SpdyError;
use tokio_util::bytes::BytesMut;

const HEAD_BYTES: usize = 8;
/// The largest control frame; those of the clients have some hundred bytes.
const CONTROL_BYTES: usize = 16 << 10;
/// The most that is sent in one frame of data.
pub const DATA_BYTES: usize = 32 << 10;

const VERSION: u16 = 3;
const CONTROL: u8 = 0x80;
const FIN: u8 = 1;
/// Ids have 31 bits.
const ID: u32 = 0x7fff_ffff;

const SYN_STREAM: u16 = 1;
const SYN_REPLY: u16 = 2;
const RST_STREAM: u16 = 3;
const PING: u16 = 6;
const GOAWAY: u16 = 7;
const HEADERS: u16 = 8;

/// Why a stream is reset.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reset {
    Protocol = 1,
    Refused = 3,
    Cancel = 5,
}

/// What arrived. Header blocks are still compressed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Frame {
    SynStream {
        id: u32,
        fin: bool,
        block: Vec<u8>,
    },
    SynReply {
        id: u32,
        fin: bool,
        block: Vec<u8>,
    },
    Headers {
        id: u32,
        fin: bool,
        block: Vec<u8>,
    },
    RstStream {
        id: u32,
    },
    Ping {
        id: u32,
    },
    GoAway,
    /// A piece of data.
    Data {
        id: u32,
        bytes: Vec<u8>,
    },
    /// No more data.
    End {
        id: u32,
    },
    /// Settings, windows, nothing at all, and what a later minor version may add.
    Other,
}

/// Takes frames out of what arrived.
#[derive(Debug, Default)]
pub struct Decoder {
    /// What is not used yet: what was fed last, and before it less than one control frame.
    bytes: BytesMut,
    data: Option<Data>,
}

/// A data frame that is being received.
#[derive(Clone, Copy, Debug)]
struct Data {
    id: u32,
    fin: bool,
    left: usize,
}

impl Decoder {
    pub fn feed(&mut self, bytes: &[u8]) {
        self.bytes.extend_from_slice(bytes);
    }

    /// The next frame, if it is there.
    pub fn next(&mut self) -> Result<Option<Frame>, SpdyError> {
        if let Some(data) = self.data {
            return Ok(self.piece(data));
        }
        let Some(head) = self.bytes.first_chunk::<HEAD_BYTES>().copied() else { return Ok(None) };
        let length = usize::from(head[5]) << 16 | usize::from(head[6]) << 8 | usize::from(head[7]);
        let fin = head[4] & FIN != 0;
        if head[0] & CONTROL == 0 {
            let _ = self.bytes.split_to(HEAD_BYTES);
            let id = u32::from_be_bytes([head[0], head[1], head[2], head[3]]);
            return Ok(self.piece(Data { id, fin, left: length }));
        }
        if u16::from_be_bytes([head[0] & !CONTROL, head[1]]) != VERSION {
            return Err(SpdyError::Version);
        }
        if length > CONTROL_BYTES {
            return Err(SpdyError::FrameSize(length));
        }
        if self.bytes.len() < HEAD_BYTES + length {
            return Ok(None);
        }
        let frame = self.bytes.split_to(HEAD_BYTES + length);
        control(u16::from_be_bytes([head[2], head[3]]), fin, &frame[HEAD_BYTES..]).map(Some)
    }

    fn piece(&mut self, Data { id, fin, left }: Data) -> Option<Frame> {
        if left == 0 {
            self.data = None;
            return Some(if fin { Frame::End { id } } else { Frame::Other });
        }
        let length = left.min(self.bytes.len()).min(DATA_BYTES);
        let left = left - length;
        self.data = (left > 0 || fin).then_some(Data { id, fin, left });
        (length > 0).then(|| Frame::Data { id, bytes: self.bytes.split_to(length).to_vec() })
    }
}

fn control(kind: u16, fin: bool, body: &[u8]) -> Result<Frame, SpdyError> {
    let number = |at: usize| {
        let bytes = body.get(at..at + 4).and_then(|bytes| bytes.try_into().ok());
        bytes.map(u32::from_be_bytes).ok_or(SpdyError::FrameContent)
    };
    let block = |at: usize| body.get(at..).map(<[u8]>::to_vec).ok_or(SpdyError::FrameContent);
    Ok(match kind {
        // Behind the id: the stream that it belongs to, a priority, and a slot.
        SYN_STREAM => Frame::SynStream { id: number(0)? & ID, fin, block: block(10)? },
        SYN_REPLY => Frame::SynReply { id: number(0)? & ID, fin, block: block(4)? },
        HEADERS => Frame::Headers { id: number(0)? & ID, fin, block: block(4)? },
        RST_STREAM => Frame::RstStream { id: number(0)? & ID },
        PING => Frame::Ping { id: number(0)? },
        GOAWAY => Frame::GoAway,
        _ => Frame::Other,
    })
}

fn write_control(to: &mut Vec<u8>, kind: u16, body: &[&[u8]]) {
    let length: usize = body.iter().map(|part| part.len()).sum();
    to.extend((VERSION | u16::from(CONTROL) << 8).to_be_bytes());
    to.extend(kind.to_be_bytes());
    // No flags; the length has three bytes.
    to.extend((length as u32 & 0x00ff_ffff).to_be_bytes());
    body.iter().for_each(|part| to.extend(*part));
}

pub fn write_reply(to: &mut Vec<u8>, id: u32, block: &[u8]) {
    write_control(to, SYN_REPLY, &[&id.to_be_bytes(), block]);
}

pub fn write_reset(to: &mut Vec<u8>, id: u32, why: Reset) {
    write_control(to, RST_STREAM, &[&id.to_be_bytes(), &(why as u32).to_be_bytes()]);
}

pub fn write_ping(to: &mut Vec<u8>, id: u32) {
    write_control(to, PING, &[&id.to_be_bytes()]);
}

/// Says that no stream beyond `last` was taken, because the other side broke the protocol.
pub fn write_go_away(to: &mut Vec<u8>, last: u32) {
    write_control(to, GOAWAY, &[&last.to_be_bytes(), &1u32.to_be_bytes()]);
}

/// Data in as many frames as it needs.
pub fn write_data(to: &mut Vec<u8>, id: u32, bytes: &[u8]) {
    for piece in bytes.chunks(DATA_BYTES) {
        to.extend((id & ID).to_be_bytes());
        to.extend((piece.len() as u32).to_be_bytes());
        to.extend(piece);
    }
}

/// Nothing more will be sent on this stream.
pub fn write_end(to: &mut Vec<u8>, id: u32) {
    to.extend((id & ID).to_be_bytes());
    to.extend((u32::from(FIN) << 24).to_be_bytes());
}

/// What a client writes, for tests.
#[cfg(test)]
pub fn write_syn_stream(to: &mut Vec<u8>, id: u32, block: &[u8]) {
    write_control(to, SYN_STREAM, &[&id.to_be_bytes(), &[0; 6], block]);
}
