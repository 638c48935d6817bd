//! Resource quantities: `500m`, `1Gi`, `2e3`.

use serde_json::Value;

const FORM: &str =
    "quantities must match the regular expression '^([+-]?[0-9.]+)([eEinumkKMGTP]*[-+]?[0-9]*)$'";

/// The amount in thousandths of its unit; `None` for what is not a quantity. Amounts beyond 128 bits are cut to
/// the largest, which no desktop has either.
pub(super) fn milli(text: &str) -> Option<i128> {
    let digits_end = text
        .char_indices()
        .position(|(at, c)| !(c.is_ascii_digit() || c == '.' || (at == 0 && "+-".contains(c))));
    let (number, suffix) = text.split_at(digits_end.unwrap_or(text.len()));
    let (negative, number) = match number.strip_prefix('-') {
        Some(number) => (true, number),
        None => (false, number.strip_prefix('+').unwrap_or(number)),
    };
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    if (whole.is_empty() && fraction.is_empty()) || fraction.contains('.') {
        return None;
    }
    let (factor_num, factor_den): (i128, i128) = match suffix {
        "" => (1000, 1),
        "n" => (1, 1_000_000),
        "u" => (1, 1000),
        "m" => (1, 1),
        "k" => (1_000_000, 1),
        "M" => (1_000_000_000, 1),
        "G" => (1_000_000_000_000, 1),
        "T" => (1_000_000_000_000_000, 1),
        "P" => (1_000_000_000_000_000_000, 1),
        "E" => (1_000_000_000_000_000_000_000, 1),
        "Ki" => (1000 << 10, 1),
        "Mi" => (1000 << 20, 1),
        "Gi" => (1000 << 30, 1),
        "Ti" => (1000 << 40, 1),
        "Pi" => (1000 << 50, 1),
        "Ei" => (1000 << 60, 1),
        exponent => {
            let exponent: i32 = exponent.strip_prefix(['e', 'E'])?.parse().ok()?;
            match exponent {
                0..=18 => (1000 * 10i128.pow(exponent.unsigned_abs()), 1),
                -18..=-1 => (1000, 10i128.pow(exponent.unsigned_abs())),
                _ => return None,
            }
        }
    };
    let scale = |digits: &str, places: u32| -> Option<i128> {
        let value: i128 = if digits.is_empty() { 0 } else { digits.parse().ok()? };
        Some(value.saturating_mul(factor_num) / factor_den.saturating_mul(10i128.checked_pow(places)?))
    };
    let fraction = &fraction[..fraction.len().min(18)];
    let amount = scale(whole, 0)?.saturating_add(scale(fraction, fraction.len() as u32)?);
    Some(if negative { -amount } else { amount })
}

/// Checks a quantity that must not be negative, and returns its amount.
pub(super) fn check(problems: &mut super::Problems, field: &str, value: &Value) -> Option<i128> {
    match milli(value.as_str().unwrap_or_default()) {
        None => problems.invalid(field, value, FORM),
        Some(amount) if amount < 0 => problems.invalid(field, value, "must be greater than or equal to 0"),
        amount => return amount,
    }
    None
}
