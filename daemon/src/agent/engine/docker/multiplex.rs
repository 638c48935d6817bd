//! How Docker sends two streams over one connection where there is no terminal: pieces with a head of eight bytes,
//! which say the stream and the length. Pure.

use crate::pods::{Ended, Output};

const HEAD_BYTES: usize = 8;

/// Takes the streams apart, whatever pieces they arrive in. Keeps nothing but a head that is not whole.
#[derive(Debug, Default)]
pub struct Demultiplexer {
    head: [u8; HEAD_BYTES],
    have: usize,
    /// What is still to come of the present piece.
    left: usize,
}

impl Demultiplexer {
    /// What `bytes` hold, in their order.
    pub fn take(&mut self, mut bytes: &[u8]) -> Vec<Output> {
        let mut found = Vec::new();
        while !bytes.is_empty() {
            if self.left == 0 {
                let missing = (HEAD_BYTES - self.have).min(bytes.len());
                self.head[self.have..self.have + missing].copy_from_slice(&bytes[..missing]);
                self.have += missing;
                bytes = &bytes[missing..];
                if self.have == HEAD_BYTES {
                    let [_, _, _, _, length @ ..] = self.head;
                    self.left = usize::try_from(u32::from_be_bytes(length)).unwrap_or(usize::MAX);
                    self.have = 0;
                }
                continue;
            }
            let (piece, rest) = bytes.split_at(self.left.min(bytes.len()));
            self.left -= piece.len();
            bytes = rest;
            found.push(match self.head[0] {
                2 => Output::Stderr(piece.to_vec()),
                // Docker's own words about a stream that broke.
                3 => Output::Ended(Ended::Lost(String::from_utf8_lossy(piece).into_owned())),
                _ => Output::Stdout(piece.to_vec()),
            });
        }
        found
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn frame(stream: u8, bytes: &[u8]) -> Vec<u8> {
        let length = u32::try_from(bytes.len()).unwrap().to_be_bytes();
        [&[stream, 0, 0, 0], length.as_slice(), bytes].concat()
    }

    fn streams(outputs: Vec<Output>) -> (Vec<u8>, Vec<u8>) {
        let (mut out, mut err) = (Vec::new(), Vec::new());
        for output in outputs {
            match output {
                Output::Stdout(bytes) => out.extend(bytes),
                Output::Stderr(bytes) => err.extend(bytes),
                Output::Ended(_) => panic!("nothing ended"),
            }
        }
        (out, err)
    }

    proptest! {
        #[test]
        fn streams_come_apart_wherever_they_are_cut(
            pieces in prop::collection::vec((1u8..=2, prop::collection::vec(any::<u8>(), 0..40)), 0..8),
            cut in 1usize..50,
        ) {
            let whole: Vec<u8> = pieces.iter().flat_map(|(stream, bytes)| frame(*stream, bytes)).collect();
            let mut demultiplexer = Demultiplexer::default();
            let found = whole.chunks(cut).flat_map(|chunk| demultiplexer.take(chunk)).collect();
            let of = |wanted: u8| -> Vec<u8> {
                pieces.iter().filter(|(stream, _)| *stream == wanted).flat_map(|(_, bytes)| bytes.clone()).collect()
            };
            prop_assert_eq!(streams(found), (of(1), of(2)));
        }
    }
}
