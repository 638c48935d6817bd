//! A pod's files on this desktop: its volumes' directories and contents, and its termination messages.
//!
//! Blocking, so it is called from `spawn_blocking`. It must never know what the files mean.

use super::PodTokens;
use super::spec::{Content, File, MessageFile, Source, TokenWish, Volume};
use std::borrow::Cow;
use std::collections::HashSet;
use std::ffi::OsString;
use std::fs::{self, OpenOptions, Permissions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, FileTypeExt, OpenOptionsExt, PermissionsExt, chown};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

/// As much of a termination message as Kubernetes keeps.
pub const MESSAGE_BYTES: u64 = 4096;

/// Sockets, sticky and set-group bits for directories that a group owns.
const GROUP_DIR_MODE: u32 = 0o2775;
const SCRATCH_MODE: u32 = 0o777;

#[derive(Debug, thiserror::Error)]
#[error("{what} {path}")]
pub struct FileError {
    what: &'static str,
    path: PathBuf,
    #[source]
    source: io::Error,
}

impl FileError {
    /// With its cause, for a message that has no chain.
    pub fn full(&self) -> String {
        format!("{self}: {}", self.source)
    }
}

fn at<'p>(what: &'static str, path: &'p Path) -> impl FnOnce(io::Error) -> FileError + 'p {
    move |source| FileError { what, path: path.to_owned(), source }
}

/// Makes what a container's mounts need.
pub fn prepare(volumes: &[Volume], message: &MessageFile, tokens: &dyn PodTokens) -> Result<(), FileError> {
    for volume in volumes {
        match &volume.source {
            Source::Scratch(dir) => scratch(dir, volume.group)?,
            Source::Memory { .. } => {}
            Source::Host { path, kind } => host(path, kind)?,
            Source::Files { dir, files } => contents(dir, files, volume.group, tokens)?,
        }
    }
    let path = &message.0;
    if let Some(dir) = path.parent() {
        private_dir(dir)?;
    }
    // Whatever user the container runs as must be able to write it.
    let file = OpenOptions::new().create(true).truncate(true).write(true).open(path);
    file.map_err(at("cannot make the termination message file", path))?;
    mode(path, 0o666)
}

fn mode(path: &Path, mode: u32) -> Result<(), FileError> {
    fs::set_permissions(path, Permissions::from_mode(mode)).map_err(at("cannot set the mode of", path))
}

/// Only the daemon and the engine look in here.
fn private_dir(dir: &Path) -> Result<(), FileError> {
    let made = fs::DirBuilder::new().recursive(true).mode(0o711).create(dir);
    made.map_err(at("cannot make the directory", dir))
}

fn scratch(dir: &Path, group: Option<u32>) -> Result<(), FileError> {
    if dir.is_dir() {
        return Ok(());
    }
    private_dir(dir)?;
    mode(dir, SCRATCH_MODE)?;
    own(dir, group, GROUP_DIR_MODE | SCRATCH_MODE)
}

fn own(path: &Path, group: Option<u32>, with_mode: u32) -> Result<(), FileError> {
    let Some(group) = group else { return Ok(()) };
    chown(path, None, Some(group)).map_err(at("cannot give to the pod's group", path))?;
    mode(path, with_mode)
}

/// Kubernetes' `hostPath.type`.
fn host(path: &Path, kind: &str) -> Result<(), FileError> {
    let wrong = |what| Err(at(what, path)(io::Error::from(io::ErrorKind::NotFound)));
    let metadata = fs::metadata(path).ok();
    let is = |test: fn(&fs::FileType) -> bool| {
        metadata.as_ref().is_some_and(|metadata| test(&metadata.file_type()))
    };
    match kind {
        "" if metadata.is_some() => Ok(()),
        "DirectoryOrCreate" if is(fs::FileType::is_dir) => Ok(()),
        "" | "DirectoryOrCreate" => {
            let made = fs::DirBuilder::new().recursive(true).mode(0o755).create(path);
            made.map_err(at("cannot make the hostPath directory", path))
        }
        "FileOrCreate" if is(fs::FileType::is_file) => Ok(()),
        "FileOrCreate" => {
            let made = OpenOptions::new().create(true).append(true).mode(0o644).open(path);
            made.map(drop).map_err(at("cannot make the hostPath file", path))
        }
        "Directory" if !is(fs::FileType::is_dir) => wrong("hostPath type check failed: not a directory:"),
        "File" if !is(fs::FileType::is_file) => wrong("hostPath type check failed: not a file:"),
        "Socket" if !is(fs::FileType::is_socket) => wrong("hostPath type check failed: not a socket:"),
        "CharDevice" if !is(fs::FileType::is_char_device) => {
            wrong("hostPath type check failed: not a character device:")
        }
        "BlockDevice" if !is(fs::FileType::is_block_device) => {
            wrong("hostPath type check failed: not a block device:")
        }
        _ => Ok(()),
    }
}

/// Writes each file beside its place and renames it, so that a reader sees the old or the new one.
fn contents(dir: &Path, files: &[File], group: Option<u32>, tokens: &dyn PodTokens) -> Result<(), FileError> {
    private_dir(dir)?;
    mode(dir, 0o755)?;
    for file in files {
        let path = dir.join(&file.path);
        if let Some(parent) = path.parent().filter(|parent| *parent != dir) {
            let made = fs::DirBuilder::new().recursive(true).mode(0o755).create(parent);
            made.map_err(at("cannot make the directory", parent))?;
        }
        let content = match &file.content {
            Content::Bytes(bytes) => Cow::Borrowed(bytes.as_slice()),
            Content::Token(wish) => Cow::Owned(tokens.sign(wish).into_bytes()),
        };
        if fs::read(&path).is_ok_and(|present| present == *content) {
            continue;
        }
        // No key of a ConfigMap or Secret begins with two dots.
        let mut name = OsString::from("..");
        name.push(path.file_name().unwrap_or_default());
        name.push(".part");
        let part = path.with_file_name(name);
        // Never readable by more than the end result, not even for a moment.
        let opened = OpenOptions::new().create(true).truncate(true).write(true).mode(0o600).open(&part);
        let mut out = opened.map_err(at("cannot make the volume's file", &part))?;
        out.write_all(&content).map_err(at("cannot write the volume's file", &part))?;
        let group_read = if group.is_some() { 0o040 } else { 0 };
        mode(&part, file.mode)?;
        own(&part, group, file.mode | group_read)?;
        fs::rename(&part, &path).map_err(at("cannot put in place the volume's file", &path))?;
    }
    Ok(())
}

/// The tokens among the files of a pod's volumes.
pub fn token_wishes(volumes: &[Volume]) -> impl Iterator<Item = &TokenWish> {
    let files = volumes.iter().flat_map(|volume| match &volume.source {
        Source::Files { files, .. } => files.as_slice(),
        _ => &[],
    });
    files.filter_map(|file| match &file.content {
        Content::Token(wish) => Some(wish),
        Content::Bytes(_) => None,
    })
}

/// Which of the files of a pod that runs are written anew.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Renew {
    /// What ConfigMaps, Secrets and the pod itself say by now.
    Contents,
    /// The tokens as well, before they expire.
    All,
}

/// Brings the files of a pod that runs up to date: containers find them in place, except where they mounted one file alone,
/// as in Kubernetes. A volume that cannot be is no reason to leave the others, among them the pod's tokens, as they are; the
/// first error is told.
pub fn renew(volumes: &[Volume], which: Renew, tokens: &dyn PodTokens) -> Result<(), FileError> {
    let mut first = Ok(());
    for volume in volumes {
        if let Source::Files { dir, files } = &volume.source {
            first = first.and(renew_one(dir, files, volume.group, which, tokens));
        }
    }
    first
}

fn renew_one(
    dir: &Path,
    files: &[File],
    group: Option<u32>,
    which: Renew,
    tokens: &dyn PodTokens,
) -> Result<(), FileError> {
    let is_due = |file: &&File| which == Renew::All || matches!(file.content, Content::Bytes(_));
    let due: Vec<File> = files.iter().filter(is_due).cloned().collect();
    contents(dir, &due, group, tokens)?;
    let wanted: HashSet<PathBuf> = files.iter().map(|file| dir.join(&file.path)).collect();
    remove_others(dir, &wanted)
}

/// What keeps those apart who write one pod's files.
#[derive(Default)]
pub struct Upkeep {
    /// Held by whoever writes.
    writing: Mutex<()>,
    /// What is to be written anew next; whoever waits to write takes it.
    due: Mutex<Option<(Vec<Volume>, Renew)>>,
}

impl Upkeep {
    /// Held while files are written.
    pub fn writing(&self) -> MutexGuard<'_, ()> {
        self.writing.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Notes what is to be written anew, in place of what was noted before; `true` if nobody waits to do it yet.
    pub fn note(&self, volumes: Vec<Volume>, which: Renew) -> bool {
        let mut due = self.due.lock().unwrap_or_else(PoisonError::into_inner);
        let which = match *due {
            Some((_, Renew::All)) => Renew::All,
            _ => which,
        };
        due.replace((volumes, which)).is_none()
    }

    /// Writes what was noted last.
    pub fn renew(&self, tokens: &dyn PodTokens) -> Result<(), FileError> {
        let _writing = self.writing();
        let due = self.due.lock().unwrap_or_else(PoisonError::into_inner).take();
        due.map_or(Ok(()), |(volumes, which)| renew(&volumes, which, tokens))
    }
}

/// Removes the files that a volume does not have any more; a directory is left, which says nothing.
fn remove_others(dir: &Path, wanted: &HashSet<PathBuf>) -> Result<(), FileError> {
    for entry in fs::read_dir(dir).map_err(at("cannot look into the volume", dir))? {
        let entry = entry.map_err(at("cannot look into the volume", dir))?;
        let path = entry.path();
        match entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            true => remove_others(&path, wanted)?,
            false if wanted.contains(&path) => {}
            false => fs::remove_file(&path).map_err(at("cannot remove the volume's file", &path))?,
        }
    }
    Ok(())
}

/// What a container left as its last words; empty if nothing.
pub fn message(file: &MessageFile) -> String {
    let mut text = Vec::new();
    if let Ok(file) = fs::File::open(&file.0) {
        let _ = file.take(MESSAGE_BYTES).read_to_end(&mut text);
    }
    String::from_utf8_lossy(&text).into_owned()
}

/// Removes all that a pod had here. What is not there is no error.
pub fn remove(dir: &Path) -> Result<(), FileError> {
    match fs::remove_dir_all(dir) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            Err(at("cannot remove the pod's files in", dir)(error))
        }
        _ => Ok(()),
    }
}

/// The uids of the pods that have files below `dir`.
pub fn pods_with_files(dir: &Path) -> Vec<String> {
    let entries = fs::read_dir(dir).into_iter().flatten().flatten();
    entries.filter_map(|entry| entry.file_name().into_string().ok()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Signs nothing, and says how often it was asked.
    #[derive(Default)]
    struct Counting(std::sync::atomic::AtomicU32);

    impl PodTokens for Counting {
        fn sign(&self, wish: &TokenWish) -> String {
            let count = self.0.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
            format!("{}.{count}", wish.account.name)
        }
    }

    fn volume(source: Source) -> Volume {
        Volume { name: "v".into(), source, group: None }
    }

    #[test]
    fn secret_files_have_their_mode_and_are_replaced_whole() {
        let dir = tempfile::tempdir().unwrap();
        let message = MessageFile(dir.path().join("messages/main.0"));
        let files = |text: &str| {
            let file = File { path: "sub/key".into(), content: text.into(), mode: 0o400 };
            [volume(Source::Files { dir: dir.path().join("v"), files: vec![file] })]
        };
        prepare(&files("one"), &message, &Counting::default()).unwrap();
        prepare(&files("two"), &message, &Counting::default()).unwrap();
        let path = dir.path().join("v/sub/key");
        assert_eq!(fs::read_to_string(&path).unwrap(), "two");
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o400);
        assert_eq!(fs::read_dir(dir.path().join("v/sub")).unwrap().count(), 1, "no part is left behind");
    }

    #[test]
    fn files_that_are_out_of_date_are_written_anew_and_tokens_when_they_are_due() {
        let dir = tempfile::tempdir().unwrap();
        let message = MessageFile(dir.path().join("messages/main.0"));
        let account = crate::tokens::Account {
            namespace: "default".into(),
            name: "bot".into(),
            uid: "1".into(),
            bound: None,
        };
        let wish = TokenWish { account, audiences: Vec::new(), seconds: 600 };
        let token = File { path: "token".into(), content: Content::Token(wish), mode: 0o644 };
        let other = File { path: "namespace".into(), content: "default".into(), mode: 0o644 };
        let of = |files: Vec<File>| [volume(Source::Files { dir: dir.path().join("v"), files })];
        let gone = File { path: "sub/gone".into(), ..other.clone() };
        let volumes = of(vec![token.clone(), other.clone(), gone]);
        let tokens = Counting::default();
        prepare(&volumes, &message, &tokens).unwrap();
        let newer = of(vec![token, File { content: "other".into(), ..other }]);
        let read = |name: &str| fs::read_to_string(dir.path().join("v").join(name)).unwrap();
        renew(&newer, Renew::Contents, &tokens).unwrap();
        assert_eq!((read("token").as_str(), read("namespace").as_str()), ("bot.0", "other"));
        assert!(!dir.path().join("v/sub/gone").exists(), "it is no part of the volume any more");
        renew(&newer, Renew::All, &tokens).unwrap();
        assert_eq!((read("token").as_str(), read("namespace").as_str()), ("bot.1", "other"));
        // One volume that cannot be written leaves the others to be; what is noted later takes the place of what was.
        let broken = volume(Source::Files {
            dir: dir.path().join("v/token/below-a-file"),
            files: vec![File { path: "x".into(), content: "x".into(), mode: 0o644 }],
        });
        let upkeep = Upkeep::default();
        let [last] = newer;
        assert!(upkeep.note(vec![broken.clone()], Renew::All), "nobody waits yet");
        assert!(!upkeep.note(vec![broken, last], Renew::Contents), "whoever waits takes it along");
        upkeep.renew(&tokens).unwrap_err();
        assert_eq!(read("token"), "bot.2", "all were due");
        upkeep.renew(&tokens).unwrap();
        assert_eq!(token_wishes(&volumes).count(), 1);
    }

    #[test]
    fn a_restart_keeps_what_is_in_an_empty_dir() {
        let dir = tempfile::tempdir().unwrap();
        let message = MessageFile(dir.path().join("messages/main.0"));
        let scratch = [volume(Source::Scratch(dir.path().join("v")))];
        prepare(&scratch, &message, &Counting::default()).unwrap();
        fs::write(dir.path().join("v/kept"), "x").unwrap();
        prepare(&scratch, &message, &Counting::default()).unwrap();
        assert!(dir.path().join("v/kept").exists());
        remove(dir.path()).unwrap();
        remove(dir.path()).unwrap();
    }

    #[test]
    fn host_path_types_are_checked() {
        let dir = tempfile::tempdir().unwrap();
        let missing = dir.path().join("missing");
        assert!(host(&missing, "Directory").unwrap_err().full().contains("not a directory"));
        assert!(host(&missing, "Socket").is_err());
        host(&missing, "DirectoryOrCreate").unwrap();
        host(&missing, "Directory").unwrap();
        assert!(host(&missing, "File").is_err());
    }

    #[test]
    fn a_message_is_bounded() {
        let dir = tempfile::tempdir().unwrap();
        let file = MessageFile(dir.path().join("m"));
        assert_eq!(message(&file), "");
        fs::write(&file.0, vec![b'x'; 10_000]).unwrap();
        assert_eq!(message(&file).len() as u64, MESSAGE_BYTES);
    }
}
