//! Which objects a command line names: `TYPE NAME...`, `TYPE/NAME ...`, selectors and namespaces.

use super::connection::Connection;
use super::discovery::{Catalogue, ResourceType};
use super::failure::Usage;
use anyhow::Context;
use std::fmt::Write;

/// The namespace that objects are looked for in.
#[derive(clap::Args, Clone, Debug, Default)]
pub struct NamespaceArgs {
    /// The namespace [default: the kubeconfig's, "default"]
    #[arg(short, long, value_name = "NAME")]
    pub namespace: Option<String>,
}

impl NamespaceArgs {
    pub fn resolve(&self, connection: &Connection) -> anyhow::Result<String> {
        let namespace = self.namespace.clone().unwrap_or_else(|| connection.namespace().to_owned());
        check_name(&namespace)?;
        Ok(namespace)
    }
}

/// One kind of objects, and which of them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target {
    pub resource: ResourceType,
    /// Empty: all of them, or those that a selector matches.
    pub names: Vec<String>,
}

/// Reads `TYPE[,TYPE] [NAME...]` and `TYPE/NAME ...`, as kubectl does.
pub fn parse_targets(catalogue: &Catalogue, words: &[String]) -> anyhow::Result<Vec<Target>> {
    let Some(first) = words.first() else {
        return Err(Usage(
            "name what you mean: TYPE, TYPE NAME or TYPE/NAME (pods, node pc1, job/hello)".into(),
        )
        .into());
    };
    if words.iter().any(|word| word.contains('/')) {
        return words.iter().map(|word| slash_target(catalogue, word)).collect();
    }
    let mut targets = Vec::new();
    for kind in first.split(',').filter(|kind| !kind.is_empty()) {
        let category = catalogue.category(kind);
        if category.is_empty() {
            targets.push(catalogue.find(kind)?);
        } else {
            targets.extend(category);
        }
    }
    let names = words[1..].to_vec();
    names.iter().try_for_each(|name| check_name(name))?;
    if targets.len() > 1 && !names.is_empty() {
        return Err(Usage("several types with names: write TYPE/NAME for each".into()).into());
    }
    Ok(targets
        .into_iter()
        .map(|resource| Target { resource: resource.clone(), names: names.clone() })
        .collect())
}

fn slash_target(catalogue: &Catalogue, word: &str) -> anyhow::Result<Target> {
    let mixed = || Usage(format!("\"{word}\": write TYPE/NAME for every object when one is written so"));
    let (kind, name) = word.split_once('/').ok_or_else(mixed)?;
    if kind.is_empty() || name.is_empty() || name.contains('/') {
        return Err(Usage(format!("\"{word}\" is not TYPE/NAME")).into());
    }
    check_name(name)?;
    Ok(Target { resource: catalogue.find(kind)?.clone(), names: vec![name.to_owned()] })
}

/// One named object, for commands about exactly one.
pub fn parse_single(catalogue: &Catalogue, words: &[String]) -> anyhow::Result<(ResourceType, String)> {
    let mut targets = parse_targets(catalogue, words)?;
    match (targets.pop(), targets.is_empty()) {
        (Some(Target { resource, mut names }), true) if names.len() == 1 => Ok((resource, names.remove(0))),
        _ => Err(Usage("name one object: TYPE/NAME".into()).into()),
    }
}

/// Names go into paths, so that what cannot be a name of an object is refused before it is sent.
pub fn check_name(name: &str) -> anyhow::Result<()> {
    let fits = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'.' | b'_' | b':');
    let valid =
        !name.is_empty() && name.len() <= 253 && name.bytes().all(fits) && !matches!(name, "." | "..");
    if valid { Ok(()) } else { Err(Usage(format!("\"{name}\" cannot be the name of an object")).into()) }
}

/// Query parameters of a request, percent-encoded.
#[derive(Clone, Debug, Default)]
pub struct Query(String);

impl Query {
    pub fn with(mut self, key: &str, value: impl AsRef<str>) -> Self {
        self.0.push(if self.0.is_empty() { '?' } else { '&' });
        self.0.push_str(key);
        self.0.push('=');
        for byte in value.as_ref().bytes() {
            if byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b'~') {
                self.0.push(char::from(byte));
            } else {
                // Writing to a string cannot fail.
                let _ = write!(self.0, "%{byte:02X}");
            }
        }
        self
    }

    pub fn with_some(self, key: &str, value: Option<impl AsRef<str>>) -> Self {
        match value {
            Some(value) => self.with(key, value),
            None => self,
        }
    }

    /// `path` with these parameters.
    pub fn on(&self, path: &str) -> String {
        format!("{path}{}", self.0)
    }
}

/// A span of time as people write it: `30s`, `5m`, `1h30m`, or plain seconds.
pub fn parse_duration(text: &str) -> anyhow::Result<std::time::Duration> {
    let refused = || format!("\"{text}\" is not a time span: write 30s, 5m or 1h30m");
    if let Ok(seconds) = text.parse::<u64>() {
        return Ok(std::time::Duration::from_secs(seconds));
    }
    let mut total = 0u64;
    let mut digits = String::new();
    for c in text.chars() {
        if c.is_ascii_digit() {
            digits.push(c);
            continue;
        }
        let unit = match c {
            's' => 1,
            'm' => 60,
            'h' => 3600,
            'd' => 86400,
            _ => anyhow::bail!(refused()),
        };
        let amount: u64 = std::mem::take(&mut digits).parse().with_context(refused)?;
        total = amount.checked_mul(unit).and_then(|span| total.checked_add(span)).with_context(refused)?;
    }
    anyhow::ensure!(digits.is_empty() && !text.is_empty(), refused());
    Ok(std::time::Duration::from_secs(total))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn queries_survive_every_character() {
        let query = Query::default().with("labelSelector", "a in (b,c)").with_some("x", None::<&str>);
        assert_eq!(query.on("/p"), "/p?labelSelector=a%20in%20%28b%2Cc%29");
    }

    #[test]
    fn names_that_would_change_the_path_are_refused() {
        for name in ["", "..", "a/b", "a?b", "a#b", "a b", "ä", "a%2f"] {
            assert!(check_name(name).is_err(), "{name:?} was taken");
        }
        assert!(check_name("system:node.pc-1").is_ok());
    }

    #[test]
    fn time_spans() {
        for (text, seconds) in [("30", 30), ("30s", 30), ("5m", 300), ("1h30m", 5400), ("0s", 0)] {
            assert_eq!(parse_duration(text).unwrap().as_secs(), seconds);
        }
        for text in ["", "s", "5x", "m5", "5m3", "99999999999999999999s"] {
            assert!(parse_duration(text).is_err(), "{text:?} was taken");
        }
    }
}
