//! What clients did and were answered, and what must have become of it.

use gaggle_sched::state::{Key, Store};
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};

/// What a client did, for people and for the checks.
#[derive(Debug)]
pub struct Op {
    pub node: usize,
    pub key: Key,
    pub what: Did,
    /// Fields that nobody sets twice to the same, and what was there before as far as the write knew.
    pub fields: BTreeMap<&'static str, String>,
    pub saw: BTreeMap<&'static str, String>,
    pub outcome: Outcome,
    /// Who had it when it was acknowledged, and how often each had lost everything by then.
    pub holders: Vec<(usize, u32)>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Did {
    Create,
    Edit,
    Delete,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    Open,
    Ordered,
    /// With a warning: it is in the documents of the desktop.
    Kept,
    /// It did not take place.
    Failed,
    /// Nobody was answered.
    Unknown,
}

impl Outcome {
    fn is_acknowledged(self) -> bool {
        matches!(self, Self::Ordered | Self::Kept)
    }
}

/// Every client's writes.
#[derive(Default)]
pub struct Record {
    pub ops: Vec<Op>,
}

/// Where a field's value stands.
pub fn field_of<'v>(object: &'v Value, field: &str) -> Option<&'v str> {
    object.get("metadata")?.get("annotations")?.get(field)?.as_str()
}

impl Record {
    /// Keys that some client made.
    fn keys(&self) -> BTreeSet<&Key> {
        self.ops.iter().map(|op| &op.key).collect()
    }

    /// An acknowledged write that the state does not show although nothing came after it. `is_gone`: everybody who had it
    /// is away for good.
    pub fn lost(&self, store: &Store, is_gone: impl Fn(&Op) -> bool) -> Option<String> {
        self.keys().into_iter().find_map(|key| {
            let ops: Vec<&Op> = self.ops.iter().filter(|op| op.key == *key).collect();
            let object = store.get(key).map(|object| object.value());
            let creates =
                ops.iter().filter(|op| op.what == Did::Create && op.outcome != Outcome::Failed).count();
            let deletes: Vec<&&Op> = ops.iter().filter(|op| op.what == Did::Delete).collect();
            let deleted = deletes.iter().find(|op| op.outcome.is_acknowledged() && !is_gone(op));
            if let (Some(op), 1, Some(_)) = (deleted, creates, object) {
                return Some(format!("{key} was deleted, and is there: {op:?}"));
            }
            if deletes.iter().any(|op| op.outcome != Outcome::Failed) {
                return None;
            }
            let made = ops.iter().find(|op| op.outcome.is_acknowledged() && !is_gone(op));
            let Some(object) = object else {
                return made.map(|op| format!("{key} is not there: {op:?}"));
            };
            lost_field(object, &ops, &is_gone)
        })
    }
}

/// A field whose value is older than an acknowledged write that had seen it, or not there at all.
fn lost_field(object: &Value, ops: &[&Op], is_gone: &impl Fn(&Op) -> bool) -> Option<String> {
    let fields: BTreeSet<&'static str> = ops.iter().flat_map(|op| op.fields.keys().copied()).collect();
    fields.into_iter().find_map(|field| {
        let found = field_of(object, field);
        let by_value: BTreeMap<&str, &Op> =
            ops.iter().filter_map(|op| Some((op.fields.get(field)?.as_str(), *op))).collect();
        let writes = ops.iter().filter(|op| op.outcome.is_acknowledged() && op.fields.contains_key(field));
        let mut writes = writes.filter(|op| !is_gone(op));
        writes.find_map(|op| {
            let lost = match found {
                None => true,
                // One that was brought twice, since its answer was lost, may have seen itself.
                Some(found) if op.fields.get(field).is_some_and(|own| own == found) => false,
                Some(found) => builds_on(&by_value, op, field, found),
            };
            lost.then(|| format!("{} shows {field} as {found:?}: lost {op:?}", op.key))
        })
    })
}

/// Whether a write was made on top of a value, directly or not.
fn builds_on(by_value: &BTreeMap<&str, &Op>, op: &Op, field: &'static str, value: &str) -> bool {
    let mut at = Some(op);
    while let Some(op) = at {
        match op.saw.get(field) {
            Some(seen) if seen == value => return true,
            Some(seen) => at = by_value.get(seen.as_str()).copied(),
            None => return false,
        }
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::work::objects::Kind;
    use gaggle_sched::state::{Expect, Write};
    use serde_json::json;

    fn op(fields: &[(&'static str, &str)], saw: &[(&'static str, &str)], what: Did) -> Op {
        let of = |list: &[(&'static str, &str)]| list.iter().map(|(f, v)| (*f, v.to_string())).collect();
        let key = Kind::ConfigMap.key("a");
        Op {
            node: 0,
            key,
            what,
            fields: of(fields),
            saw: of(saw),
            outcome: Outcome::Ordered,
            holders: vec![],
        }
    }

    fn lost(ops: Vec<Op>, annotations: Value) -> bool {
        let mut store = Store::default();
        let value = json!({"metadata": {"annotations": annotations}});
        let key = Kind::ConfigMap.key("a");
        store.apply(&Write::Put { key, value, expect: Expect::Any, intent: None }.into()).unwrap();
        Record { ops }.lost(&store, |_| false).is_some()
    }

    #[test]
    fn a_write_is_lost_if_what_it_replaced_is_back() {
        let first = || op(&[("x", "1")], &[], Did::Create);
        let second = || op(&[("x", "2")], &[("x", "1")], Did::Edit);
        let third = || op(&[("x", "3")], &[("x", "2")], Did::Edit);
        assert!(!lost(vec![first(), second(), third()], json!({"x": "3"})));
        assert!(lost(vec![first(), second(), third()], json!({"x": "1"})));
        assert!(lost(vec![first(), second()], json!({})));
        let beside = op(&[("x", "4")], &[("x", "1")], Did::Edit);
        assert!(!lost(vec![first(), second(), beside], json!({"x": "4"})), "one of two that did not know");
        assert!(lost(vec![first(), op(&[], &[], Did::Delete)], json!({"x": "1"})), "deleted, and there");
    }
}
