//! The command line: one file per verb, each with its `Args` and one `run`.
//!
//! Every verb but `up` is a client of the local daemon's API and knows nothing of the daemon's inside. Printing
//! to standard output happens here and nowhere else in the project.

mod apply;
mod connection;
mod delete;
mod describe;
mod discovery;
mod down;
mod evict;
mod exec;
mod failure;
mod follow;
mod get;
mod guard;
mod hand_over;
mod image;
mod kubeconfig;
mod logs;
mod manifests;
mod output;
mod recover;
mod scale;
mod status;
mod table;
mod target;
mod terminal;
mod up;
mod version;
mod wait;

use anyhow::Context;
use clap::{Args, Parser, Subcommand};
use std::path::PathBuf;
use std::process::ExitCode;
use tracing_subscriber::EnvFilter;

/// Threads of the daemon: a desktop's owner is using the other cores.
const DAEMON_THREADS: usize = 2;
/// Replaces the log filter of any command, in the syntax of `tracing` (`info,gaggle=debug`).
pub const LOG_VARIABLE: &str = "GAGGLE_LOG";

/// A masterless cluster of ordinary desktops.
#[derive(Debug, Parser)]
#[command(name = "gaggle", version, after_help = EXAMPLES, arg_required_else_help = true)]
struct Cli {
    #[command(flatten)]
    place: Place,
    #[command(subcommand)]
    command: Command,
}

const EXAMPLES: &str = "\
Five minutes:
  gaggle up                                 on the first desktop; prints the line for the others
  gaggle up 'five words that it printed'    on every other desktop
  gaggle status                             who is here, and who leads
  gaggle apply -f job.yaml                  run something (Kubernetes manifests)
  gaggle get pods -o wide                   see where it runs
  gaggle logs -f job/hello                  and what it says
  gaggle exec -it web -- sh                 look around in a pod
  gaggle down                               leave properly before switching off for good

kubectl works too: gaggle kubeconfig > ~/.kube/gaggle && KUBECONFIG=~/.kube/gaggle kubectl get nodes

Exit codes: 0 done, 1 it failed (standard error says why), 2 the command line is wrong; that of the command for exec.";

/// Which versions of the wire and disk formats this process pretends to know, for rehearsing an upgrade.
const FORMATS_VARIABLE: &str = "GAGGLE_FORMATS";

/// Which daemon is meant.
#[derive(Args, Clone, Debug, Default, PartialEq)]
#[command(next_help_heading = "Which daemon")]
struct Place {
    /// Where the node keeps its data [default: /var/lib/gaggle for root, else ~/.local/share/gaggle]
    #[arg(long, global = true, value_name = "DIR", env = "GAGGLE_DATA_DIR")]
    data_dir: Option<PathBuf>,
    /// Reach the API by this kubeconfig instead of the one in the data directory
    #[arg(long, global = true, value_name = "FILE")]
    kubeconfig: Option<PathBuf>,
}

#[derive(Debug, Subcommand)]
enum Command {
    Up(up::UpArgs),
    #[command(hide = true)]
    Guard(guard::GuardArgs),
    #[command(flatten)]
    Client(ClientCommand),
}

/// The verbs that ask a running daemon.
#[derive(Debug, Subcommand)]
enum ClientCommand {
    Down(down::DownArgs),
    Evict(evict::EvictArgs),
    Status(status::StatusArgs),
    Recover(recover::RecoverArgs),
    Kubeconfig(kubeconfig::KubeconfigArgs),
    Image(image::ImageArgs),
    Apply(apply::ApplyArgs),
    Get(get::GetArgs),
    Describe(describe::DescribeArgs),
    Logs(logs::LogsArgs),
    Exec(exec::ExecArgs),
    Delete(delete::DeleteArgs),
    Scale(scale::ScaleArgs),
    Wait(wait::WaitArgs),
    Version(version::VersionArgs),
}

/// The whole process, from arguments to exit code.
pub fn main() -> ExitCode {
    let Cli { place, command } = Cli::parse();
    match run(place, command) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => failure::report(&error),
    }
}

fn run(place: Place, command: Command) -> anyhow::Result<()> {
    // Fails only when a provider is there already, which serves as well.
    let _ = rustls::crypto::ring::default_provider().install_default();
    rehearse_upgrade()?;
    match command {
        Command::Up(args) => {
            let secret = hand_over::take_phrase(&place, &args)?;
            log_to_stderr(args.log_filter());
            let options = args.into_options(&place, secret)?;
            tokio::runtime::Builder::new_multi_thread()
                .worker_threads(DAEMON_THREADS)
                .enable_all()
                .build()?
                .block_on(crate::app::run(options, up::tell))
        }
        Command::Guard(args) => {
            log_to_stderr("info");
            guard::run(place, args)
        }
        Command::Client(command) => {
            log_to_stderr("warn");
            tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(ask(&place, command))
        }
    }
}

/// Lets this process pretend to be the build before or after this one. The only place that reads the variable.
fn rehearse_upgrade() -> anyhow::Result<()> {
    let Ok(text) = std::env::var(FORMATS_VARIABLE) else { return Ok(()) };
    let gossip: gaggle_gossip::Formats =
        text.parse().with_context(|| format!("{FORMATS_VARIABLE}={text}"))?;
    let gaggle_gossip::Formats { oldest, newest, written } = gossip;
    gossip.rehearse();
    gaggle_sched::Formats { oldest, newest, written }.rehearse();
    Ok(())
}

async fn ask(place: &Place, command: ClientCommand) -> anyhow::Result<()> {
    match command {
        ClientCommand::Down(args) => down::run(place, args).await,
        ClientCommand::Evict(args) => evict::run(place, args).await,
        ClientCommand::Status(args) => status::run(place, args).await,
        ClientCommand::Recover(args) => recover::run(place, args).await,
        ClientCommand::Kubeconfig(args) => kubeconfig::run(place, args).await,
        ClientCommand::Image(args) => image::run(place, args).await,
        ClientCommand::Apply(args) => apply::run(place, args).await,
        ClientCommand::Get(args) => get::run(place, args).await,
        ClientCommand::Describe(args) => describe::run(place, args).await,
        ClientCommand::Logs(args) => logs::run(place, args).await,
        ClientCommand::Exec(args) => exec::run(place, args).await,
        ClientCommand::Delete(args) => delete::run(place, args).await,
        ClientCommand::Scale(args) => scale::run(place, args).await,
        ClientCommand::Wait(args) => wait::run(place, args).await,
        ClientCommand::Version(args) => version::run(place, args).await,
    }
}

/// Says something to the person who started the daemon. Nobody may be reading any more, which is no reason for a
/// daemon to stop.
pub fn say(line: &str) {
    use std::io::Write;
    let mut out = std::io::stdout().lock();
    let _ = writeln!(out, "{line}").and_then(|()| out.flush());
}

fn log_to_stderr(default_filter: &str) {
    let filter = EnvFilter::try_from_env(LOG_VARIABLE).unwrap_or_else(|_| EnvFilter::new(default_filter));
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        // No colours in a file or a journal.
        .with_ansi(std::io::IsTerminal::is_terminal(&std::io::stderr()))
        .with_target(false)
        // Nobody may be reading any more: a guard whose daemon died with its terminal still has to do its work.
        .log_internal_errors(false)
        .init();
}
