//! Processes and ports of pods on another desktop: a request, an answer, and then what both sides say.

use super::pods::Peer;
use super::{HEAD_LIMIT, SERVED, STREAMS};
use crate::agent::Agent;
use crate::pods::{
    Ended, Input, Output, PIECE_BYTES, PodRef, Process, ProcessOptions, StreamError, TerminalSize,
};
use crate::wire::{read_bytes, read_frame, write_bytes, write_frame};
use gaggle_gossip::transport::{Stream, Transport};
use serde::{Deserialize, Serialize};
use std::io;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncWriteExt, ReadHalf, WriteHalf};
use tokio::sync::{Semaphore, mpsc};

/// How long the other desktop may take: its engine has to begin a process, and a busy one needs seconds.
const HEAD_WITHIN: Duration = Duration::from_secs(60);
/// How long a desktop that has said everything waits until the other has read it.
const LINGER: Duration = Duration::from_secs(10);
/// One piece, and the byte that says what it is; the reason of an end is cut to as much.
const FRAME_BYTES: usize = PIECE_BYTES + 1;

#[derive(Clone, Debug, Serialize, Deserialize)]
enum Request {
    Process(PodRef, ProcessOptions),
    Port(PodRef, u16),
}

type Head = Result<(), StreamError>;

/// What a frame's first byte says.
mod kind {
    pub const STDIN: u8 = 0;
    pub const END_OF_STDIN: u8 = 1;
    pub const RESIZE: u8 = 2;
    pub const STDOUT: u8 = 3;
    pub const STDERR: u8 = 4;
    pub const EXITED: u8 = 5;
    pub const LOST: u8 = 6;
}

/// A conversation with a process on another desktop.
pub async fn process(
    peer: &Peer<'_>,
    pod: &PodRef,
    options: &ProcessOptions,
) -> Result<Process, StreamError> {
    let request = Request::Process(pod.clone(), options.clone());
    let stream = peer.ask(STREAMS, &request, HEAD_WITHIN).await?;
    let (process, given, said) = Process::channel();
    let node = peer.name.to_owned();
    tokio::spawn(async move {
        let (reading, writing) = tokio::io::split(stream);
        let broken = tokio::select! {
            broken = hear(reading, &said) => broken,
            () = speak(writing, given) => return,
            () = said.closed() => return,
        };
        if let Some(error) = broken {
            let why = format!("the connection to the desktop {node} broke: {error}");
            // A client who hung up meanwhile does not want to know.
            let _ = said.send(Output::Ended(Ended::Lost(why))).await;
        }
    });
    Ok(process)
}

/// A connection to a port of a pod on another desktop.
pub async fn port(peer: &Peer<'_>, pod: &PodRef, port: u16) -> Result<Stream, StreamError> {
    peer.ask(STREAMS, &Request::Port(pod.clone(), port), HEAD_WITHIN).await
}

/// Passes on what the process says, to its end or that of the connection.
async fn hear(mut reading: ReadHalf<Stream>, said: &mpsc::Sender<Output>) -> Option<io::Error> {
    loop {
        let output = match read_bytes(&mut reading, FRAME_BYTES).await.and_then(|frame| output(&frame)) {
            Ok(output) => output,
            Err(error) => return Some(error),
        };
        let last = matches!(output, Output::Ended(_));
        if said.send(output).await.is_err() || last {
            return None;
        }
    }
}

/// Passes on what the client says, until it hangs up.
async fn speak(mut writing: WriteHalf<Stream>, mut given: mpsc::Receiver<Input>) {
    while let Some(input) = given.recv().await {
        if write_bytes(&mut writing, &input_frame(&input)).await.is_err() {
            // Reading finds out why.
            return std::future::pending().await;
        }
    }
}

fn input_frame(input: &Input) -> Vec<u8> {
    match input {
        Input::Stdin(bytes) => frame(kind::STDIN, bytes),
        Input::EndOfStdin => frame(kind::END_OF_STDIN, &[]),
        Input::Resize(TerminalSize { width, height }) => {
            frame(kind::RESIZE, &[width.to_be_bytes(), height.to_be_bytes()].concat())
        }
    }
}

fn input(frame: &[u8]) -> io::Result<Input> {
    match frame.split_first() {
        Some((&kind::STDIN, bytes)) => Ok(Input::Stdin(bytes.to_vec())),
        Some((&kind::END_OF_STDIN, [])) => Ok(Input::EndOfStdin),
        Some((&kind::RESIZE, &[w1, w2, h1, h2])) => Ok(Input::Resize(TerminalSize {
            width: u16::from_be_bytes([w1, w2]),
            height: u16::from_be_bytes([h1, h2]),
        })),
        _ => Err(io::ErrorKind::InvalidData.into()),
    }
}

fn output_frame(output: &Output) -> Vec<u8> {
    match output {
        Output::Stdout(bytes) => frame(kind::STDOUT, bytes),
        Output::Stderr(bytes) => frame(kind::STDERR, bytes),
        Output::Ended(Ended::Exited(code)) => frame(kind::EXITED, &code.to_be_bytes()),
        Output::Ended(Ended::Lost(why)) => frame(kind::LOST, &why.as_bytes()[..why.len().min(PIECE_BYTES)]),
    }
}

fn output(frame: &[u8]) -> io::Result<Output> {
    match frame.split_first() {
        Some((&kind::STDOUT, bytes)) => Ok(Output::Stdout(bytes.to_vec())),
        Some((&kind::STDERR, bytes)) => Ok(Output::Stderr(bytes.to_vec())),
        Some((&kind::EXITED, &[a, b, c, d])) => {
            Ok(Output::Ended(Ended::Exited(i32::from_be_bytes([a, b, c, d]))))
        }
        Some((&kind::LOST, why)) => Ok(Output::Ended(Ended::Lost(String::from_utf8_lossy(why).into_owned()))),
        _ => Err(io::ErrorKind::InvalidData.into()),
    }
}

fn frame(kind: u8, bytes: &[u8]) -> Vec<u8> {
    let mut frame = Vec::with_capacity(bytes.len() + 1);
    frame.push(kind);
    frame.extend_from_slice(bytes);
    frame
}

/// Serves processes and ports of this desktop's pods until the transport ends.
pub async fn serve_streams(transport: Transport, agent: Agent) {
    let mut acceptor = match transport.accept(STREAMS, SERVED) {
        Ok(acceptor) => acceptor,
        Err(error) => return tracing::error!(%error, "pods' streams cannot be served to other desktops"),
    };
    let places = Arc::new(Semaphore::new(STREAMS_SERVED));
    loop {
        let Ok(place) = places.clone().acquire_owned().await else { return };
        let Some((peer, stream)) = acceptor.next().await else { return };
        let agent = agent.clone();
        tokio::spawn(async move {
            let _place = place;
            if let Err(error) = serve_one(stream, &agent).await {
                tracing::debug!(%peer, %error, "a stream into a pod ended early");
            }
        });
    }
}

/// Streams served at once. Each forwarded connection is one, and a browser makes many; a further one waits.
const STREAMS_SERVED: usize = 512;

async fn serve_one(mut stream: Stream, agent: &Agent) -> io::Result<()> {
    // Whether the pod is this desktop's is the agent's to say.
    match read_frame(&mut stream, HEAD_LIMIT).await? {
        Request::Process(pod, options) => match agent.process(&pod, &options).await {
            Ok(process) => {
                write_frame(&mut stream, &Head::Ok(())).await?;
                serve_process(stream, process).await
            }
            Err(error) => write_frame(&mut stream, &Head::Err(error)).await,
        },
        Request::Port(pod, port) => match agent.port(&pod, port).await {
            Ok(mut connection) => {
                write_frame(&mut stream, &Head::Ok(())).await?;
                tokio::io::copy_bidirectional(&mut stream, &mut connection).await.map(drop)
            }
            Err(error) => write_frame(&mut stream, &Head::Err(error)).await,
        },
    }
}

async fn serve_process(stream: Stream, process: Process) -> io::Result<()> {
    let Process { input: to, mut output } = process;
    let (mut reading, mut writing) = tokio::io::split(stream);
    let taking = async {
        loop {
            let input = read_bytes(&mut reading, FRAME_BYTES).await.and_then(|frame| input(&frame))?;
            if to.send(input).await.is_err() {
                // It has ended: what is said to it is lost, and the end of the connection awaited.
                return tokio::io::copy(&mut reading, &mut tokio::io::sink()).await.map(drop);
            }
        }
    };
    let giving = async {
        while let Some(output) = output.recv().await {
            write_bytes(&mut writing, &output_frame(&output)).await?;
        }
        writing.shutdown().await
    };
    tokio::pin!(taking);
    tokio::select! {
        // Whoever asked is gone.
        gone = &mut taking => gone,
        given = giving => {
            given?;
            let _ = tokio::time::timeout(LINGER, taking).await;
            Ok(())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pods::{Stdio, fake};
    use gaggle_gossip::PeerId;
    use gaggle_gossip::transport::MemoryHub;
    use proptest::prelude::*;

    /// Plays a desktop whose processes do as they are told.
    fn play(transport: &Transport) {
        let mut acceptor = transport.accept(STREAMS, 4).unwrap();
        tokio::spawn(async move {
            while let Some((_, mut stream)) = acceptor.next().await {
                tokio::spawn(async move {
                    let request: Request = read_frame(&mut stream, HEAD_LIMIT).await.unwrap();
                    let Request::Process(_, options) = request else { panic!("{request:?}") };
                    write_frame(&mut stream, &Head::Ok(())).await.unwrap();
                    let _ = serve_process(stream, fake::process(&options)).await;
                });
            }
        });
    }

    #[tokio::test]
    async fn a_conversation_crosses_desktops_and_its_loss_is_told() {
        let hub = MemoryHub::new();
        let (asking, serving) = (hub.transport(PeerId::random()), hub.transport(PeerId::random()));
        play(&serving);
        let peer = Peer { name: "d2", id: serving.local(), transport: &asking };
        let (namespace, name, uid) = ("default".to_owned(), "web".to_owned(), "u".to_owned());
        let pod = PodRef { namespace, name, uid, node: "d2".to_owned() };
        let options = |command: &[&str]| ProcessOptions {
            container: "main".to_owned(),
            command: Some(command.iter().map(|&word| word.to_owned()).collect()),
            stdio: Stdio { stdin: true, stdout: true, stderr: true, tty: false },
        };
        let mut cat = process(&peer, &pod, &options(&["cat"])).await.unwrap();
        for piece in [b"hello".to_vec(), vec![7; PIECE_BYTES]] {
            cat.input.send(Input::Stdin(piece.clone())).await.unwrap();
            assert_eq!(cat.output.recv().await, Some(Output::Stdout(piece)));
        }
        cat.input.send(Input::EndOfStdin).await.unwrap();
        assert_eq!(cat.output.recv().await, Some(Output::Ended(Ended::Exited(0))));
        assert_eq!(cat.output.recv().await, None);

        // What was not read when it ended is there all the same.
        let mut flood = process(&peer, &pod, &options(&["flood", "100"])).await.unwrap();
        for piece in 0..100 {
            assert_eq!(flood.output.recv().await, Some(Output::Stdout(vec![piece; PIECE_BYTES])));
        }
        assert_eq!(flood.output.recv().await, Some(Output::Ended(Ended::Exited(0))));

        let mut lost = process(&peer, &pod, &options(&["cat"])).await.unwrap();
        hub.cut(asking.local(), serving.local());
        let Some(Output::Ended(Ended::Lost(why))) = lost.output.recv().await else { panic!("not lost") };
        assert!(why.starts_with("the connection to the desktop d2 broke"), "{why}");
    }

    #[test]
    fn what_is_said_comes_over() {
        let size = TerminalSize { width: 80, height: 300 };
        for said in [Input::Stdin(vec![1, 2]), Input::EndOfStdin, Input::Resize(size)] {
            assert_eq!(input(&input_frame(&said)).unwrap(), said);
        }
        let (code, why) = (Ended::Exited(-3), Ended::Lost("gone".into()));
        for said in [
            Output::Stdout(vec![]),
            Output::Stderr(vec![7; PIECE_BYTES]),
            Output::Ended(code),
            Output::Ended(why),
        ] {
            let frame = output_frame(&said);
            assert!(frame.len() <= FRAME_BYTES);
            assert_eq!(output(&frame).unwrap(), said);
        }
    }

    proptest! {
        #[test]
        fn no_frame_breaks_anything(frame: Vec<u8>) {
            let _ = (input(&frame), output(&frame));
        }
    }
}
