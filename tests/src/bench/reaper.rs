//! Teardown that outlives its owner.
//!
//! A small shell process holds one end of a pipe. When the owner drops its bench, panics or is killed, the pipe
//! closes and the shell takes everything away. Should it be killed too, the next bench sweeps: a bench is abandoned
//! when nobody holds the lock in its directory.

use super::layout::{Layout, PREFIX, base};
use anyhow::{Context, Result, ensure};
use std::fs::{File, TryLockError};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

const SCRIPT: &str = include_str!("reap.sh");
/// A directory this young may belong to an owner that has not locked it yet.
const YOUNG: std::time::Duration = std::time::Duration::from_secs(10);

/// The process that will take the bench away.
#[derive(Debug)]
pub struct Reaper {
    child: Child,
    // Held as long as the owner lives, so that nobody else sweeps its bench.
    _lock: File,
}

impl Reaper {
    /// Starts watching over a bench before anything else of it is made.
    pub fn start(layout: &Layout) -> Result<Self> {
        let lock = File::create(layout.dir.join("lock")).context("making the bench's lock")?;
        lock.try_lock().context("locking the bench")?;
        let child =
            reap(&layout.name, &layout.dir).stdin(Stdio::piped()).spawn().context("starting the reaper")?;
        Ok(Self { child, _lock: lock })
    }

    /// Takes the bench away and waits for that.
    pub fn finish(mut self) {
        drop(self.child.stdin.take());
        if let Err(error) = self.child.wait() {
            eprintln!("the bench was not taken away: {error}");
        }
    }
}

/// The directories of benches whose owners are alive.
pub fn live() -> Result<Vec<PathBuf>> {
    Ok(benches()?.into_iter().filter(|dir| !is_abandoned(dir)).collect())
}

/// Takes away what killed benches left behind, and nothing else; returns their names.
pub fn sweep() -> Result<Vec<String>> {
    let mut swept = Vec::new();
    for dir in benches()? {
        if is_abandoned(&dir) {
            swept.push(take_away(&dir)?);
        }
    }
    // Namespaces whose directory somebody has removed by hand.
    for entry in std::fs::read_dir("/run/netns").into_iter().flatten().flatten() {
        let file = entry.file_name().to_string_lossy().into_owned();
        if let Some((name, _)) = file.rsplit_once('-')
            && let Some(pid) = name.strip_prefix(PREFIX).and_then(|rest| rest.split('-').next())
            && !Path::new("/proc").join(pid).exists()
            && !base().join(name).exists()
            && !swept.iter().any(|done| done == name)
        {
            swept.push(take_away(&base().join(name))?);
        }
    }
    Ok(swept)
}

fn take_away(dir: &Path) -> Result<String> {
    let name = dir.file_name().unwrap_or_default().to_string_lossy().into_owned();
    ensure!(name.starts_with(PREFIX), "{name} is no bench");
    reap(&name, dir).stdin(Stdio::null()).status().with_context(|| format!("taking {name} away"))?;
    Ok(name)
}

fn benches() -> Result<Vec<PathBuf>> {
    let entries = match std::fs::read_dir(base()) {
        Ok(entries) => entries,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(error).with_context(|| format!("listing {}", base().display())),
    };
    let mut found: Vec<_> = entries
        .flatten()
        .map(|entry| entry.path())
        .filter(|path| path.file_name().is_some_and(|name| name.to_string_lossy().starts_with(PREFIX)))
        .collect();
    found.sort();
    Ok(found)
}

fn is_abandoned(dir: &Path) -> bool {
    match File::open(dir.join("lock")) {
        Ok(lock) => !matches!(lock.try_lock(), Err(TryLockError::WouldBlock)),
        Err(_) => std::fs::metadata(dir)
            .and_then(|metadata| metadata.modified())
            .is_ok_and(|made| made.elapsed().is_ok_and(|age| age > YOUNG)),
    }
}

/// In a session of its own: what ends the owner's terminal or process group must not end this.
fn reap(name: &str, dir: &Path) -> Command {
    let mut command = Command::new("setsid");
    command.args(["bash", "-c", SCRIPT, "reap", name]).arg(dir).stdout(Stdio::null()).stderr(Stdio::null());
    command
}
