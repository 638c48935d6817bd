//! Amounts of CPU and memory as Kubernetes writes them.

use super::OptionError;
use std::fmt;
use std::str::FromStr;

/// Less than this cannot run a pause container and a small program.
const MIN_MEMORY: u64 = 64 << 20;
pub(super) const MIN_MEMORY_TEXT: &str = "64Mi";

/// Thousandths of a core.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CpuMillis(pub u64);

impl FromStr for CpuMillis {
    type Err = OptionError;

    fn from_str(text: &str) -> Result<Self, OptionError> {
        let refused = || OptionError::Cpu(text.to_owned());
        let millis = match text.strip_suffix('m') {
            Some(millis) if millis.bytes().all(|b| b.is_ascii_digit()) => {
                millis.parse().map_err(|_| refused())?
            }
            Some(_) => return Err(refused()),
            None => scaled(text, 1000).ok_or_else(refused)?,
        };
        if millis == 0 { Err(refused()) } else { Ok(Self(millis)) }
    }
}

impl fmt::Display for CpuMillis {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}m", self.0)
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MemoryBytes(pub u64);

const UNITS: [(&str, u64); 10] = [
    ("Ki", 1 << 10),
    ("Mi", 1 << 20),
    ("Gi", 1 << 30),
    ("Ti", 1 << 40),
    ("Pi", 1 << 50),
    ("k", 1_000),
    ("M", 1_000_000),
    ("G", 1_000_000_000),
    ("T", 1_000_000_000_000),
    ("P", 1_000_000_000_000_000),
];

impl FromStr for MemoryBytes {
    type Err = OptionError;

    fn from_str(text: &str) -> Result<Self, OptionError> {
        let (digits, unit) = UNITS
            .iter()
            .find_map(|(suffix, unit)| Some((text.strip_suffix(suffix)?, *unit)))
            .unwrap_or((text, 1));
        let bytes = scaled(digits, unit).ok_or_else(|| OptionError::Memory(text.to_owned()))?;
        if bytes < MIN_MEMORY {
            let given = text.to_owned();
            return Err(OptionError::LittleMemory { given });
        }
        Ok(Self(bytes))
    }
}

impl fmt::Display for MemoryBytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

/// A plain decimal number times `unit`, rounded down. `None`: not such a number, or too big.
fn scaled(text: &str, unit: u64) -> Option<u64> {
    let (whole, part) = text.split_once('.').unwrap_or((text, ""));
    let digits = |t: &str| t.bytes().all(|b| b.is_ascii_digit());
    if (whole.is_empty() && part.is_empty()) || !digits(whole) || !digits(part) || part.len() > 12 {
        return None;
    }
    let whole: u128 = if whole.is_empty() { 0 } else { whole.parse().ok()? };
    let fraction: u128 = if part.is_empty() { 0 } else { part.parse().ok()? };
    let below_one = fraction * u128::from(unit) / 10u128.pow(u32::try_from(part.len()).ok()?);
    u64::try_from(whole.checked_mul(u128::from(unit))?.checked_add(below_one)?).ok()
}
