//! Kubernetes quantities as exact numbers: `250m`, `1.5Gi`, `2e3`
//! (<https://kubernetes.io/docs/reference/kubernetes-api/common-definitions/quantity/>).

use k8s_openapi::apimachinery::pkg::api::resource::Quantity;

/// A text that is no quantity.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not a quantity: write a number with an optional suffix like m, k, M, Gi or e3")]
pub struct InvalidQuantity(pub String);

/// Longer texts are refused: no sensible amount needs them, and digits must fit in the arithmetic.
const LENGTH_LIMIT: usize = 32;
/// Powers of ten beyond this do not fit (quantities end at 2^63).
const EXPONENT_LIMIT: i32 = 21;

/// The quantity in thousandths, rounded up as Kubernetes rounds.
pub fn millis(text: &str) -> Result<i128, InvalidQuantity> {
    parse(text).ok_or_else(|| InvalidQuantity(text.chars().take(LENGTH_LIMIT).collect()))
}

/// The quantity in whole units, rounded up.
pub fn units(text: &str) -> Result<i128, InvalidQuantity> {
    millis(text).map(|millis| ceil(millis, 1000))
}

/// As the scheduler counts a resource: processors in thousandths, everything else in units. What is no
/// quantity counts as nothing (the API refuses such objects; another version's may still be stored).
pub fn amount(name: &str, quantity: &Quantity) -> i64 {
    let parsed = if name == "cpu" { millis(&quantity.0) } else { units(&quantity.0) };
    parsed.map_or(0, |amount| i64::try_from(amount).unwrap_or(i64::MAX))
}

fn parse(text: &str) -> Option<i128> {
    if text.len() > LENGTH_LIMIT {
        return None;
    }
    let (negative, unsigned) = match text.strip_prefix('-') {
        Some(rest) => (true, rest),
        None => (false, text.strip_prefix('+').unwrap_or(text)),
    };
    let end = unsigned.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(unsigned.len());
    let (number, suffix) = unsigned.split_at(end);
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    if (whole.is_empty() && fraction.is_empty()) || fraction.contains('.') {
        return None;
    }
    let digits: i128 = format!("0{whole}{fraction}").parse().ok()?;
    let places = i32::try_from(fraction.len()).ok()?;
    let (factor, exponent) = scale(suffix)?;
    // digits * factor * 10^(exponent - places + 3)
    let scaled = digits.checked_mul(factor)?;
    let power = exponent - places + 3;
    let size = 10_i128.checked_pow(power.unsigned_abs())?;
    let magnitude = if power >= 0 { scaled.checked_mul(size)? } else { ceil(scaled, size) };
    Some(if negative { -magnitude } else { magnitude })
}

/// A suffix as a factor and a power of ten.
fn scale(suffix: &str) -> Option<(i128, i32)> {
    Some(match suffix {
        "n" => (1, -9),
        "u" => (1, -6),
        "m" => (1, -3),
        "" => (1, 0),
        "k" => (1, 3),
        "M" => (1, 6),
        "G" => (1, 9),
        "T" => (1, 12),
        "P" => (1, 15),
        "E" => (1, 18),
        "Ki" => (1 << 10, 0),
        "Mi" => (1 << 20, 0),
        "Gi" => (1 << 30, 0),
        "Ti" => (1 << 40, 0),
        "Pi" => (1 << 50, 0),
        "Ei" => (1 << 60, 0),
        _ => {
            let exponent: i32 = suffix.strip_prefix(['e', 'E'])?.parse().ok()?;
            (1, Some(exponent).filter(|exponent| exponent.abs() <= EXPONENT_LIMIT)?)
        }
    })
}

fn ceil(number: i128, divisor: i128) -> i128 {
    number.div_euclid(divisor) + i128::from(number.rem_euclid(divisor) != 0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn quantities_mean_what_kubernetes_says() {
        let cases = [
            ("0", 0),
            ("1", 1000),
            ("250m", 250),
            ("1.5", 1500),
            (".5", 500),
            ("0.0001", 1),
            ("100n", 1),
            ("2k", 2_000_000),
            ("2e3", 2_000_000),
            ("1E3", 1_000_000),
            ("1Ki", 1_024_000),
            ("1.5Gi", 1_610_612_736_000),
            ("-1", -1000),
            ("1E", 1_000_000_000_000_000_000_000),
        ];
        for (text, expected) in cases {
            assert_eq!(millis(text), Ok(expected), "{text}");
        }
        for text in ["", ".", "m", "1.2.3", "1x", "1ki", "1e", "1e99", "--1", "1 ", &"9".repeat(40)] {
            assert!(millis(text).is_err(), "{text:?}");
        }
    }

    proptest! {
        #[test]
        fn nothing_makes_it_panic(text in "\\PC{0,40}") {
            let _ = millis(&text);
        }

        #[test]
        fn whole_numbers_are_exact(number in 0..i64::MAX) {
            prop_assert_eq!(units(&number.to_string()), Ok(i128::from(number)));
        }
    }
}
