//! What has happened to an object.

use super::super::table::text;
use super::age::since;
use super::page::Page;
use k8s_openapi::jiff::Timestamp;
use serde_json::Value;

/// More than this fills screens without telling more; the newest are shown.
const MAX_EVENTS: usize = 50;

/// Adds the events of `object`, oldest first. An event of an earlier object of the same name is not about it;
/// events about nodes name the node in place of its uid.
pub fn add(page: &mut Page, object: &Value, mut events: Vec<Value>, now: Timestamp) {
    let uid = text(&object["metadata"]["uid"]);
    let name = text(&object["metadata"]["name"]);
    events.retain(|event| {
        let about = text(&event["involvedObject"]["uid"]);
        about.is_empty() || about == uid || about == name
    });
    if events.is_empty() {
        page.pair(0, "Events", "<none>");
        return;
    }
    events.sort_by_key(|event| text(last_time(event)));
    let skipped = events.len().saturating_sub(MAX_EVENTS);
    page.pair(
        0,
        "Events",
        if skipped > 0 { format!("({skipped} older ones are not shown)") } else { String::new() },
    );
    let mut rows = vec![["Type", "Reason", "Age", "From", "Message"].map(str::to_owned).to_vec()];
    rows.extend(events[skipped..].iter().map(|event| {
        let from = match text(&event["source"]["component"]) {
            component if component.is_empty() => text(&event["reportingComponent"]),
            component => component,
        };
        vec![
            text(&event["type"]),
            text(&event["reason"]),
            event_age(event, now),
            if from.is_empty() { "-".to_owned() } else { from },
            text(&event["message"]).trim().replace('\n', " "),
        ]
    }));
    page.table(1, rows);
}

fn last_time(event: &Value) -> &Value {
    let times = [&event["series"]["lastObservedTime"], &event["lastTimestamp"], &event["eventTime"]];
    times.into_iter().find(|time| time.is_string()).unwrap_or(&event["metadata"]["creationTimestamp"])
}

/// How long ago; for what was seen often, also how often and since when.
fn event_age(event: &Value, now: Timestamp) -> String {
    let last = since(last_time(event), now);
    match event["count"].as_i64().or_else(|| event["series"]["count"].as_i64()) {
        Some(count) if count > 1 => {
            let first = &event["firstTimestamp"];
            let first = if first.is_string() { first } else { &event["eventTime"] };
            format!("{last} (x{count} over {})", since(first, now))
        }
        _ => last,
    }
}
