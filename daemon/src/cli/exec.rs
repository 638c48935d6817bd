//! `gaggle exec`: a command in a container, on whichever desktop it runs.

use super::Place;
use super::connection::{Connection, Socket};
use super::failure::{Killed, Terminated};
use super::logs::{choose_pod, default_container};
use super::target::{NamespaceArgs, Query, check_name};
use super::terminal::{self, Raw};
use anyhow::{Context, bail};
use axum::body::Bytes;
use futures::stream::SplitSink;
use futures::{SinkExt, StreamExt};
use serde_json::{Value, json};
use std::io::{IsTerminal, Read, Write};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc;
use tokio_tungstenite::tungstenite::Message;

/// Run a command in a container
///
/// For a Deployment, ReplicaSet or Job, one of its pods is taken. The exit code is that of the command.
#[derive(clap::Args, Debug)]
#[command(verbatim_doc_comment, after_help = EXAMPLES)]
pub struct ExecArgs {
    /// POD, or TYPE/NAME
    #[arg(value_name = "POD|TYPE/NAME")]
    what: String,
    /// The container [default: the only one, or the pod's default]
    #[arg(short, long, value_name = "NAME")]
    container: Option<String>,
    /// Pass standard input to the command
    #[arg(short = 'i', long)]
    stdin: bool,
    /// Give the command a terminal
    #[arg(short, long)]
    tty: bool,
    #[command(flatten)]
    namespace: NamespaceArgs,
    /// The command and its arguments, behind --
    #[arg(last = true, required = true, value_name = "COMMAND")]
    command: Vec<String>,
}

const EXAMPLES: &str = "\
Examples:
  gaggle exec web-7d4b9 -- ls -l /data
  gaggle exec -it deploy/web -- sh
  tar c results | gaggle exec -i web-7d4b9 -c main -- tar x -C /tmp";

/// What the API and we speak.
const PROTOCOL: &str = "v5.channel.k8s.io";
const STDIN: u8 = 0;
const STDOUT: u8 = 1;
const STDERR: u8 = 2;
const STATUS: u8 = 3;
const RESIZE: u8 = 4;
const CLOSE: u8 = 255;

/// What is read of standard input at once, and how many such pieces wait.
const PIECE_BYTES: usize = 16 << 10;
const PIECES_WAITING: usize = 4;

pub async fn run(place: &Place, args: ExecArgs) -> anyhow::Result<()> {
    let connection = Connection::open(place).await?;
    let namespace = args.namespace.resolve(&connection)?;
    let pod = choose_pod(&connection, &namespace, &args.what).await?;
    let container = match &args.container {
        Some(name) => {
            check_name(name)?;
            Some(name.clone())
        }
        None => default_container(&pod),
    };
    // What is typed into a pipe has no terminal's keys in it.
    let tty = args.tty && (!args.stdin || std::io::stdin().is_terminal());
    if tty != args.tty {
        eprintln!("Unable to use a TTY: standard input is no terminal");
    }
    let flag = |given: bool| given.then_some("true");
    let mut query = Query::default()
        .with_some("container", container)
        .with_some("stdin", flag(args.stdin))
        .with("stdout", "true")
        .with_some("stderr", flag(!tty))
        .with_some("tty", flag(tty));
    for word in &args.command {
        query = query.with("command", word);
    }
    let name = pod["metadata"]["name"].as_str().context("the API answered with a pod without a name")?;
    let path = format!("/api/v1/namespaces/{namespace}/pods/{name}/exec");
    let socket = connection.socket(&query.on(&path), PROTOCOL).await?;
    let raw = if tty && args.stdin { Some(Raw::enter()?) } else { None };
    let outcome = tokio::select! {
        outcome = talk(socket, args.stdin, tty) => Ok(outcome),
        signal = told_to_end() => Err(signal),
    };
    // Before anything more is printed, and whatever ended it.
    drop(raw);
    let status = match outcome {
        Ok(status) => status?,
        Err(signal) => return Err(Killed(signal?).into()),
    };
    match status.as_slice() {
        [] => bail!("the connection to {name} broke before the command ended"),
        status => conclude(&serde_json::from_slice(status).context("the API told no end that makes sense")?),
    }
}

/// Waits until we are told to end, with or without our terminal.
async fn told_to_end() -> std::io::Result<SignalKind> {
    let (mut terminated, mut hung_up) = (signal(SignalKind::terminate())?, signal(SignalKind::hangup())?);
    Ok(tokio::select! {
        _ = terminated.recv() => SignalKind::terminate(),
        _ = hung_up.recv() => SignalKind::hangup(),
    })
}

/// Passes everything on, and returns what the API says of the end; nothing if it did not.
async fn talk(socket: Socket, stdin: bool, tty: bool) -> anyhow::Result<Vec<u8>> {
    let (sink, mut stream) = socket.split();
    let hearing = async {
        let mut status = Vec::new();
        while let Some(Ok(message)) = stream.next().await {
            let Message::Binary(bytes) = message else { continue };
            match bytes.split_first() {
                Some((&STDOUT, text)) => print(&mut std::io::stdout(), text)?,
                Some((&STDERR, text)) => print(&mut std::io::stderr(), text)?,
                Some((&STATUS, text)) => status.extend_from_slice(text),
                _ => {}
            }
        }
        anyhow::Ok(status)
    };
    tokio::select! {
        heard = hearing => heard,
        error = say(sink, stdin, tty) => Err(error),
    }
}

fn print(to: &mut impl Write, text: &[u8]) -> std::io::Result<()> {
    to.write_all(text)?;
    to.flush()
}

/// Passes on what is typed and how large the terminal is, for ever: the other side ends it.
async fn say(mut sink: SplitSink<Socket, Message>, stdin: bool, tty: bool) -> anyhow::Error {
    let mut typed = stdin.then(read_input);
    let mut resized = match signal(SignalKind::window_change()) {
        Ok(resized) => resized,
        Err(error) => return error.into(),
    };
    let mut size = if tty { terminal::size() } else { None };
    loop {
        let message = match size.take() {
            Some((width, height)) => {
                let size = json!({"Width": width, "Height": height}).to_string();
                [&[RESIZE], size.as_bytes()].concat()
            }
            None => tokio::select! {
                Some(()) = resized.recv(), if tty => {
                    size = terminal::size();
                    continue;
                }
                piece = next(&mut typed) => match piece {
                    Some(piece) => [&[STDIN], piece.as_slice()].concat(),
                    None => {
                        typed = None;
                        vec![CLOSE, STDIN]
                    }
                },
            },
        };
        if sink.send(Message::Binary(Bytes::from(message))).await.is_err() {
            // Whoever listens finds out what became of it.
            return std::future::pending().await;
        }
    }
}

async fn next(typed: &mut Option<mpsc::Receiver<Vec<u8>>>) -> Option<Vec<u8>> {
    match typed {
        Some(typed) => typed.recv().await,
        None => std::future::pending().await,
    }
}

/// Standard input in pieces. Read by a thread of its own, which nobody waits for: a read that was begun cannot be
/// broken off.
fn read_input() -> mpsc::Receiver<Vec<u8>> {
    let (pieces, typed) = mpsc::channel(PIECES_WAITING);
    std::thread::spawn(move || {
        let mut buffer = vec![0; PIECE_BYTES];
        while let Ok(length @ 1..) = std::io::stdin().read(&mut buffer) {
            if pieces.blocking_send(buffer[..length].to_vec()).is_err() {
                return;
            }
        }
    });
    typed
}

/// What the end means for us.
fn conclude(status: &Value) -> anyhow::Result<()> {
    if status["status"] == "Success" {
        return Ok(());
    }
    let causes = status["details"]["causes"].as_array().into_iter().flatten();
    let code =
        causes.filter(|cause| cause["reason"] == "ExitCode").find_map(|cause| cause["message"].as_str());
    if let Some(code) = code.and_then(|code| code.parse().ok()) {
        return Err(Terminated(code).into());
    }
    bail!("{}", status["message"].as_str().unwrap_or("the command ended badly, and the API does not say how"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_commands_exit_code_is_ours() {
        let ended = |status: &Value| conclude(status).map_err(|error| error.to_string());
        assert_eq!(ended(&json!({"status": "Success"})), Ok(()));
        let causes = json!([{"reason": "ExitCode", "message": "42"}]);
        let error = conclude(&json!({"status": "Failure", "details": {"causes": causes}})).unwrap_err();
        assert_eq!(error.downcast_ref::<Terminated>().unwrap().0, 42);
        let lost = json!({"status": "Failure", "message": "Internal error occurred: gone"});
        assert_eq!(ended(&lost), Err("Internal error occurred: gone".to_owned()));
    }
}
