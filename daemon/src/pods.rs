//! What the API asks of the agents: the streams of a pod on any desktop.

use futures::stream::BoxStream;
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::mpsc;

/// The most that goes as one piece to or from a process.
pub const PIECE_BYTES: usize = 32 << 10;

/// Pieces that wait in one direction. Beyond it the writer waits, so that a client who does not read holds up the
/// process and fills nobody's memory.
pub const PIECES_WAITING: usize = 8;

/// Which part of a container's log is asked for; the fields are the query parameters of the Kubernetes
/// `pods/{name}/log` request.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct LogOptions {
    /// Empty: the only container, or the first.
    pub container: String,
    pub follow: bool,
    pub previous: bool,
    pub timestamps: bool,
    pub tail_lines: Option<u64>,
    pub limit_bytes: Option<u64>,
    /// Lines not older than this many seconds.
    pub since_seconds: Option<u64>,
    /// Lines not older than this time (RFC 3339).
    pub since_time: Option<String>,
}

/// One pod, named so that a new pod of the same name is not taken for it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PodRef {
    pub namespace: String,
    pub name: String,
    pub uid: String,
    /// The desktop it is bound to.
    pub node: String,
}

/// Why a stream could not be had; the API turns it into a Kubernetes `Status`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
pub enum StreamError {
    /// The request cannot be met as things are (container not started, unknown container): 400.
    #[error("{0}")]
    BadRequest(String),
    #[error("{0}")]
    NotFound(String),
    /// The desktop or its Docker cannot be reached: 503.
    #[error("{0}")]
    Unavailable(String),
}

/// Which streams of a process are wanted, and whether they are a terminal's.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stdio {
    pub stdin: bool,
    pub stdout: bool,
    pub stderr: bool,
    pub tty: bool,
}

/// Which process of a pod a client wants to talk with.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProcessOptions {
    pub container: String,
    /// `None`: the container's own process.
    pub command: Option<Vec<String>>,
    pub stdio: Stdio,
}

/// The size of a terminal, in characters.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TerminalSize {
    pub width: u16,
    pub height: u16,
}

/// What a process is given.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Input {
    Stdin(Vec<u8>),
    EndOfStdin,
    Resize(TerminalSize),
}

/// What comes from a process.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Output {
    Stdout(Vec<u8>),
    Stderr(Vec<u8>),
    /// The last.
    Ended(Ended),
}

/// How a conversation with a process ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Ended {
    /// The process did; 0 for a container's own, whose code is in the pod's status.
    Exited(i32),
    /// It may still run: the way to it broke.
    Lost(String),
}

/// A conversation with a process. Whoever drops `input` has hung up.
#[derive(Debug)]
pub struct Process {
    pub input: mpsc::Sender<Input>,
    pub output: mpsc::Receiver<Output>,
}

impl Process {
    /// A conversation, and the ends that the process' side holds.
    pub fn channel() -> (Self, mpsc::Receiver<Input>, mpsc::Sender<Output>) {
        let (input, given) = mpsc::channel(PIECES_WAITING);
        let (said, output) = mpsc::channel(PIECES_WAITING);
        (Self { input, output }, given, said)
    }
}

/// A connection to a port of a pod.
pub trait Connection: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Connection for T {}

pub type ByteStream = BoxStream<'static, Result<Vec<u8>, std::io::Error>>;

/// Streams of pods, wherever they run.
#[async_trait::async_trait]
pub trait PodStreams: Send + Sync + 'static {
    async fn logs(&self, pod: &PodRef, options: &LogOptions) -> Result<ByteStream, StreamError>;
    async fn process(&self, pod: &PodRef, options: &ProcessOptions) -> Result<Process, StreamError>;
    async fn port(&self, pod: &PodRef, port: u16) -> Result<Box<dyn Connection>, StreamError>;
}

#[cfg(test)]
pub mod fake {
    //! A process for tests, which does what its command says.

    use super::*;
    use tokio::sync::Semaphore;

    /// Given one by each `deaf` process that its client has left.
    pub static LEFT: Semaphore = Semaphore::const_new(0);

    /// `cat`, `exit CODE`, `complain TEXT`, `flood PIECES`, `deaf`, which takes nothing; a container's own process greets, then does as `cat`.
    pub fn process(options: &ProcessOptions) -> Process {
        let (process, given, said) = Process::channel();
        let words = options.command.clone().unwrap_or_else(|| vec!["greet".into()]);
        tokio::spawn(async move {
            let code = run(&words, given, &said).await.unwrap_or(1);
            let _ = said.send(Output::Ended(Ended::Exited(code))).await;
        });
        process
    }

    async fn run(
        words: &[String],
        mut given: mpsc::Receiver<Input>,
        said: &mpsc::Sender<Output>,
    ) -> Result<i32, mpsc::error::SendError<Output>> {
        let argument = words.get(1).cloned().unwrap_or_default();
        match words[0].as_str() {
            "exit" => return Ok(argument.parse().unwrap()),
            "complain" => said.send(Output::Stderr(argument.into_bytes())).await?,
            "flood" => {
                for piece in 0..argument.parse::<usize>().unwrap() {
                    said.send(Output::Stdout(vec![piece as u8; PIECE_BYTES])).await?;
                }
            }
            "deaf" => {
                said.closed().await;
                LEFT.add_permits(1);
            }
            word => {
                if word == "greet" {
                    said.send(Output::Stdout(b"hello\n".to_vec())).await?;
                }
                while let Some(input) = given.recv().await {
                    match input {
                        Input::Stdin(bytes) => said.send(Output::Stdout(bytes)).await?,
                        Input::EndOfStdin => break,
                        Input::Resize(TerminalSize { width, height }) => {
                            said.send(Output::Stdout(format!("{width}x{height}\n").into_bytes())).await?;
                        }
                    }
                }
            }
        }
        Ok(0)
    }
}
