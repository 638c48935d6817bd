//! The table of what Kubernetes' types say about merging, read once from `rules.txt`.

use std::collections::HashMap;
use std::sync::LazyLock;

/// What one type says of itself and of its fields.
#[derive(Debug, Default)]
pub struct TypeRules {
    pub is_atomic: bool,
    fields: HashMap<&'static str, FieldRules>,
}

/// What a field says of the list, map or object that it holds.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FieldRules {
    /// The keys by which server-side apply tells elements apart.
    pub map_keys: Vec<&'static str>,
    pub is_set: bool,
    pub is_atomic: bool,
    pub is_granular: bool,
    /// Whether a strategic merge patch merges the list, and by which key: none for a set of plain values.
    pub merge: Option<Option<&'static str>>,
    pub retains_keys: bool,
    pub is_replaced: bool,
    pub default: Option<&'static str>,
}

impl TypeRules {
    pub fn field(&self, name: &str) -> FieldRules {
        self.fields.get(name).cloned().unwrap_or_default()
    }
}

static RULES: LazyLock<HashMap<&'static str, TypeRules>> = LazyLock::new(|| parse(include_str!("rules.txt")));

/// The rules of a type, by its name in OpenAPI; `None` if it has none.
pub fn of(type_name: &str) -> Option<&'static TypeRules> {
    RULES.get(short(type_name))
}

/// `core.v1.PodSpec` of `io.k8s.api.core.v1.PodSpec`.
fn short(type_name: &str) -> &str {
    let known = ["io.k8s.api.", "io.k8s.apimachinery.pkg.apis.", "io.k8s.apiextensions-apiserver.pkg.apis."];
    known.iter().find_map(|prefix| type_name.strip_prefix(prefix)).unwrap_or(type_name)
}

fn parse(text: &'static str) -> HashMap<&'static str, TypeRules> {
    let mut all: HashMap<&str, TypeRules> = HashMap::new();
    let mut current = "";
    for line in text.lines().filter(|line| !line.is_empty() && !line.starts_with('#')) {
        let mut words = line.split_whitespace();
        let Some(name) = words.next() else { continue };
        if !line.starts_with(' ') {
            current = name;
            all.entry(current).or_default().is_atomic = words.any(|word| word == "atomic");
            continue;
        }
        let mut field = FieldRules::default();
        for word in words {
            let (word, value) =
                word.split_once('=').map_or((word, None), |(word, value)| (word, Some(value)));
            match word {
                "map" => field.map_keys = value.unwrap_or_default().split(',').collect(),
                "set" => field.is_set = true,
                "atomic" => field.is_atomic = true,
                "granular" => field.is_granular = true,
                "merge" => field.merge = Some(value),
                "retainKeys" => field.retains_keys = true,
                "replace" => field.is_replaced = true,
                "default" => field.default = value,
                _ => {}
            }
        }
        all.entry(current).or_default().fields.insert(name, field);
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_word_of_the_table_is_understood() {
        const WORDS: &[&str] =
            &["map", "set", "atomic", "granular", "merge", "retainKeys", "replace", "default"];
        for line in include_str!("rules.txt").lines().filter(|line| !line.starts_with('#')) {
            for word in line.split_whitespace().skip(1) {
                let word = word.split('=').next().unwrap();
                assert!(WORDS.contains(&word), "{line}");
            }
        }
        let ports = of("io.k8s.api.core.v1.Container").unwrap().field("ports");
        assert_eq!(
            (ports.map_keys, ports.merge),
            (vec!["containerPort", "protocol"], Some(Some("containerPort")))
        );
        assert!(of("io.k8s.apimachinery.pkg.apis.meta.v1.OwnerReference").unwrap().is_atomic);
    }

    /// A name that is misspelt, or of a newer Kubernetes, would be passed over in silence.
    #[test]
    fn every_type_and_field_of_the_table_is_one_of_the_model_where_the_type_is_served() {
        let definitions = crate::api::schema::definitions();
        let mut met = 0;
        for (name, definition) in &definitions.schemas {
            let Some(rules) = of(name) else { continue };
            met += 1;
            for field in rules.fields.keys() {
                assert!(definition["properties"].get(field).is_some(), "{name} has no field {field}");
            }
        }
        assert!(met > 30, "only {met} types of the table are served");
    }
}
