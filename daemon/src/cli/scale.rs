//! `gaggle scale`: how many pods a Deployment or ReplicaSet keeps.

use super::Place;
use super::connection::{Connection, FIELD_MANAGER, JSON};
use super::discovery::Catalogue;
use super::failure::{Tally, Usage};
use super::target::{NamespaceArgs, Query, parse_targets};
use anyhow::ensure;
use axum::http::Method;
use serde_json::json;
use std::io::Write;

/// Set how many pods something keeps
#[derive(clap::Args, Debug)]
#[command(after_help = "Example:\n  gaggle scale deploy/web --replicas 5")]
pub struct ScaleArgs {
    /// TYPE/NAME..., or TYPE NAME...
    #[arg(required = true, value_name = "TYPE/NAME")]
    what: Vec<String>,
    /// How many pods to keep
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(i32).range(0..))]
    replicas: i32,
    /// Only if it keeps this many now
    #[arg(long, value_name = "N")]
    current_replicas: Option<i64>,
    #[command(flatten)]
    namespace: NamespaceArgs,
}

pub async fn run(place: &Place, args: ScaleArgs) -> anyhow::Result<()> {
    let connection = Connection::open(place).await?;
    let catalogue = Catalogue::read(&connection).await?;
    let targets = parse_targets(&catalogue, &args.what)?;
    let namespace = args.namespace.resolve(&connection)?;
    if targets.iter().any(|target| target.names.is_empty()) {
        return Err(Usage("name what to scale: TYPE/NAME".into()).into());
    }
    let mut tally = Tally::default();
    for target in &targets {
        for name in &target.names {
            let path = target.resource.object_path(Some(&namespace), name);
            let scaled = async {
                let mut patch = json!({"spec": {"replicas": args.replicas}});
                if let Some(expected) = args.current_replicas {
                    let now = connection.get(&format!("{path}/scale"), JSON).await?;
                    let current = now["spec"]["replicas"].as_i64().unwrap_or(0);
                    ensure!(current == expected, "{name} keeps {current} pods, not {expected}: not scaled");
                    // Nobody else may have scaled in between.
                    patch["metadata"] = json!({"resourceVersion": now["metadata"]["resourceVersion"]});
                }
                let query = Query::default().with("fieldManager", FIELD_MANAGER);
                let scale = query.on(&format!("{path}/scale"));
                connection.write(Method::PATCH, &scale, "application/merge-patch+json", &patch).await?;
                writeln!(std::io::stdout(), "{}/{name} scaled", target.resource.full_singular())?;
                Ok(())
            };
            tally.note(scaled.await);
        }
    }
    tally.finish()
}
