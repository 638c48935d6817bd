//! What kubectl and its relatives need to reach the cluster through one desktop.

use crate::pki::{SERVER_NAME, ServerCertificate};
use crate::tokens::AdminToken;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;

/// A kubeconfig for `server` (`https://ADDRESS:PORT`). It holds the administrator's token: keep it as the phrase.
pub fn render(certificate: &ServerCertificate, admin: &AdminToken, server: &str, cluster: &str) -> String {
    let authority = STANDARD.encode(certificate.authority().certificate_pem());
    let token = admin.expose();
    format!(
        "apiVersion: v1
kind: Config
clusters:
- name: gaggle-{cluster}
  cluster:
    server: {server}
    tls-server-name: {SERVER_NAME}
    certificate-authority-data: {authority}
users:
- name: gaggle-{cluster}-admin
  user:
    token: {token}
contexts:
- name: gaggle
  context:
    cluster: gaggle-{cluster}
    user: gaggle-{cluster}-admin
current-context: gaggle
"
    )
}
