//! Fields that were left out of an object, filled with the defaults of its schema.

use super::structure::Schema;
use crate::api::body::BODY_BYTES;
use serde_json::Value;

/// Fills defaults, and takes away what is null where null means nothing. Running it again changes nothing.
///
/// Defaults in the elements of a long list may add up to more than any object may hold. It is no longer filled then,
/// and is too large to be stored.
pub fn fill(schema: &Schema, value: &mut Value) {
    fill_within(schema, value, &mut (2 * BODY_BYTES));
}

fn fill_within(schema: &Schema, value: &mut Value, budget: &mut usize) {
    match value {
        Value::Object(fields) => {
            let of = |key: &str| schema.properties.get(key).or(schema.additional.as_deref());
            fields
                .retain(|key, value| !value.is_null() || of(key).is_none_or(|of| of.nullable || of.is_any()));
            for (key, property) in &schema.properties {
                let Some(default) = &property.default else { continue };
                if fields.contains_key(key) {
                    continue;
                }
                let Some(left) = budget.checked_sub(default.bytes) else { return };
                *budget = left;
                fields.insert(key.clone(), default.value.clone());
            }
            for (key, value) in fields {
                if let Some(of) = of(key) {
                    fill_within(of, value, budget);
                }
            }
        }
        Value::Array(elements) => {
            let Some(items) = &schema.items else { return };
            elements.iter_mut().for_each(|element| fill_within(items, element, budget));
        }
        _ => {}
    }
}

impl Schema {
    /// Whether nothing is said of the value.
    fn is_any(&self) -> bool {
        self.kind.is_none() && !self.int_or_string
    }
}
