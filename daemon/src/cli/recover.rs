//! `gaggle recover`: go on with less than half of the desktops, because a person takes the risk.

use super::Place;
use super::connection::{Connection, JSON};
use axum::http::Method;
use serde_json::{Value, json};
use std::io::{BufRead, IsTerminal, Write};

/// Go on without the desktops that are missing
///
/// A cluster acts while more than half of its desktops are here. With less it keeps its pods running and what
/// people write, and waits. This command makes those who are here go on by themselves, from the newest state that
/// any of them holds.
///
/// The risk: if the others still run, cut off from here, they may go on as well, and pods may run on both sides. When
/// both meet again they become one cluster by themselves: what people wrote on either side is kept, and pods that
/// ran twice are reduced to what was asked for.
#[derive(clap::Args, Debug)]
#[command(verbatim_doc_comment, after_help = EXAMPLES)]
pub struct RecoverArgs {
    /// Do not ask
    #[arg(short, long)]
    yes: bool,
}

const EXAMPLES: &str = "\
Examples:
  gaggle status          how many desktops are here, of how many
  gaggle recover         explain the risk, ask, and go on
  gaggle recover --yes   for scripts that know what they do

gaggle up --autonomy 5m does the same unasked, after five minutes.";

pub async fn run(place: &Place, args: RecoverArgs) -> anyhow::Result<()> {
    let connection = Connection::open(place).await?;
    let status = connection.get("/gaggle/v1/status", JSON).await?;
    let mut out = std::io::stdout();
    writeln!(out, "{}", risk(&status))?;
    if !args.yes {
        let input = std::io::stdin();
        anyhow::ensure!(input.is_terminal(), "nobody can be asked here: say --yes if you take the risk");
        write!(out, "Go on without them? Type yes: ")?;
        out.flush()?;
        let mut answer = String::new();
        input.lock().read_line(&mut answer)?;
        anyhow::ensure!(answer.trim() == "yes", "nothing was done");
    }
    let answer = connection.write(Method::POST, "/gaggle/v1/recover", JSON, &json!({})).await?;
    writeln!(out, "{}", answer["done"].as_str().unwrap_or("done"))?;
    Ok(())
}

fn risk(status: &Value) -> String {
    let count = |field: &str| status[field].as_u64().unwrap_or_default();
    let missing = status["nodes"].as_array().into_iter().flatten().filter(|node| node["role"] == "gone");
    let missing: Vec<&str> = missing.filter_map(|node| node["name"].as_str()).collect();
    let missing = if missing.is_empty() { "the others".to_owned() } else { missing.join(", ") };
    format!(
        "{} of {} desktops are here. If {missing} still run somewhere, cut off from here, they may go on too, and pods \
         may run on both sides until they meet again; then both become one cluster. If you can switch them on or mend \
         the network, do that instead.",
        count("there"),
        count("roster"),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_risk_names_who_is_missing() {
        let status = json!({"there": 2, "roster": 5, "nodes": [
            {"name": "pc1", "role": "voter"}, {"name": "pc3", "role": "gone"}, {"name": "pc4", "role": "gone"}]});
        let text = risk(&status);
        assert!(text.starts_with("2 of 5 desktops are here. If pc3, pc4 still run"), "{text}");
    }
}
