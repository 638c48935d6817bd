//! `bench`: several desktops with gaggle on this machine, to look at and to break.

use anyhow::{Context, Result, bail, ensure};
use clap::{Args, Parser, Subcommand};
use gaggle_tests::bench::{Bench, BenchConfig, Desktop, Image, Up, live, sweep};
use nix::sys::signal::{SaFlags, SigAction, SigHandler, SigSet, Signal, killpg, sigaction};
use nix::unistd::Pid;
use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::{OnceLock, mpsc};
use std::time::Duration;

/// A command that was interrupted deletes what it has submitted.
const CLEARS_UP_WITHIN: Duration = Duration::from_secs(10);
static SIGNALS: OnceLock<UnixStream> = OnceLock::new();

/// Several desktops on this machine, each with its own address, Docker engine and gaggle daemon.
#[derive(Parser)]
struct Arguments {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Subcommand)]
enum Verb {
    /// Bring desktops up and keep them until Ctrl-C, or until the command of --run has ended.
    Up(UpArguments),
    /// Run a command on a desktop: bench exec 1 -- kubectl get nodes
    Exec {
        /// Which desktop, from 1.
        desktop: usize,
        /// The command and its arguments.
        #[arg(last = true, required = true)]
        command: Vec<String>,
    },
    /// All processes of a desktop die; its cable stays.
    Crash { desktop: usize },
    /// A desktop falls silent and all its processes die.
    PowerCut { desktop: usize },
    /// Switch a desktop on again, with its daemon.
    On { desktop: usize },
    /// Close a desktop's lid.
    Suspend { desktop: usize },
    /// Open it again.
    Resume { desktop: usize },
    /// Kill a desktop's daemon and leave its containers alone.
    KillDaemon { desktop: usize },
    /// Start a daemon that was killed or left.
    StartDaemon { desktop: usize },
    /// Cut the network into groups: bench cut 1,2 3
    Cut {
        /// Desktops that still hear each other, with commas.
        #[arg(required = true)]
        groups: Vec<String>,
    },
    /// Join the network again.
    Heal,
    /// Show what a desktop's daemon has said.
    Log { desktop: usize },
    /// Take away what killed benches have left behind.
    Clean,
}

#[derive(Args)]
struct UpArguments {
    /// How many desktops.
    #[arg(short = 'n', long, default_value_t = 3)]
    desktops: usize,
    /// The cluster's phrase; without one the bench has its own.
    #[arg(long)]
    phrase_file: Option<PathBuf>,
    /// The gaggle binary; by default the one built beside this program.
    #[arg(long)]
    binary: Option<PathBuf>,
    /// Engines only, no daemons.
    #[arg(long)]
    engines_only: bool,
    /// Run this shell line on the bench's network, then take everything away and exit as it did.
    #[arg(long, value_name = "COMMAND")]
    run: Option<String>,
}

fn main() -> ExitCode {
    act_on(Arguments::parse().verb).unwrap_or_else(|error| {
        eprintln!("bench: {error:#}");
        ExitCode::FAILURE
    })
}

fn act_on(verb: Verb) -> Result<ExitCode> {
    match verb {
        Verb::Up(arguments) => up(arguments),
        Verb::Exec { desktop, command } => {
            let bench = attached()?;
            let error = pick(&bench, desktop)?.command(&command)?.exec();
            Err(error).with_context(|| format!("running {command:?}"))
        }
        Verb::Crash { desktop } => act(desktop, Desktop::crash),
        Verb::PowerCut { desktop } => act(desktop, Desktop::power_cut),
        Verb::On { desktop } => act(desktop, |desktop| {
            desktop.on()?;
            desktop.restart_daemon()
        }),
        Verb::Suspend { desktop } => act(desktop, Desktop::suspend),
        Verb::Resume { desktop } => act(desktop, Desktop::resume),
        Verb::KillDaemon { desktop } => act(desktop, Desktop::kill_daemon),
        Verb::StartDaemon { desktop } => act(desktop, Desktop::restart_daemon),
        Verb::Cut { groups } => {
            let groups = groups.iter().map(|group| parse_group(group)).collect::<Result<Vec<_>>>()?;
            attached()?.cut(&groups.iter().map(Vec::as_slice).collect::<Vec<_>>())?;
            Ok(ExitCode::SUCCESS)
        }
        Verb::Heal => {
            attached()?.heal()?;
            Ok(ExitCode::SUCCESS)
        }
        Verb::Log { desktop } => act(desktop, |desktop| {
            print!("{}", desktop.daemon_log());
            Ok(())
        }),
        Verb::Clean => {
            for name in sweep()? {
                println!("took {name} away");
            }
            Ok(ExitCode::SUCCESS)
        }
    }
}

/// What ends the foreground.
enum End {
    Signal(Signal),
    Command(std::io::Result<std::process::ExitStatus>),
}

fn up(arguments: UpArguments) -> Result<ExitCode> {
    let (send, ends) = mpsc::channel();
    let mut signals = catch_signals()?;
    let sender = send.clone();
    std::thread::spawn(move || {
        let mut number = [0];
        while signals.read_exact(&mut number).is_ok() {
            let signal = Signal::try_from(i32::from(number[0])).unwrap_or(Signal::SIGTERM);
            if sender.send(End::Signal(signal)).is_err() {
                return;
            }
        }
    });

    let start = match &arguments.phrase_file {
        Some(file) => {
            let phrase =
                std::fs::read_to_string(file).with_context(|| format!("reading {}", file.display()))?;
            Up::phrase(phrase.trim())
        }
        None => Up::default(),
    };
    let bench =
        Bench::new(BenchConfig { binary: arguments.binary, ..BenchConfig::desktops(arguments.desktops) })?;
    let image = bench.image(&Image::busybox())?;
    bench.each(|desktop| desktop.load(&image))?;
    if !arguments.engines_only {
        bench.each(|desktop| desktop.start_daemon(&start))?;
        bench.assembled(&(1..=arguments.desktops).collect::<Vec<_>>())?;
        bench.each(Desktop::make_kubeconfig)?;
    }
    let own = std::env::current_exe().context("finding the running program")?;
    let child = match &arguments.run {
        None => {
            describe(&bench, &own);
            None
        }
        Some(line) => Some(run(&bench, &own, line)?),
    };
    let group = child.as_ref().and_then(|child| i32::try_from(child.id()).ok()).map(Pid::from_raw);
    if let Some(mut child) = child {
        std::thread::spawn(move || send.send(End::Command(child.wait())));
    }
    let code = match ends.recv() {
        Ok(End::Command(status)) => {
            let status = status.context("waiting for the command")?;
            u8::try_from(status.code().unwrap_or(1)).unwrap_or(1)
        }
        Ok(End::Signal(signal)) => {
            if let Some(group) = group {
                // The command is asked first, so that it may clear up; a second signal hurries it.
                let _ = killpg(group, signal);
                let _ = ends.recv_timeout(CLEARS_UP_WITHIN);
            }
            eprintln!("taking the desktops away");
            if arguments.run.is_some() { 130 } else { 0 }
        }
        Err(_) => 1,
    };
    if let Some(group) = group {
        // What it left running would hold on to a network that is no more.
        let _ = killpg(group, Signal::SIGKILL);
    }
    drop(bench);
    Ok(ExitCode::from(code))
}

/// The numbers of signals, as they come. A handler, not a mask: what is started would inherit a mask.
fn catch_signals() -> Result<UnixStream> {
    let (read, write) = UnixStream::pair().context("making a pipe for signals")?;
    SIGNALS.set(write).ok().context("signals are caught already")?;
    let action = SigAction::new(SigHandler::Handler(note), SaFlags::SA_RESTART, SigSet::empty());
    for signal in [Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP] {
        // SAFETY: `note` only calls write(2), which a signal handler may.
        unsafe { sigaction(signal, &action) }.with_context(|| format!("catching {signal}"))?;
    }
    Ok(read)
}

extern "C" fn note(signal: i32) {
    if let (Some(mut pipe), Ok(number)) = (SIGNALS.get(), u8::try_from(signal)) {
        let _ = pipe.write_all(&[number]);
    }
}

fn run(bench: &Bench, own: &std::path::Path, line: &str) -> Result<std::process::Child> {
    let layout = bench.layout();
    bench
        .visitor(line)?
        .env("GAGGLE_BENCH", &layout.dir)
        .env("BENCH", own)
        .env("GAGGLE_BINARY", &layout.binary)
        .env("KUBECONFIG", bench.desktop(1).kubeconfig_file())
        .process_group(0)
        .spawn()
        .with_context(|| format!("running `{line}`"))
}

fn describe(bench: &Bench, own: &std::path::Path) {
    let own = own.display();
    println!("{} desktops are up:", bench.desktops().len());
    for desktop in bench.desktops() {
        println!("  {}  {}  {own} exec {} -- bash", desktop.name(), desktop.address(), desktop.index());
    }
    println!("kubectl on the first one:  {own} exec 1 -- kubectl get nodes");
    println!("its kubeconfig:            {}", bench.desktop(1).kubeconfig_file().display());
    println!("break something:           {own} power-cut 3;  {own} cut 1,2 3;  {own} heal;  {own} on 3");
    println!("Ctrl-C takes them away.");
}

/// The bench that `GAGGLE_BENCH` names, or the only one there is.
fn attached() -> Result<Bench> {
    if let Some(dir) = std::env::var_os("GAGGLE_BENCH") {
        return Bench::attach(&PathBuf::from(dir));
    }
    match live()?.as_slice() {
        [] => bail!("no bench is up: start one with `bench up`"),
        [dir] => Bench::attach(dir),
        several => bail!("several benches are up, choose one with GAGGLE_BENCH=DIR: {several:?}"),
    }
}

fn pick(bench: &Bench, index: usize) -> Result<&Desktop> {
    let count = bench.desktops().len();
    ensure!((1..=count).contains(&index), "there is no desktop {index}: they are numbered 1 to {count}");
    Ok(bench.desktop(index))
}

fn act(index: usize, action: impl FnOnce(&Desktop) -> Result<()>) -> Result<ExitCode> {
    action(pick(&attached()?, index)?)?;
    Ok(ExitCode::SUCCESS)
}

fn parse_group(text: &str) -> Result<Vec<usize>> {
    text.split(',')
        .map(|number| number.parse().with_context(|| format!("{number:?} is no desktop: write 1,2 3")))
        .collect()
}
