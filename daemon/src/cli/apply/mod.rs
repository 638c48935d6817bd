//! `gaggle apply`: make the cluster's objects what the manifests say.
//!
//! What was applied before is kept in the same annotation as kubectl keeps it, so that the two may take turns.

mod patch;

use super::Place;
use super::connection::{Connection, FIELD_MANAGER, JSON};
use super::discovery::{Catalogue, ResourceType};
use super::failure::{Tally, Usage};
use super::manifests::{Manifest, ManifestArgs, resolve};
use super::output::{OutputFormat, write_object};
use super::target::{NamespaceArgs, Query};
use crate::api::schema;
use anyhow::{Context, ensure};
use axum::http::Method;
use patch::three_way;
use serde_json::{Value, json};
use std::io::Write;

/// Make objects what manifests say: create what is missing, change what differs
///
/// Nothing is changed when any of the manifests cannot be read. Applying the same again changes nothing.
#[derive(clap::Args, Debug)]
#[command(verbatim_doc_comment, after_help = EXAMPLES)]
pub struct ApplyArgs {
    #[command(flatten)]
    manifests: ManifestArgs,
    #[command(flatten)]
    namespace: NamespaceArgs,
    /// Let the API check everything, and change nothing
    #[arg(long, value_name = "WHERE", value_parser = ["server", "none"], default_value = "none")]
    dry_run: String,
    /// json, yaml or name: show the objects as they became
    #[arg(short, long, value_name = "FORMAT")]
    output: Option<OutputFormat>,
}

const EXAMPLES: &str = "\
Examples:
  gaggle apply -f app.yaml
  gaggle apply -f manifests/ -R -n lab
  sed s/VERSION/2/ app.yaml | gaggle apply -f -";

const LAST_APPLIED: &str = "kubectl.kubernetes.io/last-applied-configuration";
/// What Kubernetes allows all annotations of an object together.
const MAX_ANNOTATION_BYTES: usize = 256 << 10;
/// Somebody else may change the object between reading and patching it; then its new state counts.
const MAX_ATTEMPTS: usize = 5;

pub async fn run(place: &Place, args: ApplyArgs) -> anyhow::Result<()> {
    if !args.manifests.is_given() {
        return Err(Usage("say what to apply: gaggle apply -f FILE".into()).into());
    }
    let manifests = args.manifests.read()?;
    let connection = Connection::open(place).await?;
    let catalogue = Catalogue::read(&connection).await?;
    let resolved = resolve(&catalogue, &connection, &args.namespace, manifests)?;
    let mut tally = Tally::default();
    for (manifest, resource) in resolved {
        let applied = apply_one(&connection, &manifest, &resource, &args).await;
        if let Some((outcome, object)) = tally.note(applied) {
            print_outcome(&manifest, &resource, &args, outcome, &object)?;
        }
    }
    tally.finish()
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Outcome {
    Created,
    Configured,
    Unchanged,
}

fn print_outcome(
    manifest: &Manifest,
    resource: &ResourceType,
    args: &ApplyArgs,
    outcome: Outcome,
    object: &Value,
) -> anyhow::Result<()> {
    let mut out = std::io::stdout().lock();
    let label = format!("{}/{}", resource.full_singular(), manifest.name()?);
    let dry = if args.dry_run == "server" { " (server dry run)" } else { "" };
    let outcome = match outcome {
        Outcome::Created => "created",
        Outcome::Configured => "configured",
        Outcome::Unchanged => "unchanged",
    };
    match &args.output {
        None | Some(OutputFormat::Wide) => writeln!(out, "{label} {outcome}{dry}")?,
        Some(OutputFormat::Name) => writeln!(out, "{label}")?,
        Some(format) => {
            if let OutputFormat::Yaml = format {
                writeln!(out, "---")?;
            }
            write_object(&mut out, object, format)?;
        }
    }
    Ok(())
}

async fn apply_one(
    connection: &Connection,
    manifest: &Manifest,
    resource: &ResourceType,
    args: &ApplyArgs,
) -> anyhow::Result<(Outcome, Value)> {
    let namespace = manifest.namespace(resource);
    let path = resource.object_path(namespace.as_deref(), manifest.name()?);
    let collection = resource.collection_path(namespace.as_deref());
    let modified = with_last_applied(&manifest.object)
        .with_context(|| format!("{}: cannot be applied", manifest.source))?;
    let query = Query::default()
        .with("fieldManager", FIELD_MANAGER)
        .with("fieldValidation", "Strict")
        .with_some("dryRun", (args.dry_run == "server").then_some("All"));
    let mut attempt = 1;
    loop {
        let outcome = match connection.get(&path, JSON).await {
            Ok(live) => {
                let Some((kind, patch)) = difference(&modified, &live, resource) else {
                    return Ok((Outcome::Unchanged, live));
                };
                let changed = connection.write(Method::PATCH, &query.on(&path), kind, &patch).await;
                changed.map(|object| {
                    let version = |of: &Value| of["metadata"]["resourceVersion"].clone();
                    // `cpu: 1` and the "1" that it became differ in writing only.
                    let same = version(&object) == version(&live) && args.dry_run != "server";
                    (if same { Outcome::Unchanged } else { Outcome::Configured }, object)
                })
            }
            Err(error) if error.is_not_found() => connection
                .write(Method::POST, &query.on(&collection), JSON, &modified)
                .await
                .map(|object| (Outcome::Created, object)),
            Err(error) => Err(error),
        };
        let raced = |reason| matches!(reason, "Conflict" | "AlreadyExists");
        match outcome {
            Err(error) if raced(error.reason()) && attempt < MAX_ATTEMPTS => attempt += 1,
            outcome => return outcome.with_refusal_of(manifest),
        }
    }
}

/// The file that a refusal is about, without hiding the refusal from those who look at it.
trait WithSource<T> {
    fn with_refusal_of(self, manifest: &Manifest) -> anyhow::Result<T>;
}

impl<T> WithSource<T> for Result<T, super::connection::RequestError> {
    fn with_refusal_of(self, manifest: &Manifest) -> anyhow::Result<T> {
        self.map_err(|error| {
            let refused = !error.reason().is_empty();
            let error = anyhow::Error::new(error);
            if refused { error } else { error.context(manifest.source.clone()) }
        })
    }
}

/// The manifest with itself in the annotation, as kubectl writes it.
fn with_last_applied(object: &Value) -> anyhow::Result<Value> {
    let mut plain = object.clone();
    let metadata = plain["metadata"].as_object_mut().context("metadata is missing")?;
    let annotations = metadata.entry("annotations").or_insert_with(|| json!({}));
    if annotations.is_null() {
        *annotations = json!({});
    }
    let annotations = annotations.as_object_mut().context("metadata.annotations is not a mapping")?;
    annotations.remove(LAST_APPLIED);
    let text = format!("{plain}\n");
    ensure!(
        text.len() <= MAX_ANNOTATION_BYTES,
        "it has {} bytes, more than the {MAX_ANNOTATION_BYTES} that can be remembered with it; use \
         kubectl apply --server-side, or kubectl create",
        text.len()
    );
    plain["metadata"]["annotations"][LAST_APPLIED] = Value::String(text);
    Ok(plain)
}

/// The patch from what is to what should be, and its content type; `None` when there is nothing to change.
fn difference(modified: &Value, live: &Value, resource: &ResourceType) -> Option<(&'static str, Value)> {
    let last = live["metadata"]["annotations"][LAST_APPLIED].as_str();
    let last = last.and_then(|text| serde_json::from_str(text).ok()).unwrap_or(Value::Null);
    // Of kinds that are not known here nobody could say which lists are keyed, nor can the server.
    let of = schema::of(&resource.group, &resource.version, &resource.kind);
    let media = match of {
        Some(_) => "application/strategic-merge-patch+json",
        None => "application/merge-patch+json",
    };
    three_way(&last, modified, live, of).map(|patch| (media, patch))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_applied_is_remembered_as_kubectl_does() {
        let object =
            json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "a"}, "data": {"k": "v"}});
        let annotated = with_last_applied(&object).unwrap();
        let text = annotated["metadata"]["annotations"][LAST_APPLIED].as_str().unwrap();
        assert_eq!(
            text,
            "{\"apiVersion\":\"v1\",\"data\":{\"k\":\"v\"},\"kind\":\"ConfigMap\",\
             \"metadata\":{\"annotations\":{},\"name\":\"a\"}}\n"
        );
        assert_eq!(with_last_applied(&annotated).unwrap(), annotated, "the annotation contains itself");
        let big = json!({"metadata": {"name": "a"}, "data": {"k": "v".repeat(300_000)}});
        assert!(with_last_applied(&big).unwrap_err().to_string().contains("--server-side"));
    }
}
