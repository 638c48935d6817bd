//! What Kubernetes would not accept, said with its words and field paths.
//!
//! Types have been checked before (an object that does not decode never comes here). Names and labels follow
//! kubernetes.io/docs/concepts/overview/working-with-objects/names; messages are the ones kubectl users know.

pub mod access;
pub mod core;
pub mod definition;
pub mod metadata;
mod names;
pub mod network;
pub mod pod;
pub mod policy;
mod quantity;
pub mod storage;
mod volume;
pub mod workload;

pub use names::{label, label_1035, label_value, path_segment, qualified_name, subdomain};

use super::status::Cause;
use serde_json::Value;

/// More reasons than anybody reads; a hostile object must not make a megabyte of them.
const CAUSES: usize = 32;

/// What was found wrong with an object.
#[derive(Debug, Default)]
pub struct Problems(Vec<Cause>);

impl Problems {
    pub fn into_causes(self) -> Vec<Cause> {
        self.0
    }

    /// Whether more would not be told.
    pub(in crate::api) fn is_full(&self) -> bool {
        self.0.len() >= CAUSES
    }

    pub(in crate::api) fn add(&mut self, reason: &'static str, field: &str, message: String) {
        if self.0.len() < CAUSES {
            self.0.push(Cause { reason, message, field: field.to_owned() });
        }
    }

    pub fn required(&mut self, field: &str, why: &str) {
        let message = if why.is_empty() { "Required value".into() } else { format!("Required value: {why}") };
        self.add("FieldValueRequired", field, message);
    }

    pub fn invalid(&mut self, field: &str, value: &Value, why: &str) {
        self.add("FieldValueInvalid", field, format!("Invalid value: {value}: {why}"));
    }

    pub fn unsupported(&mut self, field: &str, value: &str, supported: &[&str]) {
        let supported: Vec<String> = supported.iter().map(|one| format!("{one:?}")).collect();
        let message = format!("Unsupported value: {value:?}: supported values: {}", supported.join(", "));
        self.add("FieldValueNotSupported", field, message);
    }

    pub fn duplicate(&mut self, field: &str, value: &str) {
        self.add("FieldValueDuplicate", field, format!("Duplicate value: {value:?}"));
    }

    pub fn unknown(&mut self, field: &str, value: &str) {
        self.add("FieldValueNotFound", field, format!("Not found: {value:?}"));
    }

    pub fn forbidden(&mut self, field: &str, why: &str) {
        self.add("FieldValueForbidden", field, format!("Forbidden: {why}"));
    }

    /// Checks that a value is one of a fixed set.
    fn one_of(&mut self, field: &str, value: &str, supported: &[&str]) {
        if !supported.contains(&value) {
            self.unsupported(field, value, supported);
        }
    }

    /// Checks that a number, if it is there, is not negative.
    fn not_negative(&mut self, field: &str, value: Option<&Value>) {
        if let Some(value) = value.filter(|value| value.as_i64().is_some_and(|number| number < 0)) {
            self.invalid(field, value, "must be greater than or equal to 0");
        }
    }

    /// Checks the form of a string.
    pub(in crate::api) fn form(
        &mut self,
        field: &str,
        value: &str,
        check: impl Fn(&str) -> Result<(), String>,
    ) {
        if let Err(why) = check(value) {
            self.invalid(field, &value.into(), &why);
        }
    }

    pub(in crate::api) fn same(&mut self, field: &str, new: Option<&Value>, old: Option<&Value>) {
        if new != old {
            self.invalid(field, new.unwrap_or(&Value::Null), "field is immutable");
        }
    }
}

#[cfg(test)]
mod tests;
