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

/// A file of the data directory that does not say what was written to it.
#[derive(Debug, thiserror::Error)]
#[error(
    "{} is damaged: give the phrase once (gaggle up PHRASE) to mend it, or move the data directory away to join anew",
    path.display()
)]
struct Damaged {
    path: PathBuf,
    source: serde_json::Error,
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
            _ => bail!("{} is damaged: give the phrase once (gaggle up PHRASE) to mend it", path.display()),
        }
    }

    /// Makes the directory this cluster's, or says whose it already is. Of the two files that say so, one that is
    /// damaged is mended by the other.
    pub fn belong_to(&self, key: &ClusterKey) -> anyhow::Result<()> {
        let cluster = key.cluster_id();
        let kept = fs::read(self.path("cluster.key")).is_ok_and(|kept| kept == key.as_bytes());
        let known = match self.belongs() {
            Err(error) if !(kept && error.is::<Damaged>()) => return Err(error),
            known => known.ok().flatten(),
        };
        if let Some(belongs) = known.as_ref().filter(|belongs| belongs.cluster != cluster) {
            bail!(
                "{} belongs to another cluster ({}, and this phrase makes {cluster}); give another --data-dir, or `gaggle up` without a phrase to rejoin that one",
                self.path.display(),
                belongs.cluster
            );
        }
        if !kept {
            write_atomically(&self.path("cluster.key"), key.as_bytes())?;
        }
        if known.is_none() {
            self.write_json("cluster.json", &Belongs { layout: LAYOUT, cluster })?;
        }
        Ok(())
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
        serde_json::from_slice(&bytes).map(Some).map_err(|source| Damaged { path, source }.into())
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
        fs::write(dir.path("remembered.json"), b"{\"peers\": [").unwrap();
        assert_eq!(dir.remembered(), Remembered::default());
    }

    #[test]
    fn of_two_files_that_say_whose_it_is_one_mends_the_other() {
        let scratch = tempfile::tempdir().unwrap();
        let dir = DataDir::open(scratch.path()).unwrap();
        let (ours, other) = (ClusterKey::from_bytes([1; 32]), ClusterKey::from_bytes([2; 32]));
        dir.belong_to(&ours).unwrap();
        for name in ["cluster.key", "cluster.json"] {
            let whole = fs::read(dir.path(name)).unwrap();
            let damaged = (0..whole.len()).map(|cut| whole[..cut].to_vec());
            let damaged = damaged.chain((0..whole.len()).map(|at| {
                let mut bytes = whole.clone();
                bytes[at] ^= 0x01;
                bytes
            }));
            for bytes in damaged {
                fs::write(dir.path(name), &bytes).unwrap();
                // Never another cluster's directory, and never another key than was given.
                let said = dir.cluster_key();
                assert!(
                    said.is_err()
                        || said.is_ok_and(|key| key.is_none_or(|key| key.as_bytes() == ours.as_bytes()))
                );
                assert!(dir.belong_to(&other).is_err(), "{name}: {bytes:?}");
                if dir.belong_to(&ours).is_ok() {
                    assert_eq!(dir.cluster_key().unwrap().unwrap().as_bytes(), ours.as_bytes());
                }
            }
            fs::write(dir.path(name), &whole).unwrap();
        }
        fs::write(dir.path("cluster.json"), b"{").unwrap();
        dir.belong_to(&ours).unwrap();
        fs::write(dir.path("cluster.key"), b"short").unwrap();
        dir.belong_to(&ours).unwrap();
        assert!(dir.cluster_key().unwrap().is_some());
        fs::write(dir.path("cluster.json"), b"{").unwrap();
        fs::write(dir.path("cluster.key"), b"short").unwrap();
        let error = dir.belong_to(&ours).unwrap_err().to_string();
        assert!(error.contains("cluster.json is damaged") && error.contains("move"), "{error}");
    }
}
