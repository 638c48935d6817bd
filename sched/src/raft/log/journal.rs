//! A file of numbered frames, each on the disk before the next one is written.
//!
//! A frame that a power cut broke off is the last one, and nobody was told that it is there: the next one takes its place. A
//! broken one with another behind it was whole once, so the file is damaged. A write at the end of a file that has its size
//! already costs the disk half of what a change of a database's pages does.
//!
//! ```text
//! file:  MAGIC  nonce  checksum  frame...  zeros
//! frame: START  checksum of the next three  length  number  checksum of the body  body
//! ```
//!
//! Checksums cover the file's nonce and the frame's place, so that no bytes of a user's, and no others of the file's, are
//! taken for a frame. As databases' logs do, this one relies on a disk that is writing the sector in which one frame ends and
//! the next begins to leave the first half of it, which does not change.

use super::super::codec::{CHECKSUM_BYTES, checksum};
use super::super::files;
use super::super::storage::{Pages, Storage};
use super::LogFault;
use std::hash::{BuildHasher, RandomState};
use std::io;
use std::path::Path;
use std::sync::{Mutex, MutexGuard, PoisonError};

const MAGIC: &[u8; 16] = b"gaggle raft log\x01";
const NONCE_BYTES: usize = 8;
const FILE_HEADER: usize = MAGIC.len() + NONCE_BYTES + CHECKSUM_BYTES;

const START: [u8; 4] = *b"\xf7gr\xf7";
/// Length, number and checksum of the body.
const FIELDS: usize = 4 + 8 + CHECKSUM_BYTES;
const FRAME_HEADER: usize = START.len() + CHECKSUM_BYTES + FIELDS;

/// Zeros that are written ahead: a flush then need not make a larger size of the file last as well.
const AHEAD_BYTES: usize = 256 << 10;

/// Read at once where a frame is looked for, or the end.
const WINDOW_BYTES: usize = 64 << 10;

#[derive(Debug)]
pub(super) struct Journal {
    pages: Box<dyn Pages>,
    nonce: [u8; NONCE_BYTES],
    tail: Mutex<Tail>,
}

#[derive(Debug)]
struct Tail {
    /// Where the last frame begins; where there is none, as `end`.
    last: u64,
    /// Where the next frame begins.
    end: u64,
    /// How far the file goes.
    len: u64,
    /// The last frame's number.
    number: u64,
    /// A write failed: nobody knows what is on the disk until the file has been opened again.
    failed: bool,
}

/// What a frame holds, and where in the file.
pub(super) struct Frame {
    pub number: u64,
    pub offset: u64,
    pub body: Vec<u8>,
}

/// What was found in a file.
pub(super) struct Opened {
    pub journal: Journal,
    /// Where a frame is broken that was whole once. The others were read all the same.
    pub damaged: Option<u64>,
}

impl Journal {
    /// A new file that only the owner may read: users' secrets are in the entries. Its frames are numbered after `number`.
    pub fn create(storage: &dyn Storage, path: &Path, number: u64) -> io::Result<Self> {
        storage.create(path)?;
        let pages = storage.open_alone(path)?;
        let nonce = RandomState::new().hash_one(path).to_be_bytes();
        let header = [MAGIC.as_slice(), &nonce, &checksum(MAGIC, &nonce)].concat();
        pages.write(0, &header)?;
        pages.sync()?;
        let len = header.len() as u64;
        Ok(Self { pages, nonce, tail: Mutex::new(Tail { last: len, end: len, len, number, failed: false }) })
    }

    /// Reads all frames, and writes nothing.
    pub fn open(
        storage: &dyn Storage,
        path: &Path,
        mut each: impl FnMut(Frame) -> Result<(), LogFault>,
    ) -> Result<Opened, LogFault> {
        let in_use = |error: &io::Error| error.kind() == io::ErrorKind::WouldBlock;
        let pages = storage.open_alone(path).map_err(|error| match in_use(&error) {
            true => LogFault::InUse,
            false => LogFault::Io(error),
        })?;
        let len = pages.len().map_err(LogFault::Io)?;
        let mut header = [0; FILE_HEADER];
        let nonce = match pages.read(0, &mut header) {
            Ok(()) => nonce_of(&header),
            Err(error) if files::is_damage(&error) => None,
            Err(error) => return Err(LogFault::Io(error)),
        };
        let nonce = nonce.ok_or_else(|| LogFault::Damaged("it does not begin like a log".into()))?;
        let begin = FILE_HEADER as u64;
        let tail = Tail { last: begin, end: begin, len, number: 0, failed: false };
        let mut journal = Self { pages, nonce, tail: Mutex::new(tail) };
        let (mut begun, mut end, mut last, mut damaged) = (begin, begin, None, None);
        loop {
            let found = journal.frame(end, len).map_err(LogFault::Io)?;
            let Some(frame) = found else {
                if journal.is_zero(end, len).map_err(LogFault::Io)? {
                    break;
                }
                match journal.frame_behind(end, len).map_err(LogFault::Io)? {
                    Some(offset) => {
                        damaged.get_or_insert(end);
                        end = offset;
                    }
                    None => break,
                }
                continue;
            };
            if last.is_some_and(|last| frame.number != last + 1) {
                damaged.get_or_insert(end);
            }
            last = Some(frame.number);
            begun = end;
            end = frame.offset + frame.body.len() as u64;
            each(frame)?;
        }
        let tail = Tail { last: begun, end, len, number: last.unwrap_or_default(), failed: false };
        journal.tail = Mutex::new(tail);
        Ok(Opened { journal, damaged })
    }

    /// Sees that what was read is on the disk: the process that wrote it may not have come to that, or may have heard that it
    /// had failed. After that the system takes what it holds for flushed, so the one frame of which this may be true is written
    /// once more.
    pub fn settle(&self) -> io::Result<()> {
        let tail = self.tail();
        let last = self.read(tail.last, (tail.end - tail.last) as usize)?;
        self.pages.write(tail.last, &last)?;
        self.pages.sync()
    }

    /// Writes the next frame, and says where its body is. It is on the disk when this returns.
    pub fn append(&self, body: &[u8]) -> io::Result<u64> {
        let mut tail = self.tail();
        let offset = self.write(&mut tail, body)?;
        tail.failed = true;
        if tail.end > tail.len {
            tail.len = tail.end;
            // A full disk may still have room for what matters.
            match self.pages.write(tail.len, &vec![0; AHEAD_BYTES]) {
                Ok(()) => tail.len += AHEAD_BYTES as u64,
                Err(error) => tracing::debug!(%error, "no room ahead of the log"),
            }
        }
        self.pages.sync()?;
        tail.failed = false;
        Ok(offset)
    }

    /// The same in a file that nobody counts on yet: it is on the disk after [`Self::settle`].
    pub fn append_unflushed(&self, body: &[u8]) -> io::Result<u64> {
        self.write(&mut self.tail(), body)
    }

    fn write(&self, tail: &mut Tail, body: &[u8]) -> io::Result<u64> {
        if tail.failed {
            return Err(io::Error::other("an earlier write failed"));
        }
        let len = u32::try_from(body.len()).map_err(io::Error::other)?;
        let (place, number) = (self.place(tail.end), tail.number + 1);
        let mut frame = Vec::with_capacity(FRAME_HEADER + body.len());
        frame.extend_from_slice(&len.to_be_bytes());
        frame.extend_from_slice(&number.to_be_bytes());
        frame.extend_from_slice(&checksum(&place, body));
        let sum = checksum(&place, &frame);
        frame.splice(..0, START.into_iter().chain(sum));
        frame.extend_from_slice(body);
        tail.failed = true;
        self.pages.write(tail.end, &frame)?;
        let offset = tail.end + FRAME_HEADER as u64;
        *tail =
            Tail { last: tail.end, end: tail.end + frame.len() as u64, len: tail.len, number, failed: false };
        Ok(offset)
    }

    /// Bytes of a body, from where in the file they are.
    pub fn read(&self, offset: u64, len: usize) -> io::Result<Vec<u8>> {
        let mut bytes = vec![0; len];
        self.pages.read(offset, &mut bytes)?;
        Ok(bytes)
    }

    /// The last frame's number; 0 where there is none.
    pub fn number(&self) -> u64 {
        self.tail().number
    }

    /// Where its last frame ends.
    pub fn bytes(&self) -> u64 {
        self.tail().end
    }

    /// Nothing is written any more.
    pub fn give_up(&self) {
        self.tail().failed = true;
    }

    fn tail(&self) -> MutexGuard<'_, Tail> {
        self.tail.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn place(&self, offset: u64) -> [u8; NONCE_BYTES + 8] {
        let mut place = [0; NONCE_BYTES + 8];
        place[..NONCE_BYTES].copy_from_slice(&self.nonce);
        place[NONCE_BYTES..].copy_from_slice(&offset.to_be_bytes());
        place
    }

    /// The frame that begins at `at` in a file of `len` bytes, if a whole one does.
    fn frame(&self, at: u64, len: u64) -> io::Result<Option<Frame>> {
        let mut header = [0; FRAME_HEADER];
        if at + FRAME_HEADER as u64 > len {
            return Ok(None);
        }
        self.pages.read(at, &mut header)?;
        let place = self.place(at);
        let Some(fields) = fields_of(&header, &place) else { return Ok(None) };
        let (body, rest) = fields.split_at(4);
        let (number, sum) = rest.split_at(8);
        let body = body.iter().fold(0, |len, byte| len << 8 | u64::from(*byte));
        let number = number.iter().fold(0, |number, byte| number << 8 | u64::from(*byte));
        let offset = at + FRAME_HEADER as u64;
        if offset + body > len {
            return Ok(None);
        }
        let body = self.read(offset, body as usize)?;
        Ok((checksum(&place, &body) == sum).then_some(Frame { number, offset, body }))
    }

    /// Where the next whole frame begins behind `at`.
    fn frame_behind(&self, at: u64, len: u64) -> io::Result<Option<u64>> {
        let mut from = at + 1;
        while from + (FRAME_HEADER as u64) <= len {
            let window = self.window(from, len)?;
            if window.contains(&START[0]) {
                for (start, _) in
                    window.windows(START.len()).enumerate().filter(|(_, bytes)| **bytes == START)
                {
                    let start = from + start as u64;
                    if self.frame(start, len)?.is_some() {
                        return Ok(Some(start));
                    }
                }
            }
            // One may lie across the end of the window.
            from += (window.len() + 1).saturating_sub(START.len()).max(1) as u64;
        }
        Ok(None)
    }

    fn is_zero(&self, mut from: u64, len: u64) -> io::Result<bool> {
        let zeros = vec![0; WINDOW_BYTES];
        while from < len {
            let window = self.window(from, len)?;
            if window != zeros[..window.len()] {
                return Ok(false);
            }
            from += window.len() as u64;
        }
        Ok(true)
    }

    /// What follows `from` in a file of `len` bytes.
    fn window(&self, from: u64, len: u64) -> io::Result<Vec<u8>> {
        self.read(from, (len - from).min(WINDOW_BYTES as u64) as usize)
    }
}

/// Length, number and checksum of the body that a frame's header gives, if it is one.
fn fields_of<'a>(header: &'a [u8; FRAME_HEADER], place: &[u8]) -> Option<&'a [u8; FIELDS]> {
    let (sum, fields) = header.strip_prefix(&START)?.split_first_chunk::<CHECKSUM_BYTES>()?;
    (checksum(place, fields) == *sum).then(|| fields.first_chunk())?
}

fn nonce_of(header: &[u8; FILE_HEADER]) -> Option<[u8; NONCE_BYTES]> {
    let (nonce, sum) = header.strip_prefix(MAGIC)?.split_first_chunk::<NONCE_BYTES>()?;
    (checksum(MAGIC, nonce) == sum).then_some(*nonce)
}

#[cfg(test)]
mod tests {
    use super::super::super::storage::FileSystem;
    use super::*;
    use std::fs;

    fn read_all(path: &Path) -> (Vec<Vec<u8>>, Journal, Option<u64>) {
        let mut bodies = Vec::new();
        let opened = Journal::open(&FileSystem, path, |frame| {
            bodies.push(frame.body);
            Ok(())
        });
        let Opened { journal, damaged } = opened.unwrap();
        (bodies, journal, damaged)
    }

    /// A file of these frames, and where each ends.
    fn written(path: &Path, bodies: &[&[u8]]) -> Vec<usize> {
        let journal = Journal::create(&FileSystem, path, 6).unwrap();
        bodies.iter().map(|body| journal.append(body).unwrap() as usize + body.len()).collect()
    }

    #[test]
    fn frames_come_back_in_their_order_and_go_on() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("log");
        let large = vec![7; 3 * AHEAD_BYTES];
        written(&path, &[b"one", b"", &large]);
        let (found, journal, damaged) = read_all(&path);
        assert!(found == [b"one".to_vec(), Vec::new(), large] && damaged.is_none());
        assert_eq!(journal.number(), 9);
        assert!(matches!(Journal::open(&FileSystem, &path, |_| Ok(())), Err(LogFault::InUse)));
        journal.settle().unwrap();
        let offset = journal.append(b"four").unwrap();
        assert_eq!(journal.read(offset, 4).unwrap(), b"four");
        drop(journal);
        let (found, journal, _) = read_all(&path);
        assert_eq!((found.len(), found[3].as_slice(), journal.number()), (4, b"four".as_slice(), 10));
        journal.give_up();
        journal.append(b"five").unwrap_err();
    }

    #[test]
    fn a_frame_that_was_broken_off_leaves_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("log");
        let ends = written(&path, &[b"first", b"second", &[0xf7; 99]]);
        let whole = fs::read(&path).unwrap();
        for at in ends[1]..ends[2] - 2 {
            let mut cut = whole[..at].to_vec();
            // Nothing behind it, or what was written ahead, or the end of the very frame.
            for rest in [&[][..], &vec![0; whole.len() - at], &whole[at.midpoint(ends[2])..]] {
                cut.truncate(at);
                cut.extend_from_slice(rest);
                fs::write(&path, &cut).unwrap();
                let (found, journal, damaged) = read_all(&path);
                assert!(found == [b"first".to_vec(), b"second".to_vec()] && damaged.is_none(), "cut at {at}");
                journal.settle().unwrap();
                journal.append(b"3").unwrap();
                drop(journal);
                let (found, journal, damaged) = read_all(&path);
                assert!(found.len() == 3 && found[2] == b"3" && damaged.is_none(), "cut at {at}");
                assert_eq!(journal.number(), 9);
            }
        }
    }

    #[test]
    fn a_broken_frame_with_others_behind_it_is_damage() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("log");
        let far = vec![0xf7; 2 * WINDOW_BYTES];
        let ends = written(&path, &[b"first", &far, b"third"]);
        let whole = fs::read(&path).unwrap();
        for at in (FILE_HEADER..ends[1]).filter(|at| *at < 200 || at % 9973 == 0) {
            let mut bytes = whole.clone();
            bytes[at] ^= 0x10;
            fs::write(&path, &bytes).unwrap();
            let (found, _, damaged) = read_all(&path);
            let broken = if at < ends[0] { FILE_HEADER } else { ends[0] };
            assert_eq!(damaged, Some(broken as u64), "flipped at {at}");
            assert!(found.len() == 2 && found[1] == b"third", "flipped at {at}");
        }
        for at in 0..FILE_HEADER {
            let mut bytes = whole.clone();
            bytes[at] ^= 0x10;
            fs::write(&path, &bytes).unwrap();
            let opened = Journal::open(&FileSystem, &path, |_| Ok(()));
            assert!(opened.is_err_and(|fault| fault.is_damage()), "flipped at {at}");
        }
    }

    #[test]
    fn what_somebody_stores_is_never_taken_for_a_frame() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("log");
        let first = written(&path, &[b"first"])[0];
        let frame = fs::read(&path).unwrap()[FILE_HEADER..first].to_vec();
        fs::remove_file(&path).unwrap();
        let ends = written(&path, &[b"first", &frame]);
        let mut bytes = fs::read(&path).unwrap();
        assert_eq!(bytes[ends[1] - frame.len()..ends[1]], frame);
        // The frame around it is broken off.
        bytes[ends[0]] = 0;
        fs::write(&path, &bytes).unwrap();
        let (found, _, damaged) = read_all(&path);
        assert!(found == [b"first".to_vec()] && damaged.is_none());
    }
}
