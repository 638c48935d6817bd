//! Columns that a definition adds to the tables of its objects (`additionalPrinterColumns`).

use crate::api::table::duration::since_text;
use crate::api::value::{int, items, text};
use crate::jsonpath::{self, JsonPath};
use k8s_openapi::jiff::Timestamp;
use serde_json::{Value, json};

/// One column behind the name.
pub struct Column {
    name: String,
    kind: String,
    format: String,
    description: String,
    priority: i64,
    /// `None` where the path is of a form that is not understood here: its cells are empty.
    path: Option<JsonPath>,
}

/// The columns of a version; the age, where it names none.
pub fn of(version: &Value) -> Vec<Column> {
    let given = items(version, "/additionalPrinterColumns");
    let age = [json!({"name": "Age", "type": "date", "jsonPath": ".metadata.creationTimestamp"})];
    let columns = if given.is_empty() { &age[..] } else { given };
    columns.iter().map(column).collect()
}

fn column(given: &Value) -> Column {
    let path = text(given, "/jsonPath");
    let description = match text(given, "/description") {
        "" => format!("Custom resource definition column (in JSONPath format): {path}"),
        description => description.to_owned(),
    };
    Column {
        name: text(given, "/name").into(),
        kind: text(given, "/type").into(),
        format: text(given, "/format").into(),
        description,
        priority: int(given, "/priority").unwrap_or(0),
        path: JsonPath::parse(path).ok(),
    }
}

/// As a table's `columnDefinitions` hold them, the name first.
pub fn definitions(columns: &[Column]) -> Vec<Value> {
    let name =
        json!({"name": "Name", "type": "string", "format": "name", "description": "Name", "priority": 0});
    let others = columns.iter().map(|column| {
        json!({"name": column.name, "type": column.kind, "format": column.format,
            "description": column.description, "priority": column.priority})
    });
    std::iter::once(name).chain(others).collect()
}

impl Column {
    pub fn cell(&self, object: &Value, now: Timestamp) -> Value {
        let found = self.path.as_ref().and_then(|path| path.find(object).into_iter().next());
        let Some(found) = found.filter(|found| !found.is_null()) else { return Value::Null };
        match self.kind.as_str() {
            "integer" | "number" if found.is_number() => found.clone(),
            "boolean" if found.is_boolean() => found.clone(),
            "string" => jsonpath::text(found).into(),
            "date" => since_text(found.as_str().unwrap_or_default(), now).into(),
            _ => Value::Null,
        }
    }
}
