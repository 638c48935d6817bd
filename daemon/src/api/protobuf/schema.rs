//! The table of messages, read once from `schema.txt`.

use std::collections::HashMap;
use std::sync::LazyLock;

/// How a field's values stand in JSON, each with the name of its type.
#[derive(Debug)]
pub(super) enum Form {
    Single(String),
    List(String),
    Map(String),
    /// A message whose fields belong to the parent.
    Inline(String),
}

#[derive(Debug)]
pub(super) struct Field {
    pub name: String,
    pub form: Form,
}

/// Fields by their number.
pub(super) type Message = HashMap<u64, Field>;

static MESSAGES: LazyLock<HashMap<String, Message>> = LazyLock::new(|| parse(include_str!("schema.txt")));

pub(super) fn message(name: &str) -> Option<&'static Message> {
    MESSAGES.get(name)
}

fn parse(text: &str) -> HashMap<String, Message> {
    let mut messages: HashMap<String, Message> = HashMap::new();
    let mut current = String::new();
    for line in text.lines().filter(|line| !line.is_empty() && !line.starts_with('#')) {
        let mut words = line.split_whitespace();
        match (words.next(), words.next(), words.next()) {
            (Some(number), Some(name), Some(form)) => {
                let form = match (name, form.strip_prefix('*'), form.strip_prefix('{')) {
                    ("-", _, _) => Form::Inline(form.to_owned()),
                    (_, Some(of), _) => Form::List(of.to_owned()),
                    (_, _, Some(of)) => Form::Map(of.to_owned()),
                    _ => Form::Single(form.to_owned()),
                };
                if let Ok(number) = number.parse() {
                    let field = Field { name: name.to_owned(), form };
                    messages.entry(current.clone()).or_default().insert(number, field);
                }
            }
            (Some(name), None, None) => {
                current = name.to_owned();
                messages.entry(current.clone()).or_default();
            }
            _ => {}
        }
    }
    messages
}

/// Numbers and flags that are no pointers in Go: zero means that nobody set them.
pub(super) fn is_plain(name: &str) -> bool {
    const PLAIN: &[&str] = &[
        "failureThreshold",
        "generation",
        "globalDefault",
        "hostIPC",
        "hostNetwork",
        "hostPID",
        "hostPort",
        "initialDelaySeconds",
        "minReadySeconds",
        "nodePort",
        "number",
        "paused",
        "periodSeconds",
        "publishNotReadyAddresses",
        "readOnly",
        "stdin",
        "stdinOnce",
        "successThreshold",
        "timeoutSeconds",
        "tty",
        "unschedulable",
    ];
    PLAIN.contains(&name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_type_that_a_field_names_is_in_the_table() {
        let simple =
            ["string", "int", "bool", "bytes", "Time", "MicroTime", "Quantity", "IntOrString", "FieldsV1"];
        for (name, message) in MESSAGES.iter() {
            for field in message.values() {
                let (Form::Single(of) | Form::List(of) | Form::Map(of) | Form::Inline(of)) = &field.form;
                assert!(
                    simple.contains(&of.as_str()) || MESSAGES.contains_key(of),
                    "{name}.{}: {of}",
                    field.name
                );
            }
        }
    }
}
