//! Connections as clients make them, well and badly.

use super::connection::{Connection, Event, STREAMS, Step};
use super::frame::{self, Decoder, Frame, Reset};
use super::headers::{self, BLOCK_BYTES, Headers, Reader, Writer};
use super::{SpdyError, serve};
use crate::api::stream::LINGER;
use futures::stream::{self, StreamExt};
use proptest::prelude::*;
use tokio::sync::mpsc;

/// A client's side of a connection.
#[derive(Default)]
pub struct Client {
    writer: Writer,
    decoder: Decoder,
    next: u32,
    /// What is to be sent.
    pub out: Vec<u8>,
}

impl Client {
    /// Opens a stream and returns its id.
    pub fn open(&mut self, headers: &[(&str, &str)]) -> u32 {
        let headers: Headers =
            headers.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        let block = self.writer.write(&headers);
        let id = self.next * 2 + 1;
        self.next += 1;
        frame::write_syn_stream(&mut self.out, id, &block);
        id
    }

    pub fn data(&mut self, id: u32, bytes: &[u8]) {
        frame::write_data(&mut self.out, id, bytes);
    }

    pub fn end(&mut self, id: u32) {
        frame::write_end(&mut self.out, id);
    }

    pub fn reset(&mut self, id: u32) {
        frame::write_reset(&mut self.out, id, Reset::Cancel);
    }

    pub fn ping(&mut self, id: u32) {
        frame::write_ping(&mut self.out, id);
    }

    pub fn feed(&mut self, bytes: &[u8]) {
        self.decoder.feed(bytes);
    }

    /// The next thing that the server sent, if it is there.
    pub fn heard(&mut self) -> Option<Heard> {
        self.decoder.next().unwrap().map(|frame| match frame {
            Frame::Data { id, bytes } => Heard::Data(id, bytes),
            Frame::End { id } => Heard::End(id),
            Frame::RstStream { id } => Heard::Reset(id),
            _ => Heard::Other,
        })
    }
}

/// What a client hears from the server.
pub enum Heard {
    Data(u32, Vec<u8>),
    End(u32),
    Reset(u32),
    Other,
}

fn events(connection: &mut Connection, bytes: &[u8]) -> Result<Vec<Event>, SpdyError> {
    connection.feed(bytes);
    let mut events = Vec::new();
    loop {
        match connection.step()? {
            Step::Event(event) => events.push(event),
            Step::Quiet => {}
            Step::Starved => return Ok(events),
        }
    }
}

fn said(connection: &mut Connection) -> Vec<Frame> {
    let mut decoder = Decoder::default();
    decoder.feed(&std::mem::take(connection.out()));
    std::iter::from_fn(|| decoder.next().unwrap()).collect()
}

fn header(name: &str, value: &str) -> Headers {
    vec![(name.to_owned(), value.to_owned())]
}

#[test]
fn a_stream_lives_from_its_opening_to_its_two_ends() {
    let (mut connection, mut client) = (Connection::default(), Client::default());
    let id = client.open(&[("StreamType", "data")]);
    client.data(id, b"hello");
    client.end(id);
    frame::write_ping(&mut client.out, 1);
    let opened = Event::Opened { id, headers: header("streamtype", "data"), ended: false };
    assert_eq!(
        events(&mut connection, &client.out).unwrap(),
        [opened, Event::Data { id, bytes: b"hello".to_vec() }, Event::Ended { id }]
    );
    connection.send(id, b"and you");
    connection.end(id);
    connection.send(id, b"too late");
    let frames = said(&mut connection);
    assert!(matches!(&frames[0], Frame::SynReply { id: replied, fin: false, .. } if *replied == id));
    assert_eq!(
        frames[1..],
        [Frame::Ping { id: 1 }, Frame::Data { id, bytes: b"and you".to_vec() }, Frame::End { id }]
    );
    assert!(!connection.has(id) && !connection.is_over());
    // What comes for a stream that is over is nobody's.
    let mut late = Client::default();
    late.data(id, b"late");
    frame::write_go_away(&mut late.out, 0);
    assert_eq!(events(&mut connection, &late.out).unwrap(), [Event::GoingAway]);
    assert!(connection.is_over());
}

#[test]
fn streams_with_bad_ids_and_too_many_of_them_are_reset() {
    let (mut connection, mut client) = (Connection::default(), Client::default());
    for _ in 0..STREAMS {
        client.open(&[("port", "80")]);
    }
    assert_eq!(events(&mut connection, &client.out).unwrap().len(), STREAMS);
    connection.out().clear();
    client.out.clear();
    let one_more = client.open(&[("port", "80")]);
    assert_eq!(events(&mut connection, &client.out).unwrap(), []);
    let reset = |connection: &mut Connection| matches!(said(connection)[..], [Frame::RstStream { .. }]);
    assert!(reset(&mut connection), "{one_more} is one too many");
    // An id that was there, and one of the server's.
    for (id, expected) in [(1, vec![Event::Reset { id: 1 }]), (2, vec![])] {
        let mut out = Vec::new();
        let block = client.writer.write(&Headers::new());
        frame::write_syn_stream(&mut out, id, &block);
        assert_eq!(events(&mut connection, &out).unwrap(), expected);
        assert!(reset(&mut connection));
    }
    // The others go on.
    client.out.clear();
    client.data(3, b"x");
    assert_eq!(events(&mut connection, &client.out).unwrap(), [Event::Data { id: 3, bytes: b"x".to_vec() }]);
    connection.reset(3, Reset::Cancel);
    assert!(reset(&mut connection) && !connection.has(3));
}

#[test]
fn what_is_no_spdy_ends_the_connection() {
    let mut syn = Vec::new();
    frame::write_syn_stream(&mut syn, 1, b"not compressed");
    let mut short = Vec::new();
    frame::write_syn_stream(&mut short, 1, b"");
    short.truncate(short.len() - 4);
    short[7] -= 4;
    for (bytes, expected) in [
        (b"\x80\x02\x00\x01\x00\x00\x00\x00".to_vec(), SpdyError::Version),
        (b"\x80\x03\x00\x01\x00\xff\xff\xff".to_vec(), SpdyError::FrameSize(0xff_ffff)),
        (syn, SpdyError::Compression),
        (short, SpdyError::FrameContent),
    ] {
        let mut connection = Connection::default();
        assert_eq!(events(&mut connection, &bytes), Err(expected));
        assert_eq!(said(&mut connection), [Frame::GoAway]);
    }
}

#[tokio::test(start_paused = true)]
async fn a_client_that_reads_nothing_is_left_when_nobody_has_more_to_say() {
    let mut client = Client::default();
    (0..10).for_each(|n| client.ping(2 * n + 1));
    let reading = stream::iter([Ok(client.out)]).chain(stream::pending()).boxed();
    let (writing, _unread) = mpsc::channel(1);
    writing.send(Vec::new()).await.unwrap();
    let session = serve(reading, writing);
    let ended = session.ended.clone();
    // Its pings are answered, and the answers wait.
    tokio::time::sleep(LINGER).await;
    assert!(!ended.is_cancelled());
    drop(session);
    tokio::time::timeout(2 * LINGER, ended.cancelled()).await.expect("it is waited for");
}

#[test]
fn a_header_block_does_not_grow_beyond_its_bound() {
    let small = BLOCK_BYTES - 100;
    let (mut writer, mut reader) = (Writer::default(), Reader::default());
    let block = writer.write(&header("a", &"x".repeat(small)));
    assert_eq!(headers::value(&reader.read(&block).unwrap(), "a").len(), small);
    // Some kilobytes that would be a megabyte.
    let bomb = Writer::default().write(&header("a", &"x".repeat(1 << 20)));
    assert!(bomb.len() < 16 << 10, "{}", bomb.len());
    assert_eq!(Reader::default().read(&bomb), Err(SpdyError::HeaderSize));
    let many: Headers = (0..100).map(|n| (n.to_string(), String::new())).collect();
    assert_eq!(Reader::default().read(&Writer::default().write(&many)), Err(SpdyError::HeaderContent));
}

/// What a client may do next.
#[derive(Clone, Debug)]
enum Move {
    Open(Vec<(String, String)>),
    Data(u32, Vec<u8>),
    End(u32),
    Reset(u32),
    Ping(u32),
    /// As it comes.
    Raw(Vec<u8>),
}

fn any_move() -> impl Strategy<Value = Move> {
    let id = 0u32..12;
    prop_oneof![
        prop::collection::vec(("[a-z]{0,9}", ".{0,20}"), 0..5).prop_map(Move::Open),
        (id.clone(), prop::collection::vec(any::<u8>(), 0..300))
            .prop_map(|(id, bytes)| Move::Data(id, bytes)),
        id.clone().prop_map(Move::End),
        id.prop_map(Move::Reset),
        any::<u32>().prop_map(Move::Ping),
    ]
}

fn write(moves: &[Move]) -> Vec<u8> {
    let mut client = Client::default();
    for one in moves {
        match one {
            Move::Open(headers) => {
                let headers: Vec<_> = headers.iter().map(|(n, v)| (n.as_str(), v.as_str())).collect();
                client.open(&headers);
            }
            Move::Data(id, bytes) => client.data(*id, bytes),
            Move::End(id) => client.end(*id),
            Move::Reset(id) => client.reset(*id),
            Move::Ping(id) => client.ping(*id),
            Move::Raw(bytes) => client.out.extend(bytes),
        }
    }
    client.out
}

/// Pieces of one stream that follow one another are one.
fn joined(events: Vec<Event>) -> Vec<Event> {
    let mut all: Vec<Event> = Vec::new();
    for event in events {
        match (all.last_mut(), event) {
            (Some(Event::Data { id, bytes }), Event::Data { id: same, bytes: more }) if *id == same => {
                bytes.extend(more);
            }
            (_, event) => all.push(event),
        }
    }
    all
}

proptest! {
    #[test]
    fn cuts_make_no_difference(moves in prop::collection::vec(any_move(), 0..20), cut in 1usize..40) {
        let bytes = write(&moves);
        let (mut whole, mut cuts) = (Connection::default(), Connection::default());
        let expected = events(&mut whole, &bytes).unwrap();
        let mut found = Vec::new();
        for chunk in bytes.chunks(cut) {
            found.extend(events(&mut cuts, chunk).unwrap());
        }
        prop_assert_eq!(joined(found), joined(expected));
        prop_assert_eq!(&*whole.out(), &*cuts.out());
    }

    #[test]
    fn nothing_that_comes_breaks_or_swells_it(
        mut moves in prop::collection::vec(any_move(), 0..10),
        rubbish in prop::collection::vec(any::<u8>(), 0..200),
        place in 0usize..10,
    ) {
        moves.insert(place.min(moves.len()), Move::Raw(rubbish));
        let bytes = write(&moves);
        let mut connection = Connection::default();
        for chunk in bytes.chunks(7) {
            if events(&mut connection, chunk).is_err() {
                break;
            }
        }
        // Each frame of at least eight bytes is answered with a few.
        prop_assert!(connection.out().len() <= 64 + bytes.len() * 8);
    }

    #[test]
    fn blocks_are_read_as_they_were_written(
        blocks in prop::collection::vec(prop::collection::vec(("[a-z0-9]{0,12}", ".{0,40}"), 0..8), 1..6)
    ) {
        let (mut writer, mut reader) = (Writer::default(), Reader::default());
        for block in blocks {
            prop_assert_eq!(reader.read(&writer.write(&block)).unwrap(), block);
        }
    }

    #[test]
    fn no_block_breaks_the_reader(block in prop::collection::vec(any::<u8>(), 0..300)) {
        let _ = Reader::default().read(&block);
    }
}
