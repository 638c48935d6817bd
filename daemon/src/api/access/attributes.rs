//! What a request is about, in the words of Kubernetes' authorization.
//!
//! Read from method and path alone, whether or not there is such a kind: what may not be done is forbidden before it
//! is said that it does not exist. (Kubernetes, "Authorization Overview", request attributes.)

use crate::api::query::Query;
use crate::api::status::ApiError;
use crate::api::target::segments;
use crate::api::value::text;
use axum::http::{Method, Uri};
use serde_json::Value;

/// Parts of a namespace with a path of their own: anything else below a namespace is a collection in it.
const NAMESPACE_PARTS: [&str; 2] = ["status", "finalize"];
/// What a name that a field selector gives can consist of; any other is not looked at.
const NAME: fn(char) -> bool = |c| c.is_ascii_alphanumeric() || matches!(c, '-' | '.' | ':' | '_');

/// What somebody wants to do, and to what.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Attributes {
    /// `get`, `list`, ... of objects; the method in lower case of paths.
    pub verb: String,
    pub asked: Asked,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Asked {
    /// Objects of a resource, there or not.
    Objects {
        group: String,
        resource: String,
        /// Empty: the objects themselves.
        subresource: String,
        /// Empty: cluster-scoped, or all namespaces.
        namespace: String,
        /// Empty: any, or not known yet.
        name: String,
    },
    Path(String),
}

impl Attributes {
    pub fn of(method: &Method, uri: &Uri) -> Self {
        let path = uri.path();
        objects(method, uri, path).unwrap_or_else(|| Self {
            verb: method.as_str().to_ascii_lowercase(),
            asked: Asked::Path(path.to_owned()),
        })
    }

    /// One object of a resource, or all of them where `name` is empty.
    pub fn object(verb: &str, group: &str, resource: &str, namespace: &str, name: &str) -> Self {
        let own = str::to_owned;
        let asked = Asked::Objects {
            group: own(group),
            resource: own(resource),
            subresource: String::new(),
            namespace: own(namespace),
            name: own(name),
        };
        Self { verb: own(verb), asked }
    }

    /// What an access review asks about.
    pub fn of_review(spec: &Value) -> Result<Self, ApiError> {
        let given = |field: &str| spec.get(field).filter(|given| !given.is_null());
        match (given("resourceAttributes"), given("nonResourceAttributes")) {
            (Some(of), None) => {
                let word = |field: &str| text(of, &format!("/{field}")).to_owned();
                let asked = Asked::Objects {
                    group: word("group"),
                    resource: word("resource"),
                    subresource: word("subresource"),
                    namespace: word("namespace"),
                    name: word("name"),
                };
                Ok(Self { verb: word("verb"), asked })
            }
            (None, Some(of)) => Ok(Self {
                verb: text(of, "/verb").to_owned(),
                asked: Asked::Path(text(of, "/path").to_owned()),
            }),
            _ => Err(ApiError::bad_request(
                "spec: exactly one of nonResourceAttributes or resourceAttributes must be specified",
            )),
        }
    }

    pub fn namespace(&self) -> &str {
        match &self.asked {
            Asked::Objects { namespace, .. } => namespace,
            Asked::Path(_) => "",
        }
    }

    /// What is to be said to `user`, who may not.
    pub fn refusal(&self, user: &str, reason: &str) -> ApiError {
        let reason = if reason.is_empty() { String::new() } else { format!(": {reason}") };
        match &self.asked {
            Asked::Path(path) => {
                let message = format!("forbidden: User {user:?} cannot {} path {path:?}{reason}", self.verb);
                ApiError::new(403, "Forbidden", message)
            }
            Asked::Objects { group, resource, subresource, namespace, name } => {
                let part = if subresource.is_empty() { String::new() } else { format!("/{subresource}") };
                let place = match namespace.as_str() {
                    "" => "at the cluster scope".to_owned(),
                    namespace => format!("in the namespace {namespace:?}"),
                };
                let verb = &self.verb;
                let why = format!(
                    "User {user:?} cannot {verb} resource \"{resource}{part}\" in API group {group:?} {place}{reason}"
                );
                ApiError::forbidden_of(group, resource, name, &why)
            }
        }
    }
}

/// `None` for a path that names no resource.
fn objects(method: &Method, uri: &Uri, path: &str) -> Option<Attributes> {
    let segments = segments(path)?;
    let segments: Vec<&str> = segments.iter().map(String::as_str).collect();
    let (group, rest) = match segments.as_slice() {
        ["api", _, rest @ ..] => ("", rest),
        ["apis", group, _, rest @ ..] => (*group, rest),
        _ => return None,
    };
    let (namespace, rest) = match rest {
        [] => return None,
        ["namespaces", namespace, part] if NAMESPACE_PARTS.contains(part) => (*namespace, rest),
        ["namespaces", namespace] => (*namespace, rest),
        ["namespaces", namespace, inner @ ..] => (*namespace, inner),
        _ => ("", rest),
    };
    let part = |at: usize| rest.get(at).copied().unwrap_or_default();
    let (resource, name, subresource) = (part(0), part(1), part(2));
    let query = Query::of(uri).unwrap_or_default();
    let verb = match *method {
        Method::POST => "create",
        Method::PUT => "update",
        Method::PATCH => "patch",
        Method::DELETE if name.is_empty() => "deletecollection",
        Method::DELETE => "delete",
        Method::GET | Method::HEAD if subresource.is_empty() && query.flag("watch") == Ok(true) => "watch",
        Method::GET | Method::HEAD if name.is_empty() => "list",
        Method::GET | Method::HEAD => "get",
        _ => return None,
    };
    let name = match name {
        "" if matches!(verb, "list" | "watch" | "deletecollection") => {
            named(query.text("fieldSelector")).unwrap_or_default()
        }
        name => name,
    };
    let mut attributes = Attributes::object(verb, group, resource, namespace, name);
    if let Asked::Objects { subresource: asked, .. } = &mut attributes.asked {
        subresource.clone_into(asked);
    }
    Some(attributes)
}

/// The one name that a field selector leaves, so that who may see one object may also list and watch it.
fn named(selector: &str) -> Option<&str> {
    // A comma that is escaped belongs to a value, and what follows it is no term.
    if selector.contains('\\') {
        return None;
    }
    selector.split(',').find_map(|term| {
        let name = term.trim().strip_prefix("metadata.name=")?;
        let name = name.strip_prefix('=').unwrap_or(name);
        (!name.is_empty() && name.chars().all(NAME)).then_some(name)
    })
}
