//! `pods/NAME/exec`, `attach` and `portforward`: streams into pods.
//!
//! A request is checked and its process begun before the protocol is changed, so that whatever is wrong is said as
//! a `Status`. `channels` (WebSockets) and `spdy` know how streams are carried, `process` and `forward` what they are
//! for. Nothing here is unbounded: a client that does not read, and a process that does not, hold the other side up.

mod channels;
mod forward;
mod lane;
mod process;
mod protocol;
pub mod request;
pub mod spdy;
mod upgrade;
mod verdict;

use super::ApiState;
use super::kinds::Subresource;
use super::query::Query;
use super::read;
use super::status::ApiError;
use super::target::Target;
use crate::pods::{PodRef, ProcessOptions, Stdio};
use axum::http::request::Parts;
use axum::response::Response;
use channels::Channels;
use forward::Forwarder;
use std::time::Duration;
use tokio::sync::{Semaphore, SemaphorePermit};
use upgrade::Offer;

/// Streams into pods that go through this desktop at once. Each may hold some hundred kilobytes.
const STREAMS_AT_ONCE: usize = 256;

static PLACES: Semaphore = Semaphore::const_new(STREAMS_AT_ONCE);

/// How long a client may take to read the last words, and to close.
const LINGER: Duration = Duration::from_secs(10);

/// The subprotocol of a WebSocket that carries SPDY.
const TUNNEL: &str = "SPDY/3.1+portforward.k8s.io";
/// How the same is called where SPDY is spoken without a WebSocket.
const FORWARD: &[&str] = &["portforward.k8s.io"];
/// What clients call talking with a process over SPDY, and how each tells the end.
const REMOTE_COMMAND: &[&str] =
    &["v4.channel.k8s.io", "v3.channel.k8s.io", "v2.channel.k8s.io", "channel.k8s.io"];

/// Answers a request for a stream, and serves the stream.
pub async fn open(
    state: &ApiState,
    target: &Target,
    query: &Query,
    part: Subresource,
    parts: Parts,
) -> Result<Response, ApiError> {
    let pod = read::current(state, target)?;
    let (pod, name) = (pod.value(), target.name.as_str());
    match part {
        Subresource::Exec => {
            let (options, asked) = request::exec(query, pod, name)?;
            talk(state, request::pod_ref(target, pod)?, options, asked, parts).await
        }
        Subresource::Attach => {
            let (options, asked) = request::attach(query, pod, name)?;
            talk(state, request::pod_ref(target, pod)?, options, asked, parts).await
        }
        Subresource::PortForward => forward(state, request::pod_ref(target, pod)?, query, parts).await,
        _ => Err(ApiError::no_such_path()),
    }
}

async fn talk(
    state: &ApiState,
    pod: PodRef,
    options: ProcessOptions,
    asked: Stdio,
    parts: Parts,
) -> Result<Response, ApiError> {
    match Offer::of(parts).await? {
        Offer::WebSocket(offer) => {
            let protocol = offer.channels(protocol::PROCESS)?;
            let place = place()?;
            let process = state.pods.process(&pod, &options).await.map_err(ApiError::from_stream)?;
            Ok(offer.accept(protocol.name, move |socket| async move {
                let channels = Channels::serve(socket, protocol, process::incoming(asked), place);
                process::over_channels(channels, asked, protocol.verdict, process).await;
            }))
        }
        Offer::Spdy(offer) => {
            let version = offer.negotiate(REMOTE_COMMAND)?;
            let place = place()?;
            let process = state.pods.process(&pod, &options).await.map_err(ApiError::from_stream)?;
            // Only the newest has a Status at the end; the first two cannot change a terminal's size.
            let verdict = if version == REMOTE_COMMAND[0] {
                protocol::Verdict::Status
            } else {
                protocol::Verdict::Text
            };
            let resizes = REMOTE_COMMAND[..2].contains(&version);
            let asked = Stdio { tty: asked.tty && resizes, ..asked };
            Ok(offer.accept(version, move |session| async move {
                let _place = place;
                process::over_spdy(session, asked, verdict, process).await;
            }))
        }
    }
}

async fn forward(state: &ApiState, pod: PodRef, query: &Query, parts: Parts) -> Result<Response, ApiError> {
    let forwarder = Forwarder::new(state.pods.clone(), pod);
    match Offer::of(parts).await? {
        Offer::WebSocket(offer) if offer.offers(TUNNEL) => {
            let place = place()?;
            Ok(offer.accept(TUNNEL, move |socket| async move {
                let _place = place;
                forwarder.over_spdy(upgrade::tunnel(socket)).await;
            }))
        }
        Offer::WebSocket(offer) => {
            let ports = request::ports(query)?;
            if ports.is_empty() {
                return Err(ApiError::bad_request("query parameter \"ports\" is required"));
            }
            let protocol = offer.channels(protocol::PORTS)?;
            let place = place()?;
            Ok(offer.accept(protocol.name, move |socket| async move {
                let incoming = forward::port_channels().take(ports.len()).map(|(data, _)| data);
                let channels = Channels::serve(socket, protocol, incoming, place);
                forwarder.over_channels(channels, ports).await;
            }))
        }
        Offer::Spdy(offer) => {
            let version = offer.negotiate(FORWARD)?;
            let place = place()?;
            Ok(offer.accept(version, move |session| async move {
                let _place = place;
                forwarder.over_spdy(session).await;
            }))
        }
    }
}

fn place() -> Result<SemaphorePermit<'static>, ApiError> {
    let full = || {
        let message = format!("{STREAMS_AT_ONCE} streams into pods go through this desktop already");
        ApiError::new(429, "TooManyRequests", message)
    };
    PLACES.try_acquire().map_err(|_| full())
}
