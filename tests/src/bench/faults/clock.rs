//! Clocks that are wrong, and clocks that jump.
//!
//! Only the daemon's wall clock is another: libfaketime stands between it and the kernel, and leaves the monotonic
//! clock as it is, as setting a real clock does.

use super::super::{Desktop, Up};
use anyhow::{Context, Result, ensure};
use std::path::{Path, PathBuf};

/// Where Debian puts the library on the architectures that it has.
const LIBRARIES: [&str; 3] = [
    "/usr/lib/x86_64-linux-gnu/faketime/libfaketimeMT.so.1",
    "/usr/lib/aarch64-linux-gnu/faketime/libfaketimeMT.so.1",
    "/usr/lib/faketime/libfaketimeMT.so.1",
];

impl Desktop {
    /// What lets [`Desktop::set_clock`] set the clock of a daemon that is started with it.
    pub fn with_own_clock(&self, up: Up) -> Result<Up> {
        let library = LIBRARIES.iter().find(|path| Path::new(path).exists());
        let library = library.context("no libfaketime: run scripts/setup")?;
        if !self.clock_file().exists() {
            self.set_clock(0)?;
        }
        let file = self.clock_file().display().to_string();
        let variables = [
            ("LD_PRELOAD", *library),
            ("FAKETIME_TIMESTAMP_FILE", file.as_str()),
            ("FAKETIME_NO_CACHE", "1"),
            ("DONT_FAKE_MONOTONIC", "1"),
            ("FAKETIME_DONT_RESET", "1"),
        ];
        let variables = variables.map(|(name, value)| (name.to_owned(), value.to_owned()));
        Ok(Up { environment: [up.environment, variables.to_vec()].concat(), ..up })
    }

    /// Sets the daemon's clock to so many seconds after (or, below 0, before) the right time, at once.
    pub fn set_clock(&self, seconds: i64) -> Result<()> {
        ensure!(seconds.abs() < 100 * 365 * 86_400, "{seconds} s is no clock that anybody has");
        // In one go: a daemon that reads the file meanwhile must not find it empty.
        let (file, fresh) = (self.clock_file(), self.clock_file().with_extension("new"));
        std::fs::write(&fresh, format!("{seconds:+}\n"))?;
        std::fs::rename(&fresh, &file).with_context(|| format!("writing {}", file.display()))
    }

    /// Whether its daemon was ever started with a clock of its own.
    pub(in crate::bench) fn has_own_clock(&self) -> bool {
        self.clock_file().exists()
    }

    fn clock_file(&self) -> PathBuf {
        self.dir().join("clock")
    }
}
