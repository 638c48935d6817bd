//! The forms of names, labels and keys.

const LABEL_LENGTH: usize = 63;
const SUBDOMAIN_LENGTH: usize = 253;

/// RFC 1123 label: names of namespaces, containers, volumes.
pub fn label(name: &str) -> Result<(), String> {
    length(name, LABEL_LENGTH)?;
    if is_label(name) {
        return Ok(());
    }
    Err("a lowercase RFC 1123 label must consist of lower case alphanumeric characters or '-', and must start \
         and end with an alphanumeric character (e.g. 'my-name',  or '123-abc', regex used for validation is \
         '[a-z0-9]([-a-z0-9]*[a-z0-9])?')"
        .into())
}

/// RFC 1035 label: names of services, which become host names.
pub fn label_1035(name: &str) -> Result<(), String> {
    length(name, LABEL_LENGTH)?;
    if is_label(name) && name.starts_with(|c: char| c.is_ascii_lowercase()) {
        return Ok(());
    }
    Err("a DNS-1035 label must consist of lower case alphanumeric characters or '-', start with an alphabetic \
         character, and end with an alphanumeric character (e.g. 'my-name',  or 'abc-123', regex used for \
         validation is '[a-z]([-a-z0-9]*[a-z0-9])?')"
        .into())
}

/// RFC 1123 subdomain: names of most objects.
pub fn subdomain(name: &str) -> Result<(), String> {
    length(name, SUBDOMAIN_LENGTH)?;
    if name.split('.').all(is_label) {
        return Ok(());
    }
    Err("a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', and \
         must start and end with an alphanumeric character (e.g. 'example.com', regex used for validation is \
         '[a-z0-9]([-a-z0-9]*[a-z0-9])?(\\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*')"
        .into())
}

/// Names that only have to fit a path: those of roles, such as `system:node`.
pub fn path_segment(name: &str) -> Result<(), String> {
    length(name, SUBDOMAIN_LENGTH)?;
    match name {
        "." => return Err("may not be '.'".into()),
        ".." => return Err("may not be '..'".into()),
        _ => {}
    }
    match name.chars().find(|c| matches!(c, '/' | '%')) {
        Some(c) => Err(format!("may not contain '{c}'")),
        None => Ok(()),
    }
}

pub fn label_value(value: &str) -> Result<(), String> {
    length(value, LABEL_LENGTH)?;
    if value.is_empty() || is_name_part(value) {
        return Ok(());
    }
    Err("a valid label must be an empty string or consist of alphanumeric characters, '-', '_' or '.', and must \
         start and end with an alphanumeric character (e.g. 'MyValue',  or 'my_value',  or '12345', regex used \
         for validation is '(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])?')"
        .into())
}

/// Keys of labels and annotations: `name` or `example.com/name`.
pub fn qualified_name(key: &str) -> Result<(), String> {
    let name = match key.split_once('/') {
        Some((prefix, name)) => {
            if prefix.is_empty() {
                return Err("prefix part must be non-empty".into());
            }
            subdomain(prefix).map_err(|why| format!("prefix part {why}"))?;
            name
        }
        None => key,
    };
    if name.is_empty() {
        return Err("name part must be non-empty".into());
    }
    length(name, LABEL_LENGTH).map_err(|why| format!("name part {why}"))?;
    if is_name_part(name) {
        return Ok(());
    }
    Err("name part must consist of alphanumeric characters, '-', '_' or '.', and must start and end with an \
         alphanumeric character (e.g. 'MyName',  or 'my.name',  or '123-abc', regex used for validation is \
         '([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]')"
        .into())
}

/// Keys of ConfigMaps and Secrets, which become file names.
pub(super) fn data_key(key: &str) -> Result<(), String> {
    length(key, SUBDOMAIN_LENGTH)?;
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    if key.is_empty() || !key.chars().all(plain) {
        return Err("a valid config key must consist of alphanumeric characters, '-', '_' or '.' (e.g. \
                    'key.name',  or 'KEY_NAME',  or 'key-name', regex used for validation is \
                    '[-._a-zA-Z0-9]+')"
            .into());
    }
    match key {
        "." => Err("must not be '.'".into()),
        ".." => Err("must not be '..'".into()),
        _ => Ok(()),
    }
}

/// Names of environment variables: anything printable but `=`.
pub(super) fn env_name(name: &str) -> Result<(), String> {
    if name.chars().all(|c| (' '..='~').contains(&c) && c != '=') {
        return Ok(());
    }
    Err("a valid environment variable name must consist only of printable ASCII characters other than '='"
        .into())
}

fn length(text: &str, most: usize) -> Result<(), String> {
    if text.len() > most { Err(format!("must be no more than {most} characters")) } else { Ok(()) }
}

fn is_label(text: &str) -> bool {
    let inner = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit();
    text.starts_with(inner) && text.ends_with(inner) && text.chars().all(|c| inner(c) || c == '-')
}

fn is_name_part(text: &str) -> bool {
    let inner = |c: char| c.is_ascii_alphanumeric();
    text.starts_with(inner)
        && text.ends_with(inner)
        && text.chars().all(|c| inner(c) || matches!(c, '-' | '_' | '.'))
}
