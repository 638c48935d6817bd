//! Requests after which the connection is no HTTP any more: bytes both ways, until either side has enough.
//!
//! bollard guesses for each piece whether it begins with one of Docker's frame heads, and takes a terminal's output
//! for one where it begins with a small control character. Who asked knows which of the two it is, so that these
//! requests are made here.

use super::Docker;
use crate::agent::engine::EngineError;
use crate::pods::Connection;
use axum::body::Body;
use hyper::body::{Bytes, Incoming};
use hyper::header;
use hyper::upgrade::Upgraded;
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use tokio::net::{TcpStream, UnixStream};

/// What is read of an error.
const ERROR_BYTES: usize = 64 << 10;

impl Docker {
    /// Posts to `path` (which begins with a slash), and returns the raw connection that follows.
    pub(super) async fn hijack(&self, path: &str, body: String) -> Result<TokioIo<Upgraded>, EngineError> {
        let changed = async {
            let response = self.ask(path, body).await?;
            match response.status() {
                StatusCode::SWITCHING_PROTOCOLS => {}
                code => return Err(refusal(code, response).await),
            }
            hyper::upgrade::on(response).await.map(TokioIo::new).map_err(|error| self.gone(error))
        };
        let changed = tokio::time::timeout(super::CALL_TIMEOUT, changed).await;
        changed.map_err(|_| self.gone("it has not answered in time"))?
    }

    async fn ask(&self, path: &str, body: String) -> Result<Response<Incoming>, EngineError> {
        let socket = self.dial().await.map_err(|error| self.gone(error))?;
        let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(socket))
            .await
            .map_err(|error| self.gone(error))?;
        // It ends with the stream that it becomes, or when the sender is dropped.
        tokio::spawn(connection.with_upgrades());
        let version = self.client.client_version();
        let request = Request::post(format!("/v{}.{}{path}", version.major_version, version.minor_version))
            .header(header::HOST, "docker")
            .header(header::CONNECTION, "Upgrade")
            .header(header::UPGRADE, "tcp")
            .header(header::CONTENT_TYPE, "application/json")
            .body(bollard::body_full(Bytes::from(body)))
            .map_err(|error| EngineError::Refused(error.to_string()))?;
        sender.send_request(request).await.map_err(|error| self.gone(error))
    }

    async fn dial(&self) -> std::io::Result<Box<dyn Connection>> {
        if let Some(path) = self.host.strip_prefix("unix://") {
            return Ok(Box::new(UnixStream::connect(path).await?));
        }
        let address = self.host.split_once("://").map_or(self.host.as_str(), |(_, address)| address);
        Ok(Box::new(TcpStream::connect(address.trim_end_matches('/')).await?))
    }

    fn gone(&self, why: impl ToString) -> EngineError {
        EngineError::Unreachable { host: self.host.clone(), why: why.to_string() }
    }
}

async fn refusal(code: StatusCode, response: Response<Incoming>) -> EngineError {
    let body = axum::body::to_bytes(Body::new(response.into_body()), ERROR_BYTES).await.unwrap_or_default();
    let said: serde_json::Value = serde_json::from_slice(&body).unwrap_or_default();
    let message = match said["message"].as_str() {
        Some(message) => message.to_owned(),
        None => format!("Docker answered {code}"),
    };
    match code {
        StatusCode::NOT_FOUND => EngineError::NotFound(message),
        StatusCode::CONFLICT => EngineError::Conflict(message),
        _ => EngineError::Refused(message),
    }
}
