//! What the owner of a desktop decides when the daemon starts: the validated options of `gaggle up`.
//!
//! Everything here is checked before a socket is bound or a file is written, and every refusal names the value
//! and what to write instead. This module must never know clap, the network or the cluster's state.

mod address;
mod flock;
mod quantity;
#[cfg(test)]
mod tests;

pub use address::{DEFAULT_API_PORT, DEFAULT_PEER_PORT, PeerAddress, parse_api_listen, parse_listen};
pub use flock::{Autonomy, MOST_VOTERS, Voters};
pub use quantity::{CpuMillis, MemoryBytes};

use std::collections::BTreeMap;
use std::fmt;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::str::FromStr;

/// A passphrase longer than this is a mistaken file, not a phrase.
pub const MAX_PHRASE_BYTES: usize = 1024;
/// Where Docker listens unless told otherwise.
pub const DEFAULT_DOCKER_HOST: &str = "unix:///var/run/docker.sock";
/// What Kubernetes offers per node unless told otherwise.
pub const DEFAULT_MAX_PODS: u32 = 110;

/// Why an option cannot be taken. Nothing has been bound or written when this is returned.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum OptionError {
    #[error("the phrase is empty: give at least five words, or leave it out and gaggle makes one")]
    EmptyPhrase,
    #[error("the phrase has {0} bytes, more than {MAX_PHRASE_BYTES}: is it the wrong file?")]
    LongPhrase(usize),
    #[error("the phrase contains a control character: use plain words in one line")]
    UnprintablePhrase,
    #[error(
        "{0:?} cannot name a node: use lower-case letters, digits, '-' and '.', beginning and ending with \
             a letter or digit, at most 253 characters"
    )]
    Name(String),
    #[error("the host name {0:?} has no letter or digit to name the node by: give it one with --name NAME")]
    HostName(String),
    #[error("{0:?} is not an address to listen on: write IP:PORT, IP, or PORT (0.0.0.0:7474)")]
    Listen(String),
    #[error("{0:?} is not the address of a peer: write HOST or HOST:PORT (pc7.lab.example:7474)")]
    Peer(String),
    #[error("--listen and --api-listen both name {0}: give them different ports")]
    SameAddress(SocketAddr),
    #[error("{0:?} is not a label: write KEY=VALUE (gpu=yes, lab.example/room=12)")]
    Label(String),
    #[error("the label {key:?} is given both as {first:?} and as {second:?}: give it once")]
    LabelTwice { key: String, first: String, second: String },
    #[error("{0:?} is not an amount of CPU: write cores (4, 1.5) or thousandths (1500m)")]
    Cpu(String),
    #[error("{0:?} is not an amount of memory: write it with a unit (8Gi, 512Mi, 8G)")]
    Memory(String),
    #[error(
        "{given:?} is less memory than one desktop needs ({}): did you forget the unit, as in {given}Gi?",
        quantity::MIN_MEMORY_TEXT
    )]
    LittleMemory { given: String },
    #[error(
        "{0:?} is not where a Docker engine listens: write unix:///var/run/docker.sock or tcp://HOST:PORT"
    )]
    DockerHost(String),
    #[error("{0:?} is not a size of the electorate: write 1, 3, 5 or 7")]
    Voters(String),
    #[error("{0:?} is not a time after which to go on alone: write 30s or longer (60s, 5m, 1h)")]
    Autonomy(String),
    #[error("there is no home directory to keep the node's data in: name one with --data-dir DIR")]
    NoHome,
}

/// The cluster's passphrase. It never shows in `Debug`, so that no log can contain it.
#[derive(Clone, PartialEq, Eq)]
pub struct Phrase(String);

impl Phrase {
    /// Takes a phrase as it was typed or read: white space around it is no part of it.
    pub fn new(text: &str) -> Result<Self, OptionError> {
        let text = text.trim();
        if text.is_empty() {
            return Err(OptionError::EmptyPhrase);
        }
        if text.len() > MAX_PHRASE_BYTES {
            return Err(OptionError::LongPhrase(text.len()));
        }
        if text.chars().any(char::is_control) {
            return Err(OptionError::UnprintablePhrase);
        }
        Ok(Self(text.to_owned()))
    }

    /// The secret itself: for key derivation and nothing else.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Phrase {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Phrase(…)")
    }
}

/// What to do with a phrase that can be guessed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum WeakPhrase {
    #[default]
    Refuse,
    /// `--force-weak-phrase`: for trials on one's own machine.
    Allow,
}

/// The name of a node: a DNS-1123 subdomain, as Kubernetes requires of node names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodeName(String);

impl NodeName {
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The nearest valid name to a host name: lower case, every other character a '-'.
    pub fn from_host_name(host: &str) -> Result<Self, OptionError> {
        let text: String = host
            .chars()
            .map(|c| c.to_ascii_lowercase())
            .map(|c| if c.is_ascii_alphanumeric() || c == '.' { c } else { '-' })
            .take(253)
            .collect();
        let labels: Vec<&str> = text
            .split('.')
            .map(|label| label.trim_matches('-'))
            .filter(|label| !label.is_empty() && label.len() <= 63)
            .collect();
        labels.join(".").parse().map_err(|_| OptionError::HostName(host.to_owned()))
    }
}

impl FromStr for NodeName {
    type Err = OptionError;

    fn from_str(text: &str) -> Result<Self, OptionError> {
        let valid = text.len() <= 253 && text.split('.').all(is_dns_label);
        if valid { Ok(Self(text.to_owned())) } else { Err(OptionError::Name(text.to_owned())) }
    }
}

impl fmt::Display for NodeName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

fn is_dns_label(text: &str) -> bool {
    let inner = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-';
    !text.is_empty()
        && text.len() <= 63
        && text.bytes().all(inner)
        && !text.starts_with('-')
        && !text.ends_with('-')
}

/// A node label, `KEY=VALUE`, by the rules of Kubernetes label syntax.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Label {
    pub key: String,
    pub value: String,
}

impl FromStr for Label {
    type Err = OptionError;

    fn from_str(text: &str) -> Result<Self, OptionError> {
        let refused = || OptionError::Label(text.to_owned());
        let (key, value) = text.split_once('=').ok_or_else(refused)?;
        let (prefix, name) = key.split_once('/').map_or((None, key), |(p, n)| (Some(p), n));
        let prefix_ok = prefix.is_none_or(|p| p.len() <= 253 && p.split('.').all(is_dns_label));
        let value_ok = value.is_empty() || is_label_text(value);
        if prefix_ok && is_label_text(name) && value_ok {
            Ok(Self { key: key.to_owned(), value: value.to_owned() })
        } else {
            Err(refused())
        }
    }
}

impl fmt::Display for Label {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}={}", self.key, self.value)
    }
}

fn is_label_text(text: &str) -> bool {
    let edge = |b: Option<u8>| b.is_some_and(|b| b.is_ascii_alphanumeric());
    text.len() <= 63
        && text.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.'))
        && edge(text.bytes().next())
        && edge(text.bytes().last())
}

/// Labels by key; the same key twice with two values is a mistake, not an order.
pub fn collect_labels(labels: Vec<Label>) -> Result<BTreeMap<String, String>, OptionError> {
    let mut collected = BTreeMap::new();
    for Label { key, value } in labels {
        match collected.insert(key.clone(), value.clone()) {
            Some(first) if first != value => {
                return Err(OptionError::LabelTwice { key, first, second: value });
            }
            _ => {}
        }
    }
    Ok(collected)
}

/// Where the Docker engine listens, as bollard and the docker command spell it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DockerHost(String);

impl DockerHost {
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for DockerHost {
    type Err = OptionError;

    fn from_str(text: &str) -> Result<Self, OptionError> {
        if text.starts_with('/') {
            return Ok(Self(format!("unix://{text}")));
        }
        let known = match text.split_once("://") {
            Some(("unix", path)) => path.starts_with('/'),
            Some(("tcp" | "http", host)) => !host.is_empty(),
            _ => false,
        };
        if known { Ok(Self(text.to_owned())) } else { Err(OptionError::DockerHost(text.to_owned())) }
    }
}

impl fmt::Display for DockerHost {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// What this process can see of the desktop; an argument, so that defaults can be tested.
#[derive(Clone, Debug, Default)]
pub struct Surroundings {
    pub host_name: String,
    pub home: Option<PathBuf>,
    pub xdg_data_home: Option<PathBuf>,
    pub root: bool,
}

impl Surroundings {
    pub fn here() -> Self {
        let directory = |variable| std::env::var_os(variable).filter(|v| !v.is_empty()).map(PathBuf::from);
        Self {
            host_name: nix::unistd::gethostname().unwrap_or_default().to_string_lossy().into_owned(),
            home: directory("HOME"),
            // The XDG rules: a relative path there is to be ignored.
            xdg_data_home: directory("XDG_DATA_HOME").filter(|path| path.is_absolute()),
            root: nix::unistd::geteuid().is_root(),
        }
    }

    /// Where a node keeps its data unless told otherwise.
    pub fn data_dir(&self) -> Result<PathBuf, OptionError> {
        if self.root {
            return Ok(PathBuf::from(ROOT_DATA_DIR));
        }
        let base = self.xdg_data_home.clone().or_else(|| Some(self.home.as_ref()?.join(".local/share")));
        base.map(|base| base.join("gaggle")).ok_or(OptionError::NoHome)
    }
}

/// Where root's daemon keeps its data.
pub const ROOT_DATA_DIR: &str = "/var/lib/gaggle";

/// The kubeconfig that the daemon writes for the commands of its own desktop (0600).
pub fn admin_kubeconfig(data_dir: &Path) -> PathBuf {
    data_dir.join("admin.kubeconfig")
}

/// Everything that `gaggle up` was told, valid and complete.
#[derive(Clone, Debug)]
pub struct UpOptions {
    /// `None`: rejoin the cluster that the data directory remembers, or make a phrase and found one.
    pub phrase: Option<Phrase>,
    pub weak_phrase: WeakPhrase,
    pub name: NodeName,
    /// Absolute.
    pub data_dir: PathBuf,
    pub docker_host: DockerHost,
    /// Where other desktops reach this one (libp2p over TCP).
    pub listen: SocketAddr,
    /// Where kubectl and the commands reach this node's API (TLS).
    pub api_listen: SocketAddr,
    pub peers: Vec<PeerAddress>,
    pub labels: BTreeMap<String, String>,
    /// What this desktop offers; `None`: all that it has.
    pub cpu: Option<CpuMillis>,
    pub memory: Option<MemoryBytes>,
    pub max_pods: u32,
    /// The largest electorate; the leader's counts.
    pub voters: Voters,
    /// `None`: less than half never go on by themselves.
    pub autonomy: Option<Autonomy>,
}

impl UpOptions {
    /// The checks that need more than one option.
    pub fn check(&self) -> Result<(), OptionError> {
        if self.listen == self.api_listen && self.listen.port() != 0 {
            return Err(OptionError::SameAddress(self.listen));
        }
        Ok(())
    }
}
