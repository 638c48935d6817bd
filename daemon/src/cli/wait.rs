//! `gaggle wait`: until objects are as a script needs them.

use super::Place;
use super::connection::{Connection, JSON, RequestError};
use super::discovery::{Catalogue, ResourceType};
use super::failure::{Tally, Usage};
use super::follow::{follow_one, list};
use super::output::take_items;
use super::table::text;
use super::target::{NamespaceArgs, Query, parse_duration, parse_targets};
use crate::jsonpath::JsonPath;
use kube::core::Status;
use serde_json::Value;
use std::io::Write;
use std::ops::ControlFlow;
use std::str::FromStr;
use std::time::Duration;
use tokio::time::Instant;

/// Wait until objects are in a state
///
/// Exit code 0 when all are, 1 when the time is over first.
#[derive(clap::Args, Debug)]
#[command(verbatim_doc_comment, after_help = EXAMPLES)]
pub struct WaitArgs {
    /// TYPE/NAME..., or TYPE NAME...
    #[arg(required = true, value_name = "TYPE[/NAME] [NAME]")]
    what: Vec<String>,
    /// condition=NAME[=VALUE], delete, create, or jsonpath={PATH}[=VALUE]
    #[arg(long = "for", value_name = "STATE")]
    state: Goal,
    /// How long to wait for all of them together
    #[arg(long, value_name = "TIME", default_value = "30s", value_parser = parse_duration)]
    timeout: Duration,
    #[command(flatten)]
    namespace: NamespaceArgs,
    /// All objects with these labels
    #[arg(short = 'l', long)]
    selector: Option<String>,
    /// All objects of the type in the namespace
    #[arg(long, conflicts_with = "selector")]
    all: bool,
}

const EXAMPLES: &str = "\
Examples:
  gaggle wait job/skim --for=condition=Complete --timeout=10m
  gaggle wait deploy/web --for=condition=Available
  gaggle wait pod -l app=web --for=condition=Ready
  gaggle wait pod/x --for=jsonpath='{.status.phase}'=Succeeded
  gaggle wait pod/x --for=delete";

/// What an object is waited for to become.
#[derive(Clone, Debug, PartialEq)]
enum Goal {
    Condition { name: String, value: String },
    Path { path: JsonPath, value: Option<String> },
    Deleted,
    Created,
}

impl FromStr for Goal {
    type Err = String;

    fn from_str(given: &str) -> Result<Self, String> {
        match given.split_once('=') {
            None if given == "delete" => Ok(Self::Deleted),
            None if given == "create" => Ok(Self::Created),
            Some(("condition", condition)) if !condition.is_empty() => {
                let (name, value) = condition.split_once('=').unwrap_or((condition, "True"));
                Ok(Self::Condition { name: name.to_owned(), value: value.to_owned() })
            }
            Some(("jsonpath", rest)) => {
                // A path may contain '=' itself, inside its braces.
                let end = rest.rfind('}').map_or(rest.len(), |brace| brace + 1);
                let (path, value) = rest.split_at(end);
                let value = match value.strip_prefix('=') {
                    Some(value) => Some(value.to_owned()),
                    None if value.is_empty() => None,
                    None => return Err("write jsonpath={.status.phase}=Running".to_owned()),
                };
                let path = JsonPath::parse(path).map_err(|error| format!("{error:#}"))?;
                Ok(Self::Path { path, value })
            }
            _ => Err("write condition=NAME, delete, create, or jsonpath={.path}=VALUE".to_owned()),
        }
    }
}

impl Goal {
    /// Whether the object, or its absence, is what is waited for.
    fn reached(&self, object: Option<&Value>) -> bool {
        match (self, object) {
            (Self::Deleted, object) => object.is_none(),
            (_, None) => false,
            (Self::Created, Some(_)) => true,
            (Self::Condition { name, value }, Some(object)) => {
                let conditions = object["status"]["conditions"].as_array();
                // A condition of an older generation speaks of the object before it was changed.
                let generation = object["metadata"]["generation"].as_i64();
                let observed = object["status"]["observedGeneration"].as_i64();
                let stale = generation.zip(observed).is_some_and(|(is, seen)| seen < is);
                let fits = |condition: &Value| {
                    text(&condition["type"]).eq_ignore_ascii_case(name)
                        && text(&condition["status"]).eq_ignore_ascii_case(value)
                };
                !stale && conditions.is_some_and(|conditions| conditions.iter().any(fits))
            }
            (Self::Path { path, value }, Some(object)) => {
                let found = path.find(object);
                match value {
                    Some(value) => found.iter().any(|part| text(part) == *value),
                    None => found.iter().any(|part| !text(part).is_empty()),
                }
            }
        }
    }
}

struct Awaited {
    resource: ResourceType,
    name: String,
}

pub async fn run(place: &Place, args: WaitArgs) -> anyhow::Result<()> {
    let deadline = Instant::now() + args.timeout;
    let connection = Connection::open(place).await?;
    let catalogue = Catalogue::read(&connection).await?;
    let namespace = args.namespace.resolve(&connection)?;
    let awaited = find(&connection, &catalogue, &namespace, &args).await?;
    if awaited.is_empty() {
        // What is not there needs no waiting for to be gone.
        anyhow::ensure!(args.state == Goal::Deleted, "no matching resources found");
        return Ok(());
    }
    let mut tally = Tally::default();
    for Awaited { resource, name } in &awaited {
        let collection = resource.collection_path(Some(&namespace));
        let waiting = follow_one(&connection, &collection, name, |object| {
            if args.state.reached(object) {
                return Ok(ControlFlow::Break(()));
            }
            match (object, &args.state) {
                (None, Goal::Condition { .. } | Goal::Path { .. }) => Err(not_found(resource, name)),
                _ => Ok(ControlFlow::Continue(())),
            }
        });
        let outcome = match tokio::time::timeout_at(deadline, waiting).await {
            Ok(Ok(())) => writeln!(std::io::stdout(), "{}/{name} condition met", resource.full_singular())
                .map_err(Into::into),
            Ok(Err(error)) => Err(error),
            Err(_) => Err(anyhow::anyhow!(
                "timed out waiting for the condition on {}/{name}",
                resource.full_plural()
            )),
        };
        tally.note(outcome);
    }
    tally.finish()
}

async fn find(
    connection: &Connection,
    catalogue: &Catalogue,
    namespace: &str,
    args: &WaitArgs,
) -> anyhow::Result<Vec<Awaited>> {
    let mut awaited = Vec::new();
    for target in parse_targets(catalogue, &args.what)? {
        let mut names = target.names;
        if names.is_empty() {
            if args.selector.is_none() && !args.all {
                let all = "name what to wait for, or give -l SELECTOR, or --all for all of the type";
                return Err(Usage(all.into()).into());
            }
            let query = Query::default().with_some("labelSelector", args.selector.as_deref());
            let path = target.resource.collection_path(Some(namespace));
            let mut listed = list(connection, &path, &query, JSON).await?;
            let name = |item: Value| Some(item["metadata"]["name"].as_str()?.to_owned());
            names = take_items(&mut listed).into_iter().filter_map(name).collect();
        }
        let resource = target.resource;
        awaited.extend(names.into_iter().map(|name| Awaited { resource: resource.clone(), name }));
    }
    Ok(awaited)
}

fn not_found(resource: &ResourceType, name: &str) -> anyhow::Error {
    let message = format!("{} \"{name}\" not found", resource.full_plural());
    let status = Status { code: 404, ..Status::failure(&message, "NotFound") };
    RequestError::Refused(Box::new(status)).into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn goals_are_spelled_as_for_kubectl() {
        let condition = |name: &str, value: &str| Goal::Condition { name: name.into(), value: value.into() };
        assert_eq!("condition=Ready".parse(), Ok(condition("Ready", "True")));
        assert_eq!("condition=Ready=false".parse(), Ok(condition("Ready", "false")));
        assert_eq!("delete".parse(), Ok(Goal::Deleted));
        let path = JsonPath::parse("{.a[?(@.b==\"c\")].d}").unwrap();
        let goal = Goal::Path { path, value: Some("e=f".into()) };
        assert_eq!("jsonpath={.a[?(@.b==\"c\")].d}=e=f".parse(), Ok(goal));
        for text in ["", "ready", "condition=", "jsonpath={.a}x"] {
            assert!(text.parse::<Goal>().is_err(), "{text:?} was taken");
        }
    }

    #[test]
    fn goals_are_reached_when_the_object_says_so() {
        let pod = json!({"metadata": {"generation": 2}, "status": {"phase": "Running",
            "conditions": [{"type": "Ready", "status": "True"}]}});
        let reached = |goal: &str, object: Option<&Value>| goal.parse::<Goal>().unwrap().reached(object);
        assert!(reached("condition=ready", Some(&pod)));
        assert!(!reached("condition=Ready=False", Some(&pod)));
        assert!(reached("jsonpath={.status.phase}=Running", Some(&pod)));
        assert!(!reached("jsonpath={.status.reason}", Some(&pod)));
        assert!(reached("create", Some(&pod)) && !reached("create", None));
        assert!(reached("delete", None) && !reached("delete", Some(&pod)));
        let mut stale = pod.clone();
        stale["status"]["observedGeneration"] = json!(1);
        assert!(!reached("condition=Ready", Some(&stale)), "the status is of an older spec");
    }
}
