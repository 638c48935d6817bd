//! Whether somebody is using this desktop: a terminal was typed at, or the logged-in users' programs are at work.
//!
//! Two signs, each cheap and honest about what it is. The kernel notes when a terminal was last read from (what `w`
//! shows as idle time), consoles and remote logins alike. And it counts the processor time of all that people
//! started themselves in the control group `user.slice`, graphical sessions included; containers and services are in others,
//! so that the cluster's own pods are not taken for an owner. Where neither is there, nothing is claimed.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant, SystemTime};

/// After the last sign of somebody the desktop counts as in use for this long.
const LASTS: Duration = Duration::from_secs(120);
/// What the users' programs must take to count, as a share of one processor. A desktop environment that nobody looks
/// at takes less, and so does a daemon that was started from a shell.
const BUSY: f64 = 0.2;
/// Terminals that are looked at.
const MOST_TERMINALS: usize = 256;

/// What the last looks saw.
#[derive(Debug, Default)]
pub(super) struct Activity {
    /// Processor time of the users' programs, and when it was read.
    used: Option<(Duration, Instant)>,
    last_sign: Option<Instant>,
}

impl Activity {
    pub(super) fn look(
        &mut self,
        devices: &Path,
        groups: &Path,
        now: Instant,
        wall: SystemTime,
    ) -> Option<bool> {
        let idle = terminal_idle(devices, wall);
        let busy = users_time(groups).map(|used| self.is_busy(used, now));
        self.judge(idle, busy, now)
    }

    /// Whether the users' programs took more than a little since the last look; not at the first one.
    fn is_busy(&mut self, used: Duration, now: Instant) -> bool {
        let Some((before, at)) = self.used.replace((used, now)) else { return false };
        let passed = now.saturating_duration_since(at).as_secs_f64();
        passed > 0.0 && used.saturating_sub(before).as_secs_f64() / passed >= BUSY
    }

    /// What the signs come to; each is `None` where it does not exist.
    fn judge(&mut self, idle: Option<Duration>, busy: Option<bool>, now: Instant) -> Option<bool> {
        if idle.is_none() && busy.is_none() {
            return None;
        }
        let typed = idle.and_then(|idle| now.checked_sub(idle));
        let at_work = busy.unwrap_or_default().then_some(now);
        self.last_sign = self.last_sign.max(typed).max(at_work);
        Some(self.last_sign.is_some_and(|sign| now.saturating_duration_since(sign) < LASTS))
    }
}

/// How long ago any terminal was typed at; `None` where there is none.
fn terminal_idle(devices: &Path, wall: SystemTime) -> Option<Duration> {
    let consoles = entries(devices).filter(|path| is_numbered(path, "tty"));
    let logins = entries(&devices.join("pts")).filter(|path| is_numbered(path, ""));
    let typed =
        consoles.chain(logins).take(MOST_TERMINALS).filter_map(|path| path.metadata().ok()?.accessed().ok());
    // A time in the future is a clock that was put back: nothing is known.
    typed.filter_map(|typed| wall.duration_since(typed).ok()).min()
}

fn entries(dir: &Path) -> impl Iterator<Item = PathBuf> + use<> {
    std::fs::read_dir(dir).into_iter().flatten().flatten().map(|entry| entry.path())
}

fn is_numbered(path: &Path, prefix: &str) -> bool {
    let number = path.file_name().and_then(|name| name.to_str()).and_then(|name| name.strip_prefix(prefix));
    number.is_some_and(|number| !number.is_empty() && number.bytes().all(|byte| byte.is_ascii_digit()))
}

/// The processor time of all that logged-in users run, in either arrangement of control groups.
fn users_time(groups: &Path) -> Option<Duration> {
    let unified = std::fs::read_to_string(groups.join("user.slice/cpu.stat")).ok();
    if let Some(text) = unified {
        let micros = text.lines().find_map(|line| line.strip_prefix("usage_usec "))?;
        return micros.trim().parse().ok().map(Duration::from_micros);
    }
    let older = ["cpuacct", "cpu,cpuacct"].iter().map(|controller| groups.join(controller));
    let text =
        older.filter_map(|dir| std::fs::read_to_string(dir.join("user.slice/cpuacct.usage")).ok()).next()?;
    text.trim().parse().ok().map(Duration::from_nanos)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs::FileTimes;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn typing_counts_for_two_minutes() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir(dir.path().join("pts")).unwrap();
        let wall = SystemTime::now();
        assert_eq!(terminal_idle(dir.path(), wall), None);
        let terminal = |name: &str, idle: Duration| {
            let file = std::fs::File::create(dir.path().join(name)).unwrap();
            file.set_times(FileTimes::new().set_accessed(wall - idle)).unwrap();
        };
        // `ptmx` and `ttyS0` are read by programs, not by people.
        terminal("pts/ptmx", Duration::ZERO);
        terminal("ttyS0", Duration::ZERO);
        assert_eq!(terminal_idle(dir.path(), wall), None);
        terminal("tty1", 900 * SECOND);
        terminal("pts/3", 100 * SECOND);
        assert_eq!(terminal_idle(dir.path(), wall), Some(100 * SECOND));

        let (mut activity, now) = (Activity::default(), Instant::now());
        let nothing = Path::new("/nonexistent");
        assert_eq!(activity.look(dir.path(), nothing, now, wall), Some(true));
        assert_eq!(activity.look(dir.path(), nothing, now + 30 * SECOND, wall + 30 * SECOND), Some(false));
        assert_eq!(Activity::default().look(nothing, nothing, now, wall), None, "nothing is claimed");
    }

    #[test]
    fn the_users_programs_count_and_their_idling_does_not() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir(dir.path().join("user.slice")).unwrap();
        let used = |micros: u64| {
            let text = format!("usage_usec {micros}\nuser_usec 1\n");
            std::fs::write(dir.path().join("user.slice/cpu.stat"), text).unwrap();
        };
        let (mut activity, start) = (Activity::default(), Instant::now());
        let mut look = |seconds: u32| {
            let now = start + seconds * SECOND;
            activity.look(Path::new("/nonexistent"), dir.path(), now, SystemTime::now())
        };
        used(7_000_000_000);
        assert_eq!(look(0), Some(false), "what was used before says nothing");
        used(7_001_000_000);
        assert_eq!(look(10), Some(false), "a tenth of a processor is a desktop at rest");
        used(7_004_000_000);
        assert_eq!(look(20), Some(true));
        assert_eq!(look(139), Some(true));
        assert_eq!(look(140), Some(false));
    }

    #[test]
    fn the_older_arrangement_of_control_groups_is_read_too() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir_all(dir.path().join("cpu,cpuacct/user.slice")).unwrap();
        std::fs::write(dir.path().join("cpu,cpuacct/user.slice/cpuacct.usage"), "1500000000\n").unwrap();
        assert_eq!(users_time(dir.path()), Some(Duration::from_millis(1500)));
    }
}
