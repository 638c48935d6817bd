//! Values checked by their schema, with the words of Kubernetes' API server.

use super::format;
use super::structure::{ListType, Range, Schema, Type};
use crate::api::status::Cause;
use crate::api::validate::Problems;
use serde_json::Value;
use std::collections::{HashMap, HashSet};

/// How much checking one object may cause, in looks at a value: conditions are tried one after the other for each element of
/// a list, and each of them may look at every one of its options.
const STEPS: usize = 4_000_000;

/// Checks a value; `before` is what stood in its place. What has not changed is not complained of, so that an object that was
/// stored under an older schema can be edited (as since Kubernetes 1.30, "ratcheting").
pub fn check(schema: &Schema, value: &Value, before: Option<&Value>, field: &str, problems: &mut Problems) {
    let mut checking = Checking { problems, steps: STEPS };
    let mut path = field.to_owned();
    checking.check(schema, value, before, &mut path);
    if checking.steps == 0 {
        let why = "the object is too large for a schema with so many conditions";
        checking.problems.forbidden(field, why);
    }
}

struct Checking<'a> {
    problems: &'a mut Problems,
    steps: usize,
}

impl Checking<'_> {
    fn check(&mut self, schema: &Schema, value: &Value, before: Option<&Value>, path: &mut String) {
        if self.steps == 0 || self.problems.is_full() || before == Some(value) {
            return;
        }
        self.steps -= 1;
        if value.is_null() && schema.nullable {
            return;
        }
        if !is_of_type(schema, value) {
            let wanted =
                if schema.int_or_string { "integer,string" } else { schema.kind.map_or("", Type::name) };
            let is = type_name(value);
            let message = format!("Invalid value: {is:?}: {path} in body must be of type {wanted}: {is:?}");
            return self.problems.add("FieldValueTypeInvalid", path, message);
        }
        self.cost(schema.options.len() + schema.required.len());
        self.plain(schema, value, path);
        match value {
            Value::Object(fields) => {
                self.range(schema.sizes, fields.len(), "properties", value, path);
                for name in schema.required.iter().filter(|name| !fields.contains_key(*name)) {
                    self.problems.required(&joined(path, name), "");
                }
                if schema.embedded {
                    for name in ["apiVersion", "kind"] {
                        if fields.get(name).and_then(Value::as_str).is_none_or(str::is_empty) {
                            self.problems.required(&joined(path, name), "must not be empty");
                        }
                    }
                }
                for (name, value) in fields {
                    let of = schema.properties.get(name).or(schema.additional.as_deref());
                    let Some(of) = of else { continue };
                    let before = before.and_then(|before| before.get(name));
                    self.below(
                        path,
                        |path| path.push_str(&joined_part(path, name)),
                        |this, path| {
                            this.check(of, value, before, path);
                        },
                    );
                }
            }
            Value::Array(elements) => {
                self.range(schema.counts, elements.len(), "items", value, path);
                self.distinct(&schema.list, elements, path);
                let Some(of) = &schema.items else { return self.conditions(schema, value, path) };
                let earlier = Earlier::of(&schema.list, before);
                for (i, element) in elements.iter().enumerate() {
                    let before = earlier.find(element);
                    self.below(
                        path,
                        |path| path.push_str(&format!("[{i}]")),
                        |this, path| {
                            this.check(of, element, before, path);
                        },
                    );
                }
            }
            _ => {}
        }
        self.conditions(schema, value, path);
    }

    fn below(
        &mut self,
        path: &mut String,
        step: impl FnOnce(&mut String),
        check: impl FnOnce(&mut Self, &mut String),
    ) {
        let length = path.len();
        step(path);
        check(self, path);
        path.truncate(length);
    }

    fn cost(&mut self, steps: usize) {
        self.steps = self.steps.saturating_sub(steps);
    }

    fn plain(&mut self, schema: &Schema, value: &Value, path: &str) {
        if !schema.options.is_empty() && !schema.options.iter().any(|option| same(option, value)) {
            let shown = |value: &Value| value.as_str().map_or_else(|| value.to_string(), str::to_owned);
            let options: Vec<String> =
                schema.options.iter().map(|option| format!("{:?}", shown(option))).collect();
            let message = format!("Unsupported value: {value}: supported values: {}", options.join(", "));
            self.problems.add("FieldValueNotSupported", path, message);
        }
        if !schema.format.is_empty() && !format::holds(&schema.format, value) {
            let why = format!("{path} in body must be of type {}: {value}", schema.format);
            self.problems.invalid(path, value, &why);
        }
        if let Value::String(text) = value {
            let length = text.chars().count() as u64;
            if let Some(pattern) = &schema.pattern {
                self.cost((1 + text.len() / 64) * (1 + pattern.text.len() / 64));
            }
            if let Some(most) = schema.lengths.most.filter(|most| length > *most) {
                let message = format!("Too long: may not be more than {most} bytes");
                self.problems.add("FieldValueTooLong", path, message);
            }
            if let Some(least) = schema.lengths.least.filter(|least| length < *least) {
                let why = format!("{path} in body should be at least {least} chars long");
                self.problems.invalid(path, value, &why);
            }
            if let Some(pattern) = schema.pattern.as_ref().filter(|pattern| !pattern.matches(text)) {
                let why = format!("{path} in body should match '{}'", pattern.text);
                self.problems.invalid(path, value, &why);
            }
        }
        let Some(number) = value.as_f64() else { return };
        if let Some(most) = &schema.most
            && (number > most.number || (most.is_exclusive && number >= most.number))
        {
            let than = if most.is_exclusive { "less than" } else { "less than or equal to" };
            self.problems.invalid(path, value, &format!("{path} in body should be {than} {}", most.shown));
        }
        if let Some(least) = &schema.least
            && (number < least.number || (least.is_exclusive && number <= least.number))
        {
            let than = if least.is_exclusive { "greater than" } else { "greater than or equal to" };
            self.problems.invalid(path, value, &format!("{path} in body should be {than} {}", least.shown));
        }
        if let Some(of) = schema.multiple_of
            && !is_multiple(number, of)
        {
            self.problems.invalid(path, value, &format!("{path} in body should be a multiple of {of}"));
        }
    }

    fn range(&mut self, range: Range, count: usize, of: &str, value: &Value, path: &str) {
        let counted = count as u64;
        if let Some(most) = range.most.filter(|most| counted > *most) {
            let message = format!("Too many: {count}: must have at most {most} items");
            self.problems.add("FieldValueTooMany", path, message);
        }
        if let Some(least) = range.least.filter(|least| counted < *least) {
            self.problems.invalid(path, value, &format!("{path} in body should have at least {least} {of}"));
        }
    }

    /// Elements that are told apart by their keys, or by themselves, are there once.
    fn distinct(&mut self, list: &ListType, elements: &[Value], path: &str) {
        self.cost(elements.len());
        let mut seen = HashSet::new();
        for (i, element) in elements.iter().enumerate() {
            let identity = match list {
                ListType::Atomic => return,
                ListType::Set => element.clone(),
                ListType::Map(keys) => keys_of(keys, element),
            };
            let shown = identity.to_string();
            if !seen.insert(identity) {
                let message = format!("Duplicate value: {shown}");
                self.problems.add("FieldValueDuplicate", &format!("{path}[{i}]"), message);
            }
        }
    }

    fn conditions(&mut self, schema: &Schema, value: &Value, path: &mut String) {
        let unmet: Vec<_> = schema.all_of.iter().flat_map(|one| self.tried(one, value, path)).collect();
        if !unmet.is_empty() {
            self.composite(path, &format!("{path:?} must validate all the schemas (allOf)"));
            self.adopt(unmet);
        }
        if !schema.any_of.is_empty() {
            let mut best: Option<Vec<_>> = None;
            let is_met = schema.any_of.iter().any(|one| {
                let found = self.tried(one, value, path);
                let is_met = found.is_empty();
                if best.as_ref().is_none_or(|best| found.len() < best.len()) {
                    best = Some(found);
                }
                is_met
            });
            if !is_met {
                self.composite(path, &format!("{path:?} must validate at least one schema (anyOf)"));
                self.adopt(best.unwrap_or_default());
            }
        }
        if !schema.one_of.is_empty() {
            let mut best: Option<Vec<_>> = None;
            let mut met = 0;
            for one in &schema.one_of {
                let found = self.tried(one, value, path);
                met += usize::from(found.is_empty());
                if best.as_ref().is_none_or(|best| found.len() < best.len()) {
                    best = Some(found);
                }
            }
            let start = format!("{path:?} must validate one and only one schema (oneOf).");
            match met {
                1 => {}
                0 => {
                    self.composite(path, &format!("{start} Found none valid"));
                    self.adopt(best.unwrap_or_default());
                }
                several => self.composite(path, &format!("{start} Found {several} valid alternatives")),
            }
        }
        if let Some(not) = &schema.not
            && self.tried(not, value, path).is_empty()
        {
            self.composite(path, &format!("{path:?} must not validate the schema (not)"));
        }
    }

    /// What a condition has against a value.
    fn tried(&mut self, schema: &Schema, value: &Value, path: &mut String) -> Vec<Cause> {
        let mut problems = Problems::default();
        let mut trial = Checking { problems: &mut problems, steps: self.steps };
        trial.check(schema, value, None, path);
        self.steps = trial.steps;
        problems.into_causes()
    }

    fn adopt(&mut self, causes: Vec<Cause>) {
        for cause in causes {
            self.problems.add(cause.reason, &cause.field, cause.message);
        }
    }

    fn composite(&mut self, path: &str, why: &str) {
        self.problems.invalid(path, &"".into(), why);
    }
}

/// The elements of a list as it was, where they can be told apart.
struct Earlier<'a> {
    keys: &'a [String],
    elements: HashMap<Value, &'a Value>,
}

impl<'a> Earlier<'a> {
    fn of(list: &'a ListType, before: Option<&'a Value>) -> Self {
        let (ListType::Map(keys), Some(elements)) = (list, before.and_then(Value::as_array)) else {
            return Self { keys: &[], elements: HashMap::new() };
        };
        Self { keys, elements: elements.iter().map(|element| (keys_of(keys, element), element)).collect() }
    }

    fn find(&self, element: &Value) -> Option<&'a Value> {
        match self.elements.is_empty() {
            true => None,
            false => self.elements.get(&keys_of(self.keys, element)).copied(),
        }
    }
}

fn keys_of(keys: &[String], element: &Value) -> Value {
    let found = keys.iter().filter_map(|key| Some((key.clone(), element.get(key)?.clone())));
    Value::Object(found.collect())
}

fn joined(path: &str, name: &str) -> String {
    format!("{path}{}", joined_part(path, name))
}

fn joined_part(path: &str, name: &str) -> String {
    if path.is_empty() { name.to_owned() } else { format!(".{name}") }
}

fn is_of_type(schema: &Schema, value: &Value) -> bool {
    if schema.int_or_string {
        return value.is_string() || is_whole(value);
    }
    match schema.kind {
        None => true,
        Some(Type::Object) => value.is_object(),
        Some(Type::Array) => value.is_array(),
        Some(Type::String) => value.is_string(),
        Some(Type::Integer) => is_whole(value),
        Some(Type::Number) => value.is_number(),
        Some(Type::Boolean) => value.is_boolean(),
    }
}

fn is_whole(value: &Value) -> bool {
    value.is_i64() || value.is_u64() || value.as_f64().is_some_and(|number| number.fract() == 0.0)
}

/// Numbers are the same however they are written.
fn same(a: &Value, b: &Value) -> bool {
    a == b || matches!((a.as_f64(), b.as_f64()), (Some(a), Some(b)) if a == b)
}

fn type_name(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "boolean",
        Value::Number(_) if is_whole(value) => "integer",
        Value::Number(_) => "number",
        Value::String(_) => "string",
        Value::Array(_) => "array",
        Value::Object(_) => "object",
    }
}
/// As decimals go: 0.3 is a multiple of 0.1.
fn is_multiple(number: f64, of: f64) -> bool {
    let times = number / of;
    (times - times.round()).abs() <= 1e-9 * times.abs().max(1.0)
}
