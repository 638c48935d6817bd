//! A container's environment and the `$(VAR)` references in its command.

use super::resources::resource_field;
use super::{Context, SpecError, account};
use k8s_openapi::api::core::v1::{ConfigMap, Container, EnvVarSource, Secret};
use std::collections::BTreeMap;

/// Variables in the order in which they were first named; a later one of the same name replaces the value.
#[derive(Default)]
pub struct Environment {
    order: Vec<String>,
    values: BTreeMap<String, String>,
}

impl Environment {
    fn set(&mut self, name: String, value: String) {
        if self.values.insert(name.clone(), value).is_none() {
            self.order.push(name);
        }
    }

    /// `NAME=value`, as an engine takes them.
    pub fn pairs(&self) -> Vec<String> {
        self.order.iter().map(|name| format!("{name}={}", self.values[name])).collect()
    }

    /// Replaces `$(NAME)` by its value and `$$` by `$`; what names no variable stays as it is.
    /// (Kubernetes, "Define Dependent Environment Variables".)
    pub fn expand(&self, text: &str) -> String {
        let mut expanded = String::with_capacity(text.len());
        let mut rest = text;
        while let Some(dollar) = rest.find('$') {
            expanded.push_str(&rest[..dollar]);
            let after = &rest[dollar + 1..];
            let reference = after.strip_prefix('(').and_then(|inner| inner.split_once(')'));
            rest = if let Some(after) = after.strip_prefix('$') {
                expanded.push('$');
                after
            } else if let Some((name, after)) = reference {
                match self.values.get(name) {
                    Some(value) => expanded.push_str(value),
                    None => expanded.push_str(&format!("$({name})")),
                }
                after
            } else {
                expanded.push('$');
                after
            };
        }
        expanded.push_str(rest);
        expanded
    }
}

pub fn environment(context: &Context, container: &Container) -> Result<Environment, SpecError> {
    let mut environment = Environment::default();
    for (name, value) in account::variables(context) {
        environment.set(name, value);
    }
    for from in container.env_from.iter().flatten() {
        let prefix = from.prefix.as_deref().unwrap_or_default();
        let mut data = BTreeMap::new();
        if let Some(source) = &from.config_map_ref
            && let Some(map) = config_map(context, &source.name, source.optional)?
        {
            data.extend(map.data.clone().unwrap_or_default());
        }
        if let Some(source) = &from.secret_ref
            && let Some(secret) = secret(context, &source.name, source.optional)?
        {
            let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
            data.extend(secret.data.iter().flatten().map(|(key, bytes)| (key.clone(), text(&bytes.0))));
        }
        for (key, value) in data {
            environment.set(format!("{prefix}{key}"), value);
        }
    }
    for var in container.env.iter().flatten() {
        let value = match (&var.value, &var.value_from) {
            (_, Some(source)) => match from_source(context, container, source)? {
                Some(value) => value,
                None => continue,
            },
            (value, None) => environment.expand(value.as_deref().unwrap_or_default()),
        };
        environment.set(var.name.clone(), value);
    }
    Ok(environment)
}

/// `None`: an optional reference to what is not there.
fn from_source(
    context: &Context,
    container: &Container,
    source: &EnvVarSource,
) -> Result<Option<String>, SpecError> {
    if let Some(field) = &source.field_ref {
        return field_value(context, &field.field_path).map(Some);
    }
    if let Some(field) = &source.resource_field_ref {
        return resource_field(context, container, field).map(Some);
    }
    if let Some(reference) = &source.config_map_key_ref {
        let map = config_map(context, &reference.name, reference.optional)?;
        let value = map.and_then(|map| map.data.as_ref()?.get(&reference.key).cloned());
        return present(context, "ConfigMap", &reference.name, &reference.key, reference.optional, value);
    }
    if let Some(reference) = &source.secret_key_ref {
        let secret = secret(context, &reference.name, reference.optional)?;
        let value = secret.and_then(|secret| Some(secret.data.as_ref()?.get(&reference.key)?.0.clone()));
        let value = value.map(|bytes| String::from_utf8_lossy(&bytes).into_owned());
        return present(context, "Secret", &reference.name, &reference.key, reference.optional, value);
    }
    Err(SpecError::Invalid("an environment variable has a valueFrom with no source".to_owned()))
}

fn present(
    context: &Context,
    kind: &'static str,
    name: &str,
    key: &str,
    optional: Option<bool>,
    value: Option<String>,
) -> Result<Option<String>, SpecError> {
    if value.is_none() && optional != Some(true) {
        let namespace = context.namespace().to_owned();
        return Err(SpecError::MissingKey { kind, namespace, name: name.to_owned(), key: key.to_owned() });
    }
    Ok(value)
}

pub fn config_map(
    context: &Context,
    name: &str,
    optional: Option<bool>,
) -> Result<Option<std::sync::Arc<ConfigMap>>, SpecError> {
    let found = context.store.get_as::<ConfigMap>(context.namespace(), name);
    if found.is_none() && optional != Some(true) {
        return Err(SpecError::Missing { kind: "configmap", name: name.to_owned() });
    }
    Ok(found)
}

pub fn secret(
    context: &Context,
    name: &str,
    optional: Option<bool>,
) -> Result<Option<std::sync::Arc<Secret>>, SpecError> {
    let found = context.store.get_as::<Secret>(context.namespace(), name);
    if found.is_none() && optional != Some(true) {
        return Err(SpecError::Missing { kind: "secret", name: name.to_owned() });
    }
    Ok(found)
}

/// A field of the pod as the downward API names it.
pub fn field_value(context: &Context, path: &str) -> Result<String, SpecError> {
    let metadata = &context.pod.metadata;
    let subscript = |field: &str| {
        let key = path.strip_prefix(field)?.strip_prefix("['")?.strip_suffix("']")?;
        Some(key.to_owned())
    };
    if let Some(key) = subscript("metadata.labels") {
        return Ok(metadata.labels.as_ref().and_then(|labels| labels.get(&key)).cloned().unwrap_or_default());
    }
    if let Some(key) = subscript("metadata.annotations") {
        let annotations = metadata.annotations.as_ref();
        return Ok(annotations.and_then(|annotations| annotations.get(&key)).cloned().unwrap_or_default());
    }
    Ok(match path {
        "metadata.name" => metadata.name.clone().unwrap_or_default(),
        "metadata.namespace" => context.namespace().to_owned(),
        "metadata.uid" => metadata.uid.clone().unwrap_or_default(),
        "metadata.labels" => all_pairs(metadata.labels.as_ref()),
        "metadata.annotations" => all_pairs(metadata.annotations.as_ref()),
        "spec.nodeName" => context.owner.node.clone(),
        "spec.serviceAccountName" => account::account_name(context.pod).to_owned(),
        "status.hostIP" => context.desktop.host_ips.first().cloned().unwrap_or_default(),
        "status.hostIPs" => context.desktop.host_ips.join(","),
        "status.podIP" => context.pod_ips.first().cloned().unwrap_or_default(),
        "status.podIPs" => context.pod_ips.join(","),
        other => return Err(SpecError::Invalid(format!("unsupported fieldPath: {other}"))),
    })
}

/// One `key="value"` a line, quoted as Kubernetes' downward API volumes do.
fn all_pairs(pairs: Option<&BTreeMap<String, String>>) -> String {
    let lines: Vec<_> = pairs.into_iter().flatten().map(|(key, value)| format!("{key}={value:?}")).collect();
    lines.join("\n")
}
