//! The Kubernetes API as a client on a desktop reaches it: one request a connection, from inside that desktop's
//! network, so that no cut of the bench's network stands between a client and its own desktop.
//!
//! Written on sockets for two reasons: it has to tell a request that never left (it did not happen) from one
//! without an answer (nobody knows), and to end with the first byte that is missing.

use crate::bench::Bench;
use anyhow::{Context, Result, ensure};
use base64::Engine;
use nix::sched::{CloneFlags, setns};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};
use serde_json::Value;
use std::fs::File;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpStream};
use std::sync::Arc;
use std::time::Duration;

/// On a desktop's own network a connection stands at once or not at all.
const CONNECTS: Duration = Duration::from_secs(2);
/// The API answers a write within 30 s or says that nobody knows.
const ANSWERS: Duration = Duration::from_secs(35);
/// The longest answer, and the longest line of a watch.
const LONGEST: u64 = 16 << 20;
/// The longest head of an answer.
const LONGEST_HEAD: u64 = 64 << 10;

/// The way to every desktop's API.
pub struct Access {
    tls: Arc<ClientConfig>,
    server_name: ServerName<'static>,
    token: String,
    desktops: Vec<(File, SocketAddr)>,
}

/// An answer that came whole.
#[derive(Debug, Clone, PartialEq)]
pub struct Answer {
    pub code: u16,
    pub warnings: Vec<String>,
    pub body: Value,
}

/// Why there is no answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Failure {
    /// The request never left.
    NotSent(String),
    /// It may have been read.
    NoAnswer(String),
}

impl Access {
    /// Reads the kubeconfig of the first desktop: its certificate and its token are the whole cluster's.
    pub fn to(bench: &Bench) -> Result<Self> {
        let first = bench.desktop(1);
        first.make_kubeconfig()?;
        let text = std::fs::read_to_string(first.kubeconfig_file())?;
        let field = |name: &str| {
            let line = text.lines().find_map(|line| line.trim().strip_prefix(name)?.strip_prefix(": "));
            line.map(str::trim).with_context(|| format!("a kubeconfig without {name}"))
        };
        let authority = base64::engine::general_purpose::STANDARD
            .decode(field("certificate-authority-data")?)
            .context("the kubeconfig's certificate-authority-data")?;
        let mut roots = RootCertStore::empty();
        roots.add(CertificateDer::from_pem_slice(&authority).context("the cluster's certificate")?)?;
        let port = field("server")?.rsplit(':').next().and_then(|port| port.parse::<u16>().ok());
        let port = port.context("a kubeconfig whose server names no port")?;
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let tls = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()?
            .with_root_certificates(roots)
            .with_no_client_auth();
        let desktops = bench.desktops().iter().map(|desktop| {
            let namespace = format!("/run/netns/{}", bench.layout().namespace(desktop.index()));
            let file = File::open(&namespace).with_context(|| format!("opening {namespace}"))?;
            // Whatever its address is at the moment.
            Ok((file, SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), port)))
        });
        Ok(Self {
            tls: Arc::new(tls),
            server_name: ServerName::try_from(field("tls-server-name")?.to_owned())?,
            token: field("token")?.to_owned(),
            desktops: desktops.collect::<Result<_>>()?,
        })
    }

    /// How many desktops there are; they are numbered from 1.
    #[must_use]
    pub fn desktops(&self) -> usize {
        self.desktops.len()
    }

    /// Asks one desktop. The calling thread belongs to that desktop's network afterwards.
    pub fn ask(
        &self,
        desktop: usize,
        method: &str,
        path: &str,
        body: Option<(&str, &Value)>,
    ) -> Result<Answer, Failure> {
        let mut stream = self.connect(desktop, ANSWERS).map_err(|error| not_sent(&error))?;
        let no_answer = |error: anyhow::Error| Failure::NoAnswer(format!("{error:#}"));
        self.send(&mut stream, method, path, body).map_err(no_answer)?;
        let mut reader = BufReader::new(stream);
        let head = Head::read(&mut reader).map_err(no_answer)?;
        let bytes = head.body(reader).map_err(no_answer)?;
        let body = serde_json::from_slice(&bytes)
            .with_context(|| format!("{} with a body that is not JSON", head.code))
            .map_err(no_answer)?;
        Ok(Answer { code: head.code, warnings: head.warnings, body })
    }

    /// Opens a watch that is silent for at most `silence` before it counts as broken.
    pub fn watch(&self, desktop: usize, path: &str, silence: Duration) -> Result<Watching, Failure> {
        let mut stream = self.connect(desktop, silence).map_err(|error| not_sent(&error))?;
        let no_answer = |error: anyhow::Error| Failure::NoAnswer(format!("{error:#}"));
        self.send(&mut stream, "GET", path, None).map_err(no_answer)?;
        let mut reader = BufReader::new(stream);
        let head = Head::read(&mut reader).map_err(no_answer)?;
        Ok(Watching { code: head.code, reader })
    }

    fn connect(&self, desktop: usize, silence: Duration) -> Result<Stream> {
        let (namespace, address) = &self.desktops[desktop - 1];
        setns(namespace, CloneFlags::CLONE_NEWNET).context("entering a desktop's network")?;
        let mut socket = TcpStream::connect_timeout(address, CONNECTS).context("connecting")?;
        socket.set_nodelay(true)?;
        socket.set_read_timeout(Some(silence))?;
        socket.set_write_timeout(Some(silence))?;
        let mut tls = ClientConnection::new(Arc::clone(&self.tls), self.server_name.clone())?;
        while tls.is_handshaking() {
            tls.complete_io(&mut socket).context("shaking hands")?;
        }
        Ok(StreamOwned::new(tls, socket))
    }

    fn send(
        &self,
        stream: &mut Stream,
        method: &str,
        path: &str,
        body: Option<(&str, &Value)>,
    ) -> Result<()> {
        // 1.0, so that the answer ends with the connection and comes in one piece.
        let mut request = format!(
            "{method} {path} HTTP/1.0\r\nAuthorization: Bearer {}\r\nAccept: application/json\r\n",
            self.token
        );
        let body = body.map(|(media, body)| (media, body.to_string()));
        if let Some((media, body)) = &body {
            request.push_str(&format!("Content-Type: {media}\r\nContent-Length: {}\r\n", body.len()));
        }
        request.push_str("\r\n");
        request.push_str(body.as_ref().map_or("", |(_, body)| body));
        stream.write_all(request.as_bytes()).context("sending the request")?;
        stream.flush().context("sending the request")
    }
}

type Stream = StreamOwned<ClientConnection, TcpStream>;

fn not_sent(error: &anyhow::Error) -> Failure {
    Failure::NotSent(format!("{error:#}"))
}

/// An open watch.
pub struct Watching {
    /// 200, or the stream holds one `Status`.
    pub code: u16,
    reader: BufReader<Stream>,
}

impl Watching {
    /// The next whole line; `None` when the server has ended the stream properly.
    pub fn line(&mut self) -> Result<Option<Value>> {
        let mut line = String::new();
        self.reader.by_ref().take(LONGEST).read_line(&mut line).context("reading a watch")?;
        if line.is_empty() {
            return Ok(None);
        }
        ensure!(line.ends_with('\n') || self.code != 200, "the watch broke off within a line");
        serde_json::from_str(&line).map(Some).context("a watch's line that is not JSON")
    }
}

struct Head {
    code: u16,
    warnings: Vec<String>,
    length: Option<u64>,
}

impl Head {
    fn read(reader: &mut impl BufRead) -> Result<Self> {
        let mut lines = Vec::new();
        let mut bounded = reader.take(LONGEST_HEAD);
        loop {
            let mut line = String::new();
            bounded.read_line(&mut line).context("reading the answer's head")?;
            ensure!(line.ends_with('\n'), "the answer broke off within its head");
            match line.trim_end() {
                "" => break,
                line => lines.push(line.to_owned()),
            }
        }
        let code = lines.first().and_then(|line| line.split_whitespace().nth(1)?.parse().ok());
        let code = code.context("an answer that does not begin with its status")?;
        let values = |name: &'static str| {
            lines.iter().skip(1).filter_map(move |line| {
                let (key, value) = line.split_once(':')?;
                key.eq_ignore_ascii_case(name).then(|| value.trim().to_owned())
            })
        };
        let length = values("content-length").next().and_then(|length| length.parse().ok());
        Ok(Self { code, warnings: values("warning").collect(), length })
    }

    /// The whole body, or an error.
    fn body(&self, reader: impl Read) -> Result<Vec<u8>> {
        let mut bytes = Vec::new();
        let length = self.length.context("an answer that does not tell its length")?;
        ensure!(length <= LONGEST, "an answer of {length} bytes");
        reader.take(length).read_to_end(&mut bytes).context("reading the answer")?;
        ensure!(bytes.len() as u64 == length, "the answer broke off after {} of {length} bytes", bytes.len());
        Ok(bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn head(text: &str) -> Result<(Head, Vec<u8>)> {
        let mut reader = BufReader::new(text.as_bytes());
        let head = Head::read(&mut reader)?;
        let body = head.body(reader)?;
        Ok((head, body))
    }

    #[test]
    fn an_answer_tells_its_code_and_its_warnings() {
        let (head, body) =
            head("HTTP/1.0 201 Created\r\nWarning: 299 gaggle \"kept\"\r\ncontent-length: 2\r\n\r\n{}")
                .unwrap();
        assert_eq!((head.code, head.warnings.as_slice()), (201, &["299 gaggle \"kept\"".to_owned()][..]));
        assert_eq!(body, b"{}");
    }

    #[test]
    fn an_answer_that_is_cut_off_is_none() {
        assert!(head("HTTP/1.0 200 OK\r\nContent-Length: 5\r\n\r\n{}").is_err());
        assert!(head("HTTP/1.0 200 OK\r\nContent-Le").is_err());
        assert!(head("HTTP/1.0 200 OK\r\n").is_err());
        assert!(head("").is_err());
    }
}
