//! Getting images: from the registry, else what is here, else from a desktop that has it.

use super::Report;
use crate::agent::ImagePeers;
use crate::agent::engine::{Engine, EngineError};
use crate::agent::planner::familiar;
use futures::StreamExt;
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::sync::{Semaphore, mpsc};
use tokio::time::Instant;

/// How many images are got at once: they share the desktop's line and disk.
const PULLS_AT_ONCE: usize = 3;

/// How long a registry has for its first word. Desktops without a way out often drop packets silently.
const REGISTRY_ANSWER: Duration = Duration::from_secs(6);

/// How long a pull that began may be silent.
const REGISTRY_SILENCE: Duration = Duration::from_secs(60);

/// For how long a registry that did not answer is not asked for an image that is here already.
const REGISTRY_REST: Duration = Duration::from_secs(60);

/// How many registries are remembered as silent.
const REGISTRIES: usize = 64;

/// At most one note about a pull's progress in this time.
const PROGRESS_EVERY: Duration = Duration::from_secs(10);

/// Where an image came from, for the notes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Source {
    Registry,
    /// The registry could not give it (why), but it was here.
    Present(String),
    /// The registry could not give it (why), but another desktop had it.
    Peer(String),
}

/// Shared by all pulls.
pub struct Pulls {
    pub engine: Arc<dyn Engine>,
    peers: Arc<dyn ImagePeers>,
    at_once: Semaphore,
    /// Registries that did not answer, and until when they are left alone.
    silent: Mutex<BTreeMap<String, Instant>>,
}

impl Pulls {
    pub fn new(engine: Arc<dyn Engine>, peers: Arc<dyn ImagePeers>) -> Self {
        Self { engine, peers, at_once: Semaphore::new(PULLS_AT_ONCE), silent: Mutex::default() }
    }

    /// Gets an image, and reports how that went. `present`: it is here already, maybe an older one of that name.
    pub async fn get(self: Arc<Self>, image: String, present: bool, reports: mpsc::Sender<Report>) {
        let waited = Instant::now();
        let Ok(_permit) = self.at_once.acquire().await else { return };
        let begun = Instant::now();
        let result = self.find(&image, present, &reports).await;
        let images = match &result {
            Ok(Source::Present(_)) | Err(_) => None,
            Ok(_) => self.engine.images().await.ok(),
        };
        let (took, with_waiting) = (begun.elapsed(), waited.elapsed());
        let _ = reports.send(Report::PullEnded { image, result, images, took, with_waiting }).await;
    }

    async fn find(
        &self,
        image: &str,
        present: bool,
        reports: &mpsc::Sender<Report>,
    ) -> Result<Source, String> {
        let registry = registry_of(image);
        let resting = present && self.is_silent(&registry);
        let refused = if resting {
            format!("registry {registry} did not answer a short time ago")
        } else {
            match self.ask_registry(image, &registry, reports).await {
                Ok(()) => return Ok(Source::Registry),
                Err(why) => why,
            }
        };
        if present {
            return Ok(Source::Present(refused));
        }
        match self.ask_peers(image).await {
            Ok(()) => Ok(Source::Peer(refused)),
            Err(why) => Err(format!(
                "failed to pull image \"{image}\": the registry: {refused}; the other desktops: {why}. \
                 `gaggle image load FILE` puts an image on a desktop without a registry"
            )),
        }
    }

    async fn ask_registry(
        &self,
        image: &str,
        registry: &str,
        reports: &mpsc::Sender<Report>,
    ) -> Result<(), String> {
        let mut pull = self.engine.pull(&familiar(image));
        let mut layers: BTreeMap<String, (u64, u64)> = BTreeMap::new();
        let (mut patience, mut noted) = (REGISTRY_ANSWER, Instant::now());
        loop {
            let line = match tokio::time::timeout(patience, pull.next()).await {
                Ok(Some(line)) => line,
                Ok(None) => return Ok(()),
                Err(_) => {
                    self.keep_silent(registry);
                    return Err(format!("{registry} did not answer within {} s", patience.as_secs()));
                }
            };
            match line {
                Ok(progress) => {
                    patience = REGISTRY_SILENCE;
                    if let (Some(current), Some(total)) = (progress.current_bytes, progress.total_bytes)
                        && progress.status == "Downloading"
                    {
                        layers.insert(progress.layer, (current, total));
                    } else if progress.status == "Download complete"
                        && let Some((current, total)) = layers.get_mut(&progress.layer)
                    {
                        // Docker does not tell of a layer's last bytes.
                        *current = *total;
                    }
                    if noted.elapsed() >= PROGRESS_EVERY && !layers.is_empty() {
                        noted = Instant::now();
                        let (current, total) =
                            layers.values().fold((0, 0), |sum, layer| (sum.0 + layer.0, sum.1 + layer.1));
                        let image = image.to_owned();
                        let _ = reports.send(Report::PullProgress { image, current, total }).await;
                    }
                }
                Err(error) => {
                    if is_network(&error) {
                        self.keep_silent(registry);
                    }
                    return Err(error.to_string());
                }
            }
        }
    }

    async fn ask_peers(&self, image: &str) -> Result<(), String> {
        let name = familiar(image);
        let Some(archive) = self.peers.fetch(&name).await? else { return Err("none has it".to_owned()) };
        self.engine
            .load(archive)
            .await
            .map_err(|error| format!("loading the copy of one failed: {error}"))?;
        let images = self.engine.images().await.map_err(|error| error.to_string())?;
        let index = crate::agent::planner::ImageIndex::new(&images);
        match index.find(&name) {
            Some(_) => Ok(()),
            None => Err("one sent an archive without it".to_owned()),
        }
    }

    fn is_silent(&self, registry: &str) -> bool {
        let silent = self.silent.lock().unwrap_or_else(PoisonError::into_inner);
        silent.get(registry).is_some_and(|until| Instant::now() < *until)
    }

    fn keep_silent(&self, registry: &str) {
        let mut silent = self.silent.lock().unwrap_or_else(PoisonError::into_inner);
        let now = Instant::now();
        silent.retain(|_, until| now < *until);
        if silent.len() < REGISTRIES {
            silent.insert(registry.to_owned(), now + REGISTRY_REST);
        }
    }
}

/// The registry that an image's name leads to.
fn registry_of(image: &str) -> String {
    match image.split_once('/') {
        Some((host, _)) if host.contains(['.', ':']) || host == "localhost" => host.to_owned(),
        _ => "docker.io".to_owned(),
    }
}

/// Whether a pull failed for want of a way to the registry, as far as Docker's words tell.
fn is_network(error: &EngineError) -> bool {
    const SIGNS: [&str; 8] = [
        "dial tcp",
        "lookup ",
        "i/o timeout",
        "no such host",
        "connection refused",
        "network is unreachable",
        "Client.Timeout",
        "TLS handshake timeout",
    ];
    let text = error.to_string();
    SIGNS.iter().any(|sign| text.contains(sign))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_leads_to_its_registry() {
        for (image, registry) in [
            ("busybox", "docker.io"),
            ("someone/app:1", "docker.io"),
            ("ghcr.io/a/b", "ghcr.io"),
            ("lab:5000/a", "lab:5000"),
            ("localhost/a", "localhost"),
        ] {
            assert_eq!(registry_of(image), registry, "{image}");
        }
    }
}
