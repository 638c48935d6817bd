//! Streams into pods, as kubectl and other clients ask for them; the processes are played.

use super::kubectl::{Kubectl, Ran};
use super::server::{CLOSED, Server, TOKEN};
use crate::api::stream::spdy::tests::{Client, Heard};
use crate::pods::{PIECE_BYTES, fake};
use futures::{SinkExt, StreamExt};
use gaggle_sched::state::{Expect, Key, Resource, Write};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use serde_json::{Value, json};
use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpStream;
use tokio_rustls::client::TlsStream;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::tungstenite::{Error, Message};

/// Longer than anything takes on a busy machine; only a hang reaches it.
const DEADLINE: Duration = Duration::from_secs(120);

fn put_pod(server: &Server, name: &str, node: Option<&str>, container: Value) {
    let key = Key::new(Resource::fixed("pods"), "default", name);
    let mut containers = vec![json!({"name": "main", "image": "i"})];
    containers[0].as_object_mut().unwrap().extend(container.as_object().unwrap().clone());
    let value = json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {"name": name, "namespace": "default", "uid": format!("uid-{name}")},
        "spec": {"nodeName": node, "containers": containers},
        "status": {"phase": "Running", "conditions": [{"type": "Ready", "status": "True"}]},
    });
    let write = Write::Put { key, value, expect: Expect::Absent, intent: None };
    server.view.write(|store| store.apply(&write.into())).unwrap();
}

/// kubectl, by WebSockets as it does on its own, or by SPDY as older ones do.
async fn run(k: &Kubectl, websockets: bool, arguments: &[&str], input: &str) -> Ran {
    let mut command = k.command(arguments);
    command
        .env("KUBECTL_REMOTE_COMMAND_WEBSOCKETS", websockets.to_string())
        .env("KUBECTL_PORT_FORWARD_WEBSOCKETS", websockets.to_string());
    Kubectl::run(command, input).await
}

#[tokio::test(flavor = "multi_thread")]
async fn kubectl_executes_and_attaches_by_websocket_and_by_spdy() {
    let Some(k) = Kubectl::start().await else { return };
    put_pod(&k.server, "web", Some("d1"), json!({"stdin": true}));
    put_pod(&k.server, "starting", Some("d1"), json!({}));
    put_pod(&k.server, "free", None, json!({}));
    for websockets in [true, false] {
        let k = &k;
        let exec = async |words: &[&str], input: &str| {
            run(k, websockets, &[&["exec"][..], words].concat(), input).await
        };
        let echoed = exec(&["-i", "web", "--", "cat"], "what goes in\ncomes out").await;
        assert_eq!(
            (echoed.out.as_str(), echoed.code),
            ("what goes in\ncomes out", Some(0)),
            "{}",
            echoed.err
        );
        let failed = exec(&["web", "--", "exit", "7"], "").await;
        assert_eq!(failed.code, Some(7));
        assert!(failed.err.contains("command terminated with exit code 7"), "{}", failed.err);
        let complained = exec(&["web", "--", "complain", "oh"], "").await;
        assert_eq!((complained.out.as_str(), complained.err.as_str()), ("", "oh"));
        let flood = exec(&["web", "--", "flood", "300"], "").await;
        // Each byte that is no text is shown as one character.
        assert_eq!((flood.out.chars().count(), flood.code), (300 * PIECE_BYTES, Some(0)), "{}", flood.err);
        for (words, expected) in [
            (&["web", "-c", "nope", "--", "cat"][..], "container nope is not valid for pod web"),
            (&["free", "--", "cat"], "pod free does not have a host assigned"),
            (&["starting", "--", "cat"], "container not found (\"main\")"),
            (&["none", "--", "cat"], "pods \"none\" not found"),
        ] {
            let refused = exec(words, "").await;
            assert!(!refused.ok && refused.err.contains(expected), "{words:?}: {}", refused.err);
        }
        let attached = run(k, websockets, &["attach", "-i", "web"], "typed\n").await;
        assert_eq!((attached.out.as_str(), attached.code), ("hello\ntyped\n", Some(0)), "{}", attached.err);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn kubectl_forwards_ports_by_websocket_and_by_spdy() {
    let Some(k) = Kubectl::start().await else { return };
    put_pod(&k.server, "web", Some("d1"), json!({}));
    for websockets in ["true", "false"] {
        let mut command = k.command(&["port-forward", "pod/web", ":80", &format!(":{CLOSED}")]);
        command.env("KUBECTL_PORT_FORWARD_WEBSOCKETS", websockets);
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let mut port_of = async |remote: &str| loop {
            let line = tokio::time::timeout(DEADLINE, lines.next_line()).await.expect("a line").unwrap();
            let line = line.expect("kubectl has ended");
            // Forwarding from 127.0.0.1:40123 -> 80
            let words: Vec<&str> = line.split_whitespace().collect();
            if let ["Forwarding", "from", local, "->", to] = words[..]
                && to == remote
                && let Some(port) = local.strip_prefix("127.0.0.1:")
            {
                break port.parse::<u16>().unwrap();
            }
        };
        let (open, closed) = (port_of("80").await, port_of(&CLOSED.to_string()).await);
        let talk = |n: usize| async move {
            let said = vec![n as u8; 200_000];
            let (mut reading, mut writing) =
                TcpStream::connect(("127.0.0.1", open)).await.unwrap().into_split();
            let sent = said.clone();
            let send = tokio::spawn(async move {
                writing.write_all(&sent).await.unwrap();
                writing.shutdown().await.unwrap();
            });
            let mut heard = Vec::new();
            reading.read_to_end(&mut heard).await.unwrap();
            send.await.unwrap();
            assert_eq!(heard.len(), said.len() + "port 80\n".len());
            assert!(heard.starts_with(b"port 80\n") && heard.ends_with(&said));
        };
        let all = futures::future::join_all((0..20).map(talk));
        tokio::time::timeout(DEADLINE, all).await.expect("forwarded connections hang");
        // Where nobody listens, kubectl says so, and gives up.
        let mut refused = TcpStream::connect(("127.0.0.1", closed)).await.unwrap();
        let mut nothing = Vec::new();
        let _ = tokio::time::timeout(DEADLINE, refused.read_to_end(&mut nothing)).await.expect("an end");
        let output = tokio::time::timeout(DEADLINE, child.wait_with_output()).await.expect("an end").unwrap();
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(nothing.is_empty() && said.contains("connection refused"), "{said}");
    }
}

type Socket = WebSocketStream<TlsStream<TcpStream>>;

impl Server {
    async fn tls(&self) -> TlsStream<TcpStream> {
        let mut roots = rustls::RootCertStore::empty();
        roots.add(CertificateDer::from_pem_slice(self.ca_pem.as_bytes()).unwrap()).unwrap();
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let tls = rustls::ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(roots)
            .with_no_client_auth();
        let stream = TcpStream::connect(self.address).await.unwrap();
        let name = ServerName::try_from("127.0.0.1").unwrap();
        tokio_rustls::TlsConnector::from(Arc::new(tls)).connect(name, stream).await.unwrap()
    }

    async fn socket(&self, path: &str, protocols: &str) -> Result<Socket, Error> {
        let url = format!("wss://{}/api/v1/namespaces/default/pods/{path}", self.address);
        let mut request = url.into_client_request().unwrap();
        let headers = request.headers_mut();
        headers.insert("authorization", format!("Bearer {TOKEN}").parse().unwrap());
        if !protocols.is_empty() {
            headers.insert("sec-websocket-protocol", protocols.parse().unwrap());
        }
        tokio_tungstenite::client_async(request, self.tls().await).await.map(|(socket, _)| socket)
    }

    /// What a request for a socket is refused with.
    async fn refusal(&self, path: &str, protocols: &str) -> (u16, String) {
        let Err(Error::Http(response)) = self.socket(path, protocols).await else {
            panic!("not refused: {path}")
        };
        let status: Value = serde_json::from_slice(response.body().as_deref().unwrap()).unwrap();
        (response.status().as_u16(), status["message"].as_str().unwrap().to_owned())
    }
}

/// The next message with something in it, but for pings; `None` at the end.
async fn next(socket: &mut Socket) -> Option<Vec<u8>> {
    loop {
        let message = tokio::time::timeout(DEADLINE, socket.next()).await.expect("a message");
        match message {
            Some(Ok(Message::Binary(bytes))) if bytes.len() > 1 => return Some(bytes.to_vec()),
            Some(Ok(Message::Text(text))) if text.len() > 1 => return Some(text.as_bytes().to_vec()),
            Some(Ok(Message::Close(_)) | Err(_)) | None => return None,
            Some(Ok(_)) => {}
        }
    }
}

/// The code with which the server closes; what it says before is passed over.
async fn close_code(socket: &mut Socket) -> u16 {
    loop {
        match tokio::time::timeout(DEADLINE, socket.next()).await.expect("an end") {
            Some(Ok(Message::Close(Some(frame)))) => return frame.code.into(),
            Some(Ok(Message::Close(None)) | Err(_)) | None => panic!("no code"),
            Some(Ok(_)) => {}
        }
    }
}

async fn send(socket: &mut Socket, bytes: &[u8]) {
    socket.send(Message::Binary(bytes.to_vec().into())).await.unwrap();
}

#[tokio::test]
async fn every_version_of_the_channels_carries_a_conversation() {
    let server = Server::start().await;
    put_pod(&server, "web", Some("d1"), json!({}));
    let path = "web/exec?command=cat&stdin=true&stdout=true&tty=true";
    let mut socket = server.socket(path, "v5.channel.k8s.io").await.unwrap();
    send(&mut socket, b"\x04{\"Width\":100,\"Height\":30}").await;
    assert_eq!(next(&mut socket).await.unwrap(), b"\x01100x30\n");
    send(&mut socket, b"\0hello").await;
    assert_eq!(next(&mut socket).await.unwrap(), b"\x01hello");
    send(&mut socket, &[255, 0]).await;
    let status = next(&mut socket).await.unwrap();
    let success: Value = serde_json::from_slice(&status[1..]).unwrap();
    assert_eq!((status[0], &success), (3, &json!({"metadata": {}, "status": "Success"})));
    // Without a code, kubectl takes the end for an error.
    assert_eq!(close_code(&mut socket).await, 1000);

    let mut socket =
        server.socket("web/exec?command=exit&command=4&stdout=1", "x,v4.channel.k8s.io").await.unwrap();
    let status = next(&mut socket).await.unwrap();
    let status: Value = serde_json::from_slice(&status[1..]).unwrap();
    assert_eq!(status["details"]["causes"], json!([{"reason": "ExitCode", "message": "4"}]));
    let mut socket = server.socket(path, "v4.base64.channel.k8s.io").await.unwrap();
    socket.send(Message::Text("0aGVsbG8=".into())).await.unwrap();
    assert_eq!(next(&mut socket).await.unwrap(), b"1aGVsbG8=");
    let mut socket = server.socket("web/exec?command=exit&command=5&stdout=1", "").await.unwrap();
    let told = next(&mut socket).await.unwrap();
    assert_eq!(told, b"\x03command terminated with non-zero exit code: exit status 5");
    assert_eq!(close_code(&mut socket).await, 1000);
}

/// Some clients send all they have in one message.
#[tokio::test]
async fn large_messages_come_in_pieces_and_too_large_ones_not_at_all() {
    let server = Server::start().await;
    put_pod(&server, "web", Some("d1"), json!({}));
    let path = "web/exec?command=cat&stdin=true&stdout=true";
    let mut socket = server.socket(path, "v5.channel.k8s.io").await.unwrap();
    let said: Vec<u8> = (0..3 * PIECE_BYTES + 7).map(|n| (n % 251) as u8).collect();
    send(&mut socket, &[b"\0", said.as_slice()].concat()).await;
    let mut heard = Vec::new();
    while heard.len() < said.len() {
        let piece = next(&mut socket).await.unwrap();
        assert!(piece.len() <= PIECE_BYTES + 1, "a piece of {}", piece.len());
        heard.extend_from_slice(&piece[1..]);
    }
    assert_eq!(heard, said);
    let (mut sink, stream) = socket.split();
    // It may not be taken to its end.
    let sending = tokio::spawn(async move { sink.send(Message::Binary(vec![0; 5 << 20].into())).await });
    let mut stream = stream;
    let told = loop {
        match tokio::time::timeout(DEADLINE, stream.next()).await.expect("an end") {
            Some(Ok(Message::Close(frame))) => break frame.expect("a code"),
            Some(Ok(_)) => {}
            Some(Err(_)) | None => panic!("no code"),
        }
    };
    assert_eq!(u16::from(told.code), 1009);
    assert!(told.reason.contains("4 MiB"), "{}", told.reason);
    sending.abort();
}

#[tokio::test]
async fn a_client_whose_typing_is_not_taken_hears_pongs_and_is_noticed_when_it_leaves() {
    let server = Server::start().await;
    put_pod(&server, "web", Some("d1"), json!({}));
    let path = "web/exec?command=deaf&stdin=true&stdout=true";
    let mut socket = server.socket(path, "v5.channel.k8s.io").await.unwrap();
    // More than all queues hold: the server stops reading.
    for _ in 0..30 {
        send(&mut socket, &vec![0; PIECE_BYTES]).await;
    }
    loop {
        match tokio::time::timeout(DEADLINE, socket.next()).await.expect("a Pong") {
            Some(Ok(Message::Pong(_))) => break,
            Some(Ok(Message::Binary(_))) => {}
            other => panic!("{other:?}"),
        }
    }
    drop(socket);
    tokio::time::timeout(DEADLINE, fake::LEFT.acquire())
        .await
        .expect("the process is left")
        .unwrap()
        .forget();
}

#[tokio::test]
async fn what_cannot_be_streamed_is_refused_before_the_protocol_changes() {
    let server = Server::start().await;
    put_pod(&server, "web", Some("d1"), json!({}));
    let v5 = "v5.channel.k8s.io";
    for (path, protocols, code, expected) in [
        ("web/exec?command=cat", v5, 400, "you must specify at least 1 of stdin, stdout, stderr"),
        ("web/exec?stdout=true", v5, 400, "at least one command"),
        ("web/exec?command=cat&stdout=true", "graphql", 403, "unable to negotiate protocol"),
        ("web/attach?stdout=true&tty=true", v5, 400, "has no terminal"),
        ("none/exec?command=cat&stdout=true", v5, 404, "pods \"none\" not found"),
        ("web/portforward", "v4.channel.k8s.io", 400, "query parameter \"ports\" is required"),
        ("web/portforward?ports=80,x", "v4.channel.k8s.io", 400, "not a number between 1 and 65535"),
    ] {
        let (got, message) = server.refusal(path, protocols).await;
        assert!(got == code && message.contains(expected), "{path}: {got} {message}");
    }
    for method in ["GET", "POST"] {
        let mut stream = server.tls().await;
        let path = "/api/v1/namespaces/default/pods/web/exec?command=cat&stdout=true";
        let head = format!("{method} {path} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {TOKEN}\r\n\r\n");
        stream.write_all(head.as_bytes()).await.unwrap();
        let mut answer = vec![0; 4096];
        let length = stream.read(&mut answer).await.unwrap();
        let answer = String::from_utf8_lossy(&answer[..length]).into_owned();
        assert!(answer.starts_with("HTTP/1.1 400"), "{answer}");
    }
}

#[tokio::test]
async fn ports_are_forwarded_over_channels() {
    let server = Server::start().await;
    put_pod(&server, "web", Some("d1"), json!({}));
    let path = format!("web/portforward?ports=80,{CLOSED}");
    let mut socket = server.socket(&path, "v4.channel.k8s.io").await.unwrap();
    let mut heard = vec![Vec::new(); 4];
    send(&mut socket, b"\0hello").await;
    while !heard[0].ends_with(b"hello") || heard[3].len() < 20 {
        let message = next(&mut socket).await.unwrap();
        heard[usize::from(message[0])].extend_from_slice(&message[1..]);
    }
    assert_eq!(heard[0], b"\x50\0port 80\nhello");
    assert_eq!((&heard[1][..], &heard[2][..]), (&b"\x50\0"[..], &b"\x09\0"[..]));
    assert!(
        String::from_utf8_lossy(&heard[3][2..]).contains("error forwarding port 9 to pod web, uid uid-web: ")
    );
}

/// Old clients name no request; nonsense beside them disturbs nobody.
#[tokio::test]
async fn streams_of_a_tunnel_find_each_other() {
    let server = Server::start().await;
    put_pod(&server, "web", Some("d1"), json!({}));
    let mut socket = server.socket("web/portforward", "SPDY/3.1+portforward.k8s.io").await.unwrap();
    let mut client = Client::default();
    let error = client.open(&[("streamtype", "error"), ("port", "80")]);
    client.end(error);
    let data = client.open(&[("streamtype", "data"), ("port", "80")]);
    let nonsense = client.open(&[("streamtype", "data"), ("port", "none")]);
    client.data(data, b"hello");
    client.end(data);
    send(&mut socket, &std::mem::take(&mut client.out)).await;
    let (mut heard, mut ended, mut reset) = (Vec::new(), Vec::new(), Vec::new());
    while ended.len() < 2 || reset.is_empty() {
        client.feed(&next(&mut socket).await.expect("the server goes on"));
        while let Some(frame) = client.heard() {
            match frame {
                Heard::Data(id, bytes) if id == data => heard.extend(bytes),
                Heard::End(id) => ended.push(id),
                Heard::Reset(id) => reset.push(id),
                _ => {}
            }
        }
    }
    assert_eq!(heard, b"port 80\nhello");
    assert_eq!((ended, reset), (vec![error, data], vec![nonsense]));
    send(&mut socket, b"\x80\x02 this is no SPDY/3").await;
    assert_eq!(close_code(&mut socket).await, 1000);
}

#[tokio::test]
async fn a_connection_that_its_client_breaks_off_ends_with_its_errors() {
    let server = Server::start().await;
    put_pod(&server, "web", Some("d1"), json!({}));
    let mut socket = server.socket("web/portforward", "SPDY/3.1+portforward.k8s.io").await.unwrap();
    let mut client = Client::default();
    // What was broken off before its other half came is not waited for.
    for _ in 0..200 {
        let half = client.open(&[("streamtype", "error"), ("port", "80")]);
        client.reset(half);
    }
    let error = client.open(&[("streamtype", "error"), ("port", "80"), ("requestid", "0")]);
    client.end(error);
    let data = client.open(&[("streamtype", "data"), ("port", "80"), ("requestid", "0")]);
    send(&mut socket, &std::mem::take(&mut client.out)).await;
    let mut begun = false;
    loop {
        client.feed(&next(&mut socket).await.expect("the server goes on"));
        while let Some(frame) = client.heard() {
            match frame {
                Heard::Data(id, _) if id == data => begun = true,
                Heard::End(id) if id == error => return assert!(begun),
                Heard::Reset(id) => panic!("stream {id} is reset"),
                _ => {}
            }
        }
        if begun {
            client.reset(data);
            send(&mut socket, &std::mem::take(&mut client.out)).await;
        }
    }
}

#[tokio::test]
async fn a_client_that_does_not_read_holds_the_process_up_and_ends_it_by_leaving() {
    let server = Server::start().await;
    put_pod(&server, "web", Some("d1"), json!({}));
    let path = "web/exec?command=flood&command=100000&stdout=true";
    let mut socket = server.socket(path, "v5.channel.k8s.io").await.unwrap();
    // Three gigabytes would come; what is read is in order.
    for piece in 0..40u8 {
        let message = next(&mut socket).await.unwrap();
        assert_eq!((message.len(), message[1]), (PIECE_BYTES + 1, piece));
    }
    drop(socket);
    // The server is whole.
    let mut socket =
        server.socket("web/exec?command=exit&command=0&stdout=1", "v5.channel.k8s.io").await.unwrap();
    assert!(next(&mut socket).await.unwrap().starts_with(b"\x03"));
}
