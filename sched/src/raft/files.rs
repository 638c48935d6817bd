//! Whole files that are either the old or the new one after a power cut, never a half.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::path::Path;

/// Flushed at once: whoever else waits for the disk meanwhile waits for one of these, and not for the whole file.
const FLUSHED_BYTES: usize = 1 << 20;

/// Writes beside the target, flushes to the disk, renames, and flushes the directory. Only the owner may read:
/// the state holds whatever users put into their objects.
pub(super) fn write_atomically(path: &Path, bytes: &[u8]) -> io::Result<()> {
    // Not in place of the extension: two files that differ in it alone would share the name.
    let mut temporary = path.as_os_str().to_owned();
    temporary.push(".tmp");
    let temporary = Path::new(&temporary);
    let mut file = private().create(true).truncate(true).open(temporary)?;
    for part in bytes.chunks(FLUSHED_BYTES) {
        file.write_all(part)?;
        file.sync_data()?;
    }
    file.sync_all()?;
    rename(temporary, path)
}

/// Gives a file its name for good.
pub(super) fn rename(from: &Path, to: &Path) -> io::Result<()> {
    fs::rename(from, to)?;
    sync_parent(to)
}

/// Makes an empty file that only the owner may read.
pub(super) fn create(path: &Path) -> io::Result<()> {
    private().create_new(true).open(path).map(|_| ())
}

/// Options that open for writing, and make files that only the owner may read.
pub(super) fn private() -> OpenOptions {
    let mut options = OpenOptions::new();
    options.write(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    options
}

/// Removes a file for good; one that is not there is fine.
pub(super) fn remove(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(error),
        Ok(()) => sync_parent(path),
    }
}

/// The file's content, `None` if there is no such file.
pub(super) fn read(path: &Path, limit_bytes: u64) -> io::Result<Option<Vec<u8>>> {
    let len = match fs::metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        metadata => metadata?.len(),
    };
    if len > limit_bytes {
        return Err(io::Error::new(io::ErrorKind::InvalidData, format!("larger than {limit_bytes} bytes")));
    }
    fs::read(path).map(Some)
}

/// Whether an error says that the content is wrong, and not that the disk could not be read or written.
pub(super) fn is_damage(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::InvalidData | io::ErrorKind::UnexpectedEof)
}

/// Makes the names in a directory last.
pub(super) fn sync_parent(path: &Path) -> io::Result<()> {
    match path.parent() {
        Some(parent) => File::open(parent)?.sync_all(),
        None => Ok(()),
    }
}
