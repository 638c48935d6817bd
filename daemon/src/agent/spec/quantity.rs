//! Kubernetes quantities as whole numbers.

use k8s_openapi::apimachinery::pkg::api::resource::Quantity;

/// The quantity in units of `1/scale`, rounded up; `None` if it is not one or does not fit.
///
/// `scaled("250m", 1000)` is 250, `scaled("1Ki", 1)` is 1024.
pub fn scaled(quantity: &Quantity, scale: i64) -> Option<i64> {
    const UNITS: [(&str, f64); 15] = [
        ("Ki", 1024.0),
        ("Mi", 1_048_576.0),
        ("Gi", 1_073_741_824.0),
        ("Ti", 1_099_511_627_776.0),
        ("Pi", 1_125_899_906_842_624.0),
        ("Ei", 1_152_921_504_606_846_976.0),
        ("n", 1e-9),
        ("u", 1e-6),
        ("m", 1e-3),
        ("k", 1e3),
        ("M", 1e6),
        ("G", 1e9),
        ("T", 1e12),
        ("P", 1e15),
        ("E", 1e18),
    ];
    let text = quantity.0.trim();
    let (number, unit) = match UNITS.iter().find_map(|(unit, size)| Some((text.strip_suffix(unit)?, *size))) {
        Some((number, size)) => (number.parse::<f64>().ok()?, size),
        None => (text.parse::<f64>().ok()?, 1.0),
    };
    // Binary fractions must not push a whole number over the edge that rounding up has.
    const SLACK: f64 = 1e-6;
    let value = (number * unit * scale as f64 - SLACK).ceil();
    (value.is_finite() && value >= 0.0 && value < i64::MAX as f64).then_some(value as i64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantities_are_read_as_kubernetes_writes_them() {
        for (text, scale, expected) in [
            ("250m", 1000, Some(250)),
            ("2", 1000, Some(2000)),
            ("0.1", 1000, Some(100)),
            ("1.5", 1000, Some(1500)),
            ("64Mi", 1, Some(64 << 20)),
            ("1e3", 1, Some(1000)),
            ("100M", 1, Some(100_000_000)),
            ("0", 1, Some(0)),
            ("1u", 1000, Some(1)),
            ("-1", 1, None),
            ("many", 1, None),
            ("", 1, None),
            ("1e40", 1, None),
        ] {
            assert_eq!(scaled(&Quantity(text.into()), scale), expected, "{text}");
        }
    }
}
