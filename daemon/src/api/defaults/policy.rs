//! LimitRanges and PriorityClasses.

use crate::api::value::{as_map, child, default_to, items_mut, text};
use serde_json::Value;

/// Of a container's bounds each says the next one that was left out: the most is the limit, the limit is the request, and
/// the least is the request of what has none.
pub fn limit_range(range: &mut Value) {
    for item in items_mut(child(range, "spec"), "limits") {
        if text(item, "/type") == "Container" {
            fill(item, "max", "default");
            fill(item, "default", "defaultRequest");
            fill(item, "min", "defaultRequest");
        }
    }
}

fn fill(item: &mut Value, from: &str, to: &str) {
    let Some(given) = item.get(from).and_then(Value::as_object).cloned() else { return };
    let filled = as_map(child(item, to));
    for (resource, amount) in given {
        filled.entry(resource).or_insert(amount);
    }
}

pub fn priority_class(class: &mut Value) {
    default_to(class, "preemptionPolicy", "PreemptLowerPriority");
}
