//! The way to the local daemon's API: finds it through the data directory, sends, and explains failures.

use super::Place;
use crate::options::{ROOT_DATA_DIR, Surroundings, admin_kubeconfig};
use anyhow::Context;
use axum::body::{Body, Bytes};
use axum::http::{HeaderMap, Method, Request, Response, StatusCode, header};
use futures::StreamExt;
use futures::stream::BoxStream;
use hyper::upgrade::Upgraded;
use hyper_util::client::legacy;
use hyper_util::rt::{TokioExecutor, TokioIo};
use kube::client::ConfigExt;
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::core::Status;
use serde_json::Value;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::time::Duration;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::handshake::client::generate_key;
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;
use tokio_tungstenite::tungstenite::protocol::Role;
use tower::util::BoxCloneService;
use tower::{BoxError, ServiceBuilder, ServiceExt};

/// A local daemon accepts at once or not at all.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// The daemon itself gives a write up after less than this when no quorum answers.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(60);
/// A list of 100,000 pods is about this big; more is not an answer that fits a terminal.
const MAX_ANSWER_BYTES: usize = 512 << 20;
/// How writes of these commands are marked in an object's managed fields.
pub const FIELD_MANAGER: &str = "gaggle";

/// Why a request came to nothing.
#[derive(Debug, thiserror::Error)]
pub enum RequestError {
    /// The API understood, and refused.
    #[error("{}", refusal(.0))]
    Refused(Box<Status>),
    #[error("cannot reach a daemon at {address} (is it running? `gaggle up` starts it)")]
    Unreachable { address: String, source: BoxError },
    #[error("the request to {address} failed")]
    Broken { address: String, source: BoxError },
    #[error("{address} has not answered within {} s; `gaggle status` shows whether the cluster can act",
            ANSWER_TIMEOUT.as_secs())]
    Late { address: String },
    #[error("{address} answered with something that is no JSON: is it a gaggle daemon?")]
    NotJson { address: String, source: serde_json::Error },
}

impl RequestError {
    /// The reason of the API's refusal, as in `NotFound`; empty for other errors.
    pub fn reason(&self) -> &str {
        match self {
            Self::Refused(status) => &status.reason,
            _ => "",
        }
    }

    pub fn is_not_found(&self) -> bool {
        matches!(self, Self::Refused(status) if status.code == 404)
    }

    /// The resource version is too old to continue from: list again.
    pub fn is_expired(&self) -> bool {
        matches!(self, Self::Refused(status) if status.code == 410)
    }
}

fn refusal(status: &Status) -> String {
    match status.reason.as_str() {
        "" => format!("Error from server: {}", status.message),
        reason => format!("Error from server ({reason}): {}", status.message),
    }
}

pub type Socket = WebSocketStream<TokioIo<Upgraded>>;

type Transport = BoxCloneService<Request<Body>, Response<hyper::body::Incoming>, BoxError>;

/// The API of one daemon.
#[derive(Clone)]
pub struct Connection {
    transport: Transport,
    address: String,
    namespace: String,
}

impl Connection {
    /// Reads the kubeconfig that the daemon left; nothing is sent yet.
    pub async fn open(place: &Place) -> anyhow::Result<Self> {
        let file = kubeconfig_file(place)?;
        let text = read_kubeconfig(place, &file)?;
        let unusable = || format!("the kubeconfig {} cannot be used", file.display());
        let kubeconfig = Kubeconfig::from_yaml(&text).with_context(unusable)?;
        let mut config = kube::Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default())
            .await
            .with_context(unusable)?;
        config.connect_timeout = Some(CONNECT_TIMEOUT);
        // The daemon is on this desktop: a proxy of the environment has nothing to do here.
        config.proxy_url = None;
        Self::with_config(&config).with_context(unusable)
    }

    fn with_config(config: &kube::Config) -> Result<Self, kube::Error> {
        let mut connector = legacy::connect::HttpConnector::new();
        connector.enforce_http(false);
        connector.set_connect_timeout(config.connect_timeout);
        connector.set_nodelay(true);
        let connector = config.rustls_https_connector_with_connector(connector)?;
        let client: legacy::Client<_, Body> = legacy::Client::builder(TokioExecutor::new()).build(connector);
        let transport = ServiceBuilder::new()
            .layer(config.base_uri_layer())
            .option_layer(config.auth_layer()?)
            .map_err(BoxError::from)
            .service(client);
        Ok(Self {
            transport: BoxCloneService::new(transport),
            address: config.cluster_url.to_string().trim_end_matches('/').to_owned(),
            namespace: config.default_namespace.clone(),
        })
    }

    /// The namespace for objects that name none.
    pub fn namespace(&self) -> &str {
        &self.namespace
    }

    pub fn address(&self) -> &str {
        &self.address
    }

    /// Sends one request and waits for the head of the answer. A refusal is an error; warnings are printed.
    pub async fn send(&self, request: Request<Body>) -> Result<Response<Body>, RequestError> {
        let sent = self.transport.clone().oneshot(request).await;
        let response = sent.map_err(|source| self.transport_error(source))?;
        print_warnings(response.headers());
        let response = response.map(Body::new);
        if response.status().is_success() || response.status() == StatusCode::SWITCHING_PROTOCOLS {
            return Ok(response);
        }
        let code = response.status();
        let bytes = self.collect(response.into_body()).await?;
        Err(RequestError::Refused(Box::new(read_status(code, &bytes))))
    }

    /// A whole JSON answer.
    pub async fn get(&self, path: &str, accept: &str) -> Result<Value, RequestError> {
        self.exchange(Method::GET, path, &[(header::ACCEPT.as_str(), accept)], Vec::new()).await
    }

    /// Sends `body` and reads the JSON that comes back.
    pub async fn write(
        &self,
        method: Method,
        path: &str,
        content_type: &str,
        body: &Value,
    ) -> Result<Value, RequestError> {
        let headers = [(header::CONTENT_TYPE.as_str(), content_type), (header::ACCEPT.as_str(), JSON)];
        self.exchange(method, path, &headers, body.to_string().into_bytes()).await
    }

    async fn exchange(
        &self,
        method: Method,
        path: &str,
        headers: &[(&str, &str)],
        body: Vec<u8>,
    ) -> Result<Value, RequestError> {
        let mut request = Request::builder().method(method).uri(path);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let request = request.body(Body::from(body)).map_err(|error| self.broken(error))?;
        let whole = async { self.collect(self.send(request).await?.into_body()).await };
        let bytes = tokio::time::timeout(ANSWER_TIMEOUT, whole)
            .await
            .map_err(|_| RequestError::Late { address: self.address.clone() })??;
        serde_json::from_slice(&bytes)
            .map_err(|source| RequestError::NotJson { address: self.address.clone(), source })
    }

    /// An answer that comes in pieces, for as long as the daemon has something to say.
    pub async fn stream(
        &self,
        method: Method,
        path: &str,
        accept: &str,
    ) -> Result<BoxStream<'static, std::io::Result<Bytes>>, RequestError> {
        let request = Request::builder().method(method).uri(path).header(header::ACCEPT, accept);
        let request = request.body(Body::empty()).map_err(|error| self.broken(error))?;
        let head = tokio::time::timeout(ANSWER_TIMEOUT, self.send(request)).await;
        let head = head.map_err(|_| RequestError::Late { address: self.address.clone() })?;
        let body = head?.into_body();
        Ok(body.into_data_stream().map(|piece| piece.map_err(std::io::Error::other)).boxed())
    }

    /// A WebSocket for this protocol.
    pub async fn socket(&self, path: &str, protocol: &'static str) -> Result<Socket, RequestError> {
        let key = generate_key();
        let request = Request::get(path)
            .header(header::CONNECTION, "Upgrade")
            .header(header::UPGRADE, "websocket")
            .header(header::SEC_WEBSOCKET_VERSION, "13")
            .header(header::SEC_WEBSOCKET_PROTOCOL, protocol)
            .header(header::SEC_WEBSOCKET_KEY, &key)
            .body(Body::empty())
            .map_err(|error| self.broken(error))?;
        let head = tokio::time::timeout(ANSWER_TIMEOUT, self.send(request)).await;
        let response = head.map_err(|_| RequestError::Late { address: self.address.clone() })??;
        let says = |name, value: &str| response.headers().get(name).is_some_and(|header| header == value);
        let accepted = derive_accept_key(key.as_bytes());
        if !says(header::SEC_WEBSOCKET_ACCEPT, &accepted) || !says(header::SEC_WEBSOCKET_PROTOCOL, protocol) {
            return Err(self.broken(format!("it does not speak {protocol}")));
        }
        let upgraded = hyper::upgrade::on(response).await.map_err(|error| self.broken(error))?;
        Ok(WebSocketStream::from_raw_socket(TokioIo::new(upgraded), Role::Client, None).await)
    }

    async fn collect(&self, body: Body) -> Result<Bytes, RequestError> {
        axum::body::to_bytes(body, MAX_ANSWER_BYTES).await.map_err(|error| self.broken(error))
    }

    fn transport_error(&self, source: BoxError) -> RequestError {
        let address = self.address.clone();
        match source.downcast_ref::<legacy::Error>() {
            Some(error) if error.is_connect() && !mentions_tls(error) => {
                RequestError::Unreachable { address, source }
            }
            _ => RequestError::Broken { address, source },
        }
    }

    fn broken(&self, error: impl Into<BoxError>) -> RequestError {
        RequestError::Broken { address: self.address.clone(), source: error.into() }
    }
}

pub const JSON: &str = "application/json";

/// Something listens there but cannot prove to be our daemon: another error than nobody listening.
fn mentions_tls(error: &legacy::Error) -> bool {
    let mut cause: Option<&(dyn std::error::Error + 'static)> = Some(error);
    while let Some(current) = cause {
        let inside_io = current.downcast_ref::<std::io::Error>().and_then(std::io::Error::get_ref);
        if current.is::<rustls::Error>() || inside_io.is_some_and(|inner| inner.is::<rustls::Error>()) {
            return true;
        }
        cause = current.source();
    }
    false
}

/// The refusal as the API words it; what is no `Status` is quoted, shortened.
fn read_status(code: StatusCode, body: &[u8]) -> Status {
    const MAX_QUOTE: usize = 500;
    if let Ok(status) = serde_json::from_slice::<Status>(body)
        && !status.message.is_empty()
    {
        return Status { code: code.as_u16(), ..status };
    }
    let text: String = String::from_utf8_lossy(body).trim().chars().take(MAX_QUOTE).collect();
    let message = if text.is_empty() { code.to_string() } else { text };
    Status { code: code.as_u16(), ..Status::failure(&message, "") }
}

/// `Warning: 299 - "text"`: how the API says that something was done, but.
fn print_warnings(headers: &HeaderMap) {
    for warning in headers.get_all(header::WARNING) {
        let Ok(text) = warning.to_str() else { continue };
        let quoted = text.split_once('"').and_then(|(_, rest)| rest.rsplit_once('"'));
        eprintln!("Warning: {}", quoted.map_or(text, |(inside, _)| inside).replace("\\\"", "\""));
    }
}

/// The kubeconfig that the daemon of `place` writes.
pub fn kubeconfig_file(place: &Place) -> anyhow::Result<PathBuf> {
    Ok(match &place.kubeconfig {
        Some(file) => file.clone(),
        None => admin_kubeconfig(&data_dir(place)?),
    })
}

fn data_dir(place: &Place) -> anyhow::Result<PathBuf> {
    Ok(match &place.data_dir {
        Some(dir) => dir.clone(),
        None => Surroundings::here().data_dir()?,
    })
}

/// The kubeconfig's text, or what to type instead.
pub fn read_kubeconfig(place: &Place, file: &Path) -> anyhow::Result<String> {
    let error = match std::fs::read_to_string(file) {
        Ok(text) => return Ok(text),
        Err(error) => error,
    };
    if place.kubeconfig.is_some() {
        return Err(anyhow::Error::new(error).context(format!("--kubeconfig {}", file.display())));
    }
    let dir = data_dir(place)?;
    let said = match error.kind() {
        ErrorKind::NotFound | ErrorKind::NotADirectory => format!(
            "no gaggle daemon has run with the data directory {}: start one with `gaggle up`, or name the \
             directory of the one that runs with --data-dir DIR{}",
            dir.display(),
            root_hint(place)
        ),
        ErrorKind::PermissionDenied => format!(
            "{} belongs to another user: run this as the user who ran `gaggle up` (with sudo for root's daemon)",
            file.display()
        ),
        _ => return Err(anyhow::Error::new(error).context(format!("cannot read {}", file.display()))),
    };
    Err(anyhow::anyhow!(said))
}

/// Root's daemon is the usual one on a desktop of a lab, and easily overlooked.
fn root_hint(place: &Place) -> &'static str {
    let default_place = place.data_dir.is_none() && !nix::unistd::geteuid().is_root();
    if default_place && Path::new(ROOT_DATA_DIR).exists() {
        " (root's daemon has /var/lib/gaggle: use sudo)"
    } else {
        ""
    }
}
