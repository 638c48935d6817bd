//! A client of the served API, which sends what it is told to.

use super::server::{Server, TOKEN};
use axum::body::Body;
use axum::http::{HeaderMap, Request, Response};
use hyper::body::Incoming;
use hyper_util::rt::TokioIo;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use serde_json::{Value, json};
use std::sync::Arc;
use tokio::net::TcpStream;

pub struct Answer {
    pub code: u16,
    pub warnings: Vec<String>,
    pub retry_after: bool,
    pub headers: HeaderMap,
    pub body: Vec<u8>,
}

impl Answer {
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_default()
    }

    pub fn lines(&self) -> Vec<Value> {
        let text = String::from_utf8(self.body.clone()).unwrap();
        text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }
}

impl Server {
    pub async fn open(&self, request: Request<Body>) -> Response<Incoming> {
        let mut roots = rustls::RootCertStore::empty();
        roots.add(CertificateDer::from_pem_slice(self.ca_pem.as_bytes()).unwrap()).unwrap();
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let tls = rustls::ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(roots)
            .with_no_client_auth();
        let stream = TcpStream::connect(self.address).await.unwrap();
        let connector = tokio_rustls::TlsConnector::from(Arc::new(tls));
        let name = ServerName::try_from("127.0.0.1").unwrap();
        let stream = TokioIo::new(connector.connect(name, stream).await.unwrap());
        let (mut sender, connection) = hyper::client::conn::http1::handshake(stream).await.unwrap();
        tokio::spawn(connection);
        sender.send_request(request).await.unwrap()
    }

    pub async fn send(&self, request: Request<Body>) -> Answer {
        let (parts, body) = self.open(request).await.into_parts();
        let warnings =
            parts.headers.get_all("warning").iter().map(|w| w.to_str().unwrap().to_owned()).collect();
        let body = axum::body::to_bytes(Body::new(body), 1 << 24).await.unwrap().to_vec();
        let retry_after = parts.headers.contains_key("retry-after");
        Answer { code: parts.status.as_u16(), warnings, retry_after, headers: parts.headers, body }
    }

    pub async fn call(&self, method: &str, path: &str, media: &str, body: impl Into<Body>) -> Answer {
        self.call_as(TOKEN, method, path, media, body).await
    }

    /// The same with another token.
    pub async fn call_as(
        &self,
        token: &str,
        method: &str,
        path: &str,
        media: &str,
        body: impl Into<Body>,
    ) -> Answer {
        let request = Request::builder()
            .method(method)
            .uri(path)
            .header("host", "localhost")
            .header("authorization", format!("Bearer {token}"))
            .header("content-type", media)
            .body(body.into())
            .unwrap();
        self.send(request).await
    }

    pub async fn get(&self, path: &str) -> Answer {
        self.call("GET", path, "", Body::empty()).await
    }

    pub async fn post(&self, path: &str, object: &Value) -> Answer {
        self.call("POST", path, "application/json", object.to_string()).await
    }

    pub async fn config_map(&self, name: &str, data: Value) -> Answer {
        let object = json!({"metadata": {"name": name, "labels": {"color": data["color"]}}, "data": data});
        self.post("/api/v1/namespaces/default/configmaps", &object).await
    }
}
