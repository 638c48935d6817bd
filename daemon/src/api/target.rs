//! Which object or collection a path names.

use super::kinds::{Kind, Kinds, Subresource};
use super::status::ApiError;
use std::sync::Arc;

/// Longer segments name nothing that could exist.
const SEGMENT: usize = 512;

/// What a request is about.
#[derive(Clone)]
pub struct Target {
    pub kind: Arc<Kind>,
    /// Empty for cluster-scoped kinds, and for all namespaces.
    pub namespace: String,
    /// Empty for a collection.
    pub name: String,
    pub subresource: Option<Subresource>,
}

impl Target {
    /// The target of `/api/v1/...` and `/apis/GROUP/VERSION/...`, among the kinds that are served.
    pub fn parse(kinds: &Kinds, path: &str) -> Result<Self, ApiError> {
        let segments = segments(path).ok_or_else(ApiError::no_such_path)?;
        let segments: Vec<&str> = segments.iter().map(String::as_str).collect();
        let (group, version, rest) = match segments.as_slice() {
            ["api", version, rest @ ..] => ("", *version, rest),
            ["apis", group, version, rest @ ..] => (*group, *version, rest),
            _ => return Err(ApiError::no_such_path()),
        };
        let namespaces = ["status", "finalize"];
        let (namespace, rest) = match rest {
            // `/namespaces/x/status` is the status of x, not a collection in it.
            ["namespaces", _, part] if namespaces.contains(part) => ("", rest),
            ["namespaces", namespace, inner @ ..] if !inner.is_empty() => (*namespace, inner),
            _ => ("", rest),
        };
        let (plural, name, part) = match rest {
            [plural] => (*plural, "", None),
            [plural, name] => (*plural, *name, None),
            [plural, name, part] => (*plural, *name, Some(*part)),
            _ => return Err(ApiError::no_such_path()),
        };
        let kind = kinds.find(group, version, plural).ok_or_else(ApiError::no_such_path)?;
        let in_namespace = !namespace.is_empty();
        if in_namespace != kind.is_namespaced() && (in_namespace || !name.is_empty()) {
            return Err(ApiError::no_such_path());
        }
        let subresource = match part {
            None => None,
            Some(part) => {
                let found = kind.subresources.iter().find(|one| one.name() == part);
                Some(*found.ok_or_else(ApiError::no_such_path)?)
            }
        };
        Ok(Self { kind, namespace: namespace.to_owned(), name: name.to_owned(), subresource })
    }
}

/// The words of a path; `None` if one of them could name nothing.
pub(super) fn segments(path: &str) -> Option<Vec<String>> {
    path.trim_matches('/').split('/').map(decode_percent).collect()
}

fn decode_percent(segment: &str) -> Option<String> {
    if segment.is_empty() || segment.len() > SEGMENT {
        return None;
    }
    let mut bytes = segment.bytes();
    let mut out = Vec::with_capacity(segment.len());
    while let Some(byte) = bytes.next() {
        if byte == b'%' {
            let digit = |byte: Option<u8>| char::from(byte?).to_digit(16);
            out.push((digit(bytes.next())? * 16 + digit(bytes.next())?) as u8);
        } else {
            out.push(byte);
        }
    }
    // A slash that was escaped would be part of a name, and no name has one.
    String::from_utf8(out).ok().filter(|text| !text.contains('/'))
}

#[cfg(test)]
mod tests {
    use super::*;
    use gaggle_sched::state::View;

    #[test]
    fn paths_name_what_kubernetes_says() {
        let kinds = Kinds::new(View::default());
        let parts = |path: &str| {
            let target = Target::parse(&kinds, path).ok()?;
            Some((
                target.kind.kind.clone(),
                target.namespace,
                target.name,
                target.subresource.map(Subresource::name),
            ))
        };
        let some = |kind: &str, namespace: &str, name: &str, part| {
            Some((kind.to_owned(), namespace.into(), name.into(), part))
        };
        for (path, expected) in [
            ("/api/v1/pods", some("Pod", "", "", None)),
            ("/api/v1/namespaces/a/pods", some("Pod", "a", "", None)),
            ("/api/v1/namespaces/a/pods/b/log", some("Pod", "a", "b", Some("log"))),
            ("/api/v1/namespaces", some("Namespace", "", "", None)),
            ("/api/v1/namespaces/a", some("Namespace", "", "a", None)),
            ("/api/v1/namespaces/a/status", some("Namespace", "", "a", Some("status"))),
            ("/api/v1/nodes/n%31", some("Node", "", "n1", None)),
            ("/apis/apps/v1/namespaces/a/deployments/b/scale", some("Deployment", "a", "b", Some("scale"))),
            ("/api/v1/pods/b", None),
            ("/api/v1/namespaces/a/nodes", None),
            ("/api/v1/namespaces/a/pods/b/scale", None),
            ("/apis/apps/v2/deployments", None),
            ("/api/v1/namespaces/a/pods/b/log/c", None),
            ("/api/v1/namespaces/a%2/pods", None),
            ("/api/v1/namespaces//pods", None),
            ("/metrics", None),
        ] {
            assert_eq!(parts(path), expected, "{path}");
        }
    }
}
