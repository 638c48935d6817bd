//! What the API serves: from the names that people type to the resource they mean.

use super::connection::{Connection, JSON, RequestError};
use anyhow::anyhow;
use futures::future::join_all;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{APIGroupList, APIResourceList};
use serde::de::DeserializeOwned;

/// One resource in one version of its group.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ResourceType {
    /// Empty for the core group.
    pub group: String,
    pub version: String,
    pub kind: String,
    pub plural: String,
    pub singular: String,
    pub short_names: Vec<String>,
    pub categories: Vec<String>,
    pub namespaced: bool,
}

impl ResourceType {
    /// `deployments.apps`, as in messages about collections.
    pub fn full_plural(&self) -> String {
        self.with_group(&self.plural)
    }

    /// `deployment.apps`, as in `deployment.apps/web`.
    pub fn full_singular(&self) -> String {
        self.with_group(&self.singular)
    }

    fn with_group(&self, name: &str) -> String {
        if self.group.is_empty() { name.to_owned() } else { format!("{name}.{}", self.group) }
    }

    pub fn api_version(&self) -> String {
        if self.group.is_empty() { self.version.clone() } else { format!("{}/{}", self.group, self.version) }
    }

    /// The collection's path; `namespace: None` means all namespaces, and is right for cluster-scoped ones.
    pub fn collection_path(&self, namespace: Option<&str>) -> String {
        let root = if self.group.is_empty() { "/api" } else { "/apis" };
        let namespace = match namespace {
            Some(namespace) if self.namespaced => format!("/namespaces/{namespace}"),
            _ => String::new(),
        };
        format!("{root}/{}{namespace}/{}", self.api_version(), self.plural)
    }

    pub fn object_path(&self, namespace: Option<&str>, name: &str) -> String {
        format!("{}/{name}", self.collection_path(namespace))
    }

    fn is_called(&self, name: &str) -> bool {
        name == self.plural
            || name == self.singular
            || name.eq_ignore_ascii_case(&self.kind)
            || self.short_names.iter().any(|short| short == name)
    }
}

/// All that the API serves, the core group first.
#[derive(Debug)]
pub struct Catalogue(Vec<ResourceType>);

impl Catalogue {
    pub async fn read(connection: &Connection) -> Result<Self, RequestError> {
        let groups: APIGroupList = read(connection, "/apis").await?;
        let mut versions = vec![(String::new(), "v1".to_owned())];
        for group in groups.groups {
            let mut served: Vec<String> = group.versions.into_iter().map(|version| version.version).collect();
            // The version that the server prefers answers for names without one.
            if let Some(preferred) = group.preferred_version {
                served.sort_by_key(|version| *version != preferred.version);
            }
            versions.extend(served.into_iter().map(|version| (group.name.clone(), version)));
        }
        let lists = versions.iter().map(|(group, version)| async move {
            let path =
                if group.is_empty() { format!("/api/{version}") } else { format!("/apis/{group}/{version}") };
            let list: APIResourceList = read(connection, &path).await?;
            Ok::<_, RequestError>(types_of(group, version, list))
        });
        let lists: Result<Vec<_>, _> = join_all(lists).await.into_iter().collect();
        Ok(Self(lists?.into_iter().flatten().collect()))
    }

    /// The resource that somebody calls `name`: plural, singular, kind or short name, with `.group` or
    /// `.version.group` behind it where that is needed.
    pub fn find(&self, name: &str) -> anyhow::Result<&ResourceType> {
        let lower = name.to_ascii_lowercase();
        let (first, rest) = lower.split_once('.').unwrap_or((&lower, ""));
        self.0
            .iter()
            .find(|resource| {
                let versioned = format!("{}.{}", resource.version, resource.group);
                let group_fits = rest.is_empty() || rest == resource.group || rest == versioned;
                group_fits && resource.is_called(first)
            })
            .ok_or_else(|| anyhow!("the server doesn't have a resource type \"{name}\""))
    }

    /// All resources of a category such as `all`; empty when there is none of that name.
    pub fn category(&self, name: &str) -> Vec<&ResourceType> {
        let mut found: Vec<&ResourceType> = Vec::new();
        for resource in &self.0 {
            let other_version =
                found.iter().any(|f| f.group == resource.group && f.plural == resource.plural);
            if resource.categories.iter().any(|category| category == name) && !other_version {
                found.push(resource);
            }
        }
        found
    }

    /// The resource of a manifest's `apiVersion` and `kind`.
    pub fn of_manifest(&self, api_version: &str, kind: &str) -> Option<&ResourceType> {
        self.0.iter().find(|resource| resource.kind == kind && resource.api_version() == api_version)
    }
}

async fn read<T: DeserializeOwned>(connection: &Connection, path: &str) -> Result<T, RequestError> {
    let value = connection.get(path, JSON).await?;
    serde_json::from_value(value)
        .map_err(|source| RequestError::NotJson { address: connection.address().to_owned(), source })
}

fn types_of(group: &str, version: &str, list: APIResourceList) -> Vec<ResourceType> {
    list.resources
        .into_iter()
        // Subresources (`pods/log`) are reached through their resource.
        .filter(|resource| !resource.name.contains('/'))
        .map(|resource| ResourceType {
            group: resource.group.unwrap_or_else(|| group.to_owned()),
            version: resource.version.unwrap_or_else(|| version.to_owned()),
            singular: match resource.singular_name.as_str() {
                "" => resource.kind.to_ascii_lowercase(),
                singular => singular.to_owned(),
            },
            kind: resource.kind,
            plural: resource.name,
            short_names: resource.short_names.unwrap_or_default(),
            categories: resource.categories.unwrap_or_default(),
            namespaced: resource.namespaced,
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    pub fn catalogue() -> Catalogue {
        let core = json!({"groupVersion": "v1", "resources": [
            {"name": "pods", "singularName": "pod", "namespaced": true, "kind": "Pod", "verbs": [],
             "shortNames": ["po"], "categories": ["all"]},
            {"name": "pods/log", "singularName": "", "namespaced": true, "kind": "Pod", "verbs": []},
            {"name": "events", "singularName": "event", "namespaced": true, "kind": "Event", "verbs": []},
            {"name": "nodes", "singularName": "", "namespaced": false, "kind": "Node", "verbs": []}]});
        let apps = json!({"groupVersion": "apps/v1", "resources": [
            {"name": "deployments", "singularName": "deployment", "namespaced": true, "kind": "Deployment",
             "verbs": [], "shortNames": ["deploy"], "categories": ["all"]}]});
        let events = json!({"groupVersion": "events.k8s.io/v1", "resources": [
            {"name": "events", "singularName": "event", "namespaced": true, "kind": "Event", "verbs": []}]});
        let types = [("", core), ("apps", apps), ("events.k8s.io", events)]
            .into_iter()
            .flat_map(|(group, list)| types_of(group, "v1", serde_json::from_value(list).unwrap()));
        Catalogue(types.collect())
    }

    #[test]
    fn every_name_people_type_finds_the_resource() {
        let all = catalogue();
        for (name, full) in [
            ("po", "pods"),
            ("Pod", "pods"),
            ("node", "nodes"),
            ("deploy", "deployments.apps"),
            ("deployments.apps", "deployments.apps"),
            ("deployment.v1.apps", "deployments.apps"),
            ("events", "events"),
            ("events.events.k8s.io", "events.events.k8s.io"),
        ] {
            assert_eq!(all.find(name).unwrap().full_plural(), full, "{name}");
        }
        assert_eq!(
            all.find("gose").unwrap_err().to_string(),
            "the server doesn't have a resource type \"gose\""
        );
        let of_all: Vec<_> = all.category("all").into_iter().map(ResourceType::full_singular).collect();
        assert_eq!(of_all, ["pod", "deployment.apps"]);
    }

    #[test]
    fn paths_are_those_of_kubernetes() {
        let all = catalogue();
        let deployments = all.find("deploy").unwrap();
        assert_eq!(
            deployments.object_path(Some("lab"), "web"),
            "/apis/apps/v1/namespaces/lab/deployments/web"
        );
        assert_eq!(deployments.collection_path(None), "/apis/apps/v1/deployments");
        assert_eq!(all.find("nodes").unwrap().collection_path(Some("lab")), "/api/v1/nodes");
    }
}
