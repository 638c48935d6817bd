//! `gaggle get`: show objects, as a table of the server's making or as they are.

use super::Place;
use super::connection::{Connection, JSON};
use super::discovery::Catalogue;
use super::failure::{Tally, Usage};
use super::follow::{Seen, follow, list};
use super::output::{OutputFormat, take_items, write_object, write_watched};
use super::table::{Detail, Headers, Labels, Namespaces, TablePrinter, TableStyle};
use super::target::{NamespaceArgs, Query, Target, parse_targets};
use serde_json::{Value, json};
use std::io::Write;
use std::ops::ControlFlow;

/// Asks the server for rows and columns instead of objects.
pub const TABLE: &str = "application/json;as=Table;v=v1;g=meta.k8s.io,application/json";

/// Show objects
///
/// TYPE is a plural, singular or short name (pods, pod, po), several with commas, or `all`.
#[derive(clap::Args, Debug)]
#[command(verbatim_doc_comment, after_help = EXAMPLES)]
pub struct GetArgs {
    /// TYPE, TYPE NAME..., or TYPE/NAME...
    #[arg(required = true, value_name = "TYPE[/NAME] [NAME]")]
    what: Vec<String>,
    #[command(flatten)]
    namespace: NamespaceArgs,
    /// In all namespaces
    #[arg(short = 'A', long, conflicts_with = "namespace")]
    all_namespaces: bool,
    /// Only objects with these labels (app=web, tier!=test, env in (a,b))
    #[arg(short = 'l', long)]
    selector: Option<String>,
    /// Only objects with these fields (status.phase=Running)
    #[arg(long)]
    field_selector: Option<String>,
    /// wide, json, yaml, name, or jsonpath={.status.phase}
    #[arg(short, long, value_name = "FORMAT")]
    output: Option<OutputFormat>,
    /// Go on showing what changes
    #[arg(short, long)]
    watch: bool,
    /// Show the labels in a last column
    #[arg(long)]
    show_labels: bool,
    /// Leave the line of headers out
    #[arg(long)]
    no_headers: bool,
    /// Do not fail when a named object does not exist
    #[arg(long)]
    ignore_not_found: bool,
}

const EXAMPLES: &str = "\
Examples:
  gaggle get pods -o wide              with the desktop that each runs on
  gaggle get pods -A -l app=web        in all namespaces, by label
  gaggle get deploy/web -o yaml        one object, whole
  gaggle get jobs -w                   and what becomes of them
  gaggle get all                       what runs in this namespace";

pub async fn run(place: &Place, args: GetArgs) -> anyhow::Result<()> {
    let connection = Connection::open(place).await?;
    let catalogue = Catalogue::read(&connection).await?;
    let targets = parse_targets(&catalogue, &args.what)?;
    let named = targets.iter().any(|target| !target.names.is_empty());
    if named && (args.selector.is_some() || args.field_selector.is_some()) {
        return Err(Usage("a name and a selector together: give one of them".into()).into());
    }
    if named && args.all_namespaces {
        return Err(Usage("a name cannot be looked up in all namespaces: give -n NAMESPACE".into()).into());
    }
    let namespace = args.namespace.resolve(&connection)?;
    let getter = Getter {
        connection,
        namespace: if args.all_namespaces { None } else { Some(namespace) },
        query: Query::default()
            .with_some("labelSelector", args.selector.as_deref())
            .with_some("fieldSelector", args.field_selector.as_deref()),
        args,
    };
    match (&getter.args.output, getter.args.watch) {
        (_, true) => getter.watch(&targets).await,
        (None | Some(OutputFormat::Wide), false) => getter.tables(&targets).await,
        (Some(format), false) => getter.objects(&targets, format).await,
    }
}

struct Getter {
    connection: Connection,
    /// `None`: all.
    namespace: Option<String>,
    query: Query,
    args: GetArgs,
}

impl Getter {
    /// One answer for each name, or one for the whole collection.
    fn paths(&self, target: &Target) -> Vec<String> {
        let namespace = self.namespace.as_deref();
        if target.names.is_empty() {
            return vec![self.query.on(&target.resource.collection_path(namespace))];
        }
        target.names.iter().map(|name| target.resource.object_path(namespace, name)).collect()
    }

    async fn answers(&self, target: &Target, accept: &str, tally: &mut Tally) -> Vec<Value> {
        let mut answers = Vec::new();
        if target.names.is_empty() {
            let path = target.resource.collection_path(self.namespace.as_deref());
            let listed = list(&self.connection, &path, &self.query, accept).await;
            answers.extend(tally.note(listed.map_err(Into::into)));
            return answers;
        }
        for path in self.paths(target) {
            match self.connection.get(&path, accept).await {
                Err(error) if error.is_not_found() && self.args.ignore_not_found => {}
                answer => answers.extend(tally.note(answer.map_err(Into::into))),
            }
        }
        answers
    }

    fn printer(&self, target: &Target, several_types: bool) -> TablePrinter {
        let wide = matches!(self.args.output, Some(OutputFormat::Wide));
        let across = self.args.all_namespaces && target.resource.namespaced;
        let style = TableStyle {
            detail: if wide { Detail::Wide } else { Detail::Narrow },
            namespaces: if across { Namespaces::Show } else { Namespaces::Hide },
            labels: if self.args.show_labels { Labels::Show } else { Labels::Hide },
            headers: if self.args.no_headers { Headers::Hide } else { Headers::Show },
        };
        let prefix =
            if several_types { format!("{}/", target.resource.full_singular()) } else { String::new() };
        TablePrinter::new(style, prefix)
    }

    async fn tables(&self, targets: &[Target]) -> anyhow::Result<()> {
        let several = several_types(targets);
        let mut tally = Tally::default();
        let mut out = std::io::stdout().lock();
        let mut printed = false;
        let mut asked_by_name = false;
        for group in by_type(targets) {
            asked_by_name |= !group.names.is_empty();
            let mut table: Option<Value> = None;
            for answer in self.answers(&group, TABLE, &mut tally).await {
                merge_rows(&mut table, answer);
            }
            let Some(table) =
                table.filter(|table| table["rows"].as_array().is_some_and(|rows| !rows.is_empty()))
            else {
                continue;
            };
            if printed {
                writeln!(out)?;
            }
            printed = true;
            self.printer(&group, several).print(&mut out, &table)?;
        }
        out.flush()?;
        let result = tally.finish();
        if result.is_ok() && !printed && !asked_by_name {
            match &self.namespace {
                Some(namespace) if targets.iter().any(|target| target.resource.namespaced) => {
                    eprintln!("No resources found in {namespace} namespace.");
                }
                _ => eprintln!("No resources found"),
            }
        }
        result
    }

    async fn objects(&self, targets: &[Target], format: &OutputFormat) -> anyhow::Result<()> {
        let mut tally = Tally::default();
        let mut items = Vec::new();
        for target in targets {
            for mut answer in self.answers(target, JSON, &mut tally).await {
                if target.names.is_empty() {
                    items.extend(take_items(&mut answer).into_iter().map(|item| (target, item)));
                } else {
                    items.push((target, answer));
                }
            }
        }
        let mut out = std::io::stdout().lock();
        if let OutputFormat::Name = format {
            for (target, item) in &items {
                let name = item["metadata"]["name"].as_str().unwrap_or_default();
                writeln!(out, "{}/{name}", target.resource.full_singular())?;
            }
            out.flush()?;
            return tally.finish();
        }
        let single = targets.iter().map(|target| target.names.len()).sum::<usize>() == 1;
        let mut objects: Vec<Value> = items.into_iter().map(|(_, item)| item).collect();
        let whole = match objects.pop() {
            Some(object) if single => Some(object),
            None if single => None,
            last => {
                objects.extend(last);
                let metadata = json!({"resourceVersion": ""});
                Some(json!({"apiVersion": "v1", "kind": "List", "metadata": metadata, "items": objects}))
            }
        };
        if let Some(whole) = whole {
            write_object(&mut out, &whole, format)?;
        }
        out.flush()?;
        tally.finish()
    }

    async fn watch(&self, targets: &[Target]) -> anyhow::Result<()> {
        let [target] = targets else {
            return Err(Usage("one type at a time can be watched".into()).into());
        };
        let query = match target.names.as_slice() {
            [] => self.query.clone(),
            [name] => Query::default().with("fieldSelector", format!("metadata.name={name}")),
            _ => return Err(Usage("one name at a time can be watched".into()).into()),
        };
        let path = target.resource.collection_path(self.namespace.as_deref());
        let mut printer = self.printer(target, false);
        let format = self.args.output.clone().filter(|format| !matches!(format, OutputFormat::Wide));
        let accept = if format.is_some() { JSON } else { TABLE };
        let singular = target.resource.full_singular();
        follow(&self.connection, &path, &query, accept, |seen| {
            let mut out = std::io::stdout().lock();
            let (Seen::Listed(value) | Seen::Changed(value) | Seen::Deleted(value)) = seen;
            match (&format, seen) {
                (None, _) => printer.print(&mut out, value)?,
                (Some(format), Seen::Listed(list)) => {
                    for item in list["items"].as_array().into_iter().flatten() {
                        write_watched(&mut out, item, format, &singular)?;
                    }
                }
                (Some(format), _) => write_watched(&mut out, value, format, &singular)?,
            }
            out.flush()?;
            Ok(ControlFlow::<()>::Continue(()))
        })
        .await
    }
}

fn several_types(targets: &[Target]) -> bool {
    targets.windows(2).any(|pair| pair[0].resource != pair[1].resource)
}

/// `pod/a pod/b node/c` is two tables, not three.
fn by_type(targets: &[Target]) -> Vec<Target> {
    let mut groups: Vec<Target> = Vec::new();
    for target in targets {
        match groups.iter_mut().find(|group| group.resource == target.resource) {
            Some(group) => group.names.extend(target.names.iter().cloned()),
            None => groups.push(target.clone()),
        }
    }
    groups
}

fn merge_rows(table: &mut Option<Value>, mut answer: Value) {
    match table {
        None => *table = Some(answer),
        Some(table) => {
            if let (Some(rows), Some(more)) = (table["rows"].as_array_mut(), answer["rows"].as_array_mut()) {
                rows.append(more);
            }
        }
    }
}
