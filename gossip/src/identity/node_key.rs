//! The key that makes a node itself: an ed25519 key pair in its data directory, made once.
//!
//! Must never overwrite a file that it cannot read: a new key would be a new node, and the old one's place in the
//! cluster would be lost without a word.

use std::fmt;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use libp2p::PeerId;
use libp2p::identity::Keypair;
use zeroize::Zeroizing;

/// Only the owner may read a key.
const MODE: u32 = 0o600;
/// A key file is under 100 bytes; a larger one is something else.
const LARGEST_BYTES: u64 = 1024;

/// This node's key pair. Cheap to clone, redacted in `Debug`.
#[derive(Clone)]
pub struct NodeKey(Keypair);

/// Why there is no node key.
#[derive(Debug, thiserror::Error)]
pub enum IdentityError {
    #[error("cannot read the node key {}", path.display())]
    Read { path: PathBuf, source: io::Error },
    #[error("cannot write the node key {}", path.display())]
    Write { path: PathBuf, source: io::Error },
    #[error(
        "the node key {} is damaged: restore it from a copy, or remove it to join as a new node",
        path.display()
    )]
    Corrupt { path: PathBuf },
}

impl NodeKey {
    /// A key that is kept nowhere: for tests and for clients that are not nodes.
    #[must_use]
    pub fn ephemeral() -> Self {
        Self(Keypair::generate_ed25519())
    }

    /// Reads the key at `path`, or makes one there (mode 0600, complete or not at all, on disk when this returns).
    /// The directory must exist. Does file I/O: call it on a blocking thread or before the runtime is busy.
    ///
    /// # Errors
    /// Names the file; a damaged file is an error, never replaced.
    pub fn load_or_create(path: &Path) -> Result<Self, IdentityError> {
        match load(path) {
            Err(IdentityError::Read { source, .. }) if source.kind() == io::ErrorKind::NotFound => {
                create(path)
            }
            other => other,
        }
    }

    /// The public name of this node, derived from its key.
    #[must_use]
    pub fn peer_id(&self) -> PeerId {
        self.0.public().to_peer_id()
    }

    pub(crate) fn keypair(&self) -> &Keypair {
        &self.0
    }
}

fn load(path: &Path) -> Result<NodeKey, IdentityError> {
    let failed = |source| IdentityError::Read { path: path.to_owned(), source };
    let file = File::open(path).map_err(failed)?;
    // A copied or restored file may have lost its mode: put it right rather than refuse to start.
    let metadata = file.metadata().map_err(failed)?;
    if metadata.permissions().mode() & 0o077 != 0 {
        tracing::warn!(path = %path.display(), "the node key was readable by others, closing it");
        file.set_permissions(fs::Permissions::from_mode(MODE)).map_err(failed)?;
    }
    let mut bytes = Zeroizing::new(Vec::new());
    file.take(LARGEST_BYTES + 1).read_to_end(&mut bytes).map_err(failed)?;
    Keypair::from_protobuf_encoding(&bytes)
        .map(NodeKey)
        .map_err(|_| IdentityError::Corrupt { path: path.to_owned() })
}

fn create(path: &Path) -> Result<NodeKey, IdentityError> {
    let failed = |source| IdentityError::Write { path: path.to_owned(), source };
    let key = NodeKey::ephemeral();
    let bytes =
        key.0.to_protobuf_encoding().map(Zeroizing::new).map_err(|error| failed(io::Error::other(error)))?;
    write_secret(path, &bytes).map_err(failed)?;
    Ok(key)
}

/// Writes beside the target and renames, so that a power cut leaves the whole file or none.
fn write_secret(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut beside = path.as_os_str().to_owned();
    beside.push(".new");
    let beside = PathBuf::from(beside);
    // A left-over of an earlier cut might be open to others; the mode of an existing file would not change.
    match fs::remove_file(&beside) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let mut file = OpenOptions::new().write(true).create_new(true).mode(MODE).open(&beside)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    fs::rename(&beside, path)?;
    let directory = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    File::open(directory)?.sync_all()
}

impl fmt::Debug for NodeKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "NodeKey({})", self.peer_id())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_node_keeps_its_name_over_restarts_and_its_key_to_itself() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("node.key");
        let first = NodeKey::load_or_create(&path).unwrap();
        let again = NodeKey::load_or_create(&path).unwrap();
        assert_eq!(first.peer_id(), again.peer_id());
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 1, "nothing is left beside it");
    }

    #[test]
    fn a_damaged_key_is_an_error_that_names_the_file_and_leaves_it_alone() {
        let directory = tempfile::tempdir().unwrap();
        for (name, bytes) in [("short", b"oops".to_vec()), ("empty", Vec::new()), ("long", vec![8; 5000])] {
            let path = directory.path().join(name);
            fs::write(&path, &bytes).unwrap();
            let error = NodeKey::load_or_create(&path).unwrap_err();
            assert!(matches!(error, IdentityError::Corrupt { .. }), "{error}");
            assert!(error.to_string().contains(path.to_str().unwrap()), "{error}");
            assert_eq!(fs::read(&path).unwrap(), bytes);
        }
    }

    #[test]
    fn an_open_key_file_is_closed_to_others_on_the_next_start() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("node.key");
        NodeKey::load_or_create(&path).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).unwrap();
        NodeKey::load_or_create(&path).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    }

    #[test]
    fn a_directory_that_is_not_there_is_named() {
        let error = NodeKey::load_or_create(Path::new("/nonexistent/node.key")).unwrap_err();
        assert!(error.to_string().contains("/nonexistent/node.key"), "{error}");
    }
}
