//! `gaggle kubeconfig`: what kubectl and every other Kubernetes client need to reach the cluster.

use super::Place;
use super::connection::{kubeconfig_file, read_kubeconfig};
use anyhow::{Context, ensure};
use axum::http::Uri;
use serde_yaml_ng::Value;
use std::io::Write;

/// Print a kubeconfig for kubectl and other clients
///
/// It holds a token with all rights in the cluster: keep it as you keep the phrase.
#[derive(clap::Args, Debug)]
#[command(verbatim_doc_comment, after_help = EXAMPLES)]
pub struct KubeconfigArgs {
    /// Reach the API there instead of on this desktop; every desktop of the cluster serves it
    #[arg(long, value_name = "HOST[:PORT]")]
    server: Option<String>,
}

const EXAMPLES: &str = "\
Examples:
  gaggle kubeconfig > ~/.kube/gaggle && chmod 600 ~/.kube/gaggle
  KUBECONFIG=~/.kube/gaggle kubectl get nodes
  gaggle kubeconfig --server pc7.lab.example > laptop.kubeconfig     for a laptop that is no node";

pub fn run(place: &Place, args: KubeconfigArgs) -> anyhow::Result<()> {
    let file = kubeconfig_file(place)?;
    let text = read_kubeconfig(place, &file)?;
    let text = match &args.server {
        Some(server) => with_server(&text, server).with_context(|| file.display().to_string())?,
        None => text,
    };
    std::io::stdout().write_all(text.as_bytes())?;
    Ok(())
}

/// The same kubeconfig for another desktop; its certificate is checked by the server name that it names, not
/// by its address.
fn with_server(text: &str, server: &str) -> anyhow::Result<String> {
    const DEFAULT_PORT: u16 = crate::options::DEFAULT_API_PORT;
    let bare = server.strip_prefix("https://").unwrap_or(server).trim_end_matches('/');
    let parsed = format!("https://{bare}").parse::<Uri>();
    let parsed = parsed.with_context(|| format!("--server {server}: write HOST or HOST:PORT"))?;
    ensure!(parsed.path() == "/" && parsed.query().is_none(), "--server {server}: write HOST or HOST:PORT");
    let host = parsed.host().with_context(|| format!("--server {server} names no host"))?;
    let url = format!("https://{host}:{}", parsed.port_u16().unwrap_or(DEFAULT_PORT));
    let mut config: Value = serde_yaml_ng::from_str(text)?;
    let clusters = config.get_mut("clusters").and_then(Value::as_sequence_mut);
    for cluster in clusters.context("it lists no clusters")? {
        cluster["cluster"]["server"] = Value::String(url.clone());
    }
    Ok(serde_yaml_ng::to_string(&config)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    const FILE: &str = "clusters:\n- name: gaggle\n  cluster:\n    server: https://127.0.0.1:6443\n    \
                        tls-server-name: gaggle\n";

    #[test]
    fn another_server_replaces_the_address_only() {
        for (server, url) in [
            ("pc7", "https://pc7:6443"),
            ("10.0.0.7:7443", "https://10.0.0.7:7443"),
            ("https://pc7/", "https://pc7:6443"),
            ("[fd00::7]", "https://[fd00::7]:6443"),
        ] {
            let text = with_server(FILE, server).unwrap();
            assert!(text.contains(url) && text.contains("tls-server-name: gaggle"), "{text}");
        }
        for server in ["", "a b", "pc7/path", "pc7?x"] {
            assert!(with_server(FILE, server).is_err(), "{server:?} was taken");
        }
        assert!(with_server("{}", "pc7").is_err());
    }
}
