//! `gaggle up`: join the cluster of a phrase, or begin one, and stay until told to leave.

use super::{Place, say};
use crate::app::Milestone;
use crate::options::{
    Autonomy, CpuMillis, DEFAULT_DOCKER_HOST, DEFAULT_MAX_PODS, DockerHost, Label, MOST_VOTERS, MemoryBytes,
    NodeName, PeerAddress, Phrase, Surroundings, UpOptions, Voters, WeakPhrase, collect_labels,
    parse_api_listen, parse_listen,
};
use anyhow::Context;
use std::ffi::OsString;
use std::io::Write;
use std::net::SocketAddr;
use std::path::PathBuf;

/// Make this desktop part of a cluster, in the foreground
///
/// The same command on every desktop: whoever is first founds the cluster, the others find it (by mDNS on the
/// same network, by --peer elsewhere) and join. Without a phrase, a desktop that has been in a cluster rejoins
/// it, and a fresh one makes a phrase and prints the line to type on the others.
///
/// Whoever holds the phrase can run anything on every desktop of the cluster. The phrase is taken from the
/// argument (which is hidden from the process list at once), else --phrase-file, else GAGGLE_PHRASE.
///
/// Ctrl-C or SIGTERM leaves the cluster properly.
#[derive(clap::Args, Clone, Debug, PartialEq)]
#[command(verbatim_doc_comment, after_help = EXAMPLES)]
pub struct UpArgs {
    /// The phrase of the cluster: five words or more, in quotes or not
    #[arg(value_name = "PHRASE", hide_possible_values = true)]
    pub phrase: Vec<String>,
    /// Read the phrase from FILE, which should be readable by you alone
    #[arg(long, value_name = "FILE")]
    pub phrase_file: Option<PathBuf>,
    /// Ask for the phrase on the terminal, without showing it
    #[arg(long, conflicts_with_all = ["phrase", "phrase_file"])]
    pub ask: bool,
    /// Take a phrase that can be guessed: for trials on your own machine only
    #[arg(long)]
    pub force_weak_phrase: bool,
    /// The name of this node [default: the host name]
    #[arg(long, value_name = "NAME")]
    pub name: Option<NodeName>,
    /// Where Docker listens [default: unix:///var/run/docker.sock]
    #[arg(long, value_name = "URL", env = "DOCKER_HOST")]
    pub docker_host: Option<DockerHost>,
    /// Where the other desktops reach this one
    #[arg(long, value_name = "ADDRESS", default_value = "0.0.0.0:7474", value_parser = parse_listen)]
    pub listen: SocketAddr,
    /// Where the Kubernetes API listens
    #[arg(long, value_name = "ADDRESS", default_value = "0.0.0.0:6443", value_parser = parse_api_listen)]
    pub api_listen: SocketAddr,
    /// A desktop to reach beyond this network (may be repeated)
    #[arg(long = "peer", value_name = "HOST[:PORT]")]
    pub peers: Vec<PeerAddress>,
    /// A label of this node, for nodeSelector (may be repeated)
    #[arg(long = "label", value_name = "KEY=VALUE")]
    pub labels: Vec<Label>,
    /// The CPU that this desktop offers: cores, or thousandths as in 1500m [default: all]
    #[arg(long, value_name = "CORES")]
    pub cpu: Option<CpuMillis>,
    /// The memory that this desktop offers, as in 8Gi [default: all]
    #[arg(long, value_name = "AMOUNT")]
    pub memory: Option<MemoryBytes>,
    /// How many pods this desktop runs at most
    #[arg(long, value_name = "N", default_value_t = DEFAULT_MAX_PODS,
          value_parser = clap::value_parser!(u32).range(1..=1000))]
    pub max_pods: u32,
    /// How many desktops vote at most: 1, 3, 5 or 7. Give the same on all; the leader's counts
    #[arg(long, value_name = "N", default_value_t = Voters(MOST_VOTERS))]
    pub voters: Voters,
    /// Go on without the others after this long with less than half of the desktops (60s, 5m) [default: never]
    ///
    /// If the others live, they may go on too, and pods may run twice, until the two meet again. Where this is not
    /// wished, `gaggle recover` does the same when a person says so.
    #[arg(long, value_name = "DURATION")]
    pub autonomy: Option<Autonomy>,
    /// Say more of what happens (-vv: everything); GAGGLE_LOG sets filters exactly
    #[arg(short, long, action = clap::ArgAction::Count)]
    pub verbose: u8,
}

const EXAMPLES: &str = "\
Examples:
  gaggle up                                          found a cluster, or rejoin the last one
  gaggle up 'ivory canal seven lantern otter'        join with the phrase that the first desktop printed
  gaggle up --phrase-file /etc/gaggle.phrase         the same from a file, for a service manager
  gaggle up --peer pc7.lab.example                   reach a cluster on another network
  gaggle up --cpu 4 --memory 8Gi --label gpu=yes     offer a part of this desktop, and say what it has";

impl UpArgs {
    pub fn log_filter(&self) -> &'static str {
        // Automerge describes every column that it reads to whoever listens, which costs as much as the reading.
        match self.verbose {
            0 => "info,automerge=warn,libp2p=warn,chitchat=warn,openraft=off",
            1 => "info,automerge=warn,openraft=warn,gaggle=debug,gaggle_gossip=debug,gaggle_sched=debug",
            _ => "debug,gaggle=trace,gaggle_gossip=trace,gaggle_sched=trace",
        }
    }

    pub fn into_options(self, place: &Place, given: Option<Phrase>) -> anyhow::Result<UpOptions> {
        let here = Surroundings::here();
        let phrase = if self.ask { Some(ask_for_phrase()?) } else { given };
        let data_dir = match &place.data_dir {
            Some(chosen) => chosen.clone(),
            None => here.data_dir()?,
        };
        let options = UpOptions {
            phrase,
            weak_phrase: if self.force_weak_phrase { WeakPhrase::Allow } else { WeakPhrase::Refuse },
            name: self.name.map_or_else(|| NodeName::from_host_name(&here.host_name), Ok)?,
            data_dir: std::path::absolute(&data_dir)
                .with_context(|| format!("--data-dir {}", data_dir.display()))?,
            docker_host: self.docker_host.map_or_else(|| DEFAULT_DOCKER_HOST.parse(), Ok)?,
            listen: self.listen,
            api_listen: self.api_listen,
            peers: self.peers,
            labels: collect_labels(self.labels)?,
            cpu: self.cpu,
            memory: self.memory,
            max_pods: self.max_pods,
            voters: self.voters,
            autonomy: self.autonomy,
        };
        options.check()?;
        Ok(options)
    }

    /// The same command line without the phrase.
    pub fn without_phrase(&self, place: &Place) -> Vec<OsString> {
        let mut line: Vec<OsString> = vec!["up".into()];
        let mut option = |name: &str, value: OsString| {
            let mut joined = OsString::from(name);
            joined.push("=");
            joined.push(value);
            line.push(joined);
        };
        if let Some(dir) = &place.data_dir {
            option("--data-dir", dir.into());
        }
        if let Some(file) = &place.kubeconfig {
            option("--kubeconfig", file.into());
        }
        if let Some(file) = &self.phrase_file {
            option("--phrase-file", file.into());
        }
        if let Some(name) = &self.name {
            option("--name", name.to_string().into());
        }
        if let Some(host) = &self.docker_host {
            option("--docker-host", host.to_string().into());
        }
        option("--listen", self.listen.to_string().into());
        option("--api-listen", self.api_listen.to_string().into());
        for peer in &self.peers {
            option("--peer", peer.to_string().into());
        }
        for label in &self.labels {
            option("--label", label.to_string().into());
        }
        if let Some(cpu) = self.cpu {
            option("--cpu", cpu.to_string().into());
        }
        if let Some(memory) = self.memory {
            option("--memory", memory.to_string().into());
        }
        option("--max-pods", self.max_pods.to_string().into());
        option("--voters", self.voters.to_string().into());
        if let Some(autonomy) = self.autonomy {
            option("--autonomy", autonomy.to_string().into());
        }
        let flags = [("--ask", self.ask), ("--force-weak-phrase", self.force_weak_phrase)];
        line.extend(flags.into_iter().filter(|(_, given)| *given).map(|(flag, _)| flag.into()));
        line.extend((0..self.verbose).map(|_| "--verbose".into()));
        line
    }
}

/// Shows how the start goes on: what a person is to type or to read on standard output, the rest on standard error.
pub fn tell(milestone: Milestone) {
    let aside = |line: &str| {
        // Nobody may be reading any more, which is no reason for a daemon to stop.
        let _ = writeln!(std::io::stderr(), "{line}");
    };
    match milestone {
        Milestone::MadePhrase { phrase } => {
            say("A new cluster. Type this on the other desktops (whoever has the phrase rules them all):\n");
            say(&format!("  gaggle up {phrase}\n"));
        }
        Milestone::Step(step) => aside(&format!("… {step}")),
        Milestone::Problem(problem) => aside(&format!("! {problem}")),
        Milestone::Ready { name, nodes, data_dir, .. } => {
            let dir = match Surroundings::here().data_dir().is_ok_and(|usual| usual == data_dir) {
                true => String::new(),
                false => format!(" --data-dir {}", data_dir.display()),
            };
            let desktops = if nodes == 1 { "1 desktop".to_owned() } else { format!("{nodes} desktops") };
            say(&format!("{name} is ready, in a cluster of {desktops}. Look with: gaggle status{dir}"));
        }
        Milestone::Leaving(line) => aside(&format!("… {line}")),
        Milestone::Stopped => {}
    }
}

fn ask_for_phrase() -> anyhow::Result<Phrase> {
    let terminal = console::Term::stderr();
    anyhow::ensure!(terminal.is_term(), "--ask needs a terminal: give the phrase with --phrase-file FILE");
    terminal.write_str("Phrase of the cluster: ")?;
    Ok(Phrase::new(&terminal.read_secure_line()?)?)
}

#[cfg(test)]
mod tests {
    use super::super::{Cli, Command};
    use super::*;
    use clap::Parser;

    fn parse(line: &[&str]) -> (Place, UpArgs) {
        let cli = Cli::try_parse_from([&["gaggle"], line].concat()).unwrap();
        let Command::Up(args) = cli.command else { panic!("{line:?} is not `up`") };
        (cli.place, args)
    }

    #[test]
    fn starting_again_loses_the_phrase_and_nothing_else() {
        for line in [
            &["up", "a", "b c"][..],
            &["--data-dir", "/d", "up", "goose", "--name", "goose", "--peer", "goose", "-vv"],
            &["up", "--peer=a:1", "x", "--peer", "[::1]:2", "--label", "a=b", "--label", "c=", "y"],
            &["up", "x", "--cpu", "1.5", "--memory", "8Gi", "--max-pods", "7", "--force-weak-phrase"],
            &[
                "up",
                "x",
                "--listen",
                "7",
                "--api-listen",
                "[::]:8",
                "--docker-host",
                "/s",
                "--kubeconfig",
                "k",
                "--voters",
                "3",
                "--autonomy",
                "2m",
            ],
            &["up", "x", "--phrase-file", "/p"],
        ] {
            let (place, args) = parse(line);
            assert!(!args.phrase.is_empty());
            let again: Vec<String> =
                args.without_phrase(&place).into_iter().map(|word| word.into_string().unwrap()).collect();
            let (place_again, args_again) = parse(&again.iter().map(String::as_str).collect::<Vec<_>>());
            assert_eq!(place_again, place);
            assert_eq!(args_again, UpArgs { phrase: Vec::new(), ..args });
        }
    }

    #[test]
    fn bad_values_name_their_option_and_what_to_write() {
        for (line, option, advice) in [
            (&["up", "--name", "PC 1"][..], "--name", "lower-case"),
            (&["up", "--cpu", "many"], "--cpu", "1500m"),
            (&["up", "--memory", "8"], "--memory", "8Gi"),
            (&["up", "--label", "gpu"], "--label", "KEY=VALUE"),
            (&["up", "--peer", "http://pc"], "--peer", "HOST:PORT"),
            (&["up", "--listen", "pc1"], "--listen", "IP:PORT"),
            (&["up", "--docker-host", "ssh://pc"], "--docker-host", "unix://"),
            (&["up", "--max-pods", "0"], "--max-pods", "1..=1000"),
            (&["up", "--voters", "4"], "--voters", "1, 3, 5 or 7"),
            (&["up", "--autonomy", "5"], "--autonomy", "30s"),
        ] {
            let error = Cli::try_parse_from([&["gaggle"], line].concat()).unwrap_err();
            let text = error.to_string();
            assert_eq!(error.exit_code(), 2);
            assert!(text.contains(option) && text.contains(advice), "{text}");
        }
    }
}
