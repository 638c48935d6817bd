//! The formats of strings and numbers that Kubernetes checks, of those that OpenAPI names. Others say something to people only.

use base64::Engine;
use k8s_openapi::jiff::Timestamp;
use k8s_openapi::jiff::civil::Date;
use serde_json::Value;
use std::net::{Ipv4Addr, Ipv6Addr};

/// Whether a value is of a format; true of formats that are not checked.
pub fn holds(format: &str, value: &Value) -> bool {
    match value {
        Value::Number(number) => match format {
            "int32" => number.as_i64().is_none_or(|number| i32::try_from(number).is_ok()),
            "int64" => !number.is_u64() || number.as_i64().is_some(),
            _ => true,
        },
        Value::String(text) => of_text(format, text),
        _ => true,
    }
}

fn of_text(format: &str, text: &str) -> bool {
    match format {
        "date-time" | "datetime" => text.parse::<Timestamp>().is_ok(),
        "date" => text.len() == 10 && text.parse::<Date>().is_ok(),
        "ipv4" => text.parse::<Ipv4Addr>().is_ok(),
        "ipv6" => text.parse::<Ipv6Addr>().is_ok(),
        "cidr" => is_network(text),
        "mac" => is_hardware_address(text),
        "byte" => base64::engine::general_purpose::STANDARD.decode(text).is_ok(),
        "uuid" => is_uuid(text),
        "uri" => text.parse::<axum::http::Uri>().is_ok() && !text.is_empty(),
        "hostname" => text.len() <= 255 && crate::api::validate::subdomain(&text.to_lowercase()).is_ok(),
        "duration" => is_duration(text),
        _ => true,
    }
}

fn is_network(text: &str) -> bool {
    let Some((address, bits)) = text.split_once('/') else { return false };
    let within = |most: u8| bits.parse::<u8>().is_ok_and(|bits| bits <= most);
    match address.parse::<Ipv4Addr>() {
        Ok(_) => within(32),
        Err(_) => address.parse::<Ipv6Addr>().is_ok() && within(128),
    }
}

fn is_hardware_address(text: &str) -> bool {
    let parts: Vec<&str> = text.split([':', '-']).collect();
    [6, 8, 20].contains(&parts.len())
        && parts.iter().all(|part| part.len() == 2 && part.bytes().all(|byte| byte.is_ascii_hexdigit()))
}

fn is_uuid(text: &str) -> bool {
    let digits = text.bytes().filter(|byte| *byte != b'-');
    digits.clone().count() == 32 && digits.clone().all(|byte| byte.is_ascii_hexdigit())
}

/// Go's form: `1h30m`, `1.5s`, `0`; or a number and a word, `3 days`.
fn is_duration(text: &str) -> bool {
    const UNITS: &[&str] = &[
        "ns", "us", "µs", "ms", "s", "m", "h", "d", "w", "sec", "secs", "second", "seconds", "min", "mins",
        "minute", "minutes", "hour", "hours", "day", "days", "week", "weeks",
    ];
    let mut rest = text.trim_start_matches(['+', '-']);
    if rest == "0" {
        return true;
    }
    let mut parts = 0;
    while !rest.is_empty() {
        let end = rest.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(rest.len());
        let (number, after) = rest.split_at(end);
        let after = after.trim_start();
        let end = after.find(|c: char| c.is_ascii_digit() || c.is_whitespace()).unwrap_or(after.len());
        let (unit, after) = after.split_at(end);
        if number.parse::<f64>().is_err() || !UNITS.contains(&unit) {
            return false;
        }
        rest = after.trim_start();
        parts += 1;
    }
    parts > 0
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn formats_are_told_from_what_only_looks_alike() {
        for (format, good, bad) in [
            ("date-time", json!("2026-11-26T10:00:00Z"), json!("2026-11-26")),
            ("date", json!("2026-11-26"), json!("26.11.2026")),
            ("ipv4", json!("10.0.0.1"), json!("10.0.0.256")),
            ("ipv6", json!("::1"), json!("10.0.0.1")),
            ("cidr", json!("10.0.0.0/8"), json!("10.0.0.0/33")),
            ("mac", json!("01:23:45:67:89:ab"), json!("01:23:45")),
            ("byte", json!("aGk="), json!("???")),
            ("uuid", json!("7d444840-9dc0-11d1-b245-5ffdce74fad2"), json!("7d444840")),
            ("duration", json!("1h30m"), json!("an hour")),
            ("int32", json!(1), json!(1_i64 << 40)),
            ("int64", json!(1_i64 << 40), json!(u64::MAX)),
        ] {
            assert!(holds(format, &good) && !holds(format, &bad), "{format}");
        }
        assert!(holds("password", &json!("anything")));
    }
}
