//! Names of things: which resource, in which namespace, under which name.

use serde::{Deserialize, Serialize};
use std::borrow::Cow;
use std::fmt;

/// A resource's plural name and group as Kubernetes writes it: `pods`, `deployments.apps`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Resource(Cow<'static, str>);

impl Resource {
    pub const fn fixed(name: &'static str) -> Self {
        Self(Cow::Borrowed(name))
    }

    /// `group` is empty for the core group.
    pub fn new(group: &str, plural: &str) -> Self {
        Self(Cow::Owned(match group {
            "" => plural.to_owned(),
            group => format!("{plural}.{group}"),
        }))
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Resource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The resource that a Kubernetes type belongs to.
pub fn resource_of<T: k8s_openapi::Resource>() -> Resource {
    Resource::new(T::GROUP, T::URL_PATH_SEGMENT)
}

/// Where one object is kept. `namespace` is empty for cluster-scoped resources.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Key {
    pub resource: Resource,
    pub namespace: String,
    pub name: String,
}

impl Key {
    pub fn new(resource: Resource, namespace: impl Into<String>, name: impl Into<String>) -> Self {
        Self { resource, namespace: namespace.into(), name: name.into() }
    }

    /// The key of an object of type `T`.
    pub fn of<T: k8s_openapi::Resource>(namespace: impl Into<String>, name: impl Into<String>) -> Self {
        Self::new(resource_of::<T>(), namespace, name)
    }
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.namespace.is_empty() {
            write!(f, "{}/{}", self.resource, self.name)
        } else {
            write!(f, "{}/{}/{}", self.resource, self.namespace, self.name)
        }
    }
}
