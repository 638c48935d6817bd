//! How the flock decides: who votes at most, and when less than half go on.

use super::OptionError;
use std::fmt;
use std::str::FromStr;
use std::time::Duration;

/// The largest electorate that can be asked for.
pub const MOST_VOTERS: usize = 7;
/// Sooner, a switch that restarts would split the flock.
const LEAST_AUTONOMY: Duration = Duration::from_secs(30);

/// The largest electorate: odd, since an even one survives no more deaths than the odd one below it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Voters(pub usize);

impl FromStr for Voters {
    type Err = OptionError;

    fn from_str(text: &str) -> Result<Self, OptionError> {
        let count = text.parse().ok().filter(|count: &usize| *count <= MOST_VOTERS && count % 2 == 1);
        count.map(Self).ok_or_else(|| OptionError::Voters(text.to_owned()))
    }
}

impl fmt::Display for Voters {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// After this long with less than half of the desktops those that are here go on by themselves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Autonomy(pub Duration);

impl FromStr for Autonomy {
    type Err = OptionError;

    fn from_str(text: &str) -> Result<Self, OptionError> {
        let refused = || OptionError::Autonomy(text.to_owned());
        let digits = text.trim_end_matches(|c: char| !c.is_ascii_digit());
        let seconds = match &text[digits.len()..] {
            "s" => 1,
            "m" => 60,
            "h" => 3_600,
            _ => return Err(refused()),
        };
        let count: u64 = digits.parse().map_err(|_| refused())?;
        let after = Duration::from_secs(count.checked_mul(seconds).ok_or_else(refused)?);
        if after < LEAST_AUTONOMY { Err(refused()) } else { Ok(Self(after)) }
    }
}

impl fmt::Display for Autonomy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}s", self.0.as_secs())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn electorates_are_odd_and_bounded() {
        for text in ["1", "3", "5", "7"] {
            assert_eq!(text.parse::<Voters>().unwrap().to_string(), text);
        }
        for text in ["0", "2", "9", "-1", "three", ""] {
            let error = text.parse::<Voters>().unwrap_err().to_string();
            assert!(error.contains("1, 3, 5 or 7"), "{error}");
        }
    }

    #[test]
    fn a_time_of_autonomy_has_a_unit_and_is_not_too_short() {
        for (text, seconds) in [("30s", 30), ("5m", 300), ("2h", 7_200)] {
            let autonomy: Autonomy = text.parse().unwrap();
            assert_eq!(autonomy.0.as_secs(), seconds);
            assert_eq!(autonomy.to_string().parse(), Ok(autonomy));
        }
        for text in ["29s", "0s", "60", "", "s", "1d", "1.5m", "99999999999999999h", "-5m", "ä"] {
            let error = text.parse::<Autonomy>().unwrap_err().to_string();
            assert!(error.contains("30s"), "{error}");
        }
    }
}
