//! `channel.k8s.io`: several streams in the messages of one WebSocket, in all the versions that clients still ask
//! for. Pure.

use crate::pods::TerminalSize;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::Deserialize;

pub const STDIN: u8 = 0;
pub const STDOUT: u8 = 1;
pub const STDERR: u8 = 2;
/// How the conversation ended.
pub const ERROR: u8 = 3;
pub const RESIZE: u8 = 4;
/// Since the fifth version: the channel in the next byte ends.
const CLOSE: u8 = 255;

/// The most that is kept of sizes that are not whole.
const SIZES_BYTES: usize = 4 << 10;

/// How the end of a conversation is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// A `Status` object, with the exit code in it.
    Status,
    /// Nothing, or the words of an error.
    Text,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Coding {
    Binary,
    Base64,
}

/// One version of the protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Protocol {
    /// As the handshake names it; empty where the client named none.
    pub name: &'static str,
    pub verdict: Verdict,
    coding: Coding,
    closes: bool,
}

const fn version(name: &'static str, verdict: Verdict, coding: Coding, closes: bool) -> Protocol {
    Protocol { name, verdict, coding, closes }
}

/// For processes.
pub const PROCESS: &[Protocol] = &[
    version("v5.channel.k8s.io", Verdict::Status, Coding::Binary, true),
    version("v4.channel.k8s.io", Verdict::Status, Coding::Binary, false),
    version("v4.base64.channel.k8s.io", Verdict::Status, Coding::Base64, false),
    version("channel.k8s.io", Verdict::Text, Coding::Binary, false),
    version("base64.channel.k8s.io", Verdict::Text, Coding::Base64, false),
    version("", Verdict::Text, Coding::Binary, false),
];

/// For ports.
pub const PORTS: &[Protocol] = &[
    version("v4.channel.k8s.io", Verdict::Text, Coding::Binary, false),
    version("v4.base64.channel.k8s.io", Verdict::Text, Coding::Base64, false),
    version("", Verdict::Text, Coding::Binary, false),
];

/// The first of the client's protocols that is known; one who offers none gets the nameless.
pub fn negotiate(offered: &[&str], known: &'static [Protocol]) -> Option<Protocol> {
    let find = |name: &str| known.iter().find(|protocol| protocol.name == name).copied();
    match offered {
        [] => find(""),
        offered => offered.iter().filter(|name| !name.is_empty()).find_map(|name| find(name)),
    }
}

/// What a message says.
#[derive(Debug, PartialEq, Eq)]
pub enum Message {
    Data { channel: u8, bytes: Vec<u8> },
    End { channel: u8 },
}

impl Protocol {
    /// Reads a client's message; `None` if it makes no sense.
    pub fn read(self, message: &[u8]) -> Option<Message> {
        let (&first, rest) = message.split_first()?;
        if self.coding == Coding::Base64 {
            let channel = first.checked_sub(b'0')?;
            return Some(Message::Data { channel, bytes: STANDARD.decode(rest).ok()? });
        }
        if self.closes && first == CLOSE {
            let [channel] = rest else { return None };
            return Some(Message::End { channel: *channel });
        }
        Some(Message::Data { channel: first, bytes: rest.to_vec() })
    }

    /// A message with data for a client.
    pub fn write(self, channel: u8, bytes: &[u8]) -> Written {
        match self.coding {
            Coding::Binary => {
                let mut message = Vec::with_capacity(bytes.len() + 1);
                message.push(channel);
                message.extend_from_slice(bytes);
                Written::Binary(message)
            }
            Coding::Base64 => {
                let mut message = String::from(char::from(b'0'.saturating_add(channel)));
                STANDARD.encode_string(bytes, &mut message);
                Written::Text(message)
            }
        }
    }
}

#[derive(Debug, PartialEq, Eq)]
pub enum Written {
    Binary(Vec<u8>),
    Text(String),
}

/// Reads terminal sizes from JSON objects that follow one another.
#[derive(Debug, Default)]
pub struct Sizes(Vec<u8>);

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Size {
    width: u16,
    height: u16,
}

impl Sizes {
    /// The last whole size in what arrived: the ones before it do not matter any more.
    pub fn read(&mut self, bytes: &[u8]) -> Option<TerminalSize> {
        self.0.extend_from_slice(bytes);
        let mut sizes = serde_json::Deserializer::from_slice(&self.0).into_iter::<Size>();
        let (mut last, mut broken) = (None, false);
        for size in sizes.by_ref() {
            match size {
                Ok(Size { width, height }) => last = Some(TerminalSize { width, height }),
                Err(error) => {
                    broken = !error.is_eof();
                    // Asked again, it would take what is not whole for read.
                    break;
                }
            }
        }
        let used = sizes.byte_offset();
        if broken || self.0.len() > SIZES_BYTES {
            self.0.clear();
        } else {
            self.0.drain(..used);
        }
        last
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn named(name: &str) -> Protocol {
        negotiate(&[name], PROCESS).unwrap()
    }

    #[test]
    fn the_clients_first_known_protocol_is_taken() {
        let name = |offered: &[&str]| negotiate(offered, PROCESS).map(|protocol| protocol.name);
        assert_eq!(
            name(&["v9.channel.k8s.io", "v4.channel.k8s.io", "v5.channel.k8s.io"]),
            Some("v4.channel.k8s.io")
        );
        assert_eq!(name(&[]), Some(""));
        assert_eq!((name(&["graphql"]), name(&[""])), (None, None));
        assert_eq!(negotiate(&["v5.channel.k8s.io"], PORTS), None);
    }

    #[test]
    fn only_the_fifth_version_ends_channels() {
        assert_eq!(named("v5.channel.k8s.io").read(&[255, 0]), Some(Message::End { channel: 0 }));
        assert_eq!(named("v5.channel.k8s.io").read(&[255]), None);
        let data = Message::Data { channel: 255, bytes: vec![0] };
        assert_eq!(named("v4.channel.k8s.io").read(&[255, 0]), Some(data));
        assert_eq!(named("base64.channel.k8s.io").read(b"0not base64"), None);
        assert_eq!(named("v5.channel.k8s.io").read(b""), None);
    }

    #[test]
    fn the_newest_whole_size_counts() {
        let mut sizes = Sizes::default();
        assert_eq!(sizes.read(br#"{"Width":80,"Hei"#), None);
        let both = br#"ght":24}{"Width":100,"Height":50}{"#;
        assert_eq!(sizes.read(both), Some(TerminalSize { width: 100, height: 50 }));
        assert_eq!(sizes.read(br#""Width":1,"Height":2}"#), Some(TerminalSize { width: 1, height: 2 }));
        assert_eq!(sizes.read(b"nonsense"), None);
        assert_eq!(sizes.read(br#"{"Width":3,"Height":4}"#), Some(TerminalSize { width: 3, height: 4 }));
        assert_eq!(sizes.read(&[b' '; 2 * SIZES_BYTES]), None);
        assert!(sizes.0.is_empty());
    }

    proptest! {
        #[test]
        fn what_is_written_can_be_read(channel in 0u8..5, bytes: Vec<u8>, version in 0..PROCESS.len()) {
            let protocol = PROCESS[version];
            let message = match protocol.write(channel, &bytes) {
                Written::Binary(message) => message,
                Written::Text(message) => message.into_bytes(),
            };
            prop_assert_eq!(protocol.read(&message), Some(Message::Data { channel, bytes }));
        }

        #[test]
        fn no_message_and_no_size_breaks_anything(message: Vec<u8>, version in 0..PROCESS.len()) {
            let _ = PROCESS[version].read(&message);
            let mut sizes = Sizes::default();
            let _ = sizes.read(&message);
            let _ = sizes.read(&message);
            prop_assert!(sizes.0.len() <= SIZES_BYTES + message.len());
        }
    }
}
