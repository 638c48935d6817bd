//! Conversations with processes in containers, over connections that Docker hands over.

use super::multiplex::Demultiplexer;
use super::{Docker, inside};
use crate::agent::engine::{EndOfInput, Engine, EngineError, Found, RunState};
use crate::pods::{Ended, Input, Output, PIECE_BYTES, Process, Stdio, TerminalSize};
use bollard::exec::ResizeExecOptions;
use bollard::query_parameters::ResizeContainerTTYOptions;
use hyper::upgrade::Upgraded;
use hyper_util::rt::TokioIo;
use serde_json::json;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt, ReadHalf, WriteHalf};
use tokio::sync::mpsc;

/// Docker closes a command's streams a moment before it notes the exit code, and tells nobody when: it is asked so
/// often, with this pause.
const EXIT_LOOKS: u32 = 100;
const EXIT_PAUSE: Duration = Duration::from_millis(20);

/// Docker ends a conversation at a terminal when it is typed Ctrl-P, Ctrl-Q, and holds back what such a sequence
/// begins with. Kubernetes knows nothing of that, so that it is made one that nobody types.
const DETACH_KEYS: &str = "ctrl-^,ctrl-@,ctrl-^,ctrl-@,ctrl-^,ctrl-@";

/// What a command is said to have ended with that went with its container.
const KILLED: i32 = 137;

/// The other end of a conversation.
enum Peer {
    /// A command.
    Command { exec: String, container: String },
    /// A container's own process, by its container's id.
    Own(String),
}

/// Runs a command in a container.
pub async fn run(
    docker: &Docker,
    id: &str,
    command: &[String],
    stdio: Stdio,
) -> Result<Process, EngineError> {
    let config = bollard::models::ExecConfig {
        attach_stdin: Some(stdio.stdin),
        attach_stdout: Some(stdio.stdout),
        attach_stderr: Some(stdio.stderr),
        tty: Some(stdio.tty),
        detach_keys: stdio.tty.then(|| DETACH_KEYS.to_owned()),
        cmd: Some(command.to_vec()),
        ..Default::default()
    };
    let exec = docker.client.create_exec(id, config).await.map_err(docker.error_of())?.id;
    let body = json!({"Detach": false, "Tty": stdio.tty}).to_string();
    let stream = docker.hijack(&format!("/exec/{exec}/start"), body).await?;
    let peer = Peer::Command { exec, container: id.to_owned() };
    Ok(converse(docker.clone(), peer, stream, stdio, EndOfInput::Closes))
}

/// Talks with a container's own process.
pub async fn attach(
    docker: &Docker,
    id: &str,
    asked: Stdio,
    end: EndOfInput,
) -> Result<Process, EngineError> {
    let Stdio { stdin, stdout, stderr, tty } = asked;
    // A terminal's output is all on the one stream.
    let stderr = stderr || (tty && stdout);
    let [stdin, stdout, stderr] = [stdin, stdout, stderr].map(u8::from);
    let keys = DETACH_KEYS.replace('^', "%5E").replace('@', "%40").replace(',', "%2C");
    // Made for one conversation, which nothing that it said before must be missing from: what is short says all it has to
    // say before anybody is there.
    let logs = u8::from(end == EndOfInput::Closes);
    let query =
        format!("logs={logs}&stream=1&stdin={stdin}&stdout={stdout}&stderr={stderr}&detachKeys={keys}");
    let stream = docker.hijack(&format!("/containers/{id}/attach?{query}"), String::new()).await?;
    // Docker lets a client wait for the next start of a container that has ended: asked afterwards, since one that
    // ends from now on ends the conversation.
    match docker.inspect(id).await?.state {
        RunState::Running { .. } => {
            Ok(converse(docker.clone(), Peer::Own(id.to_owned()), stream, asked, end))
        }
        RunState::Created | RunState::Exited(_) => {
            Err(EngineError::Conflict(format!("container {id} is not running")))
        }
    }
}

fn converse(docker: Docker, peer: Peer, stream: TokioIo<Upgraded>, stdio: Stdio, end: EndOfInput) -> Process {
    let (process, given, said) = Process::channel();
    let (reading, writing) = tokio::io::split(stream);
    tokio::spawn(async move {
        let Stdio { stdin, tty, .. } = stdio;
        let heard = hear(reading, tty, &said);
        // Docker takes the end of a terminal's input, and of one that stays open, for the end of the conversation.
        let end = if tty { EndOfInput::Stays } else { end };
        // What goes where nobody reads would fill the way, and stop the rest.
        let writing = stdin.then_some(writing);
        let ended = tokio::select! {
            ended = heard => ended,
            () = speak(writing, given, end, &docker, &peer) => return docker.hang_up(&peer).await,
            // Also while the process takes nothing.
            () = said.closed() => return docker.hang_up(&peer).await,
        };
        let ended = match ended {
            Some(lost) => lost,
            None => docker.outcome(&peer).await,
        };
        // A client who hung up meanwhile does not want to know.
        let _ = said.send(Output::Ended(ended)).await;
    });
    process
}

/// Passes on what the process says, to its end; `Some` if it broke.
async fn hear(
    mut reading: ReadHalf<TokioIo<Upgraded>>,
    tty: bool,
    said: &mpsc::Sender<Output>,
) -> Option<Ended> {
    let mut streams = Demultiplexer::default();
    let mut buffer = vec![0; PIECE_BYTES];
    loop {
        let bytes = match reading.read(&mut buffer).await {
            Ok(0) => return None,
            Ok(length) => &buffer[..length],
            Err(error) => return Some(Ended::Lost(format!("the connection to Docker broke: {error}"))),
        };
        let outputs = if tty { vec![Output::Stdout(bytes.to_vec())] } else { streams.take(bytes) };
        for output in outputs {
            if let Output::Ended(lost) = output {
                return Some(lost);
            }
            said.send(output).await.ok()?;
        }
    }
}

/// Passes on what the client says, until it hangs up.
async fn speak(
    mut writing: Option<WriteHalf<TokioIo<Upgraded>>>,
    mut given: mpsc::Receiver<Input>,
    end: EndOfInput,
    docker: &Docker,
    peer: &Peer,
) {
    while let Some(input) = given.recv().await {
        match input {
            Input::Stdin(bytes) => {
                let Some(open) = &mut writing else { continue };
                // A process that takes no more is no end of what it says.
                if open.write_all(&bytes).await.is_err() || open.flush().await.is_err() {
                    writing = None;
                }
            }
            Input::EndOfStdin => {
                if let (Some(mut open), EndOfInput::Closes) = (writing.take(), end) {
                    let _ = open.shutdown().await;
                }
            }
            Input::Resize(size) => docker.resize(peer, size).await,
        }
    }
}

impl Docker {
    async fn resize(&self, peer: &Peer, TerminalSize { width, height }: TerminalSize) {
        let resized = match peer {
            Peer::Command { exec, .. } => {
                self.client.resize_exec(exec, ResizeExecOptions { height, width }).await
            }
            Peer::Own(id) => {
                let options = ResizeContainerTTYOptions { h: i32::from(height), w: i32::from(width) };
                self.client.resize_container_tty(id, options).await
            }
        };
        // A terminal of another size is better than none.
        if let Err(error) = resized {
            tracing::debug!(%error, "a terminal keeps its size");
        }
    }

    async fn outcome(&self, peer: &Peer) -> Ended {
        for _ in 0..EXIT_LOOKS {
            let ended = match peer {
                Peer::Command { exec, .. } => self.command_ended(exec).await,
                Peer::Own(id) => self.container_ended(id).await,
            };
            match ended {
                Ok(Some(code)) => return Ended::Exited(code),
                Ok(None) => tokio::time::sleep(EXIT_PAUSE).await,
                Err(error) => return Ended::Lost(error.to_string()),
            }
        }
        Ended::Lost(match peer {
            Peer::Command { .. } => "the command ended, and Docker does not say how".to_owned(),
            Peer::Own(_) => "the connection to Docker ended before the container did".to_owned(),
        })
    }

    async fn command_ended(&self, exec: &str) -> Result<Option<i32>, EngineError> {
        match self.client.inspect_exec(exec).await.map_err(self.error_of()) {
            Ok(found) => Ok(found
                .exit_code
                .filter(|_| found.running == Some(false))
                .map(|code| i32::try_from(code).unwrap_or(i32::MAX))),
            Err(EngineError::NotFound(_) | EngineError::Conflict(_)) => Ok(Some(KILLED)),
            Err(error) => Err(error),
        }
    }

    /// 0 once it has ended: the code is told by the pod's status.
    async fn container_ended(&self, id: &str) -> Result<Option<i32>, EngineError> {
        match self.inspect(id).await {
            Ok(Found { state: RunState::Running { .. }, .. }) => Ok(None),
            Ok(_) | Err(EngineError::NotFound(_)) => Ok(Some(0)),
            Err(error) => Err(error),
        }
    }

    /// Tells a command that its client is gone, as a terminal would: Docker lets it run on. A container's own process
    /// is there for the next client.
    async fn hang_up(&self, peer: &Peer) {
        let Peer::Command { exec, container } = peer else { return };
        let Ok(found) = self.client.inspect_exec(exec).await else { return };
        let (Some(true), Some(pid)) = (found.running, found.pid) else { return };
        if let Err(error) = inside::hang_up(self, container, pid) {
            tracing::debug!(%error, "a command runs on without its client");
        }
    }
}
