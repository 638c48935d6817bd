//! Which versions of a wire or disk format a build reads, and which one it writes.
//!
//! A format changes in two steps, so that a flock of this version and the next one works: the next one reads both the
//! old form and the new one and still writes the old one; the one after it writes the new form. See ARCHITECTURE.md.

use std::fmt;
use std::ops::RangeInclusive;
use std::str::FromStr;
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

/// A text that does not name formats.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "formats are written as OLDEST-NEWEST/WRITTEN, for example 1-2/1, and the one that is written is read too"
)]
pub struct BadFormats;

impl FromStr for Formats {
    type Err = BadFormats;

    fn from_str(text: &str) -> Result<Self, BadFormats> {
        let (range, written) = text.split_once('/').ok_or(BadFormats)?;
        let (oldest, newest) = range.split_once('-').ok_or(BadFormats)?;
        let number = |text: &str| text.parse::<u8>().map_err(|_| BadFormats);
        let formats = Self { oldest: number(oldest)?, newest: number(newest)?, written: number(written)? };
        formats.reads(formats.written).then_some(formats).ok_or(BadFormats)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn formats_are_read_from_a_text() {
        let next: Formats = "1-2/1".parse().unwrap();
        assert_eq!(next, Formats { oldest: 1, newest: 2, written: 1 });
        assert!(next.reads(1) && next.reads(2) && !next.reads(0) && !next.reads(3));
        assert_eq!((next.to_string(), OURS.to_string()), ("versions 1 to 2".into(), "version 1".into()));
        for bad in ["", "1", "1-2", "1-2/3", "2-1/1", "a-b/c", "1-300/1"] {
            assert_eq!(bad.parse::<Formats>(), Err(BadFormats), "{bad}");
        }
    }
}
