//! What this desktop may run, judged by when the flock was last heard: the agent's half of
//! [`gaggle_sched::controller::identity`].
//!
//! An identity (a pod of which at most one runs in the whole flock) goes on only for [`IDENTITY_HOLD`] after an acting
//! leader was heard, on a clock that counts sleep; after that it is killed, and is started again only when the group has
//! ordered something that was asked for later, so that the view shows whether it still belongs here. Any other pod goes
//! on for ever, but a daemon that has just started waits for the group before it starts what an old view names.

use crate::boottime::boottime_ms;
use gaggle_sched::controller::identity::{IDENTITY_FREED_AFTER, IDENTITY_HOLD};
use std::io;
use std::os::unix::fs::{DirBuilderExt, FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use tokio::sync::watch;

const HOLD_MS: u64 = IDENTITY_HOLD.as_millis() as u64;
/// A loop that stood still for this long (the desktop slept) cannot know whether what it hears now was said then.
const GAP_MS: u64 = (IDENTITY_FREED_AFTER.as_millis() - IDENTITY_HOLD.as_millis()) as u64;
/// How long a daemon that has just started waits for the group before it starts pods by what its disk remembers: a
/// group is found, or founded, in a third of that.
pub const START_PATIENCE: Duration = Duration::from_secs(20);
/// How often the moment is written down.
const NOTE_EVERY: Duration = Duration::from_millis(500);
/// The file's only line has always this length, so that a full disk does not matter.
const LINE_BYTES: usize = 64;

/// What may become of a pod's containers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum May {
    /// Whatever the pod needs.
    Run,
    /// What runs goes on; nothing is started until the group has been heard.
    Keep,
    /// It may run elsewhere by now: it is killed.
    Stop,
}

/// When the flock was heard, and what rests on it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Heard {
    /// When an acting leader was last heard; 0: never.
    pub at_ms: u64,
    /// When this daemon started.
    pub started_ms: u64,
    /// The group has ordered something that was asked for after the last time when identities had to stop.
    pub confirmed: bool,
    /// It has since this daemon started.
    pub ever: bool,
}

impl Heard {
    /// Whether identities must not run now.
    pub fn is_over(&self, now_ms: u64) -> bool {
        is_over(self.at_ms, now_ms)
    }

    /// The group has ordered something that was asked for at `asked_ms`, and the view shows it.
    pub fn confirm(&mut self, asked_ms: u64, now_ms: u64) {
        self.ever = true;
        self.confirmed |= !is_over(asked_ms.min(self.at_ms), now_ms);
    }

    /// Whether the group should be asked now: something waits for its answer.
    pub fn wants_confirmation(&self, identities: bool, now_ms: u64) -> bool {
        !self.ever || (identities && !self.confirmed && !self.is_over(now_ms))
    }

    pub fn may(&self, single: bool, now_ms: u64) -> May {
        if !single {
            let patient = now_ms.saturating_sub(self.started_ms) < START_PATIENCE.as_millis() as u64;
            return if self.ever || !patient { May::Run } else { May::Keep };
        }
        match (self.is_over(now_ms), self.confirmed) {
            (true, _) => May::Stop,
            (false, true) => May::Run,
            (false, false) => May::Keep,
        }
    }
}

/// [`Heard`], as the daemon's tasks share it. Cheap to clone.
#[derive(Clone)]
pub struct Hold {
    /// The moment ([`boottime_ms`]) at which an acting leader was last heard; 0: never.
    heard: watch::Receiver<u64>,
    /// What the daemon before this one noted.
    inherited_ms: u64,
    started_ms: u64,
    confirmed: Arc<AtomicBool>,
    ever: Arc<AtomicBool>,
}

impl Hold {
    pub fn new(heard: watch::Receiver<u64>, inherited_ms: u64) -> Self {
        let (confirmed, ever) = (Arc::default(), Arc::default());
        Self { heard, inherited_ms, started_ms: boottime_ms(), confirmed, ever }
    }

    fn now(&self) -> Heard {
        Heard {
            at_ms: self.inherited_ms.max(*self.heard.borrow()),
            started_ms: self.started_ms,
            confirmed: self.confirmed.load(Ordering::SeqCst),
            ever: self.ever.load(Ordering::SeqCst),
        }
    }

    /// Whether identities must not run now.
    pub fn is_over(&self) -> bool {
        self.now().is_over(boottime_ms())
    }

    /// Forgets the confirmation: what identities need is a new one.
    pub fn lapse(&self) {
        self.confirmed.store(false, Ordering::SeqCst);
    }

    /// The group has ordered something that was asked for at `asked_ms`, and the view shows it.
    pub fn confirm(&self, asked_ms: u64) {
        let mut heard = self.now();
        heard.confirm(asked_ms, boottime_ms());
        self.ever.store(heard.ever, Ordering::SeqCst);
        if heard.confirmed {
            self.confirmed.store(true, Ordering::SeqCst);
        }
    }

    pub fn was_confirmed(&self) -> bool {
        self.now().ever
    }

    /// Whether the group should be asked now: something waits for its answer.
    pub fn wants_confirmation(&self, identities: bool) -> bool {
        self.now().wants_confirmation(identities, boottime_ms())
    }

    pub fn may(&self, single: bool) -> May {
        self.now().may(single, boottime_ms())
    }
}

fn is_over(heard_ms: u64, now_ms: u64) -> bool {
    now_ms.saturating_sub(heard_ms) >= HOLD_MS
}

/// Whether a loop that looks several times a second stood still for so long that nothing it hears counts.
pub fn slept(last_ms: u64, now_ms: u64) -> bool {
    now_ms.saturating_sub(last_ms) >= GAP_MS
}

/// The machine's current life: what was noted in another one says nothing about this one's clock.
fn boot_id() -> String {
    std::fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default().trim().to_owned()
}

fn line(boot: &str, heard_ms: u64) -> Vec<u8> {
    let mut line = format!("{boot} {heard_ms}").into_bytes();
    line.resize(LINE_BYTES, b' ');
    line
}

fn moment(line: &str, boot: &str) -> Option<u64> {
    let (of, at) = line.trim().split_once(' ')?;
    (of == boot && !boot.is_empty()).then(|| at.trim().parse().ok()).flatten()
}

/// What was noted in this life of the machine; 0 if nothing was.
pub fn noted(file: &Path) -> u64 {
    let text = std::fs::read_to_string(file).unwrap_or_default();
    moment(&text, &boot_id()).unwrap_or(0)
}

/// Writes down when the flock was heard, for the daemon after this one, until nobody tells any more. It need not be
/// on the disk: it means nothing after a crash of the machine.
pub async fn note_forever(file: PathBuf, mut heard: watch::Receiver<u64>) {
    let boot = boot_id();
    let mut told = false;
    while heard.changed().await.is_ok() {
        let text = line(&boot, *heard.borrow_and_update());
        let path = file.clone();
        let written = tokio::task::spawn_blocking(move || write_in_place(&path, &text)).await;
        if let (Ok(Err(error)), false) = (written, told) {
            told = true;
            tracing::warn!(%error, file = %file.display(),
                "when the flock was heard cannot be noted: identities here stop when this daemon is restarted");
        }
        tokio::time::sleep(NOTE_EVERY).await;
    }
}

fn write_in_place(path: &Path, line: &[u8]) -> io::Result<()> {
    if let Some(dir) = path.parent() {
        std::fs::DirBuilder::new().recursive(true).mode(0o711).create(dir)?;
    }
    let mut options = std::fs::OpenOptions::new();
    let file = options.create(true).truncate(false).write(true).mode(0o600).open(path)?;
    file.write_all_at(line, 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hold(heard_ms: u64) -> (watch::Sender<u64>, Hold) {
        let (sender, heard) = watch::channel(heard_ms);
        (sender, Hold::new(heard, 0))
    }

    #[test]
    fn an_identity_waits_for_the_group_runs_and_stops() {
        let (sender, hold) = hold(0);
        assert_eq!((hold.may(true), hold.may(false)), (May::Stop, May::Keep));
        hold.confirm(boottime_ms());
        assert_eq!((hold.may(true), hold.may(false)), (May::Stop, May::Run), "no leader has been heard");
        sender.send_replace(boottime_ms());
        assert_eq!(hold.may(true), May::Keep);
        assert!(hold.wants_confirmation(true) && !hold.wants_confirmation(false));
        hold.confirm(boottime_ms());
        assert_eq!(hold.may(true), May::Run);
        sender.send_replace(boottime_ms() - HOLD_MS);
        assert_eq!((hold.may(true), hold.may(false)), (May::Stop, May::Run));
        hold.lapse();
        sender.send_replace(boottime_ms());
        assert_eq!(hold.may(true), May::Keep, "heard again, but what the view shows may be old");
    }

    #[test]
    fn an_answer_to_an_old_question_confirms_no_identity() {
        let (_sender, hold) = hold(boottime_ms());
        hold.confirm(boottime_ms() - HOLD_MS);
        assert_eq!((hold.may(true), hold.may(false)), (May::Keep, May::Run));
    }

    #[test]
    fn a_desktop_that_slept_trusts_nothing() {
        assert!(slept(1_000, 1_000 + GAP_MS) && !slept(1_000, 1_000 + GAP_MS - 1));
        assert!(is_over(0, HOLD_MS) && !is_over(1, HOLD_MS));
    }

    #[test]
    fn what_another_life_noted_counts_for_nothing() {
        let text = String::from_utf8(line("boot-a", 1234)).unwrap();
        assert_eq!(text.len(), LINE_BYTES);
        assert_eq!(moment(&text, "boot-a"), Some(1234));
        for (text, boot) in [(text.as_str(), "boot-b"), ("", "boot-a"), ("boot-a x", "boot-a"), (" 7", "")] {
            assert_eq!(moment(text, boot), None, "{text:?}");
        }
    }

    #[test]
    fn a_note_is_written_over_in_place() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("heard");
        assert_eq!(noted(&file), 0);
        for moment in [123_456, 7] {
            write_in_place(&file, &line(&boot_id(), moment)).unwrap();
            assert_eq!(noted(&file), moment);
        }
    }
}
