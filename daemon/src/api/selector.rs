//! Label and field selectors: the strings that lists and watches are narrowed with.

use super::kinds::Kind;
use super::status::ApiError;
use super::value::text;
use serde_json::Value;

/// More requirements than any client writes; a longer selector costs every object of every list.
const REQUIREMENTS: usize = 256;

#[derive(Clone, Debug, PartialEq)]
enum Test {
    In(Vec<String>),
    /// Also true of objects that lack the label.
    NotIn(Vec<String>),
    Exists,
    Absent,
    Greater(i64),
    Less(i64),
}

#[derive(Clone, Debug, PartialEq)]
struct Requirement {
    key: String,
    test: Test,
}

/// What an object must be to be listed.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Selector {
    labels: Vec<Requirement>,
    /// JSON pointer, wanted value, and whether it should be equal.
    fields: Vec<(String, String, Want)>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Want {
    Equal,
    Different,
}

impl Selector {
    /// `labelSelector` and `fieldSelector` as they stand in a query.
    pub fn parse(kind: &Kind, labels: &str, fields: &str) -> Result<Self, ApiError> {
        let labels = parse_labels(labels)
            .map_err(|why| ApiError::bad_request(format!("unable to parse requirement: {why}")))?;
        Ok(Self { labels, fields: parse_fields(kind, fields)? })
    }

    pub fn is_empty(&self) -> bool {
        self.labels.is_empty() && self.fields.is_empty()
    }

    pub fn matches(&self, object: &Value) -> bool {
        let labels = object.pointer("/metadata/labels");
        let label = |key: &str| labels.and_then(|labels| labels.get(key)?.as_str());
        self.labels.iter().all(|requirement| requirement.holds(label(&requirement.key)))
            && self.fields.iter().all(|(pointer, wanted, want)| {
                let equal = match object.pointer(pointer) {
                    Some(Value::Bool(is)) => is.to_string() == *wanted,
                    Some(Value::Number(is)) => is.to_string() == *wanted,
                    // An unset flag selects as false does.
                    None if wanted == "false" && pointer.ends_with("unschedulable") => true,
                    _ => text(object, pointer) == wanted,
                };
                equal == (*want == Want::Equal)
            })
    }
}

impl Requirement {
    fn holds(&self, value: Option<&str>) -> bool {
        let number = || value.and_then(|value| value.parse::<i64>().ok());
        match &self.test {
            Test::In(wanted) => value.is_some_and(|value| wanted.iter().any(|w| w == value)),
            Test::NotIn(unwanted) => value.is_none_or(|value| unwanted.iter().all(|u| u != value)),
            Test::Exists => value.is_some(),
            Test::Absent => value.is_none(),
            Test::Greater(than) => number().is_some_and(|number| number > *than),
            Test::Less(than) => number().is_some_and(|number| number < *than),
        }
    }
}

fn parse_labels(selector: &str) -> Result<Vec<Requirement>, String> {
    let mut requirements = Vec::new();
    for part in split_outside_brackets(selector)? {
        let part = part.trim();
        if part.is_empty() {
            continue;
        }
        if requirements.len() == REQUIREMENTS {
            return Err(format!("more than {REQUIREMENTS} requirements"));
        }
        requirements.push(parse_requirement(part)?);
    }
    Ok(requirements)
}

/// Commas separate requirements, but not inside `in (a,b)`.
fn split_outside_brackets(selector: &str) -> Result<Vec<&str>, String> {
    let (mut parts, mut start, mut depth) = (Vec::new(), 0, 0usize);
    for (at, c) in selector.char_indices() {
        match c {
            '(' => depth += 1,
            ')' => depth = depth.checked_sub(1).ok_or("found ')' without '('")?,
            ',' if depth == 0 => {
                parts.push(&selector[start..at]);
                start = at + 1;
            }
            _ => {}
        }
    }
    if depth > 0 {
        return Err("found '(' without ')'".into());
    }
    parts.push(&selector[start..]);
    Ok(parts)
}

fn parse_requirement(part: &str) -> Result<Requirement, String> {
    let made = |key: &str, test: Test| {
        let key = key.trim();
        check_key(key)?;
        Ok(Requirement { key: key.to_owned(), test })
    };
    let value = |value: &str| -> Result<String, String> {
        let value = value.trim();
        super::validate::label_value(value)
            .map_err(|why| format!("invalid label value: {value:?}: {why}"))?;
        Ok(value.to_owned())
    };
    if let Some(key) = part.strip_prefix('!') {
        return made(key, Test::Absent);
    }
    if let Some((key, rest)) = part.split_once("!=") {
        return made(key, Test::NotIn(vec![value(rest)?]));
    }
    if let Some((key, rest)) = part.split_once("==").or_else(|| part.split_once('=')) {
        return made(key, Test::In(vec![value(rest)?]));
    }
    for (sign, test) in [('>', Test::Greater as fn(i64) -> Test), ('<', Test::Less)] {
        if let Some((key, rest)) = part.split_once(sign) {
            let number = rest.trim().parse().map_err(|_| format!("{rest:?} is not an integer"))?;
            return made(key, test(number));
        }
    }
    let Some((key, rest)) = part.split_once(char::is_whitespace) else { return made(part, Test::Exists) };
    let rest = rest.trim();
    let (operator, list) =
        rest.split_once('(').ok_or_else(|| format!("found {rest:?}, expected an operator"))?;
    let list = list.trim_end().strip_suffix(')').ok_or_else(|| format!("found {list:?}, expected: ')'"))?;
    let values = list.split(',').map(value).collect::<Result<Vec<_>, _>>()?;
    match operator.trim() {
        "in" => made(key, Test::In(values)),
        "notin" => made(key, Test::NotIn(values)),
        other => Err(format!("found '{other}', expected: in, notin, =, ==, !=, gt, lt")),
    }
}

fn check_key(key: &str) -> Result<(), String> {
    super::validate::qualified_name(key).map_err(|why| format!("invalid label key {key:?}: {why}"))
}

fn parse_fields(kind: &Kind, selector: &str) -> Result<Vec<(String, String, Want)>, ApiError> {
    let mut fields = Vec::new();
    for part in selector.split(',').filter(|part| !part.is_empty()) {
        if fields.len() == REQUIREMENTS {
            return Err(ApiError::bad_request(format!("more than {REQUIREMENTS} field requirements")));
        }
        let (name, wanted, want) = if let Some((name, wanted)) = part.split_once("!=") {
            (name, wanted, Want::Different)
        } else if let Some((name, wanted)) = part.split_once("==").or_else(|| part.split_once('=')) {
            (name, wanted, Want::Equal)
        } else {
            return Err(ApiError::bad_request(format!(
                "invalid selector: '{part}'; can't understand '{part}'"
            )));
        };
        let known = ["metadata.name", "metadata.namespace"].contains(&name)
            || kind.fields.iter().any(|field| field == name);
        if !known {
            let message = format!("field label not supported: {name}");
            return Err(ApiError::bad_request(message));
        }
        // Backslashes escape the selector's own signs.
        let wanted = wanted.replace("\\,", ",").replace("\\=", "=").replace("\\\\", "\\");
        fields.push((format!("/{}", name.replace('.', "/")), wanted, want));
    }
    Ok(fields)
}

#[cfg(test)]
mod tests;
