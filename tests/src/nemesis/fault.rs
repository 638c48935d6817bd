//! What can go wrong with a flock, and what of it can go wrong at the same time.

use std::collections::BTreeSet;
use std::fmt;

/// A desktop by its part in the flock at the moment of the fault.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Who {
    Leader,
    /// The others in order, from 0.
    Other(usize),
}

/// One thing that goes wrong.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fault {
    /// Daemons are killed; engines and containers go on.
    Kill(Vec<Who>),
    /// All daemons are killed at the same time.
    KillAll,
    /// All processes of a desktop die, and its kernel says so.
    Crash(Vec<Who>),
    /// The same, in silence.
    PowerCut(Vec<Who>),
    /// It leaves as its owner asks it to.
    Leave(Who),
    /// The lid is closed: silent, and nothing on it moves.
    Sleep(Vec<Who>),
    /// Only those of one group hear each other.
    Cut(Vec<Vec<Who>>),
    /// What the first ones send never reaches the second ones.
    OneWay(Vec<Who>, Vec<Who>),
    /// Its cable goes out and in, so many times.
    Flap(Who, usize),
    /// Of a hundred packets so many are lost, everywhere.
    Lossy(usize),
    /// They get other addresses.
    Readdress(Vec<Who>),
    /// Its clock is suddenly so many minutes ahead, or behind.
    Clock(Who, i64),
    /// The disk under the daemon's data is full.
    FullDisk(Vec<Who>),
    /// The disk under the daemon's data has an error and can only be read from then on.
    ReadOnlyDisk(Who),
    /// Its engine answers nobody.
    StuckEngine(Who),
    /// It has so many hundredths of a processor.
    Starve(Who, u32),
}

impl Fault {
    /// How many desktops it takes out of the flock, or may.
    #[must_use]
    pub fn takes(&self, desktops: usize) -> usize {
        match self {
            Self::Kill(who)
            | Self::Crash(who)
            | Self::PowerCut(who)
            | Self::Sleep(who)
            | Self::FullDisk(who) => who.len(),
            Self::KillAll => desktops,
            Self::Leave(_) | Self::ReadOnlyDisk(_) | Self::Starve(..) => 1,
            Self::Cut(_)
            | Self::OneWay(..)
            | Self::Flap(..)
            | Self::Lossy(_)
            | Self::Readdress(_)
            | Self::Clock(..)
            | Self::StuckEngine(_) => 0,
        }
    }

    /// The desktops that it is done to; none for what is done to the network or to all.
    #[must_use]
    pub fn of(&self) -> Vec<Who> {
        match self {
            Self::Kill(who)
            | Self::Crash(who)
            | Self::PowerCut(who)
            | Self::Sleep(who)
            | Self::Readdress(who)
            | Self::FullDisk(who) => who.clone(),
            Self::Leave(who)
            | Self::Clock(who, _)
            | Self::ReadOnlyDisk(who)
            | Self::StuckEngine(who)
            | Self::Starve(who, _) => vec![*who],
            Self::KillAll | Self::Cut(_) | Self::OneWay(..) | Self::Flap(..) | Self::Lossy(_) => Vec::new(),
        }
    }

    /// Whether it is done to the network.
    #[must_use]
    pub fn is_of_network(&self) -> bool {
        matches!(self, Self::Cut(_) | Self::OneWay(..) | Self::Flap(..) | Self::Lossy(_))
    }

    /// Whether the desktop goes on with its containers and cannot end them in time. What has to run at most once in the
    /// whole flock is safe only while such a desktop is heard.
    #[must_use]
    pub fn hinders_ending(&self) -> bool {
        matches!(self, Self::Kill(_) | Self::KillAll | Self::StuckEngine(_) | Self::Starve(..))
    }

    /// Whether the two can be there together: one desktop does not fail twice at once, a second fault of the network
    /// would undo the first, and who cannot end its containers is not cut off besides.
    #[must_use]
    pub fn goes_with(&self, other: &Self) -> bool {
        let (ours, theirs) = (self.of(), other.of());
        let disjoint = ours.iter().collect::<BTreeSet<_>>().is_disjoint(&theirs.iter().collect());
        let of_network = [self, other].iter().filter(|fault| fault.is_of_network()).count();
        let hindered = self.hinders_ending() || other.hinders_ending();
        let all = [self, other].iter().any(|fault| matches!(fault, Self::KillAll));
        let network_bears_it = of_network == 0 || (of_network == 1 && !hindered);
        disjoint && !all && network_bears_it
    }
}

impl fmt::Display for Who {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Leader => f.write_str("the leader"),
            Self::Other(number) => write!(f, "follower {number}"),
        }
    }
}
