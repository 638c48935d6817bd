//! Quantities that are added up and told again, in the form that Kubernetes gives them.

use crate::scheduler::quantity;
use k8s_openapi::api::core::v1::ResourceRequirements;
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use std::collections::BTreeMap;
use std::fmt;

/// Amounts by resource name.
pub type Amounts = BTreeMap<String, Amount>;

/// Powers of 1000 and of 1024, beyond the units themselves.
const DECIMAL: [&str; 7] = ["", "k", "M", "G", "T", "P", "E"];
const BINARY: [&str; 7] = ["", "Ki", "Mi", "Gi", "Ti", "Pi", "Ei"];

/// An amount in thousandths, and whether people wrote it in powers of 1024.
#[derive(Clone, Copy, Debug)]
pub struct Amount {
    pub millis: i128,
    is_binary: bool,
}

impl Amount {
    pub fn count(count: usize) -> Self {
        Self::millis(i128::try_from(count).unwrap_or(i128::MAX / 1000) * 1000)
    }

    pub fn millis(millis: i128) -> Self {
        Self { millis, is_binary: false }
    }

    /// What is no quantity counts as nothing: the API refuses such objects.
    pub fn of(quantity: &Quantity) -> Self {
        let millis = quantity::millis(&quantity.0).unwrap_or(0);
        Self { millis, is_binary: quantity.0.ends_with('i') }
    }

    /// What is more than `other`.
    pub(super) fn minus(self, other: Option<&Self>) -> Self {
        Self { millis: self.millis.saturating_sub(other.map_or(0, |other| other.millis)), ..self }
    }

    /// The sum, in the form of what was there first.
    pub fn plus(self, other: Self) -> Self {
        let form = if self.millis == 0 { other } else { self };
        Self { millis: self.millis.saturating_add(other.millis), ..form }
    }
}

/// As much is the same, however it is written.
impl PartialEq for Amount {
    fn eq(&self, other: &Self) -> bool {
        self.millis == other.millis
    }
}

impl fmt::Display for Amount {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (units, rest) = (self.millis / 1000, self.millis % 1000);
        if rest != 0 {
            return write!(f, "{}m", self.millis);
        }
        let binary = self.is_binary && units.unsigned_abs() >= 1024;
        let (base, suffixes) = if binary { (1024, BINARY) } else { (1000, DECIMAL) };
        let (mut number, mut power) = (units, 0);
        while number != 0 && number % base == 0 && power + 1 < suffixes.len() {
            number /= base;
            power += 1;
        }
        write!(f, "{number}{}", suffixes[power])
    }
}

pub fn amounts(quantities: Option<&BTreeMap<String, Quantity>>) -> Amounts {
    quantities.into_iter().flatten().map(|(name, quantity)| (name.clone(), Amount::of(quantity))).collect()
}

/// Requests and limits of a container.
pub fn of_container(resources: Option<&ResourceRequirements>) -> (Amounts, Amounts) {
    let of = |field: fn(&ResourceRequirements) -> &Option<BTreeMap<String, Quantity>>| {
        amounts(resources.and_then(|resources| field(resources).as_ref()))
    };
    (of(|resources| &resources.requests), of(|resources| &resources.limits))
}

pub fn add(sum: &mut Amounts, more: &Amounts) {
    for (name, amount) in more {
        let total = sum.get(name).map_or(*amount, |before| before.plus(*amount));
        sum.insert(name.clone(), total);
    }
}

/// Raises each amount to what the other has of it.
pub fn at_least(amounts: &mut Amounts, floor: &Amounts) {
    for (name, floor) in floor {
        let entry = amounts.entry(name.clone()).or_insert(*floor);
        if entry.millis < floor.millis {
            *entry = *floor;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn amounts_are_told_in_their_shortest_form() {
        for (text, expected) in [
            ("0.5", "500m"),
            ("2000m", "2"),
            ("1024Mi", "1Gi"),
            ("1536Mi", "1536Mi"),
            ("512", "512"),
            ("0.5Ki", "512"),
            ("2306867200", "2306867200"),
            ("2000000", "2M"),
            ("0", "0"),
            ("1e3", "1k"),
        ] {
            assert_eq!(Amount::of(&Quantity(text.into())).to_string(), expected, "{text}");
        }
        let sum = Amount::count(0).plus(Amount::of(&Quantity("600Mi".into())));
        assert_eq!(sum.plus(Amount::of(&Quantity("424Mi".into()))).to_string(), "1Gi");
    }
}
