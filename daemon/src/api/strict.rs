//! Reading bodies without losing what is wrong with them: fields given twice, and fields that do not exist.

use super::schema::{Node, Shape};
use serde::de::{self, DeserializeSeed, Deserializer, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Number, Value};
use std::fmt;

/// How many values and letters may come of one byte: a YAML text of some kilobytes can name one list in another one so
/// often that no memory holds the result.
const GROWTH: usize = 4;
/// ... and of a text that is next to nothing.
const LEAST: usize = 16;
/// More complaints than anybody reads.
const COMPLAINTS: usize = 32;

/// JSON text, and the paths that stand in it more than once (the last one counts, as in Go's decoder).
pub fn from_json(text: &[u8]) -> Result<(Value, Vec<String>), String> {
    let mut reading = Reading::of(text);
    let mut deserializer = serde_json::Deserializer::from_slice(text);
    let seed = Checked { path: Path::Root, reading: &mut reading };
    let value = seed.deserialize(&mut deserializer).map_err(|error| error.to_string())?;
    deserializer.end().map_err(|error| error.to_string())?;
    Ok((value, reading.twice))
}

/// One YAML document, read likewise.
pub fn from_yaml(text: &[u8]) -> Result<(Value, Vec<String>), String> {
    let mut reading = Reading::of(text);
    let seed = Checked { path: Path::Root, reading: &mut reading };
    let value = seed
        .deserialize(serde_yaml_ng::Deserializer::from_slice(text))
        .map_err(|error| format!("error converting YAML to JSON: {error}"))?;
    Ok((value, reading.twice))
}

/// Takes the fields away that the type does not have, and names them.
pub fn drop_unknown(value: &mut Value, of: Node<'_>) -> Vec<String> {
    let mut unknown = Vec::new();
    drop_below(value, of, &Path::Root, &mut unknown);
    unknown
}

fn drop_below(value: &mut Value, of: Node<'_>, path: &Path, unknown: &mut Vec<String>) {
    match value {
        Value::Object(fields) => fields.retain(|key, value| {
            let path = Path::Field(path, key);
            let child = of.child(key);
            if let Some(child) = child {
                drop_below(value, child, &path, unknown);
            }
            let is_unknown = child.is_none() && matches!(of.shape(), Shape::Struct { .. });
            if is_unknown && unknown.len() < COMPLAINTS {
                unknown.push(path.to_string());
            }
            !is_unknown
        }),
        Value::Array(items) => {
            let Some(of) = of.items() else { return };
            for (i, item) in items.iter_mut().enumerate() {
                drop_below(item, of, &Path::Item(path, i), unknown);
            }
        }
        _ => {}
    }
}

/// The field that keeps `value` from being decoded, found by decoding its parts alone.
pub fn culprit(value: &Value, decode: &dyn Fn(&Value) -> Result<Value, String>) -> String {
    let mut path = String::new();
    let mut here = value;
    // Wraps a part into the objects and lists that lead to it.
    let mut wrap: Box<dyn Fn(Value) -> Value + '_> = Box::new(|part| part);
    loop {
        let outer = wrap;
        let parts: Vec<(String, Option<&str>, &Value)> = match here {
            Value::Object(fields) => {
                fields.iter().map(|(key, part)| (format!(".{key}"), Some(key.as_str()), part)).collect()
            }
            Value::Array(items) => {
                items.iter().enumerate().map(|(i, part)| (format!("[{i}]"), None, part)).collect()
            }
            _ => break,
        };
        let alone = |key: Option<&str>, part: Value| match key {
            Some(key) => Value::Object(Map::from_iter([(key.to_owned(), part)])),
            None => Value::Array(vec![part]),
        };
        let is_root = path.is_empty();
        let guilty = parts.into_iter().find(|(_, key, part)| {
            let identity = is_root && matches!(*key, Some("kind" | "apiVersion"));
            !identity && decode(&outer(alone(*key, (*part).clone()))).is_err()
        });
        let Some((step, key, part)) = guilty else { break };
        path.push_str(&step);
        here = part;
        let key = key.map(str::to_owned);
        wrap = Box::new(move |part| outer(alone(key.as_deref(), part)));
    }
    path.trim_start_matches('.').to_owned()
}

/// Where a value stands, printed as Kubernetes prints it: `spec.containers[0].name`.
enum Path<'a> {
    Root,
    Field(&'a Path<'a>, &'a str),
    Item(&'a Path<'a>, usize),
}

impl fmt::Display for Path<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Root => Ok(()),
            Self::Field(Self::Root, key) => f.write_str(key),
            Self::Field(parent, key) => write!(f, "{parent}.{key}"),
            Self::Item(parent, i) => write!(f, "{parent}[{i}]"),
        }
    }
}

/// What is kept while one text is read.
struct Reading {
    twice: Vec<String>,
    /// How much may still come of it.
    budget: usize,
}

impl Reading {
    fn of(text: &[u8]) -> Self {
        Self { twice: Vec::new(), budget: text.len().saturating_mul(GROWTH).saturating_add(LEAST) }
    }

    fn charge<E: de::Error>(&mut self, amount: usize) -> Result<(), E> {
        let left = self.budget.checked_sub(amount);
        self.budget =
            left.ok_or_else(|| E::custom("aliases make it many times as large as it is written"))?;
        Ok(())
    }
}

/// Builds a `Value` from any deserializer. Depth is bounded by the deserializers themselves (128).
struct Checked<'a> {
    path: Path<'a>,
    reading: &'a mut Reading,
}

impl<'de> DeserializeSeed<'de> for Checked<'_> {
    type Value = Value;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        self.reading.charge::<D::Error>(1)?;
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Checked<'_> {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON value")
    }

    fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
        Ok(Value::Bool(value))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_u64<E>(self, value: u64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_f64<E: de::Error>(self, value: f64) -> Result<Value, E> {
        let number = Number::from_f64(value).ok_or_else(|| E::custom("a number that JSON cannot carry"))?;
        Ok(Value::Number(number))
    }

    fn visit_str<E: de::Error>(self, value: &str) -> Result<Value, E> {
        self.reading.charge::<E>(value.len())?;
        Ok(value.into())
    }

    fn visit_string<E: de::Error>(self, value: String) -> Result<Value, E> {
        self.reading.charge::<E>(value.len())?;
        Ok(value.into())
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_none<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_some<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        deserializer.deserialize_any(self)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Value, A::Error> {
        let mut list = Vec::new();
        loop {
            let path = Path::Item(&self.path, list.len());
            let Some(item) = items.next_element_seed(Checked { path, reading: self.reading })? else { break };
            list.push(item);
        }
        Ok(Value::Array(list))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut fields: A) -> Result<Value, A::Error> {
        let mut map = Map::new();
        while let Some(key) = fields.next_key::<String>()? {
            self.reading.charge::<A::Error>(key.len())?;
            let path = Path::Field(&self.path, &key);
            if map.contains_key(&key) && self.reading.twice.len() < COMPLAINTS {
                self.reading.twice.push(path.to_string());
            }
            let value = fields.next_value_seed(Checked { path, reading: self.reading })?;
            map.insert(key, value);
        }
        Ok(Value::Object(map))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::kinds;
    use proptest::prelude::*;
    use serde_json::json;

    #[test]
    fn fields_given_twice_are_named_with_their_path() {
        let text = br#"{"spec": {"a": 1, "list": [{"x": 1, "x": 2}], "a": 3}}"#;
        let (value, twice) = from_json(text).unwrap();
        assert_eq!(twice, ["spec.list[0].x", "spec.a"]);
        assert_eq!(value["spec"]["a"], 3);
        let (value, twice) = from_yaml(b"spec:\n  a: 1\n  b: [{x: y}]\n").unwrap();
        assert_eq!((value, twice.len()), (json!({"spec": {"a": 1, "b": [{"x": "y"}]}}), 0));
    }

    #[test]
    fn aliases_cannot_blow_a_text_up() {
        let list = |element: &str| vec![element; 20_000].join(",");
        let bomb = format!("a: &a [{}]\nb: [{}]\n", list("x"), list("*a"));
        let refused = from_yaml(bomb.as_bytes()).unwrap_err();
        assert!(refused.contains("aliases make it many times as large"), "{refused}");
        let (value, _) = from_yaml(b"a: &a {x: true, y: [1, 2]}\nb: *a\n").unwrap();
        assert_eq!(value["b"], json!({"x": true, "y": [1, 2]}));
    }

    #[test]
    fn unknown_and_wrong_fields_are_named_with_their_path() {
        let kind = kinds::find("apps", "v1", "deployments").unwrap();
        let mut given = json!({"kind": "Deployment", "apiVersion": "apps/v1",
            "metadata": {"name": "x", "creationTimestamp": null, "labels": {"any": "name"}},
            "spec": {"foo": 1, "template": {"spec": {"containers": [{"name": "a", "imag": "x"}]}}}});
        let unknown = drop_unknown(&mut given, kind.node().unwrap());
        assert_eq!(unknown, ["spec.foo", "spec.template.spec.containers[0].imag"]);
        assert_eq!(given["spec"], json!({"template": {"spec": {"containers": [{"name": "a"}]}}}));
        assert_eq!(given["metadata"]["labels"], json!({"any": "name"}));
        let wrong = json!({"kind": "Deployment", "apiVersion": "apps/v1",
            "spec": {"replicas": 1, "template": {"spec": {"containers": [{"name": "a"}, {"name": 3}]}}}});
        assert!(kind.decode(&wrong).is_err());
        assert_eq!(
            culprit(&wrong, &|value: &Value| kind.decode(value)),
            "spec.template.spec.containers[1].name"
        );
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_or_refused(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = from_json(&bytes);
            let _ = from_yaml(&bytes);
        }

        #[test]
        fn what_serde_reads_is_what_is_read(text in "[\\[\\]{}:,\"a0-9 \\.e-]{0,30}") {
            let expected = serde_json::from_str::<Value>(&text).ok();
            prop_assert_eq!(from_json(text.as_bytes()).ok().map(|(value, _)| value), expected);
        }
    }
}
