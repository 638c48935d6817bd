//! Bounds that manifests give as a number or as a share of all: `1`, `25%`.

use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

/// To which side a share of pods is rounded.
#[derive(Clone, Copy)]
pub enum Rounding {
    Up,
    Down,
}

/// How many of `total` a bound means. What is neither a number nor a percentage means none.
pub fn resolve(bound: &IntOrString, total: i32, rounding: Rounding) -> i32 {
    match bound {
        IntOrString::Int(count) => (*count).max(0),
        IntOrString::String(text) => {
            let percent: i64 =
                text.trim().trim_end_matches('%').parse().unwrap_or(0).clamp(0, i32::MAX.into());
            let hundredths = percent.saturating_mul(total.max(0).into());
            let count = match rounding {
                Rounding::Up => hundredths.saturating_add(99) / 100,
                Rounding::Down => hundredths / 100,
            };
            count.try_into().unwrap_or(i32::MAX)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percents_round_up_for_surge_and_down_for_unavailable() {
        let percent = |text: &str| IntOrString::String(text.into());
        let cases = [
            (percent("25%"), 3, 1, 0),
            (percent("25%"), 4, 1, 1),
            (percent("50%"), 5, 3, 2),
            (percent("0%"), 5, 0, 0),
            (IntOrString::Int(2), 5, 2, 2),
            (percent("nonsense"), 5, 0, 0),
        ];
        for (bound, replicas, up, down) in cases {
            assert_eq!(resolve(&bound, replicas, Rounding::Up), up, "{bound:?} of {replicas}");
            assert_eq!(resolve(&bound, replicas, Rounding::Down), down, "{bound:?} of {replicas}");
        }
    }
}
