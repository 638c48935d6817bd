//! `gaggle evict`: removes a desktop for good, also one that is dead.

use super::Place;
use super::connection::{Connection, JSON};
use super::failure::{AlreadyReported, Usage};
use super::target::Query;
use axum::http::Method;
use serde_json::Value;
use std::io::{BufRead, IsTerminal, Write};

/// Remove a desktop for good, dead or alive
///
/// Its pods are made again elsewhere, and its key is refused from now on: if it is still running, its daemon
/// stops. A desktop that is only switched off for a while needs no eviction.
#[derive(clap::Args, Debug)]
#[command(verbatim_doc_comment, after_help = EXAMPLES)]
pub struct EvictArgs {
    /// The node, as `gaggle status` lists it, or its id
    #[arg(value_name = "NAME")]
    node: String,
    /// Do not ask
    #[arg(short, long)]
    yes: bool,
}

const EXAMPLES: &str = "\
Examples:
  gaggle evict pc7
  gaggle evict pc7 --yes

To come back, the desktop needs a new key: gaggle up --data-dir NEW-DIRECTORY, or the old one moved away.";

pub async fn run(place: &Place, args: EvictArgs) -> anyhow::Result<()> {
    if !args.yes && !confirmed(&args.node)? {
        writeln!(std::io::stdout(), "{} stays", args.node)?;
        return Err(AlreadyReported.into());
    }
    let connection = Connection::open(place).await?;
    let path = Query::default().with("node", &args.node).on("/gaggle/v1/evict");
    let answer = connection.write(Method::POST, &path, JSON, &Value::Null).await?;
    let told = |field: &str| answer[field].as_str().unwrap_or_default().to_owned();
    writeln!(
        std::io::stdout(),
        "{} evicted; its key {} is refused from now on",
        told("evicted"),
        told("id")
    )?;
    Ok(())
}

fn confirmed(node: &str) -> anyhow::Result<bool> {
    let input = std::io::stdin();
    if !input.is_terminal() {
        return Err(Usage(format!("nobody can be asked here: say `gaggle evict {node} --yes`")).into());
    }
    let mut out = std::io::stdout().lock();
    write!(out, "Evict {node} for good? Its pods move away and its key is never accepted again. [y/N] ")?;
    out.flush()?;
    let mut line = String::new();
    input.lock().read_line(&mut line)?;
    Ok(is_yes(&line))
}

fn is_yes(line: &str) -> bool {
    matches!(line.trim().to_ascii_lowercase().as_str(), "y" | "yes")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_plain_yes_evicts() {
        for (line, yes) in
            [("y\n", true), ("Yes\r\n", true), ("\n", false), ("", false), ("no\n", false), ("yep", false)]
        {
            assert_eq!(is_yes(line), yes, "{line:?}");
        }
    }
}
