//! Who manages which fields: `metadata.managedFields`, taken apart and put together again.

use super::fields::Fields;
use crate::api::value::{child, items, remove, set, text};
use serde_json::{Map, Value, json};

/// How many managers that only update are told apart, as on a Kubernetes API server; what the older ones set is then
/// [`ANCIENT`]. Those that apply are needed one by one, and are bounded by the size of the object.
const UPDATERS: usize = 10;
/// The manager of what was set by those that are not told apart any more.
const ANCIENT: &str = "ancient-changes";

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Operation {
    Apply,
    Update,
}

/// Who writes, and how.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Author {
    pub name: String,
    pub operation: Operation,
    /// Of a part with a path of its own; empty for the object.
    pub subresource: String,
    pub api_version: String,
}

/// One manager with its fields.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Manager {
    pub author: Author,
    /// When it last changed what it manages.
    pub time: String,
    pub fields: Fields,
}

impl Author {
    /// Whether both are one manager. Whoever applies is the same in every version.
    pub fn is(&self, other: &Self) -> bool {
        self.name == other.name
            && self.operation == other.operation
            && self.subresource == other.subresource
            && (self.operation == Operation::Apply || self.api_version == other.api_version)
    }

    /// As conflicts name it.
    pub fn shown(&self) -> String {
        let mut shown = format!("{:?}", self.name);
        if !self.subresource.is_empty() {
            shown.push_str(&format!(" with subresource {:?}", self.subresource));
        }
        if self.operation == Operation::Update {
            shown.push_str(&format!(" using {}", self.api_version));
        }
        shown
    }
}

/// The managers of an object; those that cannot be read are nobody's.
pub fn read(object: &Value) -> Vec<Manager> {
    items(object, "/metadata/managedFields").iter().filter_map(manager).collect()
}

/// What a client wishes the managers to be: `None` where it does not say, or nothing that can be understood.
pub fn wished(object: &Value) -> Option<Vec<Manager>> {
    let entries = items(object, "/metadata/managedFields");
    // One entry with nothing in it takes all managers away.
    if let [Value::Object(only)] = entries
        && only.values().all(Value::is_null)
    {
        return Some(Vec::new());
    }
    let managers: Option<Vec<Manager>> = entries.iter().map(manager).collect();
    managers.filter(|managers| !managers.is_empty())
}

fn manager(entry: &Value) -> Option<Manager> {
    let operation = match text(entry, "/operation") {
        "Apply" => Operation::Apply,
        "Update" => Operation::Update,
        _ => return None,
    };
    let author = Author {
        name: text(entry, "/manager").to_owned(),
        operation,
        subresource: text(entry, "/subresource").to_owned(),
        api_version: text(entry, "/apiVersion").to_owned(),
    };
    let fields = Fields::from_json(entry.get("fieldsV1").unwrap_or(&Value::Object(Map::new())))?;
    Some(Manager { author, time: text(entry, "/time").to_owned(), fields })
}

/// Notes the managers on the object.
pub fn write(object: &mut Value, mut managers: Vec<Manager>) {
    managers.retain(|manager| !manager.fields.is_empty());
    cap(&mut managers);
    managers.sort_by(|a, b| order(a).cmp(&order(b)));
    let metadata = child(object, "metadata");
    if managers.is_empty() {
        remove(metadata, "managedFields");
        return;
    }
    let entries = managers.iter().map(|Manager { author, time, fields }| {
        let operation = format!("{:?}", author.operation);
        let mut entry = json!({"manager": author.name, "operation": operation, "apiVersion": author.api_version,
            "fieldsType": "FieldsV1", "fieldsV1": fields.to_json()});
        for (field, value) in [("subresource", &author.subresource), ("time", time)] {
            if !value.is_empty() {
                set(&mut entry, field, value.as_str());
            }
        }
        entry
    });
    let entries: Vec<Value> = entries.collect();
    set(metadata, "managedFields", entries);
}

fn order(manager: &Manager) -> (Operation, &str, &str, &str, &str) {
    let Author { name, operation, subresource, api_version } = &manager.author;
    (*operation, &manager.time, name, subresource, api_version)
}

/// Puts the oldest updates together where there are too many.
fn cap(managers: &mut Vec<Manager>) {
    let is_update = |manager: &Manager| manager.author.operation == Operation::Update;
    let mut excess = managers.iter().filter(|manager| is_update(manager)).count().saturating_sub(UPDATERS);
    if excess == 0 {
        return;
    }
    managers.sort_by(|a, b| order(a).cmp(&order(b)));
    let (mut kept, mut ancient): (Vec<Manager>, Vec<Manager>) = (Vec::new(), Vec::new());
    // One more than is too much, since what is put together is a manager itself.
    excess += 1;
    for manager in managers.drain(..) {
        let goes = excess > 0 && is_update(&manager);
        excess -= usize::from(goes);
        match ancient.iter_mut().find(|one| one.author.api_version == manager.author.api_version) {
            Some(one) if goes => {
                one.fields = one.fields.union(&manager.fields);
                one.time = one.time.clone().max(manager.time);
            }
            _ if goes => {
                let author = Author { name: ANCIENT.into(), subresource: String::new(), ..manager.author };
                ancient.push(Manager { author, ..manager });
            }
            _ => kept.push(manager),
        }
    }
    kept.extend(ancient);
    *managers = kept;
}
