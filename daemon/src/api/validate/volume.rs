//! The volumes of a pod.

use super::{Problems, names, quantity};
use crate::api::value::{int, is_set, items, text};
use serde_json::Value;
use std::collections::BTreeSet;

const HOST_PATH_TYPES: &[&str] =
    &["", "BlockDevice", "CharDevice", "Directory", "DirectoryOrCreate", "File", "FileOrCreate", "Socket"];

/// Checks the volumes and returns their names, for the mounts.
pub(super) fn check<'a>(field: &str, spec: &'a Value, problems: &mut Problems) -> BTreeSet<&'a str> {
    let mut names_seen = BTreeSet::new();
    for (i, volume) in items(spec, "/volumes").iter().enumerate() {
        let field = format!("{field}[{i}]");
        let name = text(volume, "/name");
        match name {
            "" => problems.required(&format!("{field}.name"), ""),
            name => problems.form(&format!("{field}.name"), name, names::label),
        }
        if !name.is_empty() && !names_seen.insert(name) {
            problems.duplicate(&format!("{field}.name"), name);
        }
        let sources = volume.as_object().into_iter().flatten();
        if sources.filter(|(key, source)| *key != "name" && !source.is_null()).count() > 1 {
            problems.forbidden(&field, "may not specify more than 1 volume type");
        }
        source(&field, volume, problems);
    }
    names_seen
}

fn source(field: &str, volume: &Value, problems: &mut Problems) {
    for (source, name) in
        [("configMap", "name"), ("secret", "secretName"), ("persistentVolumeClaim", "claimName")]
    {
        if is_set(volume, &format!("/{source}")) && text(volume, &format!("/{source}/{name}")).is_empty() {
            problems.required(&format!("{field}.{source}.{name}"), "");
        }
        for (i, item) in items(volume, &format!("/{source}/items")).iter().enumerate() {
            let field = format!("{field}.{source}.items[{i}]");
            if text(item, "/key").is_empty() {
                problems.required(&format!("{field}.key"), "");
            }
            match text(item, "/path") {
                "" => problems.required(&format!("{field}.path"), ""),
                path => relative_path(&format!("{field}.path"), path, problems),
            }
        }
    }
    if is_set(volume, "/hostPath") {
        let path = text(volume, "/hostPath/path");
        if path.is_empty() {
            problems.required(&format!("{field}.hostPath.path"), "");
        } else if path.split('/').any(|part| part == "..") {
            problems.invalid(&format!("{field}.hostPath.path"), &path.into(), "must not contain '..'");
        }
        let kind = text(volume, "/hostPath/type");
        problems.one_of(&format!("{field}.hostPath.type"), kind, HOST_PATH_TYPES);
    }
    for (i, one) in items(volume, "/projected/sources").iter().enumerate() {
        let Some(token) = one.get("serviceAccountToken").filter(|token| !token.is_null()) else { continue };
        account_token(&format!("{field}.projected.sources[{i}].serviceAccountToken"), token, problems);
    }
    if let Some(limit) = volume.pointer("/emptyDir/sizeLimit").filter(|limit| !limit.is_null()) {
        quantity::check(problems, &format!("{field}.emptyDir.sizeLimit"), limit);
    }
}

/// A token that is to be written into a volume, and kept fresh there.
fn account_token(field: &str, token: &Value, problems: &mut Problems) {
    const SHORTEST_S: i64 = 600;
    if let Some(seconds) = int(token, "/expirationSeconds") {
        let why = match seconds {
            ..SHORTEST_S => "may not specify a duration less than 10 minutes",
            seconds if seconds > 1 << 32 => "may not specify a duration larger than 2^32 seconds",
            _ => "",
        };
        if !why.is_empty() {
            problems.invalid(&format!("{field}.expirationSeconds"), &seconds.into(), why);
        }
    }
    let field = format!("{field}.path");
    match text(token, "/path") {
        "" => problems.required(&field, ""),
        path => relative_path(&field, path, problems),
    }
}

fn relative_path(field: &str, path: &str, problems: &mut Problems) {
    if path.starts_with('/') {
        problems.invalid(field, &path.into(), "must be a relative path");
    } else if path.split('/').any(|part| part == "..") {
        problems.invalid(field, &path.into(), "must not contain '..'");
    }
}
