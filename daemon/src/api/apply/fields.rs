//! Sets of fields of an object, and how they stand in `managedFields` (`FieldsV1`).

use serde_json::{Map, Value};
use std::collections::BTreeMap;
use std::fmt;

/// One step of a path, as `FieldsV1` writes it: `f:` a field, `k:` the keys of a list's element, `v:` a plain value in
/// a set, `i:` a place.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Step(String);

impl Step {
    pub fn field(name: &str) -> Self {
        Self(format!("f:{name}"))
    }

    pub fn keys(keys: &Map<String, Value>) -> Self {
        Self(format!("k:{}", Value::Object(keys.clone())))
    }

    pub fn value(value: &Value) -> Self {
        Self(format!("v:{value}"))
    }

    /// Reads a step in one form, however its keys were ordered and spaced.
    fn parse(text: &str) -> Option<Self> {
        match text.split_once(':')? {
            ("f", name) => Some(Self::field(name)),
            ("k", keys) => serde_json::from_str(keys).ok().map(|keys: Map<String, Value>| Self::keys(&keys)),
            ("v", value) => serde_json::from_str(value).ok().map(|value: Value| Self::value(&value)),
            ("i", place) => place.parse::<u32>().ok().map(|place| Self(format!("i:{place}"))),
            _ => None,
        }
    }

    pub fn as_field(&self) -> Option<&str> {
        self.0.strip_prefix("f:")
    }
}

/// As conflicts name it: `.spec`, `[name="web"]`, `[="x"]`, `[0]`.
impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0.split_at(2) {
            ("f:", name) => write!(f, ".{name}"),
            ("k:", keys) => {
                let keys: Map<String, Value> = serde_json::from_str(keys).unwrap_or_default();
                let pairs: Vec<String> = keys.iter().map(|(key, value)| format!("{key}={value}")).collect();
                write!(f, "[{}]", pairs.join(","))
            }
            ("v:", value) => write!(f, "[={value}]"),
            (_, place) => write!(f, "[{place}]"),
        }
    }
}

/// A set of fields. That a field is in it says nothing of what it holds, and the other way round.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Fields(BTreeMap<Step, Branch>);

#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Branch {
    is_member: bool,
    below: Fields,
}

impl Branch {
    fn is_empty(&self) -> bool {
        !self.is_member && self.below.is_empty()
    }
}

impl Fields {
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Adds a field; the whole object is none.
    pub fn insert(&mut self, path: &[Step]) {
        let Some((first, rest)) = path.split_first() else { return };
        let branch = self.0.entry(first.clone()).or_default();
        match rest {
            [] => branch.is_member = true,
            rest => branch.below.insert(rest),
        }
    }

    pub fn has(&self, step: &Step) -> bool {
        self.0.get(step).is_some_and(|branch| branch.is_member)
    }

    /// What of the set is below a field.
    pub fn below(&self, step: &Step) -> Option<&Self> {
        self.0.get(step).map(|branch| &branch.below).filter(|below| !below.is_empty())
    }

    pub fn union(&self, other: &Self) -> Self {
        let mut union = self.clone();
        for (step, theirs) in &other.0 {
            let ours = union.0.entry(step.clone()).or_default();
            ours.is_member |= theirs.is_member;
            ours.below = ours.below.union(&theirs.below);
        }
        union
    }

    pub fn intersection(&self, other: &Self) -> Self {
        self.filtered(|step, ours| {
            let theirs = other.0.get(step)?;
            let below = ours.below.intersection(&theirs.below);
            Some(Branch { is_member: ours.is_member && theirs.is_member, below })
        })
    }

    /// The fields that are not in `other`. What is below a field that is in `other` stays.
    pub fn difference(&self, other: &Self) -> Self {
        self.filtered(|step, ours| match other.0.get(step) {
            None => Some(ours.clone()),
            Some(theirs) => {
                let below = ours.below.difference(&theirs.below);
                Some(Branch { is_member: ours.is_member && !theirs.is_member, below })
            }
        })
    }

    /// The set without these fields and everything below them.
    pub fn without(&self, other: &Self) -> Self {
        self.filtered(|step, ours| match other.0.get(step) {
            None => Some(ours.clone()),
            Some(theirs) if theirs.is_member => None,
            Some(theirs) => {
                Some(Branch { is_member: ours.is_member, below: ours.below.without(&theirs.below) })
            }
        })
    }

    /// Each branch replaced; those that come out empty are gone.
    fn filtered(&self, change: impl Fn(&Step, &Branch) -> Option<Branch>) -> Self {
        let changed = self.0.iter().filter_map(|(step, branch)| {
            let changed = change(step, branch).filter(|changed| !changed.is_empty())?;
            Some((step.clone(), changed))
        });
        Self(changed.collect())
    }

    /// The set, and the fields on the way to what is in it, as far as `named` says that they are a type's own.
    pub fn with_named<C: Copy>(
        &self,
        at: C,
        named: &impl Fn(C, &str) -> bool,
        down: &impl Fn(C, &Step) -> C,
    ) -> Self {
        let all = self.0.iter().map(|(step, branch)| {
            let is_named = !branch.below.is_empty() && step.as_field().is_some_and(|name| named(at, name));
            let below = branch.below.with_named(down(at, step), named, down);
            (step.clone(), Branch { is_member: branch.is_member || is_named, below })
        });
        Self(all.collect())
    }

    /// The fields as conflicts name them.
    pub fn paths(&self) -> Vec<String> {
        let mut paths = Vec::new();
        self.collect_paths("", &mut paths);
        paths
    }

    fn collect_paths(&self, before: &str, paths: &mut Vec<String>) {
        for (step, branch) in &self.0 {
            let path = format!("{before}{step}");
            if branch.is_member {
                paths.push(path.clone());
            }
            branch.below.collect_paths(&path, paths);
        }
    }

    pub fn to_json(&self) -> Value {
        let members = self.0.iter().map(|(step, branch)| {
            let mut below = branch.below.to_json();
            if let (true, false, Some(fields)) =
                (branch.is_member, branch.below.is_empty(), below.as_object_mut())
            {
                fields.insert(".".into(), Value::Object(Map::new()));
            }
            (step.0.clone(), below)
        });
        Value::Object(members.collect())
    }

    /// Reads `FieldsV1`; `None` if it is none.
    pub fn from_json(json: &Value) -> Option<Self> {
        let steps = json.as_object()?.iter().filter(|(step, _)| *step != ".");
        let branches = steps.map(|(step, below)| {
            let inner = below.as_object()?;
            let is_member = inner.is_empty() || inner.contains_key(".");
            Some((Step::parse(step)?, Branch { is_member, below: Self::from_json(below)? }))
        });
        branches.collect::<Option<_>>().map(Self)
    }
}
