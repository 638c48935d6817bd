//! The part of kubectl's JSONPath that scripts and printer columns use: `{.a.b[0]['c'][*]}` and `[?(@.type=="Ready")]`.

use anyhow::{Context, bail, ensure};
use serde_json::Value;

/// A plain value as it is shown.
pub fn text(value: &Value) -> String {
    match value {
        Value::Null => String::new(),
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}

/// One step from a value to some of its parts.
#[derive(Clone, Debug, PartialEq)]
enum Step {
    Field(String),
    /// Counted from the end where negative.
    Index(i64),
    All,
    /// Elements whose path has this text.
    Where {
        path: Vec<Step>,
        equals: String,
    },
}

/// A path into an object.
#[derive(Clone, Debug, PartialEq)]
pub struct JsonPath(Vec<Step>);

impl JsonPath {
    /// Reads a path with or without its braces and first dot.
    pub fn parse(text: &str) -> anyhow::Result<Self> {
        let inner = text.strip_prefix('{').map_or(Some(text), |rest| rest.strip_suffix('}'));
        let steps =
            inner.with_context(|| format!("the path {text} has no closing brace")).and_then(parse_steps);
        steps.map(Self).with_context(|| format!("\"{text}\" is not a path like {{.status.phase}}"))
    }

    /// All values that the path leads to, in order.
    pub fn find<'a>(&self, value: &'a Value) -> Vec<&'a Value> {
        walk(&self.0, value)
    }
}

fn walk<'a>(steps: &[Step], value: &'a Value) -> Vec<&'a Value> {
    let mut found = vec![value];
    for step in steps {
        found = found.into_iter().flat_map(|value| advance(step, value)).collect();
    }
    found
}

fn advance<'a>(step: &Step, value: &'a Value) -> Vec<&'a Value> {
    let elements = || match value {
        Value::Array(list) => list.iter().collect(),
        Value::Object(map) => map.values().collect(),
        _ => Vec::new(),
    };
    match step {
        Step::Field(name) => value.get(name).into_iter().collect(),
        Step::All => elements(),
        Step::Index(index) => {
            let list = value.as_array().map_or(&[][..], Vec::as_slice);
            let from_end =
                list.len().checked_sub(usize::try_from(index.unsigned_abs()).unwrap_or(usize::MAX));
            let at = usize::try_from(*index).ok().or(from_end);
            at.and_then(|at| list.get(at)).into_iter().collect()
        }
        Step::Where { path, equals } => elements()
            .into_iter()
            .filter(|element| walk(path, element).iter().any(|part| text(part) == *equals))
            .collect(),
    }
}

fn parse_steps(path: &str) -> anyhow::Result<Vec<Step>> {
    let path = path.trim();
    let mut rest = path.strip_prefix('$').unwrap_or(path);
    let mut steps = Vec::new();
    while !rest.is_empty() {
        if let Some(inside) = rest.strip_prefix('[') {
            let end = closing_bracket(inside).context("a '[' is not closed")?;
            steps.push(parse_bracket(inside[..end].trim())?);
            rest = &inside[end + 1..];
            continue;
        }
        // The dot may be left out at the beginning only.
        let Some(name) = rest.strip_prefix('.').or_else(|| steps.is_empty().then_some(rest)) else {
            bail!("expected '.' or '[' before \"{rest}\"");
        };
        let (name, after) = read_name(name);
        match name.as_str() {
            "" if after.is_empty() && steps.is_empty() => {}
            "" => bail!("a field name is missing"),
            "*" => steps.push(Step::All),
            _ => steps.push(Step::Field(name)),
        }
        rest = after;
    }
    Ok(steps)
}

/// A field name up to the next '.' or '['; a backslash keeps a dot in it (`.metadata.labels.a\.b`).
fn read_name(text: &str) -> (String, &str) {
    let mut name = String::new();
    let mut letters = text.char_indices();
    while let Some((at, letter)) = letters.next() {
        match letter {
            '\\' => name.extend(letters.next().map(|(_, escaped)| escaped)),
            '.' | '[' => return (name, &text[at..]),
            letter => name.push(letter),
        }
    }
    (name, "")
}

/// The place of the ']' that ends a bracket, past those in quotes.
fn closing_bracket(text: &str) -> Option<usize> {
    let mut quote = None;
    for (at, letter) in text.char_indices() {
        match (quote, letter) {
            (None, ']') => return Some(at),
            (None, '\'' | '"') => quote = Some(letter),
            (Some(open), letter) if open == letter => quote = None,
            _ => {}
        }
    }
    None
}

fn parse_bracket(inside: &str) -> anyhow::Result<Step> {
    if inside == "*" {
        return Ok(Step::All);
    }
    if let Some(condition) = inside.strip_prefix("?(") {
        let condition = condition.strip_suffix(')').context("a '(' is not closed")?;
        let (path, value) = condition.split_once("==").context("only == is understood in [?( )]")?;
        let path = path.trim().strip_prefix('@').context("a condition begins with @")?;
        let value = value.trim();
        return Ok(Step::Where {
            path: parse_steps(path)?,
            equals: unquote(value).unwrap_or(value).to_owned(),
        });
    }
    if let Some(name) = unquote(inside) {
        return Ok(Step::Field(name.to_owned()));
    }
    inside
        .parse()
        .map(Step::Index)
        .map_err(|_| anyhow::anyhow!("[{inside}] is neither a number nor a quoted name"))
}

fn unquote(text: &str) -> Option<&str> {
    let quoted = |quote| text.strip_prefix(quote)?.strip_suffix(quote);
    quoted('\'').or_else(|| quoted('"'))
}

/// Text with paths in braces: `-o jsonpath='{.items[*].metadata.name}{"\n"}'`.
#[derive(Clone, Debug)]
pub struct Template(Vec<Piece>);

#[derive(Clone, Debug)]
enum Piece {
    Text(String),
    Path(JsonPath),
}

impl Template {
    pub fn parse(text: &str) -> anyhow::Result<Self> {
        let mut pieces = Vec::new();
        let mut rest = text;
        while let Some((before, after)) = rest.split_once('{') {
            pieces.push(Piece::Text(before.to_owned()));
            let (inside, after) =
                after.split_once('}').with_context(|| format!("a brace is not closed in {text}"))?;
            let loops = inside.starts_with("range") || inside == "end";
            ensure!(!loops, "{{{inside}}}: loops are not understood here; use kubectl, or -o json");
            pieces.push(match unquote(inside) {
                Some(quoted) => Piece::Text(quoted.replace("\\n", "\n").replace("\\t", "\t")),
                None => Piece::Path(JsonPath::parse(inside)?),
            });
            rest = after;
        }
        pieces.push(Piece::Text(rest.to_owned()));
        Ok(Self(pieces))
    }

    pub fn fill(&self, value: &Value) -> String {
        let piece = |piece: &Piece| match piece {
            Piece::Text(literal) => literal.clone(),
            Piece::Path(path) => path.find(value).into_iter().map(text).collect::<Vec<_>>().join(" "),
        };
        self.0.iter().map(piece).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::json;

    fn pod() -> Value {
        json!({"metadata": {"name": "web", "labels": {"a.b/c": "x"}},
            "status": {"phase": "Running", "conditions": [
                {"type": "Initialized", "status": "True"}, {"type": "Ready", "status": "False"}]}})
    }

    #[test]
    fn paths_lead_where_kubectl_goes() {
        for (path, expected) in [
            ("{.status.phase}", "Running"),
            ("status.phase", "Running"),
            ("{.status.conditions[1].type}", "Ready"),
            ("{.status.conditions[-1].type}", "Ready"),
            ("{.status.conditions[*].type}", "Initialized Ready"),
            ("{.status.conditions[?(@.type==\"Ready\")].status}", "False"),
            ("{.metadata.labels['a.b/c']}", "x"),
            ("{.metadata.labels.a\\.b/c}", "x"),
            ("{.metadata.nothing}", ""),
            ("{.status.conditions[9].type}", ""),
        ] {
            let object = pod();
            let found = JsonPath::parse(path).unwrap();
            let found: Vec<_> = found.find(&object).into_iter().map(text).collect();
            assert_eq!(found.join(" "), expected, "{path}");
        }
        for path in ["{.a", "{.a[}", "{.a[x]}", "{..a}", "{.a[?(.b==1)]}"] {
            assert!(JsonPath::parse(path).is_err(), "{path} was taken");
        }
    }

    #[test]
    fn templates_mix_text_and_paths() {
        let filled = Template::parse("{.metadata.name} is {.status.phase}{\"\\n\"}").unwrap().fill(&pod());
        assert_eq!(filled, "web is Running\n");
        assert!(Template::parse("{range .items[*]}{end}").is_err());
    }

    proptest! {
        #[test]
        fn any_text_is_a_path_or_an_error(text in "\\PC{0,40}") {
            if let Ok(path) = JsonPath::parse(&text) {
                path.find(&pod());
            }
            if let Ok(template) = Template::parse(&text) {
                template.fill(&pod());
            }
        }
    }
}
