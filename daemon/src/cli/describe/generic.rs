//! Any object: its metadata, and then everything else as it is, with readable keys.

use super::super::table::text;
use super::page::Page;
use serde_json::Value;

/// Deeper values are shown as JSON in one line.
const MAX_LEVEL: usize = 12;

pub fn describe(page: &mut Page, object: &Value) {
    page.metadata(object);
    page.some(0, "API Version", &object["apiVersion"]);
    page.some(0, "Kind", &object["kind"]);
    page.some(0, "Created", &object["metadata"]["creationTimestamp"]);
    for (key, value) in object.as_object().into_iter().flatten() {
        if !matches!(key.as_str(), "metadata" | "apiVersion" | "kind") {
            // What is a secret is counted, not shown.
            let secret = object["kind"] == "Secret" && matches!(key.as_str(), "data" | "stringData");
            if secret { sizes(page, value) } else { tree(page, 0, &title(key), value) }
        }
    }
}

fn sizes(page: &mut Page, data: &Value) {
    page.head(0, "Data");
    for (key, value) in data.as_object().into_iter().flatten() {
        // Base64 carries three bytes in four characters.
        let size = value.as_str().map_or(0, |text| text.trim_end_matches('=').len() * 3 / 4);
        page.pair(1, key, format!("{size} bytes"));
    }
}

fn tree(page: &mut Page, level: usize, key: &str, value: &Value) {
    match value {
        Value::Object(fields) if !fields.is_empty() && level < MAX_LEVEL => {
            page.head(level, key);
            for (name, value) in fields {
                tree(page, level + 1, &title(name), value);
            }
        }
        Value::Array(list) if list.iter().any(Value::is_object) && level < MAX_LEVEL => {
            page.head(level, key);
            for (index, item) in list.iter().enumerate() {
                let name = item["name"].as_str().map_or_else(|| format!("{}", index + 1), str::to_owned);
                tree(page, level + 1, &name, item);
            }
        }
        Value::Array(list) => page.lines(level, key, list.iter().map(text)),
        Value::Object(_) | Value::Null => page.pair(level, key, "<none>"),
        scalar => page.pair(level, key, text(scalar)),
    }
}

/// `terminationGracePeriodSeconds` as `Termination Grace Period Seconds`; keys that are data stay as they are.
fn title(key: &str) -> String {
    if key.is_empty() || !key.chars().all(|c| c.is_ascii_alphanumeric()) {
        return key.to_owned();
    }
    let mut title = String::new();
    let mut previous_lower = false;
    for (index, letter) in key.chars().enumerate() {
        if index == 0 {
            title.push(letter.to_ascii_uppercase());
        } else {
            if letter.is_ascii_uppercase() && previous_lower {
                title.push(' ');
            }
            title.push(letter);
        }
        previous_lower = !letter.is_ascii_uppercase();
    }
    title
}
