//! Which versions of a wire or disk format a build reads, and which one it writes.
//!
//! The twin of `gossip`'s, which this crate does not know; the daemon sets both.
//!
//! A format changes in two steps, so that a flock of this version and the next one works: the next one reads both the
//! old form and the new one and still writes the old one; the one after it writes the new form. See ARCHITECTURE.md.

use std::fmt;
use std::ops::RangeInclusive;
use std::sync::OnceLock;

/// The versions that a program reads, and the one that it writes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Formats {
    pub oldest: u8,
    pub newest: u8,
    pub written: u8,
}

/// This build's.
const OURS: Formats = Formats { oldest: 1, newest: 1, written: 1 };

static REHEARSED: OnceLock<Formats> = OnceLock::new();

impl Formats {
    /// Those in force in this process.
    #[must_use]
    pub fn current() -> Self {
        REHEARSED.get().copied().unwrap_or(OURS)
    }

    /// Makes this process pretend to be another build, for rehearsing an upgrade. Before anything is written or read;
    /// a second call changes nothing.
    pub fn rehearse(self) {
        let _ = REHEARSED.set(self);
    }

    #[must_use]
    pub fn reads(self, version: u8) -> bool {
        RangeInclusive::new(self.oldest, self.newest).contains(&version)
    }
}

/// As error messages say it: which versions are known here.
impl fmt::Display for Formats {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.oldest == self.newest {
            true => write!(f, "version {}", self.newest),
            false => write!(f, "versions {} to {}", self.oldest, self.newest),
        }
    }
}
