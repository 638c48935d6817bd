//! Where a group keeps its files: on the file system, or on what a simulation has in its place.
//!
//! Everything but [`Storage::work`] may block, and is called from in there once the group runs.

use super::files;
use std::fmt;
use std::fs::{File, TryLockError};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;

/// What a group asks of its disk. What it says has happened must outlive a power cut, but for [`Pages::write`].
#[async_trait::async_trait]
pub trait Storage: Send + Sync + fmt::Debug + 'static {
    fn make_dir(&self, path: &Path) -> io::Result<()>;

    fn exists(&self, path: &Path) -> io::Result<bool>;

    /// Makes an empty file that only the owner may read; there must be none.
    fn create(&self, path: &Path) -> io::Result<()>;

    /// A file to read and write anywhere in; made if it is not there.
    fn open(&self, path: &Path) -> io::Result<Box<dyn Pages>>;

    /// The same, of one that is there, under a name that outlives a power cut, and that nobody else opens so meanwhile.
    ///
    /// # Errors
    /// [`io::ErrorKind::WouldBlock`] where somebody else has it open.
    fn open_alone(&self, path: &Path) -> io::Result<Box<dyn Pages>>;

    /// The whole file, `None` if there is no such file.
    fn read(&self, path: &Path, limit_bytes: u64) -> io::Result<Option<Vec<u8>>>;

    /// Puts a file in place of another: afterwards there is the old or the new one, never a half.
    fn write_atomically(&self, path: &Path, bytes: &[u8]) -> io::Result<()>;

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()>;

    /// A file that is not there is fine.
    fn remove(&self, path: &Path) -> io::Result<()>;

    /// Does work that waits for the disk, away from the threads that serve the network.
    async fn work(&self, work: Box<dyn FnOnce() + Send>) -> io::Result<()>;
}

/// A file, to read and write anywhere in.
pub trait Pages: Send + Sync + fmt::Debug + 'static {
    fn len(&self) -> io::Result<u64>;

    fn is_empty(&self) -> io::Result<bool> {
        Ok(self.len()? == 0)
    }

    /// # Errors
    /// Also when there is less.
    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()>;

    fn write(&self, offset: u64, bytes: &[u8]) -> io::Result<()>;

    /// What was written before outlives a power cut when this returns.
    fn sync(&self) -> io::Result<()>;
}

/// Runs `work` where `storage` does such work.
pub(super) async fn off_thread<T: Send + 'static>(
    storage: &dyn Storage,
    work: impl FnOnce() -> T + Send + 'static,
) -> io::Result<T> {
    let (done, result) = tokio::sync::oneshot::channel();
    let work = Box::new(move || {
        // Who asked may be gone; the work is done all the same.
        let _ = done.send(work());
    });
    storage.work(work).await?;
    result.await.map_err(|_| io::Error::other("the work was broken off"))
}

/// The file system.
#[derive(Clone, Copy, Debug, Default)]
pub struct FileSystem;

#[async_trait::async_trait]
impl Storage for FileSystem {
    fn make_dir(&self, path: &Path) -> io::Result<()> {
        std::fs::create_dir_all(path)
    }

    fn exists(&self, path: &Path) -> io::Result<bool> {
        path.try_exists()
    }

    fn create(&self, path: &Path) -> io::Result<()> {
        files::create(path)
    }

    fn open(&self, path: &Path) -> io::Result<Box<dyn Pages>> {
        let file = files::private().read(true).create(true).truncate(false).open(path)?;
        Ok(Box::new(OnDisk(file)))
    }

    fn open_alone(&self, path: &Path) -> io::Result<Box<dyn Pages>> {
        let file = files::private().read(true).open(path)?;
        match file.try_lock() {
            Err(TryLockError::WouldBlock) => return Err(io::ErrorKind::WouldBlock.into()),
            // A file system that knows no locks.
            Err(TryLockError::Error(error)) if error.kind() == io::ErrorKind::Unsupported => {}
            Err(TryLockError::Error(error)) => return Err(error),
            Ok(()) => {}
        }
        // Who gave it the name may not have come to that.
        files::sync_parent(path)?;
        Ok(Box::new(OnDisk(file)))
    }

    fn read(&self, path: &Path, limit_bytes: u64) -> io::Result<Option<Vec<u8>>> {
        files::read(path, limit_bytes)
    }

    fn write_atomically(&self, path: &Path, bytes: &[u8]) -> io::Result<()> {
        files::write_atomically(path, bytes)
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        files::rename(from, to)
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        files::remove(path)
    }

    async fn work(&self, work: Box<dyn FnOnce() + Send>) -> io::Result<()> {
        tokio::task::spawn_blocking(work).await.map_err(io::Error::other)
    }
}

#[derive(Debug)]
struct OnDisk(File);

impl Pages for OnDisk {
    fn len(&self) -> io::Result<u64> {
        Ok(self.0.metadata()?.len())
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        self.0.read_exact_at(out, offset)
    }

    fn write(&self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        self.0.write_all_at(bytes, offset)
    }

    fn sync(&self) -> io::Result<()> {
        self.0.sync_data()
    }
}
