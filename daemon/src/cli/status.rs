//! `gaggle status`: who is here, who leads, and whether the cluster can act.

use super::Place;
use super::connection::{Connection, JSON};
use super::output::{OutputFormat, write_object};
use super::table::Columns;
use clap::ValueEnum;
use serde::Deserialize;
use std::io::Write;

/// Show who is here, who leads, and whether the cluster can act
#[derive(clap::Args, Debug)]
#[command(verbatim_doc_comment, after_help = EXAMPLES)]
pub struct StatusArgs {
    /// json: everything, for scripts
    #[arg(short, long, value_name = "FORMAT")]
    output: Option<StatusFormat>,
}

const EXAMPLES: &str = "\
Examples:
  gaggle status
  gaggle status -o json | jq -r .leader

Roles: the leader decides, voters keep the decisions safe with it, followers have a copy of them.";

#[derive(Clone, Copy, Debug, ValueEnum)]
enum StatusFormat {
    Json,
    Yaml,
}

/// What a daemon says of its cluster. What an older daemon does not say is left empty.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct ClusterStatus {
    cluster: Option<String>,
    group: Option<String>,
    epoch: u64,
    term: u64,
    revision: u64,
    leader: Option<String>,
    quorum: bool,
    there: u64,
    roster: u64,
    waiting: String,
    voters: Vec<String>,
    nodes: Vec<NodeStatus>,
    /// Sentences of the daemon about what is wrong.
    problems: Vec<String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct NodeStatus {
    name: String,
    addresses: Vec<String>,
    ready: bool,
    role: Option<String>,
    revision: u64,
    pods: Option<u64>,
    on_battery: Option<bool>,
    owner_active: Option<bool>,
}

impl NodeStatus {
    /// What speaks against its staying, as far as it is known.
    fn usage(&self) -> String {
        let signs = [(self.owner_active, "in use", "idle"), (self.on_battery, "on battery", "on mains")];
        let signs = signs.iter().filter_map(|(sign, yes, no)| sign.map(|sign| if sign { *yes } else { *no }));
        match signs.collect::<Vec<_>>().join(", ") {
            none if none.is_empty() => "-".to_owned(),
            signs => signs,
        }
    }
}

pub async fn run(place: &Place, args: StatusArgs) -> anyhow::Result<()> {
    let answer = Connection::open(place).await?.get("/gaggle/v1/status", JSON).await?;
    let mut out = std::io::stdout().lock();
    match args.output {
        Some(StatusFormat::Json) => write_object(&mut out, &answer, &OutputFormat::Json)?,
        Some(StatusFormat::Yaml) => write_object(&mut out, &answer, &OutputFormat::Yaml)?,
        None => show(&mut out, &serde_json::from_value(answer)?)?,
    }
    Ok(())
}

fn show(out: &mut impl Write, status: &ClusterStatus) -> std::io::Result<()> {
    let or_none = |text: &Option<String>| text.clone().unwrap_or_else(|| "none yet".to_owned());
    writeln!(
        out,
        "cluster {}, group {} (epoch {}, term {}), leader {}, {}, revision {}",
        or_none(&status.cluster),
        or_none(&status.group),
        status.epoch,
        status.term,
        or_none(&status.leader),
        acting(status),
        status.revision,
    )?;
    writeln!(out)?;
    let with_pods = status.nodes.iter().any(|node| node.pods.is_some());
    let mut header = vec!["NAME", "READY", "ROLE", "ADDRESS"];
    header.extend(with_pods.then_some("PODS"));
    let with_usage = status.nodes.iter().any(|node| node.usage() != "-");
    header.extend(with_usage.then_some("DESKTOP"));
    header.push("REVISION");
    let mut rows: Vec<Vec<String>> = vec![header.into_iter().map(str::to_owned).collect()];
    for node in &status.nodes {
        let mut row = vec![
            node.name.clone(),
            if node.ready { "yes" } else { "NO" }.to_owned(),
            node.role.clone().unwrap_or_else(|| "-".to_owned()),
            node.addresses.first().cloned().unwrap_or_else(|| "-".to_owned()),
        ];
        row.extend(with_pods.then(|| node.pods.map_or_else(|| "-".to_owned(), |pods| pods.to_string())));
        row.extend(with_usage.then(|| node.usage()));
        row.push(node.revision.to_string());
        rows.push(row);
    }
    Columns::default().print(out, &rows)?;
    let problems = problems(status);
    if !problems.is_empty() {
        writeln!(out)?;
    }
    for problem in problems {
        writeln!(out, "! {problem}")?;
    }
    Ok(())
}

/// Whether the cluster acts, and with how many behind it.
fn acting(status: &ClusterStatus) -> String {
    let count = match status.roster {
        0 => String::new(),
        roster => format!(" with {} of {roster} desktops", status.there),
    };
    if status.quorum { format!("acting{count}") } else { format!("WAITING{count}") }
}

/// What a user should know before trusting the table, the daemon's own sentences first.
fn problems(status: &ClusterStatus) -> Vec<String> {
    let mut problems = status.problems.clone();
    if status.group.is_none() {
        problems.push("no group has been founded or found yet: give it some seconds".to_owned());
    } else if !status.quorum {
        let why = if status.waiting.is_empty() { "no leader acts" } else { &status.waiting };
        problems.push(format!(
            "{why}; meanwhile pods keep running, writes are kept and take effect when the cluster acts again, and \
             nothing new is scheduled"
        ));
    }
    let absent: Vec<&str> =
        status.nodes.iter().filter(|node| !node.ready).map(|node| node.name.as_str()).collect();
    if !absent.is_empty() {
        problems.push(format!("not ready: {} (gaggle describe node NAME says why)", absent.join(", ")));
    }
    let lost: Vec<&str> = status
        .voters
        .iter()
        .filter(|voter| !status.nodes.iter().any(|node| node.name == **voter))
        .map(String::as_str)
        .collect();
    if !lost.is_empty() {
        problems.push(format!("voters that nobody sees: {}", lost.join(", ")));
    }
    problems
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn shown(status: serde_json::Value) -> String {
        let mut out = Vec::new();
        show(&mut out, &serde_json::from_value(status).unwrap()).unwrap();
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn a_healthy_cluster_is_a_line_and_a_table() {
        let text = shown(json!({"cluster": "c1", "group": "g1", "epoch": 1, "term": 2, "revision": 30,
            "leader": "pc1", "quorum": true, "there": 1, "roster": 1, "voters": ["pc1"], "nodes": [
            {"name": "pc1", "id": "x", "addresses": ["10.0.0.1:7474"], "ready": true, "role": "leader",
             "revision": 30}]}));
        assert_eq!(
            text,
            "cluster c1, group g1 (epoch 1, term 2), leader pc1, acting with 1 of 1 desktops, revision 30\n\n\
             NAME   READY   ROLE     ADDRESS         REVISION\n\
             pc1    yes     leader   10.0.0.1:7474   30\n"
        );
    }

    #[test]
    fn batteries_and_owners_are_shown_where_they_are_known() {
        let text = shown(json!({"group": "g1", "quorum": true, "nodes": [
            {"name": "pc1", "ready": true, "on_battery": null, "owner_active": true},
            {"name": "pc2", "ready": true, "on_battery": true, "owner_active": false},
            {"name": "pc3", "ready": true}]}));
        let column = |name: &str| {
            let line = text.lines().find(|line| line.starts_with(name)).unwrap();
            line.split("   ").map(str::trim).filter(|cell| !cell.is_empty()).nth(4).unwrap().to_owned()
        };
        assert_eq!(["NAME", "pc1", "pc2", "pc3"].map(column), ["DESKTOP", "in use", "idle, on battery", "-"]);
    }

    #[test]
    fn what_is_wrong_is_said() {
        let text = shown(json!({"cluster": "c1", "group": "g1", "leader": null, "quorum": false,
            "there": 1, "roster": 3, "waiting": "1 of 3 desktops are here: more than half are needed",
            "voters": ["pc1", "pc9"], "nodes": [{"name": "pc1", "ready": false}]}));
        for said in [
            "WAITING with 1 of 3",
            "leader none yet",
            "! 1 of 3 desktops are here",
            "! not ready: pc1",
            "! voters",
            "pc9",
        ] {
            assert!(text.contains(said), "{said} is missing in {text}");
        }
        assert!(shown(json!({})).contains("! no group"));
    }
}
