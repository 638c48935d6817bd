//! `gaggle delete`: take objects away, and wait until they are gone.

use super::Place;
use super::connection::{Connection, JSON, RequestError};
use super::discovery::{Catalogue, ResourceType};
use super::failure::{Tally, Usage};
use super::follow::{follow_one, list};
use super::manifests::{ManifestArgs, resolve};
use super::output::take_items;
use super::target::{NamespaceArgs, Query, parse_duration, parse_targets};
use axum::http::Method;
use clap::ValueEnum;
use serde_json::{Value, json};
use std::ops::ControlFlow;
use std::time::Duration;

/// Take objects away
///
/// Pods get their grace period to end; the command waits until the objects are gone.
#[derive(clap::Args, Debug)]
#[command(verbatim_doc_comment, after_help = EXAMPLES)]
pub struct DeleteArgs {
    /// TYPE NAME..., or TYPE/NAME...
    #[arg(value_name = "TYPE[/NAME] [NAME]", conflicts_with = "files")]
    what: Vec<String>,
    #[command(flatten)]
    manifests: ManifestArgs,
    #[command(flatten)]
    namespace: NamespaceArgs,
    /// All objects with these labels
    #[arg(short = 'l', long)]
    selector: Option<String>,
    /// All objects of the type in the namespace
    #[arg(long, conflicts_with = "selector")]
    all: bool,
    /// What becomes of the objects that these own
    #[arg(long, value_enum, value_name = "HOW", default_value_t = Cascade::Background,
          num_args = 0..=1, default_missing_value = "background", require_equals = true)]
    cascade: Cascade,
    /// Wait until the objects are gone
    #[arg(long, value_name = "BOOL", default_value_t = true, num_args = 0..=1, require_equals = true,
          default_missing_value = "true", action = clap::ArgAction::Set)]
    wait: bool,
    /// How long to wait [default: for ever]
    #[arg(long, value_name = "TIME", value_parser = parse_duration)]
    timeout: Option<Duration>,
    /// Seconds that pods get to end, instead of their own
    #[arg(long, value_name = "SECONDS")]
    grace_period: Option<u32>,
    /// At once, without waiting for the desktop that runs it to confirm
    #[arg(long)]
    force: bool,
    /// Do not fail when an object does not exist
    #[arg(long)]
    ignore_not_found: bool,
}

const EXAMPLES: &str = "\
Examples:
  gaggle delete job/hello
  gaggle delete -f app.yaml
  gaggle delete pods -l app=web --wait=false
  gaggle delete pod stuck --force";

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Cascade {
    /// They go too, after it
    #[value(alias = "true")]
    Background,
    /// They go first
    Foreground,
    /// They stay, without an owner
    #[value(alias = "false")]
    Orphan,
}

impl Cascade {
    fn policy(self) -> &'static str {
        match self {
            Self::Background => "Background",
            Self::Foreground => "Foreground",
            Self::Orphan => "Orphan",
        }
    }
}

/// One object to delete.
struct Doomed {
    resource: ResourceType,
    namespace: Option<String>,
    name: String,
}

impl Doomed {
    fn label(&self) -> String {
        format!("{} \"{}\"", self.resource.full_singular(), self.name)
    }
}

pub async fn run(place: &Place, args: DeleteArgs) -> anyhow::Result<()> {
    let manifests = args.manifests.read()?;
    let connection = Connection::open(place).await?;
    let catalogue = Catalogue::read(&connection).await?;
    let doomed = match args.manifests.is_given() {
        true => resolve(&catalogue, &connection, &args.namespace, manifests)?
            .into_iter()
            .map(|(manifest, resource)| {
                let name = manifest.name()?.to_owned();
                Ok(Doomed { namespace: manifest.namespace(&resource), name, resource })
            })
            .collect::<anyhow::Result<Vec<_>>>()?,
        false => find(&connection, &catalogue, &args).await?,
    };
    if args.force {
        eprintln!("Warning: the containers may still run on a desktop that cannot be reached.");
    }
    let mut tally = Tally::default();
    let mut leaving = Vec::new();
    for object in doomed {
        match delete(&connection, &object, &args).await {
            Err(error) if error.is_not_found() && args.ignore_not_found => {}
            outcome => {
                if let Some(uid) = tally.note(outcome.map_err(Into::into)) {
                    println_deleted(&object, args.force)?;
                    leaving.push((object, uid));
                }
            }
        }
    }
    if args.wait && !args.force {
        let all_gone = async {
            for (object, uid) in &leaving {
                tally.note(wait_until_gone(&connection, object, uid).await);
            }
        };
        match args.timeout {
            None => all_gone.await,
            Some(limit) => tokio::time::timeout(limit, all_gone).await.map_err(|_| {
                anyhow::anyhow!("timed out waiting for the objects to be gone; they still are being deleted")
            })?,
        }
    }
    tally.finish()
}

fn println_deleted(object: &Doomed, forced: bool) -> std::io::Result<()> {
    use std::io::Write;
    let how = if forced { "force deleted" } else { "deleted" };
    writeln!(std::io::stdout(), "{} {how}", object.label())
}

async fn find(
    connection: &Connection,
    catalogue: &Catalogue,
    args: &DeleteArgs,
) -> anyhow::Result<Vec<Doomed>> {
    let targets = parse_targets(catalogue, &args.what)?;
    let namespace = args.namespace.resolve(connection)?;
    let mut doomed = Vec::new();
    for target in targets {
        let namespace = target.resource.namespaced.then(|| namespace.clone());
        let mut names = target.names;
        if names.is_empty() {
            if args.selector.is_none() && !args.all {
                let all = "name the objects, or give -l SELECTOR, or --all for all of the type";
                return Err(Usage(all.into()).into());
            }
            let query = Query::default().with_some("labelSelector", args.selector.as_deref());
            let path = target.resource.collection_path(namespace.as_deref());
            let mut listed = list(connection, &path, &query, JSON).await?;
            let name = |item: Value| Some(item["metadata"]["name"].as_str()?.to_owned());
            names = take_items(&mut listed).into_iter().filter_map(name).collect();
            if names.is_empty() {
                eprintln!("No resources found");
            }
        }
        doomed.extend(names.into_iter().map(|name| Doomed {
            resource: target.resource.clone(),
            namespace: namespace.clone(),
            name,
        }));
    }
    Ok(doomed)
}

/// Asks for the deletion; the uid tells the object from a later one of the same name.
async fn delete(connection: &Connection, object: &Doomed, args: &DeleteArgs) -> Result<String, RequestError> {
    let path = object.resource.object_path(object.namespace.as_deref(), &object.name);
    let uid = match connection.get(&path, JSON).await {
        Ok(live) => live["metadata"]["uid"].as_str().unwrap_or_default().to_owned(),
        Err(error) => return Err(error),
    };
    let mut options = json!({"kind": "DeleteOptions", "apiVersion": "v1",
        "propagationPolicy": args.cascade.policy()});
    if args.force {
        options["gracePeriodSeconds"] = json!(0);
    } else if let Some(seconds) = args.grace_period {
        options["gracePeriodSeconds"] = json!(seconds);
    }
    if !uid.is_empty() {
        options["preconditions"] = json!({"uid": uid});
    }
    connection.write(Method::DELETE, &path, JSON, &options).await?;
    Ok(uid)
}

async fn wait_until_gone(connection: &Connection, object: &Doomed, uid: &str) -> anyhow::Result<()> {
    let collection = object.resource.collection_path(object.namespace.as_deref());
    follow_one(connection, &collection, &object.name, |now| {
        let same = now.is_some_and(|now| now["metadata"]["uid"].as_str() == Some(uid));
        Ok(if same { ControlFlow::Continue(()) } else { ControlFlow::Break(()) })
    })
    .await
}
