//! Processes and ports of pods on another desktop: a request, an answer, and then what both sides say.

use super::pods::Peer;
use super::{STREAMS, request, serve};
use crate::agent::Agent;
use crate::pods::{
    Ended, Input, Output, PIECE_BYTES, PodRef, Process, ProcessOptions, StreamError, TerminalSize,
};
use crate::wire::{read_bytes, write_bytes, write_frame};
use gaggle_gossip::transport::{Stream, Transport};
use serde::{Deserialize, Serialize};
use std::io;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadHalf, WriteHalf};
use tokio::net::TcpStream;
use tokio::sync::mpsc;

/// How long the other desktop may take: its engine has to begin a process, and a busy one needs seconds.
const HEAD_WITHIN: Duration = Duration::from_secs(60);
/// How long a desktop that has said everything waits until the other has read it.
const LINGER: Duration = Duration::from_secs(10);
/// Who asked is sent a sign of life where the process says nothing: it cannot be sent once they are gone, which is
/// the only thing that tells while the process takes no input.
const ALIVE_EVERY: Duration = Duration::from_secs(15);
/// As long as Kubernetes keeps a forwarded connection on which nothing moves.
const PORT_IDLE: Duration = Duration::from_hours(4);
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
    pub const ALIVE: u8 = 7;
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
        let output = match read_bytes(&mut reading, FRAME_BYTES).await {
            Ok(frame) if frame == [kind::ALIVE] => continue,
            Ok(frame) => match output(&frame) {
                Ok(output) => output,
                Err(error) => return Some(error),
            },
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
    serve(transport, STREAMS, STREAMS_SERVED, |stream| serve_one(stream, agent.clone())).await;
}

/// Streams served at once. Each forwarded connection is one, and a browser makes many; a further one waits.
const STREAMS_SERVED: usize = 512;

async fn serve_one(mut stream: Stream, agent: Agent) -> io::Result<()> {
    // Whether the pod is this desktop's is the agent's to say.
    match request(&mut stream).await? {
        Request::Process(pod, options) => match agent.process(&pod, &options).await {
            Ok(process) => {
                write_frame(&mut stream, &Head::Ok(())).await?;
                serve_process(stream, process).await
            }
            Err(error) => write_frame(&mut stream, &Head::Err(error)).await,
        },
        Request::Port(pod, port) => match agent.port(&pod, port).await {
            Ok(connection) => {
                write_frame(&mut stream, &Head::Ok(())).await?;
                serve_port(stream, connection).await
            }
            Err(error) => write_frame(&mut stream, &Head::Err(error)).await,
        },
    }
}

/// Copies both ways until both have ended. Where the pod takes nothing and says nothing, nothing tells that whoever
/// asked is gone, but that nothing moves.
async fn serve_port(stream: Stream, connection: TcpStream) -> io::Result<()> {
    let moves = AtomicU64::new(0);
    let (from_client, to_client) = tokio::io::split(stream);
    let (from_pod, to_pod) = connection.into_split();
    let copies = async {
        tokio::try_join!(carry(from_client, to_pod, &moves), carry(from_pod, to_client, &moves)).map(drop)
    };
    let idle = async {
        let mut seen = None;
        while seen != Some(moves.load(Ordering::Relaxed)) {
            seen = Some(moves.load(Ordering::Relaxed));
            tokio::time::sleep(PORT_IDLE).await;
        }
    };
    tokio::select! {
        copied = copies => copied,
        () = idle => Err(io::ErrorKind::TimedOut.into()),
    }
}

async fn carry(
    mut from: impl AsyncRead + Unpin,
    mut to: impl AsyncWrite + Unpin,
    moves: &AtomicU64,
) -> io::Result<()> {
    let mut buffer = vec![0; PIECE_BYTES];
    while let length @ 1.. = from.read(&mut buffer).await? {
        to.write_all(&buffer[..length]).await?;
        to.flush().await?;
        moves.fetch_add(1, Ordering::Relaxed);
    }
    to.shutdown().await
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
        loop {
            let frame = match tokio::time::timeout(ALIVE_EVERY, output.recv()).await {
                Ok(Some(output)) => output_frame(&output),
                Ok(None) => return writing.shutdown().await,
                Err(_) => vec![kind::ALIVE],
            };
            write_bytes(&mut writing, &frame).await?;
        }
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
    use crate::pods::{PIECES_WAITING, Stdio, fake};
    use gaggle_gossip::PeerId;
    use gaggle_gossip::transport::MemoryHub;
    use proptest::prelude::*;

    /// Plays a desktop whose processes do as they are told.
    fn play(transport: &Transport) {
        let mut acceptor = transport.accept(STREAMS, 4).unwrap();
        tokio::spawn(async move {
            while let Some((_, mut stream)) = acceptor.next().await {
                tokio::spawn(async move {
                    let request: Request = request(&mut stream).await.unwrap();
                    let Request::Process(_, options) = request else { panic!("{request:?}") };
                    write_frame(&mut stream, &Head::Ok(())).await.unwrap();
                    let _ = serve_process(stream, fake::process(&options)).await;
                });
            }
        });
    }

    /// Only a hang reaches it.
    const DEADLINE: Duration = Duration::from_secs(60);

    fn pod() -> PodRef {
        let (namespace, name, uid) = ("default".to_owned(), "web".to_owned(), "u".to_owned());
        PodRef { namespace, name, uid, node: "d2".to_owned() }
    }

    fn options(command: &[&str]) -> ProcessOptions {
        ProcessOptions {
            container: "main".to_owned(),
            command: Some(command.iter().map(|&word| word.to_owned()).collect()),
            stdio: Stdio { stdin: true, stdout: true, stderr: true, tty: false },
        }
    }

    #[tokio::test]
    async fn a_conversation_crosses_desktops_and_its_loss_is_told() {
        let hub = MemoryHub::new();
        let (asking, serving) = (hub.transport(PeerId::random()), hub.transport(PeerId::random()));
        play(&serving);
        let peer = Peer { name: "d2", id: serving.local(), transport: &asking };
        let pod = pod();
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

    /// Only a sign of life that cannot be sent tells, while the process takes nothing.
    #[tokio::test(start_paused = true)]
    async fn a_process_that_reads_nothing_is_left_by_a_client_that_is_gone() {
        let hub = MemoryHub::new();
        let (asking, serving) = (hub.transport(PeerId::random()), hub.transport(PeerId::random()));
        let mut acceptor = serving.accept(STREAMS, 4).unwrap();
        let (played, mut given, said) = Process::channel();
        let served = tokio::spawn(async move {
            let (_, mut stream) = acceptor.next().await.unwrap();
            let _: Request = request(&mut stream).await.unwrap();
            write_frame(&mut stream, &Head::Ok(())).await.unwrap();
            serve_process(stream, played).await
        });
        let peer = Peer { name: "d2", id: serving.local(), transport: &asking };
        let mut deaf = process(&peer, &pod(), &options(&["deaf"])).await.unwrap();
        // Signs of life are not for the client.
        tokio::time::sleep(3 * ALIVE_EVERY).await;
        said.send(Output::Stdout(b"later".to_vec())).await.unwrap();
        assert_eq!(deaf.output.recv().await, Some(Output::Stdout(b"later".to_vec())));
        // As much as the way there holds.
        while deaf.input.try_send(Input::Stdin(vec![0; PIECE_BYTES])).is_ok() || given.len() < PIECES_WAITING
        {
            tokio::task::yield_now().await;
        }
        drop(deaf);
        tokio::time::timeout(DEADLINE, said.closed()).await.expect("the process' desktop does not notice");
        served.await.unwrap().unwrap_err();
        // What had arrived, and then the end.
        while given.recv().await.is_some() {}
    }

    #[tokio::test]
    async fn a_port_is_carried_to_the_end_of_both_sides() {
        let hub = MemoryHub::new();
        let (asking, serving) = (hub.transport(PeerId::random()), hub.transport(PeerId::random()));
        let mut acceptor = serving.accept(STREAMS, 4).unwrap();
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let pod_side = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        let served = tokio::spawn(async move {
            let (_, stream) = acceptor.next().await.unwrap();
            serve_port(stream, pod_side).await
        });
        let mut client = asking.open(serving.local(), STREAMS).await.unwrap();
        let (mut server, _) = listener.accept().await.unwrap();
        client.write_all(&[1; 200_000]).await.unwrap();
        client.shutdown().await.unwrap();
        let mut heard = Vec::new();
        server.read_to_end(&mut heard).await.unwrap();
        assert_eq!(heard, [1; 200_000]);
        server.write_all(b"and back").await.unwrap();
        drop(server);
        let mut back = Vec::new();
        client.read_to_end(&mut back).await.unwrap();
        assert_eq!(back, b"and back");
        served.await.unwrap().unwrap();
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
