//! SPDY/3.1, as far as Kubernetes' clients speak it: streams that the client opens, within one connection.
//!
//! They ask for it where a connection has to carry any number of streams (`port-forward`), and before they learned
//! WebSockets for everything. Their dialect has no flow control: nobody counts windows, and who has enough stops
//! reading the connection. So it is here.
//!
//! `frame`, `headers` and `connection` are pure; `shell` is the task around them.

mod connection;
mod dictionary;
mod frame;
mod headers;
mod shell;
#[cfg(test)]
pub mod tests;

pub use shell::{Opened, Session, serve};

/// Why a connection cannot go on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SpdyError {
    #[error("a frame of another version of SPDY")]
    Version,
    #[error("a control frame of {0} bytes")]
    FrameSize(usize),
    #[error("a control frame that is too short for what it says")]
    FrameContent,
    #[error("a header block that cannot be decompressed")]
    Compression,
    #[error("a header block of more than {} bytes", headers::BLOCK_BYTES)]
    HeaderSize,
    #[error("a header block that does not hold what it says")]
    HeaderContent,
}
