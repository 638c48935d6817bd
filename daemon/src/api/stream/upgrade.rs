//! The change of protocol: which one a client offers, and what it becomes.

use super::LINGER;
use super::protocol::{self, Protocol};
use super::spdy::{self, Session};
use crate::api::status::ApiError;
use axum::body::Body;
use axum::extract::FromRequestParts;
use axum::extract::ws::{CloseFrame, Message, WebSocket, WebSocketUpgrade, close_code};
use axum::http::header::{CONNECTION, SEC_WEBSOCKET_PROTOCOL, UPGRADE};
use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use axum::response::Response;
use futures::{SinkExt, StreamExt};
use hyper::upgrade::{OnUpgrade, Upgraded};
use hyper_util::rt::TokioIo;
use std::future::Future;
use tokio::io::AsyncWriteExt;
use tokio::sync::mpsc;
use tokio_tungstenite::tungstenite;
use tokio_util::io::ReaderStream;
use tokio_util::sync::CancellationToken;

const SPDY: &str = "SPDY/3.1";
const STREAM_VERSION: &str = "x-stream-protocol-version";

/// The largest message of a WebSocket: what a client types is small, but some send a whole file at once.
const MESSAGE_BYTES: usize = 4 << 20;
/// What is read of a connection at once.
const READ_BYTES: usize = 32 << 10;
/// Pieces that wait to be written to a connection.
const WRITES_WAITING: usize = 4;

/// The protocol that a client offers.
pub enum Offer {
    WebSocket(WebSocketOffer),
    Spdy(SpdyOffer),
}

pub struct WebSocketOffer {
    upgrade: WebSocketUpgrade,
    protocols: Vec<String>,
}

pub struct SpdyOffer {
    upgrade: OnUpgrade,
    versions: Vec<String>,
}

impl Offer {
    pub async fn of(mut parts: Parts) -> Result<Self, ApiError> {
        let offered = parts.headers.get(UPGRADE).and_then(|value| value.to_str().ok()).unwrap_or_default();
        if offered.eq_ignore_ascii_case(SPDY) {
            let versions = words(&parts.headers, STREAM_VERSION);
            let upgrade = parts.extensions.remove::<OnUpgrade>().ok_or_else(required)?;
            return Ok(Self::Spdy(SpdyOffer { upgrade, versions }));
        }
        if !offered.eq_ignore_ascii_case("websocket") {
            return Err(required());
        }
        let protocols = words(&parts.headers, SEC_WEBSOCKET_PROTOCOL.as_str());
        let upgrade = WebSocketUpgrade::from_request_parts(&mut parts, &()).await;
        let upgrade = upgrade.map_err(|rejected| ApiError::bad_request(rejected.body_text()))?;
        let upgrade = upgrade.max_message_size(MESSAGE_BYTES).max_frame_size(MESSAGE_BYTES);
        Ok(Self::WebSocket(WebSocketOffer { upgrade, protocols }))
    }
}

fn required() -> ApiError {
    ApiError::bad_request("Upgrade request required")
}

/// What a header lists, by commas or by standing there again.
fn words(headers: &HeaderMap, name: &str) -> Vec<String> {
    let values = headers.get_all(name).iter().filter_map(|value| value.to_str().ok());
    values.flat_map(|value| value.split(',')).map(|word| word.trim().to_owned()).collect()
}

fn no_common(offered: &[String], known: &[&str]) -> ApiError {
    let message = format!(
        "unable to upgrade: unable to negotiate protocol: client supports [{}], server accepts [{}]",
        offered.join(" "),
        known.join(" ")
    );
    ApiError::new(403, "Forbidden", message)
}

impl WebSocketOffer {
    pub fn offers(&self, protocol: &str) -> bool {
        self.protocols.iter().any(|offered| offered == protocol)
    }

    pub fn channels(&self, known: &'static [Protocol]) -> Result<Protocol, ApiError> {
        let offered: Vec<&str> = self.protocols.iter().map(String::as_str).collect();
        protocol::negotiate(&offered, known).ok_or_else(|| {
            let names: Vec<&str> =
                known.iter().map(|protocol| protocol.name).filter(|name| !name.is_empty()).collect();
            no_common(&self.protocols, &names)
        })
    }

    /// The answer that changes the protocol, and what is done with the socket then.
    pub fn accept<F>(
        self,
        protocol: &'static str,
        serve: impl FnOnce(WebSocket) -> F + Send + 'static,
    ) -> Response
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let mut upgrade = self.upgrade;
        if !protocol.is_empty() {
            upgrade.set_selected_protocol(HeaderValue::from_static(protocol));
        }
        upgrade
            .on_failed_upgrade(
                |error: axum::Error| tracing::debug!(%error, "a client did not change to its WebSocket"),
            )
            .on_upgrade(serve)
    }
}

impl SpdyOffer {
    /// The first of the client's versions that is known.
    pub fn negotiate(&self, known: &[&'static str]) -> Result<&'static str, ApiError> {
        let found = self.versions.iter().find_map(|offered| known.iter().find(|name| *name == offered));
        found.copied().ok_or_else(|| no_common(&self.versions, known))
    }

    pub fn accept<F>(
        self,
        version: &'static str,
        serve: impl FnOnce(Session) -> F + Send + 'static,
    ) -> Response
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let upgrade = self.upgrade;
        tokio::spawn(async move {
            match upgrade.await {
                Ok(upgraded) => serve(plain(TokioIo::new(upgraded))).await,
                Err(error) => tracing::debug!(%error, "a client did not change to SPDY"),
            }
        });
        let mut response = Response::new(Body::empty());
        *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
        response.headers_mut().extend([
            (CONNECTION, HeaderValue::from_static("Upgrade")),
            (UPGRADE, HeaderValue::from_static(SPDY)),
            (HeaderName::from_static(STREAM_VERSION), HeaderValue::from_static(version)),
        ]);
        response
    }
}

/// SPDY on the connection itself.
fn plain(stream: TokioIo<Upgraded>) -> Session {
    let (reading, mut writing) = tokio::io::split(stream);
    let (to, mut pieces) = mpsc::channel::<Vec<u8>>(WRITES_WAITING);
    let reading = ReaderStream::with_capacity(reading, READ_BYTES);
    let session = spdy::serve(reading.map(|read| read.map(|bytes| bytes.to_vec())).boxed(), to);
    let write = async move {
        while let Some(bytes) = pieces.recv().await {
            if writing.write_all(&bytes).await.is_err() || writing.flush().await.is_err() {
                return;
            }
        }
        let _ = writing.shutdown().await;
    };
    tokio::spawn(until(session.ended.clone(), write));
    session
}

/// SPDY in the messages of a WebSocket.
pub fn tunnel(socket: WebSocket) -> Session {
    let (mut sink, stream) = socket.split();
    let (to, mut pieces) = mpsc::channel::<Vec<u8>>(WRITES_WAITING);
    let reading = stream.filter_map(async |message| match message {
        Ok(Message::Binary(bytes)) => Some(Ok(bytes.to_vec())),
        Ok(_) => None,
        Err(error) => Some(Err(std::io::Error::other(error))),
    });
    let session = spdy::serve(reading.boxed(), to);
    let write = async move {
        while let Some(bytes) = pieces.recv().await {
            if sink.send(Message::Binary(bytes.into())).await.is_err() {
                return;
            }
        }
        let _ = sink.send(close(close_code::NORMAL, "")).await;
    };
    tokio::spawn(until(session.ended.clone(), write));
    session
}

/// The end of a WebSocket. Without a code in it, clients take the end for an error.
pub fn close(code: u16, reason: &'static str) -> Message {
    Message::Close(Some(CloseFrame { code, reason: reason.into() }))
}

/// What a client is told whose message is larger than is taken; nothing where it was something else that broke.
pub fn too_large(error: axum::Error) -> Option<Message> {
    let error = error.into_inner().downcast::<tungstenite::Error>().ok()?;
    matches!(*error, tungstenite::Error::Capacity(_))
        .then(|| close(close_code::SIZE, "a message of more than 4 MiB: send it in smaller ones"))
}

/// Writes on for a while after the end: a client that does not read must not keep the connection for ever.
async fn until(ended: CancellationToken, write: impl Future<Output = ()>) {
    let late = async {
        ended.cancelled().await;
        tokio::time::sleep(LINGER).await;
    };
    tokio::select! {
        () = write => {}
        () = late => {}
    }
}
