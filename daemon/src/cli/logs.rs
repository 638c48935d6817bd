//! `gaggle logs`: what a container has written, from whichever desktop it runs on.

use super::Place;
use super::connection::{Connection, JSON};
use super::discovery::{Catalogue, ResourceType};
use super::failure::Usage;
use super::follow::list;
use super::output::take_items;
use super::target::{NamespaceArgs, Query, check_name, parse_duration, parse_single};
use anyhow::{Context, bail};
use axum::http::Method;
use futures::StreamExt;
use serde_json::Value;
use std::io::Write;
use std::time::Duration;

/// Show what a pod has written
///
/// For a Deployment, ReplicaSet or Job, one of its pods is taken.
#[derive(clap::Args, Debug)]
#[command(verbatim_doc_comment, after_help = EXAMPLES)]
pub struct LogsArgs {
    /// POD, or TYPE/NAME
    #[arg(value_name = "POD|TYPE/NAME")]
    what: String,
    /// The container [default: the only one, or the pod's default]
    #[arg(short, long, value_name = "NAME")]
    container: Option<String>,
    /// Go on showing what it writes
    #[arg(short, long)]
    follow: bool,
    /// Only the last N lines (-1: all)
    #[arg(long, value_name = "N", default_value_t = -1, allow_negative_numbers = true)]
    tail: i64,
    /// Of the container's last run before this one
    #[arg(short, long)]
    previous: bool,
    /// Put the time before each line
    #[arg(long)]
    timestamps: bool,
    /// Only lines newer than this (30s, 5m, 1h)
    #[arg(long, value_name = "TIME", value_parser = parse_duration)]
    since: Option<Duration>,
    /// At most so many bytes
    #[arg(long, value_name = "N")]
    limit_bytes: Option<u64>,
    #[command(flatten)]
    namespace: NamespaceArgs,
}

const EXAMPLES: &str = "\
Examples:
  gaggle logs web-7d4b9 --tail 20
  gaggle logs -f job/skim
  gaggle logs web-7d4b9 -c sidecar --previous";

pub async fn run(place: &Place, args: LogsArgs) -> anyhow::Result<()> {
    let connection = Connection::open(place).await?;
    let namespace = args.namespace.resolve(&connection)?;
    let pod = choose_pod(&connection, &namespace, &args.what).await?;
    let container = match &args.container {
        Some(name) => {
            check_name(name)?;
            Some(name.clone())
        }
        None => default_container(&pod),
    };
    let flag = |given: bool| given.then_some("true");
    let query = Query::default()
        .with_some("container", container)
        .with_some("follow", flag(args.follow))
        .with_some("previous", flag(args.previous))
        .with_some("timestamps", flag(args.timestamps))
        .with_some("tailLines", (args.tail >= 0).then(|| args.tail.to_string()))
        .with_some("sinceSeconds", args.since.map(|since| since.as_secs().max(1).to_string()))
        .with_some("limitBytes", args.limit_bytes.map(|limit| limit.to_string()));
    let name = pod["metadata"]["name"].as_str().context("the API answered with a pod without a name")?;
    let path = format!("/api/v1/namespaces/{namespace}/pods/{name}/log");
    let mut pieces = connection.stream(Method::GET, &query.on(&path), "*/*").await?;
    let mut out = std::io::stdout().lock();
    while let Some(piece) = pieces.next().await {
        let piece = piece.map_err(|error| anyhow::anyhow!("the log of {name} broke off: {error}"))?;
        out.write_all(&piece)?;
        out.flush()?;
    }
    Ok(())
}

/// The pod that is meant, or the most telling one of what is meant.
pub async fn choose_pod(connection: &Connection, namespace: &str, what: &str) -> anyhow::Result<Value> {
    if !what.contains('/') {
        check_name(what)?;
        return Ok(connection.get(&format!("/api/v1/namespaces/{namespace}/pods/{what}"), JSON).await?);
    }
    let catalogue = Catalogue::read(connection).await?;
    let (resource, name) = parse_single(&catalogue, &[what.to_owned()])?;
    let owner = connection.get(&resource.object_path(Some(namespace), &name), JSON).await?;
    if resource.kind == "Pod" {
        return Ok(owner);
    }
    let selector = selector_of(&owner).with_context(|| no_pods_of(&resource, &name))?;
    let query = Query::default().with("labelSelector", selector);
    let mut listed = list(connection, &format!("/api/v1/namespaces/{namespace}/pods"), &query, JSON).await?;
    let mut pods = take_items(&mut listed);
    pods.sort_by_key(telling);
    let found = pods.len();
    let Some(pod) = pods.into_iter().next() else {
        bail!("{} has no pods yet: gaggle describe {what}", resource.full_singular() + "/" + &name);
    };
    if found > 1 {
        eprintln!("Found {found} pods, using pod/{}", pod["metadata"]["name"].as_str().unwrap_or_default());
    }
    Ok(pod)
}

/// What runs has most to say, then what ended; the order is by name among equals, so that it stays the same.
fn telling(pod: &Value) -> (u8, String) {
    let rank = match pod["status"]["phase"].as_str() {
        Some("Running") => 0,
        Some("Failed" | "Succeeded") => 1,
        _ => 2,
    };
    (rank, pod["metadata"]["name"].as_str().unwrap_or_default().to_owned())
}

fn no_pods_of(resource: &ResourceType, name: &str) -> Usage {
    Usage(format!("{}/{name} does not select pods: name a pod", resource.full_singular()))
}

/// The label selector by which a controller knows its pods, in the text form of the API.
pub fn selector_of(owner: &Value) -> Option<String> {
    let selector = owner["spec"]["selector"].as_object()?;
    let pairs = |labels: &serde_json::Map<String, Value>| {
        labels
            .iter()
            .map(|(key, value)| format!("{key}={}", value.as_str().unwrap_or_default()))
            .collect::<Vec<_>>()
    };
    let structured = selector.contains_key("matchLabels") || selector.contains_key("matchExpressions");
    if !structured {
        return Some(pairs(selector).join(",")).filter(|text| !text.is_empty());
    }
    let mut terms = selector.get("matchLabels").and_then(Value::as_object).map(pairs).unwrap_or_default();
    for expression in selector.get("matchExpressions").and_then(Value::as_array).into_iter().flatten() {
        let key = expression["key"].as_str()?;
        let values: Vec<&str> =
            expression["values"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
        terms.push(match expression["operator"].as_str()? {
            "In" => format!("{key} in ({})", values.join(",")),
            "NotIn" => format!("{key} notin ({})", values.join(",")),
            "Exists" => key.to_owned(),
            "DoesNotExist" => format!("!{key}"),
            _ => return None,
        });
    }
    Some(terms.join(",")).filter(|text| !text.is_empty())
}

/// The container that a pod itself names as its default; with none, the API decides.
pub fn default_container(pod: &Value) -> Option<String> {
    let named = pod["metadata"]["annotations"]["kubectl.kubernetes.io/default-container"].as_str()?;
    let containers = pod["spec"]["containers"].as_array()?;
    containers.iter().any(|container| container["name"] == named).then(|| named.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn selectors_of_controllers_become_query_text() {
        let job = json!({"spec": {"selector": {"matchLabels": {"a": "b"}, "matchExpressions": [
            {"key": "c", "operator": "In", "values": ["d", "e"]}, {"key": "f", "operator": "DoesNotExist"}]}}});
        assert_eq!(selector_of(&job).unwrap(), "a=b,c in (d,e),!f");
        assert_eq!(selector_of(&json!({"spec": {"selector": {"app": "web"}}})).unwrap(), "app=web");
        // An empty selector would mean every pod of the namespace.
        assert_eq!(selector_of(&json!({"spec": {"selector": {"matchLabels": {}}}})), None);
        assert_eq!(selector_of(&json!({"data": {}})), None);
    }

    #[test]
    fn a_running_pod_is_preferred() {
        let pod = |name: &str, phase: &str| json!({"metadata": {"name": name}, "status": {"phase": phase}});
        let mut pods = [pod("c", "Pending"), pod("b", "Failed"), pod("z", "Running"), pod("a", "Running")];
        pods.sort_by_key(telling);
        assert_eq!(pods[0]["metadata"]["name"], "a");
        assert_eq!(pods[3]["metadata"]["name"], "c");
    }
}
