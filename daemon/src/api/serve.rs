//! The listener: TLS, HTTP/1.1 and HTTP/2, and the limits that keep a stranger from holding it.
//!
//! Knows nothing of Kubernetes: it serves whatever router it is given.

use axum::Router;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use hyper_util::service::TowerToHyperService;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// Connections open at once. Each watch of an HTTP/1.1 client takes one; a lab has tens of desktops.
const CONNECTIONS: usize = 1024;
/// A client that has not finished its TLS handshake by then is not a client.
const HANDSHAKE: Duration = Duration::from_secs(10);
/// The longest wait for a request's head on HTTP/1.1, which is also how long an idle connection is kept.
const HEAD: Duration = Duration::from_secs(90);
/// Room for a request's head: a token and the longest selectors that kubectl sends are far below it.
const HEAD_BYTES: usize = 64 * 1024;
/// Requests at once on one HTTP/2 connection: the Go client opens one connection and all its watches in it.
const STREAMS: u32 = 250;
/// HTTP/2 pings: a desktop that went to sleep is noticed after interval + timeout.
const PING_INTERVAL: Duration = Duration::from_secs(30);
const PING_TIMEOUT: Duration = Duration::from_secs(20);
/// How long open requests may go on after shutdown was asked for; watches never end by themselves.
const DRAIN: Duration = Duration::from_secs(2);
/// After a failed accept (out of file descriptors): others have to close first.
const ACCEPT_BACKOFF: Duration = Duration::from_millis(100);

/// Serves until `shutdown`, then lets open requests finish for a few seconds. `tls` should offer the ALPN
/// protocols of [`alpn`].
pub async fn serve(
    listener: TcpListener,
    tls: Arc<rustls::ServerConfig>,
    router: Router,
    shutdown: CancellationToken,
) {
    let acceptor = TlsAcceptor::from(tls);
    let slots = Arc::new(Semaphore::new(CONNECTIONS));
    let connections = TaskTracker::new();
    let abort = CancellationToken::new();
    loop {
        // The slot is taken first: over the limit, new clients wait in the kernel's queue.
        let slot = tokio::select! {
            () = shutdown.cancelled() => break,
            slot = slots.clone().acquire_owned() => slot,
        };
        let accepted = tokio::select! {
            () = shutdown.cancelled() => break,
            accepted = listener.accept() => accepted,
        };
        match accepted {
            Ok((stream, _)) => {
                let connection = connection(stream, acceptor.clone(), router.clone(), shutdown.clone());
                let abort = abort.clone();
                connections.spawn(async move {
                    let _slot = slot;
                    tokio::select! {
                        () = connection => {}
                        () = abort.cancelled() => {}
                    }
                });
            }
            Err(error) => {
                tracing::warn!(%error, "a connection could not be accepted");
                tokio::time::sleep(ACCEPT_BACKOFF).await;
            }
        }
    }
    connections.close();
    if tokio::time::timeout(DRAIN, connections.wait()).await.is_err() {
        abort.cancel();
        connections.wait().await;
    }
}

/// The application protocols to put into the TLS configuration.
pub fn alpn() -> Vec<Vec<u8>> {
    vec![b"h2".to_vec(), b"http/1.1".to_vec()]
}

async fn connection(stream: TcpStream, acceptor: TlsAcceptor, router: Router, shutdown: CancellationToken) {
    // Small answers must not wait for an acknowledgement; failing to ask for that is harmless.
    let _ = stream.set_nodelay(true);
    let stream = match tokio::time::timeout(HANDSHAKE, acceptor.accept(stream)).await {
        Ok(Ok(stream)) => stream,
        Ok(Err(error)) => return tracing::debug!(%error, "a TLS handshake failed"),
        Err(_) => return tracing::debug!("a TLS handshake took too long"),
    };
    let mut builder = auto::Builder::new(TokioExecutor::new());
    builder.http1().timer(TokioTimer::new()).header_read_timeout(HEAD).max_buf_size(HEAD_BYTES);
    builder
        .http2()
        .timer(TokioTimer::new())
        .max_concurrent_streams(STREAMS)
        .max_header_list_size(HEAD_BYTES as u32)
        .keep_alive_interval(PING_INTERVAL)
        .keep_alive_timeout(PING_TIMEOUT);
    let service = TowerToHyperService::new(router);
    let connection = builder.serve_connection_with_upgrades(TokioIo::new(stream), service);
    tokio::pin!(connection);
    let mut draining = false;
    loop {
        tokio::select! {
            ended = connection.as_mut() => {
                if let Err(error) = ended {
                    tracing::debug!(error, "a connection ended early");
                }
                return;
            }
            () = shutdown.cancelled(), if !draining => {
                draining = true;
                connection.as_mut().graceful_shutdown();
            }
        }
    }
}
