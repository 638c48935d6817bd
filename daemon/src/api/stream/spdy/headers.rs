//! Header blocks: names and values, compressed with a state that lives as long as the connection. Pure.

use super::SpdyError;
use super::dictionary::DICTIONARY;
use flate2::{Compress, Compression, Decompress, FlushCompress, FlushDecompress, Status};

/// The largest block, decompressed: clients send some hundred bytes.
pub const BLOCK_BYTES: usize = 16 << 10;
/// The most names in one block.
const NAMES: usize = 64;

/// Names, which are in lower case, and their values.
pub type Headers = Vec<(String, String)>;

/// The value of a header; empty if there is none.
pub fn value<'h>(headers: &'h Headers, name: &str) -> &'h str {
    headers.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str()).unwrap_or_default()
}

/// Reads the blocks of one direction, all of them, in their order.
pub struct Reader(Decompress);

impl Default for Reader {
    fn default() -> Self {
        Self(Decompress::new(true))
    }
}

impl Reader {
    pub fn read(&mut self, block: &[u8]) -> Result<Headers, SpdyError> {
        parse(&self.inflate(block)?)
    }

    fn inflate(&mut self, mut block: &[u8]) -> Result<Vec<u8>, SpdyError> {
        let mut text = Vec::new();
        let mut buffer = [0; 4096];
        loop {
            let (taken, given) = (self.0.total_in(), self.0.total_out());
            let outcome = self.0.decompress(block, &mut buffer, FlushDecompress::Sync);
            let taken = usize::try_from(self.0.total_in() - taken).unwrap_or(usize::MAX);
            let given = usize::try_from(self.0.total_out() - given).unwrap_or(usize::MAX);
            block = block.get(taken..).ok_or(SpdyError::Compression)?;
            text.extend_from_slice(buffer.get(..given).ok_or(SpdyError::Compression)?);
            if text.len() > BLOCK_BYTES {
                return Err(SpdyError::HeaderSize);
            }
            match outcome {
                Ok(Status::StreamEnd) => return Err(SpdyError::Compression),
                // Full: there may be more, also if nothing is left to take in.
                Ok(_) if given == buffer.len() => {}
                Ok(_) if block.is_empty() => return Ok(text),
                Ok(_) if taken == 0 && given == 0 => return Err(SpdyError::Compression),
                Ok(_) => {}
                Err(error) if error.needs_dictionary().is_some() => {
                    self.0.set_dictionary(&DICTIONARY).map_err(|_| SpdyError::Compression)?;
                }
                Err(_) => return Err(SpdyError::Compression),
            }
        }
    }
}

/// Writes the blocks of one direction.
pub struct Writer(Compress);

impl Default for Writer {
    fn default() -> Self {
        let mut compress = Compress::new(Compression::fast(), true);
        let set = compress.set_dictionary(&DICTIONARY);
        debug_assert!(set.is_ok(), "nothing was compressed before it");
        Self(compress)
    }
}

impl Writer {
    pub fn write(&mut self, headers: &Headers) -> Vec<u8> {
        let mut text = length(headers.len()).to_vec();
        for (name, value) in headers {
            for part in [name, value] {
                text.extend(length(part.len()));
                text.extend(part.as_bytes());
            }
        }
        let mut block = Vec::new();
        let mut rest = text.as_slice();
        loop {
            // Room for an incompressible rest, so that one turn is the rule.
            block.reserve(rest.len() + 64);
            let before = self.0.total_in();
            let outcome = self.0.compress_vec(rest, &mut block, FlushCompress::Sync);
            let taken = usize::try_from(self.0.total_in() - before).unwrap_or(usize::MAX);
            rest = rest.get(taken..).unwrap_or_default();
            // It is all out when it did not fill the room.
            if outcome.is_err() || (rest.is_empty() && block.len() < block.capacity()) {
                return block;
            }
        }
    }
}

fn length(length: usize) -> [u8; 4] {
    u32::try_from(length).unwrap_or(u32::MAX).to_be_bytes()
}

fn parse(mut block: &[u8]) -> Result<Headers, SpdyError> {
    let names = number(&mut block)?;
    if names > NAMES {
        return Err(SpdyError::HeaderContent);
    }
    let mut headers = Headers::with_capacity(names);
    for _ in 0..names {
        let (name, value) = (text(&mut block)?, text(&mut block)?);
        headers.push((name.to_ascii_lowercase(), value));
    }
    Ok(headers)
}

fn number(block: &mut &[u8]) -> Result<usize, SpdyError> {
    let (number, rest) = block.split_first_chunk::<4>().ok_or(SpdyError::HeaderContent)?;
    *block = rest;
    usize::try_from(u32::from_be_bytes(*number)).map_err(|_| SpdyError::HeaderContent)
}

fn text(block: &mut &[u8]) -> Result<String, SpdyError> {
    let length = number(block)?;
    let (text, rest) = block.split_at_checked(length).ok_or(SpdyError::HeaderContent)?;
    *block = rest;
    String::from_utf8(text.to_vec()).map_err(|_| SpdyError::HeaderContent)
}
