//! The data directory: everything that a node keeps, and whose it is.
//!
//! One daemon at a time, one cluster for ever: a lock says the first, `cluster.json` the second.

use anyhow::{Context, bail};
use gaggle_gossip::identity::{ClusterKey, NodeKey};
use nix::errno::Errno;
use nix::fcntl::{Flock, FlockArg};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use std::fs::{self, File, OpenOptions};
use std::io::Write;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// The layout's version; a newer one is refused rather than misread.
const LAYOUT: u32 = 1;

/// How long a killed daemon may take to be gone.
const DYING: Duration = Duration::from_secs(3);
const LOOK_AGAIN: Duration = Duration::from_millis(20);

#[derive(Serialize, Deserialize)]
struct Belongs {
    layout: u32,
    cluster: String,
}

/// What the node must not do again after a restart.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Remembered {
    /// Addresses of peers, as the transport writes them.
    pub peers: Vec<String>,
    /// The name the node last ran under.
    pub name: String,
}

/// An open, locked data directory.
pub struct DataDir {
    path: PathBuf,
    // Held for as long as the daemon lives.
    _lock: Flock<File>,
}

impl DataDir {
    /// Opens the directory, made if need be, readable by its owner alone.
    pub fn open(path: &Path) -> anyhow::Result<Self> {
        fs::DirBuilder::new().recursive(true).mode(0o700).create(path).with_context(|| {
            format!("making the data directory {} (another can be named with --data-dir)", path.display())
        })?;
        let lock = OpenOptions::new()
            .create(true)
            .truncate(false)
            .write(true)
            .mode(0o600)
            .open(path.join("lock"))
            .with_context(|| format!("writing to the data directory {}", path.display()))?;
        let lock = wait_for_lock(lock).map_err(|error| {
            anyhow::anyhow!(
                "another gaggle daemon already uses {} ({error}); see `gaggle status`, or give this one another --data-dir",
                path.display()
            )
        })?;
        Ok(Self { path: path.to_owned(), _lock: lock })
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.path.join(name)
    }

    /// The key of the cluster that this directory belongs to, if it belongs to one.
    pub fn cluster_key(&self) -> anyhow::Result<Option<ClusterKey>> {
        let Some(belongs) = self.belongs()? else { return Ok(None) };
        let path = self.path("cluster.key");
        let bytes = fs::read(&path).with_context(|| format!("reading {}", path.display()))?;
        let key = <[u8; 32]>::try_from(bytes.as_slice()).ok().map(ClusterKey::from_bytes);
        match key {
            Some(key) if key.cluster_id() == belongs.cluster => Ok(Some(key)),
            _ => bail!(
                "{} is damaged: give the phrase again (gaggle up PHRASE) after removing that file and {}",
                path.display(),
                self.path("cluster.json").display()
            ),
        }
    }

    /// Makes the directory this cluster's, or says whose it already is.
    pub fn belong_to(&self, key: &ClusterKey) -> anyhow::Result<()> {
        let cluster = key.cluster_id();
        match self.belongs()? {
            Some(belongs) if belongs.cluster == cluster => Ok(()),
            Some(belongs) => bail!(
                "{} belongs to another cluster ({}, and this phrase makes {cluster}); give another --data-dir, or `gaggle up` without a phrase to rejoin that one",
                self.path.display(),
                belongs.cluster
            ),
            None => {
                write_atomically(&self.path("cluster.key"), key.as_bytes())?;
                self.write_json("cluster.json", &Belongs { layout: LAYOUT, cluster })
            }
        }
    }

    fn belongs(&self) -> anyhow::Result<Option<Belongs>> {
        let belongs: Option<Belongs> = self.read_json("cluster.json")?;
        if let Some(Belongs { layout, .. }) = &belongs
            && *layout != LAYOUT
        {
            bail!(
                "{} was written by another version of gaggle (layout {layout}; this one reads {LAYOUT}): use that version, or another --data-dir",
                self.path.display()
            );
        }
        Ok(belongs)
    }

    pub fn node_key(&self) -> anyhow::Result<NodeKey> {
        Ok(NodeKey::load_or_create(&self.path("node.key"))?)
    }

    pub fn remembered(&self) -> Remembered {
        // Only a convenience: without it, peers are found as on the first day.
        self.read_json("remembered.json")
            .unwrap_or_else(|error| {
                tracing::warn!(%error, "what was remembered is unreadable and starts anew");
                None
            })
            .unwrap_or_default()
    }

    pub fn remember(&self, remembered: &Remembered) -> anyhow::Result<()> {
        self.write_json("remembered.json", remembered)
    }

    fn read_json<T: DeserializeOwned>(&self, name: &str) -> anyhow::Result<Option<T>> {
        let path = self.path(name);
        let bytes = match fs::read(&path) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error).with_context(|| format!("reading {}", path.display())),
        };
        serde_json::from_slice(&bytes).map(Some).with_context(|| {
            format!(
                "{} is damaged; move the data directory away and `gaggle up PHRASE` joins anew",
                path.display()
            )
        })
    }

    fn write_json<T: Serialize>(&self, name: &str, value: &T) -> anyhow::Result<()> {
        write_atomically(&self.path(name), &serde_json::to_vec_pretty(value)?)
    }
}

/// Takes the lock, waiting a little for a daemon that was just killed: the kernel frees its lock when the last of
/// its threads has ended, which nobody is told.
fn wait_for_lock(mut file: File) -> Result<Flock<File>, Errno> {
    let deadline = Instant::now() + DYING;
    loop {
        match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
            Ok(lock) => return Ok(lock),
            Err((_, error)) if Instant::now() >= deadline => return Err(error),
            Err((unlocked, _)) => file = unlocked,
        }
        std::thread::sleep(LOOK_AGAIN);
    }
}

/// Replaces a file, readable by its owner alone, so that a power cut leaves the old or the new one.
pub fn write_atomically(path: &Path, bytes: &[u8]) -> anyhow::Result<()> {
    let temporary = path.with_extension("new");
    let write = || -> std::io::Result<()> {
        let mut file =
            OpenOptions::new().create(true).truncate(true).write(true).mode(0o600).open(&temporary)?;
        file.write_all(bytes)?;
        file.sync_all()?;
        fs::rename(&temporary, path)?;
        match path.parent() {
            Some(parent) => File::open(parent)?.sync_all(),
            None => Ok(()),
        }
    };
    write().with_context(|| format!("writing {}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn a_directory_belongs_to_one_cluster_and_one_daemon() {
        let scratch = tempfile::tempdir().unwrap();
        let path = scratch.path().join("data");
        let dir = DataDir::open(&path).unwrap();
        assert!(dir.cluster_key().unwrap().is_none());
        dir.belong_to(&ClusterKey::from_bytes([1; 32])).unwrap();
        assert!(dir.cluster_key().unwrap().is_some());
        let error = dir.belong_to(&ClusterKey::from_bytes([2; 32])).unwrap_err().to_string();
        assert!(error.contains("another cluster") && error.contains("--data-dir"), "{error}");
        let error = DataDir::open(&path).err().unwrap().to_string();
        assert!(error.contains("already uses"), "{error}");
        for name in ["cluster.key", "cluster.json", "lock"] {
            assert_eq!(fs::metadata(dir.path(name)).unwrap().permissions().mode() & 0o077, 0, "{name}");
        }
    }

    #[test]
    fn damage_is_named() {
        let scratch = tempfile::tempdir().unwrap();
        let dir = DataDir::open(scratch.path()).unwrap();
        dir.belong_to(&ClusterKey::from_bytes([1; 32])).unwrap();
        fs::write(dir.path("cluster.key"), b"short").unwrap();
        let error = dir.cluster_key().err().unwrap().to_string();
        assert!(error.contains("cluster.key is damaged"), "{error}");
        fs::write(dir.path("cluster.json"), b"{").unwrap();
        assert!(dir.cluster_key().is_err());
    }
}
