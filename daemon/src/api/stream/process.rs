//! Between a client's streams and a process, whichever protocol carries them.

use super::LINGER;
use super::channels::Channels;
use super::lane::{Gone, Lane};
use super::protocol::{ERROR, RESIZE, STDERR, STDIN, STDOUT, Sizes, Verdict};
use super::spdy::Session;
use crate::pods::{Ended, Input, Output, PIECE_BYTES, Process, Stdio};
use std::time::Duration;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

/// How long a client may take to open the streams that it asked for.
const STREAMS_WITHIN: Duration = Duration::from_secs(30);

/// A client's streams.
struct Streams {
    stdin: Option<mpsc::Receiver<Vec<u8>>>,
    resize: Option<mpsc::Receiver<Vec<u8>>>,
    stdout: Option<Lane>,
    stderr: Option<Lane>,
    error: Lane,
    verdict: Verdict,
    gone: CancellationToken,
}

/// The channels on which a client sends.
pub fn incoming(asked: Stdio) -> impl Iterator<Item = u8> {
    [(asked.stdin, STDIN), (asked.tty, RESIZE)].into_iter().filter_map(|(is, channel)| is.then_some(channel))
}

/// A conversation over a WebSocket's channels.
pub async fn over_channels(mut channels: Channels, asked: Stdio, verdict: Verdict, process: Process) {
    let streams = Streams {
        stdin: channels.take(STDIN),
        resize: channels.take(RESIZE),
        stdout: asked.stdout.then(|| channels.lane(STDOUT)),
        stderr: asked.stderr.then(|| channels.lane(STDERR)),
        error: channels.lane(ERROR),
        verdict,
        gone: channels.gone.clone(),
    };
    // The socket closes with the last of the lanes.
    drop(channels);
    // Clients take the first message, which is empty, for the sign that all is ready.
    let first = streams.stdout.as_ref().or(streams.stderr.as_ref()).unwrap_or(&streams.error);
    if first.send(Vec::new()).await.is_ok() {
        converse(process, streams).await;
    }
}

/// A conversation over the streams of a SPDY connection.
pub async fn over_spdy(mut session: Session, asked: Stdio, verdict: Verdict, process: Process) {
    let gathered = tokio::time::timeout(STREAMS_WITHIN, gather(&mut session, asked, verdict)).await;
    let Ok(Some(streams)) = gathered else {
        return tracing::debug!("a client did not open the streams that it asked for");
    };
    let Session { streams: surplus, ended, .. } = &mut session;
    // Further ones are for nothing, and must not fill the connection.
    let refuse = async {
        while let Some(stream) = surplus.recv().await {
            stream.lane.reset().await;
        }
        std::future::pending().await
    };
    tokio::select! {
        () = converse(process, streams) => {}
        () = refuse => {}
    }
    // Clients close when they have read the last word.
    let _ = tokio::time::timeout(LINGER, ended.cancelled()).await;
}

/// Waits for the client's streams; `None` if it goes before.
async fn gather(session: &mut Session, asked: Stdio, verdict: Verdict) -> Option<Streams> {
    let (mut stdin, mut stdout, mut stderr, mut resize, mut error) = (None, None, None, None, None);
    loop {
        let missing = [
            asked.stdin && stdin.is_none(),
            asked.stdout && stdout.is_none(),
            asked.stderr && stderr.is_none(),
            asked.tty && resize.is_none(),
        ];
        if !missing.contains(&true)
            && let Some(error) = error.take()
        {
            let gone = session.ended.clone();
            return Some(Streams { stdin, resize, stdout, stderr, error, verdict, gone });
        }
        let stream = session.streams.recv().await?;
        match stream.header("streamtype") {
            "stdin" => stdin = Some(stream.pieces),
            "resize" => resize = Some(stream.pieces),
            "stdout" => stdout = Some(stream.lane),
            "stderr" => stderr = Some(stream.lane),
            "error" => error = Some(stream.lane),
            _ => stream.lane.reset().await,
        }
    }
}

async fn converse(process: Process, streams: Streams) {
    let Process { input, mut output } = process;
    let Streams { stdin, resize, stdout, stderr, error, verdict, gone } = streams;
    let listening = listen(&mut output, stdout.as_ref(), stderr.as_ref());
    let ended = tokio::select! {
        ended = listening => ended,
        // Typing may be over long before the process is.
        () = async { speak(input, stdin, resize).await; std::future::pending::<()>().await } => return,
        () = gone.cancelled() => return,
    };
    let Ok(ended) = ended else { return };
    for lane in [stdout, stderr].into_iter().flatten() {
        lane.end().await;
    }
    let last = verdict.of(&ended);
    if last.is_empty() || error.send(last).await.is_ok() {
        error.end().await;
    }
}

/// Gives the client what the process says, as fast as it reads.
async fn listen(
    output: &mut mpsc::Receiver<Output>,
    stdout: Option<&Lane>,
    stderr: Option<&Lane>,
) -> Result<Ended, Gone> {
    while let Some(output) = output.recv().await {
        let (lane, bytes) = match output {
            Output::Stdout(bytes) => (stdout, bytes),
            Output::Stderr(bytes) => (stderr, bytes),
            Output::Ended(ended) => return Ok(ended),
        };
        if let Some(lane) = lane {
            lane.send(bytes).await?;
        }
    }
    Ok(Ended::Lost("the connection to the container broke".to_owned()))
}

/// Gives the process what the client says, as fast as it takes it.
async fn speak(
    to: mpsc::Sender<Input>,
    mut stdin: Option<mpsc::Receiver<Vec<u8>>>,
    mut resize: Option<mpsc::Receiver<Vec<u8>>>,
) {
    let mut sizes = Sizes::default();
    loop {
        let inputs: Vec<Input> = tokio::select! {
            bytes = next(&mut stdin) => match bytes {
                Some(bytes) => bytes.chunks(PIECE_BYTES).map(|piece| Input::Stdin(piece.to_vec())).collect(),
                None => {
                    stdin = None;
                    vec![Input::EndOfStdin]
                }
            },
            bytes = next(&mut resize) => match bytes {
                Some(bytes) => sizes.read(&bytes).map(Input::Resize).into_iter().collect(),
                None => {
                    resize = None;
                    Vec::new()
                }
            },
        };
        for input in inputs {
            // A process that has ended hears nothing; what it said last is still to be told.
            if to.send(input).await.is_err() {
                return;
            }
        }
    }
}

async fn next(pieces: &mut Option<mpsc::Receiver<Vec<u8>>>) -> Option<Vec<u8>> {
    match pieces {
        Some(pieces) => pieces.recv().await,
        None => std::future::pending().await,
    }
}
