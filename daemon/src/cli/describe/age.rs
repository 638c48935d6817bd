//! Spans of time, as short as kubectl shows them.

use k8s_openapi::jiff::Timestamp;
use serde_json::Value;

/// The span between a time of the API and now; `<unknown>` for no time.
pub fn since(time: &Value, now: Timestamp) -> String {
    match time.as_str().and_then(|text| text.parse::<Timestamp>().ok()) {
        Some(time) => span(now.as_second() - time.as_second()),
        None => "<unknown>".to_owned(),
    }
}

/// Two units at most, and only one where the second no longer matters. Clocks differ between desktops, so that
/// a little less than nothing counts as nothing.
pub fn span(seconds: i64) -> String {
    let (minutes, hours, days) = (seconds / 60, seconds / 3600, seconds / 86400);
    let pair = |big: i64, unit: char, small: i64, small_unit: char| match small {
        0 => format!("{big}{unit}"),
        small => format!("{big}{unit}{small}{small_unit}"),
    };
    match seconds {
        ..0 => "0s".to_owned(),
        0..120 => format!("{seconds}s"),
        120..600 => pair(minutes, 'm', seconds % 60, 's'),
        600..10_800 => format!("{minutes}m"),
        10_800..28_800 => pair(hours, 'h', minutes % 60, 'm'),
        28_800..172_800 => format!("{hours}h"),
        172_800..691_200 => pair(days, 'd', hours % 24, 'h'),
        691_200..63_072_000 => format!("{days}d"),
        _ => pair(days / 365, 'y', days % 365, 'd'),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn spans_are_as_kubectl_shows_them() {
        for (seconds, text) in [
            (-3, "0s"),
            (0, "0s"),
            (119, "119s"),
            (120, "2m"),
            (125, "2m5s"),
            (3599, "59m"),
            (10_800, "3h"),
            (12_000, "3h20m"),
            (100_000, "27h"),
            (180_000, "2d2h"),
            (864_000, "10d"),
            (70_000_000, "2y80d"),
        ] {
            assert_eq!(span(seconds), text);
        }
    }

    #[test]
    fn a_time_that_is_none_is_unknown() {
        let now = "2026-01-01T00:01:00Z".parse().unwrap();
        assert_eq!(since(&json!("2026-01-01T00:00:00Z"), now), "60s");
        assert_eq!(since(&json!(null), now), "<unknown>");
        assert_eq!(since(&json!("yesterday"), now), "<unknown>");
    }
}
