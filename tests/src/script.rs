//! Commands as people type them one after the other, and what each must show.

use crate::bench::{Desktop, poll};
use crate::kube::SOON;
use anyhow::{Context, Result, ensure};
use std::path::Path;

/// One command.
#[derive(Debug, Clone, Copy)]
pub struct Line {
    /// In shell words.
    pub typed: &'static str,
    /// What it must print.
    pub prints: &'static [&'static str],
    /// What it must not print.
    pub hides: &'static [&'static str],
    /// Whether it is to be refused, in those words.
    pub fails: bool,
}

/// A command that succeeds and prints this. One that only looks is typed again until it does.
#[must_use]
pub const fn line(typed: &'static str, prints: &'static [&'static str]) -> Line {
    Line { typed, prints, hides: &[], fails: false }
}

/// A command that succeeds and prints the one, and not the other.
#[must_use]
pub const fn without(
    typed: &'static str,
    prints: &'static [&'static str],
    hides: &'static [&'static str],
) -> Line {
    Line { typed, prints, hides, fails: false }
}

/// A command that fails with these words.
#[must_use]
pub const fn refused(typed: &'static str, prints: &'static [&'static str]) -> Line {
    Line { typed, prints, hides: &[], fails: true }
}

/// Verbs that change nothing.
const LOOKS: [&str; 4] = ["kubectl describe", "kubectl events", "kubectl get", "kubectl logs"];

/// Types the commands on a desktop, in a directory.
pub fn play(desktop: &Desktop, dir: &Path, lines: &[Line]) -> Result<()> {
    lines.iter().try_for_each(|line| take(desktop, dir, line).with_context(|| format!("`{}`", line.typed)))
}

fn take(desktop: &Desktop, dir: &Path, line: &Line) -> Result<()> {
    let check = || -> Result<Option<()>> {
        let ran = desktop.exec(&format!("cd '{}' && {}", dir.display(), line.typed))?;
        ensure!(ran.success() != line.fails, "{ran}");
        let text = format!("{}{}", ran.stdout, ran.stderr);
        let missing: Vec<_> = line.prints.iter().filter(|words| !text.contains(**words)).collect();
        ensure!(missing.is_empty(), "{missing:?} not in:\n{text}");
        let surplus: Vec<_> = line.hides.iter().filter(|words| text.contains(**words)).collect();
        ensure!(surplus.is_empty(), "{surplus:?} in:\n{text}");
        Ok(Some(()))
    };
    if LOOKS.iter().any(|verb| line.typed.starts_with(verb)) {
        return poll(SOON, "it to show that", check);
    }
    check().map(drop)
}
