//! `gaggle describe`: one object in readable sections, with what has happened to it at the end.

mod age;
mod events;
mod generic;
mod job;
mod node;
mod page;
mod pod;
mod workload;

use super::Place;
use super::connection::{Connection, JSON};
use super::discovery::{Catalogue, ResourceType};
use super::failure::{Tally, Usage};
use super::follow::list;
use super::output::take_items;
use super::target::{NamespaceArgs, Query, parse_targets};
use k8s_openapi::jiff::Timestamp;
use page::Page;
use serde_json::Value;
use std::io::Write;

/// Show an object in full, with its events
///
/// For a Pending pod, the events and the condition PodScheduled say what it waits for.
#[derive(clap::Args, Debug)]
#[command(verbatim_doc_comment, after_help = EXAMPLES)]
pub struct DescribeArgs {
    /// TYPE, TYPE NAME..., or TYPE/NAME...
    #[arg(required = true, value_name = "TYPE[/NAME] [NAME]")]
    what: Vec<String>,
    #[command(flatten)]
    namespace: NamespaceArgs,
    /// All objects with these labels
    #[arg(short = 'l', long)]
    selector: Option<String>,
}

const EXAMPLES: &str = "\
Examples:
  gaggle describe pod web-7d4b9
  gaggle describe node pc3
  gaggle describe job/skim";

pub async fn run(place: &Place, args: DescribeArgs) -> anyhow::Result<()> {
    let connection = Connection::open(place).await?;
    let catalogue = Catalogue::read(&connection).await?;
    let targets = parse_targets(&catalogue, &args.what)?;
    let namespace = args.namespace.resolve(&connection)?;
    if args.selector.is_some() && targets.iter().any(|target| !target.names.is_empty()) {
        return Err(Usage("a name and a selector together: give one of them".into()).into());
    }
    let reader = Reader { connection, namespace };
    let mut tally = Tally::default();
    let mut shown = 0;
    for target in &targets {
        for object in reader.objects(target, args.selector.as_deref(), &mut tally).await {
            let page = reader.page(&target.resource, &object, Timestamp::now()).await;
            let mut out = std::io::stdout().lock();
            if shown > 0 {
                writeln!(out, "\n")?;
            }
            page.print(&mut out)?;
            out.flush()?;
            shown += 1;
        }
    }
    let result = tally.finish();
    if shown == 0 && result.is_ok() {
        eprintln!("No resources found");
    }
    result
}

struct Reader {
    connection: Connection,
    namespace: String,
}

impl Reader {
    async fn objects(
        &self,
        target: &super::target::Target,
        selector: Option<&str>,
        tally: &mut Tally,
    ) -> Vec<Value> {
        let mut objects = Vec::new();
        if target.names.is_empty() {
            let query = Query::default().with_some("labelSelector", selector);
            let path = target.resource.collection_path(Some(&self.namespace));
            let listed = list(&self.connection, &path, &query, JSON).await;
            let mut listed = tally.note(listed.map_err(Into::into)).unwrap_or_default();
            return take_items(&mut listed);
        }
        for name in &target.names {
            let path = target.resource.object_path(Some(&self.namespace), name);
            objects.extend(tally.note(self.connection.get(&path, JSON).await.map_err(Into::into)));
        }
        objects
    }

    async fn page(&self, resource: &ResourceType, object: &Value, now: Timestamp) -> Page {
        let mut page = Page::default();
        let core = resource.group.is_empty();
        match resource.kind.as_str() {
            "Pod" if core => pod::describe(&mut page, object),
            "Node" if core => {
                let on_it = format!("spec.nodeName={}", name_of(object));
                let pods = self.related("/api/v1/pods", Query::default().with("fieldSelector", on_it)).await;
                node::describe(&mut page, object, &pods, now);
            }
            "Deployment" if resource.group == "apps" => {
                let path = format!("/apis/apps/v1/namespaces/{}/replicasets", self.namespace);
                let owned = self.selected(&path, object).await;
                workload::describe_deployment(&mut page, object, &owned);
            }
            "ReplicaSet" if resource.group == "apps" => {
                let path = format!("/api/v1/namespaces/{}/pods", self.namespace);
                let owned = self.selected(&path, object).await;
                workload::describe_replica_set(&mut page, object, &owned);
            }
            "Job" if resource.group == "batch" => job::describe(&mut page, object, now),
            _ => generic::describe(&mut page, object),
        }
        if resource.kind != "Event" {
            let path = if resource.namespaced {
                format!("/api/v1/namespaces/{}/events", self.namespace)
            } else {
                "/api/v1/events".to_owned()
            };
            let about =
                format!("involvedObject.kind={},involvedObject.name={}", resource.kind, name_of(object));
            let found = self.related(&path, Query::default().with("fieldSelector", about)).await;
            events::add(&mut page, object, found, now);
        }
        page
    }

    /// Things that belong to an object. They are additions: when they cannot be had, the rest is still shown.
    async fn related(&self, path: &str, query: Query) -> Vec<Value> {
        match list(&self.connection, path, &query, JSON).await {
            Ok(mut listed) => take_items(&mut listed),
            Err(error) => {
                eprintln!("Warning: {path} could not be read: {error}");
                Vec::new()
            }
        }
    }

    /// What an object selects and owns.
    async fn selected(&self, path: &str, owner: &Value) -> Vec<Value> {
        let Some(selector) = super::logs::selector_of(owner) else { return Vec::new() };
        let mut found = self.related(path, Query::default().with("labelSelector", selector)).await;
        found.retain(|object| {
            let owners = object["metadata"]["ownerReferences"].as_array();
            owners.is_some_and(|owners| owners.iter().any(|it| it["uid"] == owner["metadata"]["uid"]))
        });
        found
    }
}

fn name_of(object: &Value) -> &str {
    object["metadata"]["name"].as_str().unwrap_or_default()
}

#[cfg(test)]
mod tests;
